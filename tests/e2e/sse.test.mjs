// Server-sent events: who may open a stream, what is on it, and that whoever comes back with the id
// of any event goes on exactly after it, on any node, whatever happened meanwhile.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, afterEach } from 'node:test';
import { chromium } from 'playwright-core';
import {
  client, each, eventually, freePort, lasting, metrics, nodeOf, open, random, rateLimits, refused, sessionId, suite, token,
} from './harness.mjs';
import { ask, endAll, stream, text } from './harness/eventsource.mjs';
import { at, makeSession, rest } from './harness/rest.mjs';

const path = (id) => `/chat/stream/${id}`;
const alice = () => token();
const SECOND = 1_000;

afterEach(endAll);

/** A reader of a session of Alice's own. */
async function reading(node, id, options = {}) {
  const reader = await stream(node.url, path(id), { token: alice(), ...options });
  assert.equal(reader.status, 200, JSON.stringify(reader.body));
  return reader;
}

/** What is stored of an answer. */
const stored = async (node, messageId) => (await rest(node, 'alice').get(at.message(messageId))).content;

/** A refusal: status, code and message. */
const refusal = ({ status, body }) => [status, body?.error?.code, body?.error?.message];

/** A reader's answers are over as the contract has it: `done: true`, then the named one with the id. */
function assertDone(events, messageId, more = {}) {
  const at = events.findIndex(({ event, data }) => event === '' && data.done && data.messageId === messageId);
  assert.ok(at >= 0, 'an unnamed event with done');
  const [unnamed, named] = events.slice(at, at + 2);
  const { sessionId: _, ...rest } = unnamed.data;
  assert.deepEqual(rest, { done: true, messageId, ...more });
  assert.deepEqual([named.event, named.data], ['done', {}]);
  assert.equal(unnamed.id, undefined, 'only the named one carries the id');
  assert.match(named.id, /^\d+-\d+:\d+/);
}

