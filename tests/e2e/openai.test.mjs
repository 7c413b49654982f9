// An answer from a server that speaks Chat Completions, through a node, to a stock client: whole,
// failing, falling silent, and stopped.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { after } from 'node:test';
import { assertError, eventually, ok, open, sessionId, suite, token } from './harness.mjs';

const asked = [];
let closed = 0;
const upstream = createServer(async (request, response) => {
  let body = '';
  for await (const piece of request) body += piece;
  const { messages, ...rest } = JSON.parse(body);
  asked.push({ path: request.url, key: request.headers.authorization, messages, ...rest });
  response.on('close', () => { closed += 1; });
  const prompt = messages.at(-1).content;
  if (prompt === 'fail') return response.writeHead(500).end('secret body');
  if (prompt === 'busy') return response.writeHead(429, { 'retry-after': '7' }).end('{}');
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const send = (data) => response.write(`data: ${JSON.stringify(data)}\n\n`);
  for (const content of ['Grüße, ', '世界', ' 😀']) send({ choices: [{ index: 0, delta: { content } }] });
  if (prompt === 'silent' || prompt === 'stop') return;
  send({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] });
  send({ choices: [], usage: { prompt_tokens: 11, completion_tokens: 5, total_tokens: 16 } });
  response.end('data: [DONE]\n\n');
});
upstream.listen(0, '127.0.0.1');
await once(upstream, 'listening');
after(() => { upstream.closeAllConnections(); upstream.close(); });

const env = {
  AGENTS_FILE: '',
  OPENAI_BASE_URL: `http://127.0.0.1:${upstream.address().port}/v1`,
  OPENAI_API_KEY: 'sk-test-key',
  OPENAI_MODEL: 'test-model',
  STREAM_TIMEOUT: '2s',
};

suite('a Chat Completions server', { nodes: 2, env }, (e2e) => {
  const ask = async (cluster, prompt, id = sessionId('openai')) => {
    const asking = await open(cluster.nodes[0].url, { token: token() });
    const reading = await open(cluster.nodes[1].url, { token: token() });
    await ok(reading.socket, 'session:join', { sessionId: id });
    const ids = await ok(asking.socket, 'stream:request', { sessionId: id, prompt });
    return { id, asking, reading, ...ids };
  };

  e2e('answers, with what was said before as context', {}, async (cluster) => {
    const first = await ask(cluster, 'hello');
    const end = await first.reading.heard.finished(first.streamId);
    assert.equal(end.name, 'stream:complete');
    assert.equal(end.payload.message.content, 'Grüße, 世界 😀');
    assert.deepEqual(end.payload.usage, { inputTokens: 11, outputTokens: 5 });
    assert.equal(end.payload.stopReason, 'end_turn');
    first.reading.heard.follow(first.streamId);
    const second = await ask(cluster, 'and again', first.id);
    await second.reading.heard.finished(second.streamId);
    const { path, key, model, stream, messages } = asked.at(-1);
    assert.deepEqual([path, key, model, stream], ['/v1/chat/completions', 'Bearer sk-test-key', 'test-model', true]);
    assert.deepEqual(messages, [
      { role: 'user', content: 'hello' },
      { role: 'assistant', content: 'Grüße, 世界 😀' },
      { role: 'user', content: 'and again' },
    ]);
  });

  for (const [prompt, code] of [['fail', 'PROVIDER_ERROR'], ['busy', 'OVERLOADED'], ['silent', 'TIMEOUT']]) {
    e2e(`${prompt}: ${code}`, {}, async (cluster) => {
      const { reading, streamId, messageId } = await ask(cluster, prompt);
      const end = await reading.heard.finished(streamId);
      assert.equal(end.name, 'stream:error');
      assertError(end.payload.error, code);
      assert.doesNotMatch(JSON.stringify(end.payload), /secret|sk-test/);
      if (code === 'OVERLOADED') assert.equal(end.payload.error.retryAfterMs, 7000);
      const stored = await cluster.database.query(`SELECT content || (metadata->>'error') FROM message WHERE id = '${messageId}'`);
      assert.equal(stored, `${prompt === 'silent' ? 'Grüße, 世界 😀' : ''}${code}`);
    });
  }

  e2e('is let go of when the answer is stopped', {}, async (cluster) => {
    const { reading, streamId } = await ask(cluster, 'stop');
    await reading.heard.next('stream:chunk');
    const before = closed;
    await ok(reading.socket, 'stream:stop', { streamId });
    const end = await reading.heard.finished(streamId);
    assert.deepEqual([end.name, end.payload.content], ['stream:stopped', 'Grüße, 世界 😀']);
    await eventually(() => closed > before, { what: 'the upstream connection is closed' });
  });
});
