// A connection to Redis that sends and hears bytes as they are, which redis-cli cannot.

import { connect } from 'node:net';

const CRLF = Buffer.from('\r\n');

/** A value at `at`: `[value, end]`, or nothing where it has not arrived whole. */
function read(buffer, at) {
  const end = buffer.indexOf(CRLF, at);
  if (end < 0) return undefined;
  const kind = String.fromCharCode(buffer[at]);
  const line = buffer.subarray(at + 1, end).toString();
  const next = end + 2;
  if (kind === '+') return [line, next];
  if (kind === '-') return [new Error(line), next];
  if (kind === ':') return [Number(line), next];
  const size = Number(line);
  if (size < 0) return [null, next];
  if (kind === '$') return buffer.length < next + size + 2 ? undefined : [buffer.subarray(next, next + size), next + size + 2];
  const items = [];
  let place = next;
  for (let n = 0; n < size; n += 1) {
    const found = read(buffer, place);
    if (!found) return undefined;
    items.push(found[0]);
    place = found[1];
  }
  return [items, place];
}

/** Connects; `heard` gets what is published on channels that were subscribed. */
export async function connectRedis(url) {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port) });
  await new Promise((done, fail) => socket.once('connect', done).once('error', fail));
  const waiting = [];
  const heard = [];
  let buffer = Buffer.alloc(0);
  socket.on('data', (data) => {
    buffer = Buffer.concat([buffer, data]);
    for (let found = read(buffer, 0); found; found = read(buffer, 0)) {
      buffer = buffer.subarray(found[1]);
      const [value] = found;
      if (Array.isArray(value) && String(value[0]) === 'smessage') heard.push(value[2]);
      else waiting.shift()?.(value);
    }
  });
  socket.on('error', () => {});
  return {
    heard,
    /** Sends a command of strings and buffers; gives the answer. */
    send(...words) {
      const parts = [Buffer.from(`*${words.length}\r\n`)];
      for (const word of words.map((one) => Buffer.from(one))) parts.push(Buffer.from(`$${word.length}\r\n`), word, CRLF);
      socket.write(Buffer.concat(parts));
      return new Promise((done, fail) => waiting.push((value) => (value instanceof Error ? fail(value) : done(value))));
    },
    end: () => socket.destroy(),
  };
}
