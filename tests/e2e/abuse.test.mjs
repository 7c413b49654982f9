// Honest clients beside abuse of every kind: floods, peers that read nothing, frames that mean
// nothing, storms of polls, joins, bad tokens and requests, connections that say a byte now and then.
// The honest ones are never disconnected and lose nothing, the nodes' memory stays where it was, and
// every limit that is met is counted. `make abuse` is this with 500 honest clients for longer; there
// the delay of what they hear is held against the delay without abuse, too.

import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { history, isFlawless, percent, quantile, startCrowd } from './harness/crowd.mjs';
import { at, rest } from './harness/rest.mjs';
import { client, connected, each, eventually, lasting, metrics, ok, random, sessionId, suite, token } from './harness.mjs';

const setting = (name, fallback) => Number(process.env[name] ?? fallback);
const CLIENTS = setting('CLIENTS', 50);
const PER_SESSION = 5;
const SESSIONS = Math.ceil(CLIENTS / PER_SESSION);
const WORKERS = setting('WORKERS', Math.ceil(CLIENTS / 500));
/** Seconds of each phase, and how often there is one without and one with abuse. */
const PHASE = setting('PHASE', 6);
const ROUNDS = setting('ROUNDS', 1);
/** Messages a second, over all sessions. */
const RATE = setting('RATE', CLIENTS / 10); // one every two seconds in each session
const SCALE = setting('SCALE', 1);
const IS_MEASURED = process.env.STORM === '1';

/** Who writes in a session. Each is somebody of their own, so that ordinary limits do for them. */
const ownerOf = (s) => `owner-${s}`;
const agents = {
  assistant: { tokensPerSecond: 10, tokens: 400 },
  much: { tokensPerSecond: 200, tokens: 20_000 },
};
/** Connections that an address may have to one node: the honest ones are all on one. */
const PER_ADDRESS = Math.ceil(CLIENTS / 2 + SESSIONS / 2 + 60);
// As a deployment has them, but for those that take minutes to be met.
const env = {
  MAX_CONNECTIONS_PER_USER: '20', MAX_CONNECTIONS_PER_ADDRESS: String(PER_ADDRESS), MAX_HANDSHAKES: '30',
  SOCKET_EVENTS_MAX: '50', WS_THROTTLE_LIMIT: '10', JOINED_SESSIONS_MAX: '2', POLLS_MAX: '1', SOCKET_STALL_TIMEOUT: '3s',
  HEADERS_TIMEOUT: IS_MEASURED ? '10s' : '3s', BODY_TIMEOUT: '3s', CONNECT_TIMEOUT: '3s', MAX_CONCURRENT_STREAMS: '3', MAX_NODE_STREAMS: '1000',
  RATE_LIMITS: 'message:send=60/60s',
};
/** The limits that abuse has to have met, see docs/LIMITS.md. */
const LIMITS = [
  'address_connections', 'user_connections', 'handshakes', 'connect_timeout', 'headers', 'headers_timeout', 'body', 'body_timeout',
  'payload', 'polls', 'events', 'joined_sessions', 'content', 'page', 'search', 'stall', 'token', 'user_streams',
];

/** The process that abuses. */
function startAbuser() {
  const child = fork(fileURLToPath(new URL('./harness/abuser.mjs', import.meta.url)), {
    execArgv: [], env: { PATH: process.env.PATH }, stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  let asked = 0;
  const waiting = new Map();
  child.on('message', ({ id, result, error }) => {
    const { done, fail } = waiting.get(id);
    waiting.delete(id);
    if (error) fail(new Error(error));
    else done(result);
  });
  child.on('exit', () => {
    for (const { fail } of waiting.values()) fail(new Error('the process of abuse ended'));
  });
  const ask = (op, args) =>
    new Promise((done, fail) => {
      asked += 1;
      waiting.set(asked, { done, fail });
      child.send({ id: asked, op, args });
    });
  return { ask, pid: child.pid, close: () => child.connected && child.disconnect() };
}

/** Open sessions, each with a first message, and the devices that show them. */
async function begin(node) {
  const ids = Array.from({ length: SESSIONS }, () => sessionId('honest'));
  const last = new Map();
  await each(ids, 8, async (id, s) => {
    const owner = rest(node, ownerOf(s));
    await owner.post(at.sessions, { id, visibility: 'open' });
    last.set(id, (await owner.post('/api/chat/messages', { sessionId: id, content: 'Hello' })).id);
  });
  const device = (_, n) => {
    const session = ids[Math.floor(n / PER_SESSION)];
    return { sub: `user-${n}`, session, last: last.get(session) };
  };
  return { ids, devices: Array.from({ length: CLIENTS }, device) };
}

const resident = (nodes) =>
  nodes.reduce((sum, { pid }) => sum + 1024 * Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]), 0);
