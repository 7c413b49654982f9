// The providers' recorded streams, cut anywhere, as the official SDKs read them and as a node does:
// both make of them what stands beside each recording, so the upstream of these suites speaks the
// real protocols, and a node reads them as their makers do.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, describe, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { startUpstream } from './harness/upstream.mjs';
import { eventually, ok, open, random, sessionId, suite, token } from './harness.mjs';

const FIXTURES = new URL('../fixtures/llm/', import.meta.url);
const PROVIDERS = ['anthropic', 'openai', 'openai-responses'];
const recordings = PROVIDERS.flatMap((provider) =>
  readdirSync(new URL(`${provider}/`, FIXTURES))
    .filter((file) => file.endsWith('.sse'))
    .map((file) => {
      const name = file.slice(0, -'.sse'.length);
      const read = (kind) => readFileSync(new URL(`${provider}/${name}.${kind}`, FIXTURES));
      return { provider, name, bytes: read('sse'), expected: { tools: [], citations: [], thinking: '', ...JSON.parse(read('json')) } };
    }),
);

const dice = random();

/** `bytes` in pieces: each byte by itself, all at once, or cut at random. */
function* pieces(bytes) {
  const most = dice.pick([1, 7, 40, 200, bytes.length]);
  for (let start = 0; start < bytes.length;) {
    const end = start + 1 + dice.below(most);
    yield bytes.subarray(start, end);
    start = end;
  }
}

const upstream = await startUpstream();
after(() => upstream.stop());
upstream.on('*', async (ask) => {
  const { bytes } = recordings.find(({ provider, name }) => provider === ask.protocol && name === ask.model);
  for (const piece of pieces(bytes)) {
    ask.write(piece);
    await new Promise((done) => setImmediate(done)); // a write of its own each
  }
  ask.finish();
});

// ── As the SDKs read them ──────────────────────────────────────────────────────────────────────

const openai = new OpenAI({ baseURL: upstream.base('openai'), apiKey: 'sk-test', maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: upstream.base('anthropic'), apiKey: 'sk-ant-test', maxRetries: 0 });
const user = [{ role: 'user', content: 'Hi' }];
const joined = (texts) => texts.filter(Boolean).join('');

/** What each SDK makes of an answer, in the words of the expectations. It rejects where the SDK does. */
const SDKS = {
  anthropic: async (model) => {
    const message = await anthropic.messages.stream({ model, max_tokens: 100, messages: user }).finalMessage();
    const of = (...types) => message.content.filter(({ type }) => types.includes(type));
    const { input_tokens: fresh, cache_creation_input_tokens: made, cache_read_input_tokens: cached, output_tokens: outputTokens } = message.usage;
    return {
      text: joined(of('text').map(({ text }) => text)),
      thinking: joined(of('thinking').map(({ thinking }) => thinking)),
      tools: of('tool_use', 'server_tool_use').map(({ id, name, input }) => ({ id, name, input })),
      citations: of('text').flatMap(({ citations }) => citations ?? [])
        .map(({ title, document_title: document, cited_text: words, url }) => ({ title: title ?? document ?? words, ...(url ? { url } : {}) })),
      usage: { inputTokens: fresh + (made ?? 0) + (cached ?? 0), outputTokens, cachedTokens: cached ?? 0 },
      end: message.stop_reason,
    };
  },
  openai: async (model) => {
    const chunks = await openai.chat.completions.create({ model, messages: user, stream: true, stream_options: { include_usage: true } });
    const read = { text: '', thinking: '', tools: [], usage: undefined, end: undefined };
    for await (const { choices, usage } of chunks) {
      if (usage) {
        const { prompt_tokens: inputTokens, completion_tokens: outputTokens, prompt_tokens_details: details } = usage;
        read.usage = { inputTokens, outputTokens, cachedTokens: details?.cached_tokens ?? 0 };
      }
      const [choice] = choices ?? [];
      const { content, refusal, reasoning, reasoning_content: thoughts, tool_calls: calls = [] } = choice?.delta ?? {};
      read.text += joined([content, refusal]);
      read.thinking += joined([reasoning ?? thoughts]);
      for (const { id, function: { name, arguments: json = '' }, index } of calls ?? []) {
        if (id) read.tools.push({ id, name, input: json, index });
        else read.tools.findLast((call) => call.index === index).input += json;
      }
      const reason = choice?.finish_reason;
      if (reason) read.end = { stop: 'end_turn', length: 'max_tokens' }[reason] ?? reason;
    }
    if (!read.end) throw new Error('no finish_reason');
    return { ...read, tools: read.tools.map(({ id, name, input }) => ({ id, name, input })) };
  },
  'openai-responses': async (model) => {
    const read = { text: '', tools: [], citations: [], usage: undefined, end: undefined };
    for await (const event of await openai.responses.create({ model, input: user, stream: true })) {
      if (['response.output_text.delta', 'response.refusal.delta'].includes(event.type)) read.text += event.delta;
      if (event.type === 'response.output_item.done') {
        const { type, call_id: id, name, arguments: json, input, content = [] } = event.item;
        if (/^(function|custom_tool)_call$/.test(type)) read.tools.push({ id, name, input: json ?? input });
        for (const { title, filename, url } of content.flatMap(({ annotations }) => annotations ?? [])) {
          read.citations.push({ title: title ?? filename, ...(url ? { url } : {}) });
        }
      }
      if (['response.completed', 'response.incomplete'].includes(event.type)) {
        const { status, usage, incomplete_details: details } = event.response;
        const { input_tokens: inputTokens, output_tokens: outputTokens, input_tokens_details: { cached_tokens: cachedTokens } } = usage;
        read.usage = { inputTokens, outputTokens, cachedTokens };
        read.end = status === 'completed' ? 'end_turn' : details.reason.replace('max_output', 'max');
      }
    }
    if (!read.end) throw new Error('it broke off');
    return read;
  },
};

