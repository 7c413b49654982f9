// A send is interrupted between any two of its steps: the connection to the database or to Redis is
// cut, or stands still until the node is killed. Whatever the step, a retry with the same
// clientMessageId on another node leaves one message, which readers there hear once, and what was
// acknowledged is never missing.

import assert from 'node:assert/strict';
import { ask, close, eventually, flushed, joined, ok, open, suite, token, within } from './harness.mjs';
import { makeSession } from './harness/rest.mjs';

// With few connections each has prepared every statement soon: a send then takes the same messages each time.
const ENV = { JOINED_SESSIONS_MAX: '10000', REDIS_COMMAND_TIMEOUT: '1s', DATABASE_CONNECTIONS: '2' };
const CLIENT_MESSAGE_ID = 'the-one';

/** Sends on a node, as far as it gets: the acknowledged message's id, or nothing. */
async function attempt(device, id) {
  const gone = new Promise((done) => device.socket.once('disconnect', () => done(undefined)));
  const acked = ask(device.socket, 'message:send', { sessionId: id, content: 'Once', clientMessageId: CLIENT_MESSAGE_ID }).catch(() => undefined);
  const reply = await Promise.race([acked, gone]);
  return reply?.ok ? reply.message.id : undefined;
}

/** The messages of one send that matter: all to the database, to Redis those that name the session. */
const matters = (way, id) => (way === 'toRedis' ? ({ bytes }) => bytes.includes(id) : () => true);

/**
 * Sends a few, elsewhere: what an interruption broke is whole again, statements are prepared, and
 * the next send takes no more messages than others do.
 */
async function warm(cluster, device) {
  const id = await makeSession(cluster.nodes[1], 'alice');
  for (let n = 0; n < 4; n += 1) {
    await eventually(async () => (await ask(device.socket, 'message:send', { sessionId: id, content: `${n}` })).ok, { within: 20_000, what: 'the node sends' });
  }
}

/** How many messages one send takes. */
async function count(cluster, node, device, way, id) {
  await warm(cluster, device);
  let messages = 0;
  const counted = matters(way, id);
  node[way].watch((message) => {
    if (counted(message)) messages += 1;
  });
  assert.ok(await attempt(device, id), 'a send that nothing interrupts is acknowledged');
  node[way].watch(undefined);
  return messages;
}

/** Interrupts at the k-th message from now on; `happened` tells that it came to that. */
function interrupt(node, way, id, k, verdict) {
  const state = {};
  state.happened = new Promise((done) => {
    let seen = 0;
    const counted = matters(way, id);
    node[way].watch((message) => {
      if (state.at !== undefined || !counted(message)) return undefined;
      seen += 1;
      if (seen < k) return undefined;
      state.at = seen;
      done();
      return verdict;
    });
  });
  return state;
}

const device = (node) => open(node.url, { token: token(), reconnection: false });

/** One message in each session, the acknowledged one, and the reader has heard it once. */
async function verify(cluster, reader, trials) {
  const [, other] = cluster.nodes;
  const sender = await device(other);
  // Rows that are still to be appended would be heard late, or again.
  await eventually(async () => (await cluster.database.query('SELECT count(*) FROM outbox')) === '0', { within: 20_000, every: 100, what: 'the outbox is empty' });
  for (const { id, what, message } of trials) {
    const stored = await cluster.database.query(`SELECT id FROM message WHERE session_id = '${id}'`);
    assert.equal(stored, message, `${what}: one message is stored, the one that was acknowledged`);
    await ok(sender.socket, 'message:send', { sessionId: id, content: 'fence' });
    await reader.heard.next('message:new', ({ sessionId, content }) => sessionId === id && content === 'fence');
  }
  await flushed(reader);
  const heard = new Map();
  for (const { id, sessionId, content } of reader.heard.of('message:new')) {
    if (content === 'Once') heard.set(sessionId, [...(heard.get(sessionId) ?? []), id]);
  }
  for (const { id, what, message } of trials) assert.deepEqual(heard.get(id), [message], `${what}: heard once`);
}

