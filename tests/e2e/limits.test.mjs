// How much users may have answered: at once, on all nodes and on one, and how many tokens in a
// window. Whoever is refused is told why, when to ask again and what to do. And how many
// connections there may be, of a user, a node and an address, and how long one may be nobody's.

import assert from 'node:assert/strict';
import { stream } from './harness/eventsource.mjs';
import { at, rest } from './harness/rest.mjs';
import {
  assertFields, client, close, connected, eventually, joined, lasting, metrics, no, nodeOf, ok, open, rawChat, rawWebSocket, sessionId, suite,
  token, within,
} from './harness.mjs';

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

/** How often a limit was met, on all these nodes. */
async function met(nodes, limit) {
  const counts = await Promise.all(nodes.map(async (node) => (await metrics(node)).samples.get(`limit_reached_total{limit="${limit}"}`) ?? 0));
  return counts.reduce((sum, count) => sum + count, 0);
}

/** Connects all at the same time: who got in, and why the others did not. */
async function burst(clients) {
  const tried = await Promise.allSettled(clients.map((socket) => connected(socket)));
  const [admitted, refusals] = [[], []];
  for (const [n, { reason }] of tried.entries()) {
    if (reason === undefined) admitted.push(clients[n]);
    else refusals.push(reason);
  }
  return { admitted, refusals };
}

/** Until a stock client is in that tries again by itself. */
const comesIn = (socket) => eventually(() => (socket.connected ? true : undefined), { what: 'it comes in' });

const TRANSPORTS = [['websocket'], ['polling']];
const TOO_MANY = { code: 'OVERLOADED', reason: 'too_many' };

for (const max of [1, 3]) {
  suite(`MAX_CONNECTIONS_PER_USER=${max}`, { nodes: 2, env: { MAX_CONNECTIONS_PER_USER: String(max) } }, (e2e) => {
    e2e('of a burst on two nodes exactly so many get in', { timeout: 60_000 }, async (cluster) => {
      const before = await met(cluster.nodes, 'user_connections');
      for (let round = 0; round < 10; round += 1) {
        const jwt = token({ sub: sessionId('burst') });
        const options = (n) => ({ token: jwt, transports: TRANSPORTS[(n >> 1) % 2], reconnection: false });
        const clients = Array.from({ length: 12 }, (_, n) => client(nodeOf(cluster, n).url, options(n)));
        const { admitted, refusals } = await burst(clients);
        assert.equal(admitted.length, max, `round ${round}`);
        for (const refusal of refusals) assert.deepEqual(refusal.data, TOO_MANY, refusal.message);
        clients.forEach(close);
      }
      assert.equal((await met(cluster.nodes, 'user_connections')) - before, 10 * (12 - max));
    });
  });
}

suite('MAX_CONNECTIONS=3', { nodes: 1, env: { MAX_CONNECTIONS: '3' } }, (e2e) => {
  e2e('of a burst of sockets and streams exactly so many get in, and each that goes makes room', { timeout: 60_000 }, async (cluster) => {
    const [node] = cluster.nodes;
    const users = (name) => Array.from({ length: 8 }, (_, n) => token({ sub: `${name}-${n}` }));
    for (let round = 0; round < 5; round += 1) {
      const before = await met([node], 'connections');
      const streams = users('reader').map((jwt) => stream(node.url, `/chat/stream/${sessionId()}`, { token: jwt }));
      const clients = users('socket').map((jwt, n) => client(node.url, { token: jwt, transports: TRANSPORTS[n % 2], reconnection: false }));
      const { admitted, refusals } = await burst(clients);
      const readers = await Promise.all(streams);
      const reading = readers.filter(({ status }) => status === 200);
      assert.equal(admitted.length + reading.length, 3, `round ${round}`);
      for (const refusal of refusals) assert.deepEqual(refusal.data, TOO_MANY, refusal.message);
      for (const { status } of readers) assert.ok(status === 200 || status === 503, `${status}`);
      assert.equal((await met([node], 'connections')) - before, 13);
      for (const reader of reading) reader.close();
      clients.forEach(close);
      // All three places are given back, those of refused ones too.
      const again = [];
      await eventually(async () => {
        const socket = client(node.url, { token: token({ sub: `again-${again.length}` }), reconnection: false });
        try {
          again.push(await connected(socket));
        } catch (error) {
          close(socket);
          throw error;
        }
        return again.length === 3 ? true : undefined;
      }, { what: 'three are let in again' });
      again.forEach(close);
      await eventually(async () => (await metrics(node)).sum('socket_io_connected') === 0);
    }
  });
});

