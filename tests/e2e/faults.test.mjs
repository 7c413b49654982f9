// Faults in the middle of an answer: whatever happens to Redis or a node, readers end with the text
// that is stored.

import assert from 'node:assert/strict';
import { eventually, follow, get, lasting, metrics, ok, open, record, client, connected, sessionId, suite, token, within } from './harness.mjs';

/** An answer of about five seconds, asked for on the first node and read on both. */
async function longAnswer(cluster) {
  const id = sessionId('fault');
  const local = await open(cluster.nodes[0].url, { token: token() });
  const remote = await open(cluster.nodes[1].url, { token: token() });
  for (const { socket } of [local, remote]) await ok(socket, 'session:join', { sessionId: id });
  const ids = await ok(local.socket, 'stream:request', { sessionId: id, prompt: 'Something long', agentId: 'slow' });
  const midway = ({ heard }, length = 150) =>
    heard.next('stream:chunk', (chunk) => chunk.streamId === ids.streamId && chunk.offset > length);
  await Promise.all([local, remote].map((reader) => midway(reader)));
  return { id, local, remote, midway, ...ids };
}

/** Both readers, and one that comes afterwards, end with one and the same text. */
async function endsWell(cluster, { id, local, remote, streamId, messageId, promptMessageId }) {
  const contents = [];
  for (const { heard } of [local, remote]) {
    const end = await heard.finished(streamId, 45_000);
    assert.equal(end.name, 'stream:complete', JSON.stringify(end.payload));
    const seen = heard.follow(streamId);
    assert.equal(seen.resets, 0, 'the owner lives and has the whole text: nobody starts over');
    assert.equal(seen.text, seen.message.content);
    contents.push(seen.message.content);
  }
  assert.equal(contents[0], contents[1]);

  const later = await open(cluster.nodes[1].url, { token: token() });
  await eventually(
    async () => (await ok(later.socket, 'session:join', { sessionId: id, lastMessageId: promptMessageId })).missed === 1,
    { within: 20_000, every: 500, what: 'the answer is read from the store' },
  );
  const page = await later.heard.next('messages:missed', ({ messages }) => messages.length === 1);
  assert.deepEqual(page.messages.map((message) => [message.id, message.content]), [[messageId, contents[0]]]);
  const stored = await cluster.database.query(`SELECT count(*) FROM message WHERE session_id = '${id}' AND role = 'assistant'`);
  assert.equal(stored, '1', 'the answer is stored once');

  // And the session works as before, both ways.
  for (const [asker, reader] of [[local, remote], [remote, local]]) {
    const next = await ok(asker.socket, 'stream:request', { sessionId: id, prompt: 'And now?', agentId: 'quick' });
    assert.equal((await reader.heard.finished(next.streamId)).name, 'stream:complete');
    assert.equal(reader.heard.follow(next.streamId).text, (await asker.heard.finished(next.streamId)).payload.message.content);
  }
}

