// A reader whose connection takes nothing for a while: it keeps its place, the others go on, and
// when it takes bytes again it is given all it is owed, joined. One that takes nothing for longer
// is closed, and comes back by itself.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { eventually, get, metrics, ok, open, sessionId, suite, token } from './harness.mjs';

// Every chunk carries the whole text, so that the kernel's buffers are full soon.
const env = { STREAM_CHUNK_CONTENT: 'cumulative', STREAM_DELAY: '1ms', STREAM_DELAY_MAX: '1ms' };
const agents = { assistant: { tokensPerSecond: 2000, tokens: 8000 } };

/** The TCP connection under a stock client in Node. */
const tcp = ({ socket }) => socket.io.engine.transport.ws._socket;

async function readers(cluster) {
  const id = sessionId('slow');
  const options = { transports: ['websocket'] };
  const quick = await open(cluster.nodes[0].url, { token: token(), ...options });
  const slow = await open(cluster.nodes[1].url, { token: token(), ...options });
  const beside = await open(cluster.nodes[1].url, { token: token(), ...options });
  for (const { socket } of [quick, slow, beside]) await ok(socket, 'session:join', { sessionId: id });
  return { id, quick, slow, beside };
}

/** What a reader put together, whatever `content` its chunks carry. */
function assembled({ heard }, streamId) {
  let text = '';
  for (const chunk of heard.of('stream:chunk').filter((one) => one.streamId === streamId)) {
    assert.equal(chunk.offset, text.length, 'a gap or an overlap');
    text += chunk.delta;
  }
  return text;
}

suite('slow readers', { nodes: 2, env, agents }, (e2e) => {
  e2e('one that takes nothing for a while gets all it is owed, joined', { timeout: 90_000 }, async (cluster) => {
    const { id, quick, slow, beside } = await readers(cluster);
    const { streamId } = await ok(quick.socket, 'stream:request', { sessionId: id, prompt: 'Much' });
    await slow.heard.next('stream:chunk');
    tcp(slow).pause();
    await eventually(async () => (await metrics(cluster.nodes[1])).sum('socket_io_slow_sockets') === 1, {
      within: 30_000, what: 'the node sees that it is slow',
    });
    for (const reader of [quick, beside]) {
      const end = await reader.heard.finished(streamId, 60_000);
      assert.equal(end.name, 'stream:complete');
      assert.equal(assembled(reader, streamId), end.payload.message.content, 'the others have gone on');
    }
    tcp(slow).resume();
    const end = await slow.heard.finished(streamId, 60_000);
    assert.equal(assembled(slow, streamId), end.payload.message.content);
    const [many, few] = [beside, slow].map(({ heard }) => heard.of('stream:chunk').length);
    assert.ok(few < many, `${few} chunks for the slow one, ${many} for the one beside it`);
    await eventually(async () => (await metrics(cluster.nodes[1])).sum('socket_io_slow_sockets') === 0);
    assert.ok((await metrics(cluster.nodes[1])).sum('socket_io_coalesced_chunks_total') > 0);
  });
});

/** A catch-up larger than the buffer, behind something small: it waited for room that it had. */
suite('catch-ups beyond the buffer', { nodes: 1, env: { SOCKET_BUFFER_MAX: '4KiB', TOKIO_WORKER_THREADS: '2' }, agents }, (e2e) => {
  e2e('are taken, and hold nobody up', { timeout: 60_000 }, async (cluster) => {
    const id = sessionId('large');
    const asking = await open(cluster.url, { token: token() });
    const { streamId, promptMessageId } = await ok(asking.socket, 'stream:request', { sessionId: id, prompt: 'Much' });
    await asking.heard.next('stream:chunk', ({ offset }) => offset > 10_000);
    const joining = await Promise.all(Array.from({ length: 8 }, () => open(cluster.url, { token: token() })));
    for (const { socket } of joining) {
      await ok(socket, 'session:join', { sessionId: id, lastMessageId: promptMessageId });
    }
    assert.equal((await get(`${cluster.url}/livez`)).status, 200);
    for (const reader of joining) {
      const end = await reader.heard.finished(streamId, 45_000);
      assert.equal(assembled(reader, streamId), end.payload.message.content);
    }
  });
});

suite('stalled peers', { nodes: 2, env: { ...env, SOCKET_STALL_TIMEOUT: '1s' }, agents }, (e2e) => {
  e2e('one that takes nothing for too long is closed, and comes back by itself', { timeout: 90_000 }, async (cluster) => {
    const { id, quick, slow } = await readers(cluster);
    const { streamId } = await ok(quick.socket, 'stream:request', { sessionId: id, prompt: 'Much' });
    await slow.heard.next('stream:chunk');
    const first = slow.socket.id;
    const gone = async () => (await metrics(cluster.nodes[1])).sum('socket_io_connected') === 1;
    tcp(slow).pause();
    await eventually(gone, { within: 30_000, what: 'the stalled one is closed' });
    tcp(slow).resume();
    await eventually(() => slow.socket.connected && slow.socket.id !== first, { within: 20_000, what: 'it is back' });
    assert.equal((await quick.heard.finished(streamId, 60_000)).name, 'stream:complete');
  });
});

