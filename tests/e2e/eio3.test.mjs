// socket.io-client 2.5 (Engine.IO 3, Socket.IO's protocol 4), where EIO3=true admits it: whole answers on
// each transport and in each dialect, the places of its token, refusals in its own shape, coming back
// after a node's death; and what is sent in that protocol to do harm.

import assert from 'node:assert/strict';
import ioV2 from 'socket.io-client-2';
import { eventually, get, metrics, ok, open, rawWebSocket, sessionId, suite, token, within } from './harness.mjs';
import { FAMILIES } from './harness/families.mjs';
import { frame } from './harness/raw.mjs';
import { rest } from './harness/rest.mjs';

const TRANSPORTS = { websocket: ['websocket'], polling: ['polling'], 'polling, upgraded': ['polling', 'websocket'] };

/** Runs `body` with a function that opens clients of version 2; they are closed afterwards. */
async function withOld(body) {
  const sockets = [];
  const old = (url, { token: jwt, query, ...options } = {}) => {
    const socket = ioV2(`${url}/chat`, {
      transports: ['websocket'], forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 500,
      query: { ...(jwt ? { token: jwt } : {}), ...query }, ...options,
    });
    sockets.push(socket);
    // Version 2 has no `onAny`: everything that comes passes here, with all of its arguments.
    const events = [];
    const onevent = socket.onevent;
    socket.onevent = function take(packet) {
      events.push(packet.data);
      onevent.call(this, packet);
    };
    const next = (name, where = () => true) =>
      eventually(() => events.find(([event, payload]) => event === name && where(payload)), { what: `${name}; heard: ${events.map(([e]) => e)}` })
        .then((event) => event[1]);
    const once = (event) => within(10_000, event, new Promise((done) => { socket.once(event, done); }));
    const ask = (event, ...args) => within(10_000, event, new Promise((done) => { socket.emit(event, ...args, done); }));
    return { socket, events, next, once, ask };
  };
  try {
    await body(old);
  } finally {
    for (const socket of sockets) socket.close();
  }
}

const UNSUPPORTED = { code: 5, message: 'Unsupported protocol version' };
const handshake = (url, transport, headers) => get(`${url}/socket.io/?EIO=3&transport=${transport}`, { headers });

suite('without EIO3', {}, (e2e) => {
  e2e('the old protocol is refused before there is a session', {}, async ({ nodes: [node] }) => {
    for (const transport of ['polling', 'websocket', 'nonsense']) {
      const answer = await handshake(node.url, transport);
      assert.equal(answer.status, 400, transport);
      assert.deepEqual(await answer.json(), UNSUPPORTED);
    }
    await withOld(async (old) => {
      for (const transports of [['polling'], ['websocket']]) {
        const { socket, once } = old(node.url, { token: token(), transports, reconnection: false });
        await once('connect_error');
        assert.equal(socket.connected, false);
      }
    });
    const { socket } = await open(node.url, { token: token() });
    assert.ok(socket.connected);
  });
});

