// What the suites share: real `tokencast` processes with a Redis and a database of their own, nginx
// in front on request, stock clients, and a recorder of what they hear. Everything is on loopback,
// every wait has a limit, and every process that is started here is stopped here by its pid.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect as connectTcp, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { io } from 'socket.io-client';
import { dice } from './harness/dice.mjs';
import { startProxy } from './harness/proxy.mjs';

const run = promisify(execFile);
const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
export const BIN = process.env.TOKENCAST_BIN ?? join(ROOT, 'target/debug/tokencast');

/** The secret that every cluster here verifies tokens with. */
export const SECRET = 'a secret of the end-to-end tests, and of nothing else';

// ── Waiting ────────────────────────────────────────────────────────────────────────────────────

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** A pause that is itself what is tested (a fault's length, a random moment): never a wait for something. */
export const lasting = pause;

/** Calls `probe` until it neither throws nor gives `false` or `undefined`; gives what it gave. */
export async function eventually(probe, { within = 10_000, every = 20, what = 'a condition' } = {}) {
  const deadline = performance.now() + within;
  for (;;) {
    let last;
    try {
      const value = await probe();
      if (value !== false && value !== undefined) return value;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) {
      throw new Error(`${what}: not within ${within} ms`, { cause: last });
    }
    await pause(every);
  }
}

/** `promise`, or an error that names `what` after `ms`. */
export function within(ms, what, promise) {
  let timer;
  const limit = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`${what}: not within ${ms} ms`)), ms);
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}

/** Runs `job` for each item, at most `limit` at a time. The first failure ends it. */
export async function each(items, limit, job) {
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const index = next;
      next += 1;
      try {
        await job(items[index], index);
      } catch (error) {
        next = items.length; // the others end with what they are at
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: limit }, worker));
}

// ── Tests ──────────────────────────────────────────────────────────────────────────────────────

const sockets = new Set();
let testing = false;

/**
 * Tests that share a cluster: `define` is given a function that adds one, whose body is given the
 * cluster. With `fresh`, each test has a cluster of its own. Each has a time limit; the clients
 * that it opened are closed after it; where it fails, the nodes' last log lines are printed.
 */
export function suite(name, { fresh = false, ...options }, define) {
  describe(name, () => {
    let shared;
    if (!fresh) {
      before(async () => {
        shared = await startCluster(options);
      });
      after(() => shared?.stop());
    }
    define((title, { timeout = 30_000 } = {}, body) => {
      // The runner's own limit would give the test up without its clean-up.
      test(title, { timeout: timeout + 60_000 }, async (t) => {
        const cluster = shared ?? (await startCluster(options));
        testing = true;
        try {
          await within(timeout, 'the test', body(cluster, t));
        } catch (error) {
          for (const node of cluster.nodes) console.error(`──── ${node.name}\n${node.log(60)}`);
          throw error;
        } finally {
          testing = false;
          for (const socket of sockets) socket.disconnect();
          sockets.clear();
          if (fresh) await cluster.stop();
        }
      });
    });
  });
}

/** Seeded random numbers. The seed is printed; SEED=… repeats a run. */
export function random(seed = Number(process.env.SEED ?? randomBytes(4).readUInt32LE())) {
  console.log(`SEED=${seed}`);
  return dice(seed);
}

/** A session's id that no other test uses. */
export const sessionId = (name = 's') => `${name}-${randomBytes(6).toString('hex')}`;

// ── Processes ──────────────────────────────────────────────────────────────────────────────────

const children = new Set();
const killAll = () => {
  for (const child of children) {
    try {
      // A frozen one would not hear anything else.
      process.kill(child.pid, 'SIGKILL');
    } catch {
      // It is gone already.
    }
  }
};
process.on('exit', killAll);
for (const [signal, status] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGHUP', 129]]) {
  process.once(signal, () => process.exit(status));
}

const handedOut = new Set();

/** A free port on loopback, below the range that outgoing connections use. */
export async function freePort() {
  for (let tries = 0; tries < 200; tries += 1) {
    // From above 10080 on, which fetch refuses to speak to.
    const port = 10_100 + Math.floor(Math.random() * 19_900);
    if (handedOut.has(port)) continue;
    const free = await new Promise((done) => {
      const server = createServer();
      server.once('error', () => done(false));
      server.listen(port, '127.0.0.1', () => server.close(() => done(true)));
    });
    if (free) {
      handedOut.add(port);
      return port;
    }
  }
  throw new Error('no free port found');
}

