// The dialects and server-sent events as what they have in common: how each joins and asks, what an
// answer is to it, and what is text.

import assert from 'node:assert/strict';
import { endAll, stream } from './eventsource.mjs';
import { AGENT } from './model.mjs';
import { at, rest } from './rest.mjs';
import { eventually, ok, open, token } from '../harness.mjs';

// ── The families ───────────────────────────────────────────────────────────────────────────────
// Of each: how it joins and what it is told then, how it asks, what an answer is to it (runs of
// chunks are written once, with ×; the last one, that brings no text, with !), what it is told when
// it joins in the middle of one, what is text to it, what makes it forget the text so far, and what
// ends an answer.

export const FAMILIES = {
  session: {
    join: (id) => ['session:join', { sessionId: id }],
    joined: ['connection:success'],
    ask: (id, prompt) => ['stream:request', { sessionId: id, prompt }],
    answer: ['message:new', 'stream:start', 'stream:chunk×', 'stream:chunk!', 'stream:complete'],
    middle: ['connection:success', 'stream:chunk×'],
    rest: ['stream:chunk!', 'stream:complete'],
    broken: ['stream:error'],
    chunk: ({ name, payload }) => (name === 'stream:chunk' ? payload.delta : undefined),
    isLast: ({ payload }) => payload.isComplete,
    isReset: ({ name }) => name === 'stream:reset',
    isEnd: ({ name }) => /^stream:(complete|stopped|error)$/.test(name),
    whole: ({ name, payload }) => (name === 'stream:complete' ? [payload.message.id, payload.message.content] : undefined),
  },
  subscribe: {
    join: (id) => ['subscribe', id],
    joined: ['connection:success', 'subscribed'],
    ask: (id, content) => ['message:send', { sessionId: id, content }],
    // What this very socket asked it is not told.
    answer: ['message:new', 'message:chunk×', 'message:complete'],
    own: ['message:chunk×', 'message:complete'],
    middle: ['connection:success', 'subscribed', 'message:reset', 'message:chunk×'],
    rest: ['message:complete'],
    broken: ['message:complete', 'error'],
    chunk: ({ name, payload }) => (name === 'message:chunk' ? payload.chunk : undefined),
    isLast: () => false,
    isReset: ({ name }) => name === 'message:reset',
    isEnd: ({ name }) => name === 'message:complete' || name === 'error',
    whole: ({ name, payload }) => (name === 'message:complete' ? [payload.message.id, payload.message.content] : undefined),
  },
  conversation: {
    join: (id) => ['chat:join', { conversationId: id }],
    joined: ['connection:success', 'chat:joined'],
    ask: (id, content) => ['chat:send', { conversationId: id, content, role: 'user' }],
    answer: ['chat:message', 'chat:thinking', 'chat:streaming×', 'chat:streaming!', 'chat:message', 'chat:complete'],
    middle: ['connection:success', 'chat:joined', 'chat:thinking', 'chat:streaming×'],
    rest: ['chat:streaming!', 'chat:message', 'chat:complete'],
    broken: ['chat:streaming!', 'chat:message', 'chat:error'],
    chunk: ({ name, payload }) => (name === 'chat:streaming' ? payload.chunk : undefined),
    isLast: ({ payload }) => payload.isComplete,
    isReset: ({ name }) => name === 'chat:thinking',
    isEnd: ({ name }) => name === 'chat:complete' || name === 'chat:error',
    whole: ({ name, payload }) => (name === 'chat:message' && payload.message.role === 'assistant'
      ? [payload.message.id, payload.message.content] : undefined),
  },
  persona: {
    join: () => ['chat:join', { personaId: AGENT }],
    joined: ['connection:success', 'chat:session'],
    ask: (id, content) => ['chat:message', { sessionId: id, content }],
    answer: ['chat:response'],
    middle: ['connection:success', 'chat:session'],
    rest: ['chat:response'],
    broken: ['chat:error'],
    chunk: () => undefined,
    isReset: () => false,
    isEnd: ({ name }) => name === 'chat:response' || name === 'chat:error',
    whole: ({ name, payload }) => (name === 'chat:response' ? [payload.id, payload.content] : undefined),
  },
  sse: {
    answer: ['processing', 'chunk×', 'done: true', 'done'],
    middle: ['chunk×'],
    rest: ['done: true', 'done'],
    broken: ['error'],
    chunk: ({ name, payload }) => (name === 'message' ? payload.chunk : undefined),
    isLast: () => false,
    isReset: ({ name }) => name === 'reset',
    isEnd: ({ name }) => name === 'done' || name === 'error',
    word: ({ name, payload }) => (name !== 'message' ? name : (payload.status ?? (payload.done && 'done: true'))),
  },
};
export const NAMES = Object.keys(FAMILIES);
export const LIVE = NAMES.filter((name) => name !== 'persona');

