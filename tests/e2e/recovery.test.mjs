// Socket.IO's own connection state recovery, as the stock client speaks it: cut off anywhere, and
// back on any node, a client hears what an uncut one hears, each event once, in order.

import assert from 'node:assert/strict';
import { startCutter } from './harness/cutter.mjs';
import { begin } from './harness/families.mjs';
import { startLink } from './harness/link.mjs';
import { NOWHERE, readOffset } from './harness/offset.mjs';
import { at, makeSession, rest } from './harness/rest.mjs';
import { DIALECTS, ENV, frontend, haveJoined, sameStories, send, speaker, story, talk, theEnd } from './harness/recovery.mjs';
import { ask, client, connected, eventually, lasting, ok, open, random, rawWebSocket, record, sessionId, suite, token } from './harness.mjs';

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
});