suite('EIO3', { env: { EIO3: 'true', ALLOW_CHAT_AUTH: 'true' } }, (e2e) => {
  for (const [name, transports] of Object.entries(TRANSPORTS)) {
    e2e(`a whole answer by ${name}, with nothing but its payloads`, {}, async ({ nodes: [node] }) => {
      await withOld(async (old) => {
        const jwt = token({ sub: 'alice' });
        const { socket, events, next, once, ask } = old(node.url, { token: jwt, transports });
        await once('connect');
        assert.equal((await next('connection:success')).recovered, false);
        const id = sessionId('eio3');
        assert.equal((await ask('session:join', { sessionId: id })).ok, true);
        // Characters of one to four bytes, counted as the protocol counts them.
        const said = await ask('message:send', { sessionId: id, content: 'aé東😀\u001e1:2' });
        assert.equal(said.ok, true, JSON.stringify(said));
        assert.equal((await next('message:new')).content ?? (await next('message:new')).message?.content, 'aé東😀\u001e1:2');
        const asked = await ask('stream:request', { sessionId: id, prompt: 'Why? 😀', agentId: 'quick' });
        assert.equal(asked.ok, true, JSON.stringify(asked));
        await next('stream:complete');
        const text = events.filter(([event]) => event === 'stream:chunk').map(([, chunk]) => chunk.delta).join('');
        const stored = (await rest(node, 'alice').get(`/api/chat/sessions/${id}/messages`)).messages;
        assert.equal(text, stored.at(-1).content);
        if (transports.length > 1) await eventually(() => socket.io.engine.transport.name === 'websocket', { what: 'the upgrade' });
        for (const event of events) assert.equal(event.length, 2, `one payload, and no offset: ${JSON.stringify(event)}`);
        assert.ok(!events.some(([event]) => event === 'connection:offset'));
        // What was written is counted: nothing is outstanding, so a further command is carried out.
        assert.equal((await ask('session:leave', { sessionId: id })).ok, true);
      });
    });
  }

  for (const [dialect, family] of Object.entries(FAMILIES).filter(([name]) => name !== 'sse')) {
    e2e(`a whole answer in ${dialect}, by its name and by its first event`, {}, async ({ nodes: [node] }) => {
      await withOld((old) => Promise.all(Object.values(TRANSPORTS).flatMap((transports) => [{ dialect }, {}].map(async (query) => {
        const { events, once, ask } = old(node.url, { token: token({ sub: dialect }), query, transports });
        await once('connect');
        const fresh = sessionId(dialect);
        const joined = await ask(...family.join(fresh));
        assert.equal(joined.ok, true, JSON.stringify(joined));
        const asked = await ask(...family.ask(joined.sessionId ?? fresh, 'Why? 😀'));
        assert.equal(asked.ok, true, JSON.stringify(asked));
        const heard = () => events.map(([name, payload]) => ({ name, payload }));
        // A persona's room is one for all of its user's devices.
        const ended = () => heard().map(family.whole).find((found) => found?.[0] === asked.messageId);
        const [, whole] = await eventually(ended, { what: `the end, in ${events.map(([name]) => name)}` });
        const { content } = await rest(node, dialect).get(`/api/chat/messages/${asked.messageId}`);
        assert.equal(whole, content);
        const text = heard().map((event) => (family.isLast?.(event) ? undefined : family.chunk(event)) ?? '').join('');
        if (text !== '') assert.ok(content.startsWith(text), 'the chunks are the text');
        for (const event of events) assert.equal(event.length, 2, `one payload, and no offset: ${JSON.stringify(event)}`);
      }))));
    });
  }

  e2e('an unknown dialect', {}, async ({ nodes: [node] }) => {
    await withOld(async (old) => {
      const { once } = old(node.url, { token: token(), query: { dialect: 'nonsense' } });
      assert.deepEqual(await once('error'), { message: 'Unknown dialect', code: 'INVALID', reason: 'unknown_dialect' });
    });
  });

  e2e('the token in the query, the header and the cookie', {}, async ({ nodes: [node] }) => {
    await withOld(async (old) => {
      const jwt = token({ sub: 'placed' });
      for (const transports of Object.values(TRANSPORTS)) {
        for (const extraHeaders of [undefined, { Authorization: `Bearer ${jwt}` }, { Cookie: `access_token=${jwt}` }]) {
          const place = extraHeaders ? { transportOptions: Object.fromEntries(['polling', 'websocket'].map((name) => [name, { extraHeaders }])) } : { token: jwt };
          const { once, next } = old(node.url, { transports, query: { dialect: 'session' }, ...place });
          await once('connect');
          assert.equal((await next('connection:success')).userId, 'placed');
        }
      }
    });
  });

  e2e('a refusal is an `error`, of data with its message', {}, async ({ nodes: [node] }) => {
    await withOld(async (old) => {
      for (const transports of Object.values(TRANSPORTS)) {
        for (const [jwt, message, reason] of [
          ['x.y.z', 'Authentication error: Invalid token', 'invalid'],
          [token({ ttl: -3600 }), 'Authentication error: Token expired', 'expired'],
        ]) {
          const { socket, once } = old(node.url, { token: jwt, transports });
          assert.deepEqual(await once('error'), { message, code: 'AUTH_ERROR', reason });
          assert.equal(socket.connected, false);
        }
      }
      const { once } = old(node.url, { query: { dialect: 'session' } });
      assert.deepEqual(await once('error'), { message: 'Authentication error: Token missing', code: 'AUTH_ERROR', reason: 'missing' });
      const other = ioV2(`${node.url}/nowhere`, { transports: ['websocket'], forceNew: true, reconnection: false });
      try {
        assert.equal(await within(5_000, 'error', new Promise((done) => { other.once('error', done); })), 'Invalid namespace');
      } finally {
        other.close();
      }
    });
    // Clients of today are told what they were, and have no `/`.
    const { socket } = await open(node.url, { token: token() });
    const root = socket.io.socket('/');
    assert.equal((await within(5_000, 'connect_error', new Promise((done) => { root.once('connect_error', done); root.connect(); }))).message, 'Invalid namespace');
  });

  e2e('a flood of malformed packets does no harm', { timeout: 90_000 }, async ({ nodes: [node] }) => {
    const honest = await open(node.url, { token: token({ sub: 'honest' }) });
    const session = async () => {
      const text = await (await handshake(node.url, 'polling')).text();
      return /"sid":"([^"]+)"/.exec(text)[1];
    };
    const post = async (sid, body, type = 'text/plain;charset=UTF-8') =>
      (await get(`${node.url}/socket.io/?EIO=3&transport=polling&sid=${sid}`, { method: 'POST', body, headers: { 'Content-Type': type }, signal: AbortSignal.timeout(30_000) })).status;
    const bodies = [
      '', '2', ':', '0:', '0:0:', '1', '-1:2', '+1:2', '99999999999999999999999:2', '4294967295:2', '1:😀', '2:😀😀', '1:2x', '3:40/', '9:40/chat?x?',
      '5:49abc', '6:451-[]', '14:4299999999999[', '4:b4!!', '5:4é/chat', Buffer.from([0xff, 0xfe]), Buffer.from('1:\u0000'),
    ];
    const binary = [
      Buffer.from([0x00]), Buffer.from([0x00, 0xff]), Buffer.from([0x01, 0x00, 0xff]), Buffer.from([0x01, 0x01, 0xff]), Buffer.from([0x00, 9, 9, 9, 9, 9, 9, 9, 0xff, 0x34]),
      Buffer.from([0x02, 0x01, 0xff, 0x32]), Buffer.from([0x00, 0x2f, 0xff, 0x32]),
    ];
    for (const body of bodies) await post(await session(), body);
    for (const body of binary) await post(await session(), body, 'application/octet-stream');
    // As many packets as a body has room for, which is not to take longer than their number says.
    for (const body of ['1:2'.repeat(340_000), '0:'.repeat(500_000), `${'9'.repeat(1_000_000)}`, `2:4${'x'.repeat(1_000_000)}`]) {
      const sid = await session();
      const flooded = post(sid, body);
      await ok(honest.socket, 'session:leave', { sessionId: sessionId('flood') });
      assert.ok([200, 400].includes(await flooded));
    }
    assert.equal(await post(await session(), '1:2'.repeat(400_000)), 413);
    await ok(honest.socket, 'session:join', { sessionId: sessionId('flood') });
    assert.ok(node.alive);
  });
});

