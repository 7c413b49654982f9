// What no server told a client, or not this one, or not now: it begins anew, with no error, in
// nobody else's session, and nobody else notices.

import assert from 'node:assert/strict';
import { begin } from './harness/families.mjs';
import { startLink } from './harness/link.mjs';
import { NOWHERE, readOffset, writeOffset } from './harness/offset.mjs';
import { DIALECTS, ENV, answer, frontend, haveJoined, send, speaker } from './harness/recovery.mjs';
import { at, makeSession, rest } from './harness/rest.mjs';
import { client, close, connected, eventually, lasting, metrics, ok, open, record, sessionId, suite, token } from './harness.mjs';

const agents = { assistant: { tokensPerSecond: 150, tokens: 30 }, slow: { tokensPerSecond: 40, tokens: 120 } };

/** A socket's last offset, as its client has it. */
const offsetOf = ({ socket }) => socket._lastOffset;

/** A stock client that has this pid and offset, as if it had been told them. Given once it is connected. */
async function comesBack(url, { jwt, pid, offset, dialect = 'session' }) {
  const socket = client(url, { token: jwt, auth: { dialect }, autoConnect: false });
  const heard = record(socket);
  Object.assign(socket, { _pid: pid, _lastOffset: offset });
  socket.connect();
  await connected(socket);
  const { recovered } = await heard.next('connection:success');
  assert.equal(recovered, Boolean(socket.recovered), 'both sides agree');
  return { socket, heard, recovered, newPid: socket._pid !== pid };
}

/** A member of some sessions, whose connection is gone. */
async function wasHere(url, jwt, ids, dialect = 'session') {
  const one = await open(url, { token: jwt, auth: { dialect } });
  for (const id of ids) await ok(one.socket, 'session:join', { sessionId: id });
  await eventually(() => offsetOf(one) && offsetOf(one) !== NOWHERE && readOffset(offsetOf(one)).places.length === ids.length);
  const was = { jwt, dialect, pid: one.socket._pid, offset: offsetOf(one) };
  one.socket.io.engine.close();
  close(one.socket);
  return was;
}

const outcomes = async (cluster) => {
  const all = {};
  for (const node of cluster.nodes) {
    for (const [key, value] of (await metrics(node)).samples) {
      const outcome = /^socket_io_recoveries_total\{outcome="(\w+)"\}/.exec(key)?.[1];
      if (outcome) all[outcome] = (all[outcome] ?? 0) + value;
    }
  }
  return all;
};

const U64 = 2n ** 64n - 1n;
const U32 = 2 ** 32 - 1;
const GENERATION = 'ab'.repeat(16);

