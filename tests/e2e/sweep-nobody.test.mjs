// The sweep of who is nobody: without a token, with one that is over, forged, cut off, or good for event
// streams only, every route answers 401 in the same words for what there is and what there is not, every
// socket is refused, and what is said before that or instead of it is not listened to.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { ask, client, rawWebSocket, record, refused, suite, token } from './harness.mjs';
import { Person, answerer, document, searched } from './harness/canaries.mjs';
import { endAll } from './harness/eventsource.mjs';
import { startModel } from './harness/model.mjs';
import { events, filled, missing, places, routes } from './harness/sweep.mjs';

const model = await startModel({ timeout: '300s' });
model.on('told', answerer);
after(() => model.stop());

/** Where a token may stand, each with what is sent there. */
const PLACES = {
  header: (jwt) => ({ headers: { authorization: `Bearer ${jwt}` } }),
  cookie: (jwt) => ({ headers: { cookie: `access_token=${jwt}` } }),
  query: (jwt) => ({ query: { token: jwt } }),
};

suite('nobody', { nodes: 2, env: { ...model.env, AUTO_CREATE_SESSIONS: 'true' } }, (e2e) => {
  e2e('is told nothing, and changes nothing', { timeout: 120_000 }, async (cluster) => {
    try {
      const [victim, attacker] = ['victim', 'attacker'].map((name) => new Person(cluster, name));
      await victim.settle();
      await attacker.settle();
      const kept = await victim.stored();
      const sse = (await attacker.did('POST', '/stream/init', {})).streamToken;
      const [, claims] = victim.jwt.split('.');
      const tokens = {
        'none': undefined,
        'over': token({ sub: victim.sub, ttl: -3_600 }),
        'forged': token({ sub: victim.sub, secret: 'another secret, that is as long as it has to be' }),
        'without a signature': `${victim.jwt.split('.').slice(0, 2).join('.')}.`,
        'of no algorithm': `${Buffer.from('{"alg":"none","typ":"JWT"}').toString('base64url')}.${claims}.`,
        'of nobody': token({ sub: '' }),
        'cut off': victim.jwt.slice(0, -1),
        'garbage': 'garbage',
        'for event streams': sse,
      };
      const openapi = routes(await document(cluster.nodes[0], 'openapi'));
      const closed = openapi.filter(({ isOpen }) => !isOpen);
      // What needs no token knows nobody's data: it is told apart by the document, and these are all.
      assert.deepEqual(openapi.filter(({ isOpen }) => isOpen).map(({ path }) => path).sort(), ['/healthz', '/livez', '/readyz']);
      let cases = 0;
      const bodies = new Map();
      for (const route of closed) {
        for (const [what, jwt] of Object.entries(tokens)) {
          // What it is for is tried by those who may be somebody.
          if (jwt === sse && route.isStream) continue;
          for (const [place, put] of jwt === undefined ? [['nowhere', () => ({})]] : Object.entries(PLACES)) {
            for (const template of route.templates) {
              for (const ids of [victim.ids, missing(victim.ids)]) {
                const made = filled(template, places(template), ids, ids);
                const { query = {}, headers = {} } = put(jwt);
                const search = Object.entries({ ...made.query, ...query }).filter(([, value]) => value !== undefined);
                const target = `${route.path.replace(/\{(\w+)\}/g, (_, field) => encodeURIComponent(made.path[field]))}?${new URLSearchParams(search)}`;
                const answer = await attacker.call(route.method, target, { jwt: null, body: made.body, headers: { ...made.headers, ...headers } });
                const told = `${route.name}, a token ${what} in the ${place}: ${answer.text}`;
                assert.equal(answer.status, 401, told);
                assert.equal(answer.body.error.code, 'AUTH_ERROR', told);
                // One answer for all that there is and is not.
                const name = `${route.name} ${what} ${place}`;
                assert.equal(answer.text, bodies.get(name) ?? answer.text, told);
                bodies.set(name, answer.text);
                cases += 1;
              }
            }
          }
        }
      }
      const listed = events(await document(cluster.nodes[0], 'asyncapi'));
      let said = 0;
      for (const [what, jwt] of Object.entries(tokens)) {
        for (const dialect of new Set(listed.map((one) => one.dialect))) {
          for (const transports of [['websocket'], ['polling']]) {
            const error = await refused(client(cluster.nodes[1].url, { token: jwt, auth: { dialect }, transports }));
            assert.match(error.message, /^Authentication error: (Token missing|Invalid token|Token expired)$/, what);
            assert.equal(error.data.code, 'AUTH_ERROR', what);
            attacker.bytes.push(error.message, JSON.stringify(error.data));
          }
        }
        // Everything at once, after the refusal and without having asked to be let in.
        for (const when of ['before', 'after']) {
          const raw = await rawWebSocket(cluster.nodes[1].url);
          await raw.until('0{');
          const knock = () => raw.send(`40/chat,${JSON.stringify({ token: jwt })}`);
          if (when === 'before') knock();
          for (const { event, templates } of listed) {
            for (const template of templates) {
              raw.send(`42/chat,7${JSON.stringify([event, filled(template, places(template), victim.ids, victim.ids)])}`);
              said += 1;
            }
          }
          if (when === 'after') knock();
          await Promise.race([raw.until('44/chat,'), raw.closed]);
          raw.end();
          const words = raw.received.map(({ text }) => text).join('\n');
          assert.doesNotMatch(words, /4[23]\/chat/, `${what}: nothing is answered`);
          attacker.bytes.push(words);
        }
      }
      assert.deepEqual(await victim.stored(), kept);
      const count = searched([victim], [attacker], { known: [] });
      assert.ok(cases >= closed.length * 2 && said >= listed.length * 2);
      console.log(`${closed.length} routes in ${cases} cases, ${listed.length} events said ${said} times, ${count.words} searches in ${count.bytes} bytes`);
    } finally {
      endAll();
    }
  });
});

