// The same promise without Socket.IO's recovery: clients that join again with what they have, and
// server-sent events, cut after any byte and back on any node.

import assert from 'node:assert/strict';
import { begin, FAMILIES, roamer } from './harness/families.mjs';
import { endAll, stream, text } from './harness/eventsource.mjs';
import { startLink } from './harness/link.mjs';
import { at, rest } from './harness/rest.mjs';
import { ENV, QUICK, answer, send, speaker } from './harness/recovery.mjs';
import { client, eventually, random, record, suite } from './harness.mjs';

const agents = { assistant: { tokensPerSecond: 150, tokens: 60 } };

/** As a client is that knows nothing of recovery, or was written before there was any. */
const forgetful = (socket, auth) => void (socket.auth = (give) => give({ ...auth, pid: undefined, offset: undefined }));

/** A `subscribe` frontend that joins again with the last message that it has. */
function subscriber(url, { jwt, id }) {
  const socket = client(url, { token: jwt, ...QUICK });
  forgetful(socket, { token: jwt });
  const one = { socket, heard: record(socket), ids: [], texts: new Map(), fresh: 0, wrong: [] };
  let last;
  const has = (message) => {
    last = message.id;
    one.ids.push(message.id);
  };
  socket.on('connect', () => {
    one.fresh += 1;
    if (socket.recovered) one.wrong.push('recovered');
    socket.emit('subscribe', { sessionId: id, lastMessageId: last });
  });
  socket.on('message:new', has);
  socket.on('messages:missed', ({ messages }) => messages.forEach(has));
  socket.on('message:reset', ({ streamId }) => one.texts.set(streamId, ''));
  socket.on('message:chunk', ({ streamId, chunk }) => one.texts.set(streamId, (one.texts.get(streamId) ?? '') + chunk));
  socket.on('message:complete', ({ message }) => {
    has(message);
    if (![...one.texts.values()].includes(message.content)) one.wrong.push(`${message.content} was not written`);
  });
  return one;
}

suite('coming back without recovery', { nodes: 3, env: ENV, agents }, (e2e) => {
  e2e('joins with lastMessageId, cut after any byte: each message once, each text whole', { timeout: 60_000 }, async (cluster) => {
    const dice = random();
    const who = await begin(cluster);
    const driver = await speaker(cluster.nodes[0].url, who);
    const first = await send(driver, who.id, 'The first one');
    const links = [];
    try {
      const link = async () => {
        links.push(await startLink(() => dice.pick(cluster.nodes).url));
        return links.at(-1).url;
      };
      const subscribers = [];
      const roamers = [];
      for (let n = 0; n < 5; n += 1) {
        subscribers.push(subscriber(await link(), who));
        const device = await roamer(await link(), who, { ...QUICK });
        forgetful(device.socket, { token: who.jwt, dialect: 'session' });
        roamers.push(device);
      }
      await eventually(() => subscribers.every(({ heard }) => heard.names().includes('subscribed')));
      // They have one message to begin with.
      const second = await send(driver, who.id, 'The second one');
      await eventually(() => [...subscribers, ...roamers].every(({ heard }) => heard.of('message:new').length === 1));
      for (const one of links) one.breakAfter(...Array.from({ length: 5 }, () => Math.floor(100 * 100 ** dice.next())));
      const ends = [];
      for (let n = 0; n < 3; n += 1) {
        await send(driver, who.id, `Message ${n}`);
        ends.push((await answer(driver, who.id, `Answer ${n}`)).payload);
      }
      const { messages } = await rest(cluster.nodes[0], who.sub).get(at.history(who.id));
      const ids = messages.map(({ id }) => id).filter((id) => id !== first);
      assert.equal(ids[0], second);
      for (const one of subscribers) {
        await eventually(() => one.ids.includes(ids.at(-1)), { within: 20_000, what: 'subscribe: the last message' });
        assert.deepEqual(one.ids, ids, 'subscribe: each once, in order');
      }
      for (const device of roamers) {
        for (const { streamId, message } of ends) {
          const known = await eventually(() => [device.answer(streamId, message.id)].find(({ end }) => end) ?? (device.heard.of('messages:missed').some(({ messages: missed }) => missed.some(({ id }) => id === message.id)) ? { text: message.content } : undefined),
            { within: 20_000, what: 'session: the answer' });
          assert.equal(known.text, message.content);
        }
        assert.deepEqual(device.wrong, []);
        assert.ok(device.returns > 0 && !device.socket.recovered);
        const heard = device.heard.events.flatMap(({ name, payload }) => (name === 'message:new' ? [payload.id] : name === 'messages:missed' ? payload.messages.map(({ id }) => id) : name === 'stream:complete' ? [payload.message.id] : []));
        assert.deepEqual(heard, ids, 'session: each once, in order');
      }
      assert.ok(subscribers.every(({ fresh }) => fresh > 1));
    } finally {
      await Promise.all(links.map((link) => link.stop()));
    }
  });

  e2e('server-sent events, cut after any byte of the response', { timeout: 60_000 }, async (cluster) => {
    const dice = random();
    const who = await begin(cluster);
    const driver = await speaker(cluster.nodes[0].url, who);
    const readers = [];
    let isOver = false;
    const read = async () => {
      const link = await startLink(() => dice.pick(cluster.nodes).url);
      const one = { events: [], cuts: 0, link, opened: false };
      readers.push(one);
      let lastEventId;
      one.reading = (async () => {
        while (!isOver) {
          if (one.opened && one.cuts < 5) link.breakAfter(Math.floor(50 * 100 ** dice.next()));
          const source = await stream(link.url, `/chat/stream/${who.id}`, { token: who.jwt, lastEventId }).catch(() => undefined);
          if (!source) {
            one.cuts += 1;
            continue;
          }
          assert.equal(source.status, 200, JSON.stringify(source.body));
          if (!one.opened) {
            await eventually(() => source.lastEventId, { what: 'the first id' });
            link.breakAfter(Math.floor(100 * 40 ** dice.next()));
          }
          one.opened = true;
          one.source = source;
          one.so_far = () => [...one.events, ...source.events];
          await source.ended;
          one.cuts += 1;
          // What came after the last id that it has is given again.
          const known = source.events.findLastIndex(({ id }) => id !== undefined);
          one.events.push(...source.events.slice(0, known + 1));
          one.so_far = () => one.events;
          lastEventId = source.lastEventId ?? lastEventId;
        }
      })();
    };
    try {
      for (let n = 0; n < 12; n += 1) await read();
      await eventually(() => readers.every(({ opened }) => opened));
      const ends = [];
      for (let n = 0; n < 3; n += 1) ends.push((await answer(driver, who.id, `Answer ${n}`)).payload.message);
      const last = ends.at(-1).id;
      for (const one of readers) await eventually(() => one.so_far().some(({ data }) => data.done && data.messageId === last), { within: 20_000, what: 'the last answer' });
      for (const one of readers) {
        const events = one.so_far();
        assert.equal(text(events), ends.map(({ content }) => content).join(''));
        assert.deepEqual(events.filter(({ data }) => data.done).map(({ data }) => data.messageId), ends.map(({ id }) => id));
        assert.ok(one.cuts > 0);
      }
    } finally {
      isOver = true;
      endAll();
      await Promise.all(readers.map(({ link }) => link.stop()));
      await Promise.allSettled(readers.map(({ reading }) => reading));
    }
  });
});
