// Socket.IO's own connection state recovery, as the stock client speaks it: cut off anywhere, and
// back on any node, a client hears what an uncut one hears, each event once, in order.

import assert from 'node:assert/strict';
import { startCutter } from './harness/cutter.mjs';
import { FAMILIES, begin } from './harness/families.mjs';
import { client, eventually, ok, open, random, record, suite } from './harness.mjs';

const DIALECTS = ['session', 'subscribe', 'conversation', 'persona'];
const agents = { assistant: { tokensPerSecond: 150, tokens: 30 } };
const env = { MAX_CONNECTIONS_PER_USER: '0', WS_EVENTS_PER_SECOND: '0' };

/** A frontend: it joins when it is connected, unless its connection was recovered. */
function frontend(url, dialect, { jwt, id }, options = {}) {
  const family = FAMILIES[dialect];
  const socket = client(url, { token: jwt, reconnectionDelay: 20, reconnectionDelayMax: 200, ...options });
  const one = { dialect, family, socket, heard: record(socket), recovered: 0, fresh: 0 };
  socket.on('connect', () => {
    if (socket.recovered) one.recovered += 1;
    else {
      one.fresh += 1;
      socket.emit(...family.join(id));
    }
  });
  return one;
}

/** What it was told of the conversation; the chunks of one answer that follow each other as one. */
function story({ family, heard }) {
  const told = [];
  for (const event of heard.events) {
    if (/^(presence|user|connection|typing):|^(subscribed|chat:(joined|session|user-.*))$/.test(event.name)) continue;
    const chunk = family.chunk(event);
    if (chunk === undefined || family.isLast(event)) told.push([event.name, event.payload]);
    else if (told.at(-1)?.[0] === 'text') told.at(-1)[1] += chunk;
    else told.push(['text', chunk]);
  }
  return told;
}

/** Two messages, two answers, and what can be done about messages. Gives the last one's text. */
async function talk(driver, id, n = 0) {
  const send = async (content) => (await ok(driver.socket, 'message:send', { sessionId: id, content })).message.id;
  const first = await send(`First ${n}`);
  await answer(driver, id, `One ${n}`);
  const second = await send(`Second ${n}`);
  await ok(driver.socket, 'message:edit', { messageId: first, content: `First, edited ${n}` });
  await ok(driver.socket, 'message:reaction', { messageId: second, emoji: '👍' });
  await answer(driver, id, `Two ${n}`);
  await ok(driver.socket, 'message:delete', { messageId: second });
}

async function answer(driver, id, prompt) {
  const { streamId } = await ok(driver.socket, 'stream:request', { sessionId: id, prompt });
  return driver.heard.finished(streamId);
}

/** The last thing that everybody hears: in persona's words only answers are heard. */
const isLast = ({ family, heard }, content) => heard.events.some((event) => family.whole?.(event)?.[1].includes(content));

suite('recovery', { nodes: 3, env, agents }, (e2e) => {
  e2e('cut anywhere, and back on another node: the same story, once', { timeout: 120_000 }, async (cluster) => {
    const dice = random();
    const who = await begin(cluster);
    const driver = await open(cluster.nodes[0].url, { token: who.jwt, auth: { dialect: 'session' } });
    await ok(driver.socket, 'session:join', { sessionId: who.id });
    const whole = DIALECTS.map((dialect, n) => frontend(cluster.nodes[n % 3].url, dialect, who));
    const cut = [];
    for (const dialect of DIALECTS) {
      const most = dialect === 'persona' ? 5 : 28;
      for (let event = 2; event <= most; event += 1) {
        // A second cut soon after the first, at times.
        const cuts = [{ event, where: dice.pick(['before', 'within', 'after']) }];
        if (dice.next() < 0.5) cuts.push({ event: 1 + dice.below(3), where: dice.pick(['before', 'within', 'after']) });
        const cutter = await startCutter(() => dice.pick(cluster.nodes).url, cuts);
        cut.push(Object.assign(frontend(cutter.url, dialect, who), { cutter, event }));
      }
    }
    try {
      const all = [...whole, ...cut];
      const isIn = ({ heard }) => heard.offsets.some((offset) => offset !== '-');
      await Promise.all(all.map((one) => eventually(() => isIn(one), { what: `${one.dialect} has joined` })));
      await talk(driver, who.id, 1);
      const end = await answer(driver, who.id, 'The end');
      const last = end.payload.message.content;
      await Promise.all(all.map((one) => eventually(() => isLast(one, last), { within: 30_000, what: `${one.dialect}, cut at ${one.event}: the end` })));
      for (const one of cut) {
        const expected = story(whole[DIALECTS.indexOf(one.dialect)]);
        assert.deepEqual(story(one), expected, `${one.dialect}, cut at event ${one.event}`);
      }
      const broken = cut.filter(({ cutter }) => cutter.broken > 0);
      assert.ok(broken.length > cut.length * 0.9, `${broken.length} of ${cut.length} were cut`);
      const again = cut.reduce((sum, one) => sum + one.fresh - 1, 0);
      const recovered = cut.reduce((sum, one) => sum + one.recovered, 0);
      console.log(`recovery: ${cut.length} frontends, recovered ${recovered} times, begun anew ${again} times`);
    } finally {
      await Promise.all(cut.map(({ cutter }) => cutter.stop()));
    }
  });
});
