// Readers that fall behind everything that a node keeps: they are not closed, and are brought on
// from the store, a page at a time, while the others go on.

import assert from 'node:assert/strict';
import { eventually, metrics, ok, open, sessionId, suite, token } from './harness.mjs';

const env = { LOG_EVENTS_MAX: '16', SOCKET_BUFFER_MAX: '16KiB', SOCKET_STALL_TIMEOUT: '60s' };
/** More than the kernel's buffers hold. */
const MESSAGES = 500;
const TEXT = 'x'.repeat(20_000);

/** The TCP connection under a stock client in Node. */
const tcp = ({ socket }) => socket.io.engine.transport.ws._socket;

/** How each dialect joins, and the messages that it has heard. */
const DIALECTS = {
  session: [['session:join', (id) => ({ sessionId: id })], (heard) => heard.of('message:new').map(({ id }) => id)],
  subscribe: [['subscribe', (id) => id], (heard) => heard.of('message:new').map(({ id }) => id)],
  conversation: [
    ['chat:join', (id) => ({ conversationId: id })],
    (heard) => heard.of('chat:message').map(({ message }) => message.id),
  ],
};

suite('far behind', { nodes: 2, env }, (e2e) => {
  e2e('who takes nothing for hundreds of messages gets all of them, in order, once', { timeout: 180_000 }, async (cluster) => {
    const id = sessionId('behind');
    const quick = await open(cluster.nodes[0].url, { token: token(), transports: ['websocket'] });
    await ok(quick.socket, 'session:join', { sessionId: id });
    const slow = [];
    for (const [dialect, [[event, payload], messages]] of Object.entries(DIALECTS)) {
      const reader = await open(cluster.nodes[1].url, { token: token(), transports: ['websocket'], query: { dialect } });
      await ok(reader.socket, event, payload(id));
      slow.push({ ...reader, dialect, messages, first: reader.socket.id });
    }
    for (const reader of slow) tcp(reader).pause();
    for (let sent = 0; sent < MESSAGES; sent += 10) {
      await Promise.all(Array.from({ length: 10 }, (_, n) =>
        ok(quick.socket, 'message:send', { sessionId: id, content: `${sent + n} ${TEXT}` })));
    }
    const all = () => quick.heard.of('message:new').map((message) => message.id);
    await eventually(() => all().length === MESSAGES, { within: 30_000, what: 'the quick one has all' });
    assert.equal((await metrics(cluster.nodes[1])).sum('socket_io_slow_sockets'), slow.length);
    for (const reader of slow) tcp(reader).resume();
    for (const { dialect, heard, messages, socket, first } of slow) {
      await eventually(() => messages(heard).length >= MESSAGES, { within: 90_000, what: `${dialect} has all` });
      assert.deepEqual(messages(heard), all(), `${dialect}: in order, once`);
      assert.equal(socket.id, first, 'it was not closed');
    }
    // They are live again, and two of them were told that they may lack changes.
    await ok(quick.socket, 'message:send', { sessionId: id, content: 'live' });
    for (const { dialect, heard, messages } of slow) {
      await eventually(() => messages(heard).length > MESSAGES, { what: `${dialect} is live` });
      assert.deepEqual(messages(heard), all(), dialect);
      const told = dialect === 'conversation' ? [] : [{ sessionId: id, messages: [], hasMore: true }];
      assert.deepEqual(heard.of('messages:missed'), told, dialect);
    }
  });
});
