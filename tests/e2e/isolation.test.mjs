// What the nodes tell each other, by their own count: a node without readers of a session is told
// nothing of it, and a chunk is published once however many read it.

import assert from 'node:assert/strict';
import { at, rest } from './harness/rest.mjs';
import { eventually, metrics, ok, open, sessionId, suite, token } from './harness.mjs';

const PUBLISHED = 'cluster_events_published_total';
const RECEIVED = 'cluster_events_received_total';

/** Both counters of each node. */
const counters = (cluster) =>
  Promise.all(
    cluster.nodes.map(async (node) => {
      const { sum } = await metrics(node);
      return { published: sum(PUBLISHED), received: sum(RECEIVED) };
    }),
  );

/** What was counted since `before`. */
const since = async (cluster, before) =>
  (await counters(cluster)).map((now, n) => ({
    published: now.published - before[n].published,
    received: now.received - before[n].received,
  }));

/** Until the counters stand still: what was set in motion has arrived. */
async function quiet(cluster) {
  let last;
  await eventually(
    async () => {
      const now = JSON.stringify(await counters(cluster));
      const same = now === last;
      last = now;
      return same;
    },
    { every: 300, what: 'the counters stand still' },
  );
  return counters(cluster);
}

/** One answer in a fresh session, asked for on the first node and read by `readers` on the second. */
async function answerWith(cluster, readers) {
  const id = sessionId('publish');
  const asker = await open(cluster.nodes[0].url, { token: token() });
  await ok(asker.socket, 'session:join', { sessionId: id });
  const others = [];
  for (let n = 0; n < readers; n += 1) {
    const other = await open(cluster.nodes[1].url, { token: token() });
    await ok(other.socket, 'session:join', { sessionId: id });
    others.push(other);
  }
  const before = await quiet(cluster);
  const { streamId } = await ok(asker.socket, 'stream:request', { sessionId: id, prompt: 'How often?' });
  const seen = [];
  for (const { heard } of [asker, ...others]) {
    assert.equal((await heard.finished(streamId)).name, 'stream:complete');
    seen.push(heard.follow(streamId));
  }
  await quiet(cluster);
  const [owner, reader, stranger] = await since(cluster, before);
  // What readers were shown: chunks, and the prompt, the start and the end.
  const shown = Math.max(...seen.map((one) => one.chunks)) + 3;
  return { owner, reader, stranger, shown };
}

suite('isolation', { nodes: 3 }, (e2e) => {
  e2e('a node without readers of a session receives nothing of it', {}, async (cluster) => {
    // It has a socket, in another session: it is in the cluster and listens.
    const bystander = await open(cluster.nodes[2].url, { token: token({ sub: 'bob' }) });
    await ok(bystander.socket, 'session:join', { sessionId: sessionId('elsewhere') });
    const { owner, reader, stranger, shown } = await answerWith(cluster, 1);
    assert.ok(owner.published >= 5, `published ${owner.published}`);
    assert.ok(reader.received >= 5, `the reader's node received ${reader.received} for ${shown} shown`);
    assert.deepEqual(stranger, { published: 0, received: 0 });
    assert.ok(!bystander.heard.names().some((name) => name.startsWith('stream:') || name === 'message:new'));
  });

  e2e('nothing is published when nobody reads, and the answer is stored', {}, async (cluster) => {
    const api = rest(cluster.nodes[0], 'alice');
    const id = sessionId('unread');
    const before = await quiet(cluster);
    await api.post('/api/chat/streams', { sessionId: id, prompt: 'Who reads?', agentId: 'quick' });
    await eventually(async () => {
      const { messages } = await api.get(at.history(id));
      return messages.find(({ role }) => role === 'assistant');
    }, { what: 'the answer is stored' });
    await quiet(cluster);
    assert.deepEqual(await since(cluster, before), cluster.nodes.map(() => ({ published: 0, received: 0 })));
  });

  e2e('a chunk is published once, whatever the number of readers', { timeout: 60_000 }, async (cluster) => {
    const runs = [];
    for (const readers of [1, 25]) runs.push({ readers, ...(await answerWith(cluster, readers)) });
    for (const { readers, owner, reader, shown } of runs) {
      const told = `${readers} readers: published ${owner.published}, received ${reader.received}, shown ${shown}`;
      assert.ok(reader.received >= 5, told);
      // Not shown: the provider's end. Joined on their way to a reader: chunks, where it was behind.
      assert.ok(owner.published + reader.published <= shown * 1.5 + 5, told);
      assert.ok(reader.received <= owner.published + reader.published, `${told}: received once each`);
    }
    // The same answer is cut differently each time, but not into more pieces for more readers.
    const [one, many] = runs.map(({ owner, reader }) => owner.published + reader.published);
    assert.ok(many <= one * 1.5 + 5, `published ${one} for one reader and ${many} for 25`);
  });

  e2e('a node lets go of a session after its last reader', { timeout: 60_000 }, async (cluster) => {
    const id = sessionId('let-go');
    const asker = await open(cluster.nodes[0].url, { token: token() });
    await ok(asker.socket, 'session:join', { sessionId: id });
    const reader = await open(cluster.nodes[1].url, { token: token() });
    await ok(reader.socket, 'session:join', { sessionId: id });
    const watched = await quiet(cluster);
    const first = await ok(asker.socket, 'stream:request', { sessionId: id, prompt: 'Who listens?', agentId: 'instant' });
    await reader.heard.finished(first.streamId);
    assert.ok((await since(cluster, watched))[1].received > 0, 'with a reader, its node receives');

    await ok(reader.socket, 'session:leave', { sessionId: id });
    const heard = reader.heard.events.length;
    // A few seconds later, by its own clock: answers are asked for until one reaches nobody there.
    await eventually(
      async () => {
        const before = await quiet(cluster);
        const { streamId } = await ok(asker.socket, 'stream:request', { sessionId: id, prompt: 'Still there?', agentId: 'instant' });
        await asker.heard.finished(streamId);
        await quiet(cluster);
        return (await since(cluster, before))[1].received === 0;
      },
      { within: 30_000, what: 'the reader’s node receives nothing any more' },
    );
    const after = reader.heard.events.slice(heard).map(({ name }) => name);
    assert.deepEqual(after.filter((name) => name.startsWith('stream:') || name === 'message:new'), []);
  });

  e2e('that somebody stopped typing is told once, and not where they did not type', {}, async (cluster) => {
    const id = sessionId('stop');
    const typist = await open(cluster.nodes[0].url, { token: token() });
    await ok(typist.socket, 'session:join', { sessionId: id });
    const before = await quiet(cluster);
    for (let n = 0; n < 20; n += 1) await ok(typist.socket, 'typing:stop', { sessionId: id });
    assert.equal((await since(cluster, before))[0].published, 0);
    await ok(typist.socket, 'typing:start', { sessionId: id });
    for (let n = 0; n < 20; n += 1) await ok(typist.socket, 'typing:stop', { sessionId: id });
    assert.equal((await since(cluster, before))[0].published, 2);
  });
});
