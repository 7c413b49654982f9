// How much users may have answered: at once, on all nodes and on one, and how many tokens in a
// window. Whoever is refused is told why, when to ask again and what to do.

import assert from 'node:assert/strict';
import { at, rest } from './harness/rest.mjs';
import { assertFields, eventually, joined, no, nodeOf, ok, sessionId, suite } from './harness.mjs';

/** Says 40 tokens a second for five seconds. */
const SLOW = { prompt: 'Slowly?', agentId: 'slow' };

const begin = (device, id) => ok(device.socket, 'stream:request', { sessionId: id, ...SLOW });

/** Refused, over a socket and over REST: with when to ask again, and with what to do. */
async function isRefused(device, id, [code, status], says) {
  const error = await no(device.socket, code, 'stream:request', { sessionId: id, ...SLOW });
  assertFields(error, { retryAfterMs: 'int' }, code);
  assert.match(error.message, says);
  const told = await rest(device.node, device.sub).refused(status, code, 'POST', '/api/chat/streams', { sessionId: id, ...SLOW });
  assert.match(told.message, says);
  assert.ok(Number(told.retryAfter) > 0, `Retry-After: ${told.retryAfter}`);
}

const OVERLOADED = ['OVERLOADED', 503];
const RATE_LIMIT = ['RATE_LIMIT', 429];

suite('so many at once for a user', { nodes: 2, env: { MAX_CONCURRENT_STREAMS: '2' } }, (e2e) => {
  e2e('counted on all nodes; one that is stopped makes room', {}, async (cluster) => {
    const ids = [sessionId('limit'), sessionId('limit'), sessionId('limit')];
    const devices = await Promise.all(ids.map((id, n) => joined(nodeOf(cluster, n), 'alice', id)));
    const first = await begin(devices[0], ids[0]);
    await begin(devices[1], ids[1]);
    for (const n of [0, 1]) await isRefused(devices[n], ids[n], OVERLOADED, /At most 2 streams at once: wait for one, or stop one/);
    const other = sessionId('limit');
    await begin(await joined(cluster.nodes[1], 'bob', other), other);

    await ok(devices[1].socket, 'stream:stop', { streamId: first.streamId });
    await devices[0].heard.finished(first.streamId);
    const again = await begin(devices[2], ids[2]);
    await ok(devices[2].socket, 'stream:stop', { streamId: again.streamId });
  });
});

suite('so many at once on a node', { nodes: 2, env: { MAX_NODE_STREAMS: '1' } }, (e2e) => {
  e2e('another node takes more', {}, async (cluster) => {
    const ids = [sessionId('full'), sessionId('full')];
    const alice = await joined(cluster.nodes[0], 'alice', ids[0]);
    const bob = await joined(cluster.nodes[0], 'bob', ids[1]);
    const { streamId } = await begin(alice, ids[0]);
    await isRefused(bob, ids[1], OVERLOADED, /as many streams as it takes: ask again/);
    await begin(await joined(cluster.nodes[1], 'bob', ids[1]), ids[1]);
    await ok(alice.socket, 'stream:stop', { streamId });
    await alice.heard.finished(streamId);
    await eventually(async () => {
      const reply = await bob.socket.timeout(5_000).emitWithAck('stream:request', { sessionId: ids[1], ...SLOW });
      return reply.ok;
    }, { what: 'there is room again' });
  });
});

suite('so many tokens for a user', { nodes: 2, env: { TOKEN_BUDGET: '100/30d' } }, (e2e) => {
  e2e('answers on two nodes end where nothing is left, and what they said is kept', {}, async (cluster) => {
    const ids = [sessionId('budget'), sessionId('budget')];
    const asking = await Promise.all(ids.map((id, n) => joined(nodeOf(cluster, n), 'alice', id)));
    const reading = await Promise.all(ids.map((id, n) => joined(nodeOf(cluster, n + 1), 'alice', id)));
    const streams = await Promise.all(ids.map((id, n) => begin(asking[n], id)));
    for (const [n, { streamId }] of streams.entries()) {
      const texts = [];
      for (const { heard } of [asking[n], reading[n]]) {
        const { name, payload } = await heard.finished(streamId);
        assert.equal(name, 'stream:error');
        assertFields(payload.error, { code: 'string', message: 'string', retryAfterMs: 'int' }, 'the error');
        assert.equal(payload.error.code, 'RATE_LIMIT');
        assert.match(payload.error.message, /budget of 100 tokens .* is spent: ask again in \d+ s/);
        texts.push(heard.follow(streamId).text);
      }
      const { messages } = await rest(cluster.nodes[0], 'alice').get(at.history(ids[n]));
      const answer = messages.find(({ role }) => role === 'assistant');
      assert.deepEqual(texts, [answer.content, answer.content], 'readers saw what is stored');
      const words = answer.content.split(/\s+/).length;
      assert.ok(words > 10 && words < 190, `${words} words: not at once, and not the whole answer`);
    }
    for (const n of [0, 1]) await isRefused(asking[n], ids[n], RATE_LIMIT, /is spent: ask again in \d+ s/);
    // Another user has a budget of their own.
    const other = sessionId('budget');
    const bob = await joined(cluster.nodes[0], 'bob', other);
    const { streamId } = await ok(bob.socket, 'stream:request', { sessionId: other, prompt: 'Quickly?', agentId: 'instant' });
    assert.equal((await bob.heard.finished(streamId)).name, 'stream:complete');
  });
});
