// No secret where it does not belong: keys, passwords, tokens, query strings, prompts, texts, names and files
// are each one word that is nowhere else in the world, and after successes, refusals, broken input, providers
// that echo what they are sent, a database and a Redis that are away, and a drain, all logs, metrics, keys and
// channels of Redis and all answers are searched for them. The nodes log as chattily as they can.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { after } from 'node:test';
import { SECRET, ask, client, createDatabase, eventually, get, ok, rawWebSocket, refused, startRedis, suite, token } from './harness.mjs';
import { Person, answerer, lives } from './harness/canaries.mjs';
import { endAll } from './harness/eventsource.mjs';
import { startModel } from './harness/model.mjs';
import { at, rest } from './harness/rest.mjs';

const word = (where) => `zq${where}${randomBytes(8).toString('hex')}`;

/** What the nodes are told and nobody else. */
const KEYS = Object.fromEntries(['Signing', 'OpenAi', 'Anthropic', 'Redis', 'Database'].map((where) => [where, word(where)]));
/** What clients say that is no word of theirs in a session: each is added where it is said. */
const said = {};
const say = (where) => (said[`${where}${Object.keys(said).length}`] = word(where));

const FILTERS = ['info', 'tokencast=trace', 'debug', 'trace,hyper=info', 'trace'];

const model = await startModel({ timeout: '300s' });
const redis = await startRedis();
await redis.command('ACL', 'SETUSER', 'tokencast', 'on', `>${KEYS.Redis}`, '~*', '&*', '+@all');
const database = await createDatabase();
const withPassword = (url, username, password) => Object.assign(new URL(url), { username, password }).href;

after(async () => {
  await model.stop();
  await redis.stop();
  await database.drop();
});

/** A provider that says again what it was told: the key, the prompt and all. */
const told = (ask) => ({ message: `no: ${JSON.stringify(ask.headers)} ${ask.all}`, type: ask.headers.authorization, code: ask.headers.authorization.slice(7), param: ask.prompt });
const echoes = {
  refused: (ask) => ask.refuse(401, { 'x-request-id': ask.headers.authorization }, JSON.stringify({ error: told(ask) })),
  page: (ask) => ask.refuse(500, { 'content-type': 'text/html' }, `<html>${JSON.stringify(told(ask))}</html>`),
  middle(ask) {
    ask.say('Well, ');
    ask.write(`data: ${JSON.stringify({ error: told(ask) })}\n\n`);
    ask.finish();
  },
  nonsense(ask) {
    ask.write(`data: ${JSON.stringify(told(ask)).slice(0, -5)}\n\n${told(ask).message}\n\n`);
    ask.finish();
  },
  cut(ask) {
    ask.say('Well, ');
    ask.breakOff();
  },
};
model.on('told', (ask) => {
  const how = /echo:(\w+)/.exec(ask.prompt)?.[1];
  return how ? echoes[how](ask) : answerer(ask);
});

/** Bytes to a node that are no request, and all that comes back. */
const bytes = (node, text) =>
  new Promise((done) => {
    const { hostname, port } = new URL(node.url);
    const socket = connect({ host: hostname, port: Number(port) }, () => socket.write(text));
    let back = '';
    socket.on('data', (data) => (back += data));
    socket.on('error', () => {});
    socket.on('close', () => done(back));
    setTimeout(() => socket.end(), 300).unref();
  });

