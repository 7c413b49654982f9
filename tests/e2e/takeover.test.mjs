// The node that generates is killed, frozen, or cut off from the database or from Redis, at any
// moment of an answer: another one goes on, every reader of every family ends with the one text, and
// that text is stored once. KILLS=200 is `make takeover`.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { begin, closing, ended, everybody, isStored, joined, LIVE, living, newest, pause, reader, roamer, written } from './harness/families.mjs';
import { rest } from './harness/rest.mjs';
import { prompt, startUpstream, story, teller } from './harness/upstream.mjs';
import { eventually, lasting, ok, open, random, sessionId, startCluster, suite, token } from './harness.mjs';

const KILLS = Number(process.env.KILLS ?? 10);
const TOKENS = 120;

const upstream = await startUpstream();
after(() => upstream.stop());
upstream.on('story', teller({ perSecond: 80 }));
// The first time that it is asked it never comes to an end by itself.
upstream.on('zombie', async (ask, n) => {
  if (n > 0) return teller({ perSecond: 80 })(ask);
  for (const token of ask.story()) {
    ask.say(token);
    await lasting(25);
  }
  while (ask.open) {
    ask.say('and the zombie says ');
    await lasting(100);
  }
});

// What a scripted agent says follows from the prompt and the model's name: `oracle` says it at once.
const agents = {
  assistant: { tokensPerSecond: 80, tokens: TOKENS },
  oracle: { tokensPerSecond: 0, tokens: TOKENS },
  restarting: { tokensPerSecond: 80, tokens: TOKENS, onTakeover: 'restart' },
  story: upstream.agent('story'),
  afresh: upstream.agent('story', { onTakeover: 'restart' }),
  told: upstream.agent('told'),
  zombie: upstream.agent('zombie'),
};

/** What a scripted agent answers. */
async function oracle(cluster, question) {
  const { socket, heard } = await open(living(cluster).url, { token: token({ sub: 'oracle' }) });
  const { streamId } = await ok(socket, 'stream:request', { sessionId: sessionId('oracle'), prompt: question, agentId: 'oracle' });
  const { message } = (await heard.finished(streamId)).payload;
  socket.disconnect();
  return message.content;
}

/**
 * An answer asked for on the n-th node, in a session of its own that all families read on the other
 * nodes. `expected` is what it has to be.
 */
async function answerOn(cluster, n, agentId, question, families = everybody) {
  const expected = story(question).join('') || (await oracle(cluster, question));
  const who = await begin(cluster);
  const others = cluster.nodes.filter(({ alive }, other) => alive && other !== n).map(({ url }) => url);
  const readers = await families(others, who);
  // One that may well be on the node that dies, and comes back by itself.
  const own = cluster.nginx && (await roamer(cluster.url, who));
  const asked = rest(cluster.nodes[n], who.sub);
  const ids = await asked.post('/api/chat/streams', { sessionId: who.id, prompt: question, agentId });
  return { who, readers, own, expected, ...ids };
}

/** A session reader only. */
const single = (urls, who) => joined([['session', urls[0]]], who);

const midway = ({ readers }, length) =>
  eventually(() => written(readers[0]).length >= length, { within: 20_000, every: 2, what: `${length} characters` });

const row = async (cluster, streamId) => {
  const columns = 'status, attempt, owner_node_id, (stop_requested IS NOT NULL)';
  const [status, attempt, owner, stopped] = (await cluster.database.query(`SELECT ${columns} FROM stream WHERE id = '${streamId}'`)).split('|');
  return { status, attempt: Number(attempt), owner, stopped: stopped === 't' };
};

