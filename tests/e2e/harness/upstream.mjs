// The providers' side: a server that speaks Chat Completions, Responses and Messages at their real
// paths, and says what a test tells it to, when it tells it. It also tells stories: answers that
// follow from the prompt, and that it goes on with where it is given the beginning of one.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { eventually, lasting, within } from '../harness.mjs';

/** The protocols by their paths. */
const PROTOCOLS = { '/v1/chat/completions': 'openai', '/v1/responses': 'openai-responses', '/v1/messages': 'anthropic' };

// ── Stories ────────────────────────────────────────────────────────────────────────────────────

const WORDS = ['once ', 'upon ', 'a ', 'time, ', 'Grüße ', '世界', ' 😀 ', '\n\n', '“there” ', '🇨🇭 ', 'é', '\\ ', '👩‍🚀', 'was ', 'no\u2028', 'end. '];
const ASKED = /story:(\d+):([\w-]+)/g;

/** A prompt that is answered with `tokens` tokens; another `name` is another story. */
export const prompt = (tokens, name) => `Tell me story:${tokens}:${name}`;

/** The tokens of the story that a text asks for, of the last one where it asks for more. */
export function story(text) {
  const [, tokens, name] = [...text.matchAll(ASKED)].at(-1) ?? [];
  let state = 7;
  for (const letter of name ?? '') state = (Math.imul(state, 31) + letter.codePointAt(0)) >>> 0;
  return Array.from({ length: Number(tokens ?? 0) }, (_, n) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return `${WORDS[state >>> 28]}${n % 10 === 9 ? n : ''}`;
  });
}

/** Tells the story that it is asked for, from where it is asked to go on, at so many tokens a second. */
export const teller = ({ perSecond = 50 } = {}) => async (ask) => {
  for (const token of ask.story()) {
    if (!ask.open) return;
    ask.say(token);
    await lasting(1_000 / perSecond);
  }
  if (ask.open) ask.end();
};

// ── The server ─────────────────────────────────────────────────────────────────────────────────

/**
 * Starts one. `upstream.on(model, handler)` says what becomes of requests for a model, `'*'` of all
 * others; without, they wait for what the test does with them. `upstream.asks` are all there were.
 */
export async function startUpstream() {
  const handlers = new Map();
  const upstream = {
    asks: [],
    url: undefined,
    /** Where an agent of this provider finds it. */
    base: (provider) => (provider === 'anthropic' ? upstream.url : `${upstream.url}/v1`),
    /** What an agents file says of one that asks here; the model tells agents apart. */
    agent: (model, fields = {}) => {
      const provider = fields.provider ?? 'openai';
      return { provider, model, baseUrl: upstream.base(provider), timeout: '20s', ...fields };
    },
    /** For the cluster that asks it. */
    env: { OPENAI_API_KEY: 'sk-test', ANTHROPIC_API_KEY: 'sk-ant-test' },
    on(model, handler) {
      handlers.set(model, handler);
    },
    /** All requests that a test's `matches` (a prompt's text, or a function) fits. */
    of: (matches) => upstream.asks.filter((ask) => fits(ask, matches)),
    /** How many of them are connected. */
    open: (matches = () => true) => upstream.of(matches).filter((ask) => ask.open).length,
    /** The n-th of them, there already or still to come. */
    asked: (matches, n = 0) =>
      eventually(() => upstream.of(matches)[n], { within: 20_000, every: 5, what: `${matches} is asked, ${n + 1} times` }),
    async stop() {
      server.closeAllConnections();
      await within(5_000, 'the upstream stops', new Promise((done) => server.close(done)));
    },
  };
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const piece of request) body += piece;
    const ask = new Ask(request, response, JSON.parse(body));
    upstream.asks.push(ask);
    const handler = handlers.get(ask.model) ?? handlers.get('*');
    await handler?.(ask, upstream.of((other) => other.model === ask.model).length - 1);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  upstream.url = `http://127.0.0.1:${server.address().port}`;
  return upstream;
}

const fits = (ask, matches) => (typeof matches === 'function' ? matches(ask) : ask.all.includes(matches));

/** One request, and what is answered. */
class Ask {
  /** What was said until now. */
  text = '';
  /** Whether it is still connected. */
  open = true;
  /** Whether it was answered to its end. */
  whole = false;
  at = performance.now();
  #response;
  #begun = false;
  #spoken = 0;

  constructor(request, response, body) {
    this.#response = response;
    this.path = request.url;
    this.protocol = PROTOCOLS[request.url];
    this.headers = request.headers;
    this.body = body;
    this.model = body.model;
    const flat = (content) => (typeof content === 'string' ? content : content.map(({ text }) => text ?? '').join(''));
    const input = body.messages ?? (typeof body.input === 'string' ? [{ role: 'user', content: body.input }] : body.input);
    this.turns = input.map(({ role, content }) => ({ role, content: flat(content) }));
    /** The last thing that was said to it. */
    this.prompt = this.turns.at(-1).content;
    /** All that it was told, the instructions too. */
    this.all = [flat(body.system ?? ''), body.instructions ?? '', ...this.turns.map(({ content }) => content)].join('\n');
    this.closed = new Promise((done) => {
      response.once('close', () => {
        this.open = false;
        this.closedAt = performance.now();
        done();
      });
    });
    if (!this.protocol) this.refuse(404);
  }

