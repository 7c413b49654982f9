// People who leave words wherever they may, each word once in the world; all that is ever sent to them,
// byte for byte; and the search for one's words in what others were sent.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { client, connected, eventually, get, ok, open, record, token } from '../harness.mjs';
import { stream } from './eventsource.mjs';
import { FAMILIES } from './families.mjs';
import { AGENT } from './model.mjs';
import { at, rest } from './rest.mjs';

const hex = () => randomBytes(8).toString('hex');

/** The model's side: what it answers has a word that follows from the prompt's; it goes on for as long as it is asked to. */
export async function answerer(ask) {
  const word = /zqPrompt([0-9a-f]+)/.exec(ask.prompt)?.[1];
  ask.say(`So: ${word ? `zqAnswer${word}` : 'yes'} `);
  if (!ask.prompt.includes('endless')) return ask.end();
  const more = setInterval(() => (ask.open ? ask.say('on ') : clearInterval(more)), 500);
}

/** Somebody, and everything that they are sent, in `bytes`. */
export class Person {
  /** Each word that is theirs, by where they left it. */
  words = {};
  bytes = [];
  #readers = [];

  constructor(cluster, name) {
    this.cluster = cluster;
    this.name = name;
    this.sub = `${name}-${this.word('User')}`;
    this.shown = `${name} ${this.word('Name')}`;
    this.jwt = token({ sub: this.sub, name: this.shown });
  }

  /** A new word of theirs. */
  word(where) {
    const id = hex();
    this.words[`${where}${Object.keys(this.words).length}`] = `zq${where}${id}`;
    if (where === 'Prompt') this.words[`Answer${Object.keys(this.words).length}`] = `zqAnswer${id}`;
    return `zq${where}${id}`;
  }

  /** A request over HTTP; the answer is theirs to be searched, its headers too. */
  async call(method, path, { body, headers = {}, node = 0, jwt = this.jwt } = {}) {
    const answer = await rest(this.cluster.nodes[node], this.sub, { jwt }).call(method, path, body, headers);
    this.bytes.push(JSON.stringify([...answer.headers]), answer.text);
    return answer;
  }

  /** As `call`, for what has to succeed. */
  async did(method, path, body, more) {
    const answer = await this.call(method, path, { body, ...more });
    assert.ok(answer.status < 300, `${this.name}: ${method} ${path}: ${answer.status} ${answer.text}`);
    return answer.body;
  }

  /** A socket, every packet of which is kept. */
  async socket({ dialect = 'session', node = 0, ...options } = {}) {
    return this.#kept(await open(this.cluster.nodes[node].url, { token: this.jwt, auth: { dialect }, ...options }));
  }

  /** A socket that comes back with a pid and an offset, as if it had been told them. */
  async back({ pid, offset, dialect = 'session', node = 0 }) {
    const socket = client(this.cluster.nodes[node].url, { token: this.jwt, auth: { dialect }, autoConnect: false });
    const heard = record(socket);
    Object.assign(socket, { _pid: pid, _lastOffset: offset });
    socket.connect();
    await connected(socket);
    return this.#kept({ socket, heard });
  }