suite('recovery that is refused', { nodes: 2, env: ENV, agents }, (e2e) => {
  /** Alice's and Bob's own sessions, one that they share, and what their clients would come back with. */
  const people = async (cluster) => {
    const [here] = cluster.nodes;
    const [alice, bob] = ['alice', 'bob'].map((name) => ({ sub: `${sessionId(name)}`, name }));
    for (const one of [alice, bob]) {
      one.jwt = token({ sub: one.sub });
      one.own = await makeSession(here, one.sub);
    }
    const shared = await makeSession(here, alice.sub, [bob.sub]);
    await rest(here, alice.sub).post(at.messages, { sessionId: alice.own, content: 'For nobody else' });
    return { alice, bob, shared, here, there: cluster.nodes[1] };
  };

  e2e('forged, foreign and unknown: a fresh connection, in which joining works', { timeout: 60_000 }, async (cluster) => {
    const { alice, bob, shared, here, there } = await people(cluster);
    const alices = await wasHere(here.url, alice.jwt, [alice.own, shared]);
    const bobs = await wasHere(here.url, bob.jwt, [bob.own]);
    const { places } = readOffset(bobs.offset);
    const written = (change, more = {}) => writeOffset({ dialect: 'session', places: [{ ...places[0], ...change }], ...more });
    const strange = sessionId('strange');
    const cases = {
      'another’s pid and offset': { pid: alices.pid, offset: alices.offset, outcome: 'foreign' },
      'another’s pid, own offset': { pid: alices.pid, offset: bobs.offset, outcome: 'foreign' },
      'own pid, another’s offset': { pid: bobs.pid, offset: alices.offset, outcome: 'expired' },
      'own pid, another’s session, from its beginning': { pid: bobs.pid, offset: written({ session: alice.own, epoch: 0, seq: 0, ordinal: 0 }), outcome: 'expired' },
      'own session and another’s': { pid: bobs.pid, offset: writeOffset({ dialect: 'session', places: [places[0], { ...places[0], session: alice.own }] }), outcome: 'expired' },
      'a session that is seen but was not joined': { pid: bobs.pid, offset: written({ session: shared }), outcome: 'expired' },
      'a session that is not there': { pid: bobs.pid, offset: written({ session: strange }), outcome: 'expired' },
      'a pid of nobody': { pid: 'x'.repeat(38), offset: bobs.offset, outcome: 'foreign' },
      'a pid that is none': { pid: 'none', offset: bobs.offset, outcome: 'invalid' },
      'a pid that is no text': { pid: { a: 1 }, offset: bobs.offset, outcome: 'invalid' },
      'a pid of a megabyte': { pid: 'x'.repeat(500_000), offset: bobs.offset, outcome: 'invalid' },
      'a pid that closes a string': { pid: `"},{"${'x'.repeat(33)}`, offset: bobs.offset, outcome: 'invalid' },
      'no offset': { pid: bobs.pid, offset: undefined, outcome: 'nothing' },
      'nowhere': { pid: bobs.pid, offset: NOWHERE, outcome: 'nothing' },
      'garbage': { pid: bobs.pid, offset: 'garbage', outcome: 'invalid' },
      'an empty one': { pid: bobs.pid, offset: '', outcome: 'invalid' },
      'a number': { pid: bobs.pid, offset: 17, outcome: 'invalid' },
      'an object': { pid: bobs.pid, offset: { places: [] }, outcome: 'invalid' },
      'zeros and others': { pid: bobs.pid, offset: '1a!\u0000é~💥', outcome: 'invalid' },
      'over 2 KiB': { pid: bobs.pid, offset: written({ texts: Array.from({ length: 120 }, (_, n) => ({ id: n.toString(16).padStart(32, '0'), attempt: 1, offset: 1 })) }), outcome: 'invalid' },
      'half a megabyte': { pid: bobs.pid, offset: `1a!${'x'.repeat(500_000)}~AAAA`, outcome: 'invalid' },
      'the same session twice': { pid: bobs.pid, offset: writeOffset({ dialect: 'session', places: [places[0], places[0]] }), outcome: 'invalid' },
      'what another dialect was told': { pid: bobs.pid, offset: writeOffset({ dialect: 'subscribe', places }), outcome: 'invalid' },
      'an unknown dialect': { pid: bobs.pid, offset: bobs.offset.replace(/^1a/, '1z'), outcome: 'invalid' },
      'a later version': { pid: bobs.pid, offset: bobs.offset.replace(/^1/, '2'), outcome: 'invalid' },
    };
    const witness = await speaker(here.url, { jwt: alice.jwt, id: [alice.own, shared] });
    const told = witness.heard.events.length;
    for (const [what, { outcome, ...shown }] of Object.entries(cases)) {
      const before = await outcomes(cluster);
      const back = await comesBack(there.url, { jwt: bob.jwt, ...shown });
      assert.deepEqual([back.recovered, back.newPid], [false, true], what);
      assert.equal((await outcomes(cluster))[outcome], (before[outcome] ?? 0) + 1, `${what}: counted as ${outcome}`);
      // It joins, and is complete; it has heard nothing before.
      const { session } = await ok(back.socket, 'session:join', { sessionId: bob.own });
      assert.equal(session.id, bob.own, what);
      assert.deepEqual(back.heard.said(), ['connection:success'], what);
      const content = `After ${what}`;
      await send(back, bob.own, content);
      await back.heard.next('message:new', (message) => message.content === content);
      await eventually(() => readOffset(offsetOf(back)).places[0].session === bob.own, { what: `${what}: it could come back` });
      close(back.socket);
    }
    assert.equal(await cluster.database.query(`SELECT count(*) FROM session WHERE id = '${strange}'`), '0', 'no session is made');
    assert.deepEqual(witness.heard.events.slice(told).filter(({ name }) => !name.startsWith('presence')), [], 'nobody else heard of it');
    // What was theirs is still good.
    const own = await comesBack(there.url, bobs);
    assert.deepEqual([own.recovered, own.newPid], [true, false]);
    const hers = await comesBack(there.url, alices);
    assert.deepEqual([hers.recovered, hers.newPid], [true, false]);
  });

  e2e('who was removed, and whose session was deleted or closed to guests, begins anew', { timeout: 60_000 }, async (cluster) => {
    const { alice, bob, shared, here, there } = await people(cluster);
    const api = rest(here, alice.sub);
    const doomed = await makeSession(here, alice.sub, [bob.sub]);
    const public_ = await makeSession(here, alice.sub, [], { visibility: 'open' });
    const removed = await wasHere(here.url, bob.jwt, [shared, bob.own]);
    const deleted = await wasHere(here.url, bob.jwt, [doomed]);
    const guest = await wasHere(here.url, bob.jwt, [public_]);
    await api.delete(at.member(shared, bob.sub));
    await api.delete(at.session(doomed));
    await api.patch(at.session(public_), { visibility: 'private' });
    for (const id of [shared, public_]) await api.post(at.messages, { sessionId: id, content: 'Not for Bob' });
    for (const was of [removed, deleted, guest]) {
      const back = await comesBack(there.url, was);
      assert.deepEqual([back.recovered, back.newPid], [false, true]);
      await ok(back.socket, 'session:join', { sessionId: bob.own });
      await send(back, bob.own, 'Here');
      await back.heard.next('message:new');
      assert.deepEqual(back.heard.of('message:new').map(({ content }) => content), ['Here']);
      close(back.socket);
    }
  });

  e2e('a place that nobody was at: its client alone starts over, or hears less', { timeout: 60_000 }, async (cluster) => {
    const { bob, here, there } = await people(cluster);
    const witness = await speaker(there.url, { jwt: bob.jwt, id: bob.own });
    const asked = await ok(witness.socket, 'stream:request', { sessionId: bob.own, prompt: 'Äöü', agentId: 'slow' });
    await witness.heard.next('stream:chunk', ({ offset }) => offset > 20);
    const live = readOffset(offsetOf(witness)).places[0];
    assert.equal(live.texts.length, 1);
    const [text] = live.texts;
    const forged = {
      'far beyond the end': { ...live, seq: live.seq + 1_000n },
      'the last number there is': { ...live, seq: U64 },
      'another epoch': { ...live, epoch: live.epoch + 1n },
      'the last epoch': { ...live, epoch: U64, seq: U64 },
      'an epoch before': { ...live, epoch: 1n, seq: 1n },
      'the beginning': { ...live, epoch: 0, seq: 0, ordinal: 0, texts: [] },
      'messages that are not there yet': { ...live, ordinal: U64 },
      'all at their end': { ...live, epoch: U64, seq: U64, ordinal: U64, part: 255, texts: [{ ...text, attempt: U32, offset: U64 }] },
      'a part of an event that has none': { ...live, part: 255 },
      'an answer that is not there': { ...live, texts: [text, { id: GENERATION, attempt: 1, offset: 5 }] },
      'many of them': { ...live, texts: Array.from({ length: 45 }, (_, n) => ({ id: n.toString(16).padStart(32, '0'), attempt: 1, offset: U64 - 1n })) },
      'text beyond the end': { ...live, texts: [{ ...text, offset: 1_000_000 }] },
      'text beyond all': { ...live, texts: [{ ...text, offset: U64 - 1n }] },
      'another attempt': { ...live, texts: [{ ...text, attempt: 7 }] },
      'the last attempt': { ...live, texts: [{ ...text, attempt: U32 }] },
      'no attempt': { ...live, texts: [{ ...text, attempt: 0 }] },
      'each byte of the text': undefined,
    };
    const backs = [];
    for (const [what, place] of Object.entries(forged)) {
      const places = place ? [place] : Array.from({ length: 12 }, (_, n) => ({ ...live, texts: [{ ...text, offset: n }] }));
      for (const one of places) {
        const was = await wasHere(here.url, bob.jwt, [bob.own]);
        const back = await comesBack(here.url, { ...was, offset: writeOffset({ dialect: 'session', places: [one] }) });
        assert.equal(back.recovered, true, what);
        backs.push([what, back]);
      }
    }
    const { message } = (await witness.heard.finished(asked.streamId)).payload;
    const end = await answer(witness, bob.own, 'And now?');
    witness.heard.follow(asked.streamId); // asserts that it is whole
    for (const [what, { heard }] of backs) {
      await heard.finished(end.payload.streamId, 5_000).catch((error) => assert.fail(`${what}: ${error.message}`));
      assert.equal(heard.follow(end.payload.streamId).text, end.payload.message.content, what);
    }
    for (const what of ['each byte of the text', 'the beginning']) {
      for (const [, { heard }] of backs.filter(([name]) => name === what)) {
        assert.ok(message.content.endsWith(heard.of('stream:chunk').filter(({ streamId }) => streamId === asked.streamId).map(({ delta }) => delta).join('')), what);
      }
    }
    assert.ok(message.content.length > 100);
    // Nobody else noticed, and there is nothing that anybody would notice later.
    const late = await speaker(here.url, { jwt: bob.jwt, id: bob.own });
    assert.equal((await answer(late, bob.own, 'Still?')).name, 'stream:complete');
    for (const node of cluster.nodes) assert.ok(!/panicked/.test(node.log(10_000)), node.name);
  });
});