/** A child process: its output in a file, `exited` settled once it is gone. */
class Child {
  constructor(name, command, args, { env, cwd, dir }) {
    this.name = name;
    this.logFile = join(dir, `${name}-${randomBytes(3).toString('hex')}.log`);
    const out = openSync(this.logFile, 'a');
    this.process = spawn(command, args, { env, cwd, stdio: ['ignore', out, out] });
    closeSync(out);
    this.pid = this.process.pid;
    children.add(this);
    this.end = undefined;
    this.exited = new Promise((done) => {
      const ended = (end) => {
        children.delete(this);
        this.end = end;
        done(end);
      };
      this.process.once('exit', (code, signal) => ended({ code, signal }));
      this.process.once('error', (error) => ended({ code: null, signal: null, error }));
    });
  }

  get alive() {
    return this.end === undefined;
  }

  /** The last lines of what it wrote. */
  log(lines = 40) {
    const text = existsSync(this.logFile) ? readFileSync(this.logFile, 'utf8') : '';
    return text.trimEnd().split('\n').slice(-lines).join('\n');
  }

  signal(signal) {
    this.isAway = signal !== 'SIGCONT';
    if (this.alive) process.kill(this.pid, signal);
  }

  /** Until `probe` succeeds; an early end of the process is an error that shows its log. */
  async ready(probe, limit = 30_000) {
    try {
      await eventually(
        async () => {
          if (!this.alive) return 'dead';
          return (await probe()) ? 'ready' : undefined;
        },
        { within: limit, every: 30, what: `${this.name} is ready` },
      );
      assert.ok(this.alive, `${this.name} ended with ${JSON.stringify(this.end)}`);
    } catch (error) {
      error.message += `\n──── ${this.name}\n${this.log()}`;
      throw error;
    }
    return this;
  }

  /** Stops it, hard where it does not stop by itself. */
  async stop(signal = 'SIGTERM', patience = 15_000) {
    if (!this.alive) return this.end;
    this.signal('SIGCONT');
    this.signal(signal);
    try {
      return await within(patience, `${this.name} stops`, this.exited);
    } catch {
      this.signal('SIGKILL');
      return this.exited;
    }
  }
}

/** The variables that a child gets: none of the developer's own settings. */
export const baseEnv = () => ({ PATH: `${process.env.PATH}:/usr/sbin:/sbin`, HOME: tmpdir(), LANG: 'C.UTF-8' });

async function makeDir() {
  const dir = await mkdtemp(join(tmpdir(), 'tokencast-e2e-'));
  await chmod(dir, 0o711); // nginx' workers may be another user
  return dir;
}

// ── Redis ──────────────────────────────────────────────────────────────────────────────────────

/**
 * A Redis that keeps nothing on disk. Each cluster has its own: databases of one server share
 * their channels, and tests restart it.
 */
export async function startRedis() {
  const dir = await makeDir();
  const port = await freePort();
  const options = { port, bind: '127.0.0.1', dir, save: '', appendonly: 'no', 'maxmemory-policy': 'noeviction' };
  const args = Object.entries(options).flatMap(([key, value]) => [`--${key}`, String(value)]);
  const redis = {
    url: `redis://127.0.0.1:${port}`,
    child: undefined,

    async start() {
      redis.child = new Child('redis', 'redis-server', args, { env: baseEnv(), cwd: dir, dir });
      await redis.child.ready(async () => (await redis.command('PING')) === 'PONG');
    },

    /** Runs a command; gives redis-cli's raw answer. */
    async command(...words) {
      const { stdout } = await run('redis-cli', ['-h', '127.0.0.1', '-p', String(port), '--raw', ...words], {
        env: baseEnv(),
        timeout: 5_000,
      });
      return stdout.trimEnd();
    },

    /** Kills it and starts it again, empty, on the same port. */
    async restart() {
      await redis.child.stop('SIGKILL');
      await redis.start();
    },

    /** Freezes it: connections stay open and nothing answers. */
    pause: () => redis.child.signal('SIGSTOP'),
    resume: () => redis.child.signal('SIGCONT'),

    async stop() {
      await redis.child?.stop('SIGKILL');
      await rm(dir, { recursive: true, force: true });
    },
  };
  await redis.start();
  return redis;
}

