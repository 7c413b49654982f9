// A reader of server-sent events over node:http that records everything it is sent, comments
// included, and comes back only when it is told to.

import assert from 'node:assert/strict';
import { Agent, request } from 'node:http';
import { eventually, get, within } from '../harness.mjs';

const open = new Set();

/** Ends what a failed test left. */
export function endAll() {
  for (const reader of open) reader.close();
}

/**
 * Opens a stream. `url` is a node's or nginx'; gives `{ status, headers, body }` where it is refused, else
 * a reader as well: `events` (`{ id, event, data, at }`, `data` parsed), `comments`, `retry`, `ended` (settled when the
 * response is over: `true` where it was ended cleanly), `lastEventId`.
 */
export function stream(url, path, { token, lastEventId, headers = {}, method = 'GET' } = {}) {
  const agent = new Agent();
  const target = new URL(path, url);
  return new Promise((done, fail) => {
    const asked = request(target, {
      agent,
      method,
      headers: {
        Accept: 'text/event-stream',
        ...(token ? { Authorization: `Bearer ${token}` } : {}),
        ...(lastEventId === undefined ? {} : { 'Last-Event-ID': lastEventId }),
        ...headers,
      },
    });
    asked.once('error', fail);
    asked.once('response', (response) => {
      asked.off('error', fail);
      asked.on('error', () => {}); // told by `ended`
      const { statusCode: status } = response;
      if (status !== 200) {
        let text = '';
        response.setEncoding('utf8').on('data', (data) => (text += data));
        response.on('end', () => done({ status, headers: response.headers, body: text && JSON.parse(text) }));
        return;
      }
      done(follow(asked, response, agent));
    });
    asked.end();
  });
}

function follow(asked, response, agent) {
  const reader = {
    status: 200,
    headers: response.headers,
    events: [],
    comments: [],
    /** All bytes, in order. */
    raw: '',
    retry: undefined,
    lastEventId: undefined,
    pause: () => response.pause(),
    resume: () => response.resume(),
    close() {
      open.delete(reader);
      asked.destroy();
      agent.destroy();
    },
    /** The first event that `matches`, heard already or still to come. */
    next: (matches, what = 'an event', limit = 15_000) =>
      eventually(() => reader.events.find(matches), { within: limit, every: 5, what }).catch((error) => {
        error.message += `; heard: ${JSON.stringify(reader.events.slice(-5))}`;
        throw error;
      }),
    /** Until so many answers are over. */
    done: (count = 1, limit = 30_000) =>
      eventually(() => reader.events.filter(({ event }) => event === 'done').length >= count, { within: limit, every: 5, what: `${count} answers` }),
    /** What was put together of the text since the last reset. */
    text: () => text(reader.events),
    over: (limit = 15_000) => within(limit, 'the end of the stream', reader.ended),
  };
  open.add(reader);
  let waiting = '';
  let block = { event: '', data: [], id: undefined };
  const line = (one) => {
    if (one === '') {
      if (block.data.length) reader.events.push({ id: block.id, event: block.event, data: JSON.parse(block.data.join('\n')), at: performance.now() });
      // An event that broke off counts for nothing, its id neither.
      if (block.id !== undefined) reader.lastEventId = block.id;
      block = { event: '', data: [], id: undefined };
      return;
    }
    if (one.startsWith(':')) return void reader.comments.push(one.slice(1).trim());
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(one); // s: U+2028 ends no line here
    if (field === 'data') block.data.push(value);
    else if (field === 'event') block.event = value;
    else if (field === 'id') block.id = value;
    else if (field === 'retry') reader.retry = Number(value);
    else assert.fail(`an unknown field: ${one}`);
  };
  response.setEncoding('utf8').on('data', (data) => {
    reader.raw += data;
    const lines = (waiting + data).split('\n');
    waiting = lines.pop();
    lines.forEach(line);
  });
  reader.ended = new Promise((over) => {
    response.once('end', () => over(true));
    response.once('close', () => over(false));
    response.once('error', () => over(false));
  }).finally(() => open.delete(reader));
  return reader;
}

/** The text that these events bring, since the last reset. */
export function text(events) {
  let all = '';
  for (const { event, data } of events) {
    if (event === 'reset') all = '';
    else if (event === '' && 'chunk' in data) all += data.chunk;
  }
  return all;
}

/** Asks by `POST /chat/message`: the ids. */
export async function ask(node, token, sessionId, content = 'Tell me a story', more = {}) {
  const response = await get(`${node.url}/chat/message`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ sessionId, content, ...more }),
  });
  assert.equal(response.status, 202, await response.clone().text());
  return response.json();
}