suite('recovery within a second', { nodes: 2, env: { ...ENV, RECOVERY_WINDOW: '1s', PRESENCE_GRACE: '100ms' }, agents }, (e2e) => {
  e2e('who was away for longer begins anew; who was here for longer does not', { timeout: 60_000 }, async (cluster) => {
    const link = await startLink(() => cluster.nodes[1].url);
    try {
      // A user each: it is the user's stay in a session that counts, whichever device it was.
      const whose = await Promise.all(DIALECTS.map(() => begin(cluster)));
      const all = DIALECTS.map((dialect, n) => frontend(link.url, dialect, whose[n]));
      await haveJoined(all);
      // Longer here than the window is long.
      await lasting(2_500);
      link.pull();
      link.plug();
      await eventually(() => all.every(({ recovered }) => recovered === 1), { what: 'recovered' });
      link.pull();
      await lasting(2_500);
      link.plug();
      await eventually(() => all.every(({ fresh }) => fresh === 2), { what: 'begun anew' });
      for (const { dialect, recovered, refused } of all) assert.deepEqual([recovered, refused], [1, []], dialect);
      // They are as good as new.
      for (const [n, { dialect, family, heard }] of all.entries()) {
        heard.events.splice(0);
        const anew = await speaker(cluster.nodes[0].url, whose[n]);
        const { payload } = await answer(anew, whose[n].id, 'Anew');
        await eventually(() => heard.events.some((event) => family.whole(event)?.[1] === payload.message.content), { what: `${dialect}: the answer` });
      }
      link.pull();
      link.plug();
      await eventually(() => all.every(({ recovered }) => recovered === 2), { what: 'recovered with what they were told then' });
    } finally {
      await link.stop();
    }
  });
});