// ── Database ───────────────────────────────────────────────────────────────────────────────────

/** A fresh database on TEST_DATABASE_URL's server. */
export async function createDatabase() {
  const server = process.env.TEST_DATABASE_URL;
  if (!server) throw new Error('TEST_DATABASE_URL is not set: run the suites by `make e2e` or dev/services.sh');
  const name = `tokencast_e2e_${randomBytes(6).toString('hex')}`;
  const url = new URL(server);
  url.pathname = `/${name}`;
  const psql = async (at, sql) => {
    const args = ['--no-psqlrc', '--quiet', '--tuples-only', '--no-align', '--set=ON_ERROR_STOP=1', '--command', sql, at];
    const { stdout } = await run('psql', args, { env: baseEnv(), timeout: 15_000, maxBuffer: 256 * 1024 * 1024 });
    return stdout.trimEnd();
  };
  await psql(server, `CREATE DATABASE ${name}`);
  return {
    url: url.href,
    /** Runs SQL; gives psql's unaligned rows. */
    query: (sql) => psql(url.href, sql),
    drop: () => psql(server, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`),
  };
}

// ── Nodes ──────────────────────────────────────────────────────────────────────────────────────

/** What has a limit of its own; everything else has WS_THROTTLE_LIMIT. */
const LIMITED = [
  'session:join', 'message:send', 'message:edit', 'message:delete', 'message:seen', 'message:reaction', 'typing:start',
  'stream:request', 'stream:init', 'stream:open', 'read', 'subscribe', 'chat:join', 'chat:send', 'chat:message', 'chat:typing',
];

/** RATE_LIMITS that no test runs into, but for `limits`: `{ 'message:send': '5/60s' }`. */
export const rateLimits = (limits = {}) =>
  Object.entries({ ...Object.fromEntries(LIMITED.map((event) => [event, '1000000/60s'])), ...limits })
    .map(([event, limit]) => `${event}=${limit}`)
    .join(',');

/** Limits that tests would run into; a test of a limit sets its own. */
const NO_LIMITS = {
  MAX_CONNECTIONS_PER_USER: '100000',
  MAX_CONCURRENT_STREAMS: '100000',
  MAX_NODE_STREAMS: '100000',
  WS_THROTTLE_LIMIT: '1000000',
  SOCKET_EVENTS_MAX: '100000',
  RATE_LIMITS: rateLimits(),
};

/**
 * Writes an agents file. `agents` maps an id to what the file says of it, the names as there or as
 * here (`tokensPerSecond`); a scripted one of 60 tokens at 100 a second where it says nothing. The
 * first one is the default. `pipelines` maps an id to stages: `{ name, agents, gate }`.
 */
export async function writeAgents(file, agents, pipelines = {}) {
  const ids = Object.keys(agents);
  const lines = [`default = ${JSON.stringify(ids[0])}`];
  const key = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const table = (head, fields) => {
    lines.push('', head);
    // JSON's strings, numbers, booleans and arrays of them are TOML's too.
    for (const [name, value] of Object.entries(fields)) lines.push(`${key(name)} = ${JSON.stringify(value)}`);
  };
  for (const [id, fields] of Object.entries(agents)) {
    const pace = fields.provider ? {} : { provider: 'scripted', tokensPerSecond: 100, tokens: 60 };
    table('[[agent]]', { id, name: id, ...pace, ...fields });
  }
  for (const [id, stages] of Object.entries(pipelines)) {
    table('[[pipeline]]', { id, name: id });
    for (const stage of stages) table('[[pipeline.stage]]', stage);
  }
  await writeFile(file, `${lines.join('\n')}\n`);
}

/** One agent of each speed that the suites need. */
export const AGENTS = {
  assistant: { tokensPerSecond: 100, tokens: 60 },
  slow: { tokensPerSecond: 40, tokens: 200 },
  quick: { tokensPerSecond: 400, tokens: 60 },
  instant: { tokensPerSecond: 0, tokens: 30 },
};

/** The two ways to run: the same behaviour is asserted on both. */
export const SHAPES = {
  'one node on SQLite, in memory': { nodes: 1, database: 'sqlite', redis: false },
  'PostgreSQL, Redis and two nodes': { nodes: 2 },
};

/** The node for the n-th device: others where there are others. */
export const nodeOf = (cluster, n) => cluster.nodes[n % cluster.nodes.length];

/**
 * Starts `nodes` real nodes, with a Redis and a database of their own, and nginx in front where
 * asked. `env` is added to every node's, `each[n]` to the n-th's. `cluster.url` is nginx' or the first node's. With
 * `redis: false` and `database: 'sqlite'` it is what a single node has without settings. With
 * `proxied`, each node reaches both through proxies of its own (`node.toRedis`, `node.toDatabase`).
 */
export async function startCluster({
  nodes: count = 1, nginx = false, env = {}, each: own = [], agents = AGENTS, pipelines, database = 'postgres', redis = true,
  proxied = false,
} = {}) {
  if (!existsSync(BIN)) throw new Error(`no program at ${BIN}: build it, or set TOKENCAST_BIN`);
  const dir = await makeDir();
  const started = [];
  let named = 0;
  const proxies = [];
  const cluster = {
    dir,
    env: undefined,
    nodes: [],
    redis: undefined,
    database: undefined,
    nginx: undefined,

    get url() {
      return cluster.nginx?.url ?? cluster.nodes[0].url;
    },

    /** Starts one more node like the others, with `env` besides. It is stopped with the cluster, and not in `nodes`. */
    async startNode(env = {}) {
      named += 1;
      const name = `node-${named}`;
      const own = { ...cluster.env, ...env };
      const ways = {};
      if (proxied) {
        for (const [key, way, kind] of [['REDIS_URL', 'toRedis', 'redis'], ['DATABASE_URL', 'toDatabase', 'postgres']]) {
          if (!own[key]) continue;
          ways[way] = await startProxy(own[key], kind, await freePort());
          proxies.push(ways[way]);
          own[key] = ways[way].url;
        }
      }
      const node = await startNode(name, own, dir, (child) => started.push(child));
      return Object.assign(node, ways);
    },

    /** Starts the n-th node again, which has ended, on the same ports: whoever is behind nginx finds it. */
    async again(n) {
      const { name, env, toRedis, toDatabase } = cluster.nodes[n];
      const node = await startNode(name, env, dir, (child) => started.push(child));
      cluster.nodes[n] = Object.assign(node, { toRedis, toDatabase });
      return cluster.nodes[n];
    },

    /** Stops and removes everything, whatever state it is in. */
    async stop() {
      await cluster.nginx?.child.stop('SIGTERM');
      cluster.redis?.resume();
      // Their own shutdown is what one test is about; here it only takes time.
      await Promise.all(started.map((node) => node.stop('SIGKILL')));
      await Promise.all(proxies.map((proxy) => proxy.stop()));
      await cluster.redis?.stop();
      await cluster.database?.drop();
      await rm(dir, { recursive: true, force: true });
    },
  };

  try {
    const agentsFile = join(dir, 'agents.toml');
    [cluster.redis, cluster.database] = await Promise.all([
      redis ? startRedis() : undefined,
      database === 'sqlite' ? undefined : createDatabase(),
      writeAgents(agentsFile, agents, pipelines),
    ]);
    const nginxPort = nginx ? await freePort() : undefined;
    cluster.env = {
      ...baseEnv(),
      RUST_LOG: 'info',
      RUST_BACKTRACE: '0',
      LOG_FORMAT: 'text',
      NO_COLOR: '1',
      HOST: '127.0.0.1',
      ...(cluster.redis ? { REDIS_URL: cluster.redis.url } : {}),
      DATABASE_URL: cluster.database?.url ?? `sqlite://${join(dir, 'tokencast.db')}`,
      JWT_SECRET: SECRET,
      AGENTS_FILE: agentsFile,
      CORS_ORIGIN: nginx ? `http://127.0.0.1:${nginxPort}` : 'http://localhost:3000',
      ...NO_LIMITS,
      ...env,
    };
    cluster.nodes = await Promise.all(Array.from({ length: count }, (_, n) => cluster.startNode(own[n])));
    if (nginx) cluster.nginx = await startNginx(dir, nginxPort, cluster.nodes);
  } catch (error) {
    await cluster.stop();
    throw error;
  }
  return cluster;
}

