// The isolation sweep: Alice tries everything there is, each event of the dialect and each route of
// the API, with ids of Bob's in every place where an id goes. She is answered as if they did not
// exist, he hears nothing, and nothing of his is in anything that she is sent. The cases are made
// from the server's own lists: an event, a route or a field that is new fails here until it is
// given its values.

import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { flushed, joined, ok, open, sessionId, suite, token } from './harness.mjs';
import { at, makeSession, rest } from './harness/rest.mjs';

const secret = (name) => `${name}${randomBytes(8).toString('hex')}`;

/** The kinds of ids that belong to somebody, and how one is made up that does not exist. */
const KINDS = {
  session: () => sessionId('nowhere'),
  message: () => randomUUID().replace(/-....-(?=.{17}$)/, '-7000-'),
  attachment: () => randomUUID().replace(/-....-(?=.{17}$)/, '-7000-'),
  stream: () => randomUUID().replace(/-....-(?=.{17}$)/, '-7000-'),
};

/** What stands in a place for an id; anything else stands for itself. */
const slot = (kind) => ({ slot: kind });
const FILE = { fileName: 'a.txt', fileUrl: 'https://files.example/a.txt', mimeType: 'text/plain', fileSize: 1 };
const SESSION = slot('session');
const MESSAGE = slot('message');

/** The events of the dialect, with every field in which an id goes. */
const EVENTS = {
  'session:join': [{ sessionId: SESSION }, { sessionId: SESSION, lastMessageId: MESSAGE }, { sessionId: SESSION, streams: [slot('stream'), 3] }],
  'session:leave': [{ sessionId: SESSION }],
  'message:send': [{ sessionId: SESSION, content: 'x' }, { sessionId: SESSION, content: 'x', parentMessageId: MESSAGE }],
  'message:edit': [{ messageId: MESSAGE, content: 'x' }],
  'message:delete': [{ messageId: MESSAGE }],
  'message:seen': [{ sessionId: SESSION, messageId: MESSAGE }],
  'message:reaction': [{ messageId: MESSAGE, emoji: '👀' }],
  'typing:start': [{ sessionId: SESSION }],
  'typing:stop': [{ sessionId: SESSION }],
  'stream:request': [{ sessionId: SESSION, prompt: 'x', agentId: 'instant' }],
  'stream:stop': [{ streamId: slot('stream') }],
};

/** The fields and parameters of the API, by name. */
const FIELDS = {
  sessionId: SESSION, messageId: MESSAGE, parentMessageId: MESSAGE, attachmentId: slot('attachment'), streamId: slot('stream'),
  session: SESSION, before: MESSAGE, after: MESSAGE,
  userId: 'nobody-in-particular', content: 'x', title: 'x', emoji: '👀', agentId: 'instant', visibility: 'private', query: 'secret',
  attachments: [FILE], ...FILE, metadata: {}, limit: 5, offset: 0, prompt: 'x',
};
/** Those that mean something else on a route; `undefined` leaves one out. */
const EXCEPTIONS = {
  'POST /api/chat/sessions': { id: SESSION },
  // Not of these cases: nothing of anybody's is named by them.
  '*': { cursor: undefined, clientMessageId: undefined, 'idempotency-key': undefined, config: undefined, lastEventId: undefined, sub: 'x', name: 'x' },
};
/** Routes that know nobody's data. */
const NOBODYS = /^\/(livez|healthz|readyz|metrics|openapi\.json|docs.*|dev\/.*|)$/;

/** The events of the dialect, as the program itself lists them. */
async function listedEvents(node) {
  const document = await rest(node, 'x', { jwt: null }).get('/asyncapi.json');
  const all = Object.keys(document.operations).map((name) => /^session\.client\.(.+)$/.exec(name)?.[1]);
  return all.filter((event) => event !== undefined);
}

/** Every way to put Bob's ids into the places of a template, at least one: those places. */
function* assignments(template) {
  const places = [];
  const find = (value, path) => {
    if (value?.slot) places.push([path, value.slot]);
    else if (value && typeof value === 'object') for (const [key, inner] of Object.entries(value)) find(inner, [...path, key]);
  };
  find(template, []);
  for (let mask = 1; mask < 1 << places.length; mask += 1) {
    yield new Set(places.filter((_, n) => mask & (1 << n)).map(([path]) => path.join('.')));
  }
}

/** The template with ids: `theirs` in the places that `where` names, one's own in the others. */
function filled(template, where, theirs, own) {
  const fill = (value, path) => {
    if (value?.slot) return (where.has(path.join('.')) ? theirs : own)[value.slot];
    if (Array.isArray(value)) return value.map((inner, n) => fill(inner, [...path, String(n)]));
    if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, fill(inner, [...path, key])]));
    return value;
  };
  const payload = fill(template, []);
  // A map by stream id is written as a pair above, since keys cannot be places.
  if (payload?.streams) payload.streams = { [payload.streams[0]]: payload.streams[1] };
  return payload;
}