suite('faults', { nodes: 2, fresh: true }, (e2e) => {
  e2e('Redis is restarted empty', { timeout: 90_000 }, async (cluster) => {
    const answer = await longAnswer(cluster);
    await cluster.redis.restart();
    await endsWell(cluster, answer);
  });

  e2e('Redis is emptied', { timeout: 90_000 }, async (cluster) => {
    const answer = await longAnswer(cluster);
    await cluster.redis.command('FLUSHALL');
    await endsWell(cluster, answer);
  });

  e2e('the subscriber connections are cut', { timeout: 90_000 }, async (cluster) => {
    const answer = await longAnswer(cluster);
    for (const length of [200, 300, 400]) {
      const cut = Number(await cluster.redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub'));
      assert.ok(cut >= 1, 'somebody was subscribed');
      await answer.midway(answer.local, length);
    }
    await endsWell(cluster, answer);
  });

  e2e('all connections to Redis are cut', { timeout: 90_000 }, async (cluster) => {
    const answer = await longAnswer(cluster);
    for (const type of ['pubsub', 'normal']) await cluster.redis.command('CLIENT', 'KILL', 'TYPE', type, 'SKIPME', 'yes');
    await endsWell(cluster, answer);
  });

  e2e('Redis freezes for two seconds', { timeout: 90_000 }, async (cluster) => {
    const answer = await longAnswer(cluster);
    cluster.redis.pause();
    await lasting(2_000);
    const during = answer.local.heard.follow(answer.streamId).text.length;
    cluster.redis.resume();
    assert.ok(during > 0);
    await endsWell(cluster, answer);
  });

  e2e('Redis is away: a node is ready, degraded, and its own readers go on', { timeout: 90_000 }, async (cluster) => {
    const answer = await longAnswer(cluster);
    const length = () => answer.local.heard.follow(answer.streamId).text.length;
    await cluster.redis.child.stop('SIGKILL');
    const at = length();
    await eventually(() => length() > at + 100, { within: 10_000, what: 'the local reader reads on without Redis' });
    await eventually(
      async () => {
        const response = await get(`${cluster.nodes[0].url}/readyz`);
        assert.equal(response.status, 200);
        return (await response.json()).degraded?.includes('redis');
      },
      { what: 'degraded: redis' },
    );
    assert.equal((await metrics(cluster.nodes[0])).sum('redis_up'), 0);
    await cluster.redis.start();
    await endsWell(cluster, answer);
  });

  e2e('an answer that begins while Redis is away is shown on its own node, and elsewhere afterwards', { timeout: 90_000 }, async (cluster) => {
    const id = sessionId('away');
    const local = await open(cluster.nodes[0].url, { token: token() });
    const remote = await open(cluster.nodes[1].url, { token: token() });
    for (const { socket } of [local, remote]) await ok(socket, 'session:join', { sessionId: id });
    await cluster.redis.child.stop('SIGKILL');
    const ids = await ok(local.socket, 'stream:request', { sessionId: id, prompt: 'Something long', agentId: 'slow' });
    await local.heard.next('message:new');
    await local.heard.next('stream:start');
    await local.heard.next('stream:chunk', ({ offset }) => offset > 150);
    await cluster.redis.start();
    await endsWell(cluster, { id, local, remote, ...ids });
  });

  e2e('the database is cut off for a moment', { timeout: 90_000 }, async (cluster) => {
    const answer = await longAnswer(cluster);
    const name = new URL(cluster.database.url).pathname.slice(1);
    await cluster.database.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}' AND pid <> pg_backend_pid()`,
    );
    await endsWell(cluster, answer);
  });
});