suite('SSE', { nodes: 2 }, (e2e) => {
  e2e('an answer that was asked for on another node', {}, async (cluster) => {
    const id = sessionId('sse');
    const reader = await reading(cluster.nodes[1], id);
    const { headers } = reader;
    assert.equal(headers['content-type'], 'text/event-stream');
    assert.equal(headers['cache-control'], 'no-cache');
    assert.equal(headers['x-accel-buffering'], 'no');
    assert.equal(headers['content-encoding'], undefined);
    await eventually(() => /^retry: 3000\nid: \d+-\d+:0\n\n/.test(reader.raw));
    const asked = await ask(cluster.nodes[0], alice(), id);
    assert.deepEqual(Object.keys(asked).sort(), ['messageId', 'promptMessageId', 'streamId']);
    await reader.done();
    assert.deepEqual(reader.events[0].data, { sessionId: id, status: 'processing' });
    assertDone(reader.events, asked.messageId);
    const chunks = reader.events.slice(1, -2);
    assert.ok(chunks.length >= 5, `streamed in ${chunks.length} chunks`);
    for (const { event, data, id: at } of chunks) {
      assert.equal(event, '');
      assert.deepEqual(Object.keys(data), ['sessionId', 'chunk']);
      assert.equal(data.sessionId, id);
      assert.match(at, /^\d+-\d+:\d+(:[0-9a-f-]{36}\.\d+\.\d+)+$/);
    }
    assert.equal(reader.text(), await stored(cluster.nodes[1], asked.messageId));
  });

  e2e('the other paths, and places of the token', {}, async (cluster) => {
    const id = sessionId('sse');
    const { url } = cluster.nodes[0];
    const readers = await Promise.all([
      stream(url, `/chat/stream/${id}?token=${alice()}`),
      stream(url, `/stream/ai/${id}`, { headers: { Cookie: `access_token=${alice()}` } }),
      stream(url, `/ai/chat/${id}`, { token: alice() }),
      stream(url, `/stream/ai?session=${id}`, { token: alice() }),
      stream(url, path(id), { headers: { Cookie: `access_token=${alice()}`, Origin: url } }),
    ]);
    const { streamId, messageId } = await rest(cluster.nodes[1], 'alice').post('/api/chat/streams', { sessionId: id, prompt: 'Hi', agentId: 'quick' });
    assert.equal(typeof streamId, 'string');
    for (const reader of readers) {
      assert.equal(reader.status, 200);
      await reader.done();
      assertDone(reader.events, messageId);
    }
    const content = await stored(cluster.nodes[0], messageId);
    for (const reader of readers) assert.equal(reader.text(), content);
    const foreign = { Cookie: `access_token=${alice()}`, Origin: 'https://evil.example' };
    assert.equal((await stream(url, path(id), { headers: foreign })).status, 403);
    // An image or a script on a foreign page, whose requests have no `Origin`.
    const embedded = { Cookie: `access_token=${alice()}`, 'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'no-cors' };
    assert.equal((await stream(url, path(id), { headers: embedded })).status, 401);
    assert.deepEqual(refusal(await stream(url, '/stream/ai', { token: alice() })).slice(0, 2), [400, 'INVALID']);
    assert.equal((await stream(url, path(id), { token: alice(), method: 'HEAD' })).status, 405);
  });

  e2e('stream tokens', {}, async (cluster) => {
    const [id, other] = [sessionId('sse'), sessionId('sse')];
    const [here, there] = cluster.nodes;
    const api = rest(here, 'alice');
    const free = await api.post('/stream/init');
    assert.deepEqual([Object.keys(free).sort(), free.expiresIn], [['expiresIn', 'streamToken'], 300]);
    const { streamToken } = await api.post('/stream/init', { sessionId: id });
    for (const jwt of [free.streamToken, streamToken]) {
      const claims = JSON.parse(Buffer.from(jwt.split('.')[1], 'base64url'));
      assert.deepEqual([claims.sub, claims.type, claims.exp - claims.iat], ['alice', 'sse', 300]);
      assert.equal((await stream(there.url, `${path(id)}?token=${jwt}`)).status, 200, 'on the other node');
      // It is good for nothing else.
      await rest(here, 'alice', { jwt }).refused(401, 'AUTH_ERROR', 'GET', at.sessions);
      await rest(here, 'alice', { jwt }).refused(401, 'AUTH_ERROR', 'POST', '/stream/init');
      await rest(here, 'alice', { jwt }).refused(401, 'AUTH_ERROR', 'POST', '/chat/message', { sessionId: id, content: 'x' });
      assert.equal((await refused(client(here.url, { token: jwt }))).message, 'Authentication error: Invalid token');
    }
    const invalid = [401, 'AUTH_ERROR', 'Authentication error: Invalid token'];
    const expired = [401, 'AUTH_ERROR', 'Authentication error: Token expired'];
    const refuse = async (jwt, session = id, options = {}) => refusal(await stream(there.url, path(session), { token: jwt, ...options }));
    assert.deepEqual(await refuse(streamToken, other), invalid);
    assert.deepEqual(await refuse(undefined), [401, 'AUTH_ERROR', 'Authentication error: Token missing']);
    const foreign = await makeSession(here, 'bob');
    assert.deepEqual((await refuse(free.streamToken, foreign)).slice(0, 2), [404, 'NOT_FOUND']);
    await api.refused(404, 'NOT_FOUND', 'POST', '/stream/init', { sessionId: foreign });
    await api.refused(400, 'INVALID', 'POST', '/stream/init', { sessionId: 'a b' });

    const now = Math.floor(Date.now() / 1000);
    const sse = (claims) => token({ ttl: -60, claims: { type: 'sse', sessionId: id, iat: now - 600, ...claims } });
    assert.deepEqual(await refuse(token({ ttl: -60 })), expired);
    assert.deepEqual(await refuse(sse()), expired);
    const lastEventId = '0-0:0';
    const resumed = await stream(there.url, path(id), { token: sse(), lastEventId });
    assert.equal(resumed.status, 200, 'EventSource comes back with the URL that it has');
    assert.equal((await stream(there.url, `${path(id)}?lastEventId=${lastEventId}`, { token: sse() })).status, 200);
    for (const jwt of [sse({ iat: now - 3_700 }), sse({ iat: undefined }), sse({ sessionId: undefined }), sse({ sessionId: other }), sse({ type: undefined })]) {
      assert.deepEqual(await refuse(jwt, id, { lastEventId }), expired);
    }
    assert.deepEqual(await refuse(sse(), id, { lastEventId: 'nonsense' }), expired);
    for (const lastEventId of ['nonsense', '1', '1-2', '1-2:3:4', 'é']) {
      assert.deepEqual((await refuse(alice(), id, { headers: { 'Last-Event-ID': lastEventId } })).slice(0, 2), [400, 'INVALID'], lastEventId);
      const inQuery = await stream(there.url, `${path(id)}?lastEventId=${encodeURIComponent(lastEventId)}`, { token: alice() });
      assert.equal(inQuery.status, 400, lastEventId);
    }
    assert.equal((await stream(there.url, `${path(id)}?lastEventId=`, { token: alice(), lastEventId: '' })).status, 200);
  });

  e2e('who comes in the middle gets the text so far as one event', {}, async (cluster) => {
    const id = sessionId('sse');
    const first = await reading(cluster.nodes[0], id);
    const { messageId } = await ask(cluster.nodes[0], alice(), id);
    await eventually(() => first.text().length > 40);
    const had = first.text();
    const late = await reading(cluster.nodes[1], id);
    await late.next(({ data }) => data.chunk);
    const [so] = late.events.filter(({ data }) => data.chunk);
    assert.ok(so.data.chunk.startsWith(had), 'as one event');
    await Promise.all([first.done(), late.done()]);
    const content = await stored(cluster.nodes[0], messageId);
    assert.deepEqual([first.text(), late.text()], [content, content]);
    assertDone(late.events, messageId);
    // Nothing older.
    const after = await reading(cluster.nodes[1], id);
    const next = await ask(cluster.nodes[0], alice(), id, 'And then?');
    await after.done();
    assert.equal(after.text(), await stored(cluster.nodes[0], next.messageId));
  });

  e2e('from every id of two answers, on another node, everything that follows', { timeout: 90_000 }, async (cluster) => {
    const id = sessionId('sse');
    const reader = await reading(cluster.nodes[0], id);
    const asked = [];
    for (const n of [1, 2]) {
      asked.push(await ask(cluster.nodes[0], alice(), id, `Question ${n}`));
      await reader.done(n);
    }
    const ids = reader.events.map(({ id: one }, n) => [one, n]).filter(([one]) => one !== undefined);
    const check = async ([lastEventId, n]) => {
      const again = await reading(cluster.nodes[1], id, { lastEventId });
      const rest = reader.events.slice(n + 1);
      const left = (events) => events.filter(({ event }) => event === 'done').length;
      await again.done(left(rest));
      assert.equal(text(again.events), text(rest), `after ${lastEventId}`);
      assert.equal(left(again.events), left(rest));
      assert.equal(again.events.filter(({ data }) => data.status).length, rest.filter(({ data }) => data.status).length);
      again.close();
    };
    assert.ok(ids.length > 10);
    await each(ids.filter(([, n]) => n < reader.events.length - 1), 4, check);

    // Everything that nodes share is lost: what was stored is shown instead.
    await cluster.redis.command('FLUSHALL');
    const [, second] = asked;
    const choice = random();
    const before = reader.events.findIndex(({ data }) => data.done);
    for (let n = 0; n < 4; n += 1) {
      const [lastEventId, from] = choice.pick(ids.filter(([, at]) => at < reader.events.length - 1));
      const again = await reading(nodeOf(cluster, n), id, { lastEventId });
      await again.next(({ data }) => data.messageId === second.messageId);
      assert.equal(text(again.events), text(reader.events.slice(from + 1)), `after ${lastEventId}, which was before ${before}`);
      again.close();
    }
  });

  for (const [when, lostBefore, lostMeanwhile] of [
    ['', false, false],
    [', and the log is lost meanwhile', false, true],
    [', when the log was lost before', true, false],
    [', when the log was lost before, and is again', true, true],
  ]) {
    e2e(`a reader that is cut off before its first event${when}`, {}, async (cluster) => {
      const id = sessionId('sse');
      const [here, there] = cluster.nodes;
      const lose = () => cluster.redis.command('FLUSHALL');
      const answered = async (prompt) => {
        const { messageId } = await rest(here, 'alice').post('/api/chat/streams', { sessionId: id, prompt, agentId: 'quick' });
        const content = await eventually(() => stored(here, messageId).catch(() => undefined));
        return { messageId, content };
      };
      await answered('Before');
      if (lostBefore) await lose();
      const idle = await reading(here, id);
      const at = await eventually(() => idle.lastEventId);
      assert.match(at, lostBefore ? /^0-0:2$/ : /^[1-9]\d*-[1-9]\d*:2$/);
      idle.close();
      assert.equal(idle.raw, `retry: 3000\nid: ${at}\n\n`);
      const { messageId, content } = await answered('Meanwhile');
      if (lostMeanwhile) await lose();
      const back = await reading(there, id, { lastEventId: at });
      await back.done();
      assert.ok(back.raw.startsWith(`retry: 3000\nid: ${at}\n\n`), 'it stands where it stood');
      assertDone(back.events, messageId);
      assert.equal(back.text(), content);
      const next = await answered('After');
      await back.done(2);
      const over = back.events.filter(({ data }) => data.done).map((event) => event.data.messageId);
      assert.deepEqual(over, [messageId, next.messageId]);
      assert.equal(back.text(), content + next.content);
    });
  }

  e2e('a reader that is cut off again and again', { timeout: 60_000 }, async (cluster) => {
    const id = sessionId('sse');
    const choice = random();
    let reader = await reading(cluster.nodes[0], id);
    const { messageId } = await rest(cluster.nodes[0], 'alice').post('/api/chat/streams', { sessionId: id, prompt: 'Much', agentId: 'slow' });
    await reader.next(({ id: one }) => one);
    const heard = [];
    for (;;) {
      await lasting(choice.below(300));
      const over = reader.events.some(({ event }) => event === 'done');
      const { lastEventId } = reader;
      // What comes after the last id it has is given again.
      const known = reader.events.findLastIndex(({ id: one }) => one !== undefined);
      heard.push(...reader.events.slice(0, known + 1));
      reader.close();
      if (over) break;
      reader = await reading(choice.pick(cluster.nodes), id, { lastEventId: lastEventId ?? heard.findLast(({ id: one }) => one)?.id });
    }
    assertDone(heard, messageId);
    assert.equal(text(heard), await stored(cluster.nodes[0], messageId));
    assert.equal(heard.filter(({ data }) => data.status).length, 1);
  });

  e2e('a stopped answer', {}, async (cluster) => {
    const id = sessionId('sse');
    const reader = await reading(cluster.nodes[1], id);
    const api = rest(cluster.nodes[0], 'alice');
    const { streamId, messageId } = await api.post('/api/chat/streams', { sessionId: id, prompt: 'Much', agentId: 'slow' });
    await reader.next(({ data }) => data.chunk);
    await api.post(`/api/chat/streams/${streamId}/stop`);
    await reader.done();
    assertDone(reader.events, messageId, { stopped: true });
    assert.equal(reader.text(), await stored(cluster.nodes[0], messageId));
  });

  e2e('asking again with the same key is one answer', {}, async (cluster) => {
    const id = sessionId('sse');
    const reader = await reading(cluster.nodes[0], id);
    const api = rest(cluster.nodes[1], 'alice');
    const key = { 'Idempotency-Key': sessionId('key') };
    const body = { sessionId: id, content: 'Once' };
    const answers = await Promise.all([1, 2, 3].map(() => api.post('/chat/message', body, key)));
    for (const answer of answers) assert.deepEqual(answer, answers[0]);
    await reader.done();
    const next = await ask(cluster.nodes[0], alice(), id, 'Twice');
    await reader.done(2);
    const over = reader.events.filter(({ data }) => data.done).map(({ data }) => data.messageId);
    assert.deepEqual(over, [answers[0].messageId, next.messageId]);
    for (const bad of [{}, { sessionId: id }, { sessionId: id, content: '' }, { sessionId: 'a b', content: 'x' }]) {
      await api.refused(400, 'INVALID', 'POST', '/chat/message', bad);
    }
    await api.refused(400, 'INVALID', 'POST', '/api/chat/streams', { sessionId: id, prompt: 'x', config: { temperature: 3 } });
    await api.refused(404, 'NOT_FOUND', 'POST', '/api/chat/streams', { sessionId: id, prompt: 'x', agentId: 'nobody' });
    const bobs = await makeSession(cluster.nodes[0], 'bob');
    await api.refused(404, 'NOT_FOUND', 'POST', '/chat/message', { sessionId: bobs, content: 'x' });
  });

  e2e('who is removed is told so, and cannot come back', {}, async (cluster) => {
    const id = await makeSession(cluster.nodes[0], 'bob', ['alice']);
    const reader = await reading(cluster.nodes[1], id);
    await rest(cluster.nodes[0], 'bob').delete(at.member(id, 'alice'));
    assert.equal(await reader.over(), true, 'ended cleanly');
    const told = reader.events.map(({ event, data }) => [event, data.type, Object.keys(data)]);
    assert.deepEqual(told, [['error', 'NOT_FOUND', ['type', 'message']]]);
    assert.deepEqual(refusal(await stream(cluster.nodes[1].url, path(id), { token: alice() })).slice(0, 2), [404, 'NOT_FOUND']);
  });

  e2e('an operator ends the streams of a user, on every node', {}, async (cluster) => {
    const id = sessionId('sse');
    const readers = await Promise.all(cluster.nodes.map((node) => reading(node, id, { token: token({ sub: 'eve' }) })));
    const other = sessionId('sse');
    const beside = await reading(cluster.nodes[1], other);
    const jwt = token({ sub: 'op', claims: { scope: 'tokencast:admin' } });
    await rest(cluster.nodes[0], 'op', { jwt }).post(at.disconnect('eve'));
    for (const reader of readers) assert.equal(await reader.over(), true);
    await ask(cluster.nodes[0], alice(), other);
    await beside.done();
  });

  e2e('a silent stream says that it lives', { timeout: 40_000 }, async (cluster) => {
    const reader = await reading(cluster.nodes[0], sessionId('sse'));
    await eventually(() => reader.comments.length > 0, { within: 25_000, what: 'a comment' });
    assert.deepEqual(reader.comments, ['keepalive']);
    assert.equal(reader.raw, 'retry: 3000\nid: 0-0:0\n\n: keepalive\n\n');
  });

  e2e('nothing is left of readers that go at any moment', {}, async (cluster) => {
    const choice = random();
    const id = sessionId('sse');
    const sub = sessionId('brief');
    const open = async () => (await metrics(cluster.nodes[0])).sum('sse_connections');
    await eventually(async () => (await open()) === 0);
    const reader = await reading(cluster.nodes[0], id, { token: token({ sub }) });
    await eventually(async () => (await open()) === 1);
    await each(Array.from({ length: 40 }), 8, async () => {
      const brief = stream(cluster.nodes[0].url, path(id), { token: token({ sub }) });
      await lasting(choice.below(30));
      brief.then((one) => one.close?.(), () => {});
      if (choice.next() < 0.5) endAll();
    });
    reader.close();
    await eventually(async () => (await open()) === 0, { what: 'every stream is over' });
    const present = async () => (await rest(cluster.nodes[1], sub).get(at.presence(id))).users.filter(({ status }) => status === 'online');
    await eventually(async () => (await present()).length === 0, { within: 15_000, what: 'nobody is there' });
  });
});

suite('a node that drains', { nodes: 2, fresh: true, env: { SHUTDOWN_GRACE: '10s' } }, (e2e) => {
  e2e('ends its streams, and they go on elsewhere', { timeout: 60_000 }, async (cluster) => {
    const id = sessionId('sse');
    const [leaving, staying] = cluster.nodes;
    const reader = await reading(leaving, id);
    const { messageId } = await rest(staying, 'alice').post('/api/chat/streams', { sessionId: id, prompt: 'Much', agentId: 'slow' });
    await reader.next(({ data }) => data.chunk);
    const stopped = leaving.stop('SIGTERM');
    assert.equal(await reader.over(), true, 'cleanly');
    const again = await reading(staying, id, { lastEventId: reader.lastEventId });
    await again.done();
    assert.equal(reader.text() + again.text(), await stored(staying, messageId));
    assert.equal((await stopped).code, 0);
  });
});

suite('limits of streams', { nodes: 2, fresh: true, env: { MAX_CONNECTIONS_PER_USER: '2', RATE_LIMITS: rateLimits({ 'stream:open': '4/60s', 'stream:init': '2/60s' }) } }, (e2e) => {
  e2e('connections of a user, streams opened, tokens', {}, async (cluster) => {
    const id = sessionId('sse');
    const readers = [await reading(cluster.nodes[0], id)];
    await open(cluster.nodes[1].url, { token: alice() });
    const many = await stream(cluster.nodes[1].url, path(id), { token: alice() });
    assert.deepEqual(refusal(many).slice(0, 2), [503, 'OVERLOADED']);
    readers[0].close();
    // One of four was counted; what was refused for another reason was not.
    for (let n = 0; n < 3; n += 1) {
      const reader = await eventually(async () => {
        const next = await stream(nodeOf(cluster, n).url, path(id), { token: alice() });
        return next.status === 200 ? next : undefined;
      });
      reader.close();
    }
    const often = await eventually(async () => {
      const next = await stream(cluster.nodes[0].url, path(id), { token: alice() });
      return next.status === 503 ? undefined : next;
    });
    assert.deepEqual(refusal(often).slice(0, 2), [429, 'RATE_LIMIT']);
    assert.ok(Number(often.headers['retry-after']) > 0);
    const api = rest(cluster.nodes[0], 'alice');
    for (let n = 0; n < 2; n += 1) await api.post('/stream/init');
    assert.ok(Number((await api.refused(429, 'RATE_LIMIT', 'POST', '/stream/init')).retryAfter) > 0);
  });
});

suite('connections of a node', { nodes: 1, env: { MAX_CONNECTIONS: '2' } }, (e2e) => {
  e2e('sockets and streams count together', {}, async (cluster) => {
    const [node] = cluster.nodes;
    await open(node.url, { token: alice() });
    const reader = await reading(node, sessionId('sse'));
    assert.deepEqual(refusal(await stream(node.url, path('x'), { token: alice() })).slice(0, 2), [503, 'OVERLOADED']);
    assert.equal((await refused(client(node.url, { token: alice() }))).message, 'Too many connections');
    reader.close();
    await eventually(async () => (await stream(node.url, path('x'), { token: alice() })).status === 200);
  });
});

const wordy = { SOCKET_BUFFER_MAX: '4KiB', STREAM_DELAY: '1ms', STREAM_DELAY_MAX: '1ms', SOCKET_STALL_TIMEOUT: '90s', STREAM_TIMEOUT: '5m' };
const speeds = { assistant: { tokensPerSecond: 4000, tokens: 8000 }, crawling: { tokensPerSecond: 0.01, tokens: 2 } };
suite('a slow reader', { nodes: 2, env: wordy, agents: speeds }, (e2e) => {
  e2e('gets all of it later, joined, and nobody waits for it', { timeout: 120_000 }, async (cluster) => {
    const id = sessionId('sse');
    const api = rest(cluster.nodes[0], 'alice');
    // Each id names every answer that is not over: so the kernel's buffers are full soon.
    await each(Array.from({ length: 40 }), 4, () => api.post('/api/chat/streams', { sessionId: id, prompt: 'x', agentId: 'crawling' }));
    const slow = await reading(cluster.nodes[1], id);
    const quick = await reading(cluster.nodes[1], id);
    await eventually(() => slow.retry === 3000);
    const coalesced = async () => (await metrics(cluster.nodes[1])).sum('socket_io_coalesced_chunks_total');
    const before = await coalesced();
    slow.pause();
    const asked = [];
    for (let n = 1; n <= 6; n += 1) {
      asked.push(await ask(cluster.nodes[0], alice(), id));
      await quick.done(n, 60 * SECOND);
    }
    assert.ok(slow.events.length < 100);
    slow.resume();
    await slow.done(6, 60 * SECOND);
    const contents = await Promise.all(asked.map(({ messageId }) => stored(cluster.nodes[0], messageId)));
    for (const reader of [slow, quick]) assert.ok(reader.text().endsWith(contents.join('')));
    assert.equal(slow.text().length, quick.text().length);
    assert.ok((await coalesced()) > before, 'what it missed came joined');
  });

  e2e('that may not see the session any more is not left with what waits for it', { timeout: 120_000 }, async (cluster) => {
    const [node] = cluster.nodes;
    const id = sessionId('sse');
    const quick = await reading(node, id);
    // As above, but these answers never were: so the kernel's buffers are full soon.
    const texts = Array.from({ length: 64 }, () => `:${randomUUID()}.1.1`).join('');
    const slow = await reading(node, id, { lastEventId: `0-0:0${texts}` });
    await eventually(() => slow.retry === 3000);
    slow.pause();
    for (let n = 1; n <= 3; n += 1) {
      await ask(node, alice(), id);
      await quick.done(n, 60 * SECOND);
    }
    await rest(node, 'alice').delete(at.session(id));
    assert.equal(await quick.over(), true);
    await eventually(async () => (await metrics(node)).sum('sse_connections') === 0);
    slow.resume();
    assert.equal(await slow.over(), false, 'it was cut off');
  });
});

const upstream = createServer((_, response) => {
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  const delta = (content) => `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`;
  response.write(delta('As far as '));
  setTimeout(() => response.end('data: {"error":{"message":"secret","type":"server_error"}}\n\n'), 300);
});
const upstreamPort = await freePort();
await new Promise((done) => upstream.listen(upstreamPort, '127.0.0.1', done));
after(() => upstream.close());

suite('an answer that breaks off', {
  nodes: 1, env: { AGENTS_FILE: '', OPENAI_BASE_URL: `http://127.0.0.1:${upstreamPort}/v1`, OPENAI_MODEL: 'm' },
}, (e2e) => {
  e2e('ends with an error event', {}, async (cluster) => {
    const id = sessionId('sse');
    const reader = await reading(cluster.nodes[0], id);
    await ask(cluster.nodes[0], alice(), id);
    const error = await reader.next(({ event }) => event === 'error');
    assert.deepEqual(Object.keys(error.data).sort(), ['message', 'type']);
    assert.ok(['PROVIDER_ERROR', 'OVERLOADED'].includes(error.data.type), error.data.type);
    assert.ok(!error.data.message.includes('secret'));
    assert.match(error.id, /^\d+-\d+:\d+/);
    assert.equal(reader.text(), 'As far as ');
  });
});

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** A page that listens to a session through nginx: calls `body` with what it heard, the node that carries it, and the other. */
async function listening(cluster, id, body) {
  assert.ok(existsSync(CHROMIUM), `no browser at ${CHROMIUM}`);
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--no-proxy-server'] });
  try {
    const page = await browser.newPage();
    await page.goto(`${cluster.url}/livez`);
    const { streamToken } = await rest(cluster.nodes[0], 'alice').post('/stream/init', { sessionId: id });
    await page.evaluate(([url]) => {
      window.heard = { text: '', done: [], named: 0, opened: 0, failed: 0 };
      const source = new EventSource(url);
      source.onopen = () => (window.heard.opened += 1);
      source.onerror = () => (window.heard.failed += 1);
      source.onmessage = ({ data }) => {
        const { chunk, done, messageId } = JSON.parse(data);
        if (chunk) window.heard.text += chunk;
        if (done) window.heard.done.push(messageId);
      };
      source.addEventListener('done', () => (window.heard.named += 1));
    }, [`${path(id)}?token=${streamToken}`]);
    const heard = () => page.evaluate(() => window.heard);
    await eventually(async () => (await heard()).opened === 1);
    const carrying = await eventually(async () => {
      for (const node of cluster.nodes) if ((await metrics(node)).sum('sse_connections') === 1) return node;
      return undefined;
    });
    await body(heard, carrying, cluster.nodes.find((node) => node !== carrying));
  } finally {
    await browser.close();
  }
}

const BROWSED = { nodes: 2, nginx: true, fresh: true, env: { SHUTDOWN_GRACE: '10s' } };

suite('EventSource of a browser', BROWSED, (e2e) => {
  e2e('comes back by itself when its node drains', { timeout: 90_000 }, async (cluster) => {
    const id = sessionId('sse');
    await listening(cluster, id, async (heard, carrying, staying) => {
      const { messageId } = await rest(staying, 'alice').post('/api/chat/streams', { sessionId: id, prompt: 'Much', agentId: 'slow' });
      await eventually(async () => (await heard()).text.length > 0);
      await carrying.stop('SIGTERM');
      await eventually(async () => (await heard()).named === 1, { within: 30_000 });
      const end = await heard();
      assert.deepEqual([end.done, end.opened], [[messageId], 2]);
      assert.equal(end.text, await stored(staying, messageId));
    });
  });
});

suite('EventSource of a browser that has heard nothing', BROWSED, (e2e) => {
  e2e('is told what happened while it was away', { timeout: 90_000 }, async (cluster) => {
    const id = sessionId('sse');
    await listening(cluster, id, async (heard, carrying, staying) => {
      const stopped = carrying.stop('SIGTERM');
      await eventually(async () => (await heard()).failed === 1);
      // It waits for three seconds, as it was told; the answer takes much less.
      const { messageId } = await rest(staying, 'alice').post('/api/chat/streams', { sessionId: id, prompt: 'Hi', agentId: 'quick' });
      const content = await eventually(() => stored(staying, messageId).catch(() => undefined));
      await eventually(async () => (await heard()).named === 1, { within: 30_000 });
      const { done, text } = await heard();
      assert.deepEqual([done, text], [[messageId], content]);
      await stopped;
    });
  });
});