/** Every reader has the text that is expected, and so has the store, once; more than one attempt was made. */
async function endsWell(cluster, { who, readers, own, expected, streamId, messageId }, { attempts = 2, status = 'completed' } = {}) {
  for (const reader of readers) await ended(reader);
  const stored = await newest(cluster, who);
  assert.equal(stored.id, messageId);
  for (const reader of readers) isStored(reader, stored, expected);
  if (own && !cluster.nodes.some(({ isAway }) => isAway)) {
    await own.ended(streamId);
    assert.deepEqual([own.answer(streamId).text, own.wrong], [expected, []], 'the one that comes back');
  }
  const rows = await cluster.database.query(
    `SELECT content = convert_from(decode('${Buffer.from(expected).toString('hex')}', 'hex'), 'UTF8') FROM message
     WHERE session_id = '${who.id}' AND role = 'assistant'`,
  );
  assert.equal(rows, 't', 'stored once, byte for byte');
  const found = await row(cluster, streamId);
  assert.equal(found.status, status);
  assert.ok(found.attempt >= attempts, `${found.attempt} attempts`);
  return found;
}

const quantile = (values, share) => [...values].sort((a, b) => a - b)[Math.max(0, Math.ceil(values.length * share) - 1)];

/** The longest time without text of those who saw text come. */
const longest = (readers) => Math.max(...readers.filter(({ name }) => LIVE.includes(name)).map(pause));

const CLUSTER = { nodes: 3, nginx: true, agents, env: upstream.env };

/** Kills a generating node again and again; gives how long each answer's readers were without text. */
async function kill(cluster, kills, dice) {
  const pauses = [];
  for (let n = 0; n < kills; n += 1) {
    const at = dice.below(3);
    // Two answers on the node that dies: a scripted one, and one of a model that goes on where it is told to.
    const answers = await Promise.all([
      answerOn(cluster, at, 'assistant', `Kill ${dice.seed} ${n}`),
      answerOn(cluster, at, 'story', prompt(TOKENS, `kill-${dice.seed}-${n}`)),
    ]);
    const length = dice.below(Math.min(...answers.map(({ expected }) => expected.length)));
    await midway(dice.pick(answers), length);
    cluster.nodes[at].signal('SIGKILL');
    await cluster.nodes[at].exited;
    const back = cluster.again(at);
    for (const answer of answers) {
      // The last words may have been stored before the node died.
      const { attempt } = await endsWell(cluster, answer, { attempts: 1 });
      if (attempt > 1) pauses.push(longest(answer.readers));
      for (const reader of [...answer.readers, answer.own]) reader.close();
    }
    await back;
  }
  return pauses;
}