/** What their makers never send, and their SDKs break on: chatter of other servers. */
const STRANGE = ['openai/chatter', 'openai-responses/unknown'];

/** A recording's expectation of one thing; a tool's input as JSON, however it is written. */
const meaning = ({ expected }, key) => (key === 'tools' ? asJson(expected.tools) : expected[key]);
const asJson = (tools) => tools.map((tool) => ({ ...tool, input: typeof tool.input === 'string' ? parsed(tool.input) : tool.input }));
const parsed = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
};

describe('the official SDKs', () => {
  for (const recording of recordings) {
    const { provider, name, expected } = recording;
    if (STRANGE.includes(`${provider}/${name}`)) continue;
    test(`${provider}: ${name}`, { timeout: 30_000 }, async () => {
      if (expected.end.error) return assert.rejects(SDKS[provider](name));
      const read = await SDKS[provider](name);
      if (read.tools) read.tools = asJson(read.tools);
      assert.deepEqual(read, Object.fromEntries(Object.keys(read).map((key) => [key, meaning(recording, key)])));
    });
  }
});

// ── As a node reads them ───────────────────────────────────────────────────────────────────────

/** What clients are told, by the word of an expectation; anything else is PROVIDER_ERROR. */
const CODES = { overloaded: 'OVERLOADED' };

const agents = Object.fromEntries(PROVIDERS.map((provider) => [provider, upstream.agent('answer', { provider })]));

suite('a node', { database: 'sqlite', redis: false, agents, env: upstream.env }, (e2e) => {
  for (const recording of recordings) {
    const { provider, name, expected } = recording;
    e2e(`${provider}: ${name}`, {}, async ({ nodes: [node] }) => {
      const { socket, heard } = await open(node.url, { token: token() });
      const id = sessionId(name);
      const { streamId, messageId } = await ok(socket, 'stream:request', { sessionId: id, prompt: 'Hi', agentId: provider, config: { model: name } });
      const end = await heard.finished(streamId);
      assert.equal(heard.follow(streamId).text, expected.text);

      const beside = heard.of('stream:event');
      for (const event of beside) assert.deepEqual([event.streamId, event.sessionId, event.messageId], [streamId, id, messageId]);
      const of = (kind) => beside.filter((event) => event.kind === kind);
      // What did not come to an end may be told or not.
      if (!expected.end.error) {
        assert.equal(joined(of('thinking').map(({ text }) => text)), expected.thinking);
        assert.deepEqual(asJson(of('tool').map(({ toolCallId, name: tool, input }) => ({ id: toolCallId, name: tool, input }))), meaning(recording, 'tools'));
        assert.deepEqual(of('citation').map(({ title, url }) => ({ title, ...(url ? { url } : {}) })), expected.citations);
      }

      if (expected.end.error) {
        assert.equal(end.name, 'stream:error');
        assert.equal(end.payload.error.code, CODES[expected.end.error] ?? 'PROVIDER_ERROR');
        assert.doesNotMatch(JSON.stringify(heard.events), /hunter2/, 'no upstream body leaks');
      } else {
        assert.equal(end.name, 'stream:complete', JSON.stringify(end.payload));
        assert.equal(end.payload.stopReason, expected.end);
        const { inputTokens, outputTokens } = end.payload.usage;
        const { usage } = expected; // without it the node counts what it wrote
        if (usage) assert.deepEqual([inputTokens, outputTokens], [usage.inputTokens, usage.outputTokens]);
      }
      const again = await open(node.url, { token: token() });
      await eventually(async () => {
        const { promptMessageId } = heard.of('message:new').length ? { promptMessageId: heard.of('message:new')[0].id } : {};
        await ok(again.socket, 'session:join', { sessionId: id, lastMessageId: promptMessageId });
        return again.heard.of('messages:missed').some(({ messages }) => messages.some((message) => message.id === messageId && message.content === expected.text));
      }, { what: 'what was said is stored' });
    });
  }
});
