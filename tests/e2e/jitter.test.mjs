// Bad networks: every device is cut off again and again in the middle of a conversation, some without
// the server's noticing, and comes back to any node. Whatever it missed it is given, once and in
// order; also where a node is killed meanwhile. `make jitter` is this with 2,000 devices; there the
// times are held against their limits, too.

import assert from 'node:assert/strict';
import { isFlawless, percent, quantile, spread, startCrowd } from './harness/crowd.mjs';
import { living } from './harness/families.mjs';
import { at, rest } from './harness/rest.mjs';
import { client, connected, each, eventually, lasting, ok, random, sessionId, suite, token } from './harness.mjs';

const setting = (name, fallback) => Number(process.env[name] ?? fallback);
const CLIENTS = setting('CLIENTS', 60);
const WORKERS = setting('WORKERS', Math.ceil(CLIENTS / 500));
const SESSIONS = setting('SESSIONS', 1);
const BROADCASTS = setting('BROADCASTS', 32);
const PER_SECOND = setting('RATE', 4);
/** About how often each device is cut, and how long it stays away then, in seconds. */
const CUT_EVERY = setting('CUT_EVERY', 2.5);
const AWAY = setting('AWAY', 0.6);
/** The burst of joins. */
const JOINS = setting('JOINS', CLIENTS);
const IS_MEASURED = process.env.STORM === '1';

const OWNER = 'owner';

/** Open sessions, each with a first message, and the devices that show them. */
async function begin(node, count, devices) {
  const owner = rest(node, OWNER);
  const ids = Array.from({ length: count }, () => sessionId('jitter'));
  const last = new Map();
  await each(ids, 16, async (id) => {
    await owner.post(at.sessions, { id, visibility: 'open' });
    last.set(id, (await owner.post('/api/chat/messages', { sessionId: id, content: 'Broadcast 0' })).id);
  });
  const device = (_, n) => ({ sub: `user-${n}`, session: ids[n % count], last: last.get(ids[n % count]) });
  return { ids, devices: Array.from({ length: devices }, device) };
}

/** What is stored in each session, in order. */
async function history(cluster, ids) {
  const rows = await cluster.database.query('SELECT session_id, id FROM message ORDER BY session_id, ordinal');
  const stored = Object.fromEntries(ids.map((id) => [id, []]));
  for (const row of rows.split('\n')) {
    const [session, id] = row.split('|');
    stored[session]?.push({ id, role: 'user' });
  }
  return stored;
}

/** Broadcasts while all devices come and go; `midway` happens after half of them. */
async function storm(cluster, { midway = () => {} } = {}) {
  const { seed } = random();
  const { ids, devices } = await begin(living(cluster), SESSIONS, CLIENTS);
  // Stock clients wait for this long, give or take a quarter, and a little longer each time.
  const options = { reconnectionDelay: AWAY * 1_000, reconnectionDelayMax: AWAY * 2_000, randomizationFactor: 0.25 };
  const crowd = await startCrowd({ url: cluster.url, devices, workers: WORKERS, seed, options });
  try {
    const begun = performance.now();
    await crowd.all('open', { atOnce: 32 });
    console.log(`jitter: ${CLIENTS} clients in ${ids.length} session(s) after ${Math.round(performance.now() - begun)} ms`);
    await crowd.all('cut', { every: CUT_EVERY * 1_000 });
    // Whoever broadcasts is a stock client as well, with its own retries.
    const senders = Array.from({ length: Math.min(ids.length, 16) }, () =>
      client(cluster.url, { token: token({ sub: OWNER }), auth: { dialect: 'session' }, retries: 20, ackTimeout: 3_000 }));
    await Promise.all(senders.map((sender) => connected(sender)));
    const start = performance.now();
    const sent = [];
    for (let n = 1; n <= BROADCASTS; n += 1) {
      await lasting(Math.max(0, start + (n * 1_000) / PER_SECOND - performance.now()));
      sent.push(...ids.map(async (sessionId, s) => {
        const message = { sessionId, content: `Broadcast ${n}`, clientMessageId: `${n}` };
        const reply = await senders[s % senders.length].emitWithAck('message:send', message);
        assert.equal(reply.ok, true, JSON.stringify(reply));
      }));
      if (n === Math.ceil(BROADCASTS / 2)) await midway();
    }
    await Promise.all(sent);
    await crowd.all('calm');
    const whole = async () => {
      const have = await crowd.sum('have', { messages: { all: BROADCASTS } });
      if (have < CLIENTS) throw new Error(`${have} of ${CLIENTS} clients have all of it`);
      return true;
    };
    // Who has not is told of below, by what it lacks.
    await eventually(whole, { within: 30_000, every: 100 }).catch(({ cause }) => console.log(`jitter: ${cause.message}`));
    await lasting(500); // what comes twice may come late
    const report = await crowd.report(await history(cluster, ids));
    const delivered = report.expected - report.missing;
    console.log(
      [
        `jitter: ${percent(delivered, report.expected)} of ${report.expected} delivered, ${report.doubled} doubled, ${report.disordered} out of order`,
        `  ${report.returns} returns, recovered ${percent(report.recovered, report.returns)}; away, ms: ${spread(report.away)}`,
        `  ${report.replays.length} had missed something; last of it, ms after the connection was open: ${spread(report.replays)}`,
        `  told to come again: ${JSON.stringify(report.retried)}; ended by: ${JSON.stringify(report.reasons)}`,
        `  the clients' own delay, ms: p99 ${Math.round(Math.max(...report.lag))}`,
      ].join('\n'),
    );
    assert.equal(report.expected, CLIENTS * BROADCASTS);
    assert.ok(report.returns >= CLIENTS, `${report.returns} returns`);
    isFlawless(report);
    assert.equal(report.incomplete, 0);
    return report;
  } finally {
    await crowd.close();
  }
}