/** What is wrong in every way, each with a word of its own. */
async function abuses(cluster, n, person) {
  const node = cluster.nodes[n];
  const call = (method, path, more) => person.call(method, path, { node: n, ...more });
  const jwt = (where, options) => {
    const made = token({ sub: person.sub, name: say('Name'), ...options });
    said[`${where}${Object.keys(said).length}`] = made;
    for (const part of made.split('.').slice(1)) said[`${where}Part${Object.keys(said).length}`] = part;
    return made;
  };
  // Tokens that hold and that do not, in each place.
  const good = jwt('Token');
  const part = Buffer.from(JSON.stringify({ alg: 'HS256', jwk: { kty: 'oct', k: say('Jwk') }, kid: say('Kid'), jku: `https://${say('Jku')}.example` })).toString('base64url');
  const tokens = [good, jwt('Token', { ttl: -60 }), jwt('Token', { secret: say('Forger').repeat(2) }), say('Garbage'), `${part}.${good.split('.')[1]}.${say('Signature')}`, `a.${say('Payload')}.c`];
  for (const one of tokens) {
    for (const path of [at.sessions, at.session('nowhere'), '/chat/stream/nowhere', '/stream/ai?session=nowhere', '/nowhere', '/', '/docs', '/readyz', '/metrics']) {
      await call('GET', `${path}${path.includes('?') ? '&' : '?'}token=${one}&${say('Query')}=${say('Value')}`, { jwt: null, headers: { cookie: `access_token=${one}; other=${say('Cookie')}`, accept: 'application/json' } });
      await call('GET', path, { jwt: null, headers: { authorization: `Bearer ${one}` } });
    }
    for (const options of [{ token: one }, { query: { token: one } }, { auth: { token: one, userId: say('UserId'), dialect: say('Dialect') } }]) {
      const socket = client(node.url, { transports: [options.query ? 'polling' : 'websocket'], ...options });
      await Promise.race([refused(socket).catch(() => {}), eventually(() => socket.connected).catch(() => {})]);
      socket.disconnect();
    }
  }
  for (const auth of [{ token: { [say('Field')]: say('Object') } }, [say('List')], say('Text')]) {
    const raw = await rawWebSocket(node.url, { query: `EIO=4&transport=websocket&token=${say('Query')}` });
    await raw.until('0{');
    raw.send(`40/chat,${JSON.stringify(auth)}`);
    raw.send(`42/${say('Namespace')},["${say('Event')}"]`);
    raw.send(`42/chat,["${say('Broken')}`);
    raw.send(say('Packet'));
    await Promise.race([raw.closed, raw.until('44/chat')]).catch(() => {});
    raw.end();
  }
  // Bodies and paths that are wrong.
  for (const body of [`{"content": "${say('Cut')}`, JSON.stringify({ sessionId: 'nowhere', content: say('Content') }), JSON.stringify({ sessionId: say('BadId') + ' ', content: 1, [say('Key')]: 1 }), JSON.stringify(say('Bare'))]) {
    for (const path of [at.messages, '/api/chat/streams', '/chat/message', '/stream/init', at.sessions]) await call('POST', path, { body });
  }
  await call('POST', at.messages, { body: `{"content":"${say('Huge')}${'x'.repeat(2_000_000)}"}` });
  await call('GET', `/${say('Path')}/${say('Path')}`);
  await call('GET', at.search(person.ids.session, { query: say('Search') }));
  await call('POST', at.messages, { body: { sessionId: person.ids.session, content: say('Content'), attachments: [{ fileName: say('File'), fileUrl: `javascript:${say('Url')}`, mimeType: say('Mime'), fileSize: -1 }] } });
  await call('POST', '/api/chat/messages', { body: { sessionId: person.ids.session, content: say('Content') }, headers: { 'idempotency-key': say('Idem'), 'last-event-id': say('Last') } });
  for (const text of [`GET /?token=${say('Query')} HTTP/9.9\r\n\r\n`, `${say('Line')}\r\n\r\n`, `GET / HTTP/1.1\r\n${say('Header')}\r\n\r\n`, `POST /chat/message?token=${say('Query')} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n${say('Body')}`]) {
    person.bytes.push(await bytes(node, text));
  }
  // Events that are wrong; polling with a body that is none.
  const { socket } = await person.socket({ node: n });
  for (const [event, payload] of [
    ['session:join', { sessionId: `${say('BadId')} ` }], ['message:send', { sessionId: person.ids.session, content: { a: say('Content') } }], [say('Event'), say('Argument')],
    ['message:edit', { messageId: say('BadId'), content: say('Content') }], ['typing:start', say('Bare')], ['message:reaction', { messageId: person.ids.message, emoji: `${say('Emoji')} ` }],
    ['stream:request', { sessionId: person.ids.session, prompt: say('Prompt'), agentId: say('Agent') }], ['stream:request', { sessionId: person.ids.session, prompt: say('Prompt'), config: { temperature: 99, model: say('Model') } }],
  ]) await ask(socket, event, payload);
  const { sid } = JSON.parse((await (await get(`${node.url}/socket.io/?EIO=4&transport=polling&token=${say('Query')}`)).text()).slice(1));
  said[`Sid${n}`] = sid;
  await get(`${node.url}/socket.io/?EIO=4&transport=polling&sid=${sid}`, { method: 'POST', body: `4${say('Poll')}\x1e9${say('Poll')}` });
  await get(`${node.url}/socket.io/?EIO=9&transport=${say('Transport')}&sid=${say('Sid')}`);
  // Providers that echo.
  await ok(socket, 'session:join', { sessionId: person.ids.session });
  for (const how of Object.keys(echoes)) {
    const { streamId } = await ok(socket, 'stream:request', { sessionId: person.ids.session, prompt: `echo:${how} ${say('Prompt')}` });
    await eventually(async () => (await person.did('GET', at.status(streamId), undefined, { node: n })).status === 'failed', { what: `${how} fails`, within: 20_000 });
  }
  socket.disconnect();
}

/** What is not to be anywhere: one's own, and what was said; ids alone name things in logs and keys. */
const hidden = (people) => ({
  ...KEYS,
  Jwt: SECRET,
  ...said,
  ...Object.fromEntries(people.flatMap(({ name, jwt, words }) => [[`${name}’s token`, jwt], [`${name}’s claims`, jwt.split('.')[1]], [`${name}’s signature`, jwt.split('.')[2]],
    ...Object.entries(words).filter(([where]) => !/^(User|Session)\d/.test(where)).map(([where, one]) => [`${name}’s ${where}`, one])])),
});