suite('drain', { nodes: 3, nginx: true, fresh: true, env: { SHUTDOWN_GRACE: '15s' } }, (e2e) => {
  e2e('SIGTERM: clients are told, come back elsewhere by themselves, and the process exits 0', { timeout: 90_000 }, async (cluster) => {
    // Which node is which, by a direct connection.
    const [node] = cluster.nodes;
    const probe = await open(node.url, { token: token({ sub: 'probe' }), reconnection: false });
    const { nodeId } = await probe.heard.next('connection:success');
    // nginx spreads them by chance, so there are as many as it takes.
    const moved = [];
    const stayed = [];
    for (let n = 0; n < 200 && (moved.length < 4 || stayed.length < 4); n += 1) {
      const socket = client(cluster.url, { token: token({ sub: `user-${n % 4}` }) });
      const heard = record(socket);
      const reasons = [];
      socket.on('disconnect', (reason) => reasons.push(reason));
      await connected(socket);
      const there = (await heard.next('connection:success')).nodeId === nodeId;
      (there ? moved : stayed).push({ socket, heard, reasons });
    }
    assert.ok(moved.length >= 4 && stayed.length >= 4, `${moved.length} on the node, ${stayed.length} elsewhere`);
    const devices = [...moved, ...stayed];
    for (const { heard } of devices) heard.events.length = 0;

    node.signal('SIGTERM');
    const notice = await probe.heard.next('server:shutdown');
    assert.equal(typeof notice.message, 'string');
    assert.ok(Number.isInteger(notice.reconnectInMs) && notice.reconnectInMs >= 0);
    for (const { heard } of moved) {
      await heard.next('server:shutdown');
      const hello = await heard.next('connection:success', () => true, 40_000);
      assert.notEqual(hello.nodeId, nodeId, 'it came back elsewhere');
    }
    for (const { socket, reasons } of moved) {
      assert.ok(socket.connected);
      assert.ok(reasons.every((reason) => reason !== 'io server disconnect'), `${reasons}: a stock client would not come back`);
    }
    const end = await within(40_000, 'the process exits', node.exited);
    assert.deepEqual(end, { code: 0, signal: null });
    for (const { socket, heard, reasons } of stayed) {
      assert.ok(socket.connected);
      assert.deepEqual(reasons, []);
      assert.deepEqual(heard.of('server:shutdown'), []);
    }
  });

  e2e('SIGTERM: sockets are closed one after the other, as they were told', { timeout: 60_000 }, async (cluster) => {
    const [node] = cluster.nodes;
    const closed = [];
    const told = await Promise.all(
      Array.from({ length: 12 }, async () => {
        const { socket, heard } = await open(node.url, { token: token(), transports: ['websocket'], reconnection: false });
        return async () => {
          const { reconnectInMs } = await heard.next('server:shutdown');
          socket.on('disconnect', () => closed.push(reconnectInMs));
        };
      }),
    );
    node.signal('SIGTERM');
    await Promise.all(told.map((wait) => wait()));
    await eventually(() => closed.length === 12, { within: 15_000, what: 'all are closed' });
    // In the order they were told; two that were told nearly the same may come in either.
    for (const [n, wait] of closed.entries()) {
      assert.ok(closed.slice(0, n).every((before) => before < wait + 250), `in order: ${closed}`);
    }
    assert.ok(new Set(closed).size > 6, `spread: ${closed}`);
    await node.stop();
  });

  e2e('SIGTERM mid-answer: the answer is finished, and readers elsewhere miss nothing of it', { timeout: 90_000 }, async (cluster) => {
    const answer = await longAnswer(cluster);
    cluster.nodes[0].signal('SIGTERM');
    const end = await answer.remote.heard.finished(answer.streamId, 40_000);
    assert.equal(end.name, 'stream:complete');
    assert.equal(answer.remote.heard.follow(answer.streamId).resets, 0);
    assert.deepEqual(await within(40_000, 'the process exits', cluster.nodes[0].exited), { code: 0, signal: null });
  });

  e2e('a node that is told to stop is not ready any more', { timeout: 60_000 }, async (cluster) => {
    await longAnswer(cluster); // keeps it busy
    const [node] = cluster.nodes;
    node.signal('SIGTERM');
    await eventually(
      async () => {
        if (!node.alive) return true;
        try {
          return (await get(`${node.url}/readyz`)).status === 503;
        } catch {
          return true; // it does not listen any more
        }
      },
      { within: 5_000, what: 'not ready' },
    );
  });
});

suite('node death', { nodes: 3, fresh: true }, (e2e) => {
  e2e('a node is killed mid-answer: another goes on', { timeout: 60_000 }, async (cluster) => {
    const answer = await longAnswer(cluster);
    const others = await open(cluster.nodes[2].url, { token: token() });
    await ok(others.socket, 'session:join', { sessionId: answer.id });
    await cluster.nodes[0].stop('SIGKILL');
    for (const { heard } of [answer.remote, others]) {
      const end = await heard.finished(answer.streamId, 40_000);
      assert.equal(end.name, 'stream:complete', JSON.stringify(end.payload));
      const seen = follow(heard.events, answer.streamId);
      assert.equal(seen.resets, 0, 'it goes on where it stopped');
      assert.equal(seen.text, end.payload.message.content);
      const resumed = heard.of('stream:resumed').filter(({ streamId }) => streamId === answer.streamId);
      assert.deepEqual(resumed.map(({ attempt }) => attempt), [2], 'once, and it is told');
    }
    const stored = await cluster.database.query(`SELECT count(*) FROM message WHERE session_id = '${answer.id}' AND role = 'assistant'`);
    assert.equal(stored, '1');
  });
});