/** The figures that a quiet machine has to reach. */
function isGood({ returns, recovered, replays }) {
  assert.ok(recovered / returns >= 0.995, `${percent(recovered, returns)} recovered`);
  if (IS_MEASURED) assert.ok(quantile(replays, 0.99) <= 2_000, `replay p99 ${quantile(replays, 0.99)} ms`);
}

const TIMEOUT = 90_000 + CLIENTS * 40 + (BROADCASTS / PER_SECOND) * 1_000;

suite('a burst of joins', { nodes: 1 }, (e2e) => {
  e2e('all of them succeed, at a bounded cost of each', { timeout: 60_000 + JOINS * 20 }, async (cluster) => {
    const { seed } = random();
    const count = Math.ceil(JOINS / 20);
    const { devices } = await begin(cluster.nodes[0], count, JOINS);
    const crowd = await startCrowd({ url: cluster.url, devices, workers: Math.ceil(JOINS / 500), seed });
    try {
      await crowd.all('open', { atOnce: 32, joins: false });
      await lasting(1_000); // what follows connecting is not of the joins
      const transactions = async () => Number(await cluster.database.query(
        'SELECT pg_stat_clear_snapshot(); SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()'));
      const [before, since] = [await transactions(), performance.now()];
      await cluster.redis.command('CONFIG', 'RESETSTAT');
      const took = (await crowd.all('join')).flat();
      const calls = Object.fromEntries([...(await cluster.redis.command('INFO', 'commandstats')).matchAll(/cmdstat_([^:]+):calls=(\d+)/g)]
        .map(([, name, n]) => [name, Number(n)]));
      const { retried, refused } = await crowd.report(Object.fromEntries(devices.map(({ session }) => [session, []])));
      await lasting(1_500); // the database counts once a second
      // What the node does besides, beats and looking for work, is in it: some fifteen a second.
      const besides = ((performance.now() - since) / 1_000) * 30;
      const committed = Math.max(0, (await transactions()) - before - besides) / JOINS;
      const reads = ['xrange', 'xread', 'getrange', 'strlen'].reduce((sum, name) => sum + (calls[name] ?? 0), 0);
      console.log(
        `burst: ${JOINS} joins in one moment, ms: ${spread(took)}\n` +
          `  of each: at most ${committed.toFixed(1)} transactions, ${(calls.evalsha / JOINS).toFixed(1)} scripts; ` +
          `of ${count} sessions: ${calls.ssubscribe} subscriptions, ${reads} reads of logs and texts`,
      );
      // One tail for each session, whoever comes.
      assert.ok(calls.ssubscribe <= count && reads <= 2 * count, JSON.stringify(calls));
      assert.ok(calls.evalsha <= 4 * JOINS, `${calls.evalsha} scripts`);
      assert.ok(committed <= 5, `${committed} transactions of each`);
      assert.deepEqual({ retried, refused, joined: took.length }, { retried: {}, refused: {}, joined: JOINS });
    } finally {
      await crowd.close();
    }
  });
});

suite('jitter', { nodes: 3, nginx: true }, (e2e) => {
  e2e('everybody is cut off again and again: nothing is lost, doubled or out of order', { timeout: TIMEOUT }, async (cluster) => {
    isGood(await storm(cluster));
  });

  e2e('and a node is killed meanwhile', { timeout: TIMEOUT }, async (cluster) => {
    const killed = cluster.nodes[1];
    const report = await storm(cluster, { midway: () => killed.signal('SIGKILL') });
    if (IS_MEASURED) isGood(report);
    assert.deepEqual(await killed.exited, { code: null, signal: 'SIGKILL' });
    await cluster.again(1);
  });
});
