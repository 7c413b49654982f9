// Who is admitted, what a refused client is told, and that nothing is lost around the connect.

import assert from 'node:assert/strict';
import {
  ask, assertError, assertFields, client, close, connected, each, ok, open, record, refused, sessionId, suite, token,
} from './harness.mjs';

const TRANSPORTS = {
  'WebSocket only': { transports: ['websocket'] },
  'polling only': { transports: ['polling'] },
  'polling, then the upgrade': { transports: ['polling', 'websocket'] },
};

/** Until the engine of a connected socket has upgraded. */
const upgraded = (socket) =>
  new Promise((done) => {
    const { engine } = socket.io;
    if (engine.transport.name === 'websocket') done();
    else engine.once('upgrade', done);
  });

async function succeeds(cluster, options, userId = 'alice') {
  const { socket, heard } = await open(cluster.url, options);
  const hello = await heard.next('connection:success');
  assert.equal(hello.userId, userId);
  close(socket);
}

suite('connect', { nodes: 1 }, (e2e) => {
  const places = {
    'auth.token': (jwt) => ({ token: jwt }),
    'the Authorization header': (jwt) => ({ extraHeaders: { Authorization: jwt } }),
    '?token=': (jwt) => ({ query: { token: jwt } }),
    'the cookie access_token': (jwt) => ({ extraHeaders: { Cookie: `a=b; access_token=${encodeURIComponent(jwt)}; c=d` } }),
  };
  for (const [place, options] of Object.entries(places)) {
    e2e(`a token in ${place} is found, with and without Bearer`, {}, async (cluster) => {
      const jwt = token();
      for (const written of [jwt, `Bearer ${jwt}`]) {
        for (const transports of [['websocket'], ['polling']]) {
          await succeeds(cluster, { ...options(written), transports });
        }
      }
    });
  }

  e2e('auth.token comes before the header, the header before the query', {}, async (cluster) => {
    const [wrong, alice] = [token({ sub: 'mallory', secret: 'x'.repeat(32) }), token()];
    await succeeds(cluster, { token: alice, extraHeaders: { Authorization: `Bearer ${wrong}` }, query: { token: wrong } });
    await succeeds(cluster, { extraHeaders: { Authorization: `Bearer ${alice}` }, query: { token: wrong } });
    const error = await refused(client(cluster.url, { token: wrong, query: { token: alice } }));
    assert.equal(error.message, 'Authentication error: Invalid token');
  });

  const refusals = {
    'no token': [{}, 'Authentication error: Token missing', 'missing'],
    'nonsense': [{ token: 'nonsense' }, 'Authentication error: Invalid token', 'invalid'],
    'another secret': [{ token: token({ secret: 'y'.repeat(32) }) }, 'Authentication error: Invalid token', 'invalid'],
    'an expired token': [{ token: token({ ttl: -3600 }) }, 'Authentication error: Token expired', 'expired'],
    'a stream token': [{ token: token({ claims: { type: 'sse' } }) }, 'Authentication error: Invalid token', 'invalid'],
    'no expiry': [{ token: token({ claims: { exp: undefined } }) }, 'Authentication error: Invalid token', 'invalid'],
    'not valid yet': [{ token: token({ claims: { nbf: Math.floor(Date.now() / 1000) + 3600 } }) }, 'Authentication error: Invalid token', 'invalid'],
    'an empty sub': [{ token: token({ sub: '' }) }, 'Authentication error: Invalid token', 'invalid'],
    'a sub of 257 bytes': [{ token: token({ sub: 'a'.repeat(257) }) }, 'Authentication error: Invalid token', 'invalid'],
    'a token of 5 KiB': [{ token: token({ claims: { pad: 'a'.repeat(5_000) } }) }, 'Authentication error: Invalid token', 'invalid'],
    'a userId that is not sub': [{ token: token(), auth: { userId: 'bob' } }, /^Authentication error: /, 'invalid'],
  };
  for (const [why, [options, message, reason]] of Object.entries(refusals)) {
    e2e(`refused: ${why}`, {}, async (cluster) => {
      for (const transports of Object.values(TRANSPORTS)) {
        const error = await refused(client(cluster.url, { ...options, ...transports }));
        if (message instanceof RegExp) assert.match(error.message, message);
        else assert.equal(error.message, message);
        assert.deepEqual(error.data, { code: 'AUTH_ERROR', reason });
      }
    });
  }

  for (const [how, options] of Object.entries(TRANSPORTS)) {
    e2e(`refused more than once on one connection, then admitted: ${how}`, {}, async (cluster) => {
      let auth = {};
      const socket = client(cluster.url, { ...options, auth: undefined, reconnection: false });
      socket.auth = (give) => give(auth);
      // The last refused socket of a manager takes the connection with it, unlike one of several.
      socket.io._destroy = () => {};
      const heard = record(socket);
      const first = await refused(socket);
      assert.deepEqual(first.data, { code: 'AUTH_ERROR', reason: 'missing' });
      const engine = socket.io.engine;
      if (options.transports.length > 1) await upgraded(socket);
      for (const [next, message, data] of [
        [{ token: 'nonsense' }, 'Authentication error: Invalid token', { code: 'AUTH_ERROR', reason: 'invalid' }],
        [{}, 'Authentication error: Token missing', { code: 'AUTH_ERROR', reason: 'missing' }],
        [{ token: token(), dialect: 'klingon' }, 'Unknown dialect', { code: 'INVALID', reason: 'unknown_dialect' }],
      ]) {
        auth = next;
        const refusal = refused(socket);
        socket.connect();
        const error = await refusal;
        assert.equal(error.message, message);
        assert.deepEqual(error.data, data);
      }
      auth = { token: token() };
      const admitted = connected(socket);
      socket.connect();
      await admitted;
      assert.equal((await heard.next('connection:success')).userId, 'alice');
      assert.equal(socket.io.engine, engine, 'on the connection of the refusals');
    });
  }

  e2e('a userId that is sub is admitted', {}, (cluster) => succeeds(cluster, { token: token(), auth: { userId: 'alice' } }));

  e2e('an unknown dialect is refused, a known one is not', {}, async (cluster) => {
    for (const options of [{ auth: { dialect: 'klingon' } }, { query: { dialect: 'klingon' } }]) {
      const error = await refused(client(cluster.url, { token: token(), ...options }));
      assert.equal(error.message, 'Unknown dialect');
      assert.deepEqual(error.data, { code: 'INVALID', reason: 'unknown_dialect' });
    }
    await succeeds(cluster, { token: token(), auth: { dialect: 'session' } });
    await succeeds(cluster, { token: token(), query: { dialect: 'session' } });
  });

  for (const dialect of ['subscribe', 'conversation', 'persona']) {
    e2e(`the dialect ${dialect} is admitted, and not greeted in another’s words`, {}, async (cluster) => {
      for (const named of [{ auth: { dialect } }, { query: { dialect } }]) {
        for (const transports of Object.values(TRANSPORTS)) {
          const { socket, heard } = await open(cluster.url, { token: token(), ...named, ...transports });
          // Whatever was sent on the connect comes before this answer.
          assert.equal((await ask(socket, 'nonsense', {})).error.code, 'INVALID');
          assert.deepEqual(heard.names(), []);
          close(socket);
        }
      }
    });
  }

  e2e('an origin that is not allowed gets 403, others do not', {}, async (cluster) => {
    const handshake = `${cluster.url}/socket.io/?EIO=4&transport=polling`;
    const status = async (origin) =>
      (await fetch(handshake, { headers: origin ? { Origin: origin } : {}, signal: AbortSignal.timeout(5_000) })).status;
    assert.equal(await status('http://evil.example'), 403);
    assert.equal(await status('http://localhost:3000'), 200); // CORS_ORIGIN
    assert.equal(await status(cluster.url), 200); // the server's own
    assert.equal(await status(undefined), 200);
  });

  e2e('connection:success says who, where and when', {}, async (cluster) => {
    const { socket, heard } = await open(cluster.url, { token: token({ sub: 'carol', name: 'Carol' }) });
    const hello = await heard.next('connection:success');
    assertFields(
      hello,
      { userId: 'string', socketId: 'string', nodeId: 'string', serverTime: 'time', recovered: 'boolean' },
      'connection:success',
    );
    assert.equal(hello.userId, 'carol');
    assert.equal(hello.socketId, socket.id);
    assert.equal(hello.recovered, false);
    assert.ok(Math.abs(Date.parse(hello.serverTime) - Date.now()) < 60_000);
    assert.equal(heard.of('connection:success').length, 1);
  });

  for (const [how, options] of Object.entries(TRANSPORTS)) {
    e2e(`the first event after the connect is never lost: ${how}`, { timeout: 90_000 }, async (cluster) => {
      await each(Array.from({ length: 200 }), 10, async () => {
        const socket = client(cluster.url, { token: token(), ...options });
        const heard = record(socket);
        // Emitted in the very turn in which the client learns that it is connected.
        const first = new Promise((done, fail) => {
          socket.once('connect', () => ok(socket, 'session:join', { sessionId: sessionId('first') }).then(done, fail));
          socket.once('connect_error', fail);
        });
        await first;
        await heard.next('connection:success');
        close(socket);
      });
    });
  }

  e2e('what is sent before the connect arrives in order', {}, async (cluster) => {
    const socket = client(cluster.url, { token: token() });
    const id = sessionId('order');
    // Buffered by the client, and sent back to back. The join makes the stream's session exist.
    const replies = await Promise.all([
      ok(socket, 'session:join', { sessionId: id }),
      ok(socket, 'session:leave', { sessionId: id }),
      ok(socket, 'session:join', { sessionId: id }),
    ]);
    assert.equal(replies[0].session.id, id);
    assert.equal(replies[2].session.id, id);
  });

  e2e('a session that is not one’s own is not found', {}, async (cluster) => {
    const id = sessionId('private');
    const alice = await open(cluster.url, { token: token() });
    await ok(alice.socket, 'session:join', { sessionId: id });
    const mallory = await open(cluster.url, { token: token({ sub: 'mallory' }) });
    const reply = await ask(mallory.socket, 'session:join', { sessionId: id });
    assert.equal(reply.ok, false);
    assertError(reply.error, 'NOT_FOUND', 'session:join');
  });
});

