// A TCP proxy between a node and Redis or PostgreSQL that knows where the client's messages end, so
// that a connection can be cut, or stall, between any two steps.

import { connect, createServer } from 'node:net';

/** PostgreSQL's first messages have no type: length and a code. These two are followed by another. */
const ENCRYPTION_REQUESTS = new Set([80877103, 80877104]);

/** Cuts a PostgreSQL client's bytes into messages. */
function postgresMessages() {
  let startup = true;
  return (buffer) => {
    const head = startup ? 0 : 1;
    if (buffer.length < head + 4) return undefined;
    const length = head + buffer.readUInt32BE(head);
    if (buffer.length < length) return undefined;
    if (startup && !(length === 8 && ENCRYPTION_REQUESTS.has(buffer.readUInt32BE(4)))) {
      startup = false;
      return { length, type: 'startup' };
    }
    return { length, type: startup ? 'encryption' : String.fromCharCode(buffer[0]) };
  };
}

/** Cuts a Redis client's bytes into commands: arrays of bulk strings. */
function redisCommands() {
  return (buffer) => {
    let at = 0;
    const line = () => {
      const end = buffer.indexOf('\r\n', at);
      if (end < 0) return undefined;
      const text = buffer.toString('latin1', at, end);
      at = end + 2;
      return text;
    };
    const count = line();
    if (count === undefined) return undefined;
    if (count[0] !== '*') return { length: at, type: count };
    let type;
    for (let left = Number(count.slice(1)); left > 0; left -= 1) {
      const size = line();
      if (size === undefined) return undefined;
      const length = Number(size.slice(1));
      if (buffer.length < at + length + 2) return undefined;
      type ??= buffer.toString('latin1', at, at + length).toUpperCase();
      at += length + 2;
    }
    return { length: at, type };
  };
}

const CUTTERS = { postgres: postgresMessages, redis: redisCommands };

/**
 * A proxy to the server of `url`, listening on `port`. Transparent until told otherwise.
 *
 * A *watch* sees each message of a client on its way (`type`, `bytes`, and `from`, one object per
 * connection) and gives what becomes of it: nothing (it passes), or one of
 *   `cut before`, `cut after`      all connections are cut: the message does not pass, or it does
 *                                  and its answer does not,
 *   `stall before`, `stall after`  nothing moves any more on any connection, until `cut` or `resume`.
 */
export async function startProxy(url, kind, port) {
  let target = new URL(url);
  const pairs = new Set();
  let watch;
  let stalled = false;
  let answers = true;

  const proxy = {
    url: Object.assign(new URL(url), { hostname: '127.0.0.1', port: String(port) }).href,
    /** How many messages have passed, of all connections. */
    passed: 0,
    /** Sees every message from now on. */
    watch(next) {
      watch = next;
    },
    /** Ends all connections, at once and hard; new ones are accepted. */
    cut() {
      const open = [...pairs];
      for (const { client, server } of open) {
        client.destroy();
        server.destroy();
      }
      stalled = false;
      answers = true;
      return open.length;
    },
    /** Ends all connections; new ones go to another server. */
    point(other) {
      target = new URL(other);
      return proxy.cut();
    },
    /**
     * From now on all connections that there are lose what goes one way, `commands` or `answers`,
     * and nobody is told; new ones are well. Gives how many they are.
     */
    swallow(way) {
      for (const pair of pairs) pair.loses = way;
      return pairs.size;
    },
    /** Lets through what waits, and what comes. */
    resume() {
      stalled = false;
      answers = true;
      for (const pair of pairs) pair.pump();
    },
    async stop() {
      proxy.cut();
      await new Promise((done) => listener.close(done));
    },
  };

  /** Messages of one client, as far as they may pass. */
  const pump = (pair) => {
    while (!stalled && !pair.client.destroyed) {
      const message = pair.next(pair.waiting);
      if (!message) return;
      const bytes = pair.waiting.subarray(0, message.length);
      const verdict = watch?.({ type: message.type, bytes, from: pair.client });
      const [action, when] = verdict?.split(' ') ?? [];
      if (when === 'before') {
        if (action === 'cut') proxy.cut();
        else [stalled, answers] = [true, false];
        return;
      }
      pair.waiting = pair.waiting.subarray(message.length);
      proxy.passed += 1;
      if (when === 'after') {
        [stalled, answers] = [true, false];
        pair.server.write(bytes);
        // The server has had it once it has answered; a message that is not answered by itself has
        // nothing to be waited for.
        if (action === 'cut') pair.onAnswer(() => proxy.cut());
        return;
      }
      pair.server.write(bytes);
    }
  };

  const listener = createServer((client) => {
    const server = connect({ host: target.hostname, port: Number(target.port) });
    const pair = { client, server, waiting: Buffer.alloc(0), next: CUTTERS[kind](), held: [], answered: undefined };
    pair.onAnswer = (then) => {
      const timer = setTimeout(then, 50);
      pair.answered = () => {
        clearTimeout(timer);
        then();
      };
    };
    pair.pump = () => {
      if (answers) for (const data of pair.held.splice(0)) client.write(data);
      pump(pair);
    };
    pairs.add(pair);
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on('error', () => {}); // told by `close`
      socket.once('close', () => {
        pairs.delete(pair);
        client.destroy();
        server.destroy();
      });
    }
    client.on('data', (data) => {
      if (pair.loses === 'commands') return;
      pair.waiting = pair.waiting.length ? Buffer.concat([pair.waiting, data]) : data;
      pump(pair);
    });
    server.on('data', (data) => {
      if (pair.loses === 'answers') return;
      if (answers) client.write(data);
      else {
        pair.held.push(data);
        pair.answered?.();
      }
    });
  });
  await new Promise((done, fail) => {
    listener.once('error', fail);
    listener.listen(port, '127.0.0.1', done);
  });
  return proxy;
}