async function startNode(name, shared, dir, started) {
  const port = shared.PORT ?? String(await freePort());
  const metricsPort = shared.METRICS_PORT ?? String(await freePort());
  const env = { ...shared, PORT: port, METRICS_PORT: metricsPort };
  const node = new Child(name, BIN, ['serve'], { env, cwd: dir, dir });
  started(node);
  node.env = env;
  node.url = `http://127.0.0.1:${port}`;
  node.metricsUrl = `http://127.0.0.1:${metricsPort}/metrics`;
  await node.ready(async () => (await get(`${node.url}/readyz`)).status === 200);
  return node;
}

async function startNginx(dir, port, nodes) {
  const url = `http://127.0.0.1:${port}`;
  const servers = nodes.map((node) => new URL(node.url).host);
  const args = [join(dir, 'nginx'), `127.0.0.1:${port}`, ...servers];
  const child = new Child('nginx', join(ROOT, 'dev/nginx.sh'), args, { env: baseEnv(), cwd: dir, dir });
  await child.ready(async () => (await get(`${url}/nginx-health`)).status === 200);
  return { url, child };
}

/** An HTTP request that never waits long. */
export const get = (url, options = {}) => fetch(url, { signal: AbortSignal.timeout(5_000), ...options });

/**
 * A node's metrics: `name{labels}` → value, and `sum(name)` over all labels (0 where there is
 * none yet).
 */
