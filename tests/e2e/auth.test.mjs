// Who is who: tokens under public keys and under those that an issuer publishes, what becomes of
// connections when their token ends, and an operator who sends a user away.

import assert from 'node:assert/strict';
import { createHmac, constants, generateKeyPairSync, sign } from 'node:crypto';
import { createServer } from 'node:http';
import { after, afterEach } from 'node:test';
import {
  ask, client, close, connected, each, eventually, freePort, get, lasting, metrics, nodeOf, ok, open, refused, sessionId, SECRET, suite, token, within,
} from './harness.mjs';
import { endAll, stream } from './harness/eventsource.mjs';
import { at, rest } from './harness/rest.mjs';

afterEach(endAll);

// ── Tokens and their issuers ───────────────────────────────────────────────────────────────────

const pair = (type, options) => generateKeyPairSync(type, options);
const RSA = pair('rsa', { modulusLength: 2048 });
const KEYS = {
  RS256: RSA,
  PS384: RSA,
  ES256: pair('ec', { namedCurve: 'P-256' }),
  ES384: pair('ec', { namedCurve: 'P-384' }),
  EdDSA: pair('ed25519'),
};
const another = () => pair('ec', { namedCurve: 'P-256' });
const pem = ({ publicKey }) => publicKey.export({ type: 'spki', format: 'pem' });
const jwk = ({ publicKey }, members) => ({ ...publicKey.export({ format: 'jwk' }), ...members });

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const now = () => Math.floor(Date.now() / 1000);

function signature(alg, key, message) {
  const hash = `sha${alg.slice(2)}`;
  const { RSA_PKCS1_PSS_PADDING: padding, RSA_PSS_SALTLEN_DIGEST: saltLength } = constants;
  if (alg === 'EdDSA') return sign(null, message, key);
  if (alg.startsWith('ES')) return sign(hash, message, { key, dsaEncoding: 'ieee-p1363' });
  return sign(hash, message, alg.startsWith('PS') ? { key, padding, saltLength } : key);
}

/** A token under one of the key pairs. */
function signed(alg, { privateKey }, { kid, sub = 'alice', ttl = 3600, ...claims } = {}) {
  const payload = { sub, exp: now() + ttl, ...claims };
  const message = `${base64({ alg, typ: 'JWT', ...(kid ? { kid } : {}) })}.${base64(payload)}`;
  return `${message}.${signature(alg, privateKey, Buffer.from(message)).toString('base64url')}`;
}

/** A token under a secret. */
function hmac(secret, header = {}) {
  const message = `${base64({ alg: 'HS256', ...header })}.${base64({ sub: 'alice', exp: now() + 600 })}`;
  return `${message}.${createHmac('sha256', secret).update(message).digest('base64url')}`;
}

const CANARY = 'canary-of-the-issuers-url';
const issuers = new Set();
after(() => Promise.all([...issuers].map((issuer) => issuer.stop())));

/** Whoever publishes keys: `answer` is what it says next, `requests` how often it was asked. */
class Issuer {
  requests = 0;
  answer = (response) => response.end(JSON.stringify({ keys: this.keys }));
  #held = [];

  constructor(port, keys) {
    Object.assign(this, { port, keys });
    this.url = `http://127.0.0.1:${port}/keys?secret=${CANARY}`;
    issuers.add(this);
  }

  static async new(keys = []) {
    return new Issuer(await freePort(), keys);
  }

  start() {
    this.server = createServer((request, response) => {
      this.requests += 1;
      this.answer(response);
    });
    return new Promise((done) => this.server.listen(this.port, '127.0.0.1', () => done(this)));
  }

  /** Says nothing until `release`. */
  hold() {
    this.answer = (response) => this.#held.push(response);
  }

