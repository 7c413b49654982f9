// A provider that refuses, breaks off, or says nothing: asked again before the first visible token and
// never after it, another agent instead, and four limits of time.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { after } from 'node:test';
import { startUpstream } from './harness/upstream.mjs';
import { assertError, joined, lasting, ok, sessionId, suite } from './harness.mjs';

const upstream = await startUpstream();
// It accepts connections and says nothing, so that TLS never begins.
const mute = createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1');
await once(mute, 'listening');
after(async () => {
  mute.close();
  await upstream.stop();
});

const TEXT = 'Grüße, 世界 😀';
const tell = (ask) => ask.tell(TEXT);

/** What becomes of the n-th request for a model. */
const HANDLERS = {
  'busy-once': (ask, n) => (n === 0 ? ask.refuse(503, { 'retry-after': '1' }) : tell(ask)),
  'limited-once': (ask, n) => (n === 0 ? ask.refuse(429, { 'retry-after': '1' }) : tell(ask)),
  'failing-once': (ask, n) => (n === 0 ? ask.refuse(500) : tell(ask)),
  'broken-before': (ask, n) => {
    if (n > 0) return tell(ask);
    ask.begin();
    return ask.breakOff();
  },
  'ended-before': (ask, n) => {
    if (n > 0) return tell(ask);
    ask.begin();
    return ask.finish();
  },
  'broken-after': async (ask) => {
    ask.say(TEXT);
    await lasting(300);
    ask.breakOff();
  },
  'ended-after': async (ask) => {
    ask.say(TEXT);
    await lasting(300);
    ask.finish();
  },
  wrong: (ask) => ask.refuse(400),
  busy: (ask) => ask.refuse(503, { 'retry-after': '0' }),
  later: (ask) => ask.refuse(429, { 'retry-after': '3600' }),
  backup: tell,
  silent: (ask) => ask.begin(),
  stalling: (ask) => ask.say(TEXT),
  endless: async (ask) => {
    while (ask.open) {
      ask.say('on and ');
      await lasting(50);
    }
  },
};
for (const [model, handler] of Object.entries(HANDLERS)) upstream.on(model, handler);

const agents = {
  ...Object.fromEntries(Object.keys(HANDLERS).map((model) => [model, upstream.agent(model, { timeout: '3s' })])),
  silent: upstream.agent('silent', { timeout: '400ms' }),
  stalling: upstream.agent('stalling', { timeout: '400ms' }),
  unreachable: upstream.agent('unreachable', { timeout: '3s', baseUrl: `https://127.0.0.1:${mute.address().port}/v1` }),
  backup: upstream.agent('backup', { timeout: '3s', provider: 'anthropic' }),
  'wrong-first': upstream.agent('wrong', { timeout: '3s', fallback: 'backup' }),
  'silent-first': upstream.agent('silent', { timeout: '400ms', fallback: 'backup' }),
  'broken-first': upstream.agent('broken-after', { timeout: '3s', fallback: 'backup' }),
  'two-wrong': upstream.agent('wrong', { timeout: '3s', fallback: 'wrong-first' }),
};
const env = { ...upstream.env, STREAM_RETRIES: '2', PROVIDER_CONNECT_TIMEOUT: '400ms', STREAM_TIMEOUT: '4s', STREAM_MAX_DURATION: '4s' };

