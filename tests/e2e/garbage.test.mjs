// Garbage on the cluster's channels and in its keys: passed over and counted, told of now and then
// without what it was, and no client notices. A key of the wrong type harms its own session only.

import assert from 'node:assert/strict';
import { ask, eventually, joined, metrics, ok, random, sessionId, suite } from './harness.mjs';
import { at, rest } from './harness/rest.mjs';
import { connectRedis } from './harness/resp.mjs';

const MARK = 'NEVER-TO-BE-LOGGED';
const MIB = 1024 * 1024;

const counted = async (cluster) =>
  (await Promise.all(cluster.nodes.map(metrics))).reduce((total, node) => total + node.sum('cluster_garbage_total'), 0);

/** What no node can have written, and every node has to count. */
function garbage(dice, real) {
  const bytes = (length) => Buffer.from(Array.from({ length }, () => dice.below(256)));
  const mark = Buffer.from(MARK);
  const kinds = [
    () => Buffer.concat([Buffer.from([0xff]), bytes(dice.below(200)), mark]),
    () => Buffer.alloc(0),
    () => Buffer.from(dice.pick(['C', 'E', 'S1', 'E1', 'N1', 'A1', 'P1', 'C1'])),
    // A kind that is known, and then nothing that is.
    () => Buffer.concat([Buffer.from(dice.pick(['E1', 'S1', 'N1', 'A1', 'P1'])), bytes(dice.below(100)), mark]),
    () => Buffer.concat([Buffer.from('C1'), bytes(dice.below(52))]),
    () => Buffer.concat([Buffer.from('C1'), bytes(52), Buffer.from([0xff, 0xfe])]),
    // Versions to come.
    () => Buffer.concat([Buffer.from(dice.pick(['C2', 'E2', 'S2', 'N9', 'A2', 'P2', 'Z1'])), dice.pick(real).subarray(2)]),
    () => Buffer.from(`S1{"v":2,"signal":{"${MARK}":{}}}`),
    () => Buffer.from('P118446744073709551615'),
    () => Buffer.from(`A1{"disconnect":{"user":""},"${MARK}":1}`),
    () => Buffer.from(`E118446744073709551615-1 {"v":2}`),
  ];
  return dice.pick(kinds)();
}