/** CPU seconds that a process has used. */
const used = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
};
const MB = (bytes) => (bytes / 1e6).toFixed(1);

/** Sums of a metric's samples over the nodes, by one label. */
async function byLabel(nodes, name, label) {
  const counts = {};
  for (const node of nodes) {
    for (const [sample, value] of (await metrics(node)).samples) {
      const key = sample.startsWith(`${name}{`) && new RegExp(`${label}="([^"]*)"`).exec(sample)?.[1];
      if (key) counts[key] = (counts[key] ?? 0) + value;
    }
  }
  return counts;
}

/** Messages at `RATE` for a phase, each with the moment in which it was sent, and an answer in every tenth session. */
async function talk(senders, ids, phase, sent) {
  const answering = ids.filter((_, s) => s % 10 === phase % 10);
  for (const id of answering) {
    await ok(senders[ids.indexOf(id)], 'stream:request', { sessionId: id, prompt: 'Go on', config: { maxTokens: Math.max(10, Math.floor(PHASE * 8)) } });
    sent[id] += 2;
  }
  const start = performance.now();
  const under = [];
  for (let n = 0; n < PHASE * RATE; n += 1) {
    await lasting(Math.max(0, start + (n * 1_000) / RATE - performance.now()));
    const id = ids[n % ids.length];
    const content = `${phase}@${performance.timeOrigin + performance.now()}`;
    sent[id] += 1;
    under.push(ok(senders[n % ids.length], 'message:send', { sessionId: id, content, clientMessageId: `${phase}-${n}` }));
  }
  await Promise.all(under);
}

const TIMEOUT = 120_000 + CLIENTS * 40 + ROUNDS * 2 * (PHASE + 10) * 1_000;