export async function metrics(node) {
  const response = await get(node.metricsUrl);
  assert.equal(response.status, 200, `${node.metricsUrl}`);
  const samples = new Map();
  for (const line of (await response.text()).split('\n')) {
    const found = /^([a-zA-Z_:][\w:]*(?:\{.*\})?)\s+(\S+)/.exec(line);
    if (found) samples.set(found[1], Number(found[2]));
  }
  const sum = (name) => {
    let total = 0;
    for (const [key, value] of samples) {
      if (key === name || key.startsWith(`${name}{`)) total += value;
    }
    return total;
  };
  return { samples, sum };
}

// ── Clients ────────────────────────────────────────────────────────────────────────────────────

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A signed token. `ttl` in seconds may be negative; `claims` are added; `secret` forges one. */
export function token({ sub = 'alice', name, ttl = 3600, claims = {}, secret = SECRET } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const payload = { sub, ...(name ? { name } : {}), iat: now, exp: now + ttl, ...claims };
  const signed = `${base64url({ alg: 'HS256', typ: 'JWT' })}.${base64url(payload)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/**
 * The stock client, on namespace /chat. `token` goes into `auth`; everything else is
 * socket.io-client's own. It is closed at the end of its test.
 */
export function client(url, { token: jwt, auth, ...options } = {}) {
  // What a failed test left running must not open sockets that nobody closes.
  if (!testing) throw new Error('the test is over');
  const socket = io(`${url}/chat`, {
    transports: ['websocket'],
    forceNew: true,
    reconnectionDelay: 100,
    reconnectionDelayMax: 1_000,
    auth: { ...(jwt === undefined ? {} : { token: jwt }), ...auth },
    ...options,
  });
  sockets.add(socket);
  return socket;
}

/** Closes a client before the end of its test. */
export function close(socket) {
  sockets.delete(socket);
  socket.disconnect();
}

/** Until the socket is connected; a refusal is an error. */
export function connected(socket, limit = 10_000) {
  if (socket.connected) return Promise.resolve(socket);
  const settled = new Promise((done, fail) => {
    socket.once('connect', () => done(socket));
    socket.once('connect_error', fail);
  });
  return within(limit, 'connect', settled);
}

/** The refusal of a socket; being admitted is an error. */
export function refused(socket, limit = 10_000) {
  const settled = new Promise((done, fail) => {
    socket.once('connect_error', done);
    socket.once('connect', () => fail(new Error('the socket was admitted')));
  });
  return within(limit, 'connect_error', settled);
}

/** A new client, connected, that is recorded from before anything can arrive. */
export async function open(url, options) {
  const socket = client(url, options);
  const heard = record(socket);
  await connected(socket);
  return { socket, heard };
}

/** Emits with an acknowledgement and gives it. */
export const ask = (socket, event, ...args) => socket.timeout(10_000).emitWithAck(event, ...args);

/** As `ask`, for requests that have to succeed. */
export async function ok(socket, event, ...args) {
  const reply = await ask(socket, event, ...args);
  assert.equal(reply?.ok, true, `${event}: ${JSON.stringify(reply)}`);
  return reply;
}

const ENDS = ['stream:complete', 'stream:stopped', 'stream:error'];

/** As `ask`, for requests that have to be refused: the error. */
export async function no(socket, code, event, ...args) {
  const reply = await ask(socket, event, ...args);
  assert.equal(reply?.ok, false, `${event} ${JSON.stringify(args)}: ${JSON.stringify(reply)}`);
  assertError(reply.error, code, event);
  return reply.error;
}

/**
 * Until everything that the server had for this socket before now has arrived: commands of one
 * socket are answered in order, and answers do not overtake events.
 */
export const flushed = (...readers) =>
  Promise.all(readers.map(({ socket }) => ok(socket, 'session:leave', { sessionId: sessionId('flush') })));

/** A user's device that has joined sessions, and forgot what it heard until then. */
export async function joined(node, sub, ids, { name, lastMessageId } = {}) {
  const jwt = token({ sub, name });
  const device = { ...(await open(node.url, { token: jwt })), jwt, sub, node };
  for (const id of [ids].flat()) {
    device.reply = await ok(device.socket, 'session:join', { sessionId: id, ...(lastMessageId ? { lastMessageId } : {}) });
  }
  return device;
}

/** Forgets what was heard until now. */
export const forget = (...readers) => readers.forEach(({ heard }) => heard.events.splice(0));

/** Records every event of a socket, in order, from now on. */
export function record(socket) {
  const events = [];
  const waiting = new Set();
  const offsets = [];
  const places = [];
  socket.onAny((name, payload, offset) => {
    if (typeof offset === 'string') offsets.push(offset);
    // When it came, and with which offset, is no part of what was said: comparisons pass it over.
    const event = Object.defineProperties({ name, payload }, { at: { value: performance.now() }, offset: { value: offset } });
    if (name === 'connection:offset') return void places.push(event); // about the connection, not the conversation
    events.push(event);
    for (const waiter of [...waiting]) waiter(event);
  });

  /** The first event that `matches`, heard already or still to come. */
  const first = (matches, what, limit) => {
    const found = events.find(matches);
    if (found) return Promise.resolve(found);
    let waiter;
    const coming = new Promise((done) => {
      waiter = (event) => matches(event) && done(event);
      waiting.add(waiter);
    });
    return within(limit, what, coming)
      .catch((error) => {
        error.message += `; heard: ${summary(events)}`;
        throw error;
      })
      .finally(() => waiting.delete(waiter));
  };

  return {
    events,
    /** The offsets that came with events, for recovery, and the events that only bring one. */
    offsets,
    places,
    names: () => events.map((event) => event.name),
    /** As `names`, without what comes and goes beside the conversation: users who are there. */
    said: () => events.map((event) => event.name).filter((name) => !/^(presence|user):/.test(name)),
    /** The payloads of one event. */
    of: (name) => events.filter((event) => event.name === name).map((event) => event.payload),
    /** The payload of the first such event, heard already or still to come. */
    next: async (name, where = () => true, limit = 15_000) => {
      const event = await first((heard) => heard.name === name && where(heard.payload), name, limit);
      return event.payload;
    },
    /** The event that ends a stream for this reader, heard already or still to come. */
    finished: (streamId, limit = 30_000) =>
      first(({ name, payload }) => ENDS.includes(name) && payload.streamId === streamId, 'the end of the stream', limit),
    /** What was heard of one stream, put together by `follow`. */
    follow: (streamId) => follow(events, streamId),
  };
}

/**
 * Puts a stream together from what a reader heard, and asserts on the way all that holds for any
 * reader at any moment: offsets contiguous from the reader's first chunk on (`from`), which is 0
 * unless it asked for less; the last chunk once, with the whole text; the end once, after it;
 * nothing afterwards. A reset starts over.
 */
export function follow(events, streamId, { from = 0 } = {}) {
  const seen = { text: '', chunks: 0, starts: 0, resets: 0, last: undefined, end: undefined, message: undefined };
  let seq = -Infinity;
  let before = ' '.repeat(from); // what the reader already had
  for (const { name, payload } of events) {
    if (payload?.streamId !== streamId) continue;
    const at = `${name} of ${streamId} after ${seen.chunks} chunks`;
    assert.equal(seen.end, undefined, `${at}: the stream is over`);
    if (name === 'stream:start') {
      assert.equal(seen.chunks, 0, `${at}: chunks came before the start`);
      seen.starts += 1;
      assert.equal(seen.starts, 1, `${at}: a second start`);
    } else if (name === 'stream:reset') {
      Object.assign(seen, { text: '', last: undefined, resets: seen.resets + 1 });
      before = '';
    } else if (name === 'stream:chunk') {
      assert.equal(seen.last, undefined, `${at}: a chunk after the last one`);
      assert.equal(payload.offset, before.length + seen.text.length, `${at}: a gap or an overlap`);
      assert.ok(payload.seq > seq, `${at}: seq ${payload.seq} after ${seq}`);
      seq = payload.seq;
      seen.chunks += 1;
      seen.text += payload.delta;
      if (payload.isComplete) {
        seen.last = payload;
        assert.equal(payload.content.slice(before.length), seen.text, `${at}: the last chunk's content`);
      }
    } else if (ENDS.includes(name)) {
      seen.end = { name, payload };
      seen.message = payload.message;
      if (name === 'stream:complete') {
        assert.ok(seen.last, `${at}: completed without a last chunk`);
        assert.equal(payload.message.content.slice(before.length), seen.text, `${at}: the message's content`);
      }
    }
  }
  return seen;
}

