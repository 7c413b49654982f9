// One session, five readers, four dialects and server-sent events, three nodes: each hears every
// answer in its own words and in its own family's order, whoever asked and in whose words, and each
// event crosses the cluster once, however many vocabularies it is told in. The model says what the
// test tells it to, so the middle of an answer lasts as long as it takes to look.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { endAll, stream } from './harness/eventsource.mjs';
import { AGENT, startModel } from './harness/model.mjs';
import { at, rest } from './harness/rest.mjs';
import { eventually, metrics, ok, open, suite, token } from './harness.mjs';

const model = await startModel();
after(() => model.stop());

// ── The families ───────────────────────────────────────────────────────────────────────────────
// Of each: how it joins and what it is told then, how it asks, what an answer is to it (runs of
// chunks are written once, with ×; the last one, that brings no text, with !), what it is told when
// it joins in the middle of one, and what is text to it.

const FAMILIES = {
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
    whole: ({ name, payload }) => (name === 'chat:response' ? [payload.id, payload.content] : undefined),
  },
  sse: {
    answer: ['processing', 'chunk×', 'done: true', 'done'],
    middle: ['chunk×'],
    rest: ['done: true', 'done'],
    broken: ['error'],
    chunk: ({ name, payload }) => (name === 'message' ? payload.chunk : undefined),
    isLast: () => false,
    word: ({ name, payload }) => (name !== 'message' ? name : (payload.status ?? (payload.done && 'done: true'))),
  },
};
const NAMES = Object.keys(FAMILIES);
const LIVE = NAMES.filter((name) => name !== 'persona');

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

/** The text that came in chunks. */
const written = ({ family, events }) => events.map((event) => family.chunk(event) ?? '').join('');

/** Until this reader has heard exactly this. */
const hears = (reader, expected) =>
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
async function say(answer, readers, ...bits) {
  for (const bit of bits) {
    answer.say(bit);
    await haveWritten(readers, answer.text);
  }
}

// ── The readers ────────────────────────────────────────────────────────────────────────────────

/** Somebody of their own, and the session that they have with their persona. */
async function begin(cluster) {
  users += 1;
  const sub = `user-${users}`;
  const jwt = token({ sub });
  const { socket } = await open(cluster.nodes[0].url, { token: jwt });
  const { sessionId: id } = await ok(socket, ...FAMILIES.persona.join());
  socket.disconnect();
  return { sub, jwt, id };
}
let users = 0;

/** A stream of a session. */
async function listen(url, id, options) {
  const source = await stream(url, `/chat/stream/${id}`, options);
  assert.equal(source.status, 200, JSON.stringify(source.body));
  return source;
}

/** A reader of a family at `url` that joins. `options` are socket.io-client's. */
async function reader(name, url, { sub, jwt, id }, options = {}) {
  const family = FAMILIES[name];
  if (name === 'sse') {
    const source = await listen(url, id, { token: jwt });
    return {
      name, family, source,
      get events() {
        return source.events.map(({ event, data }) => ({ name: event || 'message', payload: data }));
      },
      forget: () => source.events.splice(0),
      ask: (prompt) => rest({ url }, sub).post('/chat/message', { sessionId: id, content: prompt }),
    };
  }
  // No dialect in the handshake: the join tells.
  const { socket, heard } = await open(url, { token: jwt, ...options });
  socket.emit(...family.join(id));
  return {
    name, family, socket,
    events: heard.events,
    forget: () => heard.events.splice(0),
    ask: async (prompt) => void socket.emit(...family.ask(id, prompt)),
    close: () => socket.disconnect(),
  };
}

/** Readers of these families, each where it is said to be, who have joined and forgot that they did. */
async function joined(places, who, options = {}) {
  const readers = await Promise.all(places.map(([name, url]) => reader(name, url, who, options[name])));
  for (const one of readers) {
    if (one.family.joined) await hears(one, one.family.joined);
    one.forget();
  }
  return readers;
}

/** One of each family: `urls` has their places in turn. */
const everybody = (urls, who, options) => joined(NAMES.map((name, n) => [name, urls[n % urls.length]]), who, options);

/** The newest stored message. */
const newest = async (cluster, { sub, id }) => (await rest(cluster.nodes[0], sub).get(at.history(id))).messages.at(-1);

