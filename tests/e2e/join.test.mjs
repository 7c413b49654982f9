// A thousand answers, and readers that come at random moments on random nodes: whoever comes
// whenever ends with the very text that is stored. SEED=… repeats a run's choices; ANSWERS=… makes
// it shorter or longer.

import assert from 'node:assert/strict';
import { client, close, connected, each, eventually, follow, lasting, ok, open, random, record, sessionId, suite, token } from './harness.mjs';

const ANSWERS = Number(process.env.ANSWERS ?? 1_000);
const AT_ONCE = 32;
const READERS = 3; // that come later than the one who asks
const SOCKETS_PER_NODE = 8;

const AGENTS = {
  steady: { tokensPerSecond: 100, tokens: 40 },
  quick: { tokensPerSecond: 250, tokens: 60 },
  rush: { tokensPerSecond: 1_000, tokens: 50 },
  instant: { tokensPerSecond: 0, tokens: 30 },
};
/** About how long an answer takes, in ms. */
const LENGTH = Object.fromEntries(
  Object.entries(AGENTS).map(([id, { tokensPerSecond, tokens }]) => [id, tokensPerSecond ? (1_000 * tokens) / tokensPerSecond : 10]),
);

suite('join', { nodes: 3, agents: AGENTS }, (e2e) => {
  e2e(`${ANSWERS} answers, joined at random moments`, { timeout: 180_000 }, async (cluster) => {
    const choice = random();
    // Sockets that stay, and join and leave one session after the other.
    const pool = [];
    for (const node of cluster.nodes) {
      for (let n = 0; n < SOCKETS_PER_NODE; n += 1) pool.push(await open(node.url, { token: token() }));
    }
    // All choices are made beforehand, so that they do not depend on what overtakes what.
    const plans = Array.from({ length: ANSWERS }, () => {
      const agentId = choice.pick(Object.keys(AGENTS));
      const members = new Set();
      while (members.size < READERS + 1) members.add(choice.pick(pool));
      const [asker, ...readers] = members;
      return {
        agentId,
        asker,
        readers: readers.map((reader) => ({
          reader,
          after: choice.next() * LENGTH[agentId] * 1.3,
          // Some come by a connection of their own.
          fresh: choice.next() < 0.1 ? choice.pick(cluster.nodes) : undefined,
        })),
      };
    });

    const count = { streamed: 0, stored: 0, midway: 0 };
    const started = performance.now();
    await each(plans, AT_ONCE, async ({ agentId, asker, readers }, index) => {
      const id = sessionId(`join-${index}`);
      const { streamId, messageId, promptMessageId } = await ok(asker.socket, 'stream:request', {
        sessionId: id, prompt: `Question ${index}`, agentId,
      });

      const later = readers.map(async ({ reader, after, fresh }) => {
        await lasting(after); // the random moment
        const { socket, heard } = fresh ? await open(fresh.url, { token: token() }) : reader;
        const reply = await ok(socket, 'session:join', { sessionId: id, lastMessageId: promptMessageId });
        const missed = await heard.next('messages:missed', (page) => page.sessionId === id);
        const stored = missed.messages.filter((message) => message.id === messageId);
        let text;
        if (stored.length > 0) {
          // It was over before the join: the store has it, and nothing of it is streamed too.
          assert.equal(stored.length, 1);
          assert.deepEqual(reply.activeStreams, [], `answer ${index} is stored, and active too`);
          text = stored[0].content;
          count.stored += 1;
        } else {
          const end = await heard.finished(streamId);
          assert.equal(end.name, 'stream:complete');
          text = end.payload.message.content;
          count.streamed += 1;
          const first = heard.events.find(({ name, payload }) => name === 'stream:chunk' && payload.streamId === streamId);
          if (first.payload.delta.length < text.length && reply.activeStreams[0]?.offset > 0) count.midway += 1;
        }
        return { socket, heard, text, stored: stored.length > 0, fresh };
      });

      // Awaited below; one that fails before that is not "unhandled".
      for (const reader of later) reader.catch(() => {});

      const end = await asker.heard.finished(streamId);
      assert.equal(end.name, 'stream:complete');
      const content = end.payload.message.content;
      assert.ok(content.length > 0);
      assert.equal(follow(asker.heard.events, streamId).text, content);
      await ok(asker.socket, 'session:leave', { sessionId: id });

      for (const { socket, heard, text, stored, fresh } of await Promise.all(later)) {
        assert.equal(text, content, `the text that a reader ends with, answer ${index}`);
        // Leaving is answered after all that came before it: what is doubled would be here by now.
        await ok(socket, 'session:leave', { sessionId: id });
        const seen = follow(heard.events, streamId);
        if (stored) assert.deepEqual([seen.chunks, seen.starts], [0, 0], 'stored and streamed: told twice');
        else assert.equal(seen.text, content);
        assert.ok(!heard.of('message:new').some((message) => message.id === messageId), 'the answer as message:new too');
        forget(heard, id);
        if (fresh) close(socket);
      }
      forget(asker.heard, id);
    });

    const seconds = ((performance.now() - started) / 1_000).toFixed(1);
    console.log(`${ANSWERS} answers in ${seconds} s; readers: ${count.streamed} by the stream (${count.midway} midway), ${count.stored} by the store`);
    assert.equal(count.streamed + count.stored, ANSWERS * READERS);
    // The test is of the seam: if hardly anybody came midway, it tested nothing.
    assert.ok(count.midway > (ANSWERS * READERS) / 10, `${count.midway} readers came midway`);

    const answers = await cluster.database.query(
      `SELECT count(*), count(DISTINCT session_id) FROM message WHERE role = 'assistant'`,
    );
    assert.equal(answers, `${ANSWERS}|${ANSWERS}`, 'one stored answer each');
  });
});

