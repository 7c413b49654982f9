// Edges hold clients and run nothing; generators run answers and hold nobody.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { begin, closing, ended, everybody, isStored, newest, written } from './harness/families.mjs';
import { rest } from './harness/rest.mjs';
import { prompt, startUpstream, story, teller } from './harness/upstream.mjs';
import { ask, assertError, eventually, get, metrics, ok, open, sessionId, suite, token } from './harness.mjs';

const upstream = await startUpstream();
after(() => upstream.stop());
upstream.on('story', teller({ perSecond: 60 }));
const agents = { assistant: { tokensPerSecond: 60, tokens: 60 }, story: upstream.agent('story') };
const roles = ['edge', 'edge', 'generator', 'generator'].map((ROLE) => ({ ROLE }));

const rowOf = async (cluster, streamId) => {
  const [status, attempt, role, address] = (await cluster.database.query(
    `SELECT status, attempt, role, address FROM stream LEFT JOIN node ON node.id = owner_node_id WHERE stream.id = '${streamId}'`,
  )).split('|');
  return { status, attempt: Number(attempt), role, address };
};

/** An answer asked for on an edge and read by all families on both. */
async function answer(cluster, question) {
  const who = await begin(cluster);
  const [one, two] = cluster.nodes;
  const readers = await everybody([one.url, two.url], who);
  const ids = await rest(two, who.sub).post('/api/chat/streams', { sessionId: who.id, prompt: question, agentId: 'story' });
  return { who, readers, question, ...ids };
}

async function endsWell(cluster, { who, readers, question, streamId }) {
  for (const reader of readers) await ended(reader);
  const stored = await newest(cluster, who);
  for (const reader of readers) isStored(reader, stored, story(question).join(''));
  const row = await rowOf(cluster, streamId);
  assert.equal(row.status, 'completed');
  return row;
}

/** The generator that has this answer's upstream. */
const runner = (cluster) => eventually(async () => {
  for (const n of [2, 3]) {
    if (cluster.nodes[n].alive && (await metrics(cluster.nodes[n])).sum('llm_streams_active') > 0) return n;
  }
  return undefined;
}, { what: 'a generator runs it' });

suite('roles', { nodes: 4, each: roles, agents, env: upstream.env }, (e2e) => {
  e2e('an answer asked for on an edge runs on a generator', { timeout: 60_000 }, closing(async (cluster) => {
    for (let n = 0; n < 4; n += 1) {
      const asked = await answer(cluster, prompt(40, `edge-${n}`));
      const row = await endsWell(cluster, asked);
      assert.deepEqual([row.role, row.attempt], ['generator', 1]);
    }
    for (const edge of cluster.nodes.slice(0, 2)) assert.equal((await metrics(edge)).sum('llm_streams_total'), 0);
  }));

  e2e('it is told at once: an answer does not wait to be found', { timeout: 30_000 }, async (cluster) => {
    // Found by looking it would take a second at least.
    const { socket, heard } = await open(cluster.nodes[0].url, { token: token() });
    const waits = [];
    for (let n = 0; n < 5; n += 1) {
      const before = performance.now();
      const { streamId } = await ok(socket, 'stream:request', { sessionId: sessionId('told'), prompt: 'At once?', agentId: 'assistant' });
      await heard.next('stream:chunk', (chunk) => chunk.streamId === streamId);
      waits.push(performance.now() - before);
      await heard.finished(streamId);
    }
    assert.ok(Math.min(...waits) < 900, `first text after ${waits.map(Math.round)} ms`);
  });

  e2e('a generator holds no clients', {}, async (cluster) => {
    for (const { url } of cluster.nodes.slice(2)) {
      for (const path of ['/livez', '/healthz', '/readyz']) assert.equal((await get(`${url}${path}`)).status, 200, path);
      const headers = { Authorization: `Bearer ${token()}` };
      for (const path of ['/', '/api/chat/sessions', '/api/chat/agents', '/chat/stream/s', '/openapi.json', '/asyncapi.json', '/socket.io/?EIO=4&transport=polling']) {
        assert.equal((await get(`${url}${path}`, { headers })).status, 404, path);
      }
    }
    for (const edge of cluster.nodes.slice(0, 2)) assert.equal((await get(`${edge.url}/readyz`)).status, 200);
  });

  e2e('the generator is killed: the other one goes on', { timeout: 60_000 }, closing(async (cluster) => {
    const asked = await answer(cluster, prompt(300, 'killed'));
    await eventually(() => written(asked.readers[0]).length > 100, { what: 'text' });
    const n = await runner(cluster);
    cluster.nodes[n].signal('SIGKILL');
    await cluster.nodes[n].exited;
    const row = await endsWell(cluster, asked);
    assert.deepEqual([row.role, row.attempt], ['generator', 2], 'no edge takes it over');
    await cluster.again(n);
  }));

  e2e('an edge is killed and another stopped: the answer does not notice', { timeout: 60_000 }, closing(async (cluster) => {
    const asked = await answer(cluster, prompt(300, 'edges'));
    await eventually(() => written(asked.readers[0]).length > 100, { what: 'text' });
    cluster.nodes[1].signal('SIGKILL'); // where it was asked
    await cluster.nodes[1].exited;
    await cluster.again(1);
    const { url } = cluster.nodes[0];
    const left = asked.readers.filter((reader) => reader.url === url);
    const row = await endsWell(cluster, { ...asked, readers: left });
    assert.equal(row.attempt, 1);
    assert.equal(upstream.of(':edges').length, 1);
    const next = await answer(cluster, prompt(20, 'next'));
    await endsWell(cluster, next);
  }));

  e2e('no generator: OVERLOADED; what was accepted before is answered when one comes', { timeout: 60_000 }, async (cluster) => {
    const { socket, heard } = await open(cluster.nodes[0].url, { token: token() });
    for (const node of cluster.nodes.slice(2)) node.signal('SIGKILL');
    await Promise.all(cluster.nodes.slice(2).map(({ exited }) => exited));
    // Until their silence is noticed they may still be given some.
    const accepted = [];
    const refused = await eventually(async () => {
      const reply = await ask(socket, 'stream:request', { sessionId: sessionId('none'), prompt: 'Anybody?', agentId: 'assistant' });
      if (reply.ok) accepted.push(reply.streamId);
      return reply.ok ? undefined : reply.error;
    }, { every: 300, what: 'it is refused' });
    assertError(refused, 'OVERLOADED', 'stream:request');
    assert.ok(refused.retryAfterMs > 0, 'and told when to try again');
    assert.ok(accepted.length > 0, 'nobody noticed at once');
    await rest(cluster.nodes[1], 'alice').refused(503, 'OVERLOADED', 'POST', '/api/chat/streams', { sessionId: sessionId('none'), prompt: 'Anybody?' });
    await Promise.all([2, 3].map((n) => cluster.again(n)));
    for (const streamId of accepted) assert.equal((await heard.finished(streamId)).name, 'stream:complete');
    await eventually(async () => (await ask(socket, 'stream:request', { sessionId: sessionId('some'), prompt: 'Anybody?', agentId: 'assistant' })).ok, { what: 'asked again' });
  });
});
