// Redis restarted empty, frozen, replaced by one that lacks the newest, its subscriptions killed,
// its connections cut or deaf, in the middle of an answer and of messages: the readers of the node
// that generates go on as if nothing were, and all others end with what is stored, once, in order.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { begin, closing, ended, isStored, joined, LIVE, NAMES, say, written } from './harness/families.mjs';
import { at, rest } from './harness/rest.mjs';
import { prompt, startUpstream, story, teller } from './harness/upstream.mjs';
import { ask, assertFields, eventually, flushed, follow, lasting, metrics, ok, open, random, startRedis, suite, token } from './harness.mjs';

const upstream = await startUpstream();
after(() => upstream.stop());
upstream.on('story', teller({ perSecond: 60 }));

const CLUSTER = {
  nodes: 3,
  proxied: true,
  agents: { assistant: upstream.agent('told', { timeout: '60s' }), story: upstream.agent('story') },
  env: { ...upstream.env, REDIS_COMMAND_TIMEOUT: '2s' },
};

// ── A session that everybody reads ─────────────────────────────────────────────────────────────

let questions = 0;

/**
 * A session of its own, read by all families on the first node, which generates, and on the two
 * others, and an answer that is being written. `sent` has the messages that were acknowledged.
 */
async function scene(cluster, { agentId = 'assistant', question, starts = true } = {}) {
  questions += 1;
  const [own, ...others] = cluster.nodes;
  const who = await begin(cluster);
  const locals = await joined(NAMES.map((name) => [name, own.url]), who);
  const places = NAMES.map((name, n) => [name, others[n % 2].url]);
  const remotes = await joined([...places, ['session', others[1].url], ['subscribe', others[0].url], ['sse', others[1].url]], who);
  const play = {
    cluster, who, locals, remotes, readers: [...locals, ...remotes], newcomers: [], sent: [], answer: undefined,
    question: question ?? `Question ${questions}`,
    senders: await Promise.all(cluster.nodes.map(({ url }) => open(url, { token: who.jwt, auth: { dialect: 'session' } }))),
    /** Those on the n-th node. */
    on: (n) => play.readers.filter(({ url }) => url === cluster.nodes[n].url),
    /** Has the answer begin. */
    async start() {
      play.ids = await rest(own, who.sub).post('/api/chat/streams', { sessionId: who.id, prompt: play.question, agentId });
      play.answer = await upstream.asked(play.question);
    },
    /** Sends a message at a node, and has it acknowledged. */
    async send(n) {
      const { message } = await ok(play.senders[n].socket, 'message:send', { sessionId: who.id, content: `${play.sent.length}` });
      play.sent.push(message.id);
      return message.id;
    },
    /** A device that joins as soon as it may: it is served, or told when to come again. */
    async newcomer(n) {
      const device = { ...(await open(cluster.nodes[n].url, { token: who.jwt })), n, refused: 0 };
      device.joined = (async () => {
        for (;;) {
          const reply = await ask(device.socket, 'session:join', { sessionId: who.id, lastMessageId: play.ids.promptMessageId });
          if (reply.ok) return;
          assertFields(reply.error, { code: 'string', message: 'string', retryAfterMs: 'int' }, 'the refusal');
          device.refused += 1;
          await lasting(reply.error.retryAfterMs);
        }
      })();
      device.joined.catch(() => {}); // told by whoever waits for it
      play.newcomers.push(device);
    },
  };
  if (starts) {
    await play.start();
    if (agentId === 'assistant') await say(play.answer, play.readers, 'Once ', 'upon ');
  }
  return play;
}

/** All messages of a session as they are stored, in order. */
const history = async ({ cluster, who }) => (await rest(cluster.nodes[0], who.sub).get(at.history(who.id, '?limit=100'))).messages;

/** The ids of the messages that a reader was brought, in order; `undefined` of a family that is not. */
function brought({ name, family, events }) {
  const message = { session: 'message:new', subscribe: 'message:new', conversation: 'chat:message' }[name];
  if (!message) return undefined;
  return events.flatMap((event) => family.whole(event)?.[0] ?? (event.name === message ? (event.payload.message ?? event.payload).id : []));
}

