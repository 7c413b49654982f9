// A reader of server-sent events as `EventSource` is one: it reads until it is closed, and comes back
// with the last id it was given.

import { eventually, within } from '../harness.mjs';

const readers = new Set();

/** Opens a stream. Gives once its head is there; a refusal is an error that has its `status`. */
export async function eventSource(url, { token: jwt, lastEventId } = {}) {
  const abort = new AbortController();
  const headers = {
    Accept: 'text/event-stream',
    ...(jwt ? { Authorization: `Bearer ${jwt}` } : {}),
    ...(lastEventId ? { 'Last-Event-ID': lastEventId } : {}),
  };
  const response = await within(10_000, 'the stream opens', fetch(url, { headers, signal: abort.signal }));
  if (response.status !== 200) {
    throw Object.assign(new Error(`${response.status} ${await response.text()}`), { status: response.status });
  }
  const events = [];
  const reader = {
    headers: response.headers,
    /** Each event: its name (`message` where it has none), its data as JSON, its id where it has one. */
    events,
    lastEventId,
    isOpen: true,
    /** The first event that `matches`, heard already or still to come. */
    next: (matches, limit = 15_000) => eventually(() => events.find(matches), { within: limit, what: 'an event' }),
    /** Until the answer that ends with this message is over. */
    done: (messageId, limit = 30_000) =>
      eventually(() => {
        const at = events.findIndex(({ data }) => data.done && data.messageId === messageId);
        return at >= 0 && events.slice(at).some(({ name }) => name === 'done');
      }, { within: limit, what: 'the end of the answer' }),
    close: () => abort.abort(),
  };
  readers.add(reader);
  void read(response.body, reader).catch(() => {}).finally(() => {
    reader.isOpen = false;
    readers.delete(reader);
  });
  return reader;
}

/** Closes the readers that a test left open. */
export const closeReaders = () => readers.forEach((reader) => reader.close());

async function read(body, reader) {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const bytes of body) {
    rest += decoder.decode(bytes, { stream: true });
    const blocks = rest.split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) take(block, reader);
  }
}

/** One block of lines: an event where it has data, else a comment or the time to wait. */
function take(block, reader) {
  let name = 'message';
  let id;
  const data = [];
  for (const line of block.split('\n')) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line); // s: U+2028 ends no line here
    if (field === 'event') name = value;
    else if (field === 'id') id = value;
    else if (field === 'data') data.push(value);
  }
  if (id !== undefined) reader.lastEventId = id;
  if (data.length > 0) reader.events.push({ name, id, data: JSON.parse(data.join('\n')) });
}
