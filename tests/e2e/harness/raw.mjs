// Bytes as they are written in tests/fixtures/malformed (its README says how), and a connection that they go over.

import assert from 'node:assert/strict';
import { connect as connectTcp } from 'node:net';
import { eventually } from '../harness.mjs';

/** How long a connection may go without an answer or an end, unless its case says otherwise. */
export const LIMIT = 10_000;

// ── Bytes ──────────────────────────────────────────────────────────────────────────────────────

export const filled = (text, values) =>
  text.replace(/<<(\w+)>>/g, (_, name) => {
    assert.ok(name in values, `nothing to fill <<${name}>> with`);
    return values[name];
  });

/** The bytes that a corpus writes as text, hex, base64, a repetition, a frame, a request, or a list of these. */
export function bytes(from, values = {}) {
  if (typeof from === 'string') return Buffer.from(filled(from, values));
  if (Array.isArray(from)) return Buffer.concat(from.map((part) => bytes(part, values)));
  if ('hex' in from) return Buffer.from(from.hex.replaceAll(' ', ''), 'hex');
  if ('base64' in from) return Buffer.from(from.base64, 'base64');
  if ('repeat' in from) {
    const part = bytes(from.repeat, values);
    return Buffer.alloc(part.length * from.times, part);
  }
  if ('frame' in from) return frame(bytes(from.frame, values), from);
  if ('request' in from) return request(from, values);
  throw new Error(`no bytes: ${JSON.stringify(from)}`);
}

/** A WebSocket frame; `length` is what it says of its length, in so many `lengthBytes` (1, 2, 8). */
export function frame(data, { opcode = 1, fin = true, rsv = 0, mask = '01020304', length = data.length, lengthBytes } = {}) {
  const size = lengthBytes ?? (length < 126 ? 1 : length < 65_536 ? 2 : 8);
  const head = Buffer.alloc(1 + (size === 1 ? 1 : 1 + size));
  head[0] = (fin ? 128 : 0) | (rsv << 4) | opcode;
  if (size === 1) head[1] = Number(length);
  else head[1] = size === 2 ? 126 : 127;
  if (size === 2) head.writeUInt16BE(Number(length), 2);
  if (size === 8) head.writeBigUInt64BE(BigInt(length), 2);
  if (mask === '') return Buffer.concat([head, data]);
  head[1] |= 128;
  const key = Buffer.from(mask, 'hex');
  const hidden = Buffer.alloc(data.length);
  for (let n = 0; n < data.length; n += 1) hidden[n] = data[n] ^ key[n & 3];
  return Buffer.concat([head, key, hidden]);
}

/** A request whose head is in order, but for what the case says. */
function request({ request: line, headers = {}, body }, values) {
  const data = body === undefined ? Buffer.alloc(0) : bytes(body, values);
  const all = { Host: values.host, ...headers };
  const sized = Object.keys(all).some((name) => /^(content-length|transfer-encoding)$/i.test(name));
  if (body !== undefined && !sized) all['Content-Length'] = data.length;
  const head = Object.entries(all).map(([name, value]) => `${name}: ${filled(String(value), values)}\r\n`).join('');
  return Buffer.concat([Buffer.from(`${filled(line, values)} HTTP/1.1\r\n${head}\r\n`), data]);
}

/** The head of a WebSocket handshake, which RFC 6455 gives the key of. */
export const UPGRADE = {
  request: 'GET /socket.io/?EIO=4&transport=websocket',
  headers: {
    Upgrade: 'websocket', Connection: 'Upgrade', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
  },
};

// ── Connections ────────────────────────────────────────────────────────────────────────────────

/** A TCP connection, and what came over it: responses, and frames after a 101. */
export class Raw {
  responses = [];
  frames = [];
  isClosed = false;
  /** Connections that a case opened besides. */
  others = [];
  #rest = Buffer.alloc(0);
  #switched = false;

