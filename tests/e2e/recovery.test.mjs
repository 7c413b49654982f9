// Socket.IO's own connection state recovery, as the stock client speaks it: cut off anywhere, and
// back on any node, a client hears what an uncut one hears, each event once, in order.

import assert from 'node:assert/strict';
import { startCutter } from './harness/cutter.mjs';
import { begin, FAMILIES } from './harness/families.mjs';
import { startLink } from './harness/link.mjs';
import { readOffset } from './harness/offset.mjs';
import { at, makeSession, rest } from './harness/rest.mjs';
import { DIALECTS, ENV, QUICK, frontend, haveJoined, sameStories, send, speaker, story, talk, theEnd } from './harness/recovery.mjs';
import { close, eventually, ok, open, random, rawWebSocket, sessionId, suite, token } from './harness.mjs';

const agents = {
  assistant: { tokensPerSecond: 150, tokens: 30 },
  wordy: { tokensPerSecond: 2_000, tokens: 1_500 },
};
const WAYS = { polling: ['polling'], upgrade: ['polling', 'websocket'], websocket: ['websocket'] };

/** An uncut frontend of each dialect. */
const uncut = (cluster, who) => DIALECTS.map((dialect, n) => frontend(cluster.nodes[n % 3].url, dialect, who));

suite('recovery', { nodes: 3, env: ENV, agents }, (e2e) => {
  e2e('cut at any event, and back on another node: the same story, once', { timeout: 60_000 }, async (cluster) => {
    const dice = random();
    const who = await begin(cluster);
    const driver = await speaker(cluster.nodes[0].url, who);
    const whole = uncut(cluster, who);
    const cut = [];
    for (const dialect of DIALECTS) {
      const most = dialect === 'persona' ? 5 : 28;
      for (let event = 2; event <= most; event += 1) {
        // A second cut soon after the first, at times.
        const cuts = [{ event, where: dice.pick(['before', 'within', 'after']) }];
        if (dice.next() < 0.5) cuts.push({ event: 1 + dice.below(3), where: dice.pick(['before', 'within', 'after']) });
        const cutter = await startCutter(() => dice.pick(cluster.nodes).url, cuts);
        cut.push(Object.assign(frontend(cutter.url, dialect, who), { cutter, what: `cut at event ${event}` }));
      }
    }
    try {
      const all = [...whole, ...cut];
      await haveJoined(all);
      await talk(driver, who.id);
      await theEnd(driver, who.id, all);
      sameStories(cut, whole);
      const broken = cut.filter(({ cutter }) => cutter.broken > 0);
      assert.ok(broken.length > cut.length * 0.9, `${broken.length} of ${cut.length} were cut`);
      const again = cut.reduce((sum, one) => sum + one.fresh - 1, 0);
      const recovered = cut.reduce((sum, one) => sum + one.recovered, 0);
      console.log(`recovery: ${cut.length} frontends, recovered ${recovered} times, begun anew ${again} times`);
    } finally {
      await Promise.all(cut.map(({ cutter }) => cutter.stop()));
    }
  });

  e2e('cut after any byte, on every transport and in the middle of the upgrade: recovered each time', { timeout: 60_000 }, async (cluster) => {
    const dice = random();
    const who = await begin(cluster);
    const driver = await speaker(cluster.nodes[0].url, who);
    const whole = uncut(cluster, who);
    const links = [];
    const cut = [];
    for (const [way, transports] of Object.entries(WAYS)) {
      for (const dialect of DIALECTS) {
        for (let n = 0; n < 4; n += 1) {
          const link = await startLink(() => dice.pick(cluster.nodes).url);
          links.push(link);
          cut.push(Object.assign(frontend(link.url, dialect, who, { transports }), { link, what: `${way} ${n}` }));
        }
      }
    }
    try {
      await haveJoined([...whole, ...cut]);
      // From some bytes to some events; the first requests of a new connection are among them.
      for (const { link } of cut) link.breakAfter(...Array.from({ length: 4 }, () => Math.floor(30 * 300 ** dice.next())));
      await talk(driver, who.id, { agentId: 'wordy' });
      await theEnd(driver, who.id, [...whole, ...cut]);
      sameStories(cut, whole);
      for (const { what, dialect, fresh, refused } of cut) assert.deepEqual([fresh, refused], [1, []], `${dialect}, ${what}: recovered each time`);
      const broken = links.reduce((sum, link) => sum + link.broken, 0);
      const recovered = cut.reduce((sum, one) => sum + one.recovered, 0);
      assert.ok(broken > cut.length * 2, `cut ${broken} times`);
      for (const way of Object.keys(WAYS)) assert.ok(cut.some(({ what, recovered: times }) => what.startsWith(way) && times > 0), way);
      console.log(`recovery: ${cut.length} frontends, cut ${broken} times, recovered ${recovered} times`);
    } finally {
      await Promise.all(links.map((link) => link.stop()));
    }
  });

  e2e('a frontend that joins again all the same is told nothing twice', { timeout: 60_000 }, async (cluster) => {
    const dice = random();
    const who = await begin(cluster);
    const driver = await speaker(cluster.nodes[0].url, who);
    const whole = uncut(cluster, who);
    const [first] = [await send(driver, who.id, 'The first one')];
    // What a frontend has of messages and of answers that are being written.
    const lastOf = ({ heard }) => heard.events.findLast(({ name }) => /^(message:new|stream:complete|message:complete)$/.test(name))?.payload;
    const idOf = (payload) => payload?.message?.id ?? payload?.id ?? first;
    const running = ({ heard }) => {
      const texts = {};
      for (const { name, payload } of heard.events) {
        if (name === 'stream:chunk') texts[payload.streamId] = payload.offset + payload.delta.length;
        if (name === 'stream:complete') delete texts[payload.streamId];
      }
      return texts;
    };
    const agains = {
      session: [
        () => [['session:join', { sessionId: who.id }]],
        (one) => [['session:join', { sessionId: who.id, lastMessageId: idOf(lastOf(one)), streams: running(one) }]],
        () => [['session:join', { sessionId: who.id, lastMessageId: first }]],
      ],
      subscribe: [
        () => [['subscribe', who.id]],
        (one) => [['subscribe', { sessionId: who.id, lastMessageId: idOf(lastOf(one)) }]],
      ],
      conversation: [() => [['chat:join', { conversationId: who.id }]]],
      persona: [(one) => [one.family.join(who.id)]],
    };
    const links = [];
    const cut = [];
    for (const [dialect, all] of Object.entries(agains)) {
      for (const [n, again] of all.entries()) {
        for (let times = 0; times < 2; times += 1) {
          const link = await startLink(() => dice.pick(cluster.nodes).url);
          links.push(link);
          cut.push(Object.assign(frontend(link.url, dialect, who, { again }), { link, what: `joins again in way ${n}`, isOld: again === agains.session[2] }));
        }
      }
    }
    try {
      await haveJoined([...whole, ...cut]);
      // What they heard before is the same for all from here on.
      for (const { heard } of [...whole, ...cut]) heard.events.splice(0);
      for (const { link } of cut) link.breakAfter(...Array.from({ length: 4 }, () => 200 + dice.below(6_000)));
      await talk(driver, who.id);
      await theEnd(driver, who.id, [...whole, ...cut]);
      // Who asks for what it has, after an old message, is given that: each message once, and nothing else.
      for (const { heard, isOld } of cut) if (isOld) heard.events = heard.events.filter(({ name }) => name !== 'messages:missed');
      sameStories(cut, whole);
      const recovered = cut.reduce((sum, one) => sum + one.recovered, 0);
      assert.ok(recovered > cut.length, `recovered ${recovered} times`);
      for (const { fresh, refused } of cut) assert.deepEqual([fresh, refused], [1, []]);
    } finally {
      await Promise.all(links.map((link) => link.stop()));
    }
  });

  e2e('in several sessions, joined and left right before the cut: exactly those are gone on in', { timeout: 60_000 }, async (cluster) => {
    const dice = random();
    const owner = { sub: sessionId('owner') };
    const jwt = token(owner);
    const ids = await Promise.all([1, 2, 3].map(() => makeSession(cluster.nodes[0], owner.sub)));
    const driver = await speaker(cluster.nodes[0].url, { jwt, id: ids });
    const links = [];
    const fresh = { sum: 0, recovered: 0 };
    const wanderer = async (n) => {
      const link = await startLink(() => dice.pick(cluster.nodes).url);
      links.push(link);
      const one = await open(link.url, { token: jwt, auth: { dialect: 'session' }, ...QUICK });
      const { socket, heard } = one;
      const wanted = new Set();
      let ready;
      socket.on('connect', async () => {
        if (socket.recovered) fresh.recovered += 1;
        else fresh.sum += 1;
        // As a frontend that begins anew.
        if (!socket.recovered) for (const id of wanted) await ok(socket, 'session:join', { sessionId: id });
        ready?.();
      });
      for (let step = 0; step < 10; step += 1) {
        const back = new Promise((done) => (ready = done));
        for (let change = dice.below(3); change >= 0; change -= 1) {
          const id = dice.pick(ids);
          const joins = !wanted.has(id);
          await ok(socket, joins ? 'session:join' : 'session:leave', { sessionId: id });
          wanted[joins ? 'add' : 'delete'](id);
        }
        // Nothing more arrives than the answer.
        link.pull();
        link.plug();
        const content = `${n}: ${step}`;
        await Promise.all(ids.map((id) => send(driver, id, content)));
        await back;
        const heardIn = () => heard.of('message:new').filter((message) => message.content === content).map(({ sessionId: id }) => id).sort();
        // Who began anew in between hears of it or not.
        const joinedAnew = !socket.recovered;
        if (!joinedAnew) await eventually(() => heardIn().length >= wanted.size, { what: `${content}: heard in ${[...wanted]}` });
        await ok(socket, 'session:leave', { sessionId: 'none' });
        const allowed = [...wanted].sort();
        if (joinedAnew) assert.ok(heardIn().every((id) => wanted.has(id)), content);
        else assert.deepEqual(heardIn(), allowed, content);
      }
    };
    try {
      await Promise.all([1, 2, 3, 4].map(wanderer));
      console.log(`recovery: in several sessions, recovered ${fresh.recovered} times, begun anew ${fresh.sum} times`);
      assert.ok(fresh.recovered > fresh.sum, JSON.stringify(fresh));
    } finally {
      await Promise.all(links.map((link) => link.stop()));
    }
  });

  e2e('in three sessions with answers in all of them: each as if uncut', { timeout: 60_000 }, async (cluster) => {
    const dice = random();
    const owner = { sub: sessionId('owner') };
    const jwt = token(owner);
    const ids = await Promise.all([1, 2, 3].map(() => makeSession(cluster.nodes[0], owner.sub)));
    const driver = await speaker(cluster.nodes[0].url, { jwt, id: ids });
    const links = [];
    const readers = [];
    try {
      for (let n = 0; n < 6; n += 1) {
        const link = await startLink(() => dice.pick(cluster.nodes).url);
        links.push(link);
        const one = await open(link.url, { token: jwt, auth: { dialect: 'session' }, ...QUICK });
        for (const id of ids) await ok(one.socket, 'session:join', { sessionId: id });
        readers.push(one);
        one.socket.on('connect', () => assert.ok(one.socket.recovered));
        await eventually(() => readOffset(one.socket._lastOffset).places.length === 3);
        one.heard.events.splice(0);
        if (n > 0) link.breakAfter(...Array.from({ length: 5 }, () => Math.floor(200 * 60 ** dice.next())));
      }
      await Promise.all(ids.map((id) => talk(driver, id)));
      for (const id of ids) await Promise.all(readers.map(({ heard }) => heard.next('message:deleted', ({ sessionId: of }) => of === id)));
      const [uncutOne, ...cut] = readers.map(({ heard }) => ({ family: FAMILIES.session, heard }));
      for (const id of ids) for (const one of cut) assert.deepEqual(story(one, id), story(uncutOne, id));
      assert.ok(links.reduce((sum, { broken }) => sum + broken, 0) > 10);
    } finally {
      await Promise.all(links.map((link) => link.stop()));
    }
  });

  e2e('the namespace left and joined again on the same connection', {}, async (cluster) => {
    const who = await begin(cluster);
    const driver = await speaker(cluster.nodes[1].url, who);
    const raw = await rawWebSocket(cluster.nodes[0].url);
    await raw.until('0{');
    raw.send(`40/chat,${JSON.stringify({ token: who.jwt, dialect: 'session' })}`);
    const [, connect] = /^40\/chat,(.*)$/.exec((await raw.until('40/chat,')).text);
    const { pid } = JSON.parse(connect);
    assert.equal(typeof pid, 'string');
    raw.send(`42/chat,1${JSON.stringify(['session:join', { sessionId: who.id }])}`);
    await raw.until('43/chat,1');
    await send(driver, who.id, 'Heard');
    const events = () => raw.received.filter(({ text }) => text.startsWith('42/chat,')).map(({ text }) => JSON.parse(text.slice(8)));
    const [, , offset] = await eventually(() => events().find(([name]) => name === 'message:new'));
    raw.send('41/chat,');
    await eventually(async () => (await rest(cluster.nodes[1], who.sub).get(at.presence(who.id))).users[0].devices === 1, { what: 'it has left' });
    await send(driver, who.id, 'Missed');
    const before = raw.received.length;
    raw.send(`40/chat,${JSON.stringify({ token: who.jwt, dialect: 'session', pid, offset })}`);
    const again = await eventually(() => raw.received.slice(before).find(({ text }) => text.startsWith('40/chat,')));
    assert.equal(JSON.parse(again.text.slice(8)).pid, pid, 'recovered');
    await send(driver, who.id, 'Heard again');
    await eventually(() => events().some(([, { content }]) => content === 'Heard again'));
    assert.deepEqual(events().filter(([name]) => name === 'message:new').map(([, { content }]) => content), ['Heard', 'Missed', 'Heard again']);
    assert.deepEqual(events().filter(([name]) => name === 'connection:success').map(([, { recovered }]) => recovered), [false, true]);
    raw.end();
  });

  e2e('at once, too: the connection that it comes back on is not taken for the old one', {}, async (cluster) => {
    const who = await begin(cluster);
    const driver = await speaker(cluster.nodes[1].url, who);
    const raw = await rawWebSocket(cluster.nodes[0].url);
    await raw.until('0{');
    let connect = { token: who.jwt, dialect: 'session' };
    const events = () => raw.received.filter(({ text }) => text.startsWith('42/chat,')).map(({ text }) => JSON.parse(text.slice(8)));
    for (let n = 0; n < 10; n += 1) {
      const before = raw.received.length;
      raw.send(`40/chat,${JSON.stringify(connect)}`);
      const connected = await eventually(() => raw.received.slice(before).find(({ text }) => text.startsWith('40/chat,')), { what: `connect ${n}` });
      const { pid } = JSON.parse(connected.text.slice(8));
      if (n === 0) {
        raw.send(`42/chat,1${JSON.stringify(['session:join', { sessionId: who.id }])}`);
        await raw.until('43/chat,1');
      } else assert.equal(pid, connect.pid, `recovered, time ${n}`);
      const content = `Message ${n}`;
      await send(driver, who.id, content);
      const [, , offset] = await eventually(() => events().find(([, payload]) => payload.content === content), { what: content });
      connect = { ...connect, pid, offset };
      raw.send('41/chat,');
    }
    assert.deepEqual(events().filter(([name]) => name === 'message:new').map(([, { content }]) => content), Array.from({ length: 10 }, (_, n) => `Message ${n}`));
    raw.end();
  });

  e2e('what carries an offset, and that it is the same on every node', { timeout: 60_000 }, async (cluster) => {
    const who = await begin(cluster);
    const driver = await speaker(cluster.nodes[0].url, who);
    const all = cluster.nodes.flatMap(({ url }) => DIALECTS.flatMap((dialect) => [frontend(url, dialect, who), frontend(url, dialect, who)]));
    for (const one of all) {
      one.args = [];
      one.socket.onAny((...args) => one.args.push(args));
    }
    await haveJoined(all);
    const other = await speaker(cluster.nodes[1].url, { jwt: token({ sub: 'other' }), id: sessionId('other') });
    await rest(cluster.nodes[0], who.sub).post(at.members(who.id), { userId: 'other' });
    await ok(other.socket, 'session:join', { sessionId: who.id });
    other.socket.emit('typing:start', { sessionId: who.id });
    await talk(driver, who.id);
    for (const { socket } of all) {
      socket.emit('no:such:event', 'a string');
      socket.emit('session:join', 'a string');
    }
    close(other.socket);
    await theEnd(driver, who.id, all);
    const placeless = /^(presence|user|typing|server|connection:success|error|chat:error|subscribed|chat:joined|chat:session|chat:user-|message:delivered)/;
    let same = 0;
    for (const dialect of DIALECTS) {
      const offsets = new Map();
      for (const { args, family } of all.filter((one) => one.dialect === dialect)) {
        let length = 0;
        const times = {};
        for (const [name, payload, ...rest] of args) {
          const carries = rest.length === 1 && typeof rest[0] === 'string';
          assert.ok(rest.length === 0 || carries, `${dialect}: ${name} has ${rest.length + 1} arguments`);
          assert.equal(typeof payload, 'object', `${dialect}: ${name}`);
          assert.equal(carries, !placeless.test(name), `${dialect}: ${name} ${carries ? 'carries' : 'lacks'} an offset`);
          if (!carries || name === 'connection:offset') continue;
          // Where words are the same twice, the how manieth they are, and after how much text.
          length += family.chunk({ name, payload })?.length ?? 0;
          const words = JSON.stringify([name, payload, length]);
          times[words] = (times[words] ?? 0) + 1;
          const key = words + times[words];
          if (offsets.has(key)) same += 1;
          else offsets.set(key, rest[0]);
          assert.equal(rest[0], offsets.get(key), `${dialect}: ${key}`);
          assert.ok(rest[0].length < 120, rest[0]);
        }
      }
    }
    assert.ok(same > 100, `${same} events were compared`);
  });
});
