// A reader whose connection takes nothing for a while: it keeps its place, the others go on, and
// when it takes bytes again it is given all it is owed, joined. One that takes nothing for longer
// is closed, and comes back by itself.

import assert from 'node:assert/strict';
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