/** The events by name, in order; a run of chunks as one. */
function words(family, events) {
  const all = events.map((event) => {
    const chunk = family.chunk(event);
    if (chunk === undefined) return family.word?.(event) ?? event.name;
    const name = event.name === 'message' ? 'chunk' : event.name;
    return family.isLast(event) ? `${name}!` : `${name}×`;
  });
  return all.filter((word, n) => !(word.endsWith('×') && word === all[n - 1]));
}

/** The text that came in chunks, since the last reset. */
export function written({ family, events }) {
  let text = '';
  for (const event of events) text = family.isReset(event) ? '' : text + (family.chunk(event) ?? '');
  return text;
}

/** Until the answer that this reader hears is over for it. */
export const ended = (reader, limit = 30_000) =>
  eventually(() => reader.events.find(reader.family.isEnd), { within: limit, what: `${reader.name} at ${reader.url}: the end of the answer` }).catch((error) => {
    error.message += `; heard: ${words(reader.family, reader.events).slice(-12)}`;
    throw error;
  });

/** The longest time without text, from the first text to the end of the answer, in milliseconds. */
export function pause({ family, events }) {
  const times = events.filter((event) => family.isEnd(event) || family.chunk(event) !== undefined).map(({ at }) => at);
  return Math.max(0, ...times.slice(1).map((time, n) => time - times[n]));
}

/** Until this reader has heard exactly this. */
export const hears = (reader, expected) =>
  eventually(
    () => {
      assert.deepEqual(words(reader.family, reader.events), expected);
      return true;
    },
    { within: 20_000, what: `${reader.name} hears ${expected.join(', ')}` },
  );

/** Until each reader that is shown text as it is written has so much of it. */
const haveWritten = (readers, text) =>
  Promise.all(readers.filter(({ name }) => LIVE.includes(name)).map((reader) =>
    eventually(() => {
      assert.equal(written(reader), text);
      return true;
    }, { what: `${reader.name} has ${JSON.stringify(text)}` })));

/** The model says it bit by bit: each is with all readers before the next. */
export async function say(answer, readers, ...bits) {
  for (const bit of bits) {
    answer.say(bit);
    await haveWritten(readers, answer.text);
  }
}

// ── The readers ────────────────────────────────────────────────────────────────────────────────

/** A node that can be asked something: tests set `isAway` where they keep one from it. */
export const living = (cluster) => cluster.nodes.find(({ alive, isAway }) => alive && !isAway);

/** Somebody of their own, and the session that they have with their persona. */
export async function begin(cluster) {
  users += 1;
  const sub = `user-${users}`;
  const jwt = token({ sub });
  const { socket } = await open(living(cluster).url, { token: jwt });
  const { sessionId: id } = await ok(socket, ...FAMILIES.persona.join());
  socket.disconnect();
  return { sub, jwt, id };
}
let users = 0;

/** A stream of a session. */
export async function listen(url, id, options) {
  const source = await stream(url, `/chat/stream/${id}`, options);
  assert.equal(source.status, 200, JSON.stringify(source.body));
  return source;
}

/** A reader of a family at `url` that joins. `options` are socket.io-client's. */
export async function reader(name, url, { sub, jwt, id }, options = {}) {
  const family = FAMILIES[name];
  if (name === 'sse') {
    const source = await listen(url, id, { token: jwt });
    return {
      name, family, source, url,
      get events() {
        return source.events.map(({ event, data, at: time }) => ({ name: event || 'message', payload: data, at: time }));
      },
      forget: () => source.events.splice(0),
      close: () => source.close(),
      ask: (prompt) => rest({ url }, sub).post('/chat/message', { sessionId: id, content: prompt }),
    };
  }
  // No dialect in the handshake: the join tells.
  const { socket, heard } = await open(url, { token: jwt, ...options });
  socket.emit(...family.join(id));
  return {
    name, family, socket, url,
    events: heard.events,
    forget: () => heard.events.splice(0),
    ask: async (prompt) => void socket.emit(...family.ask(id, prompt)),
    close: () => socket.disconnect(),
  };
}