/** Keeps the pool's recordings short: `follow` reads all of one. */
function forget(heard, id) {
  const kept = heard.events.filter(({ payload }) => payload?.sessionId !== id);
  heard.events.splice(0, heard.events.length, ...kept);
}

/** Where text ends, in a recording. */
const upTo = (heard, streamId) => heard.of('stream:chunk').filter((chunk) => chunk.streamId === streamId).at(-1);
const end = (chunk) => (chunk ? chunk.offset + chunk.delta.length : 0);

/** A client, and how many bytes each packet has that brought it text. */
async function weighed(node) {
  const socket = client(node.url, { token: token() });
  const heard = record(socket);
  const bytes = [];
  await connected(socket);
  socket.io.engine.on('packet', ({ type, data }) => {
    // The packet's type, which is not in `data`, is one byte.
    if (type === 'message' && data.startsWith('2/chat,["stream:chunk"')) bytes.push(1 + Buffer.byteLength(data));
  });
  return { socket, heard, bytes };
}

const LONG = { tokens: 10_000, tokensPerSecond: 1_000 };
const LATE = 30;

// Nobody else reads on the third node, which forgets a session as soon as nobody does.
suite('late joins', { nodes: 3, each: [{}, {}, { TAIL_LINGER: '0s' }], agents: { assistant: LONG } }, (e2e) => {
  e2e(`${LATE} in an answer of ${LONG.tokens} tokens: one event each, hardly larger than the text`, { timeout: 60_000 }, async ({ nodes }) => {
    const id = sessionId('late');
    const [asker, reader] = [await weighed(nodes[0]), await weighed(nodes[1])];
    await ok(reader.socket, 'session:join', { sessionId: id });
    const { streamId } = await ok(asker.socket, 'stream:request', { sessionId: id, prompt: 'Everything' });
    await asker.heard.next('stream:chunk');
    const late = [];
    for (let n = 0; n < LATE; n += 1) {
      const one = await weighed(nodes[n % nodes.length]);
      // Spread over some 65,000 characters, the last ones before the end.
      await eventually(() => end(upTo(asker.heard, streamId)) > (n * 60_000) / LATE, { every: 2, what: 'the answer goes on' });
      const known = end(upTo(asker.heard, streamId));
      const { activeStreams } = await ok(one.socket, 'session:join', { sessionId: id });
      assert.deepEqual(activeStreams.map((stream) => stream.streamId), [streamId], 'it was over before the last one came');
      await eventually(() => end(upTo(one.heard, streamId)) >= known, { every: 2, what: 'the text so far' });
      const leaves = n % nodes.length === 2;
      if (leaves) await ok(one.socket, 'session:leave', { sessionId: id });
      late.push({ ...one, known, leaves });
    }
    const { name, payload: { message } } = await asker.heard.finished(streamId);
    assert.equal(name, 'stream:complete');
    let longest = 0;
    for (const { heard, bytes, known, leaves } of [...late, { ...reader, known: 0 }]) {
      if (!leaves) await heard.finished(streamId);
      const { text } = heard.follow(streamId);
      assert.equal(text, leaves ? message.content.slice(0, text.length) : message.content);
      const chunks = heard.of('stream:chunk');
      assert.equal(chunks.length, bytes.length);
      if (known === 0) continue;
      assert.equal(chunks.filter(({ offset }) => offset < known).length, 1, `chunks that brought ${known} characters`);
      const encoded = Buffer.byteLength(JSON.stringify(chunks[0].delta));
      assert.ok(bytes[0] <= 1.1 * encoded + 1_024, `${bytes[0]} bytes for ${encoded} of text`);
      longest = Math.max(longest, encoded);
    }
    assert.ok(longest > 50_000, `the longest catch-up had ${longest} bytes`);
  });
});