  /** Whether it was let go of before its end. */
  get dropped() {
    return !this.open && !this.whole;
  }

  /** The beginning of the answer that it was given to go on with. */
  get partial() {
    const asked = this.turns.findLastIndex(({ role, content }) => role === 'user' && story(content).length > 0);
    return this.turns.slice(asked + 1).find(({ role }) => role === 'assistant')?.content ?? '';
  }

  /** What is left of the story that it was asked for. */
  story() {
    const asked = this.turns.findLast(({ role, content }) => role === 'user' && story(content).length > 0)?.content ?? this.all;
    let had = this.partial;
    const tokens = story(asked);
    while (had !== '') {
      const [token = ''] = tokens;
      if (token === '' || !(had.startsWith(token) || token.startsWith(had))) return [`[no story goes on like this: ${JSON.stringify(had)}]`];
      if (token.length > had.length) tokens[0] = token.slice(had.length);
      else tokens.shift();
      had = had.slice(token.length);
    }
    return tokens;
  }

  /** Bytes as they are, with the head before the first ones. */
  write(bytes) {
    if (!this.open) return;
    if (!this.#begun) {
      this.#begun = true;
      this.#response.writeHead(200, { 'content-type': 'text/event-stream' });
    }
    this.#response.write(bytes);
  }

  #send(...events) {
    const named = (event) => (this.protocol === 'openai' ? '' : `event: ${event.type}\n`);
    this.write(events.map((event) => `${named(event)}data: ${JSON.stringify(event)}\n\n`).join(''));
  }

  /** The answer's head, and whatever comes before the first text. */
  begin() {
    if (this.#begun) return;
    if (this.protocol === 'openai') this.#send({ id: 'c', object: 'chat.completion.chunk', model: this.model, choices: [{ index: 0, delta: { role: 'assistant', content: '' } }] });
    if (this.protocol === 'openai-responses') {
      this.#send(
        { type: 'response.created', response: { id: 'r', object: 'response', status: 'in_progress', output: [] } },
        { type: 'response.output_item.added', output_index: 0, item: { id: 'm', type: 'message', role: 'assistant', content: [] } },
        { type: 'response.content_part.added', item_id: 'm', output_index: 0, content_index: 0, part: { type: 'output_text', text: '', annotations: [] } },
      );
    }
    if (this.protocol === 'anthropic') {
      this.#send(
        { type: 'message_start', message: { id: 'm', type: 'message', role: 'assistant', model: this.model, content: [], stop_reason: null, usage: { input_tokens: this.input, output_tokens: 1 } } },
        { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
      );
    }
  }

  /** Says something. */
  say(text) {
    this.begin();
    this.text += text;
    this.#spoken += 1;
    if (this.protocol === 'openai') this.#send({ id: 'c', object: 'chat.completion.chunk', model: this.model, choices: [{ index: 0, delta: { content: text } }] });
    if (this.protocol === 'openai-responses') this.#send({ type: 'response.output_text.delta', item_id: 'm', output_index: 0, content_index: 0, delta: text });
    if (this.protocol === 'anthropic') this.#send({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } });
  }

  /** How many tokens it read: its words. */
  get input() {
    return this.all.split(/\s+/).filter(Boolean).length;
  }

  /** The end, with the usage: what it said counts a token each time. */
  end({ input = this.input, output = this.#spoken } = {}) {
    this.begin();
    const usage = { input_tokens: input, output_tokens: output };
    if (this.protocol === 'openai') {
      this.#send(
        { id: 'c', object: 'chat.completion.chunk', model: this.model, choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] },
        { id: 'c', object: 'chat.completion.chunk', model: this.model, choices: [], usage: { prompt_tokens: input, completion_tokens: output, total_tokens: input + output } },
      );
      this.write('data: [DONE]\n\n');
    }
    if (this.protocol === 'openai-responses') {
      const message = { id: 'm', type: 'message', role: 'assistant', status: 'completed', content: [{ type: 'output_text', text: this.text, annotations: [] }] };
      this.#send(
        { type: 'response.output_text.done', item_id: 'm', output_index: 0, content_index: 0, text: this.text },
        { type: 'response.output_item.done', output_index: 0, item: message },
        { type: 'response.completed', response: { id: 'r', object: 'response', status: 'completed', output: [message], usage: { ...usage, total_tokens: input + output } } },
      );
    }
    if (this.protocol === 'anthropic') {
      this.#send(
        { type: 'content_block_stop', index: 0 },
        { type: 'message_delta', delta: { stop_reason: 'end_turn', stop_sequence: null }, usage: { output_tokens: output } },
        { type: 'message_stop' },
      );
    }
    this.finish();
  }

  /** Says all of it, and ends. */
  tell(text, usage) {
    this.say(text);
    this.end(usage);
  }

  /** The end of the response, whatever was sent. */
  finish() {
    this.write('');
    this.whole = true;
    this.#response.end();
  }

  /** Refuses, with a body that nobody may ever see. */
  refuse(status, headers = {}, body = '{"error":{"message":"secret body"}}') {
    this.whole = true;
    this.#response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body);
  }

  /** Breaks the connection. */
  breakOff() {
    this.#response.socket?.destroy();
  }
}
