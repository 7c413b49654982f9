// How far an answer is and what it took, asked over REST of any node, by whoever sees its session.

import assert from 'node:assert/strict';
import { assertFields, eventually, joined, ok, sessionId, suite, SHAPES, token } from './harness.mjs';
import { at, makeSession, rest } from './harness/rest.mjs';

const STATUS = { streamId: 'string', sessionId: 'string', status: 'string', progress: 'number', tokensGenerated: 'int', startedAt: '?string' };
const ENDED = { ...STATUS, startedAt: 'string', completedAt: 'string' };
const METRICS = { streamId: 'string', totalTokens: 'int', tokensPerSecond: 'number', latency: '?int', bandwidth: '?int', errors: 'int' };

const agents = {
  quick: { tokensPerSecond: 400, tokens: 60 },
  endless: { tokensPerSecond: 40, tokens: 100_000 },
};

for (const [shape, options] of Object.entries(SHAPES)) {
  suite(shape, { ...options, agents }, (e2e) => {
    e2e('an answer that has ended is told alike by every node', {}, async ({ nodes }) => {
      const id = sessionId('status');
      const { socket, heard } = await joined(nodes[0], 'alice', id);
      const { streamId, messageId } = await ok(socket, 'stream:request', { sessionId: id, prompt: 'x', agentId: 'quick' });
      await heard.finished(streamId);
      const { tokens } = await rest(nodes[0], 'alice').get(at.message(messageId));
      for (const node of nodes) {
        const api = rest(node, 'alice');
        const status = await api.get(at.status(streamId));
        assertFields(status, ENDED, 'status');
        assert.deepEqual(
          [status.streamId, status.sessionId, status.status, status.progress, status.tokensGenerated],
          [streamId, id, 'completed', 1, tokens],
        );
        assert.ok(status.startedAt <= status.completedAt);
        const metrics = await api.get(at.metrics(streamId));
        assertFields(metrics, METRICS, 'metrics');
        assert.deepEqual([metrics.streamId, metrics.totalTokens, metrics.errors], [streamId, tokens, 0]);
        assert.ok(metrics.tokensPerSecond > 0);
        assert.ok(Number.isInteger(metrics.latency));
      }
    });

    e2e('an answer that runs is followed on another node, until it is stopped there', {}, async ({ nodes }) => {
      const id = sessionId('status');
      const { socket, heard } = await joined(nodes[0], 'alice', id);
      const config = { maxTokens: 50_000 };
      const { streamId, messageId } = await rest(nodes[0], 'alice').post('/api/chat/streams', { sessionId: id, prompt: 'x', agentId: 'endless', config });
      const api = rest(nodes.at(-1), 'alice');
      let before = 0;
      for (let round = 0; round < 2; round += 1) {
        const status = await eventually(async () => {
          const found = await api.get(at.status(streamId));
          return found.tokensGenerated > before && found;
        }, { what: 'more tokens' });
        assertFields(status, STATUS, 'status');
        assert.equal(status.status, 'streaming');
        assert.equal(status.progress, status.tokensGenerated / config.maxTokens);
        before = status.tokensGenerated;
      }
      const metrics = await eventually(async () => {
        const found = await api.get(at.metrics(streamId));
        return found.bandwidth > 0 && found;
      }, { what: 'bytes given to the reader' });
      assertFields(metrics, { ...METRICS, latency: 'int', bandwidth: 'int' }, 'metrics');
      assert.ok(metrics.totalTokens >= before && metrics.tokensPerSecond > 0, JSON.stringify(metrics));
      await ok(socket, 'stream:stop', { streamId });
      await heard.finished(streamId);

      const { tokens } = await api.get(at.message(messageId));
      const stopped = await api.get(at.status(streamId));
      assertFields(stopped, ENDED, 'status');
      assert.deepEqual([stopped.status, stopped.tokensGenerated], ['stopped', tokens]);
      assert.equal(stopped.progress, tokens / config.maxTokens);
      assert.equal((await api.get(at.metrics(streamId))).totalTokens, tokens);
    });

    e2e('only who sees the session sees its streams', {}, async ({ nodes }) => {
      const id = await makeSession(nodes[0], 'alice', ['bob']);
      const api = rest(nodes[0], 'alice');
      const { streamId } = await api.post('/api/chat/streams', { sessionId: id, prompt: 'x', agentId: 'quick' });
      for (const path of [at.status, at.metrics]) {
        await rest(nodes.at(-1), 'bob').get(path(streamId));
        const eve = rest(nodes.at(-1), 'eve');
        const told = [];
        for (const stream of [streamId, streamId.replace(/^.{8}/, '00000000')]) {
          const error = await eve.refused(404, 'NOT_FOUND', 'GET', path(stream));
          told.push({ ...error, streamId: error.streamId === stream });
        }
        assert.deepEqual(told[0], told[1]);
        await eve.refused(404, 'NOT_FOUND', 'GET', path('no-uuid'));
        await rest(nodes[0], 'x', { jwt: null }).refused(401, 'AUTH_ERROR', 'GET', path(streamId));
        const stream = token({ sub: 'alice', claims: { type: 'sse' } });
        await rest(nodes[0], 'x', { jwt: stream }).refused(401, 'AUTH_ERROR', 'GET', path(streamId));
      }
      await api.delete(at.session(id));
      await api.refused(404, 'NOT_FOUND', 'GET', at.status(streamId));
    });
  });
}