function summary(events) {
  const counts = new Map();
  for (const { name } of events) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].map(([name, count]) => `${name}×${count}`).join(' ') || 'nothing';
}

/**
 * Asserts that `payload` has the fields that the contract lists, of their JSON types. A type that
 * starts with `?` may be null or missing. The server may add fields.
 */
export function assertFields(payload, types, what) {
  for (const [field, spec] of Object.entries(types)) {
    const optional = spec.startsWith('?');
    const type = optional ? spec.slice(1) : spec;
    const value = payload?.[field];
    if (optional && (value === null || value === undefined)) continue;
    const found = Array.isArray(value) ? 'array' : value === null ? 'null' : typeof value;
    assert.equal(found, type === 'int' || type === 'time' ? { int: 'number', time: 'string' }[type] : type,
      `${what}.${field} of ${JSON.stringify(payload)}`);
    if (type === 'int') assert.ok(Number.isInteger(value) && value >= 0, `${what}.${field} = ${value}`);
    if (type === 'time') assert.match(value, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, `${what}.${field}`);
  }
}

/** The fields of a `Message`. */
export const MESSAGE = {
  id: 'string', sessionId: 'string', userId: '?string', agentId: '?string', role: 'string', content: 'string',
  metadata: '?object', tokens: '?int', parentMessageId: '?string', isEdited: 'boolean', editedAt: '?time',
  isDeleted: 'boolean', deletedAt: '?time', createdAt: 'time', updatedAt: 'time', reactions: 'array',
  attachments: 'array', usage: '?object',
};

