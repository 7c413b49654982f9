// SIGTERM in the middle of answers: they are finished or handed over, nobody loses a word, and stock
// clients come back by themselves.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { begin, closing, ended, everybody, isStored, joined, living, newest, roamer, written } from './harness/families.mjs';
import { rest } from './harness/rest.mjs';
import { prompt, startUpstream, story, teller } from './harness/upstream.mjs';
import { eventually, lasting, ok, open, sessionId, suite, token, within } from './harness.mjs';

const upstream = await startUpstream();
after(() => upstream.stop());
upstream.on('*', teller({ perSecond: 50 }));
const agents = { assistant: { tokensPerSecond: 50, tokens: 60 }, story: upstream.agent('story') };
const env = { ...upstream.env };

const GONE = { code: 0, signal: null };

/** A story asked for on the first node, heard by all families on the other nodes and by one device that nginx puts anywhere. */
async function answer(cluster, question) {
  const who = await begin(cluster);
  const readers = await everybody(cluster.nodes.slice(1).map(({ url }) => url), who);
  const own = await joined([['session', cluster.nodes[0].url]], who, { session: { reconnection: false } });
  const roams = await roamer(cluster.url, who);
  const ids = await rest(cluster.nodes[0], who.sub).post('/api/chat/streams', { sessionId: who.id, prompt: question, agentId: 'story' });
  await eventually(() => written(readers[0]).length > 100, { what: 'the answer has begun' });
  return { who, readers, own: own[0], roams, ...ids };
}

async function endsWell(cluster, { who, readers, roams, streamId }, question, attempts) {
  for (const reader of readers) await ended(reader);
  const stored = await newest(cluster, who);
  for (const reader of readers) isStored(reader, stored, story(question).join(''));
  await roams.ended(streamId);
  assert.deepEqual([roams.answer(streamId).text, roams.wrong], [stored.content, []], 'the one that comes back');
  for (const { family, name, events } of readers) {
    assert.equal(events.filter(family.isReset).length, name === 'conversation' ? 1 : 0, `${name} is not told to start over`);
  }
  assert.equal((await rest(living(cluster), who.sub).get(`/api/chat/streams/${streamId}/status`)).status, 'completed');
  assert.equal(await cluster.database.query(`SELECT attempt FROM stream WHERE id = '${streamId}'`), String(attempts));
}

suite('drain: a short grace', { nodes: 3, nginx: true, agents, env: { ...env, SHUTDOWN_GRACE: '2s' } }, (e2e) => {
  e2e('a long answer is handed over at once', { timeout: 60_000 }, closing(async (cluster) => {
    const question = prompt(400, 'long');
    const asked = await answer(cluster, question);
    cluster.nodes[0].signal('SIGTERM');
    await eventually(() => asked.own.events.find(({ name }) => name === 'server:shutdown'), { what: 'server:shutdown' });
    assert.deepEqual(await within(15_000, 'the process exits', cluster.nodes[0].exited), GONE);
    const [first] = upstream.of(':long');
    assert.ok(!first.open && !first.whole, 'its upstream connection is closed');
    const second = await upstream.asked(':long', 1);
    assert.ok(story(question).join('').startsWith(second.partial) && second.partial !== '', 'the other goes on');
    await endsWell(cluster, asked, question, 2);
    await cluster.again(0);
  }));

  e2e('the last node has nobody to hand over to: the answer ends, with its text kept', { timeout: 60_000 }, async (cluster) => {
    const [one, two, three] = cluster.nodes;
    const { socket, heard } = await open(one.url, { token: token() });
    await Promise.all([two, three].map((node) => node.stop()));
    const ids = await ok(socket, 'stream:request', { sessionId: sessionId('last'), prompt: prompt(400, 'last'), agentId: 'story' });
    await heard.next('stream:chunk', ({ offset }) => offset > 50);
    one.signal('SIGTERM');
    assert.deepEqual(await within(15_000, 'the process exits', one.exited), GONE);
    const [status, partial] = (await cluster.database.query(
      `SELECT status, content FROM stream JOIN message ON message.id = message_id WHERE stream.id = '${ids.streamId}'`,
    )).split('|');
    assert.equal(status, 'failed');
    assert.ok(partial.length > 50, 'its text is kept');
    await Promise.all([0, 1, 2].map((n) => cluster.again(n)));
  });
});

