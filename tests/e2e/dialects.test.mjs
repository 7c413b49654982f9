// Which of the four vocabularies a socket speaks, how that is settled, and who a socket is that came
// without a token.

import assert from 'node:assert/strict';
import {
  ask, assertError, assertFields, client, close, eventually, metrics, no, ok, open, refused, sessionId, suite, token, within,
} from './harness.mjs';

/** Of each dialect: how it joins, what says so, and an event that another one has. */
const DIALECTS = {
  session: { join: (id) => ['session:join', { sessionId: id }], foreign: 'subscribe', error: 'error' },
  subscribe: { join: (id) => ['subscribe', { sessionId: id }], joined: 'subscribed', foreign: 'session:join', error: 'error' },
  conversation: { join: (id) => ['chat:join', { conversationId: id }], joined: 'chat:joined', foreign: 'subscribe', error: 'chat:error' },
  persona: { join: () => ['chat:join', { personaId: 'instant' }], joined: 'chat:session', foreign: 'session:join', error: 'chat:error' },
};
const ONE_NODE = { nodes: 1, database: 'sqlite', redis: false };
const MISSING = 'Authentication error: Token missing';

/** Until so many sockets speak what is said here, and no others are connected. */
const spoken = (cluster, expected) =>
  eventually(async () => {
    const found = {};
    for (const [key, count] of (await metrics(cluster.nodes[0])).samples) {
      const dialect = /^socket_io_connected\{.*dialect="(\w+)"/.exec(key)?.[1];
      if (dialect && count !== 0) found[dialect] = (found[dialect] ?? 0) + count;
    }
    assert.deepEqual(found, expected);
    return true;
  }, { what: `the dialects ${JSON.stringify(expected)}` });

/** Emits without an acknowledgement: what comes as the error event, which has to be about this. */
async function told(socket, name, code, event, ...args) {
  const error = new Promise((done) => {
    const listener = (payload) => {
      if (payload.event !== event) return;
      socket.off(name, listener);
      done(payload);
    };
    socket.on(name, listener);
  });
  socket.emit(event, ...args);
  const payload = await within(10_000, `${name} about ${event}`, error);
  assertError(payload, code, event);
  return payload;
}

/** Joins, in the dialect's words; what says so. */
async function join({ socket, heard }, dialect, id = sessionId(dialect)) {
  const { join: words, joined } = DIALECTS[dialect];
  const reply = await ok(socket, ...words(id));
  if (joined) await heard.next(joined);
  return reply;
}

/** What is another dialect's is unknown to this one, and said to be in its own form. */
async function isSettled({ socket }, dialect) {
  const { foreign, error: name } = DIALECTS[dialect];
  const payload = { sessionId: sessionId('foreign') };
  assert.match((await no(socket, 'INVALID', foreign, payload)).message, /unknown event/i);
  const error = await told(socket, name, 'INVALID', foreign, payload);
  assert.match(error.message, /unknown event/i);
  if (dialect === 'persona') assert.equal(error.error, 'INVALID');
}

suite('dialects', ONE_NODE, (e2e) => {
  for (const dialect of Object.keys(DIALECTS)) {
    const handshakes = {
      'auth.dialect': { auth: { dialect } },
      '?dialect=': { query: { dialect } },
      'both: auth goes first': { auth: { dialect }, query: { dialect: 'klingon' } },
    };
    for (const [how, handshake] of Object.entries(handshakes)) {
      e2e(`${dialect}, by ${how}`, {}, async (cluster) => {
        const device = await open(cluster.url, { token: token(), ...handshake });
        await spoken(cluster, { [dialect]: 1 });
        await isSettled(device, dialect);
        await join(device, dialect);
        const greetings = device.heard.of('connection:success').length;
        assert.equal(greetings, dialect === 'session' ? 1 : 0, 'connection:success');
        await spoken(cluster, { [dialect]: 1 });
      });
    }

    e2e(`${dialect}, by the first event that has a dialect`, {}, async (cluster) => {
      const device = await open(cluster.url, { token: token() });
      const { socket, heard } = device;
      assert.equal((await heard.next('connection:success')).userId, 'alice');
      await spoken(cluster, { unsettled: 1 });
      // Nothing of this settles anything, and what is wrong is said as `error`.
      for (const [event, ...args] of [['nonsense', {}], ['nonsense'], ['', 7], ['chat:join', {}], ['chat:join', 'x'], ['chat:join']]) {
        await told(socket, 'error', 'INVALID', event, ...args);
        await no(socket, 'INVALID', event, ...args);
      }
      assert.match((await no(socket, 'INVALID', 'nonsense')).message, /unknown event/i);
      assert.doesNotMatch((await no(socket, 'INVALID', 'chat:join', {})).message, /unknown event/i);
      await spoken(cluster, { unsettled: 1 });

      await join(device, dialect);
      await spoken(cluster, { [dialect]: 1 });
      await isSettled(device, dialect);
      await join(device, dialect);
      assert.equal(heard.of('connection:success').length, 1);
      await spoken(cluster, { [dialect]: 1 });
    });

    e2e(`${dialect}, by a first event that is wrong`, {}, async (cluster) => {
      // It has the fields that tell whose it is, so the error is in that dialect's form already.
      const { socket } = await open(cluster.url, { token: token() });
      const [event, fields] = DIALECTS[dialect].join('x');
      const wrong = Object.fromEntries(Object.keys(fields).map((field) => [field, '/'.repeat(200)]));
      await told(socket, DIALECTS[dialect].error, 'INVALID', event, wrong);
      await spoken(cluster, { [dialect]: 1 });
    });
  }

  e2e('events sent back to back are one dialect’s, that of the first', {}, async (cluster) => {
    const socket = client(cluster.url, { token: token() });
    const id = sessionId('first');
    const replies = await Promise.all([
      ask(socket, 'nonsense', {}),
      ask(socket, 'subscribe', { sessionId: id }),
      ask(socket, 'session:join', { sessionId: id }),
      ask(socket, 'unsubscribe', { sessionId: id }),
    ]);
    assert.deepEqual(replies.map((reply) => reply.ok), [false, true, false, true]);
  });

  e2e('message:send first is the default dialect’s: session', {}, async (cluster) => {
    const { socket } = await open(cluster.url, { token: token() });
    const { message } = await ok(socket, 'message:send', { sessionId: sessionId('shared'), content: 'hello' });
    assert.equal(message.content, 'hello');
    await spoken(cluster, { session: 1 });
  });

  e2e('an unknown dialect is refused', {}, async (cluster) => {
    for (const options of [{ auth: { dialect: 'klingon' } }, { query: { dialect: 'klingon' } }, { auth: { dialect: 7 } }]) {
      const error = await refused(client(cluster.url, { token: token(), ...options }));
      assert.equal(error.message, 'Unknown dialect');
      assert.deepEqual(error.data, { code: 'INVALID', reason: 'unknown_dialect' });
    }
  });

  e2e('chat:auth is accepted of the token’s own user only', {}, async (cluster) => {
    const device = await open(cluster.url, { token: token() });
    const { socket } = device;
    const error = await told(socket, 'chat:error', 'AUTH_ERROR', 'chat:auth', { userId: 'mallory' });
    assert.equal(error.error, 'NOT_AUTHENTICATED');
    await spoken(cluster, { persona: 1 });
    await no(socket, 'AUTH_ERROR', 'chat:auth', { userId: 'mallory' });
    await no(socket, 'INVALID', 'chat:auth', {});
    const { sessionId: own } = await join(device, 'persona');
    await ok(socket, 'chat:auth', { userId: 'alice' });
    assert.equal((await join(device, 'persona')).sessionId, own, 'still alice');
  });

  e2e('nobody is admitted without a token', {}, async (cluster) => {
    for (const options of [{}, { auth: { userId: 'alice' } }, { auth: { dialect: 'persona' } }, { query: { dialect: 'persona' } }]) {
      const error = await refused(client(cluster.url, options));
      assert.equal(error.message, MISSING);
      assert.deepEqual(error.data, { code: 'AUTH_ERROR', reason: 'missing' });
    }
  });
});

suite('dialects under DEFAULT_DIALECT=subscribe', { ...ONE_NODE, env: { DEFAULT_DIALECT: 'subscribe' } }, (e2e) => {
  e2e('message:send first is answered by the agent', {}, async (cluster) => {
    const { socket, heard } = await open(cluster.url, { token: token() });
    await heard.next('connection:success');
    const id = sessionId('shared');
    socket.emit('message:send', { sessionId: id, content: 'hello' });
    await heard.next('message:chunk', (payload) => payload.sessionId === id);
    await heard.next('message:complete', (payload) => payload.sessionId === id);
    await spoken(cluster, { subscribe: 1 });
  });

  e2e('it decides nothing else', {}, async (cluster) => {
    for (const dialect of Object.keys(DIALECTS)) {
      const device = await open(cluster.url, { token: token() });
      await device.heard.next('connection:success');
      await spoken(cluster, { unsettled: 1 });
      await join(device, dialect);
      await spoken(cluster, { [dialect]: 1 });
      close(device.socket);
      await spoken(cluster, {});
    }
    const { socket } = await open(cluster.url, { token: token(), auth: { dialect: 'session' } });
    assert.ok((await ok(socket, 'message:send', { sessionId: sessionId('named'), content: 'hello' })).message);
  });
});

/** A socket without a token that has said who it is. */
async function named(cluster, userId, options) {
  const device = await open(cluster.url, options);
  await ok(device.socket, 'chat:auth', { userId });
  return device;
}

suite('dialects under ALLOW_CHAT_AUTH', { ...ONE_NODE, env: { ALLOW_CHAT_AUTH: 'true', MAX_CONNECTIONS_PER_USER: '2' } }, (e2e) => {
  const admitted = {
    'nothing': {},
    'auth.dialect': { auth: { dialect: 'persona' } },
    '?dialect=': { query: { dialect: 'persona' } },
    'a userId': { auth: { userId: 'victim' } },
    'an empty token': { auth: { token: '' } },
  };
  for (const [how, options] of Object.entries(admitted)) {
    e2e(`who came without a token is nobody until chat:auth: ${how} in the handshake`, {}, async (cluster) => {
      const device = await open(cluster.url, options);
      const { socket, heard } = device;
      await spoken(cluster, { persona: 1 });
      for (const [event, ...args] of [
        ['chat:join', { personaId: 'instant' }], ['chat:join', {}], ['chat:message', { sessionId: 's', content: 'hello' }],
        ['session:join', { sessionId: 's' }], ['nonsense'], ['chat:join', Buffer.from('binary')],
      ]) {
        await no(socket, 'AUTH_ERROR', event, ...args);
        const error = await told(socket, 'chat:error', 'AUTH_ERROR', event, ...args);
        assert.equal(error.error, 'NOT_AUTHENTICATED');
      }
      for (const payload of [undefined, {}, 'alice', { userId: 7 }, { userId: '' }, { userId: 'a'.repeat(257) }, { userId: 'a\n' }]) {
        await no(socket, 'INVALID', 'chat:auth', ...(payload === undefined ? [] : [payload]));
      }
      await no(socket, 'AUTH_ERROR', 'chat:join', { personaId: 'instant' });

      await ok(socket, 'chat:auth', { userId: 'alice' });
      const { sessionId: id } = await join(device, 'persona');
      socket.emit('chat:message', { sessionId: id, content: 'hello' });
      const answer = await heard.next('chat:response');
      assertFields(answer, { id: 'string', sender: 'string', content: 'string', createdAt: 'time' }, 'chat:response');
      // It is who it said that it is, for good.
      await no(socket, 'AUTH_ERROR', 'chat:auth', { userId: 'bob' });
      await ok(socket, 'chat:auth', { userId: 'alice' });
      const alice = await open(cluster.url, { token: token() });
      assert.equal((await ok(alice.socket, 'session:join', { sessionId: id })).session.ownerId, 'alice');
      assert.deepEqual(heard.of('connection:success'), []);
      await isSettled(device, 'persona');
    });
  }

  e2e('what was sent before the connect is carried out in order', {}, async (cluster) => {
    const socket = client(cluster.url);
    const replies = await Promise.all([
      ask(socket, 'chat:join', { personaId: 'instant' }),
      ask(socket, 'chat:auth', { userId: 'carol' }),
      ask(socket, 'chat:join', { personaId: 'instant' }),
    ]);
    assert.deepEqual(replies.map((reply) => reply.ok), [false, true, true]);
  });

  const refusals = {
    'a bad token': [{ token: 'nonsense' }, 'Authentication error: Invalid token'],
    'a bad token in the query': [{ query: { token: 'nonsense' } }, 'Authentication error: Invalid token'],
    'an expired token': [{ token: token({ ttl: -3600 }), auth: { dialect: 'persona' } }, 'Authentication error: Token expired'],
    'no token, but another dialect': [{ auth: { dialect: 'session' } }, MISSING],
    'no token, but another dialect in the query': [{ query: { dialect: 'conversation' } }, MISSING],
  };
  for (const [why, [options, message]] of Object.entries(refusals)) {
    e2e(`refused as ever: ${why}`, {}, async (cluster) => {
      const error = await refused(client(cluster.url, options));
      assert.equal(error.message, message);
      assert.equal(error.data.code, 'AUTH_ERROR');
    });
  }

  e2e('who has a token is its user, greeted, and unsettled as ever', {}, async (cluster) => {
    const { socket, heard } = await open(cluster.url, { token: token({ sub: 'dora' }) });
    assert.equal((await heard.next('connection:success')).userId, 'dora');
    await spoken(cluster, { unsettled: 1 });
    await no(socket, 'AUTH_ERROR', 'chat:auth', { userId: 'alice' });
  });

  e2e('two who said who they are see nothing of each other', {}, async (cluster) => {
    const [erin, frank] = [await named(cluster, 'erin'), await named(cluster, 'frank')];
    const { sessionId: hers } = await join(erin, 'persona');
    const { sessionId: his } = await join(frank, 'persona');
    assert.notEqual(hers, his);
    const error = await told(frank.socket, 'chat:error', 'NOT_FOUND', 'chat:message', { sessionId: hers, content: 'hello' });
    assert.equal(error.error, 'SESSION_NOT_FOUND');
    frank.socket.emit('chat:message', { sessionId: his, content: 'hello' });
    await frank.heard.next('chat:response');
    // What erin hears of her own comes after whatever she would have heard of his.
    erin.socket.emit('chat:message', { sessionId: hers, content: 'hello' });
    const answer = await erin.heard.next('chat:response');
    const { messages } = await join(erin, 'persona');
    assert.ok(messages.some((message) => message.id === answer.id));
    assert.equal(erin.heard.of('chat:response').length, 1);
  });

  e2e('a user’s connections are counted from chat:auth on', {}, async (cluster) => {
    const one = await named(cluster, 'grace');
    const nobody = await open(cluster.url);
    const two = await named(cluster, 'grace');
    await no(nobody.socket, 'OVERLOADED', 'chat:auth', { userId: 'grace' });
    await told(nobody.socket, 'chat:error', 'OVERLOADED', 'chat:auth', { userId: 'grace' });
    await no(nobody.socket, 'AUTH_ERROR', 'chat:join', { personaId: 'instant' });
    const error = await refused(client(cluster.url, { token: token({ sub: 'grace' }) }));
    assert.equal(error.message, 'Too many connections');
    // The older ones stay, and who was refused may try again.
    await join(one, 'persona');
    await join(two, 'persona');
    close(one.socket);
    await eventually(async () => (await ask(nobody.socket, 'chat:auth', { userId: 'grace' })).ok, { what: 'room for one more' });
    await join(nobody, 'persona');
  });
});

suite('dialects: nobody counts as a connection', { ...ONE_NODE, env: { ALLOW_CHAT_AUTH: 'true', MAX_CONNECTIONS: '1' } }, (e2e) => {
  e2e('and makes room when it goes', {}, async (cluster) => {
    const { socket } = await open(cluster.url);
    await spoken(cluster, { persona: 1 });
    for (const options of [{}, { token: token() }]) {
      const error = await refused(client(cluster.url, options));
      assert.equal(error.message, 'Too many connections');
      assert.deepEqual(error.data, { code: 'OVERLOADED', reason: 'too_many' });
    }
    close(socket);
    await spoken(cluster, {});
    await named(cluster, 'alice');
  });
});

/** Why the server ended a connection. */
const ended = (socket) =>
  within(15_000, 'the end of the connection', new Promise((done) => {
    socket.io.reconnection(false);
    socket.once('disconnect', done);
  }));

suite('dialects: nobody’s connection reaches its age', { ...ONE_NODE, env: { ALLOW_CHAT_AUTH: 'true', CONNECTION_MAX_AGE: '1s' } }, (e2e) => {
  e2e('and is closed, so that its client comes back', {}, async (cluster) => {
    const { socket } = await open(cluster.url);
    assert.equal(await ended(socket), 'transport close');
    await spoken(cluster, {});
  });
});

suite('dialects: nobody is there when the node drains', { ...ONE_NODE, fresh: true, env: { ALLOW_CHAT_AUTH: 'true', SHUTDOWN_GRACE: '5s' } }, (e2e) => {
  e2e('and is sent elsewhere', {}, async (cluster) => {
    const { socket } = await open(cluster.url);
    const end = ended(socket);
    assert.deepEqual(await cluster.nodes[0].stop('SIGTERM'), { code: 0, signal: null });
    assert.equal(await end, 'transport close');
  });
});