/** Asserts that all that a reader knows of the answer is what is stored. */
function isStored({ name, family, events }, stored, text) {
  assert.equal(stored.content, text, 'what the model said');
  if (LIVE.includes(name)) assert.equal(events.map((event) => family.chunk(event) ?? '').join(''), text, `${name}: chunks`);
  const wholes = events.map((event) => family.whole?.(event)).filter(Boolean);
  if (family.whole) assert.deepEqual(wholes, [[stored.id, text]], `${name}: the whole`);
  else assert.equal(events.find(({ payload }) => payload.done)?.payload.messageId, stored.id, `${name}: the id`);
}

/** A test, and after it the end of its streams. */
const closing = (body) => async (cluster) => {
  try {
    await body(cluster);
  } finally {
    endAll();
  }
};

const BITS = ['Grüße, ', '世界 😀 ', '\n\n“quoted”\u2028 \\ ', '<b>&amp;</b>', ' end.'];

suite('five readers', { nodes: 3, nginx: true, env: model.env }, (e2e) => {
  e2e('each asks in turn, and all hear it in their own words', { timeout: 120_000 }, closing(async (cluster) => {
    const who = await begin(cluster);
    const [one, two, three] = cluster.nodes.map((node) => node.url);
    const browserLike = { transports: ['polling', 'websocket'] };
    const places = [one, cluster.url, two, cluster.url, three];
    const readers = await everybody(places, who, { subscribe: browserLike, persona: browserLike });
    for (const { name, socket } of readers) {
      if (socket) await eventually(() => socket.io.engine.transport.name === 'websocket', { what: `${name} is upgraded` });
    }
    const speak = {};
    for (const node of cluster.nodes) {
      for (const [key, count] of (await metrics(node)).samples) {
        const dialect = /^socket_io_connected\{.*dialect="(\w+)"/.exec(key)?.[1];
        if (count) speak[dialect] = (speak[dialect] ?? 0) + count;
      }
    }
    delete speak.undefined;
    assert.deepEqual(speak, { session: 1, subscribe: 1, conversation: 1, persona: 1 }, 'settled by the join');

    const overRest = { name: 'REST', ask: (prompt) => rest(cluster.nodes[1], who.sub).post('/api/chat/streams', { sessionId: who.id, prompt }) };
    for (const asker of [...readers, overRest]) {
      const prompt = `${asker.name} asks`;
      await asker.ask(prompt);
      const answer = await model.asked(prompt);
      await say(answer, readers, ...BITS);
      answer.end();
      for (const one of readers) await hears(one, (one === asker && one.family.own) || one.family.answer);
      const stored = await newest(cluster, who);
      for (const one of readers) {
        isStored(one, stored, BITS.join(''));
        const asked = one.events.map(({ name, payload }) => ({ 'message:new': payload, 'chat:message': payload.message }[name]));
        const prompts = asked.filter((message) => message?.role === 'user').map(({ content }) => content);
        const isTold = ['session', 'conversation'].includes(one.name) || (one.name === 'subscribe' && one !== asker);
        assert.deepEqual(prompts, isTold ? [prompt] : [], `${one.name}: the prompt`);
        one.forget();
      }
    }
  }));

  e2e('who joins in the middle of an answer has all of it', { timeout: 60_000 }, closing(async (cluster) => {
    const who = await begin(cluster);
    const [one, two, three] = cluster.nodes.map((node) => node.url);
    const [asker] = await joined([['session', one]], who);
    await asker.ask('In the middle?');
    const answer = await model.asked('In the middle?');
    await say(answer, [asker], ...BITS.slice(0, 3));

    const late = await Promise.all(NAMES.map((name, n) => reader(name, [two, three][n % 2], who)));
    for (const one of late) {
      await hears(one, one.family.middle);
      const chunks = one.events.filter((event) => one.family.chunk(event) !== undefined);
      if (one.name === 'persona') continue;
      assert.deepEqual(chunks.map(one.family.chunk), [answer.text], `${one.name}: so far, as one chunk`);
      if ('offset' in chunks[0].payload) assert.equal(chunks[0].payload.offset, 0, `${one.name}: from the start`);
    }
    const { messages } = late.find(({ name }) => name === 'persona').events.at(-1).payload;
    assert.equal(messages.at(-1).content, 'In the middle?', 'persona has the prompt, and nothing of the answer');

    await say(answer, [asker, ...late], ...BITS.slice(3));
    answer.end();
    for (const one of late) await hears(one, [...one.family.middle, ...one.family.rest]);
    await hears(asker, asker.family.answer);
    const stored = await newest(cluster, who);
    for (const one of [asker, ...late]) isStored(one, stored, BITS.join(''));
  }));
});

// A cluster of its own for each: users of other tests who leave would be counted, and nodes die.
suite('five readers alone', { nodes: 3, nginx: true, fresh: true, env: model.env }, (e2e) => {
  e2e('an event crosses the cluster once, whatever it is told in', { timeout: 90_000 }, closing(async (cluster) => {
    const counters = async (name) => {
      const all = await Promise.all(cluster.nodes.map(async (node) => (await metrics(node)).sum(name)));
      return all.reduce((sum, count) => sum + count, 0);
    };
    const published = () => counters('cluster_events_published_total');
    /** Until nothing more is published: what was set in motion is over. */
    const quiet = async () => {
      let last;
      await eventually(async () => {
        const now = await published();
        const same = now === last;
        last = now;
        return same;
      }, { every: 300, what: 'nothing more is published' });
      return last;
    };
    const grown = [];
    for (const [round, names] of [['session'], NAMES, [...NAMES, ...NAMES, ...NAMES]].entries()) {
      const who = await begin(cluster);
      const readers = await joined(names.map((name, n) => [name, cluster.nodes[n % 3].url]), who);
      const before = await quiet();
      await readers[0].ask(`How often, ${round}?`);
      const answer = await model.asked(`How often, ${round}?`);
      await say(answer, readers, ...BITS);
      answer.end();
      for (const one of readers) await hears(one, one.family.answer);
      grown.push((await quiet()) - before);
    }
    // The prompt, the start, each bit, the provider's end and the answer's; the same each time.
    assert.ok(grown[0] >= BITS.length + 3, `published ${grown}`);
    assert.deepEqual(grown, [grown[0], grown[0], grown[0]], 'for 1, 5 and 15 readers');
  }));

  e2e('a node dies: readers of the others go on', { timeout: 90_000 }, closing(async (cluster) => {
    const who = await begin(cluster);
    const [one, two, three] = cluster.nodes.map((node) => node.url);
    const readers = await everybody([one, two], who);
    const victims = await everybody([three], who);
    await readers[0].ask('Who is left?');
    const answer = await model.asked('Who is left?');
    await say(answer, [...readers, ...victims], ...BITS.slice(0, 2));

    cluster.nodes[2].signal('SIGKILL');
    const source = victims.at(-1).source;
    assert.equal(await source.over(), false, 'its readers lose their connection');
    await say(answer, readers, ...BITS.slice(2, 4));
    // Its SSE reader comes back as a browser does, by the same URL to another node.
    const back = await listen(cluster.url, who.id, { token: who.jwt, lastEventId: source.lastEventId });
    await say(answer, readers, ...BITS.slice(4));
    answer.end();
    for (const one of readers) await hears(one, one.family.answer);
    const stored = await newest(cluster, who);
    for (const one of readers) isStored(one, stored, BITS.join(''));
    await back.done();
    assert.equal(back.events.find(({ data }) => data.done).data.messageId, stored.id);
    const chunks = (events) => events.map(({ data }) => data.chunk ?? '').join('');
    assert.equal(chunks(source.events) + chunks(back.events), stored.content, 'nothing twice, nothing missing');
  }));

  e2e('the node that asks the model dies: an end in each family’s words', { timeout: 90_000 }, closing(async (cluster) => {
    const who = await begin(cluster);
    const [one, two, three] = cluster.nodes.map((node) => node.url);
    const readers = await everybody([one, two], who);
    const asker = await reader('session', three, who);
    await asker.ask('Who is left?!');
    const answer = await model.asked('Who is left?!');
    await say(answer, readers, ...BITS.slice(0, 2));
    cluster.nodes[2].signal('SIGKILL');
    for (const one of readers) {
      const begun = one.family.answer.slice(0, one.family.answer.findIndex((word) => word.endsWith('×')) + 1);
      await hears(one, [...begun, ...one.family.broken]);
    }
    const stored = await newest(cluster, who);
    assert.equal(stored.content, answer.text);
    for (const one of readers) if (LIVE.includes(one.name)) assert.equal(written(one), stored.content, one.name);
  }));
});