/** Readers of these families, each where it is said to be, who have joined and forgot that they did. */
export async function joined(places, who, options = {}) {
  const readers = await Promise.all(places.map(([name, url]) => reader(name, url, who, options[name])));
  for (const one of readers) {
    if (one.family.joined) await hears(one, one.family.joined);
    one.forget();
  }
  return readers;
}

/** One of each family: `urls` has their places in turn. */
export const everybody = (urls, who, options) => joined(NAMES.map((name, n) => [name, urls[n % urls.length]]), who, options);

/** The newest stored message. */
export const newest = async (cluster, { sub, id }) => (await rest(living(cluster), sub).get(at.history(id))).messages.at(-1);

/** Asserts that all that a reader knows of the answer is what is stored. */
export function isStored(reader, stored, text) {
  const { name, family, events } = reader;
  assert.equal(stored.content, text, 'what the model said');
  if (LIVE.includes(name)) assert.equal(written(reader), text, `${name}: chunks`);
  const wholes = events.map((event) => family.whole?.(event)).filter(Boolean);
  if (family.whole) assert.deepEqual(wholes, [[stored.id, text]], `${name}: the whole`);
  else assert.equal(events.find(({ payload }) => payload.done)?.payload.messageId, stored.id, `${name}: the id`);
}

/** A test, and after it the end of its streams. */
export const closing = (body) => async (cluster) => {
  try {
    await body(cluster);
  } finally {
    endAll();
  }
};

/**
 * A `session` device as a frontend is that comes back by itself, wherever it finds a node: it joins
 * again and says what it has. `answer(streamId)` is what it knows of one: `text`, and once it is
 * over `end`.
 */
export async function roamer(url, { sub, jwt, id }, options = {}) {
  const { socket, heard } = await open(url, { token: jwt ?? token({ sub }), auth: { dialect: 'session' }, ...options });
  const answers = new Map();
  const device = { socket, heard, returns: 0, wrong: [], 
    /** Of an answer whose start it may not have heard, its message's id tells which it is. */
    answer: (streamId, messageId) => (messageId ? known({ streamId, messageId }) : (answers.get(streamId) ?? { text: '' })),
    close: () => socket.disconnect() };
  let lastMessageId;
  const known = ({ streamId, messageId }) => {
    if (!answers.has(streamId)) answers.set(streamId, { messageId, text: '', resets: 0, end: undefined });
    return answers.get(streamId);
  };
  const over = (answer, name, message) => {
    answer.end = { name, message };
    lastMessageId = message?.id ?? lastMessageId;
  };
  socket.on('message:new', (message) => (lastMessageId = message.id));
  socket.on('stream:start', known);
  socket.on('stream:reset', (payload) => Object.assign(known(payload), { text: '', resets: known(payload).resets + 1 }));
  socket.on('stream:chunk', (chunk) => {
    const answer = known(chunk);
    if (chunk.offset !== answer.text.length) device.wrong.push(`offset ${chunk.offset} after ${answer.text.length}`);
    answer.text = answer.text.slice(0, chunk.offset) + chunk.delta;
  });
  for (const name of ['stream:complete', 'stream:stopped', 'stream:error']) socket.on(name, (payload) => over(known(payload), name, payload.message));
  socket.on('messages:missed', ({ messages }) => {
    for (const message of messages) {
      lastMessageId = message.id;
      const answer = [...answers.values()].find(({ messageId, end }) => messageId === message.id && !end);
      // What it has is the beginning of what it is told it missed.
      if (answer && !message.content.startsWith(answer.text)) device.wrong.push(`${answer.text} is not how ${message.content} begins`);
      if (answer) over(Object.assign(answer, { text: message.content }), 'messages:missed', message);
    }
  });
  const join = () => {
    const running = [...answers].filter(([, { end }]) => !end).map(([streamId, { text }]) => [streamId, text.length]);
    return socket.emitWithAck('session:join', { sessionId: id, lastMessageId, streams: Object.fromEntries(running) });
  };
  const reply = await join();
  assert.equal(reply.ok, true, JSON.stringify(reply));
  socket.on('connect', () => {
    device.returns += 1;
    join().catch(() => {}); // cut off again: the next connection joins
  });
  /** Until an answer is over: what it ends with. */
  device.ended = (streamId, limit = 30_000) =>
    eventually(() => device.answer(streamId).end, { within: limit, what: `the roamer: the end of ${streamId}, heard ${heard.names().slice(-8)}` });
  return device;
}