/** What a family is told at most once for one answer: its beginning. */
const isBeginning = ({ name, payload }) => /^(stream:start|chat:thinking)$/.test(name) || payload?.status === 'processing';

/**
 * Everybody has the answer, and the messages, as they are stored, each once; nobody started over,
 * where the answer was not handed over.
 */
async function isComplete(play, { text = play.answer.text, handedOver = false } = {}) {
  const { readers, who, ids, sent, newcomers } = play;
  for (const reader of readers) await ended(reader);
  const stored = await history(play);
  const answer = stored.find(({ id }) => id === ids.messageId);
  const order = stored.map(({ id }) => id);
  assert.deepEqual(sent.filter((id) => !order.includes(id)), [], 'what was acknowledged is stored');
  const where = (reader) => `${reader.name} on node ${play.cluster.nodes.findIndex(({ url }) => url === reader.url)}`;
  for (const reader of readers) {
    if (brought(reader)) {
      await eventually(() => brought(reader).length >= order.length, { within: 20_000, what: `${where(reader)}: all messages` }).catch((error) => {
        error.message += `; lacks ${order.filter((id) => !brought(reader).includes(id)).map((id) => stored.find((m) => m.id === id).role + ' ' + stored.find((m) => m.id === id).content)}`;
        throw error;
      });
    }
  }
  await flushed(...readers.filter(({ name }) => name === 'session'));
  for (const reader of readers) {
    isStored({ ...reader, name: where(reader), events: reader.events, source: undefined }, answer, text);
    if (LIVE.includes(reader.name)) assert.equal(written(reader), text, where(reader));
    const { family, events } = reader;
    assert.equal(events.filter((event) => family.isEnd(event)).length, 1, `${where(reader)}: one end`);
    const anew = events.filter((event) => family.isReset(event) && !isBeginning(event));
    if (!handedOver) {
      assert.deepEqual(anew, [], `${where(reader)}: nobody starts over`);
      assert.ok(events.filter(isBeginning).length <= 1, `${where(reader)}: one beginning`);
    }
    if (brought(reader)) assert.deepEqual(brought(reader), order, `${where(reader)}: in stored order, each once`);
  }
  for (const { socket, heard, joined: isIn, n } of newcomers) {
    await isIn;
    const at = `a newcomer on node ${n}`;
    const has = () => heard.events.flatMap(({ name, payload }) => {
      if (name === 'messages:missed') return payload.messages.map(({ id }) => id);
      return name === 'message:new' ? payload.id : name === 'stream:complete' ? payload.message.id : [];
    });
    const after = order.slice(order.indexOf(ids.promptMessageId) + 1);
    await eventually(() => has().length >= after.length, { what: `${at}: everything` });
    await flushed({ socket });
    assert.deepEqual(has(), after, at);
    const seen = follow(heard.events, ids.streamId);
    if (seen.end) assert.equal(seen.text, text, at);
    else assert.equal(heard.of('messages:missed').flatMap(({ messages }) => messages).find(({ id }) => id === ids.messageId).content, text, at);
  }
  const [row] = (await play.cluster.database.query(`SELECT attempt FROM stream WHERE id = '${ids.streamId}'`)).split('\n');
  return { attempts: Number(row) };
}

/** The rest of an answer, told to all who are there, its end, and that all have it. */
async function endsWell(play, options) {
  const { answer, readers, cluster } = play;
  await redisIs(1, ...cluster.nodes);
  await say(answer, readers, 'a ', 'time. ');
  await play.send(1);
  answer.end();
  const found = await isComplete(play, options);
  assert.equal(found.attempts, 1, 'the owner lives');
  await play.send(0);
  for (const reader of readers) {
    if (brought(reader)) await eventually(() => brought(reader).at(-1) === play.sent.at(-1), { what: `${reader.name} at ${reader.url} hears on` });
    reader.close();
  }
}

/** While Redis does not answer: its own readers read on, and messages are taken at every node. */
async function goesOn(play, nodes = [0, 1, 2]) {
  await say(play.answer, play.locals, 'there ', 'was ');
  for (const n of nodes) await play.send(n);
  await Promise.all(nodes.map((n) => play.newcomer(n)));
  await say(play.answer, play.locals, 'no ');
}

