// Whether what is really sent is what /asyncapi.json says: a conversation in each dialect, of which every
// event and every acknowledgement has to fit its schema and to say nothing that its schema does not name.

import assert from 'node:assert/strict';
import { afterEach } from 'node:test';
import Ajv from 'ajv';
import { eventually, no, ok, open, sessionId, suite, token } from './harness.mjs';
import { ask, endAll, stream } from './harness/eventsource.mjs';
import { at, makeSession, rest } from './harness/rest.mjs';

afterEach(endAll);

const FORMATS = {
  uuid: /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
  'date-time': /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/,
};

/** The schemas, each closed: a field that it does not name is one too many. */
function closed(schema) {
  if (Array.isArray(schema)) return schema.map(closed);
  if (schema === null || typeof schema !== 'object') return schema;
  const inner = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, closed(value)]));
  const isObject = inner.type === 'object' && inner.properties && inner.additionalProperties === undefined;
  return isObject ? { ...inner, additionalProperties: false } : inner;
}

/** What `/asyncapi.json` says of one dialect: `fits` asserts, and notes in `seen` what it was asked about. */
function judge(document, dialect) {
  const ajv = new Ajv({ strict: false, allErrors: true, formats: FORMATS, validateFormats: true, logger: false });
  const { channels, components } = closed({ channels: document.channels, components: document.components });
  ajv.addSchema({ $id: 'asyncapi', channels, components: { schemas: components.schemas } });
  const seen = new Set();
  const fits = (key, value) => {
    const message = channels[dialect].messages[key];
    assert.ok(message, `${dialect}: ${key} is not in the document`);
    const at = `asyncapi#/channels/${dialect}/messages/${key.replaceAll(':', '%3A')}/payload`;
    const validate = ajv.getSchema(at);
    assert.ok(validate(value), `${dialect}: ${key}: ${ajv.errorsText(validate.errors)}\n${JSON.stringify(value, null, 2)}`);
    seen.add(key);
  };
  return { fits, seen, keys: Object.keys(channels[dialect].messages) };
}

const RARE = {
  // They take the death of a node, a connection of a great age, or a model that thinks or asks for tools.
  session: ['server.stream:resumed', 'server.stream:reset', 'server.stream:event', 'server.server:timeout'],
  subscribe: ['server.message:reset', 'server.server:timeout'],
  sse: ['server.reset'],
};