suite('garbage', { nodes: 2, fresh: true, env: { WS_THROTTLE_LIMIT: '0' } }, (e2e) => {
  e2e('2,000 pieces on every channel while an answer is streamed: counted, and nobody notices', { timeout: 120_000 }, async (cluster) => {
    const dice = random(Number(process.env.SEED ?? 7));
    const id = sessionId('garbage');
    const readers = [await joined(cluster.nodes[0], 'alice', id), await joined(cluster.nodes[1], 'alice', id)];
    let disconnects = 0;
    for (const { socket } of readers) socket.on('disconnect', () => (disconnects += 1));
    const redis = await connectRedis(cluster.redis.url);
    try {
      // What is really said, to be cut and replayed.
      const spy = await connectRedis(cluster.redis.url);
      await spy.send('SSUBSCRIBE', `tc:{${id}}`);
      const first = await ok(readers[0].socket, 'stream:request', { sessionId: id, prompt: 'First', agentId: 'instant' });
      for (const { heard } of readers) await heard.finished(first.streamId);
      const real = spy.heard.map((frame) => Buffer.from(frame));
      spy.end();
      assert.ok(real.some((frame) => frame.subarray(0, 2).equals(Buffer.from('C1'))) && real.length > 3, `${real.length} frames were heard`);

      const channels = (await redis.send('PUBSUB', 'SHARDCHANNELS', 'tc:*')).map(String);
      assert.ok(channels.length >= 4, `a session's, two nodes' and all nodes' channel: ${channels}`);
      const before = await counted(cluster);
      const { streamId } = await ok(readers[1].socket, 'stream:request', { sessionId: id, prompt: 'Second', agentId: 'slow' });
      let arrived = 0;
      for (let n = 0; n < 2_000; n += 1) {
        arrived += await redis.send('SPUBLISH', channels[n % channels.length], garbage(dice, real));
        if (n % 10 === 0) {
          // May be readable all the same, and says nothing new.
          const whole = dice.pick(real);
          await redis.send('SPUBLISH', `tc:{${id}}`, whole.subarray(0, dice.below(whole.length + 1)));
        }
      }
      assert.ok(arrived >= 2_000, `${arrived} arrived`);
      await eventually(async () => (await counted(cluster)) - before >= arrived, { what: `${arrived} are counted` });
      for (const channel of channels) await redis.send('SPUBLISH', channel, Buffer.alloc(10 * MIB, MARK));
      for (const { heard } of readers) {
        assert.equal((await heard.finished(streamId)).name, 'stream:complete');
        const { text, message } = heard.follow(streamId);
        assert.equal(message.content, text);
      }
      await ok(readers[0].socket, 'message:send', { sessionId: id, content: 'still here' });
      await readers[1].heard.next('message:new', ({ content }) => content === 'still here');
      assert.equal(disconnects, 0);
      assert.deepEqual(readers[0].heard.said().filter((name) => name === 'error'), []);
      for (const node of cluster.nodes) {
        const log = node.log(100_000);
        assert.ok(node.alive && !log.includes('panicked') && !log.includes(MARK), log.slice(-2_000));
        const lines = log.split('\n').filter((line) => line.includes('does not understand'));
        assert.ok(lines.length >= 1 && lines.length <= 12, `${lines.length} lines about it`);
      }
    } finally {
      redis.end();
    }
  });

  e2e('garbage in the keys of a session and a user: who joins later has all the rest', { timeout: 60_000 }, async (cluster) => {
    const id = sessionId('kept');
    const alice = await joined(cluster.nodes[0], 'alice', id);
    const { message } = await ok(alice.socket, 'message:send', { sessionId: id, content: 'one' });
    const redis = await connectRedis(cluster.redis.url);
    try {
      const log = `tc:{${id}}:log`;
      const newest = await eventually(async () => String((await redis.send('XREVRANGE', log, '+', '-', 'COUNT', '1'))[0]?.[0] ?? '') || undefined);
      const epoch = newest.split('-')[0];
      const bodies = [Buffer.from([0xff, 0, 1]), '', '{', '{"v":1}', `{"v":1,"id":"${MARK}"}`, '[]'.repeat(1_000)];
      for (const body of bodies) await redis.send('XADD', log, `${epoch}-*`, 'e', body);
      await redis.send('XADD', log, `${epoch}-*`, 'e', '{"v":2,"event":{"later":{}}}');
      await redis.send('XADD', log, `${epoch}-*`, MARK, 'x', 'more', 'y');
      await redis.send('HSET', `tc:{${id}}:online`, 'alice', MARK, 'no one', Buffer.from([0xff]));
      await redis.send('ZADD', `tc:{${id}}:recent`, '9e15', Buffer.from(`{${MARK}`));
      for (const user of ['alice', 'bob']) await redis.send('HSET', `tc:{user:${user}}:devices`, MARK, MARK, '@seen', 'never');
      await redis.send('SET', `tc:{user:bob}:limit:message:send`, MARK);
      await redis.send('SET', `tc:{${id}}:rev`, MARK);

      const before = await counted(cluster);
      const late = await joined(cluster.nodes[1], 'alice', id, { lastMessageId: message.id });
      await joined(cluster.nodes[1], 'bob', sessionId('own'));
      await ok(late.socket, 'message:send', { sessionId: id, content: 'two' });
      for (const { heard } of [alice, late]) await heard.next('message:new', ({ content }) => content === 'two');
      const { streamId } = await ok(alice.socket, 'stream:request', { sessionId: id, prompt: 'Well?', agentId: 'assistant' });
      await late.heard.next('stream:chunk', (chunk) => chunk.streamId === streamId);
      for (const key of (await redis.send('KEYS', `tc:{${id}}:tally:*`)).map(String)) await redis.send('HSET', key, 'tokens', MARK);
      assert.equal((await rest(cluster.nodes[1], 'alice').get(at.status(streamId))).streamId, streamId);
      for (const { heard } of [alice, late]) assert.equal((await heard.finished(streamId)).name, 'stream:complete');
      assert.equal(alice.heard.follow(streamId).text, late.heard.follow(streamId).text);
      assert.ok((await counted(cluster)) >= before + bodies.length, `${before}, then ${await counted(cluster)}`);
      for (const node of cluster.nodes) assert.ok(!node.log(100_000).includes(MARK), 'it is logged');
    } finally {
      redis.end();
    }
  });

  e2e('keys of the wrong type harm their own session, until they are gone', { timeout: 90_000 }, async (cluster) => {
    const [broken, whole] = [sessionId('broken'), sessionId('whole')];
    const redis = await connectRedis(cluster.redis.url);
    const [a, b] = [await joined(cluster.nodes[0], 'alice', whole), await joined(cluster.nodes[1], 'alice', whole)];
    const victim = await joined(cluster.nodes[0], 'victim', broken);
    try {
      const keys = ['log', 'rev', 'online', 'recent'].map((name) => `tc:{${broken}}:${name}`);
      for (const [n, key] of keys.entries()) {
        await redis.send('DEL', key);
        if (n < 1 || n > 1) await redis.send('SET', key, 'of the wrong type');
        else await redis.send('LPUSH', key, 'of the wrong type');
      }
      // What it is answered is its own business; that it is answered is not.
      await ask(victim.socket, 'message:send', { sessionId: broken, content: 'lost?' });
      const { streamId: theirs } = await ask(victim.socket, 'stream:request', { sessionId: broken, prompt: 'Lost?', agentId: 'instant' });
      // The others, also after Redis' connections were cut and logs are compared with the store.
      for (const round of ['before', 'after']) {
        await ok(a.socket, 'message:send', { sessionId: whole, content: round });
        await b.heard.next('message:new', ({ content }) => content === round);
        const { streamId } = await ok(b.socket, 'stream:request', { sessionId: whole, prompt: round, agentId: 'instant' });
        for (const { heard } of [a, b]) assert.equal((await heard.finished(streamId)).name, 'stream:complete');
        if (round === 'before') {
          await redis.send('DEL', `tc:{${whole}}:log`, `tc:{${whole}}:rev`);
          await redis.send('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
          await eventually(async () => Number(await redis.send('GET', `tc:{${whole}}:rev`)) > 0, { within: 30_000, what: 'its log is appended to again' });
        }
        await joined(cluster.nodes[1], 'alice', whole);
      }
      await redis.send('DEL', ...keys);
      await eventually(async () => {
        await joined(cluster.nodes[1], 'victim', broken);
        const { messages } = await rest(cluster.nodes[1], 'victim').get(at.history(broken));
        assert.ok(messages.some(({ content }) => content === 'lost?'), JSON.stringify(messages));
        if (theirs) assert.ok(messages.some(({ role }) => role === 'assistant'), JSON.stringify(messages));
        return true;
      }, { within: 30_000, every: 500, what: 'the broken session is whole again' });
      const reader = await joined(cluster.nodes[1], 'victim', broken);
      await ok(victim.socket, 'message:send', { sessionId: broken, content: 'found' });
      await reader.heard.next('message:new', ({ content }) => content === 'found');
      for (const node of cluster.nodes) assert.ok(node.alive && !node.log(100_000).includes('panicked'));
    } finally {
      redis.end();
    }
  });
});