suite('abuse', { nodes: 2, env, agents }, (e2e) => {
  e2e('honest clients lose nothing, memory stays, and every limit is counted', { timeout: TIMEOUT }, async (cluster) => {
    const { seed } = random();
    const { nodes } = cluster;
    const { ids, devices } = await begin(nodes[0]);
    const halves = nodes.map((node, n) => ({ node, devices: devices.filter((_, at) => at % nodes.length === n) }));
    const crowds = await Promise.all(halves.map(({ node, devices: own }, n) => startCrowd({ url: node.url, devices: own, workers: WORKERS, seed: seed + n })));
    const abuser = startAbuser();
    try {
      await Promise.all(crowds.map((crowd) => crowd.all('open', { atOnce: 8 })));
      const senders = ids.map((_, s) => client(nodes[s % nodes.length].url, { token: token({ sub: ownerOf(s) }), auth: { dialect: 'session' }, autoConnect: false }));
      await each(senders, 8, (sender) => connected(sender.connect()));
      const subs = ['many', 'large', ...[...Array(6 * SCALE).keys()].flatMap((n) => [`flood-${n}`, `joins-${n}`]), ...[...Array(8 * SCALE).keys()].map((n) => `slow-${n}`)];
      const tokens = Object.fromEntries(subs.map((sub) => [sub, token({ sub })]));
      const theirs = sessionId('theirs');
      await rest(nodes[0], 'flood-0').post(at.sessions, { id: theirs, visibility: 'open' });
      await abuser.ask('begin', { urls: nodes.map(({ url }) => url), tokens, expired: token({ sub: 'flood-0', ttl: -600 }), session: theirs, scale: SCALE, hoard: 2 * PER_ADDRESS + 200 });

      const sent = Object.fromEntries(ids.map((id) => [id, 0]));
      const heard = async () => {
        for (const crowd of crowds) {
          const have = await crowd.sum('have', { messages: sent });
          if (have < CLIENTS / crowds.length) throw new Error(`${have} of ${CLIENTS / crowds.length} have all of it`);
        }
        return true;
      };
      const phases = [];
      await talk(senders, ids, 0, sent); // pools and caches fill
      for (let round = 0; round < ROUNDS; round += 1) {
        for (const isAbused of [false, true]) {
          const phase = phases.length + 1;
          if (isAbused) {
            await abuser.ask('start');
            await lasting(1_000);
          }
          const cpu = { nodes: nodes.reduce((sum, { pid }) => sum + used(pid), 0), abuser: used(abuser.pid) };
          const begun = performance.now();
          await talk(senders, ids, phase, sent);
          const seconds = (performance.now() - begun) / 1_000;
          const cores = { nodes: (nodes.reduce((sum, { pid }) => sum + used(pid), 0) - cpu.nodes) / seconds, abuser: (used(abuser.pid) - cpu.abuser) / seconds };
          const peak = resident(nodes);
          if (isAbused) await abuser.ask('stop');
          await eventually(heard, { within: 60_000, every: 100, what: 'everybody has everything' });
          const delays = (await Promise.all(crowds.map((crowd) => crowd.all('delays', { phase })))).flat(2);
          const p99 = quantile(delays, 0.99);
          phases.push({ isAbused, p99, after: resident(nodes), peak });
          console.log(
            `abuse: phase ${phase}, ${isAbused ? 'abused' : 'calm'}: ${delays.length} deliveries, ms: p50 ${quantile(delays, 0.5).toFixed(1)}  p99 ${p99.toFixed(1)}  max ${quantile(delays, 1).toFixed(1)}; ` +
              `nodes ${cores.nodes.toFixed(2)} cores, ${MB(peak)} MB, the abuser ${cores.abuser.toFixed(2)} cores`,
          );
        }
      }
      const tried = await abuser.ask('stop');
      // The last of the limits takes some seconds to be met.
      let limits;
      await eventually(async () => {
        limits = await byLabel(nodes, 'limit_reached_total', 'limit');
        return LIMITS.every((limit) => limits[limit] > 0);
      }, { within: 15_000, every: 200 }).catch(() => {});
      const limited = await byLabel(nodes, 'rate_limited_total', 'event');
      const stored = await history(cluster, ids);
      const reports = await Promise.all(crowds.map((crowd) => crowd.report(stored)));
      const [calm, abused] = [false, true].map((which) => phases.filter(({ isAbused }) => isAbused === which));
      const ratios = abused.map(({ p99 }, n) => p99 / calm[n].p99);
      console.log(
        [
          `abuse: tried ${JSON.stringify(tried)}`,
          `  limits reached: ${JSON.stringify(limits)}; rates: ${JSON.stringify(limited)}`,
          `  honest p99, abused / calm: median ${quantile(ratios, 0.5).toFixed(2)}, all ${ratios.map((ratio) => ratio.toFixed(2)).join(' ')}`,
          `  memory after each round, MB: ${abused.map(({ after }) => MB(after)).join(' ')}`,
          ...reports.map((one) => `  ${percent(one.expected - one.missing, one.expected)} of ${one.expected} delivered, ${one.returns} returns, ended by ${JSON.stringify(one.reasons)}`),
        ].join('\n'),
      );
      for (const report of reports) {
        isFlawless(report);
        assert.deepEqual({ returns: report.returns, reasons: report.reasons }, { returns: 0, reasons: {} }, 'nobody honest was cut off');
      }
      assert.deepEqual(LIMITS.filter((limit) => !(limits[limit] > 0)), [], 'limits that nobody was told of');
      assert.ok(nodes.every(({ alive }) => alive), 'no node has ended');
      // What the first round filled, the others fill again.
      const [first, last] = [abused[0].after, abused.at(-1).after];
      assert.ok(last <= first * 1.25 + 32e6, `memory grew from ${MB(first)} to ${MB(last)} MB`);
      if (IS_MEASURED) assert.ok(quantile(ratios, 0.5) <= 2, `honest p99 × ${quantile(ratios, 0.5).toFixed(2)}`);
    } finally {
      abuser.close();
      await Promise.all(crowds.map((crowd) => crowd.close()));
    }
  });
});
