// The sweep: whoever has no business in a session tries every event of every dialect and every route that
// the program's own documents list, with the ids of somebody else in every place for one and in every
// spelling; as an outsider, as one who was removed, and as a guest of another session that is open. They are
// answered as if there were no such thing, nothing of the other's changes, and nothing of it reaches them.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { ask, suite } from './harness.mjs';
import { Person, answerer, document, searched } from './harness/canaries.mjs';
import { endAll } from './harness/eventsource.mjs';
import { startModel } from './harness/model.mjs';
import { at } from './harness/rest.mjs';
import { SPELLINGS, TEXTS, assignments, events, filled, isTold, missing, places, plain, routes } from './harness/sweep.mjs';

/** What is somebody's: with one of these of another's, there is no such thing. Other ids are only names. */
const OWNED = ['session', 'message', 'attachment', 'stream'];
/** What one has already, which only says where to begin: of another's, it says nothing. */
const HINTS = ['lastMessageId', 'streams.streams'];
const isGone = (where) => where.some(([path, kind]) => OWNED.includes(kind) && !HINTS.includes(path));
const NEW_SESSION = 'POST /api/chat/sessions';
/** Events that ask for what is so already, whoever asks. */
const NOTHING_TO_DO = ['session session:leave', 'subscribe unsubscribe', 'conversation chat:leave'];

const model = await startModel({ timeout: '300s' });
model.on('told', answerer);
const swept = { events: new Set(), routes: new Set(), streams: new Set(), cases: 0, spellings: 0, words: 0, bytes: 0 };
let listed;

after(() => model.stop());

/** The other, who has a friend and an answer that is being written; whoever hosts an open session; the attacker. */
async function scene(cluster, { isMember = false, isGuest = false }) {
  const [victim, friend, host, attacker] = ['victim', 'friend', 'host', 'attacker'].map((name) => new Person(cluster, name));
  await victim.settle({ members: [friend, ...(isMember ? [attacker] : [])] });
  await host.settle({ visibility: 'open' });
  if (isMember) {
    const { session } = victim.ids;
    const member = await attacker.socket({ node: 1 });
    await ask(member.socket, 'session:join', { sessionId: session });
    await attacker.did('POST', at.messages, { sessionId: session, content: 'Farewell' });
    await victim.did('DELETE', at.member(session, attacker.sub));
    member.socket.disconnect();
    attacker.bytes.length = 0; // what they were told as a member they may know
  }
  await attacker.settle();
  return { victim, friend, host, attacker, own: isGuest ? { ...host.ids, user: attacker.sub } : attacker.ids };
}

/** What is said without an acknowledgement: each error that the socket was told since. */
const errorsOf = ({ heard }) => heard.events.splice(0).filter(({ name }) => /^(chat:)?error$/.test(name));