/** An answer without what differs between any two: ids that were sent, new ones, times. */
function plain(text, ...sets) {
  let result = text;
  for (const ids of sets) for (const [kind, id] of Object.entries(ids)) result = result.replaceAll(id, `<${kind}>`);
  return result
    .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, '<uuid>')
    .replace(/"offset":\d+/g, '"offset":<offset>') // of one's own stream, which grows
    .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g, '<time>');
}

/** Somebody with a session, messages, an attachment and a running stream; everything is told apart by its words. */
async function owner(cluster, name) {
  const words = Object.fromEntries(['title', 'content', 'reply', 'deleted', 'file', 'url', 'prompt', 'user'].map((word) => [word, secret(word)]));
  const sub = `${name}-${words.user}`;
  const id = sessionId(name);
  await makeSession(cluster.nodes[0], sub, [], { id, title: words.title });
  const devices = [await joined(cluster.nodes[0], sub, id), await joined(cluster.nodes[1], sub, id)];
  const api = rest(cluster.nodes[0], sub);
  const file = { ...FILE, fileName: words.file, fileUrl: `https://files.example/${words.url}` };
  const message = await api.post(at.messages, { sessionId: id, content: `secret ${words.content}`, attachments: [file] });
  await api.post(at.messages, { sessionId: id, content: words.reply, parentMessageId: message.id });
  const gone = await api.post(at.messages, { sessionId: id, content: words.deleted });
  await api.delete(at.message(gone.id));
  await api.post(at.reactions(message.id), { emoji: '🔏' });
  const { streamId } = await ok(devices[0].socket, 'stream:request', { sessionId: id, prompt: words.prompt, agentId: 'endless' });
  for (const { heard } of devices) await heard.next('stream:chunk', (chunk) => chunk.streamId === streamId);
  const ids = { session: id, message: message.id, attachment: message.attachments[0].id, stream: streamId };
  /** All that is stored of it, as its owner reads it. */
  const stored = async () => {
    const texts = [];
    for (const path of [at.session(id), at.history(id), at.members(id), at.reactions(message.id), at.attachments(message.id)]) {
      texts.push((await api.call('GET', path)).text);
    }
    return texts;
  };
  return { sub, api, ids, devices, stored, words: Object.values(words), labels: { sub, ...words } };
}

/** The routes of the API as templates of requests. */
async function routes(node) {
  const document = await rest(node, 'x', { jwt: null }).get('/openapi.json');
  const resolve = (schema) => {
    if (schema?.$ref) return resolve(schema.$ref.slice(2).split('/').reduce((inner, key) => inner[key], document));
    const parts = schema?.allOf ?? schema?.oneOf ?? schema?.anyOf;
    if (parts) return { properties: Object.assign({}, ...parts.map((part) => resolve(part)?.properties)) };
    return schema;
  };
  const found = [];
  for (const [path, operations] of Object.entries(document.paths)) {
    if (NOBODYS.test(path)) continue;
    for (const [method, operation] of Object.entries(operations)) {
      if (!['get', 'post', 'put', 'patch', 'delete'].includes(method)) continue;
      const name = `${method.toUpperCase()} ${path}`;
      const value = (field) => {
        for (const of of [EXCEPTIONS[name], EXCEPTIONS['*'], FIELDS]) if (of && field in of) return of[field];
        throw new Error(`${name}: no value for ${field}: say in FIELDS what stands for it`);
      };
      const request = { path: {}, query: {}, body: undefined };
      for (const each of [...(operations.parameters ?? []), ...(operation.parameters ?? [])]) {
        const parameter = each.$ref ? resolve(each) : each;
        if (parameter.in === 'path') request.path[parameter.name] = value(parameter.name);
        else if (parameter.in === 'query') request.query[parameter.name] = value(parameter.name);
      }
      for (const [, field] of path.matchAll(/\{(\w+)\}/g)) request.path[field] ??= value(field);
      const schema = resolve(resolve(operation.requestBody)?.content?.['application/json']?.schema);
      if (schema) request.body = Object.fromEntries(Object.keys(schema.properties ?? {}).map((field) => [field, value(field)]));
      found.push({ name, method: method.toUpperCase(), pattern: path, request });
    }
  }
  return found;
}

/** What was answered for ids that do not exist where nothing is made by asking: the measure of both runs. */
const measure = new Map();
const covered = { events: new Set(), routes: new Set() };
let listed = [];