suite('takeover', CLUSTER, (e2e) => {
  e2e('the node that generates is killed, at random tokens', { timeout: 120_000 + KILLS * 20_000 }, closing(async (cluster) => {
    // In two clusters at a time: most of it is waiting for a silence to be long enough.
    const dice = random();
    const second = await startCluster(CLUSTER);
    try {
      const half = Math.floor(KILLS / 2);
      const pauses = (await Promise.all([kill(cluster, KILLS - half, dice), kill(second, half, random(dice.seed + 1))])).flat();
      assert.ok(pauses.length >= KILLS, `${pauses.length} answers were taken over`);
      const ms = Object.entries({ p50: 0.5, p99: 0.99, max: 1 }).map(([name, share]) => `${name} ${Math.round(quantile(pauses, share))}`).join('  ');
      console.log(`takeover: ${KILLS} kills, ${pauses.length} answers taken over; without text, ms: ${ms}`);
    } finally {
      await second.stop();
    }
  }));

  e2e('on_takeover = "restart": everybody is told to start over, and ends with one text', { timeout: 60_000 }, closing(async (cluster) => {
    const answers = await Promise.all([answerOn(cluster, 0, 'restarting', 'Again!'), answerOn(cluster, 0, 'afresh', prompt(TOKENS, 'again'))]);
    await Promise.all(answers.map((answer) => midway(answer, 150)));
    cluster.nodes[0].signal('SIGKILL');
    for (const answer of answers) {
      await endsWell(cluster, answer);
      for (const { name, family, events } of answer.readers) {
        const resets = { session: 1, subscribe: 1, conversation: 2, sse: 1, persona: 0 }[name]; // conversation: chat:thinking, as at the start
        assert.equal(events.filter(family.isReset).length, resets, `${name} is told`);
      }
    }
    await cluster.again(0);
  }));

  e2e('killed before the first token', { timeout: 60_000 }, closing(async (cluster) => {
    const question = prompt(40, 'before-the-first');
    const answer = await answerOn(cluster, 0, 'told', question);
    const first = await upstream.asked(question);
    first.begin();
    cluster.nodes[0].signal('SIGKILL');
    const second = await upstream.asked(question, 1);
    assert.equal(second.partial, '', 'there is nothing to go on with');
    await teller({ perSecond: 400 })(second);
    await endsWell(cluster, answer);
    await cluster.again(0);
  }));

  e2e('the claimer is killed too', { timeout: 60_000 }, closing(async (cluster) => {
    const answer = await answerOn(cluster, 0, 'story', prompt(400, 'twice'), ([one, two], who) =>
      joined([['session', one], ['session', two], ['sse', one], ['sse', two]], who));
    await midway(answer, 200);
    cluster.nodes[0].signal('SIGKILL');
    const second = await upstream.asked(':twice', 1);
    await eventually(() => second.text.length > 200, { what: 'the second attempt says something' });
    const ids = await Promise.all([1, 2].map(async (n) => [n, await nodeId(cluster.nodes[n])]));
    const { owner } = await row(cluster, answer.streamId);
    const [claimer] = ids.find(([, id]) => id === owner);
    cluster.nodes[claimer].signal('SIGKILL');
    const { url } = cluster.nodes[3 - claimer];
    await Promise.all([0, claimer].map((n) => cluster.again(n)));
    // Those of the claimer's readers went with it.
    const left = answer.readers.filter((reader) => reader.url === url);
    assert.ok(left.length > 0);
    await endsWell(cluster, { ...answer, readers: left }, { attempts: 3 });
  }));

  e2e('killed between the provider’s end and the stored answer', { timeout: 60_000 }, closing(async (cluster) => {
    // The answer's row cannot be written while the prompt's session is locked.
    const question = prompt(60, 'not-stored');
    const answer = await answerOn(cluster, 0, 'told', question);
    const ask = await upstream.asked(question);
    for (const token of story(question)) ask.say(token);
    await midway(answer, answer.expected.length);
    const lock = cluster.database.query(`BEGIN; SELECT 1 FROM session WHERE id = '${answer.who.id}' FOR UPDATE; SELECT pg_sleep(4); COMMIT`);
    const waiting = (event) => async () =>
      Number(await cluster.database.query(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event${event}`)) > 0;
    await eventually(waiting(" = 'PgSleep'"), { what: 'the session is locked' });
    ask.end();
    await eventually(waiting("_type = 'Lock'"), { what: 'the answer waits to be stored' });
    cluster.nodes[0].signal('SIGKILL');
    await lock;
    await endsWell(cluster, answer);
    assert.equal(upstream.of(':not-stored').length, 1, 'the model is not asked again');
    await cluster.again(0);
  }));

  e2e('a stop that was requested on a dead node’s stream is kept', { timeout: 60_000 }, closing(async (cluster) => {
    const answer = await answerOn(cluster, 0, 'story', prompt(400, 'stopped'));
    await midway(answer, 150);
    cluster.nodes[0].signal('SIGKILL');
    await cluster.nodes[0].exited;
    await rest(cluster.nodes[1], answer.who.sub).post(`/api/chat/streams/${answer.streamId}/stop`, {});
    for (const reader of answer.readers) if (reader.name !== 'persona') await ended(reader);
    const stored = await newest(cluster, answer.who);
    assert.ok(stored.content.length >= 150 && answer.expected.startsWith(stored.content), 'the text so far');
    for (const reader of answer.readers.filter(({ name }) => LIVE.includes(name))) assert.equal(written(reader), stored.content, reader.name);
    assert.equal((await row(cluster, answer.streamId)).status, 'stopped');
    assert.equal(upstream.of(':stopped').length, 1, 'the model is not asked again');
    await cluster.again(0);
  }));

  e2e('a frozen node that wakes up is refused, and lets go of its upstream', { timeout: 60_000 }, closing(async (cluster) => {
    const answer = await answerOn(cluster, 0, 'zombie', prompt(TOKENS, 'frozen'));
    const first = await upstream.asked('frozen');
    await midway(answer, 100);
    cluster.nodes[0].signal('SIGSTOP');
    await upstream.asked('frozen', 1);
    await endsWell(cluster, answer);
    assert.ok(first.open, 'a frozen node lets go of nothing');
    cluster.nodes[0].signal('SIGCONT');
    await eventually(() => upstream.open('frozen') === 0, { what: 'the zombie’s upstream connection is closed' });
    // Nothing that it said reached anybody, nor the store.
    await lasting(500);
    await endsWell(cluster, answer);
    // And it works like the others again.
    const next = await answerOn(cluster, 0, 'assistant', 'Awake?');
    await endsWell(cluster, next, { attempts: 1 });
  }));

  e2e('all nodes are killed, and one is started again', { timeout: 90_000 }, closing(async (cluster) => {
    const answers = [
      await answerOn(cluster, 0, 'assistant', 'Is anybody there?', single),
      await answerOn(cluster, 1, 'story', prompt(TOKENS, 'nobody'), single),
    ];
    await Promise.all(answers.map((answer) => midway(answer, 150)));
    for (const node of cluster.nodes) node.signal('SIGKILL');
    await Promise.all(cluster.nodes.map(({ exited }) => exited));
    await cluster.again(2);
    for (const answer of answers) {
      await eventually(async () => (await row(cluster, answer.streamId)).status === 'completed', { within: 30_000, every: 200, what: 'the answer is complete' });
      await endsWell(cluster, { ...answer, readers: [], own: undefined });
    }
    await Promise.all([cluster.again(0), cluster.again(1)]);
  }));
});

const nodeId = async (node) => {
  const { socket, heard } = await open(node.url, { token: token({ sub: 'probe' }) });
  const hello = await heard.next('connection:success');
  socket.disconnect();
  return hello.nodeId;
};

suite('one node cut off', { nodes: 3, proxied: true, agents, env: { ...upstream.env } }, (e2e) => {
  for (const [way, what] of [['toDatabase', 'the database'], ['toRedis', 'Redis']]) {
    e2e(`a node loses ${what}, and the others do not: one of them goes on`, { timeout: 60_000 }, closing(async (cluster) => {
      const answer = await answerOn(cluster, 0, 'story', prompt(800, way));
      const own = await reader('session', cluster.nodes[0].url, answer.who);
      await midway(answer, 150);
      // No connection of this node gets anywhere from now on.
      let isDown = true;
      cluster.nodes[0].isAway = true;
      cluster.nodes[0][way].watch(() => (isDown ? 'cut before' : undefined));
      cluster.nodes[0][way].cut();
      const second = await upstream.asked(`:${way}`, 1);
      assert.notEqual(second.partial, '', 'it goes on with what there is');
      await endsWell(cluster, answer);
      console.log(`a node without ${what}: without text for ${Math.round(longest(answer.readers))} ms`);
      await eventually(() => upstream.open(`:${way}`) === 0, { within: 15_000, what: 'its upstream connection is closed' });
      isDown = false;
      cluster.nodes[0].isAway = false;
      await endsWell(cluster, { ...answer, readers: [own] });
      await eventually(
        async () => {
          const { status, body } = await rest(cluster.nodes[0], answer.who.sub).call('GET', '/readyz');
          return status === 200 && !body.degraded?.length;
        },
        { within: 20_000, what: 'it is well again' },
      );
      const next = await answerOn(cluster, 0, 'assistant', `And with ${what}?`);
      await endsWell(cluster, next, { attempts: 1 });
    }));
  }
});