suite('a provider that fails', { nodes: 2, agents, env }, (e2e) => {
  /** Asks an agent from one node and listens on the other: how it ended, and the requests it led to. */
  const answer = async (cluster, agentId) => {
    const id = sessionId('fails');
    const reader = await joined(cluster.nodes[1], 'alice', id);
    const asker = await joined(cluster.nodes[0], 'alice', id);
    const before = upstream.asks.length;
    const { streamId } = await ok(asker.socket, 'stream:request', { sessionId: id, prompt: 'Hi', agentId });
    const { name, payload } = await reader.heard.finished(streamId);
    const seen = reader.heard.follow(streamId);
    const asks = upstream.asks.slice(before);
    const columns = "status, provider, model, errors, coalesce(content, ''), coalesce(metadata->>'error', '')";
    const [status, provider, model, errors, content, why] = (await cluster.database.query(
      `SELECT ${columns} FROM stream LEFT JOIN message ON message.id = message_id WHERE stream.id = '${streamId}'`,
    )).split('|');
    assert.equal(upstream.open(), 0, 'nothing is left connected');
    assert.doesNotMatch(JSON.stringify(reader.heard.events), /secret|sk-/, 'nothing of the upstream leaks');
    return { name, payload, text: seen.text, asks, stored: { status, provider, model, errors: Number(errors), content, why } };
  };

  const succeeds = ({ name, payload, text, stored }, expected = TEXT) => {
    assert.equal(name, 'stream:complete', JSON.stringify(payload));
    assert.deepEqual([text, payload.message.content, stored.content, stored.status], [expected, expected, expected, 'completed']);
  };
  const fails = ({ name, payload, text, stored }, code, expected) => {
    assert.equal(name, 'stream:error', JSON.stringify(payload));
    assertError(payload.error, code);
    assert.equal(text, expected, 'the text so far');
    assert.deepEqual([stored.status, stored.content], ['failed', expected], 'it is kept');
  };

  for (const agentId of ['busy-once', 'limited-once', 'failing-once', 'broken-before', 'ended-before']) {
    e2e(`${agentId}: it is asked again`, {}, async (cluster) => {
      const said = await answer(cluster, agentId);
      succeeds(said);
      assert.equal(said.asks.length, 2);
      assert.equal(said.stored.errors, 1, 'and it is counted');
      if (/busy|limited/.test(agentId)) assert.ok(said.asks[1].at - said.asks[0].at >= 950, 'when it said so');
    });
  }

  for (const agentId of ['broken-after', 'ended-after', 'broken-first']) {
    e2e(`${agentId}: nobody is asked again once there is text`, {}, async (cluster) => {
      const said = await answer(cluster, agentId);
      fails(said, 'PROVIDER_ERROR', TEXT);
      assert.equal(said.asks.length, 1);
    });
  }

  e2e('what is no use to repeat is not repeated', {}, async (cluster) => {
    const said = await answer(cluster, 'wrong');
    fails(said, 'PROVIDER_ERROR', '');
    assert.equal(said.asks.length, 1);
  });

  e2e('it is not asked for ever', {}, async (cluster) => {
    const said = await answer(cluster, 'busy');
    fails(said, 'OVERLOADED', '');
    assert.equal(said.asks.length, 3, 'once, and two more times');
  });

  e2e('a Retry-After that is too long is not waited for, and passed on', {}, async (cluster) => {
    const said = await answer(cluster, 'later');
    fails(said, 'OVERLOADED', '');
    assert.equal(said.payload.error.retryAfterMs, 3_600_000);
  });

  for (const [agentId, models] of [
    ['wrong-first', ['wrong', 'backup']],
    ['two-wrong', ['wrong', 'wrong', 'backup']],
    ['silent-first', ['silent', 'backup']],
  ]) {
    e2e(`${agentId}: the fallback answers, and it is known who did`, {}, async (cluster) => {
      const said = await answer(cluster, agentId);
      succeeds(said);
      assert.deepEqual([...new Set(said.asks.map(({ model }) => model))], [...new Set(models)]);
      assert.equal(said.asks.at(-1).protocol, 'anthropic');
      assert.deepEqual([said.stored.provider, said.stored.model], ['anthropic', 'backup']);
    });
  }

  e2e('four limits: to connect', {}, async (cluster) => {
    const said = await answer(cluster, 'unreachable');
    assert.equal(said.name, 'stream:error');
    assert.ok(['TIMEOUT', 'PROVIDER_ERROR'].includes(said.payload.error.code), said.payload.error.code);
  });
  e2e('four limits: to the first token', {}, async (cluster) => fails(await answer(cluster, 'silent'), 'TIMEOUT', ''));
  e2e('four limits: between tokens', {}, async (cluster) => {
    const said = await answer(cluster, 'stalling');
    fails(said, 'TIMEOUT', TEXT);
    assert.equal(said.asks.length, 1);
  });
  e2e('four limits: the whole', {}, async (cluster) => {
    const said = await answer(cluster, 'endless');
    assert.equal(said.name, 'stream:error');
    assertError(said.payload.error, 'TIMEOUT');
    assert.ok(said.text.length > 100 && said.stored.content === said.text, 'the text so far is kept');
  });
});