/** The end of an answer is stored. */
const isOver = ({ cluster, ids }) =>
  eventually(async () => (await cluster.database.query(`SELECT status FROM stream WHERE id = '${ids.streamId}'`)) === 'completed', { within: 20_000, every: 100, what: 'the end is stored' });

/** Until a node says of Redis that it is there, or is not. */
const redisIs = (up, ...nodes) =>
  Promise.all(nodes.map((node) => eventually(async () => (await metrics(node)).sum('redis_up') === up, { within: 15_000, every: 50, what: `redis_up ${up}` })));

/** A test, and whatever it did to Redis undone. */
const mending = (body) => closing(async (cluster) => {
  try {
    await body(cluster);
  } finally {
    cluster.redis.resume();
    if (!cluster.redis.child.alive) await cluster.redis.start();
    for (const { toRedis } of cluster.nodes) {
      toRedis.watch(undefined);
      toRedis.cut();
    }
    await redisIs(1, ...cluster.nodes);
  }
});

// ── One Redis ──────────────────────────────────────────────────────────────────────────────────

suite('redis', CLUSTER, (e2e) => {
  const stop = (cluster) => cluster.redis.command('SHUTDOWN', 'NOSAVE').catch(() => {}).then(() => cluster.redis.child.exited);

  e2e('it is shut down, and comes back empty, in the middle of an answer', { timeout: 60_000 }, mending(async (cluster) => {
    const play = await scene(cluster);
    await play.send(1);
    await stop(cluster);
    await goesOn(play);
    await cluster.redis.start();
    await endsWell(play);
  }));

  e2e('the answer ends while it is away, and messages follow', { timeout: 60_000 }, mending(async (cluster) => {
    const play = await scene(cluster);
    await stop(cluster);
    await goesOn(play);
    play.answer.end();
    await isOver(play);
    await play.send(0);
    await play.newcomer(0);
    await Promise.all(play.locals.map((reader) => ended(reader)));
    await cluster.redis.start();
    await isComplete(play);
  }));

  e2e('an answer begins and ends while it is away', { timeout: 60_000 }, mending(async (cluster) => {
    const play = await scene(cluster, { starts: false });
    await stop(cluster);
    await redisIs(0, ...cluster.nodes);
    await play.start();
    await goesOn(play);
    play.answer.end();
    await Promise.all(play.locals.map((reader) => ended(reader)));
    await cluster.redis.start();
    await isComplete(play);
  }));

  e2e('it freezes for five seconds', { timeout: 60_000 }, mending(async (cluster) => {
    const play = await scene(cluster);
    cluster.redis.pause();
    await Promise.all([lasting(5_000), goesOn(play)]);
    cluster.redis.resume();
    await endsWell(play);
  }));

  e2e('it freezes again and again, at random moments', { timeout: 60_000 }, mending(async (cluster) => {
    const dice = random();
    const question = prompt(240, `frozen-${dice.seed}`);
    const play = await scene(cluster, { agentId: 'story', question });
    for (let n = 0; n < 4; n += 1) {
      await lasting(dice.below(600));
      cluster.redis.pause();
      const sent = play.send(dice.below(3));
      await lasting(100 + dice.below(1_500));
      cluster.redis.resume();
      await sent;
    }
    const { attempts } = await isComplete(play, { text: story(question).join('') });
    assert.equal(attempts, 1, 'the owner lives');
  }));

  e2e('its connections are killed, of one kind and the other, again and again', { timeout: 60_000 }, mending(async (cluster) => {
    const play = await scene(cluster);
    const kill = async (type) => {
      const killed = Number(await cluster.redis.command('CLIENT', 'KILL', 'TYPE', type, 'SKIPME', 'yes'));
      assert.ok(killed >= cluster.nodes.length, `${killed} of ${type}`);
    };
    for (let n = 0; n < 3; n += 1) {
      await kill('pubsub');
      await Promise.all([say(play.answer, play.locals, 'there ', 'was '), play.send(n), play.newcomer(n)]);
      await kill('normal');
      await Promise.all([play.send(2 - n), say(play.answer, play.locals, 'no ')]);
      await say(play.answer, play.readers, 'more '); // all are connected
    }
    await endsWell(play);
  }));

  e2e('the last of a burst is lost: nothing after it shows that, and yet it is heard', { timeout: 60_000 }, mending(async (cluster) => {
    const play = await scene(cluster);
    for (let n = 0; n < 20; n += 1) await play.send(n % 3);
    // Redis has it while nobody is subscribed: all come back too late to hear it.
    const lost = async (happens) => {
      for (const { toRedis } of cluster.nodes) toRedis.watch(({ type }) => (type === 'SSUBSCRIBE' ? 'cut before' : undefined));
      await cluster.redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub');
      await happens();
      for (const { toRedis } of cluster.nodes) toRedis.watch(undefined);
    };
    await lost(() => play.send(0));
    const last = play.sent.at(-1);
    await Promise.all(play.readers.filter(brought).map((reader) => eventually(() => brought(reader).includes(last), { what: `${reader.name} at ${reader.url} hears the last one` })));
    await lost(async () => {
      play.answer.say('a time. ');
      play.answer.end();
      await isOver(play);
    });
    await isComplete(play);
  }));

  e2e('it goes away in the middle of a burst of messages', { timeout: 60_000 }, mending(async (cluster) => {
    const play = await scene(cluster);
    const burst = Promise.all(Array.from({ length: 60 }, (_, n) => play.send(n % 3)));
    await eventually(() => play.sent.length > 10, { every: 1, what: 'some are sent' });
    await stop(cluster);
    await burst;
    await goesOn(play);
    await cluster.redis.start();
    await endsWell(play);
  }));

  e2e('one node is cut off from it, and comes back', { timeout: 60_000 }, mending(async (cluster) => {
    const play = await scene(cluster);
    const [, { toRedis }] = cluster.nodes;
    toRedis.watch(() => 'cut before');
    toRedis.cut();
    const connected = play.readers.filter(({ url }) => url !== cluster.nodes[1].url);
    await say(play.answer, connected, 'there ', 'was ');
    for (const n of [0, 1, 2]) await play.send(n);
    await Promise.all([0, 1, 2].map((n) => play.newcomer(n)));
    await say(play.answer, connected, 'no ');
    toRedis.watch(undefined);
    await endsWell(play);
  }));

  for (const way of ['commands', 'answers']) {
    e2e(`a node’s connections lose all ${way}, and nobody says so`, { timeout: 60_000 }, mending(async (cluster) => {
      const play = await scene(cluster);
      assert.ok(cluster.nodes[1].toRedis.swallow(way) >= 2);
      const connected = play.readers.filter(({ url }) => url !== cluster.nodes[1].url);
      await say(play.answer, connected, 'there ', 'was ');
      for (const n of [0, 1, 2]) await play.send(n);
      await Promise.all([0, 1, 2].map((n) => play.newcomer(n)));
      await endsWell(play);
    }));
  }

  e2e('the generating node’s connections lose all answers: its readers read on', { timeout: 60_000 }, mending(async (cluster) => {
    const question = prompt(600, 'deaf');
    const play = await scene(cluster, { agentId: 'story', question });
    const [local] = play.locals;
    await eventually(() => written(local).length > 50, { what: 'it is under way' });
    assert.ok(cluster.nodes[0].toRedis.swallow('answers') >= 2);
    await redisIs(0, cluster.nodes[0]);
    const before = written(local).length;
    await eventually(() => written(local).length > before + 20, { what: 'a reader of that node reads on' });
    for (const n of [0, 1, 2]) await play.send(n);
    await Promise.all([0, 1, 2].map((n) => play.newcomer(n)));
    // Others have Redis: they may be given it before the node has it again.
    await isComplete(play, { text: story(question).join(''), handedOver: true });
  }));
});