  #kept(device) {
    device.socket.io.engine.on('packet', ({ data }) => this.bytes.push(String(data)));
    // What came before the listener did.
    this.bytes.push(JSON.stringify([...device.heard.events, ...device.heard.places]));
    return device;
  }

  /** An event stream, every byte of which is kept; gives what `stream` gives. */
  async listen(path, { node = 0, token: jwt = this.jwt, ...options } = {}) {
    const source = await stream(this.cluster.nodes[node].url, path, { token: jwt, ...options });
    this.#readers.push(source);
    if (source.status !== 200) this.bytes.push(JSON.stringify([source.headers, source.body]));
    return source;
  }

  /** A session of theirs with something of everything in it, and an answer that goes on. */
  async settle({ visibility = 'private', members = [] } = {}) {
    const id = `${this.name}-${this.word('Session')}`;
    await this.did('POST', at.sessions, { title: this.word('Title') });
    await this.did('POST', at.sessions, { id, title: this.word('Title'), visibility });
    for (const { sub } of members) await this.did('POST', at.members(id), { userId: sub });
    const device = await this.socket();
    await ok(device.socket, 'session:join', { sessionId: id });
    const client = this.word('Client');
    const message = await this.did('POST', at.messages, { sessionId: id, content: this.word('Text'), attachments: [this.file()], clientMessageId: client });
    await this.did('POST', at.messages, { sessionId: id, content: this.word('Reply'), parentMessageId: message.id });
    await this.did('POST', at.reactions(message.id), { emoji: '🔏' });
    await ok(device.socket, 'message:seen', { sessionId: id, messageId: message.id });
    const source = await this.listen(`/chat/stream/${id}`);
    const { streamId } = await ok(device.socket, 'stream:request', { sessionId: id, prompt: `endless ${this.word('Prompt')}`, agentId: AGENT });
    await device.heard.next('stream:chunk', (chunk) => chunk.streamId === streamId);
    await source.next(({ id: event }) => event !== undefined, 'an event with an id');
    this.ids = {
      session: id, message: message.id, attachment: message.attachments[0].id, stream: streamId, user: this.sub, client,
      event: source.lastEventId, cursor: (await this.did('GET', `${at.sessions}?limit=1`)).nextCursor,
    };
    return { device, source };
  }

  file = () => ({
    fileName: this.word('File'), fileUrl: `https://files.example/${this.word('Url')}`, mimeType: 'text/plain', fileSize: 1,
    metadata: { of: this.word('Metadata') },
  });

  /** All that is stored of their session, as they read it; without the times of looking. */
  async stored() {
    const { session, message, stream: streamId } = this.ids;
    const found = {};
    for (const path of [
      at.sessions, at.session(session), at.history(session, '?limit=100'), at.members(session), at.reactions(message), at.attachments(message),
      at.thread(message), at.presence(session), at.message(message), at.search(session, { query: 'zq' }),
    ]) {
      const { status, text } = await this.call('GET', path);
      assert.equal(status, 200, `${path}: ${text}`);
      found[path] = text.replace(/"lastSeenAt":"[^"]+"/g, '"lastSeenAt":"now"');
    }
    found.stream = (await this.call('GET', at.status(streamId))).body.status;
    return found;
  }

  /** What they were sent until now is no concern. */
  forget() {
    this.bytes.length = 0;
    for (const reader of this.#readers) reader.raw = '';
  }

  /** All that they were sent. */
  sent() {
    return [...this.bytes, ...this.#readers.flatMap(({ raw = '', headers }) => [raw, JSON.stringify(headers)])].join('\n');
  }
}

/** Joins a person's session in a dialect's words: what is given is that of `socket`. */
export async function joins(person, dialect, node, id) {
  const device = await person.socket({ dialect, node });
  await ok(device.socket, ...FAMILIES[dialect].join(id));
  return device;
}

/** A person's day in their session, on one node: everything that can be done there, in all five families, with words of theirs. */
export async function lives(person, id, node) {
  const { socket, heard } = await joins(person, 'session', node, id);
  const content = () => person.word('Text');
  const { message } = await ok(socket, 'message:send', { sessionId: id, content: content(), clientMessageId: person.word('Client'), attachments: [person.file()] });
  await ok(socket, 'message:edit', { messageId: message.id, content: content() });
  await ok(socket, 'message:reaction', { messageId: message.id, emoji: '🔏' });
  await ok(socket, 'message:seen', { sessionId: id, messageId: message.id });
  await ok(socket, 'typing:start', { sessionId: id, userName: person.word('Typing') });
  await ok(socket, 'typing:stop', { sessionId: id });
  const { streamId } = await ok(socket, 'stream:request', { sessionId: id, prompt: person.word('Prompt'), clientMessageId: person.word('Client') });
  await heard.finished(streamId);
  await ok(socket, 'message:delete', { messageId: message.id });
  const ends = (events, family) => eventually(() => events().some(family.isEnd), { what: 'the end of an answer' });
  for (const dialect of ['subscribe', 'conversation', 'persona']) {
    const family = FAMILIES[dialect];
    const device = await joins(person, dialect, node, id);
    const own = dialect === 'persona' ? (await ok(device.socket, ...family.join())).sessionId : id;
    await ok(device.socket, ...family.ask(own, person.word('Prompt')));
    await ends(() => device.heard.events, family);
    if (dialect === 'conversation') await ok(device.socket, 'chat:typing', { conversationId: id, isTyping: true });
    device.socket.disconnect();
  }
  const source = await person.listen(`/ai/chat/${id}`, { node });
  await person.did('POST', '/chat/message', { sessionId: id, content: person.word('Prompt') }, { node });
  await source.done();
  source.close();
  await person.did('POST', at.messages, { sessionId: id, content: content(), attachments: [person.file()] }, { node });
  socket.disconnect();
}

/**
 * Asserts that none of the words of `whose` is in what `whom` were sent, but for `known` ones (those that they
 * themselves sent in ids). Gives how many words were looked for in how many bytes.
 */
export function searched(whose, whom, { known = [] } = {}) {
  let [words, bytes] = [0, 0];
  for (const reader of whom) {
    const sent = reader.sent();
    assert.ok(Object.values(reader.words).some((word) => sent.includes(word)), `${reader.name} was sent nothing, not even of their own: the search is blind`);
    bytes += sent.length;
    for (const owner of whose.filter((one) => one !== reader)) {
      for (const [where, word] of Object.entries(owner.words)) {
        if (known.includes(where.replace(/\d+$/, ''))) continue;
        words += 1;
        const found = sent.indexOf(word);
        assert.ok(found < 0, `${owner.name}’s ${where} reached ${reader.name}: …${sent.slice(Math.max(0, found - 200), found + 60)}…`);
      }
    }
  }
  return { words, bytes };
}

/** A document of the program. */
export const document = async (node, name) => (await get(`${node.url}/${name}.json`)).json();