for (const AUTO_CREATE_SESSIONS of ['false', 'true']) {
  const agents = { instant: { tokensPerSecond: 0, tokens: 5 }, endless: { tokensPerSecond: 2, tokens: 100_000 } };
  suite(`AUTO_CREATE_SESSIONS=${AUTO_CREATE_SESSIONS}`, { nodes: 2, agents, env: { AUTO_CREATE_SESSIONS } }, (e2e) => {
    e2e('nothing of a foreign session is told or touched', { timeout: 120_000 }, async (cluster) => {
      listed = await listedEvents(cluster.nodes[0]);
      const bob = await owner(cluster, 'bob');
      const alice = await owner(cluster, 'alice');
      // In one of the runs she was a member once: that changes nothing.
      if (AUTO_CREATE_SESSIONS === 'true') {
        await bob.api.post(at.members(bob.ids.session), { userId: alice.sub });
        await bob.api.delete(at.member(bob.ids.session, alice.sub));
      }
      const { socket, heard } = await open(cluster.nodes[1].url, { token: token({ sub: alice.sub }) });
      const raw = [];
      socket.io.engine.on('packet', ({ data }) => raw.push(String(data)));
      const before = await bob.stored();
      for (const device of bob.devices) device.heard.events.length = 0;

      const compare = (name, answered, missing) => {
        if (AUTO_CREATE_SESSIONS === 'false') measure.set(name, missing);
        assert.equal(answered, measure.get(name) ?? missing, `${name}: a foreign id is answered unlike one that does not exist`);
      };
      const missingIds = () => Object.fromEntries(Object.entries(KINDS).map(([kind, make]) => [kind, make()]));

      // Each event, with an ack and without one.
      for (const [event, templates] of Object.entries(EVENTS)) {
        for (const template of templates) {
          for (const where of assignments(template)) {
            const name = `${event} ${Object.keys(template)} with the other’s ${[...where]}`;
            const answer = async (theirs) => {
              const payload = filled(template, where, theirs, alice.ids);
              const acked = JSON.stringify(await socket.timeout(10_000).emitWithAck(event, payload));
              heard.events.length = 0;
              socket.emit(event, payload);
              await flushed({ socket });
              const errors = heard.events.filter(({ name }) => name === 'error');
              return plain(`${acked}\n${JSON.stringify(errors)}`, theirs, alice.ids, alice.labels);
            };
            const foreign = await answer(bob.ids);
            // Asked for ids that do not exist, and with creation on, the server would make them.
            compare(name, foreign, AUTO_CREATE_SESSIONS === 'false' ? await answer(missingIds()) : undefined);
            covered.events.add(event);
          }
        }
      }

      // Each route.
      const api = rest(cluster.nodes[1], alice.sub);
      const taken = [];
      for (const { name: route, method, pattern, request } of await routes(cluster.nodes[1])) {
        covered.routes.add(route);
        for (const where of assignments(request)) {
          const name = `${route} with the other’s ${[...where]}`;
          const answer = async (theirs) => {
            const { path, query, body } = filled(request, where, theirs, alice.ids);
            const target = pattern.replace(/\{(\w+)\}/g, (_, field) => encodeURIComponent(path[field]));
            const given = Object.entries(query).filter(([, value]) => value !== undefined);
            const { status, headers, text } = await api.call(method, given.length ? `${target}?${new URLSearchParams(given)}` : target, body);
            raw.push(text, JSON.stringify([...headers]));
            const kept = [...headers.keys()].filter((header) => !/^(date|content-length)$/.test(header)).sort();
            return plain(`${status} ${kept}\n${text}`, theirs, alice.ids, alice.labels);
          };
          const foreign = await answer(bob.ids);
          if (route === 'POST /api/chat/sessions') taken.push(foreign); // the one that may tell that it is taken
          else compare(name, foreign, AUTO_CREATE_SESSIONS === 'false' ? await answer(missingIds()) : undefined);
        }
      }
      for (const answer of taken) assert.match(answer, /^409 /);
      assert.equal(taken.length, 1);

      // What is in lists that name no id.
      for (const path of [at.sessions, `${at.sessions}?limit=50`]) raw.push((await api.call('GET', path)).text);
      await flushed({ socket }, ...bob.devices, ...alice.devices);
      for (const device of bob.devices) {
        const strange = device.heard.events.filter(({ name, payload }) => !(name === 'stream:chunk' && payload.streamId === bob.ids.stream));
        assert.deepEqual(strange, [], 'the other hears nothing of it');
        assert.ok(device.socket.connected);
      }
      assert.deepEqual(await bob.stored(), before, 'nothing of the other’s was changed');
      for (const device of alice.devices) raw.push(JSON.stringify(device.heard.events));
      const bytes = raw.join('\n');
      for (const word of bob.words) assert.ok(!bytes.includes(word), `${word} was told`);
      // That the search would find it: one's own are there.
      for (const word of [alice.words[0], alice.words[1]]) assert.ok(bytes.includes(word), `${word} is one’s own`);

      for (const one of [alice, bob]) await ok(one.devices[0].socket, 'stream:stop', { streamId: one.ids.stream });
    });
  });
}

test('every event of the dialect was tried', () => {
  assert.ok(listed.length >= 11, `${listed}`);
  assert.deepEqual([...covered.events].sort(), [...listed].sort());
});

after(() => {
  if (covered.routes.size) console.log(`${covered.events.size} events, ${covered.routes.size} routes, ${measure.size} cases`);
});