/** Sessions of Alice that the reader, on the second node, has joined. */
async function sessions(cluster, reader, number) {
  const ids = await Promise.all(Array.from({ length: number }, () => makeSession(cluster.nodes[1], 'alice')));
  for (const id of ids) await ok(reader.socket, 'session:join', { sessionId: id });
  return ids;
}

/** The retry on the second node: as a frontend does, until it is accepted. */
async function retry(other, id) {
  return eventually(
    async () => {
      const reply = await ask(other.socket, 'message:send', { sessionId: id, content: 'Once', clientMessageId: CLIENT_MESSAGE_ID });
      return reply.ok ? reply.message.id : undefined;
    },
    { within: 20_000, every: 100, what: 'the retry is accepted' },
  );
}

const WAYS = { toDatabase: 'the database', toRedis: 'Redis' };

for (const [way, name] of Object.entries(WAYS)) {
  suite(`between the steps of a send: ${name}`, { nodes: 2, proxied: true, fresh: true, env: ENV }, (e2e) => {
    e2e('the connection is cut, before or after the k-th message', { timeout: 120_000 }, async (cluster) => {
      const [victim, survivor] = cluster.nodes;
      const reader = await device(survivor);
      const [sender, other] = [await device(victim), await device(survivor)];
      const steps = await count(cluster, victim, sender, way, (await sessions(cluster, reader, 1))[0]);
      assert.ok(steps >= (way === 'toRedis' ? 1 : 5), `${steps} messages`);
      const trials = [];
      for (const verdict of ['cut before', 'cut after']) {
        const ids = await sessions(cluster, reader, steps);
        for (const [index, id] of ids.entries()) {
          const what = `${verdict} message ${index + 1} of ${steps}`;
          await warm(cluster, sender);
          const interrupted = interrupt(victim, way, id, index + 1, verdict);
          const first = await within(30_000, what, attempt(sender, id));
          victim[way].watch(undefined);
          assert.ok(sender.socket.connected, `${what}: the client notices nothing but an error`);
          const message = await retry(other, id);
          if (first) assert.equal(message, first, `${what}: acknowledged`);
          trials.push({ id, what, message, happened: interrupted.at !== undefined, acked: Boolean(first) });
        }
      }
      const happened = trials.filter((trial) => trial.happened).length;
      assert.ok(happened >= trials.length * 0.7, `${happened} of ${trials.length} were cut`);
      if (way === 'toDatabase') assert.ok(trials.some((trial) => trial.happened && !trial.acked), 'some were not acknowledged');
      await verify(cluster, reader, trials);
      console.log(`${name}: ${steps} messages a send, ${happened} of ${trials.length} cut, ${trials.filter(({ acked }) => acked).length} acknowledged at once`);
    });

    e2e('everything stands still after the k-th message, and the node is killed', { timeout: 180_000 }, async (cluster) => {
      const [first, survivor] = cluster.nodes;
      const reader = await device(survivor);
      const other = await device(survivor);
      const counting = await device(first);
      const steps = await count(cluster, first, counting, way, (await sessions(cluster, reader, 1))[0]);
      close(counting.socket);
      const trials = [];
      const ids = await sessions(cluster, reader, steps);
      let [victim, next] = [first, undefined];
      for (const [index, id] of ids.entries()) {
        const what = `killed after message ${index + 1} of ${steps}`;
        // The next one to be killed starts meanwhile.
        if (index + 1 < ids.length) next = cluster.startNode();
        const sender = await device(victim);
        await warm(cluster, sender);
        const interrupted = interrupt(victim, way, id, index + 1, 'stall after');
        const sending = attempt(sender, id);
        await Promise.race([interrupted.happened, sending]);
        await victim.stop('SIGKILL');
        victim[way].cut(); // what the system does with a dead process' connections
        const acked = await within(30_000, what, sending);
        const message = await retry(other, id);
        if (acked) assert.equal(message, acked, `${what}: acknowledged`);
        trials.push({ id, what, message, happened: interrupted.at !== undefined });
        victim = await next;
      }
      const happened = trials.filter((trial) => trial.happened).length;
      assert.ok(happened >= trials.length * 0.7, `${happened} of ${trials.length} were interrupted`);
      await verify(cluster, reader, trials);
      console.log(`${name}: ${happened} of ${trials.length} killed in between`);
    });
  });
}