/** The fields of a `Session`. */
export const SESSION = {
  id: 'string', ownerId: 'string', title: '?string', agentId: '?string', visibility: 'string', role: '?string',
  memberCount: 'int', lastMessageAt: '?time', createdAt: 'time', updatedAt: 'time',
};

/** Asserts that `error` is an `E` of the given code, about `event`. */
export function assertError(error, code, event) {
  assertFields(error, { type: 'string', code: 'string', message: 'string', event: 'string' }, 'error');
  assert.equal(error.type, error.code, 'type and code are the same');
  if (code !== undefined) assert.equal(error.code, code, JSON.stringify(error));
  if (event !== undefined) assert.equal(error.event, event, JSON.stringify(error));
}

// ── Bytes that no stock client sends ───────────────────────────────────────────────────────────

/** A WebSocket whose frames are written by hand. Gives once the handshake is over. */
export async function rawWebSocket(url, { headers = {}, query = 'EIO=4&transport=websocket' } = {}) {
  const { hostname, port, host } = new URL(url);
  const tcp = connectTcp({ host: hostname, port: Number(port) });
  const key = randomBytes(16).toString('base64');
  const received = [];
  let buffer = Buffer.alloc(0);
  let opened;
  let status = 0;
  const closed = new Promise((done) => tcp.once('close', () => done()));
  tcp.on('error', () => {}); // told by `closed`
  const opening = new Promise((done, fail) => {
    opened = done;
    void closed.then(() => fail(new Error('closed during the handshake')));
  });
  opening.catch(() => {});
  tcp.on('data', (data) => {
    buffer = Buffer.concat([buffer, data]);
    if (status === 0) {
      const end = buffer.indexOf('\r\n\r\n');
      if (end < 0) return;
      const head = buffer.subarray(0, end).toString('latin1');
      status = Number(head.split(' ')[1]);
      if (status === 101) {
        const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
        assert.ok(head.includes(accept), 'Sec-WebSocket-Accept');
      }
      buffer = buffer.subarray(end + 4);
      opened();
    }
    while (status === 101 && buffer.length >= 2) {
      let length = buffer[1] & 127;
      let start = 2;
      if (length === 126) {
        if (buffer.length < 4) return;
        length = buffer.readUInt16BE(2);
        start = 4;
      } else if (length === 127) {
        if (buffer.length < 10) return;
        length = Number(buffer.readBigUInt64BE(2));
        start = 10;
      }
      if (buffer.length < start + length) return;
      const opcode = buffer[0] & 15;
      received.push({ opcode, text: buffer.subarray(start, start + length).toString() });
      if (opcode === 8) tcp.end(Buffer.from([0x88, 0x80, 0, 0, 0, 0])); // the closing handshake's other half
      buffer = buffer.subarray(start + length);
    }
  });
  tcp.write(
    [
      `GET /socket.io/?${query} HTTP/1.1`, `Host: ${host}`, 'Upgrade: websocket', 'Connection: Upgrade',
      `Sec-WebSocket-Key: ${key}`, 'Sec-WebSocket-Version: 13',
      ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`), '', '',
    ].join('\r\n'),
  );
  const raw = {
    received,
    closed,
    status: () => status,
    /** Bytes as they are. */
    write: (bytes) => void tcp.write(bytes),
    /** One frame; text unless `opcode` says otherwise, masked unless told not to. */
    send(payload, { opcode = 1, fin = true, masked = true } = {}) {
      const data = Buffer.from(payload);
      const size = Buffer.alloc(data.length < 126 ? 2 : data.length < 65_536 ? 4 : 10);
      size[0] = (fin ? 128 : 0) | opcode;
      size[1] = masked ? 128 : 0;
      if (size.length === 2) size[1] |= data.length;
      else if (size.length === 4) {
        size[1] |= 126;
        size.writeUInt16BE(data.length, 2);
      } else {
        size[1] |= 127;
        size.writeBigUInt64BE(BigInt(data.length), 2);
      }
      if (!masked) return void tcp.write(Buffer.concat([size, data]));
      const mask = randomBytes(4);
      const hidden = Buffer.from(data.map((byte, index) => byte ^ mask[index % 4]));
      return void tcp.write(Buffer.concat([size, mask, hidden]));
    },
    /** Until a text frame that starts with `prefix` came. Pings are not answered: be quick. */
    until: (prefix, limit = 10_000) =>
      eventually(() => received.find(({ text }) => text.startsWith(prefix)), { within: limit, what: `frame ${prefix}` }),
    end: () => tcp.destroy(),
  };
  await within(10_000, 'the WebSocket handshake', opening);
  return raw;
}

/** A raw WebSocket that is connected to /chat. */
export async function rawChat(url, jwt) {
  const raw = await rawWebSocket(url);
  await raw.until('0{');
  raw.send(`40/chat,${JSON.stringify({ token: jwt })}`);
  await raw.until('40/chat,');
  return raw;
}