const chatAuth = { nodes: 1, database: 'sqlite', redis: false, env: { ...model.env, ALLOW_CHAT_AUTH: 'true' } };
suite('who has not said yet who they are', chatAuth, (e2e) => {
  e2e('is answered nothing else', {}, async (cluster) => {
    try {
      const [victim, attacker] = ['victim', 'attacker'].map((name) => new Person(cluster, name));
      await victim.settle();
      await attacker.settle();
      const kept = await victim.stored();
      const listed = events(await document(cluster.nodes[0], 'asyncapi'));
      let admitted = 0;
      for (const { name, dialect, event, templates } of listed) {
        const socket = client(cluster.url, { auth: { dialect } });
        const heard = record(socket);
        const answer = await Promise.race([
          new Promise((done) => socket.once('connect', () => done('admitted'))),
          new Promise((done) => socket.once('connect_error', ({ message }) => done(message))),
        ]);
        if (answer !== 'admitted') {
          assert.match(answer, /^Authentication error/, name);
          continue;
        }
        admitted += 1;
        if (event === 'chat:auth') continue;
        for (const template of templates) {
          const payload = filled(template, places(template), victim.ids, victim.ids);
          const acked = await ask(socket, event, payload);
          assert.equal(acked.ok, false, name);
          assert.match(JSON.stringify(acked), /AUTH_ERROR|NOT_AUTHENTICATED/, name);
          attacker.bytes.push(JSON.stringify(acked));
        }
        attacker.bytes.push(JSON.stringify(heard.events));
        socket.disconnect();
      }
      assert.ok(admitted >= 2, `${admitted} admitted`);
      assert.deepEqual(await victim.stored(), kept);
      searched([victim], [attacker], { known: ['Session', 'User', 'Client'] });
    } finally {
      endAll();
    }
  });
});
