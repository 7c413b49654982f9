// Two nodes write into one session at once: a reader on a third one hears the messages in the order
// of the history, each once, also while one of the nodes loses its connections to Redis.

import assert from 'node:assert/strict';
import { eventually, flushed, joined, ok, random, suite } from './harness.mjs';
import { at, makeSession, rest } from './harness/rest.mjs';

const EACH = 150;
const AT_ONCE = 8;

/** Sends from several places of one device, not waiting for one another. */
async function chatter({ socket }, id, who, onSent) {
  let next = 0;
  const worker = async () => {
    while (next < EACH) {
      const n = next;
      next += 1;
      await ok(socket, 'message:send', { sessionId: id, content: `${who} ${n}`, clientMessageId: `${who}-${n}` });
      onSent?.(n);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

/** The ids of a session's messages in the order of its history. */
async function history(node, id) {
  const api = rest(node, 'alice');
  const ids = [];
  for (let offset = 0; ; offset += 100) {
    const { messages, hasMore } = await api.get(at.history(id, `?limit=100&offset=${offset}`));
    ids.unshift(...messages.map((message) => message.id));
    if (!hasMore) return ids;
  }
}

suite('order', { nodes: 3, proxied: true, env: { REDIS_COMMAND_TIMEOUT: '1s', SOCKET_COMMANDS_MAX: '256' } }, (e2e) => {
  for (const cuts of [false, true]) {
    e2e(cuts ? 'one node is cut off from Redis now and then' : 'nothing goes wrong', { timeout: 120_000 }, async (cluster) => {
      const id = await makeSession(cluster.nodes[0], 'alice', ['bob']);
      const alice = await joined(cluster.nodes[0], 'alice', id);
      const bob = await joined(cluster.nodes[1], 'bob', id);
      const reader = await joined(cluster.nodes[2], 'alice', id);
      let cut = 0;
      const { below } = random();
      let next = 5 + below(10);
      const onSent = (n) => {
        if (!cuts || n < next) return;
        next = n + 10 + below(20);
        cut += cluster.nodes[0].toRedis.cut();
      };
      await Promise.all([chatter(alice, id, 'alice', onSent), chatter(bob, id, 'bob')]);
      if (cuts) assert.ok(cut >= 4, `${cut} connections were cut`);
      const stored = await history(cluster.nodes[2], id);
      assert.equal(stored.length, 2 * EACH);
      assert.equal(new Set(stored).size, 2 * EACH);
      for (const { heard } of [reader, alice, bob]) {
        await eventually(() => heard.of('message:new').length >= stored.length, { within: 30_000, what: 'all is heard' });
      }
      await eventually(async () => (await cluster.database.query('SELECT count(*) FROM outbox')) === '0', { within: 20_000, every: 100, what: 'the outbox is empty' });
      await flushed(reader, alice, bob);
      for (const { heard, sub } of [reader, alice, bob]) {
        assert.deepEqual(heard.of('message:new').map((message) => message.id), stored, `${sub}: in the order of the history, each once`);
      }
    });
  }
});