suite('between the store and the log', { nodes: 2, proxied: true, fresh: true, env: ENV }, (e2e) => {
  e2e('a node is killed that has stored and not appended: another brings the event, without any retry', { timeout: 60_000 }, async (cluster) => {
    const [victim, survivor] = cluster.nodes;
    const id = await makeSession(survivor, 'alice', ['bob']);
    const reader = await joined(survivor, 'bob', id);
    const sender = await device(victim);
    await ok(sender.socket, 'message:send', { sessionId: id, content: 'Before' });
    await reader.heard.next('message:new');
    // What goes to Redis and has the text in it is the event's append.
    const stalled = new Promise((done) => {
      victim.toRedis.watch(({ bytes }) => {
        if (!bytes.includes('Only stored')) return undefined;
        done();
        return 'stall before';
      });
    });
    const sending = ask(sender.socket, 'message:send', { sessionId: id, content: 'Only stored' }).catch(() => undefined);
    await within(10_000, 'the append is on its way', stalled);
    const stored = await cluster.database.query(`SELECT id FROM message WHERE session_id = '${id}' AND content = 'Only stored'`);
    assert.notEqual(stored, '', 'stored before anybody is told');
    await victim.stop('SIGKILL');
    assert.equal((await reader.heard.next('message:new', ({ content }) => content === 'Only stored')).id, stored);
    close(sender.socket);
    void sending;
    await ok((await device(survivor)).socket, 'message:send', { sessionId: id, content: 'fence' });
    await reader.heard.next('message:new', ({ content }) => content === 'fence');
    await eventually(async () => (await cluster.database.query('SELECT count(*) FROM outbox')) === '0', { within: 10_000, what: 'the outbox is empty' });
    await flushed(reader);
    assert.deepEqual(reader.heard.of('message:new').map(({ content }) => content), ['Before', 'Only stored', 'fence']);
  });

  e2e('a node that is cut off from Redis acknowledges what it stored; readers elsewhere hear it, its own when Redis is back', { timeout: 60_000 }, async (cluster) => {
    const [victim, survivor] = cluster.nodes;
    const id = await makeSession(survivor, 'alice', ['bob']);
    const far = await joined(survivor, 'bob', id);
    const near = await joined(victim, 'bob', id);
    const sender = await device(victim);
    await ok(sender.socket, 'message:send', { sessionId: id, content: 'Before' });
    for (const { heard } of [near, far]) await heard.next('message:new');
    victim.toRedis.watch(() => 'stall before');
    const { message } = await ok(sender.socket, 'message:send', { sessionId: id, content: 'Without Redis' });
    await far.heard.next('message:new', (heard) => heard.id === message.id); // by the other node's relay
    victim.toRedis.watch(undefined);
    victim.toRedis.cut();
    await near.heard.next('message:new', (heard) => heard.id === message.id, 30_000);
    const { message: last } = await ok(sender.socket, 'message:send', { sessionId: id, content: 'After' });
    for (const reader of [near, far]) {
      await reader.heard.next('message:new', (heard) => heard.id === last.id, 30_000);
      await flushed(reader);
      assert.deepEqual(reader.heard.of('message:new').map(({ content }) => content), ['Before', 'Without Redis', 'After']);
    }
  });
});
