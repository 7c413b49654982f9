// Pipelines over models that say what the test tells them to: stages in order, agents side by side, a
// gate, failures, stopping, and another node that goes on after the stages that are over.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { begin, closing, ended, everybody, isStored, newest, written } from './harness/families.mjs';
import { rest } from './harness/rest.mjs';
import { prompt, startUpstream, story, teller } from './harness/upstream.mjs';
import { assertError, eventually, ok, open, sessionId, suite, token } from './harness.mjs';

const upstream = await startUpstream();
after(() => upstream.stop());

const models = ['gate', 'left', 'right', 'friend'];
const agents = { assistant: {}, ...Object.fromEntries(models.map((model) => [model, upstream.agent(model, { system: `You are ${model}.` })])) };
const pipelines = {
  deep: [
    { name: 'facilitator', agents: ['gate'], gate: true },
    { name: 'psychologists', agents: ['left', 'right'] },
    { name: 'wise-friend', agents: ['friend'] },
  ],
};
const STAGES = pipelines.deep.flatMap(({ name, agents: who }, index) =>
  ['started', 'completed'].map((status) => ({ stage: name, status, agents: who, index, total: 3 })));

/** The request of a model that this question led to. */
const asked = (model, question, n) => upstream.asked((ask) => ask.model === model && ask.all.includes(question), n);
const count = (model, question) => upstream.of((ask) => ask.model === model && ask.all.includes(question)).length;
const proceed = (ask, go, output) => ask.tell(JSON.stringify({ proceed: go, output }));

/** The pipeline, asked on the first node; all families read, `urls` says where. */
async function start(cluster, question, nodes = cluster.nodes) {
  const who = await begin(cluster);
  const readers = await everybody(nodes.map(({ url }) => url), who);
  const ids = await rest(cluster.nodes[0], who.sub).post('/api/chat/streams', { sessionId: who.id, prompt: question, agentId: 'deep' });
  return { who, readers, question, ...ids };
}

const stagesOf = ({ events }) => events.filter(({ name }) => name === 'pipeline:stage' || name === 'stage').map(({ payload }) => payload);

/** Who has words for stages was told these, as far as its words go. */
function toldOf(running, stages) {
  for (const reader of running.readers) {
    const told = stagesOf(reader).map((payload) => Object.fromEntries(Object.entries(payload).filter(([key]) => key in STAGES[0])));
    const fields = { session: ['stage', 'status', 'agents', 'index', 'total'], subscribe: ['stage', 'status'], sse: ['stage', 'status'] }[reader.name];
    if (!fields) assert.deepEqual(told, [], `${reader.name} has no word for it`);
    else assert.deepEqual(told.map((one) => fields.map((field) => one[field])), stages.map((one) => fields.map((field) => one[field])), reader.name);
  }
}

async function endsWith(cluster, running, text) {
  for (const reader of running.readers) await ended(reader);
  const stored = await newest(cluster, running.who);
  for (const reader of running.readers) isStored(reader, stored, text);
}

const failed = async ({ readers }) => {
  const session = readers.find(({ name }) => name === 'session');
  await ended(session);
  const error = session.events.find(({ name }) => name === 'stream:error');
  assert.ok(error, `failed: ${session.events.map(({ name }) => name)}`);
  return error.payload.error;
};