const met = async (node, limit) => (await metrics(node)).samples.get(`limit_reached_total{limit="${limit}"}`) ?? 0;

suite('EIO3, who goes no further than `/`', { env: { EIO3: 'true', CONNECT_TIMEOUT: '3s' } }, (e2e) => {
  e2e('is closed in time, and counted', {}, async ({ nodes: [node] }) => {
    const before = await met(node, 'connect_timeout');
    const raw = await rawWebSocket(node.url, { query: 'EIO=3&transport=websocket' });
    await raw.until('40');
    await within(10_000, 'it is closed', raw.closed);
    await eventually(async () => (await met(node, 'connect_timeout')) === before + 1);
  });
});

// Whose time is not up before that.
suite('EIO3, who comes to `/` again and again', { env: { EIO3: 'true', CONNECT_TIMEOUT: '60s' } }, (e2e) => {
  e2e('comes there a hundred times, and no more', {}, async ({ nodes: [node] }) => {
    const before = await met(node, 'connects');
    const raw = await rawWebSocket(node.url, { query: 'EIO=3&transport=websocket' });
    let isClosed = false;
    void raw.closed.then(() => { isClosed = true; });
    for (let n = 1; n <= 101 && !isClosed; n += 1) {
      await eventually(() => isClosed || raw.received.filter(({ text }) => text === '40').length === n, { every: 1, what: `CONNECT ${n}` });
      raw.write(Buffer.concat(['41', '40'].map((packet) => frame(Buffer.from(packet)))));
    }
    await within(10_000, 'it is closed', raw.closed);
    assert.equal((await met(node, 'connects')) - before, 1);
  });
});

