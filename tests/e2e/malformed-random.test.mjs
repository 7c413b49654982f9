// What a stock client sends, with bytes flipped, cut out, said twice or swapped: recorded between
// stock clients and a node, mutated, and played to the node again.

import assert from 'node:assert/strict';
import { connect as connectTcp, createServer } from 'node:net';
import { openPolling, witness } from './harness/malformed.mjs';
import { Raw } from './harness/raw.mjs';
import { client, close, connected, freePort, ok, random, record, sessionId, suite, token } from './harness.mjs';

const CASES = Number(process.env.CASES ?? 300);
/** As many connections at a time. */
const AT_ONCE = 10;

/** A way to the node that keeps what clients said, each connection's by itself. */
async function listener(node) {
  const port = await freePort();
  const said = [];
  const server = createServer((from) => {
    const parts = [];
    said.push(parts);
    const to = connectTcp({ host: '127.0.0.1', port: Number(new URL(node.url).port) });
    from.on('data', (data) => {
      parts.push(data);
      to.write(data);
    });
    to.on('data', (data) => from.write(data));
    for (const [one, other] of [[from, to], [to, from]]) {
      one.on('close', () => other.destroy());
      one.on('error', () => {});
    }
  });
  await new Promise((done) => server.listen(port, '127.0.0.1', done));
  return { url: `http://127.0.0.1:${port}`, said, stop: () => server.close() };
}

/** A whole visit of a stock client: joins, sends, asks, leaves. What it said on each of its connections, in parts. */
async function visit(node, transports) {
  const way = await listener(node);
  const socket = client(way.url, { token: token({ sub: 'mallory' }), transports });
  const heard = record(socket);
  await connected(socket);
  const id = sessionId('recorded');
  await ok(socket, 'session:join', { sessionId: id });
  await ok(socket, 'message:send', { sessionId: id, content: 'Hello, Wörld 👋' });
  const { streamId } = await ok(socket, 'stream:request', { sessionId: id, prompt: 'Well?', agentId: 'instant' });
  await heard.finished(streamId);
  await ok(socket, 'session:leave', { sessionId: id });
  close(socket);
  way.stop();
  return way.said.filter((parts) => parts.length > 0);
}

const mutations = {
  flip(bytes, choice) {
    const mutated = Buffer.from(bytes);
    for (let n = 1 + choice.below(8); n > 0; n -= 1) mutated[choice.below(mutated.length)] ^= 1 << choice.below(8);
    return mutated;
  },
  cut(bytes, choice) {
    const at = choice.below(bytes.length);
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + choice.below(40))]);
  },
  end: (bytes, choice) => bytes.subarray(0, 1 + choice.below(bytes.length)),
  again(bytes, choice) {
    const at = choice.below(bytes.length);
    const length = 1 + choice.below(400);
    return Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)]);
  },
  swap(bytes, choice) {
    const [a, b, c] = [0, 0, 0].map(() => choice.below(bytes.length)).sort((x, y) => x - y);
    return Buffer.concat([bytes.subarray(0, a), bytes.subarray(b, c), bytes.subarray(a, b), bytes.subarray(c)]);
  },
  insert(bytes, choice) {
    const at = choice.below(bytes.length);
    const foreign = Buffer.from(Array.from({ length: 1 + choice.below(30) }, () => choice.below(256)));
    return Buffer.concat([bytes.subarray(0, at), foreign, bytes.subarray(at)]);
  },
};

/**
 * What is said before the place in /chat, as it was, and the rest, mutated; or all of it mutated. A polling session of
 * the recording does not exist any more: the bytes go to one that does.
 */
async function mutated(node, parts, choice) {
  const done = [];
  const mutate = (bytes) => {
    for (let times = 1 + choice.below(3); times > 0 && bytes.length > 0; times -= 1) {
      done.push(choice.pick(Object.keys(mutations)));
      bytes = mutations[done.at(-1)](bytes, choice);
    }
    return bytes;
  };
  const late = choice.below(2) === 1;
  let bytes = Buffer.concat(parts);
  const old = /[?&]sid=([\w-]+)/.exec(bytes.toString('latin1'))?.[1];
  if (old !== undefined) {
    const sid = await openPolling(node.url, token({ sub: 'mallory' }), late);
    bytes = Buffer.from(bytes.toString('latin1').replaceAll(old, sid), 'latin1');
  } else if (late && parts.length > 2) {
    return { first: parts.slice(0, 2), bytes: mutate(Buffer.concat(parts.slice(2))), done };
  }
  return { first: [], bytes: mutate(bytes), done };
}

/** Says the bytes in a few parts, waits a little for what is said to it, and hangs up. */
async function say(node, { first, bytes }, choice) {
  const raw = new Raw(node.url);
  try {
    for (const [n, part] of first.entries()) {
      raw.write(part);
      await raw.until(() => raw.said(['0{', '40/chat,{'][n]), 'a place in /chat');
    }
    let from = 0;
    for (let n = choice.below(3); n > 0; n -= 1) {
      const to = from + choice.below(bytes.length - from + 1);
      raw.write(bytes.subarray(from, to));
      await new Promise((done) => setImmediate(done));
      from = to;
    }
    raw.write(bytes.subarray(from));
    // hyper drops a request whose sender has hung up: a moment for an answer, which need not come.
    await raw.until(() => raw.statuses.length > 0, 'an answer', 300).catch(() => {});
    raw.tcp.end();
    await raw.until(() => false, 'the end of the connection', 20_000);
    for (const { status, body } of raw.responses) assert.ok(status < 500, `${status} ${body}`);
  } finally {
    raw.end();
  }
}

const env = { PING_INTERVAL: '4s', PING_TIMEOUT: '4s', HEADERS_TIMEOUT: '5s', BODY_TIMEOUT: '5s' };

suite('random garbage', { nodes: 1, database: 'sqlite', redis: false, env }, (e2e) => {
  for (const transport of ['websocket', 'polling']) {
    e2e(`what a client says by ${transport}, mutated`, { timeout: 60_000 + CASES * 500 }, async (cluster) => {
      const [node] = cluster.nodes;
      const choice = random(Number(process.env.SEED ?? 20_261_122));
      const recorded = await visit(node, [transport]);
      const honest = await witness(node);
      for (let n = 0; n < CASES / 2; n += AT_ONCE) {
        const batch = await Promise.all(Array.from({ length: AT_ONCE }, () => mutated(node, choice.pick(recorded), choice)));
        const what = (error) => {
          error.message += `\nin the batch from ${n} on: ${JSON.stringify(batch.map(({ bytes, done }) => [done.join(' '), bytes.toString('latin1')]))}`;
          throw error;
        };
        await Promise.all(batch.map((one) => say(node, one, choice))).catch(what);
        await honest.well().catch(what);
      }
      await honest.flat();
    });
  }
});
