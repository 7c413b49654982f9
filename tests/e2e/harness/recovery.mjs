// Frontends that rely on Socket.IO's connection state recovery, and what they are told in the end.

import assert from 'node:assert/strict';
import { FAMILIES } from './families.mjs';
import { client, eventually, ok, open, record } from '../harness.mjs';

export const DIALECTS = ['session', 'subscribe', 'conversation', 'persona'];

/** Limits that clients which come back often would run into. */
export const ENV = { MAX_CONNECTIONS_PER_USER: '0', SOCKET_EVENTS_MAX: '0' };

/**
 * A client's patience, shortened where it is waited for. `timeout`: Node's WebSocket, where the connection ends with the
 * very bytes that open it, tells nobody, and the stock client gives it twenty seconds.
 */
export const QUICK = { reconnectionDelay: 20, reconnectionDelayMax: 200, timeout: 2_000 };

/**
 * A frontend: it joins when it is connected, unless its connection was recovered. `again(one)` gives what it emits all the
 * same where it was recovered.
 */
export function frontend(url, dialect, { jwt, id }, { again, ...options } = {}) {
  const family = FAMILIES[dialect];
  const socket = client(url, { token: jwt, ...QUICK, ...options });
  const one = { dialect, family, socket, heard: record(socket), recovered: 0, fresh: 0, refused: [], joinsAgain: again !== undefined };
  socket.on('connect', () => {
    if (socket.recovered) {
      one.recovered += 1;
      for (const event of again?.(one) ?? []) socket.emit(...event);
    } else {
      one.fresh += 1;
      socket.emit(...family.join(id));
    }
  });
  socket.on('connect_error', (error) => {
    // What carries it was cut: it comes back by itself. A refusal is for good.
    if (!socket.active) one.refused.push(error.message);
  });
  return one;
}

/** Until each has joined, and could come back. */
export const haveJoined = (all) =>
  Promise.all(all.map((one) => eventually(() => one.heard.offsets.some((offset) => offset !== '-'), { what: `${one.dialect} has joined` })));

const BESIDE = /^(presence|user|connection|typing|server):|^(subscribed|chat:(joined|session|user-.*|typing))$/;
const sessionOf = (payload) => payload?.sessionId ?? payload?.conversationId ?? payload?.message?.sessionId;

/**
 * What it was told of the conversation; the chunks of one answer that follow each other as one. Frontends that join again
 * may be told to forget a running answer, and are told all of it then.
 */
export function story({ family, heard, joinsAgain }, session) {
  const told = [];
  for (const event of heard.events) {
    if (BESIDE.test(event.name) || (session && sessionOf(event.payload) !== session)) continue;
    if (event.name === 'messages:missed' && event.payload.messages.length === 0) continue;
    const chunk = family.chunk(event);
    if (joinsAgain && family.isReset(event)) {
      const begins = family.answer.includes(event.name); // as an answer's first event, too
      if (told.at(-1)?.[0] === 'text') told.pop();
      else if (begins && told.at(-1)?.[0] !== event.name) told.push([event.name, event.payload]);
      continue;
    }
    if (chunk === undefined || family.isLast(event)) told.push([event.name, event.payload]);
    else if (told.at(-1)?.[0] === 'text') told.at(-1)[1] += chunk;
    else told.push(['text', chunk]);
  }
  return told;
}

/** A `session` device that says and asks things. */
export async function speaker(url, { jwt, id }) {
  const driver = await open(url, { token: jwt, auth: { dialect: 'session' } });
  for (const session of [id].flat()) await ok(driver.socket, 'session:join', { sessionId: session });
  return driver;
}

/** Sends a message: its id. */
export const send = async (driver, id, content) => (await ok(driver.socket, 'message:send', { sessionId: id, content })).message.id;

/** Asks, and waits for the end of the answer. */
export async function answer(driver, id, prompt, more = {}) {
  const { streamId } = await ok(driver.socket, 'stream:request', { sessionId: id, prompt, ...more });
  return driver.heard.finished(streamId);
}

/** Two messages, two answers, and what can be done about messages. */
export async function talk(driver, id, { n = 0, agentId } = {}) {
  const first = await send(driver, id, `First ${n}`);
  await answer(driver, id, `One ${n}`, { agentId });
  const second = await send(driver, id, `Second ${n}`);
  await ok(driver.socket, 'message:edit', { messageId: first, content: `First, edited ${n}` });
  await ok(driver.socket, 'message:reaction', { messageId: second, emoji: '👍' });
  await answer(driver, id, `Two ${n}`, { agentId });
  await ok(driver.socket, 'message:delete', { messageId: second });
}

/** One more answer, until everybody has all of it: in persona's words only answers are heard. */
export async function theEnd(driver, id, all, { within = 30_000 } = {}) {
  const end = await answer(driver, id, 'The end');
  const { content } = end.payload.message;
  const has = ({ family, heard }) => heard.events.some((event) => family.whole?.(event)?.[1] === content && family.whole(event)[0] === end.payload.message.id);
  await Promise.all(all.map((one) => eventually(() => has(one), { within, what: `${one.dialect} has heard the end` }).catch((error) => {
    error.message += `; ${JSON.stringify({ ...one, family: undefined, socket: one.socket.connected, heard: one.heard.names().slice(-12) })}`;
    throw error;
  })));
}

/**
 * Each was told what an uncut one of its dialect was told. With `apart`, text is compared by itself: how it stands to
 * what is said beside an answer is no two readers' concern.
 */
export function sameStories(cut, whole, { apart = false } = {}) {
  const told = (one) => {
    const all = story(one);
    if (!apart) return all;
    const text = all.filter(([name]) => name === 'text').map(([, chunk]) => chunk);
    return [...all.filter(([name]) => name !== 'text'), text.join('')];
  };
  for (const one of cut) {
    const uncut = whole.find(({ dialect }) => dialect === one.dialect);
    assert.deepEqual(told(one), told(uncut), `${one.dialect}, ${one.what ?? ''}`);
  }
}