suite('pipelines', { nodes: 3, agents, pipelines, env: upstream.env }, (e2e) => {
  e2e('stages in their order, agents side by side, the last stage streamed', { timeout: 60_000 }, closing(async (cluster) => {
    const question = prompt(30, 'in-order');
    const running = await start(cluster, question);
    const gate = await asked('gate', question);
    assert.match(gate.all, /You are gate\./);
    assert.equal(count('left', question), 0, 'nobody speaks before the gate');
    proceed(gate, true, 'GATE SAYS GO');
    const [left, right] = [await asked('left', question), await asked('right', question)];
    assert.ok(left.open && right.open && !left.whole && !right.whole, 'they overlap');
    right.tell('RIGHT SAYS NO');
    assert.equal(count('friend', question), 0, 'the next stage waits for both');
    left.tell('LEFT SAYS YES');
    const friend = await asked('friend', question);
    for (const said of ['LEFT SAYS YES', 'RIGHT SAYS NO', 'You are friend.']) assert.ok(friend.all.includes(said), `the last one is told: ${said}`);
    await teller({ perSecond: 100 })(friend);
    await endsWith(cluster, running, story(question).join(''));
    toldOf(running, STAGES);
    for (const { name, events } of running.readers) {
      const heard = JSON.stringify(events);
      assert.doesNotMatch(heard, /SAYS/, `${name} hears the last stage only`);
      // A stage is told before its text, and is over before the end of the answer.
      const order = events.map(({ name: event, payload }) => (event.endsWith('stage') ? payload.status : event));
      if (name === 'session') {
        assert.ok(order.lastIndexOf('started') < order.indexOf('stream:chunk'), `${order}`);
        assert.ok(order.lastIndexOf('completed') < order.indexOf('stream:complete'), `${order}`);
        assert.ok(events.filter(({ name: event }) => event === 'stream:chunk').length > 3, 'streamed');
      }
    }
    // Of all of it: each asked once, and their usage together.
    assert.deepEqual(models.map((model) => count(model, question)), [1, 1, 1, 1]);
    const used = running.readers.find(({ name }) => name === 'session').events.find(({ name }) => name === 'stream:complete').payload.usage;
    const all = upstream.of((ask) => ask.all.includes(question));
    assert.equal(used.inputTokens, all.reduce((sum, { input }) => sum + input, 0), 'usage of all stages');
  }));

  e2e('a gate that says no: its output is the answer', { timeout: 30_000 }, closing(async (cluster) => {
    const question = prompt(30, 'refused');
    const running = await start(cluster, question);
    proceed(await asked('gate', question), false, 'Ask a “friend”, 世界 😀.');
    await endsWith(cluster, running, 'Ask a “friend”, 世界 😀.');
    toldOf(running, STAGES.slice(0, 2));
    assert.deepEqual(models.map((model) => count(model, question)), [1, 0, 0, 0]);
  }));

  e2e('a gate that answers anything else ends the pipeline with an error', { timeout: 60_000 }, closing(async (cluster) => {
    for (const [n, garbage] of ['Sure, go ahead!', '{"proceed":"yes","output":""}', '[true]', '{"output":"no"}'].entries()) {
      const question = prompt(30, `garbage-${n}`);
      const running = await start(cluster, question);
      (await asked('gate', question)).tell(garbage);
      assertError({ event: '', ...(await failed(running)) }, 'PROVIDER_ERROR');
      assert.equal(count('left', question), 0, garbage);
      assert.equal(count('friend', question), 0, garbage);
      for (const reader of running.readers) reader.close();
    }
  }));

  e2e('one agent of a stage fails: the pipeline does, and nobody is left asked', { timeout: 30_000 }, closing(async (cluster) => {
    const question = prompt(30, 'failing');
    const running = await start(cluster, question);
    proceed(await asked('gate', question), true, 'go');
    const [left, right] = [await asked('left', question), await asked('right', question)];
    right.say('RIGHT SAYS ');
    left.refuse(400);
    const error = await failed(running);
    assertError({ event: '', ...error }, 'PROVIDER_ERROR');
    assert.doesNotMatch(JSON.stringify(error), /secret/);
    await right.closed;
    assert.ok(right.dropped, 'the other one’s upstream connection is closed');
    assert.equal(count('friend', question), 0);
    toldOf(running, STAGES.slice(0, 3));
  }));

  e2e('a stop stops all of it', { timeout: 60_000 }, closing(async (cluster) => {
    const question = prompt(30, 'stopped');
    const running = await start(cluster, question);
    proceed(await asked('gate', question), true, 'go');
    const both = [await asked('left', question), await asked('right', question)];
    both[0].say('LEFT SAYS ');
    await rest(cluster.nodes[1], running.who.sub).post(`/api/chat/streams/${running.streamId}/stop`, {});
    await Promise.all(both.map(({ closed }) => closed));
    assert.equal(upstream.open(question), 0, 'all upstream connections are closed');
    const session = running.readers.find(({ name }) => name === 'session');
    await ended(session);
    assert.equal(session.events.find(({ name }) => name === 'stream:stopped').payload.content, '');
    assert.equal(count('friend', question), 0);
  }));

  e2e('the node is killed in the second stage: the first is not asked again', { timeout: 60_000 }, closing(async (cluster) => {
    const question = prompt(30, 'second');
    const running = await start(cluster, question, cluster.nodes.slice(1));
    proceed(await asked('gate', question), true, 'GATE SAYS GO');
    (await asked('left', question)).tell('LEFT SAYS ONCE');
    await asked('right', question);
    await eventually(() => stagesOf(running.readers[0]).length === 3, { what: 'the second stage is told' });
    cluster.nodes[0].signal('SIGKILL');
    const [left, right] = [await asked('left', question, 1), await asked('right', question, 1)];
    left.tell('LEFT SAYS YES');
    right.tell('RIGHT SAYS NO');
    const friend = await asked('friend', question);
    assert.ok(friend.all.includes('LEFT SAYS YES') && friend.all.includes('RIGHT SAYS NO'));
    await teller({ perSecond: 100 })(friend);
    await endsWith(cluster, running, story(question).join(''));
    assert.equal(count('gate', question), 1, 'the gate is not asked again');
    await cluster.again(0);
  }));

  e2e('the node is killed in the last stage: it goes on in it', { timeout: 60_000 }, closing(async (cluster) => {
    const question = prompt(30, 'third');
    const running = await start(cluster, question, cluster.nodes.slice(1));
    proceed(await asked('gate', question), true, 'GATE SAYS GO');
    (await asked('left', question)).tell('LEFT SAYS YES');
    (await asked('right', question)).tell('RIGHT SAYS NO');
    const first = await asked('friend', question);
    for (const part of story(question).slice(0, 12)) first.say(part);
    await eventually(() => written(running.readers[0]) === first.text, { what: 'what was said is shown' });
    cluster.nodes[0].signal('SIGKILL');
    const second = await asked('friend', question, 1);
    assert.equal(second.partial, first.text, 'it is given what was said');
    for (const said of ['LEFT SAYS YES', 'RIGHT SAYS NO']) assert.ok(second.all.includes(said), `and told: ${said}`);
    await teller({ perSecond: 100 })(second);
    await endsWith(cluster, running, story(question).join(''));
    assert.deepEqual(models.map((model) => count(model, question)), [1, 1, 1, 2]);
    toldOf(running, STAGES);
    await cluster.again(0);
  }));
});

suite('the demo pipeline', { database: 'sqlite', redis: false, env: { AGENTS_FILE: '' } }, (e2e) => {
  e2e('is there without an agents file', { timeout: 30_000 }, async (cluster) => {
    const all = await rest(cluster.nodes[0], 'alice').get('/api/chat/agents');
    const demo = all.agents.find(({ id }) => id === 'demo-panel');
    assert.ok(demo, JSON.stringify(all));
    const { socket, heard } = await open(cluster.nodes[0].url, { token: token() });
    const { streamId } = await ok(socket, 'stream:request', { sessionId: sessionId('demo'), prompt: 'What do you say?', agentId: 'demo-panel' });
    const end = await heard.finished(streamId);
    assert.equal(end.name, 'stream:complete', JSON.stringify(end.payload));
    assert.equal(heard.follow(streamId).text, end.payload.message.content);
    const stages = heard.of('pipeline:stage').map(({ stage, status }) => `${stage} ${status}`);
    assert.deepEqual(stages, ['host', 'panel', 'friend'].flatMap((name) => [`${name} started`, `${name} completed`]));
  });
});
