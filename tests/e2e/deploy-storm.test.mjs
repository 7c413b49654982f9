// A deploy: the nodes are restarted one after the other under many devices, in the middle of answers.
// All come back by themselves, to any node, and have every word. `make deploy-storm` is this with
// 5,000 devices; there the times are held against their limits, too.

import assert from 'node:assert/strict';
import { history, isFlawless, percent, spread, startCrowd } from './harness/crowd.mjs';
import { at, rest } from './harness/rest.mjs';
import { each, eventually, lasting, ok, open, random, sessionId, suite, token, within } from './harness.mjs';

const setting = (name, fallback) => Number(process.env[name] ?? fallback);
const CLIENTS = setting('CLIENTS', 120);
const WORKERS = setting('WORKERS', Math.ceil(CLIENTS / 700));
const PER_SESSION = setting('PER_SESSION', 10);
const SESSIONS = Math.ceil(CLIENTS / PER_SESSION);
/** How many answers run at any time. */
const ANSWERS = Math.min(SESSIONS, setting('ANSWERS', 8));
const GRACE = setting('GRACE', 3);
const IS_MEASURED = process.env.STORM === '1';

const TOKENS = setting('TOKENS', 120);
const agents = { assistant: { tokensPerSecond: 30, tokens: TOKENS }, oracle: { tokensPerSecond: 0, tokens: TOKENS } };
const PROMPT = 'What goes on while everything is restarted?';

const ownerOf = (s) => `user-${s * PER_SESSION}`;

/** Sessions with their members, a first message in each, and a device of each member. */
async function begin(node) {
  const ids = Array.from({ length: SESSIONS }, () => sessionId('deploy'));
  const devices = Array.from({ length: CLIENTS }, (_, n) => ({ sub: `user-${n}`, session: ids[Math.floor(n / PER_SESSION)] }));
  const last = new Map();
  await each(ids, 16, async (id, s) => {
    const owner = rest(node, ownerOf(s));
    await owner.post(at.sessions, { id });
    for (const { sub, session } of devices.slice(s * PER_SESSION, (s + 1) * PER_SESSION)) {
      if (sub !== ownerOf(s)) await owner.post(at.members(session), { userId: sub });
    }
    last.set(id, (await owner.post('/api/chat/messages', { sessionId: id, content: 'Hello' })).id);
  });
  return { ids, devices: devices.map((device) => ({ ...device, last: last.get(device.session) })) };
}

/** What the agent says to the prompt. */
async function oracle(node) {
  const { socket, heard } = await open(node.url, { token: token({ sub: 'oracle' }) });
  const { streamId } = await ok(socket, 'stream:request', { sessionId: sessionId('oracle'), prompt: PROMPT, agentId: 'oracle' });
  const { message } = (await heard.finished(streamId)).payload;
  socket.disconnect();
  return message.content;
}

const options = { nodes: 3, nginx: true, agents, env: { SHUTDOWN_GRACE: `${GRACE}s` } };
const TIMEOUT = 150_000 + CLIENTS * 40 + GRACE * 10_000;