  constructor(url) {
    this.url = url;
    const { hostname, port } = new URL(url);
    this.tcp = connectTcp({ host: hostname, port: Number(port), noDelay: true });
    this.tcp.on('error', () => {}); // told by `close`
    this.closed = new Promise((done) => this.tcp.once('close', done)).then(() => {
      this.isClosed = true;
    });
    this.tcp.on('data', (data) => {
      this.#rest = Buffer.concat([this.#rest, data]);
      while (this.#switched ? this.#frame() : this.#response());
    });
    // What has no length ends here.
    this.tcp.on('end', () => {
      const last = this.responses.at(-1);
      if (last && !last.whole) Object.assign(last, { whole: true, body: this.#rest.toString() });
    });
  }

  /** What is there of a response that has no end yet, and of one whose head is not whole. */
  get rest() {
    return this.#rest.toString('latin1');
  }

  /** The statuses that are final, in order. */
  get statuses() {
    return this.responses.filter(({ status, whole }) => whole && (status >= 200 || status === 101)).map(({ status }) => status);
  }

  #response() {
    let last = this.responses.at(-1);
    if (!last || last.whole) {
      const end = this.#rest.indexOf('\r\n\r\n');
      if (end < 0) return false;
      const [line, ...lines] = this.#rest.subarray(0, end).toString('latin1').split('\r\n');
      const headers = Object.fromEntries(lines.map((text) => {
        const at = text.indexOf(':');
        return [text.slice(0, at).toLowerCase(), text.slice(at + 1).trim()];
      }));
      this.#rest = this.#rest.subarray(end + 4);
      last = { status: Number(line.split(' ')[1]), headers, body: '', whole: false };
      this.responses.push(last);
      this.#switched = last.status === 101;
      last.whole = last.status < 200 || last.status === 204 || last.status === 304 || this.headOnly === true;
      return true;
    }
    if (last.headers['transfer-encoding'] === 'chunked') {
      const end = this.#rest.indexOf('\r\n');
      if (end < 0) return false;
      const size = Number.parseInt(this.#rest.subarray(0, end).toString('latin1'), 16);
      if (this.#rest.length < end + 4 + size) return false;
      last.body += this.#rest.subarray(end + 2, end + 2 + size).toString();
      this.#rest = this.#rest.subarray(end + 4 + size);
      last.whole = size === 0;
      return true;
    }
    const length = Number(last.headers['content-length'] ?? Infinity);
    if (this.#rest.length < length) return false;
    last.body = this.#rest.subarray(0, length).toString();
    this.#rest = this.#rest.subarray(length);
    last.whole = true;
    return true;
  }

  #frame() {
    const rest = this.#rest;
    if (rest.length < 2) return false;
    const kind = rest[1] & 127;
    const start = kind < 126 ? 2 : kind === 126 ? 4 : 10;
    if (rest.length < start) return false;
    const length = kind < 126 ? kind : kind === 126 ? rest.readUInt16BE(2) : Number(rest.readBigUInt64BE(2));
    if (rest.length < start + length) return false;
    const data = rest.subarray(start, start + length);
    const opcode = rest[0] & 15;
    this.frames.push({ opcode, text: data.toString(), code: opcode === 8 && length >= 2 ? data.readUInt16BE(0) : undefined });
    this.#rest = rest.subarray(start + length);
    if (opcode === 8) this.write(frame(data.subarray(0, 2), { opcode: 8 })); // the closing handshake's other half
    return true;
  }

  write(data) {
    if (!this.tcp.destroyed && !this.tcp.writableEnded) this.tcp.write(data);
  }

  /** What a text frame said that starts like this, from the n-th on. */
  said = (start, from = 0) => this.frames.slice(from).find(({ opcode, text }) => opcode === 1 && text.startsWith(start))?.text;

  /** Until `probe` holds or the connection is closed: which of them. */
  until(probe, what, limit = LIMIT) {
    return eventually(() => (probe() ? 'there' : this.isClosed ? 'closed' : undefined), { within: limit, every: 5, what });
  }

  end() {
    for (const other of this.others) other.end();
    this.tcp.destroy();
  }
}

/** Asks once, over a connection of its own: the response. */
export async function once(url, from, values = {}, limit = LIMIT) {
  const raw = new Raw(url);
  raw.write(bytes(from, { host: new URL(url).host, ...values }));
  try {
    await raw.until(() => raw.statuses.length > 0, 'an answer', limit);
    return raw.responses.find(({ status }) => status >= 200);
  } finally {
    raw.end();
  }
}