const conversations = {
  async session({ cluster, ada, bob, asked, refused }) {
    const id = sessionId('schemas');
    await asked(ada, 'session:join', { sessionId: id });
    await rest(cluster.nodes[0], ada.sub).post(at.members(id), { userId: bob.sub });
    await asked(bob, 'session:join', { sessionId: id, streams: {} });
    const attachments = [{ fileName: 'a', fileUrl: '/a', mimeType: 'text/plain', fileSize: 1, metadata: { of: [1] } }];
    const { message } = await asked(ada, 'message:send', { sessionId: id, content: 'Hi', attachments, clientMessageId: 'own' });
    const reply = await asked(bob, 'message:send', { sessionId: id, content: 'Hi', parentMessageId: message.id, clientMessageId: null });
    await asked(bob, 'message:reaction', { messageId: message.id, emoji: '👍' });
    await asked(ada, 'message:edit', { messageId: message.id, content: 'Hi!' });
    await asked(bob, 'message:delete', { messageId: reply.message.id });
    await asked(bob, 'message:seen', { sessionId: id, messageId: message.id });
    await asked(bob, 'typing:start', { sessionId: id, userName: 'Bob' });
    await asked(bob, 'typing:stop', { sessionId: id });
    const whole = await asked(ada, 'stream:request', { sessionId: id, prompt: 'Why?', agentId: 'quick', config: { temperature: 0, maxTokens: 50 } });
    await ada.heard.next('stream:complete', (payload) => payload.streamId === whole.streamId);
    const stopped = await asked(ada, 'stream:request', { sessionId: id, prompt: 'Why?', agentId: 'slow', clientMessageId: 'why' });
    await ada.heard.next('stream:chunk', (payload) => payload.streamId === stopped.streamId);
    // With what was missed, and an answer that is being written.
    const later = await open(cluster.nodes[0].url, { token: token({ sub: ada.sub }) });
    const joined = await asked({ ...later, sub: ada.sub }, 'session:join', { sessionId: id, lastMessageId: message.id, streams: { [stopped.streamId]: 0 } });
    assert.equal(joined.activeStreams.length, 1);
    assert.ok(joined.missed > 0);
    await asked(bob, 'stream:stop', { streamId: stopped.streamId });
    await ada.heard.next('stream:stopped', (payload) => payload.streamId === stopped.streamId);
    const silent = await asked(ada, 'stream:request', { sessionId: id, prompt: 'Why?', agentId: 'silent' });
    await ada.heard.next('stream:error', (payload) => payload.streamId === silent.streamId);
    const panel = await asked(ada, 'stream:request', { sessionId: id, prompt: 'Why?', agentId: 'panel' });
    await ada.heard.next('stream:complete', (payload) => payload.streamId === panel.streamId);
    await refused(bob, 'INVALID', 'message:send', { sessionId: id });
    await refused(bob, 'NOT_FOUND', 'message:edit', { messageId: 'nonsense', content: 'x' });
    bob.socket.emit('message:send', { sessionId: id, clientMessageId: 'refused' });
    await bob.heard.next('error', (payload) => payload.clientMessageId === 'refused');
    await asked(bob, 'session:leave', { sessionId: id });
    await ada.heard.next('user:left', (payload) => payload.userId === bob.sub);
    await asked(bob, 'session:join', { sessionId: id });
    bob.socket.disconnect();
    await ada.heard.next('presence:update', (payload) => payload.userId === bob.sub && payload.status === 'offline');
    await cluster.nodes[0].stop();
    await ada.heard.next('server:shutdown', () => true);
    return [later];
  },

  async subscribe({ cluster, ada, bob, asked, refused }) {
    const id = sessionId('schemas');
    await asked(ada, 'subscribe', { sessionId: id });
    await rest(cluster.nodes[0], ada.sub).post(at.members(id), { userId: bob.sub });
    await asked(bob, 'subscribe', id);
    const { promptMessageId } = await asked(ada, 'message:send', { sessionId: id, content: 'Hi' });
    await ada.heard.next('message:complete');
    await bob.heard.next('message:complete');
    await rest(cluster.nodes[0], ada.sub).post('/api/chat/streams', { sessionId: id, prompt: 'Why?', agentId: 'panel' });
    await eventually(() => ada.heard.events.filter(({ name }) => name === 'message:complete').length === 2, { what: 'the panel has answered' });
    const later = await open(cluster.nodes[0].url, { token: token({ sub: ada.sub }), auth: { dialect: 'subscribe' } });
    await asked(later, 'subscribe', { sessionId: id, lastMessageId: promptMessageId });
    await later.heard.next('messages:missed', ({ messages }) => messages.length > 0);
    await refused(bob, 'INVALID', 'subscribe', {});
    bob.socket.emit('message:send', { sessionId: id });
    await bob.heard.next('error');
    await asked(bob, 'unsubscribe', id);
    await cluster.nodes[0].stop();
    await ada.heard.next('server:shutdown');
    return [later];
  },

  async conversation({ cluster, ada, bob, asked, refused }) {
    const conversationId = sessionId('schemas');
    await asked(ada, 'chat:join', { conversationId });
    await rest(cluster.nodes[0], ada.sub).post(at.members(conversationId), { userId: bob.sub });
    await asked(bob, 'chat:join', { conversationId });
    await ada.heard.next('chat:user-joined');
    for (const isTyping of [true, false]) await asked(bob, 'chat:typing', { conversationId, isTyping });
    await asked(ada, 'chat:send', { conversationId, content: 'Hi', role: 'user' });
    await bob.heard.next('chat:complete');
    await refused(bob, 'INVALID', 'chat:send', { conversationId });
    bob.socket.emit('chat:send', { conversationId });
    await bob.heard.next('chat:error');
    await asked(bob, 'chat:leave', { conversationId });
    await ada.heard.next('chat:user-left');
    return [];
  },

  async persona({ ada, asked, refused }) {
    await asked(ada, 'chat:auth', { userId: ada.sub });
    const { sessionId: id } = await asked(ada, 'chat:join', { personaId: 'quick' });
    await asked(ada, 'chat:message', { sessionId: id, content: 'Hi' });
    await ada.heard.next('chat:response');
    const again = await asked(ada, 'chat:join', { personaId: 'quick' });
    assert.ok(again.messages.length >= 2, 'what was said is in the answer to a join');
    await refused(ada, undefined, 'chat:join', {});
    ada.socket.emit('chat:message', { sessionId: id });
    await ada.heard.next('chat:error');
    return [];
  },
};