  release() {
    this.answer = (response) => response.end(JSON.stringify({ keys: this.keys }));
    for (const response of this.#held.splice(0)) this.answer(response);
  }

  async stop() {
    issuers.delete(this);
    this.server?.closeAllConnections();
    await new Promise((done) => (this.server ? this.server.close(done) : done()));
    this.server = undefined;
  }
}

/** What a node says of a token: over REST, by an answer that needs nothing but it. */
const asked = (node, jwt) => rest(node, 'alice', { jwt }).call('GET', at.sessions);
async function admits(node, jwt, sub = 'alice') {
  assert.equal((await asked(node, jwt)).status, 200, jwt);
  const { socket, heard } = await open(node.url, { token: jwt });
  assert.equal((await heard.next('connection:success')).userId, sub);
  close(socket);
}
async function refuses(node, jwt) {
  const { status, body } = await asked(node, jwt);
  assert.deepEqual([status, body?.error?.code, body?.error?.message], [401, 'AUTH_ERROR', 'Authentication error: Invalid token'], jwt);
  const error = await refused(client(node.url, { token: jwt }));
  assert.deepEqual([error.message, error.data], ['Authentication error: Invalid token', { code: 'AUTH_ERROR', reason: 'invalid' }]);
}
const degraded = async (node) => {
  const response = await get(`${node.url}/readyz`);
  assert.equal(response.status, 200);
  return (await response.json()).degraded;
};
const ONLY_PUBLIC = { JWT_SECRET: '', SIGNING_SECRET: 'what signs the stream tokens of these tests' };

suite('public keys', { nodes: 1 }, (e2e) => {
  e2e('JWT_PUBLIC_KEY: its kind is the only one, beside a secret or not', { timeout: 60_000 }, async (cluster) => {
    for (const [alg, key] of Object.entries(KEYS)) {
      // As it stands in an environment that has one line for it.
      const JWT_PUBLIC_KEY = pem(key).replaceAll('\n', '\\n');
      const [both, alone] = await Promise.all([cluster.startNode({ JWT_PUBLIC_KEY }), cluster.startNode({ JWT_PUBLIC_KEY, ...ONLY_PUBLIC })]);
      for (const node of [both, alone]) {
        await admits(node, signed(alg, key));
        for (const secret of [pem(key), pem(key).trimEnd(), JWT_PUBLIC_KEY, key.publicKey.export({ type: 'spki', format: 'der' })]) {
          await refuses(node, hmac(secret));
        }
        await refuses(node, signed('ES256', another()));
        const [header, payload] = signed(alg, key).split('.');
        await refuses(node, `${base64({ alg: 'none' })}.${payload}.`);
        await refuses(node, `${header}.${payload}.`);
      }
      await admits(both, hmac(SECRET));
      await refuses(alone, hmac(SECRET));
      await Promise.all([both.stop(), alone.stop()]);
    }
  });

  e2e('stream tokens are good on every node that has the same SIGNING_SECRET', {}, async (cluster) => {
    const env = { JWT_PUBLIC_KEY: pem(KEYS.ES256), ...ONLY_PUBLIC };
    const nodes = await Promise.all([cluster.startNode(env), cluster.startNode(env)]);
    const jwt = signed('ES256', KEYS.ES256);
    const { streamToken } = await rest(nodes[0], 'alice', { jwt }).post('/stream/init', {});
    for (const node of nodes) {
      const id = sessionId('sse');
      assert.equal((await stream(node.url, `/chat/stream/${id}`, { token: streamToken })).status, 200);
      assert.equal((await stream(node.url, `/chat/stream/${id}`, { token: jwt })).status, 200);
      await refuses(node, streamToken);
    }
  });

  e2e('a token of more than 4 KiB is refused and counted', {}, async (cluster) => {
    const [node] = cluster.nodes;
    const limited = async () => (await metrics(node)).sum('limit_reached_total{limit="token"}');
    const before = await limited();
    await refuses(node, token({ claims: { pad: 'a'.repeat(5_000) } }));
    await eventually(async () => (await limited()) === before + 2);
  });
});

suite('published keys', { nodes: 1 }, (e2e) => {
  const start = async (cluster, keys, env = {}) => {
    const issuer = await (await Issuer.new(keys)).start();
    const node = await cluster.startNode({ JWKS_URL: issuer.url, ...ONLY_PUBLIC, ...env });
    return { issuer, node };
  };

  e2e('a token is for the key that it names; a new one is found at once', {}, async (cluster) => {
    const [a, b] = [another(), another()];
    const keys = Object.entries(KEYS).map(([alg, key]) => jwk(key, { kid: alg, alg, use: 'sig' }));
    const useless = [{ kty: 'oct', k: Buffer.from(SECRET).toString('base64url'), kid: 'oct' }, { kty: 'later' }, jwk(b, { kid: 'enc', use: 'enc' })];
    const { issuer, node } = await start(cluster, [...useless, ...keys, jwk(a, { kid: 'a' })]);
    for (const [alg, key] of Object.entries(KEYS)) {
      await admits(node, signed(alg, key, { kid: alg }));
      await admits(node, signed(alg, key));
    }
    await refuses(node, signed('PS256', RSA, { kid: 'RS256' }));
    await refuses(node, signed('RS256', RSA, { kid: 'PS384' }));
    await refuses(node, signed('ES256', a, { kid: 'ES256' }));
    await refuses(node, hmac(SECRET, { kid: 'oct' }));
    await refuses(node, hmac(pem(RSA), { kid: 'RS256' }));
    assert.equal(issuer.requests, 1, 'nobody has named a key that is not known');
    issuer.keys = [jwk(b, { kid: 'b' })];
    await admits(node, signed('ES256', b, { kid: 'b' }));
    assert.equal(issuer.requests, 2);
    await refuses(node, signed('ES256', a, { kid: 'a' }));
    assert.equal(issuer.requests, 2, 'at most once a minute');
    assert.ok(!node.log(10_000).includes(CANARY) && node.log(10_000).includes('JWKS_URL publishes secrets'));
  });

  e2e('a flood of unknown keys is one request, and nobody else waits for it', {}, async (cluster) => {
    const a = another();
    const { issuer, node } = await start(cluster, [jwk(a, { kid: 'a' })]);
    issuer.hold();
    let answered = 0;
    const flood = Array.from({ length: 150 }, async (_, n) => {
      const jwt = signed('ES256', a, { kid: `unknown-${n}` });
      const { status } = await asked(node, jwt);
      answered += 1;
      return status;
    });
    const sockets = Array.from({ length: 30 }, (_, n) => refused(client(node.url, { token: signed('ES256', a, { kid: `of-socket-${n}` }) })));
    await eventually(() => issuer.requests === 2);
    await admits(node, signed('ES256', a, { kid: 'a' }));
    assert.equal(answered, 0, 'the flood waits, and who is known does not');
    issuer.release();
    assert.deepEqual(new Set(await Promise.all(flood)), new Set([401]));
    for (const error of await Promise.all(sockets)) assert.equal(error.data.code, 'AUTH_ERROR');
    await each(Array.from({ length: 100 }, (_, n) => n), 10, async (n) => assert.equal((await asked(node, signed('ES256', a, { kid: `again-${n}` }))).status, 401));
    assert.equal(issuer.requests, 2);
  });

  for (const [what, fail] of Object.entries({
    'is down': (issuer) => issuer.stop(),
    'publishes an empty set': (issuer) => void (issuer.keys = []),
    'publishes nonsense': (issuer) => void (issuer.answer = (response) => response.end('{"keys":[{"kty":"RSA"')),
    'publishes too much': (issuer) => void (issuer.answer = (response) => response.end(JSON.stringify({ keys: issuer.keys, pad: 'x'.repeat(300_000) }))),
    'publishes too many keys': (issuer) => void (issuer.keys = Array.from({ length: 65 }, (_, n) => jwk(RSA, { kid: `${n}` }))),
    'fails': (issuer) => void (issuer.answer = (response) => response.writeHead(500).end(JSON.stringify({ keys: [] }))),
    'sends elsewhere': (issuer) => void (issuer.answer = (response) => response.writeHead(302, { Location: issuer.url.replace('keys', 'moved') }).end()),
  })) {
    e2e(`an issuer that ${what} ends nobody's token`, {}, async (cluster) => {
      const a = another();
      const { issuer, node } = await start(cluster, [jwk(a, { kid: 'a' })]);
      const jwt = signed('ES256', a, { kid: 'a' });
      await admits(node, jwt);
      assert.deepEqual(await degraded(node), []);
      await fail(issuer);
      // Whether there is such a key, nobody knows: not a word on the token.
      const { status, headers, body } = await asked(node, signed('ES256', another(), { kid: 'b' }));
      assert.deepEqual([status, body.error.code], [503, 'OVERLOADED']);
      assert.match(headers.get('retry-after'), /^\d+$/);
      assert.deepEqual(await degraded(node), ['jwks']);
      await admits(node, jwt);
      await refuses(node, signed('ES256', another(), { kid: 'a' }));
      const lines = node.log(10_000).split('\n').filter((line) => line.includes('JWKS_URL cannot be had') || line.includes('cannot be had'));
      assert.equal(lines.length, 1, lines.join('\n'));
      assert.ok(lines[0].includes('127.0.0.1') && !node.log(10_000).includes(CANARY));
    });
  }

  e2e('a node that starts without its issuer lets clients in once that is there', { timeout: 60_000 }, async (cluster) => {
    const a = another();
    const issuer = await Issuer.new([jwk(a, { kid: 'a' })]);
    const node = await cluster.startNode({ JWKS_URL: issuer.url, ...ONLY_PUBLIC });
    assert.deepEqual(await degraded(node), ['jwks']);
    const jwt = signed('ES256', a, { kid: 'a' });
    assert.equal((await asked(node, jwt)).status, 503);
    assert.equal((await stream(node.url, `/chat/stream/${sessionId('sse')}`, { token: jwt })).status, 503);
    await refuses(node, hmac(SECRET));
    await refuses(node, 'nonsense');
    const clients = [['websocket'], ['polling']].map((transports) => client(node.url, { token: jwt, transports }));
    const errors = [];
    let tries = 0;
    for (const socket of clients) {
      // A refusal by the server carries `data`: after one, a stock client stays away.
      socket.on('connect_error', (error) => error.data && errors.push(error));
      socket.io.on('reconnect_attempt', () => (tries += 1));
    }
    await eventually(() => tries >= 4, { within: 20_000, what: 'they try again' });
    await issuer.start();
    await Promise.all(clients.map((socket) => connected(socket, 20_000).catch(() => eventually(() => socket.connected, { within: 20_000 }))));
    assert.deepEqual(errors, []);
    assert.deepEqual(await degraded(node), []);
    await admits(node, jwt);
  });

  e2e('a slow issuer holds up a start for so long, and no longer', { timeout: 60_000 }, async (cluster) => {
    const a = another();
    const issuer = await (await Issuer.new([jwk(a, { kid: 'a' })])).start();
    issuer.hold();
    const node = await cluster.startNode({ JWKS_URL: issuer.url, ...ONLY_PUBLIC });
    const jwt = signed('ES256', a, { kid: 'a' });
    assert.equal((await asked(node, jwt)).status, 503);
    issuer.release();
    await eventually(async () => (await asked(node, jwt)).status === 200, { within: 20_000 });
  });
});

// ── The end of a token ─────────────────────────────────────────────────────────────────────────

const ERRORS = { session: 'error', subscribe: 'error', conversation: 'chat:error', persona: 'chat:error' };
const DIALECTS = Object.keys(ERRORS);

/** A device whose connects and disconnects are kept. */
async function device(node, jwt, dialect, options = {}) {
  const socket = client(node.url, { token: jwt, auth: { dialect }, ...options });
  const seen = { dialect, socket, connects: 0, reasons: [], errors: [] };
  socket.on('connect', () => (seen.connects += 1));
  socket.on('disconnect', (reason) => seen.reasons.push(reason));
  socket.on(ERRORS[dialect], (payload) => seen.errors.push(payload));
  await connected(socket);
  return seen;
}

/** Until it was sent away, for good. */
async function sentAway({ dialect, socket, reasons }) {
  await eventually(() => reasons.length > 0, { within: 15_000, what: `${dialect}: disconnected` });
  assert.deepEqual(reasons, ['io server disconnect'], dialect);
  assert.ok(!socket.active, `${dialect}: it does not come back by itself`);
}

const TRANSPORTS = [['websocket'], ['polling']];
const ENDS = { JWT_LEEWAY: '1s', AUTH_EXPIRE: 'true' };

suite('AUTH_EXPIRE', { nodes: 2, env: ENDS }, (e2e) => {
  e2e('a socket is told that its token has ended, and is disconnected, in every dialect', {}, async (cluster) => {
    const jwt = token({ ttl: 2 });
    const far = token({ claims: { exp: 253_402_300_799 } });
    const farther = token({ claims: { exp: Number.MAX_SAFE_INTEGER } });
    const places = DIALECTS.flatMap((dialect) => TRANSPORTS.map((transports) => [dialect, transports]));
    const all = (of) => Promise.all(places.map(([dialect, transports], n) => device(nodeOf(cluster, n), of, dialect, { transports })));
    const [short, others, last] = await Promise.all([all(jwt), all(far), all(farther)]);
    await Promise.all(short.map(sentAway));
    for (const { dialect, errors, connects } of short) {
      assert.equal(connects, 1, dialect);
      assert.equal(errors.length, 1, `${dialect}: ${JSON.stringify(errors)}`);
      assert.deepEqual([errors[0].code, errors[0].message], ['AUTH_ERROR', 'Authentication error: Token expired'], dialect);
      if (dialect === 'persona') assert.equal(errors[0].error, 'NOT_AUTHENTICATED');
    }
    for (const { socket, reasons } of [...others, ...last]) assert.deepEqual([socket.connected, reasons], [true, []]);
    const error = await refused(client(cluster.url, { token: jwt }));
    assert.equal(error.message, 'Authentication error: Token expired');
  });

  e2e('a stream by a normal token ends with it, one by a stream token does not', {}, async (cluster) => {
    const [jwt, id] = [token({ ttl: 2 }), sessionId('sse')];
    const { streamToken } = await rest(cluster.nodes[0], 'alice', { jwt }).post('/stream/init', { sessionId: id });
    const path = `/chat/stream/${id}`;
    const [normal, other] = [await stream(cluster.nodes[1].url, path, { token: jwt }), await stream(cluster.nodes[0].url, path, { token: streamToken })];
    assert.equal(await within(15_000, 'the end', normal.over()), true, 'ended cleanly');
    assert.deepEqual(normal.events.map(({ event, data }) => [event, data]), [['error', { type: 'AUTH_ERROR', message: 'Authentication error: Token expired' }]]);
    const again = await stream(cluster.nodes[1].url, path, { token: jwt, lastEventId: normal.lastEventId });
    assert.deepEqual([again.status, again.body.error.message], [401, 'Authentication error: Token expired']);
    await rest(cluster.nodes[0], 'alice').post('/chat/message', { sessionId: id, content: 'hello' });
    await other.done();
  });

  e2e('of who comes back the new token counts', {}, async (cluster) => {
    const cut = async ({ socket }, jwt) => {
      socket.auth = { ...socket.auth, token: jwt };
      const back = new Promise((done) => socket.once('connect', done));
      socket.io.engine.close();
      await within(10_000, 'back', back);
      assert.ok(socket.recovered);
    };
    const id = sessionId('room');
    const devices = [];
    for (const ttl of [600, 3]) {
      const one = await device(cluster.nodes[0], token({ ttl }), 'session');
      await ok(one.socket, 'session:join', { sessionId: id });
      devices.push(one);
    }
    const [long, short] = devices;
    await Promise.all([cut(long, token({ ttl: 2 })), cut(short, token({ ttl: 600 }))]);
    await eventually(() => long.errors.length > 0, { within: 15_000 });
    await eventually(() => long.reasons.length === 2);
    assert.deepEqual(long.reasons.slice(1), ['io server disconnect']);
    // Its first token has ended at the latest when one does that is a little longer.
    await sentAway(await device(cluster.nodes[1], token({ ttl: 2 }), 'session'));
    assert.ok(short.socket.connected && short.errors.length === 0);
    await ok(short.socket, 'session:leave', { sessionId: id });
  });
});

suite('AUTH_EXPIRE is off', { nodes: 1, env: { JWT_LEEWAY: '0ms' } }, (e2e) => {
  e2e('nobody is closed for a token that has ended', {}, async (cluster) => {
    const jwt = token({ ttl: 1 });
    const devices = await Promise.all(DIALECTS.map((dialect) => device(cluster.nodes[0], jwt, dialect)));
    const reader = await stream(cluster.url, `/chat/stream/${sessionId('sse')}`, { token: jwt });
    await eventually(async () => (await asked(cluster.nodes[0], jwt)).status === 401);
    await lasting(1_500);
    for (const { socket, reasons } of devices) assert.deepEqual([socket.connected, reasons], [true, []]);
    assert.deepEqual(reader.events, []);
    await ask(devices[0].socket, 'session:leave', { sessionId: sessionId() });
  });
});

// ── An operator ────────────────────────────────────────────────────────────────────────────────

suite('an operator', { nodes: 2 }, (e2e) => {
  e2e('sends a user away everywhere; stock clients stay away until they are told to come', {}, async (cluster) => {
    const sub = sessionId('eve');
    const jwt = token({ sub });
    const places = DIALECTS.flatMap((dialect) => cluster.nodes.flatMap((node) => TRANSPORTS.map((transports) => [node, dialect, transports])));
    const devices = await Promise.all(places.map(([node, dialect, transports]) => device(node, jwt, dialect, { transports })));
    const streams = await Promise.all(cluster.nodes.map((node) => stream(node.url, `/chat/stream/${sessionId('sse')}`, { token: jwt })));
    const bystander = await device(cluster.nodes[1], token({ sub: 'bob' }), 'session');
    const by = (scope) => rest(cluster.nodes[0], 'op', { jwt: token({ sub: 'op', claims: { scope } }) });
    for (const scope of ['', 'tokencast', 'tokencast:administrator', 'Tokencast:admin']) await by(scope).refused(403, 'FORBIDDEN', 'POST', at.disconnect(sub));
    await rest(cluster.nodes[0], sub, { jwt: '' }).refused(401, 'AUTH_ERROR', 'POST', at.disconnect(sub));
    assert.ok(devices.every(({ socket }) => socket.connected));
    const { disconnected } = await by('a tokencast:admin').post(at.disconnect(sub));
    assert.equal(disconnected, devices.length + streams.length);
    await Promise.all(devices.map(sentAway));
    for (const reader of streams) assert.equal(await within(10_000, 'the stream ends', reader.over()), true);
    await ok(bystander.socket, 'session:leave', { sessionId: sessionId() });
    // Told to, they come: who is to stay away needs a token that ends.
    devices[0].socket.connect();
    await eventually(() => devices[0].connects === 2);
    assert.deepEqual(devices.slice(1).filter(({ connects }) => connects !== 1), []);
  });
});
