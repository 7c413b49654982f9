// One session, five readers, four dialects and server-sent events, three nodes: each hears every
// answer in its own words and in its own family's order, whoever asked and in whose words, and each
// event crosses the cluster once, however many vocabularies it is told in. The model says what the
// test tells it to, so the middle of an answer lasts as long as it takes to look.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { begin, closing, everybody, FAMILIES, hears, isStored, joined, listen, LIVE, NAMES, newest, reader, say, written } from './harness/families.mjs';
import { startModel } from './harness/model.mjs';
import { rest } from './harness/rest.mjs';
import { eventually, metrics, suite } from './harness.mjs';

const model = await startModel();
after(() => model.stop());

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

  e2e('the node that asks the model dies: another goes on, and all hear one answer', { timeout: 90_000 }, closing(async (cluster) => {
    const who = await begin(cluster);
    const [one, two, three] = cluster.nodes.map((node) => node.url);
    const readers = await everybody([one, two], who);
    const asker = await reader('session', three, who);
    await asker.ask('Who is left?!');
    const first = await model.asked('Who is left?!');
    await say(first, readers, ...BITS.slice(0, 2));
    cluster.nodes[2].signal('SIGKILL');
    const next = await model.asked('Who is left?!', 1);
    assert.ok(next.turns.some(({ role, content }) => role === 'assistant' && content === first.text), 'it is given what was said');
    for (const bit of BITS.slice(2)) next.say(bit);
    next.end();
    for (const one of readers) {
      // That another node goes on is told where there is a word for it; nobody has to do anything.
      const goesOn = { 'stream:chunk×': ['stream:chunk×', 'stream:resumed', 'stream:chunk×'] };
      const resumed = one.family.answer.flatMap((word) => goesOn[word] ?? [word]);
      await hears(one, resumed);
    }
    const stored = await newest(cluster, who);
    for (const one of readers) isStored(one, stored, BITS.join(''));
  }));
});