const agents = { quick: { tokensPerSecond: 400, tokens: 20 }, short: { tokensPerSecond: 400, tokens: 5 }, slow: { tokensPerSecond: 20, tokens: 1_000 }, silent: { tokensPerSecond: 0.01, tokens: 5 } };
const env = { STREAM_TIMEOUT: '2s' };

const pipelines = { panel: [{ name: 'thinkers', agents: ['quick', 'short'] }, { name: 'speaker', agents: ['quick'] }] };

suite('schemas', { fresh: true, nodes: 1, agents, pipelines, env }, (e2e) => {
  for (const [dialect, conversation] of Object.entries(conversations)) {
    e2e(`dialect ${dialect}: what is sent is what is described`, { timeout: 60_000 }, async (cluster) => {
      const document = await rest(cluster.nodes[0], 'x', { jwt: null }).get('/asyncapi.json');
      const { fits, seen, keys } = judge(document, dialect);
      const person = async (sub) => ({ sub, ...(await open(cluster.nodes[0].url, { token: token({ sub, name: sub }), auth: { dialect } })) });
      const ada = await person('ada');
      const bob = await person('bob');
      const asked = async ({ socket }, event, payload) => {
        fits(`client.${event}`, payload);
        const ack = await ok(socket, event, payload);
        fits(`client.${event}.ack`, ack);
        return ack;
      };
      const refused = async ({ socket }, code, event, payload) => {
        fits(`client.${event}.ack`, { ok: false, error: await no(socket, code, event, payload) });
      };
      const others = await conversation({ cluster, ada, bob, asked, refused });
      for (const { heard } of [ada, bob, ...others]) for (const { name, payload } of [...heard.events, ...heard.places]) fits(`server.${name}`, payload);
      assert.deepEqual(keys.filter((key) => !seen.has(key)).sort(), [...(RARE[dialect] ?? [])].sort(), 'every event was tried, but for rare ones');
    });
  }

  e2e('SSE: what is sent is what is described', { timeout: 60_000 }, async ({ nodes: [node] }) => {
    const { fits, seen, keys } = judge(await rest(node, 'x', { jwt: null }).get('/asyncapi.json'), 'sse');
    const jwt = token({ sub: 'ada' });
    const readers = [];
    for (const agentId of ['panel', 'silent']) {
      const id = await makeSession(node, 'ada', [], { agentId });
      readers.push(await stream(node.url, `/chat/stream/${id}`, { token: jwt }));
      await ask(node, jwt, id);
    }
    await readers[0].done();
    await eventually(() => readers[1].events.some(({ event }) => event === 'error'), { what: 'the silent one fails' });
    for (const { events } of readers) for (const { event, data } of events) fits(`server.${event || 'message'}`, data);
    assert.deepEqual(keys.filter((key) => !seen.has(key)), RARE.sse, 'every event was heard, but for rare ones');
  });
});