const READERS = 30;
const SLOW = 6;
const MESSAGES = 300;
/** What one slow reader may cost its node. */
const EACH = 256 * 1024;
/** What the nodes' memory moves by itself; one answer queued for one reader is nearly as much. */
const ROUGHLY = 4 * 1024 * 1024;

/** Reads `perSecond` bytes until told to read on. */
function slowly(reader, perSecond) {
  const socket = tcp(reader);
  socket.pause();
  const reading = setInterval(() => socket.read(perSecond / 4) ?? socket.read(0), 250);
  return () => {
    clearInterval(reading);
    socket.resume();
  };
}

const sum = async (nodes, name) => {
  const all = await Promise.all(nodes.map((node) => metrics(node)));
  return all.reduce((total, one) => total + one.sum(name), 0);
};

/** Memory of the nodes that is in use, in bytes. */
const resident = (nodes) =>
  nodes.reduce((total, { pid }) => total + 1024 * Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]), 0);

suite('slow readers in a room', {
  nodes: 3,
  env: { STREAM_CHUNK_CONTENT: 'cumulative', STREAM_DELAY: '1ms', STREAM_DELAY_MAX: '1ms' },
  agents: { assistant: { tokensPerSecond: 200, tokens: 1_200 } },
}, (e2e) => {
  e2e(`${SLOW} of ${READERS} at 2 KB/s: nobody loses anything, and they cost little memory`, { timeout: 120_000 }, async ({ nodes }) => {
    const id = sessionId('room');
    const come = async (count, isSlow) => {
      const readers = [];
      for (let n = 0; n < count; n += 1) {
        const reader = await open(nodes[n % nodes.length].url, { token: token(), transports: ['websocket'] });
        await ok(reader.socket, 'session:join', { sessionId: id });
        readers.push({ ...reader, id: reader.socket.id, isSlow });
      }
      return readers;
    };
    const others = await come(READERS - SLOW, false);
    const [asker] = others;
    /** An answer with messages beside it. Gives it once those that are not slow have its end. */
    const conversation = async (name) => {
      const { streamId } = await ok(asker.socket, 'stream:request', { sessionId: id, prompt: name });
      for (let n = 0; n < MESSAGES; n += 1) {
        await ok(asker.socket, 'message:send', { sessionId: id, content: `${name} ${n}`, clientMessageId: `${name}-${n}` });
      }
      for (const { heard } of others) await heard.finished(streamId, 60_000);
      return streamId;
    };
    // Once without them, so that everything is there that stays. They come later since the kernel
    // gives a connection room by what was read from it before.
    const first = await conversation('first');
    const slow = await come(SLOW, true);
    const before = resident(nodes);

    const readOn = slow.map((reader) => slowly(reader, 2_048));
    const second = await conversation('second');
    const behind = await sum(nodes, 'socket_io_slow_sockets');
    const more = resident(nodes) - before;
    console.log(`${SLOW} slow readers: ${(more / 1024).toFixed(0)} KiB more on the nodes`);
    assert.ok(more <= SLOW * EACH + ROUGHLY, `${more} bytes more for ${SLOW} slow readers`);
    assert.equal(behind, SLOW, 'those that are slow are behind, and no others');
    for (const resume of readOn) resume();

    for (const reader of [...others, ...slow]) {
      const what = reader.isSlow ? 'a slow reader' : 'a reader';
      const heard = { first, second };
      if (reader.isSlow) delete heard.first;
      for (const streamId of Object.values(heard)) {
        const { name, payload } = await reader.heard.finished(streamId, 60_000);
        assert.equal(name, 'stream:complete');
        assert.equal(assembled(reader, streamId), payload.message.content, `${what}'s text`);
      }
      const sent = Object.keys(heard).flatMap((name) => Array.from({ length: MESSAGES }, (_, n) => `${name}-${n}`));
      const had = reader.heard.of('message:new').map((message) => message.clientMessageId).filter(Boolean);
      assert.deepEqual(had, sent, `${what}'s messages`);
      assert.equal(reader.socket.id, reader.id, `${what} was closed`);
    }
    const count = ({ heard }) => heard.of('stream:chunk').filter(({ streamId }) => streamId === second).length;
    const fewest = Math.min(...others.map(count));
    for (const reader of slow) {
      assert.ok(count(reader) < fewest, `${count(reader)} chunks for a slow reader, ${fewest} and more for the others`);
    }
    await eventually(async () => (await sum(nodes, 'socket_io_slow_sockets')) === 0);
  });
});
