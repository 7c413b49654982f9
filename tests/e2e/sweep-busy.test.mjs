// While people write, edit, react, type, ask, come and go in all five families on two nodes, nothing of it
// reaches anybody who is not in their session: bystanders, guests of another session, who was removed, and
// who comes back with another's place, stream token or event id. Every byte that each was sent is searched.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { ask, close, flushed, ok, suite } from './harness.mjs';
import { Person, answerer, joins, lives, searched } from './harness/canaries.mjs';
import { endAll } from './harness/eventsource.mjs';
import { startModel } from './harness/model.mjs';
import { NOWHERE, readOffset, writeOffset } from './harness/offset.mjs';
import { at } from './harness/rest.mjs';

const DIALECTS = ['session', 'subscribe', 'conversation', 'persona'];
/** The ways to an event stream. */
const WAYS = [(id) => `/chat/stream/${id}`, (id) => `/stream/ai/${id}`, (id) => `/stream/ai?session=${id}`, (id) => `/ai/chat/${id}`];

const model = await startModel({ timeout: '300s' });
model.on('told', answerer);
after(() => model.stop());

/** Reads a session in all five families on both nodes. */
async function watches(person, id) {
  for (const node of [0, 1]) {
    for (const dialect of DIALECTS) await joins(person, dialect, node, id);
    for (const way of WAYS) assert.equal((await person.listen(way(id), { node })).status, 200);
  }
}

const offsetOf = ({ socket }) => socket._lastOffset;
const withQuery = (path, key, value) => `${path}${path.includes('?') ? '&' : '?'}${key}=${encodeURIComponent(value)}`;