suite('connect through nginx with three nodes', { nodes: 3, nginx: true }, (e2e) => {
  for (const [how, options] of Object.entries(TRANSPORTS)) {
    e2e(how, { timeout: 90_000 }, async (cluster) => {
      const nodes = new Set();
      await each(Array.from({ length: 40 }), 8, async (_, index) => {
        const { socket, heard } = await open(cluster.url, { token: token({ sub: `user-${index}` }), ...options });
        nodes.add((await heard.next('connection:success')).nodeId);
        if (options.transports.length > 1) await upgraded(socket);
        const { streamId } = await ok(socket, 'stream:request', {
          sessionId: sessionId('nginx'), prompt: 'hello', agentId: 'instant',
        });
        const end = await heard.finished(streamId);
        assert.equal(end.name, 'stream:complete');
        heard.follow(streamId);
        close(socket);
      });
      // All have one address and one user agent, so polling ones share a node; others need not.
      if (options.transports[0] === 'websocket') assert.equal(nodes.size, 3, 'WebSocket connections are spread');
    });
  }

  e2e('a dead node is skipped at once', { timeout: 60_000 }, async (cluster) => {
    await cluster.nodes[2].stop('SIGKILL');
    await each(Array.from({ length: 30 }), 5, async () => {
      const { socket, heard } = await open(cluster.url, { token: token() });
      await heard.next('connection:success');
      close(socket);
    });
    await each(Array.from({ length: 10 }), 2, async () => {
      const response = await fetch(`${cluster.url}/readyz`, { signal: AbortSignal.timeout(5_000) });
      assert.equal(response.status, 200);
    });
  });
});