function lacks(text, words, where) {
  const found = Object.entries(words).filter(([, one]) => text.includes(one)).map(([name, one]) => {
    const place = text.indexOf(one);
    return `${name} in …${text.slice(Math.max(0, text.lastIndexOf('\n', place), place - 300), place + 60)}…`;
  });
  assert.equal(found.length, 0, `${where}: ${found.length} secrets, such as\n${[...new Set(found.map((one) => one.slice(0, 400)))].slice(0, 6).join('\n')}`);
}

const env = {
  ...model.env, REDIS_URL: withPassword(redis.url, 'tokencast', KEYS.Redis), DATABASE_URL: withPassword(database.url, 'postgres', KEYS.Database),
  SIGNING_SECRET: `${KEYS.Signing} ${KEYS.Signing}`, OPENAI_API_KEY: KEYS.OpenAi, ANTHROPIC_API_KEY: KEYS.Anthropic, SHUTDOWN_GRACE: '1s', AUTO_CREATE_SESSIONS: 'false',
};

suite('secrets', { nodes: FILTERS.length, redis: false, database: 'sqlite', proxied: true, env, each: FILTERS.map((RUST_LOG) => ({ RUST_LOG })) }, (e2e) => {
  e2e('are in no log, metric, key, channel or answer', { timeout: 200_000 }, async (cluster) => {
    try {
      const people = [];
      await Promise.all(cluster.nodes.map(async (_, n) => {
        const [person, friend] = ['person', 'friend'].map((name) => new Person(cluster, `${name}${n}`));
        await person.settle({ members: [friend] });
        await Promise.all([lives(person, person.ids.session, n), lives(friend, person.ids.session, n), abuses(cluster, n, person)]);
        people[2 * n] = person;
        people[2 * n + 1] = friend;
      }));
      const words = hidden(people);
      assert.ok(model.asks.some(({ headers }) => headers.authorization === `Bearer ${KEYS.OpenAi}`), 'the key was used');

      // What Redis is asked to keep, and who is connected: names of keys, channels and clients.
      const keys = await redis.command('--scan');
      const listed = [keys, await redis.command('PUBSUB', 'CHANNELS'), await redis.command('PUBSUB', 'SHARDCHANNELS'), await redis.command('CLIENT', 'LIST')].join('\n');
      assert.ok(keys.split('\n').length > 5 && listed.includes('user=tokencast'), listed);
      assert.throws(() => lacks(listed, { ...words, control: people[0].ids.session }, 'the control'), /control in/, 'the search finds what is there');
      lacks(listed, words, 'Redis');
      for (const node of cluster.nodes) {
        const text = await (await get(node.metricsUrl)).text();
        assert.ok(text.includes('event="other"'), 'unknown events are counted');
        lacks(text, { ...words, ...Object.fromEntries(people.flatMap((person) => Object.entries({ ...person.words, ...person.ids }))) }, 'metrics');
      }

      // Without the database, then without Redis.
      for (const way of ['toDatabase', 'toRedis']) {
        await Promise.all(cluster.nodes.map(async (node, n) => {
          const person = people[2 * n];
          const { socket } = await person.socket({ node: n });
          node[way].watch(() => 'cut before');
          node[way].cut();
          const answers = [
            ...(await Promise.all([
              person.call('POST', at.messages, { node: n, body: { sessionId: person.ids.session, content: say('Content') } }),
              person.call('GET', at.search(person.ids.session, { query: say('Search') }), { node: n }),
              person.call('GET', `${at.sessions}?token=${person.jwt}`, { node: n }),
            ].map((one) => one.catch(() => {})))),
          ];
          await ask(socket, 'message:send', { sessionId: person.ids.session, content: say('Content') }).catch(() => {});
          if (way === 'toDatabase') assert.ok(answers.some((answer) => answer?.status >= 500), 'without a database');
          socket.disconnect();
          node[way].watch(undefined);
          await eventually(async () => (await rest(node, person.sub).call('GET', at.sessions)).status === 200, { within: 30_000, what: 'it is back' });
        }));
      }
      // A drain in the middle of an answer.
      for (const [n, node] of cluster.nodes.entries()) {
        await people[2 * n].socket({ node: n });
        node.signal('SIGTERM');
      }
      await Promise.all(cluster.nodes.map(({ exited }) => exited));

      const all = hidden(people);
      for (const person of people) {
        lacks(person.sent(), KEYS, `what ${person.name} was sent`);
      }
      for (const [n, node] of cluster.nodes.entries()) {
        const log = readFileSync(node.logFile, 'utf8');
        assert.ok(log.includes('listening at') && log.includes('agent=assistant'), 'it is the log');
        console.log(`RUST_LOG=${FILTERS[n]}: ${log.split('\n').length} lines, ${Object.keys(all).length} words`);
        assert.throws(() => lacks(log, { ...all, control: 'agent=assistant' }, 'the control'), /control in/, 'the search finds what is there');
        lacks(log, all, `the log of RUST_LOG=${FILTERS[n]}`);
      }
    } finally {
      endAll();
    }
  });
});