suite('nothing reaches a stranger', { nodes: 2, env: model.env }, (e2e) => {
  e2e('while everybody is busy', { timeout: 150_000 }, async (cluster) => {
    try {
      const [victim, friend, host, guest, stranger, gone] = ['victim', 'friend', 'host', 'guest', 'stranger', 'gone'].map((name) => new Person(cluster, name));
      await victim.settle({ members: [friend, gone] });
      await host.settle({ visibility: 'open' });
      await stranger.settle();
      const { session, message, stream } = victim.ids;
      await watches(friend, session);
      await watches(guest, host.ids.session);
      await watches(stranger, stranger.ids.session);

      // What a member has when they are removed: sockets, event streams, what to come back with, a token.
      await watches(gone, session);
      const theirs = await joins(gone, 'session', 0, session);
      const was = { pid: theirs.socket._pid, offset: offsetOf(theirs) };
      assert.notEqual(was.offset, NOWHERE);
      theirs.socket.io.engine.close();
      close(theirs.socket);
      const pass = (await gone.did('POST', '/stream/init', { sessionId: session })).streamToken;
      const left = await gone.listen(WAYS[0](session));
      await left.next(({ id }) => id !== undefined);
      const { lastEventId } = left;
      await victim.did('DELETE', at.member(session, gone.sub));
      await left.over();
      const alive = await gone.socket();
      await flushed(alive);
      gone.forget();

      // Two days, on two nodes, of everybody at once.
      const days = Promise.all([victim, friend, host, stranger].flatMap((person) => {
        const id = { friend: session }[person.name] ?? person.ids.session;
        return [0, 1].map((node) => lives(person, id, node));
      }));
      days.catch(() => {}); // told below

      // Meanwhile: coming back to where one is not any more, or never was.
      const refusals = [];
      for (const node of [0, 1]) {
        const back = await gone.back({ ...was, node });
        assert.equal(back.socket.recovered, false);
        await ask(back.socket, 'session:join', { sessionId: session });
        for (const way of WAYS) {
          const path = way(session);
          for (const [shown, options] of [
            [path, { lastEventId, token: pass }], [path, { lastEventId }], [path, { token: pass }], [path, {}],
            [withQuery(path, 'lastEventId', lastEventId), {}], [withQuery(withQuery(path, 'token', pass), 'lastEventId', lastEventId), { token: undefined }],
          ]) refusals.push([shown, await gone.listen(shown, { ...options, node })]);
        }
      }
      const device = await joins(victim, 'session', 0, session);
      const [pid, offset] = [device.socket._pid, offsetOf(device)];
      const own = await joins(stranger, 'session', 0, stranger.ids.session);
      const [mine] = readOffset(offsetOf(own)).places;
      const [other] = readOffset(offset).places;
      for (const [what, come] of Object.entries({
        'another’s pid and offset': { pid, offset },
        'another’s pid, one’s own offset': { pid, offset: offsetOf(own) },
        'one’s own pid, another’s offset': { pid: own.socket._pid, offset },
        'one’s own pid, and another’s session too': { pid: own.socket._pid, offset: writeOffset({ dialect: 'session', places: [mine, other] }) },
        'one’s own pid, another’s session from its beginning': { pid: own.socket._pid, offset: writeOffset({ dialect: 'session', places: [{ ...other, epoch: 0, seq: 0, ordinal: 0, texts: [] }] }) },
      })) {
        for (const node of [0, 1]) assert.equal((await stranger.back({ ...come, node })).socket.recovered, false, what);
      }
      // One's own session, with another's answer in one's place.
      const mixed = await stranger.back({ pid: own.socket._pid, offset: writeOffset({ dialect: 'session', places: [{ ...mine, texts: [{ id: stream.replaceAll('-', ''), attempt: 1, offset: 0 }] }] }) });
      await ok(mixed.socket, 'session:join', { sessionId: stranger.ids.session, lastMessageId: message, streams: { [stream]: 0 } });
      const subscriber = await stranger.socket({ dialect: 'subscribe' });
      await ok(subscriber.socket, 'subscribe', { sessionId: stranger.ids.session, lastMessageId: message });

      // Event streams: another's event id, another's tokens, one's own for another session.
      const elsewhere = (await victim.did('POST', at.sessions, { title: victim.word('Title') })).id;
      const tokens = {
        'one’s own': (await stranger.did('POST', '/stream/init', {})).streamToken,
        'one’s own, of one’s own session': (await stranger.did('POST', '/stream/init', { sessionId: stranger.ids.session })).streamToken,
        'another’s, of another session': (await victim.did('POST', '/stream/init', { sessionId: elsewhere })).streamToken,
        'a guest’s': (await guest.did('POST', '/stream/init', { sessionId: host.ids.session })).streamToken,
      };
      for (const [what, token] of Object.entries(tokens)) {
        for (const path of WAYS.map((way) => way(session))) {
          for (const last of [undefined, victim.ids.event]) {
            refusals.push([`${what}: ${path}`, await stranger.listen(path, { token, lastEventId: last })]);
            refusals.push([`${what}: ${path}, in the query`, await stranger.listen(withQuery(path, 'token', token), { token: undefined, lastEventId: last })]);
          }
        }
        // It opens event streams and nothing else, whoever's it is.
        for (const path of [at.sessions, at.session(session), at.history(session)]) assert.equal((await stranger.call('GET', path, { jwt: token })).status, 401, `${what}: ${path}`);
      }
      for (const path of WAYS.map((way) => way(stranger.ids.session))) {
        assert.equal((await stranger.listen(path, { lastEventId: victim.ids.event })).status, 200);
        assert.equal((await stranger.listen(withQuery(path, 'lastEventId', victim.ids.event), { node: 1 })).status, 200);
      }
      for (const [what, { status }] of refusals) assert.ok([401, 404].includes(status), `${what}: ${status}`);

      // A name that somebody gave their message means nothing in another's mouth.
      for (const node of [0, 1]) {
        const sent = await stranger.did('POST', at.messages, { sessionId: stranger.ids.session, content: 'mine', clientMessageId: victim.ids.client }, { node });
        assert.equal(sent.content, 'mine');
        assert.equal(sent.sessionId, stranger.ids.session);
      }
      // Lists that name no id; who is there; a persona's session is one's own.
      for (const person of [stranger, gone, guest]) {
        for (const path of [at.sessions, '/api/chat/agents', at.search(host.ids.session, { query: 'zq' }), at.presence(host.ids.session), at.members(host.ids.session)]) {
          if (person === guest || !path.includes(host.ids.session)) await person.did('GET', path);
        }
        const { socket } = await person.socket({ dialect: 'persona' });
        await ok(socket, 'chat:join', { personaId: 'assistant' });
      }
      await days;
      // Everybody has heard all that is on its way: what comes last is heard last.
      await flushed(alive);
      for (const person of [friend, guest, stranger]) await flushed(await person.socket());

      const house = [victim, friend];
      const counts = [
        searched(house, [host, guest], {}),
        searched(house, [stranger, gone], { known: ['Session', 'Client', 'User'] }),
        searched([host, guest], [victim, friend, stranger, gone]),
        searched([stranger], [victim, friend, host, guest, gone]),
      ];
      // The search would find them: those in a session were sent what the others there left.
      for (const [reader, owner] of [[friend, victim], [victim, friend], [guest, host]]) {
        for (const where of ['User', 'Text', 'Prompt', 'Answer', 'File', 'Url', 'Metadata', 'Typing']) {
          const sent = reader.sent();
          assert.ok(Object.entries(owner.words).some(([name, word]) => name.startsWith(where) && sent.includes(word)), `${owner.name}’s ${where} reaches ${reader.name}`);
        }
      }
      const sum = (key) => counts.reduce((total, count) => total + count[key], 0);
      assert.ok(refusals.length >= 48 + 64, `${refusals.length} refusals`);
      console.log(`${sum('words')} searches in ${sum('bytes')} bytes, ${refusals.length} refused streams`);
    } finally {
      endAll();
    }
  });
});