suite('deploy storm', options, (e2e) => {
  e2e('nodes that were gone a moment ago are found again by those who only speak WebSocket', { timeout: 60_000 }, async (cluster) => {
    // nginx takes a node that failed for whole again when a request to it is over: these last.
    const opened = Array.from({ length: 4 }, () => []);
    const arrive = (n) => Promise.all(Array.from({ length: 20 }, async () => {
      const { heard } = await open(cluster.url, { token: token(), reconnection: false });
      opened[n].push((await heard.next('connection:success')).nodeId);
    }));
    for (const n of [0, 1, 2]) {
      await cluster.nodes[n].stop();
      await arrive(n);
      await cluster.again(n);
    }
    await arrive(3);
    const places = opened.map((nodes) => new Set(nodes).size);
    assert.deepEqual(places, [2, 2, 2, 3], 'on every node that ran');
  });

  e2e('a rolling restart: all are back soon, no chunk is lost and no answer ended', { timeout: TIMEOUT }, async (cluster) => {
    const { seed } = random();
    const begun = performance.now();
    const { ids, devices } = await begin(cluster.nodes[0]);
    const expected = await oracle(cluster.nodes[0]);
    const crowd = await startCrowd({ url: cluster.url, devices, workers: WORKERS, seed });
    try {
      const made = performance.now();
      await crowd.all('open', { atOnce: 32 });
      console.log(`deploy: ${SESSIONS} sessions made in ${Math.round(made - begun)} ms, ${CLIENTS} clients in after ${Math.round(performance.now() - made)} ms`);

      // Answers on all nodes but the one that goes, one after the other in each of these sessions.
      let going;
      let over = false;
      let asked = 0;
      const staying = (n) => cluster.nodes.filter((_, other) => other !== going)[n % (going === undefined ? 3 : 2)];
      const converse = async (s) => {
        for (let n = 0; !over; n += 1) {
          const request = { sessionId: ids[s], prompt: PROMPT, agentId: 'assistant', clientMessageId: `${n}` };
          // It may be about to go.
          const { streamId } = await eventually(() => rest(staying(s + n), ownerOf(s)).post('/api/chat/streams', request), { every: 200, what: 'somebody answers' });
          asked += 1;
          await eventually(async () => {
            const { status } = await rest(staying(s), ownerOf(s)).get(`/api/chat/streams/${streamId}/status`);
            return status !== 'pending' && status !== 'streaming';
          }, { within: 60_000, every: 500, what: 'the answer is over' });
        }
      };
      const answers = Promise.all(Array.from({ length: ANSWERS }, (_, s) => converse(s)));
      const failed = answers.then(() => new Promise(() => {}));
      failed.catch(() => {});
      await lasting(1_000);
      for (const n of [0, 1, 2]) {
        const since = performance.now();
        going = n;
        cluster.nodes[n].signal('SIGTERM');
        const end = await Promise.race([failed, within((GRACE + 15) * 1_000, 'the process exits', cluster.nodes[n].exited)]);
        assert.deepEqual(end, { code: 0, signal: null }, cluster.nodes[n].name);
        await cluster.again(n);
        going = undefined;
        console.log(`deploy: ${cluster.nodes[n].name} restarted in ${Math.round(performance.now() - since)} ms; ${await crowd.sum('joined')} of ${CLIENTS} are in`);
      }
      over = true;
      await answers;
      await eventually(async () => (await crowd.sum('joined')) === CLIENTS, { within: 20_000, every: 100, what: 'all are back' }).catch(console.log);
      // Also who had nothing to hear is in its session.
      await each(ids, 16, (id, s) => rest(cluster.nodes[s % 3], ownerOf(s)).post('/api/chat/messages', { sessionId: id, content: 'Still there?' }));
      const stored = await history(cluster, ids);
      const messages = Object.fromEntries(ids.map((id) => [id, stored[id].length - 1]));
      await eventually(async () => (await crowd.sum('have', { messages })) === CLIENTS, { within: 20_000, every: 100, what: 'all have all' }).catch(console.log);
      await lasting(500); // what comes twice may come late

      const report = await crowd.report(stored);
      const ends = await cluster.database.query('SELECT status, count(*) FROM stream GROUP BY status');
      const taken = await cluster.database.query('SELECT count(*) FROM stream WHERE attempt > 1');
      console.log(
        [
          `deploy: ${percent(report.expected - report.missing, report.expected)} of ${report.expected} messages and answers delivered, ${report.doubled} doubled, ${report.disordered} out of order`,
          `  ${asked} answers, ${taken} handed over, started over for ${report.resets} readers; pieces of text in a wrong place: ${report.offsets}`,
          `  ${report.returns} returns, recovered ${percent(report.recovered, report.returns)}, told before ${report.shutdowns}; back in the session, ms after the cut: ${spread(report.took)}`,
          `  told to come again: ${JSON.stringify(report.retried)}; ended by: ${JSON.stringify(report.reasons)}`,
          `  the clients' own delay, ms: p99 ${Math.round(Math.max(...report.lag))}`,
        ].join('\n'),
      );
      isFlawless(report);
      assert.equal(report.incomplete, 0);
      assert.equal(report.stayed, 0, 'every node went, so every device had to come back');
      assert.equal(ends, `completed|${asked + 1}`, 'no answer ended');
      for (const { role, content } of Object.values(stored).flat()) if (role === 'assistant') assert.equal(content, expected, 'the whole text');
      if (IS_MEASURED) assert.ok(Math.max(...report.took) <= 10_000, 'all are back within 10 s');
      assert.ok(report.recovered / report.returns >= 0.995, `${percent(report.recovered, report.returns)} recovered`);
    } finally {
      await crowd.close();
    }
  });
});
