// One answer, seen by two stock clients on different nodes: the events, their order and their
// fields, as the contract has them.

import assert from 'node:assert/strict';
import {
  ask, assertError, assertFields, follow, MESSAGE, ok, open, random, sessionId, suite, token,
} from './harness.mjs';

/** Alice's two devices on two nodes, both in one session. */
async function twoDevices(cluster) {
  const id = sessionId('stream');
  const [first, second] = await Promise.all([
    open(cluster.nodes[0].url, { token: token() }),
    open(cluster.nodes[1].url, { token: token() }),
  ]);
  for (const device of [first, second]) {
    const joined = await ok(device.socket, 'session:join', { sessionId: id });
    assert.equal(joined.session.id, id);
    assert.deepEqual(joined.online, ['alice']);
    assert.deepEqual(joined.activeStreams, []);
  }
  return { id, first, second };
}

/** An answer asked for by `device`: its ids. */
async function request(device, id, more = {}) {
  const reply = await ok(device.socket, 'stream:request', { sessionId: id, prompt: 'Tell me a story', ...more });
  for (const field of ['streamId', 'messageId', 'promptMessageId']) assert.equal(typeof reply[field], 'string', field);
  return reply;
}

suite('stream', { nodes: 2 }, (e2e) => {
  e2e('two devices on different nodes see one answer', {}, async (cluster) => {
    const { id, first, second } = await twoDevices(cluster);
    const { streamId, messageId, promptMessageId } = await request(first, id);

    const texts = [];
    for (const { heard } of [first, second]) {
      const end = await heard.finished(streamId);
      assert.equal(end.name, 'stream:complete');
      const seen = follow(heard.events, streamId);
      assert.equal(seen.starts, 1);
      assert.equal(seen.resets, 0);
      assert.ok(seen.chunks >= 5, `streamed in ${seen.chunks} chunks`);

      const order = heard.events
        .filter(({ name, payload }) => payload?.streamId === streamId || name === 'message:new')
        .map(({ name }) => name);
      const squeezed = order.filter((name, index) => name !== order[index - 1]);
      assert.deepEqual(squeezed, ['message:new', 'stream:start', 'stream:chunk', 'stream:complete']);

      const [prompt, ...others] = heard.of('message:new');
      assert.deepEqual(others, [], 'the answer comes in stream:complete only');
      assertFields(prompt, MESSAGE, 'message:new');
      assert.equal(prompt.id, promptMessageId);
      assert.equal(prompt.sessionId, id);
      assert.equal(prompt.role, 'user');
      assert.equal(prompt.userId, 'alice');
      assert.equal(prompt.content, 'Tell me a story');

      const [start] = heard.of('stream:start');
      assertFields(start, { streamId: 'string', sessionId: 'string', messageId: 'string', agentId: '?string' }, 'stream:start');
      assert.deepEqual([start.sessionId, start.messageId, start.agentId], [id, messageId, 'assistant']);

      const chunks = heard.of('stream:chunk');
      let tokens = 0;
      for (const chunk of chunks) {
        assertFields(chunk, {
          id: 'string', streamId: 'string', sessionId: 'string', messageId: 'string', seq: 'int', offset: 'int',
          delta: 'string', content: 'string', tokens: 'int', isComplete: 'boolean',
        }, 'stream:chunk');
        assert.deepEqual([chunk.id, chunk.sessionId, chunk.messageId], [streamId, id, messageId]);
        assert.ok(chunk.tokens >= tokens, 'the count of tokens never falls');
        tokens = chunk.tokens;
        if (!chunk.isComplete) {
          assert.equal(chunk.content, '');
          assert.notEqual(chunk.delta, '', 'a chunk brings text');
        }
      }
      assert.equal(chunks.filter((chunk) => chunk.isComplete).length, 1);
      assert.equal(chunks.at(-1).isComplete, true);

      const complete = end.payload;
      assertFields(complete, {
        streamId: 'string', sessionId: 'string', messageId: 'string', message: 'object', usage: 'object', stopReason: 'string',
      }, 'stream:complete');
      assertFields(complete.usage, { inputTokens: 'int', outputTokens: 'int' }, 'usage');
      assertFields(complete.message, MESSAGE, 'message');
      assert.deepEqual(
        [complete.sessionId, complete.messageId, complete.message.id, complete.message.role, complete.message.agentId],
        [id, messageId, messageId, 'assistant', 'assistant'],
      );
      texts.push(complete.message.content);
    }
    assert.ok(texts[0].length > 0);
    assert.equal(texts[0], texts[1]);
    assert.deepEqual(
      first.heard.of('stream:complete')[0].message,
      second.heard.of('stream:complete')[0].message,
      'both are shown the same message',
    );
  });

  e2e('the answer is stored as it was shown', {}, async (cluster) => {
    const { id, first, second } = await twoDevices(cluster);
    const { streamId, messageId, promptMessageId } = await request(first, id);
    const shown = (await first.heard.finished(streamId)).payload.message;
    // A device that comes later, and has the prompt, is given the answer from the store.
    const later = await open(cluster.nodes[1].url, { token: token() });
    const reply = await ok(later.socket, 'session:join', { sessionId: id, lastMessageId: promptMessageId });
    assert.equal(reply.missed, 1);
    assert.equal(reply.hasMore, false);
    const missed = await later.heard.next('messages:missed');
    assert.equal(missed.sessionId, id);
    assert.equal(missed.hasMore, false);
    assert.deepEqual(missed.messages.map((message) => message.id), [messageId]);
    assert.equal(missed.messages[0].content, shown.content);
    await second.heard.finished(streamId);
  });

  e2e('a stop from another node ends it for both, and keeps what there was', {}, async (cluster) => {
    const { id, first, second } = await twoDevices(cluster);
    const { streamId, messageId, promptMessageId } = await request(first, id, { agentId: 'slow' });
    await first.heard.next('stream:chunk', (chunk) => chunk.streamId === streamId && chunk.offset > 0);
    await ok(second.socket, 'stream:stop', { streamId });
    const contents = [];
    for (const { heard } of [first, second]) {
      const end = await heard.finished(streamId, 5_000);
      assert.equal(end.name, 'stream:stopped');
      assertFields(end.payload, {
        streamId: 'string', sessionId: 'string', messageId: 'string', stoppedBy: 'string', content: 'string',
      }, 'stream:stopped');
      assert.deepEqual([end.payload.sessionId, end.payload.messageId, end.payload.stoppedBy], [id, messageId, 'alice']);
      assert.equal(follow(heard.events, streamId).text, end.payload.content, 'the content is what was streamed');
      contents.push(end.payload.content);
    }
    assert.ok(contents[0].length > 0);
    assert.equal(contents[0], contents[1]);

    const later = await open(cluster.nodes[0].url, { token: token() });
    await ok(later.socket, 'session:join', { sessionId: id, lastMessageId: promptMessageId });
    const missed = await later.heard.next('messages:missed');
    assert.deepEqual(missed.messages.map(({ id: stored, content }) => [stored, content]), [[messageId, contents[0]]]);
  });

  e2e('stopping a stream that is over, is not there or is not one’s own', {}, async (cluster) => {
    const { id, first, second } = await twoDevices(cluster);
    const { streamId } = await request(first, id, { agentId: 'slow' });
    const mallory = await open(cluster.nodes[1].url, { token: token({ sub: 'mallory' }) });
    const refusal = await ask(mallory.socket, 'stream:stop', { streamId });
    assert.equal(refusal.ok, false);
    assertError(refusal.error, 'NOT_FOUND', 'stream:stop');
    const unknown = await ask(first.socket, 'stream:stop', { streamId: '01890000-0000-7000-8000-000000000000' });
    assert.equal(unknown.ok, false);
    assertError(unknown.error, 'NOT_FOUND', 'stream:stop');
    // Two devices stop at once: one end.
    await Promise.all([first, second].map(({ socket }) => ask(socket, 'stream:stop', { streamId })));
    for (const { heard } of [first, second]) {
      assert.equal((await heard.finished(streamId, 5_000)).name, 'stream:stopped');
      heard.follow(streamId);
    }
  });

  e2e('the same clientMessageId twice is one prompt and one answer', {}, async (cluster) => {
    const { id, first, second } = await twoDevices(cluster);
    const clientMessageId = sessionId('mine');
    const ids = await Promise.all([
      request(first, id, { clientMessageId }),
      request(second, id, { clientMessageId }),
      request(first, id, { clientMessageId }),
    ]);
    const { streamId, messageId, promptMessageId } = ids[0];
    for (const other of ids) {
      assert.deepEqual([other.streamId, other.messageId, other.promptMessageId], [streamId, messageId, promptMessageId]);
    }
    await Promise.all([first, second].map(({ heard }) => heard.finished(streamId)));
    const again = await request(second, id, { clientMessageId });
    assert.equal(again.streamId, streamId);
    // What comes after it in the session shows that nothing else was on its way.
    const next = await request(first, id, { prompt: 'And then?', agentId: 'instant' });
    for (const { heard } of [first, second]) {
      await heard.finished(next.streamId);
      heard.follow(streamId);
      assert.deepEqual(heard.of('stream:start').map((start) => start.streamId), [streamId, next.streamId]);
      assert.deepEqual(heard.of('message:new').map((message) => message.id), [promptMessageId, next.promptMessageId]);
    }
  });

  e2e('a device that joins mid-answer gets the text so far, then the rest', {}, async (cluster) => {
    const { id, first } = await twoDevices(cluster);
    const { streamId, messageId } = await request(first, id, { agentId: 'slow', config: { maxTokens: 80 } });
    await first.heard.next('stream:chunk', (chunk) => chunk.streamId === streamId && chunk.offset > 40);
    const late = await open(cluster.nodes[1].url, { token: token() });
    const reply = await ok(late.socket, 'session:join', { sessionId: id });
    assert.equal(reply.activeStreams.length, 1);
    const [active] = reply.activeStreams;
    assertFields(active, { streamId: 'string', messageId: 'string', agentId: 'string', offset: 'int' }, 'activeStreams[0]');
    assert.deepEqual([active.streamId, active.messageId, active.agentId], [streamId, messageId, 'slow']);
    const catchUp = await late.heard.next('stream:chunk');
    assert.equal(catchUp.offset, 0);
    assert.ok(catchUp.delta.length > 40, 'the text so far comes as one chunk');
    await late.heard.finished(streamId);
    assert.equal(late.heard.follow(streamId).message.content, (await first.heard.finished(streamId)).payload.message.content);
  });

  e2e('a device that has part of an answer is given what follows', {}, async (cluster) => {
    const { id, first, second } = await twoDevices(cluster);
    const { streamId } = await request(first, id, { agentId: 'slow', config: { maxTokens: 80 } });
    await second.heard.next('stream:chunk', (chunk) => chunk.streamId === streamId && chunk.offset > 0);
    await ok(second.socket, 'session:leave', { sessionId: id });
    // Whatever was on its way when it left is heard; from here on it hears nothing.
    const had = second.heard.of('stream:chunk').reduce((text, chunk) => text + chunk.delta, '');
    const count = second.heard.events.length;
    await first.heard.next('stream:chunk', (chunk) => chunk.streamId === streamId && chunk.offset > had.length + 20);
    assert.equal(second.heard.of('stream:chunk').length, second.heard.events.slice(0, count).filter((e) => e.name === 'stream:chunk').length);
    await ok(second.socket, 'session:join', { sessionId: id, streams: { [streamId]: had.length } });
    await second.heard.finished(streamId);
    const rest = follow(second.heard.events.slice(count), streamId, { from: had.length });
    assert.equal(had + rest.text, rest.message.content);
  });

  e2e('several answers at once in one session keep apart', {}, async (cluster) => {
    const { id, first, second } = await twoDevices(cluster);
    const choice = random();
    const requests = await Promise.all(
      Array.from({ length: 6 }, (_, n) =>
        request(choice.pick([first, second]), id, { prompt: `Question ${n}`, agentId: choice.pick(['assistant', 'quick', 'instant']) }),
      ),
    );
    for (const { streamId } of requests) {
      const ends = await Promise.all([first, second].map(({ heard }) => heard.finished(streamId)));
      assert.deepEqual(ends.map((end) => end.name), ['stream:complete', 'stream:complete']);
      assert.equal(ends[0].payload.message.content, ends[1].payload.message.content);
      for (const { heard } of [first, second]) assert.equal(heard.follow(streamId).starts, 1);
    }
  });
});