suite('no recovery', { nodes: 1, env: { ...ENV, RECOVERY_WINDOW: '0' }, agents }, (e2e) => {
  e2e('no pid, and no event ends in a string', { timeout: 60_000 }, async (cluster) => {
    const who = await begin(cluster);
    const link = await startLink(() => cluster.url);
    try {
      const all = DIALECTS.map((dialect) => frontend(link.url, dialect, who));
      const args = all.map(({ socket }) => {
        const last = [];
        socket.onAny((...heard) => last.push(heard.at(-1)));
        return last;
      });
      const driver = await speaker(cluster.url, who);
      await Promise.all(all.map(({ socket, family, heard }) => eventually(() => heard.names().includes(family.joined.at(-1)) && socket.connected)));
      await answer(driver, who.id, 'Once');
      await eventually(() => all.every(({ family, heard }) => heard.events.some(family.isEnd)), { what: 'the answer' });
      for (const [n, { socket, heard }] of all.entries()) {
        assert.equal(socket._pid, undefined);
        assert.ok(args[n].length > 1 && args[n].every((last) => typeof last !== 'string'));
        assert.deepEqual(heard.offsets, []);
      }
      // One that has a pid from elsewhere is told that it is nothing here.
      const back = await comesBack(cluster.url, { jwt: who.jwt, pid: 'x'.repeat(38), offset: '1a!x~AAAA' });
      assert.deepEqual([back.recovered, back.socket._pid], [false, undefined]);
      link.pull();
      link.plug();
      await eventually(() => all.every(({ fresh }) => fresh === 2), { what: 'begun anew' });
    } finally {
      await link.stop();
    }
  });
});