suite('CONNECT_TIMEOUT', { nodes: 1, env: { ALLOW_CHAT_AUTH: 'true', CONNECT_TIMEOUT: '1s', MAX_HANDSHAKES: '50' } }, (e2e) => {
  e2e('who does not say who they are is sent away, who does stays', {}, async (cluster) => {
    const before = await met(cluster.nodes, 'connect_timeout');
    const nobody = await Promise.all(TRANSPORTS.map((transports) => open(cluster.url, { transports, reconnection: false })));
    const gone = nobody.map(({ socket }) => new Promise((done) => socket.once('disconnect', done)));
    const { socket } = await open(cluster.url);
    await ok(socket, 'chat:auth', { userId: 'alice' });
    for (const reason of await within(10_000, 'they are sent away', Promise.all(gone))) {
      assert.match(reason, /^transport (close|error)$/);
    }
    assert.ok((await met(cluster.nodes, 'connect_timeout')) >= before + 2);
    assert.equal((await ok(socket, 'chat:join', { personaId: 'instant' })).ok, true);
  });

  e2e('who leaves and does not come back is sent away', {}, async (cluster) => {
    const jwt = token();
    const [left, back] = [await rawChat(cluster.url, jwt), await rawChat(cluster.url, jwt)];
    for (const raw of [left, back]) raw.send('41/chat,');
    back.received.splice(0);
    back.send(`40/chat,${JSON.stringify({ token: jwt })}`);
    await back.until('40/chat,');
    await within(10_000, 'it is closed', left.closed);
    back.received.splice(0);
    back.send('42/chat,1["chat:join",{"personaId":"instant"}]');
    await back.until('43/chat,1');
    back.end();
  });

  e2e('who stays nobody keeps nobody out', {}, async (cluster) => {
    const [node] = cluster.nodes;
    const polling = `${cluster.url}/socket.io/?EIO=4&transport=polling`;
    const open = async () => {
      const said = await (await fetch(polling)).text();
      return /"sid":"([^"]+)/.exec(said)?.[1];
    };
    const before = await met(cluster.nodes, 'handshakes');
    const first = await open();
    let floods = true;
    const flood = Promise.all(Array.from({ length: 2 }, async () => {
      for (; floods; await lasting(10)) await open();
    }));
    try {
      await eventually(async () => (await met([node], 'handshakes')) > before + 20);
      assert.equal((await fetch(`${polling}&sid=${first}`)).status, 400);
      // It comes in while they do not stop.
      await comesIn(client(cluster.url, { token: token() }));
    } finally {
      floods = false;
      await flood;
    }
  });
});

suite('MAX_CONNECTIONS_PER_ADDRESS', { nodes: 1, env: { MAX_CONNECTIONS_PER_ADDRESS: '2', TRUSTED_PROXIES: '127.0.0.1' } }, (e2e) => {
  e2e('of those behind a proxy each has so many sockets and streams', {}, async (cluster) => {
    const from = (address) => ({ 'X-Forwarded-For': `8.8.8.8, ${address}` });
    const jwt = token();
    const reader = await stream(cluster.url, '/chat/stream/here', { token: jwt, headers: from('192.0.2.1') });
    assert.equal(reader.status, 200);
    const { socket } = await open(cluster.url, { token: jwt, extraHeaders: from('192.0.2.1') });
    const refusedReader = await stream(cluster.url, '/chat/stream/here', { token: 'nonsense', headers: from('192.0.2.1') });
    assert.equal(refusedReader.status, 503, 'before its token is looked at');
    assert.ok(Number(refusedReader.headers['retry-after']) > 0);
    for (const transports of TRANSPORTS) {
      const { refusals } = await burst([client(cluster.url, { token: jwt, transports, extraHeaders: from('192.0.2.1'), reconnection: false })]);
      assert.equal(refusals.length, 1);
      assert.equal(refusals[0].data, undefined, 'refused below Socket.IO, so that stock clients try again');
    }
    assert.equal(await met(cluster.nodes, 'address_connections'), 3);
    const waiting = client(cluster.url, { token: jwt, extraHeaders: from('192.0.2.1') });
    for (const address of ['192.0.2.2', '2001:db8::1']) await open(cluster.url, { token: jwt, extraHeaders: from(address) });
    for (let n = 0; n < 3; n += 1) await open(cluster.url, { token: jwt });
    reader.close();
    await comesIn(waiting);
    close(socket);
    await comesIn(client(cluster.url, { token: jwt, extraHeaders: from('192.0.2.1') }));
  });
});

suite('requests', { nodes: 1, env: { BODY_MAX: '4KiB', BODY_TIMEOUT: '500ms' } }, (e2e) => {
  e2e('one connection asks for its place a hundred times, and no more', {}, async (cluster) => {
    const asking = await rawWebSocket(cluster.url);
    const refusals = () => asking.received.filter(({ text }) => text.startsWith('44/chat,')).length;
    for (let n = 1; n <= 100; n += 1) {
      asking.send('40/chat,{"token":"nonsense"}');
      await eventually(() => refusals() === n, { every: 1, what: `refusal ${n}` });
    }
    assert.equal(await met(cluster.nodes, 'connects'), 0);
    asking.send(`40/chat,{"token":"${token()}"}`);
    await within(10_000, 'it is closed', asking.closed);
    assert.deepEqual([refusals(), await met(cluster.nodes, 'connects')], [100, 1]);
  });

  e2e('a body that is too large or does not arrive is refused', {}, async (cluster) => {
    const api = rest(cluster.nodes[0], 'alice');
    await api.refused(413, 'INVALID', 'POST', '/api/chat/sessions', { title: 'x'.repeat(5_000) });
    const late = async function* late() {
      yield new TextEncoder().encode('{"title":');
      await new Promise((done) => setTimeout(done, 10_000).unref());
    };
    const answer = await fetch(`${cluster.url}/api/chat/sessions`, {
      method: 'POST', headers: { Authorization: `Bearer ${token()}`, 'Content-Type': 'application/json' }, body: ReadableStream.from(late()), duplex: 'half',
    });
    assert.equal(answer.status, 408);
    assert.deepEqual([await met(cluster.nodes, 'body'), await met(cluster.nodes, 'body_timeout')], [1, 1]);
    await api.post('/api/chat/sessions', { title: 'fine' });
  });
});