// ── Another Redis instead ──────────────────────────────────────────────────────────────────────

suite('redis: failover', CLUSTER, (e2e) => {
  /** A replica of the cluster's Redis that has everything, and from now on nothing more. */
  async function behind(cluster) {
    const replica = await startRedis();
    await cluster.redis.command('CONFIG', 'SET', 'repl-diskless-sync-delay', '0');
    await replica.command('REPLICAOF', '127.0.0.1', new URL(cluster.redis.url).port);
    const offset = async (redis, field) => new RegExp(`${field}:(\\S+)`).exec(await redis.command('INFO', 'replication'))?.[1];
    await eventually(async () => (await offset(replica, 'master_link_status')) === 'up', { every: 100, what: 'the replica is in touch' });
    const there = Number(await offset(cluster.redis, 'master_repl_offset'));
    await eventually(async () => Number(await offset(replica, 'slave_repl_offset')) >= there, { what: 'the replica has everything' });
    await replica.command('REPLICAOF', 'NO', 'ONE');
    return replica;
  }

  /** The master dies; the replica is where it was. */
  async function replace(cluster, replica) {
    const master = cluster.redis;
    await master.child.stop('SIGKILL');
    cluster.redis = replica;
    for (const { toRedis } of cluster.nodes) toRedis.point(replica.url);
    await master.stop();
  }

  /** Keeps a node from Redis; gives what lets it back. */
  function cutOff({ toRedis }) {
    toRedis.watch(() => 'cut before');
    toRedis.cut();
    return () => toRedis.watch(undefined);
  }

  e2e('the newest of an answer is lost with it', { timeout: 60_000 }, mending(async (cluster) => {
    const play = await scene(cluster);
    await play.send(0);
    const replica = await behind(cluster);
    await say(play.answer, play.readers, 'there ', 'was ');
    for (const n of [0, 1, 2]) await play.send(n);
    await say(play.answer, play.readers, 'no ');
    await replace(cluster, replica);
    await say(play.answer, play.locals, 'king ');
    await endsWell(play);
  }));

  e2e('the end of an answer is lost with it, after all had heard it', { timeout: 60_000 }, mending(async (cluster) => {
    const play = await scene(cluster);
    const replica = await behind(cluster);
    await say(play.answer, play.readers, 'a time. ');
    play.answer.end();
    await Promise.all(play.readers.map((reader) => ended(reader)));
    await play.send(0);
    await replace(cluster, replica);
    await play.send(1);
    await play.newcomer(2);
    await isComplete(play);
  }));

  e2e('what a node did not hear is lost with it, in the middle of an answer', { timeout: 60_000 }, mending(async (cluster) => {
    const play = await scene(cluster);
    const replica = await behind(cluster);
    const back = cutOff(cluster.nodes[2]);
    const connected = play.readers.filter(({ url }) => url !== cluster.nodes[2].url);
    await say(play.answer, connected, 'there ', 'was ');
    for (const n of [0, 1]) await play.send(n);
    await say(play.answer, connected, 'no ');
    await replace(cluster, replica);
    back();
    await endsWell(play);
  }));

  e2e('the end of an answer, and a message after it, that a node did not hear are lost with it', { timeout: 60_000 }, mending(async (cluster) => {
    const play = await scene(cluster);
    const replica = await behind(cluster);
    const back = cutOff(cluster.nodes[2]);
    const connected = play.readers.filter(({ url }) => url !== cluster.nodes[2].url);
    await say(play.answer, connected, 'a time. ');
    play.answer.end();
    await Promise.all(connected.map((reader) => ended(reader)));
    await play.send(0);
    await eventually(async () => (await cluster.database.query('SELECT count(*) FROM outbox')) === '0', { every: 50, what: 'all is in the log' });
    await replace(cluster, replica);
    back();
    await play.newcomer(2);
    await isComplete(play);
  }));

  e2e('the beginning of an answer is lost with it', { timeout: 60_000 }, mending(async (cluster) => {
    const play = await scene(cluster, { starts: false });
    const replica = await behind(cluster);
    const back = cutOff(cluster.nodes[2]);
    await play.start();
    const connected = play.readers.filter(({ url }) => url !== cluster.nodes[2].url);
    await say(play.answer, connected, 'there ', 'was ');
    await replace(cluster, replica);
    back();
    await endsWell(play);
  }));
});