suite('EIO3, a node dies', { nodes: 2, nginx: true, fresh: true, env: { EIO3: 'true' } }, (e2e) => {
  e2e('the client comes back to another one, and is not recovered', { timeout: 60_000 }, async (cluster) => {
    await withOld(async (old) => {
      const { events, once, ask, socket } = old(cluster.url, { token: token({ sub: 'alice' }) });
      await once('connect');
      const first = await eventually(() => events.find(([name]) => name === 'connection:success')?.[1]);
      const ids = await Promise.all(cluster.nodes.map(async (node) => (await (await get(`${node.url}/readyz`)).json()).nodeId));
      const again = new Promise((done) => { socket.once('connect', done); });
      await cluster.nodes[ids.indexOf(first.nodeId)].stop('SIGKILL');
      await within(30_000, 'back', again);
      const hello = await eventually(() => events.filter(([name]) => name === 'connection:success')[1]?.[1]);
      assert.notEqual(hello.nodeId, first.nodeId);
      assert.equal(hello.recovered, false);
      assert.equal((await ask('session:join', { sessionId: sessionId('back') })).ok, true);
    });
  });
});

suite('EIO3, the end of a connection', { fresh: true, env: { EIO3: 'true', CONNECTION_MAX_AGE: '3s', PING_INTERVAL: '300ms', PING_TIMEOUT: '700ms' } }, (e2e) => {
  for (const [name, transports] of Object.entries(TRANSPORTS)) {
    e2e(`by age, and coming back, by ${name}`, {}, async ({ nodes: [node] }) => {
      await withOld(async (old) => {
        const { events, once, socket } = old(node.url, { token: token({ sub: 'alice' }), transports });
        await once('connect');
        // It asks for pongs by itself, several times before its age is reached.
        let pongs = 0;
        socket.io.on('pong', () => { pongs += 1; });
        await once('disconnect');
        assert.ok(pongs >= 2, `${pongs} pongs`);
        assert.ok(events.some(([event]) => event === 'server:timeout'), JSON.stringify(events));
        await once('connect');
      });
    });
  }

  e2e('by SIGTERM', {}, async ({ nodes: [node] }) => {
    await withOld(async (old) => {
      const { events, once } = old(node.url, { token: token({ sub: 'alice' }) });
      await once('connect');
      const ended = once('disconnect');
      const stopped = node.stop('SIGTERM');
      await ended;
      assert.ok(events.some(([event]) => event === 'server:shutdown'), JSON.stringify(events));
      assert.equal((await stopped).code, 0);
    });
  });
});