async function sweepEvents({ attacker, victim, own }) {
  for (const { name, dialect, event, templates } of listed.events) {
    const device = await attacker.socket({ dialect, node: 1 });
    const answer = async (payload, ids, { silently = true } = {}) => {
      const acked = JSON.stringify(await ask(device.socket, event, payload));
      device.heard.events.splice(0);
      if (silently) {
        device.socket.emit(event, payload);
        await ask(device.socket, 'no such event');
      }
      return plain(`${acked}\n${JSON.stringify(silently ? errorsOf(device) : [])}`, ids, own, attacker.words);
    };
    for (const template of templates) {
      for (const where of assignments(template)) {
        const nothing = missing(victim.ids);
        const foreign = await answer(filled(template, where, victim.ids, own), victim.ids);
        swept.cases += 1;
        const what = `${name} ${JSON.stringify(template)} with the other’s ${where.map(([path]) => path)}`;
        if (isTold(where)) assert.equal(foreign, await answer(filled(template, where, nothing, own), nothing), what);
        if (process.env.SHOW) console.log(name, where.map(([path]) => path).join(), foreign.slice(0, 150));
        else if (isGone(where) && !NOTHING_TO_DO.includes(name)) assert.match(foreign, /"code":"NOT_FOUND"/, what);
      }
      const all = places(template);
      if (all.length === 0) continue;
      for (const [how, spell] of Object.entries(SPELLINGS)) {
        const [nothing, spelled] = [missing(victim.ids), (ids) => Object.fromEntries(Object.entries(ids).map(([kind, id]) => [kind, spell(id)]))];
        const answers = [];
        for (const ids of [victim.ids, nothing]) answers.push(plain(await answer(filled(template, all, spelled(ids), own), spelled(ids), { silently: false }), ids));
        assert.equal(answers[0], answers[1], `${name} ${JSON.stringify(template)} with the other’s ids ${how}`);
        if (!NOTHING_TO_DO.includes(name)) assert.match(answers[0], /^\{"ok":false/, `${name} ${how}`);
        swept.spellings += 1;
      }
    }
    swept.events.add(name);
    device.socket.disconnect();
  }
}

/** Sends a request made of a template. */
async function request(attacker, { method, path: pattern, isStream }, { path, query = {}, headers, body }, { raw = false, ...more } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  const search = new URLSearchParams(given.map(([key, value]) => [key, String(value)]));
  const target = `${pattern.replace(/\{(\w+)\}/g, (_, field) => (raw ? path[field] : encodeURIComponent(path[field])))}${given.length ? `?${search}` : ''}`;
  if (!isStream) {
    const answer = await attacker.call(method, target, { body, headers, node: 1, ...more });
    return { ...answer, names: [...answer.headers.keys()].filter((name) => !/^(date|content-length)$/.test(name)).sort() };
  }
  const source = await attacker.listen(target, { headers, method, node: 1, ...more });
  if (source.status === 200) {
    await source.next(() => true);
    source.close();
  }
  return { status: source.status, text: JSON.stringify(source.body ?? {}), names: Object.keys(source.headers).filter((name) => !/^(date|content-length)$/.test(name)).sort() };
}

async function sweepRoutes({ attacker, victim, own }) {
  for (const route of listed.routes) {
    for (const template of route.templates) {
      for (const where of assignments(template)) {
        const kinds = where.map(([, kind]) => kind);
        // Whoever owns a session may make anybody a member of it: they share one then, which is not what this is about.
        if (route.name === 'POST /api/chat/sessions/{sessionId}/members' && !kinds.includes('session')) continue;
        const nothing = missing(victim.ids);
        const answer = async (ids) => {
          const { status, names, text } = await request(attacker, route, filled(template, where, ids, own));
          return plain(`${status} ${names}\n${text}`, ids, own, attacker.words);
        };
        const foreign = await answer(victim.ids);
        swept.cases += 1;
        const what = `${route.name} ${JSON.stringify(template)} with the other’s ${where.map(([path]) => path)}`;
        if (process.env.SHOW) console.log(route.name, where.map(([path]) => path).join(), foreign.replace('\n', ' ').slice(0, 150));
        if (route.name === NEW_SESSION) {
          if (where.length) assert.match(foreign, /^409 /, `${what}: an id that is taken`);
          continue;
        }
        if (isTold(where)) assert.equal(foreign, await answer(nothing), what);
        if (!process.env.SHOW && isGone(where)) assert.match(foreign, /^404 [^]*"code":"NOT_FOUND"/, what);
      }
      const all = places(template).filter(([path]) => path.startsWith('path.') || path.startsWith('body.') || path.startsWith('query.'));
      for (const how of all.length ? TEXTS : []) {
        const [nothing, spelled] = [missing(victim.ids), (ids) => Object.fromEntries(Object.entries(ids).map(([kind, id]) => [kind, SPELLINGS[how](id)]))];
        const [answers, raw] = [[], how.startsWith('percent-encoded')];
        for (const ids of [victim.ids, nothing]) {
          const { status, text } = await request(attacker, route, filled(template, all, spelled(ids), own), { raw });
          const decoded = raw ? Object.fromEntries(Object.entries(spelled(ids)).map(([kind, id]) => [kind, decodeURIComponent(id)])) : {};
          answers.push(plain(`${status} ${text}`, spelled(ids), decoded, ids, own, attacker.words));
        }
        const what = `${route.name} ${JSON.stringify(template)} with the other’s ids ${how}`;
        // A new session may be called anything but what another is called.
        if (route.name !== NEW_SESSION) assert.equal(answers[0], answers[1], what);
        swept.spellings += 1;
      }
    }
    swept.routes.add(route.name);
    if (route.isStream) swept.streams.add(route.path);
  }
}

suite('the sweep', { nodes: 2, env: { ...model.env, AUTO_CREATE_SESSIONS: 'false' } }, (e2e) => {
  for (const [who, how] of Object.entries({ 'an outsider': {}, 'one who was removed': { isMember: true }, 'a guest of another session': { isGuest: true } })) {
    e2e(`${who} is told nothing, and nothing changes`, { timeout: 150_000 }, async (cluster) => {
      try {
        listed = { events: events(await document(cluster.nodes[0], 'asyncapi')), routes: routes(await document(cluster.nodes[0], 'openapi')) };
        listed.routes = listed.routes.filter(({ isOpen }) => !isOpen);
        // Last what makes sessions: in capitals, a foreign id is another's, and may be anybody's.
        listed.routes.sort((one, other) => (one.name === NEW_SESSION) - (other.name === NEW_SESSION));
        const people = await scene(cluster, how);
        const { victim, friend, host, attacker } = people;
        const peer = await friend.socket({ node: 1 });
        await ask(peer.socket, 'session:join', { sessionId: victim.ids.session });
        await friend.call('GET', at.history(victim.ids.session));
        peer.heard.events.splice(0);
        const kept = await victim.stored();
        await sweepEvents(people);
        await sweepRoutes(people);
        assert.deepEqual(await victim.stored(), kept, 'nothing of the other’s was changed');
        await ask(peer.socket, 'no such event');
        const strange = peer.heard.events.filter(({ name, payload }) => name !== 'error' && !(name === 'stream:chunk' && payload.streamId === victim.ids.stream));
        assert.deepEqual(strange, [], 'nobody in the session hears of it');
        // What they send themselves, in ids, comes back in errors.
        const count = searched([victim, friend], [attacker], { known: ['User', 'Session', 'Client'] });
        searched([attacker], [victim, friend], { known: how.isMember ? ['User', 'Name'] : [] });
        swept.words += count.words;
        swept.bytes += count.bytes;
        // The search would find them: whoever may see them was sent them.
        const seen = friend.sent();
        for (const where of ['User', 'Session', 'Text', 'Reply', 'Prompt', 'Answer', 'File', 'Url', 'Metadata']) {
          assert.ok(Object.entries(victim.words).some(([name, word]) => name.startsWith(where) && seen.includes(word)), `${where} reaches a member`);
        }
        if (how.isGuest) assert.ok(Object.values(host.words).some((word) => attacker.sent().includes(word)), 'a guest sees the open session');
      } finally {
        endAll();
      }
    });
  }
});

after(() => {
  if (!listed) return;
  assert.deepEqual([...swept.events].sort(), listed.events.map(({ name }) => name).sort());
  assert.deepEqual([...swept.routes].sort(), listed.routes.map(({ name }) => name).sort());
  assert.ok(swept.events.size >= 21 && swept.routes.size >= 28 && swept.streams.size >= 4, JSON.stringify([...swept.events, ...swept.routes]));
  console.log(`${swept.events.size} events, ${swept.routes.size} routes, ${swept.cases} cases, ${swept.spellings} spellings, ${swept.words} searches in ${swept.bytes} bytes`);
});