suite('drain: a long grace', { nodes: 3, nginx: true, agents, env: { ...env, SHUTDOWN_GRACE: '20s' } }, (e2e) => {
  e2e('an answer is finished where it runs', { timeout: 60_000 }, closing(async (cluster) => {
    const question = prompt(120, 'finished');
    const asked = await answer(cluster, question);
    cluster.nodes[0].signal('SIGTERM');
    await endsWell(cluster, asked, question, 1);
    assert.deepEqual(await within(30_000, 'the process exits', cluster.nodes[0].exited), GONE);
    assert.equal(upstream.of(':finished').length, 1);
  }));
});

suite('a rolling restart', { nodes: 3, nginx: true, agents, env: { ...env, SHUTDOWN_GRACE: '4s' } }, (e2e) => {
  e2e('under load: no answer fails, no text is lost', { timeout: 120_000 }, async (cluster) => {
    let over = false;
    let answers = 0;
    let startedOver = 0;
    const devices = [];
    /** One after the other, as a stock frontend asks: with socket.io-client's own retries. */
    const converse = async (n) => {
      const id = sessionId('rolling');
      const device = await roamer(cluster.url, { sub: `user-${n}`, id }, { retries: 10, ackTimeout: 5_000 });
      devices.push(device);
      for (let asked = 0; !over; asked += 1) {
        const [question, agentId] = n % 2 ? [prompt(200, `${id}-${asked}`), 'story'] : [`And ${asked}, ${id}?`, 'assistant'];
        const request = { sessionId: id, prompt: question, agentId, clientMessageId: `${asked}` };
        const { streamId, messageId } = await eventually(async () => {
          const said = await device.socket.emitWithAck('stream:request', request);
          if (!said.ok) assert.equal(said.error.code, 'OVERLOADED', JSON.stringify(said));
          return said.ok && said;
        }, { every: 200, what: 'somebody answers' });
        device.answer(streamId, messageId);
        const { name, message } = await device.ended(streamId);
        assert.ok(['stream:complete', 'messages:missed'].includes(name), `${name}: ${JSON.stringify(message)}`);
        const { text, resets } = device.answer(streamId);
        // Who joins with an offset past where another node went on may be told to start over.
        startedOver += resets;
        assert.deepEqual(device.wrong, []);
        assert.equal(text, message.content);
        if (n % 2) assert.equal(text, story(question).join(''));
        answers += 1;
      }
      device.close();
    };
    const sessions = Array.from({ length: 20 }, (_, n) => converse(n));
    const failed = Promise.race(sessions.map((one) => one.then(() => new Promise(() => {}))));
    failed.catch(() => {});
    await lasting(1_000);
    for (const n of [0, 1, 2]) {
      cluster.nodes[n].signal('SIGTERM');
      const end = await Promise.race([failed, within(20_000, 'the process exits', cluster.nodes[n].exited)]);
      assert.deepEqual(end, GONE, `${cluster.nodes[n].name}`);
      await cluster.again(n);
    }
    over = true;
    await Promise.all(sessions);
    for (const { heard, returns } of devices) {
      assert.ok(returns > 0, 'each had to come back, since every node went');
      assert.equal(heard.of('server:shutdown').length, returns, 'and was told each time');
    }
    const ends = await cluster.database.query("SELECT status, count(*) FROM stream GROUP BY status");
    assert.equal(ends, `completed|${answers}`);
    assert.ok(startedOver <= answers / 10, `${startedOver} of ${answers} started over`);
    const taken = await cluster.database.query('SELECT count(*) FROM stream WHERE attempt > 1');
    console.log(`rolling restart: ${answers} answers, ${taken} handed over, ${startedOver} shown from the start again`);
  });
});
