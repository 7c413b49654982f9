// Many stock clients, in several processes: one process would be what is measured. Each is told what
// its devices do, and says what became of them.

import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { token } from '../harness.mjs';

const WORKER = fileURLToPath(new URL('./crowd-worker.mjs', import.meta.url));

/**
 * Processes with these devices, `{ sub, session, last }`: whose, the session that each shows, and the
 * id of the last message that it knows there. `options` are socket.io-client's.
 */
export async function startCrowd({ url, devices, workers, seed, options = {} }) {
  const shares = Array.from({ length: workers }, (_, n) => devices.filter((_, at) => at % workers === n));
  const processes = shares.map(() => fork(WORKER, { execArgv: [], env: { PATH: process.env.PATH }, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }));
  const waiting = new Map();
  let asked = 0;
  for (const child of processes) {
    child.on('message', ({ id, result, error }) => {
      const { done, fail } = waiting.get(id);
      waiting.delete(id);
      if (error) fail(new Error(error));
      else done(result);
    });
    child.on('exit', (code, signal) => {
      for (const { fail } of waiting.values()) fail(new Error(`a process of clients ended: ${code ?? signal}`));
    });
  }
  const ask = (child, op, args) =>
    new Promise((done, fail) => {
      asked += 1;
      waiting.set(asked, { done, fail });
      child.send({ id: asked, op, args });
    });
  const crowd = {
    /** Has all processes do something; gives what each of them said. */
    all: (op, args) => Promise.all(processes.map((child) => ask(child, op, args))),
    /** The sum of what each of them said. */
    sum: async (op, args) => (await crowd.all(op, args)).reduce((sum, n) => sum + n, 0),
    /** What became of all of them, see `report` in crowd-worker.mjs. `stored`: by session, its messages in order. */
    async report(stored) {
      const reports = await crowd.all('report', { stored });
      return Object.fromEntries(Object.entries(reports[0]).map(([name, first]) => [name, merged(first, reports.map((one) => one[name]))]));
    },
    /** Ends them; they end by themselves where this process does. */
    async close() {
      await Promise.all(processes.map((child) => {
        if (child.exitCode !== null || child.signalCode !== null) return undefined;
        const gone = new Promise((done) => child.once('exit', done));
        child.disconnect();
        return gone;
      }));
    },
  };
  try {
    await Promise.all(processes.map((child, n) => {
      const own = shares[n].map((device) => ({ ...device, token: token({ sub: device.sub }) }));
      return ask(child, 'begin', { url, devices: own, options, seed: seed + n });
    }));
  } catch (error) {
    await crowd.close();
    throw error;
  }
  return crowd;
}

/** Numbers are added, lists joined, counts by name added. */
function merged(first, all) {
  if (typeof first === 'number') return all.reduce((sum, n) => sum + n, 0);
  if (Array.isArray(first)) return all.flat();
  const counts = {};
  for (const one of all) for (const [name, n] of Object.entries(one)) counts[name] = (counts[name] ?? 0) + n;
  return counts;
}

/** The value below which this share of the values is; 0 where there is none. */
export function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? 0;
}

/** `p50 1  p99 2  max 3`, in whole milliseconds. */
export const spread = (values) =>
  Object.entries({ p50: 0.5, p99: 0.99, max: 1 }).map(([name, share]) => `${name} ${Math.round(quantile(values, share))}`).join('  ');

/** A share in per cent, never rounded up to all of it. */
export const percent = (part, whole) => (whole === 0 ? 'none' : `${(Math.floor((part / whole) * 1e5) / 1e3).toFixed(3)} %`);

/** What is stored in each session, in order. */
export async function history(cluster, ids) {
  const columns = "session_id, id, role, encode(convert_to(content, 'UTF8'), 'hex')";
  const rows = await cluster.database.query(`SELECT ${columns} FROM message ORDER BY session_id, ordinal`);
  const stored = Object.fromEntries(ids.map((id) => [id, []]));
  for (const row of rows.split('\n')) {
    const [session, id, role, hex] = row.split('|');
    stored[session]?.push({ id, role, content: Buffer.from(hex, 'hex').toString() });
  }
  return stored;
}

/** Every device has everything that is stored, once and in order, and was never turned away. */
export function isFlawless({ wrong, missing, doubled, disordered, refused, offsets }) {
  assert.deepEqual({ missing, doubled, disordered, offsets, wrong, refused }, { missing: 0, doubled: 0, disordered: 0, offsets: 0, wrong: [], refused: {} });
}
