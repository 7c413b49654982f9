// Bytes that no honest client sends, from the corpora in tests/fixtures/malformed (its README says
// what a case holds), and what has to hold after each: the node serves on, and owns nothing of it.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { connect as connectTcp } from 'node:net';
import { ask, eventually, metrics, ok, open, sessionId, token, within } from '../harness.mjs';

const CORPORA = new URL('../../fixtures/malformed/', import.meta.url);
const MIB = 1024 * 1024;
/** How much more memory a node may hold after garbage than before. */
const GROWTH_MAX = 64 * MIB;
/** How long a connection may go without an answer or an end, unless its case says otherwise. */
const LIMIT = 10_000;
/** A case that takes longer is told of. */
const SLOW = 2_000;
/** What every connection can be asked that still has its place in /chat. */
const PROBE = '42/chat,987["nonsense"]';
const ANSWERED = '43/chat,987';

/** The cases of a corpus; their names are told once each. */
export function corpus(name) {
  const cases = JSON.parse(readFileSync(new URL(`${name}.json`, CORPORA), 'utf8'));
  assert.equal(new Set(cases.map((one) => one.name)).size, cases.length, `names in ${name}.json`);
  return cases;
}

// ── Bytes ──────────────────────────────────────────────────────────────────────────────────────

const filled = (text, values) =>
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
const UPGRADE = {
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

const POLL = 'GET /socket.io/?EIO=4&transport=polling&sid=<<sid>>';
const POST = { request: 'POST /socket.io/?EIO=4&transport=polling&sid=<<sid>>', headers: { 'Content-Type': 'text/plain;charset=UTF-8' } };

/** Opens a session by polling, with a place in /chat where asked: its `sid`. */
export async function openPolling(url, jwt, chat) {
  const { body } = await once(url, { request: 'GET /socket.io/?EIO=4&transport=polling' });
  const { sid } = JSON.parse(body.slice(1));
  if (chat) {
    assert.equal((await once(url, { ...POST, body: `40/chat,${JSON.stringify({ token: jwt })}` }, { sid })).status, 200);
    await heardByPolling(url, sid, '40/chat,{');
  }
  return sid;
}

/** Polls until a packet starts like this; gives whether one did before the session ended. */
export async function heardByPolling(url, sid, start) {
  for (let n = 0; n < 20; n += 1) {
    const polled = await once(url, { request: POLL }, { sid });
    if (polled?.status !== 200) return false;
    if (polled.body.split('\x1e').some((packet) => packet.startsWith(start))) return true;
    if (polled.body.split('\x1e').includes('2')) await once(url, { ...POST, body: '3' }, { sid });
  }
  return false;
}

/** Whether a polling session still answers. */
async function polls(url, sid) {
  const posted = await once(url, { ...POST, body: PROBE }, { sid });
  return posted?.status === 200 && heardByPolling(url, sid, ANSWERED);
}

async function openWebSocket(raw, values, chat) {
  raw.write(bytes(UPGRADE, values));
  await raw.until(() => raw.said('0{'), 'the open packet');
  if (!chat) return;
  raw.write(frame(Buffer.from(`40/chat,${JSON.stringify({ token: values.token })}`)));
  await raw.until(() => raw.said('40/chat,{'), 'the place in /chat');
  assert.ok(raw.said('40/chat,{'), 'the place in /chat');
}

// ── Cases ──────────────────────────────────────────────────────────────────────────────────────

async function send(raw, step, values, limit) {
  if (step.until !== undefined) {
    const said = () => raw.rest.includes(step.until) || raw.said(step.until) || raw.responses.some(({ status }) => String(status) === step.until || status >= 200);
    await raw.until(said, `"${step.until}"`, limit);
  } else if (step.beside !== undefined) {
    raw.others.push(new Raw(raw.url));
    raw.others.at(-1).write(bytes(step.beside, values));
  } else if (step.reset) {
    raw.tcp.resetAndDestroy();
  } else if (step.end) {
    raw.tcp.end();
  } else if (step.drip !== undefined) {
    // One byte after the other, for as long as somebody listens.
    const until = performance.now() + limit;
    for (const byte of bytes(step.drip, values)) {
      assert.ok(performance.now() < until, `still listened to after ${limit} ms`);
      if (raw.isClosed || raw.statuses.length > 0) break;
      raw.write(Buffer.from([byte]));
      await Promise.race([new Promise((done) => setTimeout(done, step.every)), raw.closed]);
    }
  } else {
    raw.write(bytes(step, values));
  }
}

/** Plays a case against the node at `url`, and asserts what it expects. */
export async function play(url, one) {
  const { start = 'tcp', expect = {}, limit = LIMIT } = one;
  const values = { host: new URL(url).host, token: token({ sub: 'mallory' }), session: sessionId('garbage'), sid: '', other: '' };
  if (start.startsWith('polling')) values.sid = await openPolling(url, values.token, start === 'polling chat');
  if (one.other) values.other = await openPolling(url, token({ sub: 'peggy' }), true);
  const raw = new Raw(url);
  raw.headOnly = one.headOnly;
  try {
    const isWebSocket = start === 'websocket' || start === 'chat';
    if (isWebSocket) await openWebSocket(raw, values, start === 'chat');
    const before = raw.frames.length;
    for (const step of one.send) await send(raw, step, values, limit);
    if (one.send.some(({ reset }) => reset)) await within(limit, 'the end', raw.closed);
    else if (isWebSocket) await afterFrames(raw, before, expect, limit, start, values);
    else await afterBytes(raw, expect, limit);
    if (expect.session) assert.equal(await polls(url, values.sid), expect.session === 'open', `the session is ${expect.session}`);
    if (one.other) assert.ok(await polls(url, values.other), "another's session is untouched");
  } finally {
    raw.end();
  }
}

const oneOf = (allowed, found, what) => {
  if (allowed !== undefined) assert.ok([allowed].flat().includes(found), `${what} ${found}, not ${[allowed].flat().join(' or ')}`);
};

async function afterBytes(raw, expect, limit) {
  if (expect.begins !== undefined) {
    const head = () => raw.responses.find(({ status }) => status >= 200);
    await raw.until(head, 'the head of an answer', limit);
    return oneOf(expect.begins, head()?.status, 'status');
  }
  const statuses = expect.statuses ?? [expect.status ?? 'any'];
  const enough = () => raw.statuses.length >= statuses.length;
  if (expect.closed || expect.silent) await raw.until(() => false, 'the end of the connection', limit);
  else await raw.until(enough, 'an answer or the end of the connection', limit);
  const told = raw.responses.map(({ status, body }) => `${status} ${body.slice(0, 200)}`).join(' | ');
  for (const status of raw.statuses) assert.ok(status < 500 || [expect.status, expect.statuses].flat().includes(status), `a server's error: ${told}`);
  if (expect.silent) assert.deepEqual(raw.statuses, [], `answered: ${told}`);
  if (expect.statuses) assert.deepEqual(raw.statuses, expect.statuses, told);
  const [first] = raw.responses.filter(({ status }) => status >= 200 || status === 101);
  if (expect.status !== undefined) oneOf(expect.status, first?.status, 'status');
  if (expect.body !== undefined) assert.equal(first?.body, expect.body);
  if (expect.error !== undefined) {
    const { code, message } = JSON.parse(first?.body ?? '{}').error ?? {};
    assert.equal(code, expect.error, told);
    assert.equal(typeof message, 'string', told);
  }
  if (expect.has !== undefined) assert.ok(told.includes(expect.has), `without ${expect.has}: ${told}`);
}

/** A connection that was given frames is closed, with the code that is expected; or answers what is expected, and lives. */
async function afterFrames(raw, before, expect, limit, start, values) {
  const shown = () => JSON.stringify(raw.frames.slice(before).map(({ code, text }) => code ?? text.slice(0, 200)));
  for (const answer of [expect.heard ?? []].flat().map((text) => filled(text, values))) {
    assert.equal(await raw.until(() => raw.said(answer, before), answer, limit), 'there', `${answer}: ${shown()}`);
  }
  if (expect.close !== undefined || expect.closed) {
    await raw.until(() => false, 'the end of the connection', limit);
    const codes = raw.frames.slice(before).filter(({ opcode }) => opcode === 8).map(({ code }) => code);
    if (expect.close !== undefined) oneOf(expect.close, codes[0] ?? null, `closed with ${shown()}: code`);
  } else if (start === 'chat' || !expect.heard) {
    if (start === 'chat') raw.write(frame(Buffer.from(PROBE)));
    const alive = expect.unanswered ? 'there' : await raw.until(() => start === 'chat' && raw.said(ANSWERED, before), 'an answer or the end of the connection', limit);
    if (expect.alive) assert.equal(alive, 'there', `alive, and not closed: ${shown()}`);
  }
  const { not } = expect;
  if (not !== undefined) assert.equal(raw.said(not, before), undefined, shown());
}

// ── What holds after each ──────────────────────────────────────────────────────────────────────

/** The process' own connections on the port that clients use: Linux only. */
function connections(node) {
  const own = new Set();
  for (const fd of readdirSync(`/proc/${node.pid}/fd`)) {
    try {
      const found = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${node.pid}/fd/${fd}`));
      if (found) own.add(found[1]);
    } catch {
      // Closed meanwhile.
    }
  }
  const port = Number(new URL(node.url).port).toString(16).toUpperCase().padStart(4, '0');
  const rows = readFileSync(`/proc/${node.pid}/net/tcp`, 'utf8').split('\n').slice(1).map((row) => row.trim().split(/\s+/));
  return rows.filter(([, local, , state, , , , , , inode]) => local?.endsWith(`:${port}`) && state !== '0A' && own.has(inode)).length;
}

const memory = (node) => Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${node.pid}/status`, 'utf8'))[1]) * 1024;

/**
 * An honest stock client on the node, from before the garbage on. `well` asserts that neither it nor
 * the node noticed; `flat`, at the end, that memory is what it was. A proxy in between may keep up to
 * `kept` connections.
 */
export async function witness(node, { kept = 0 } = {}) {
  const { socket, heard } = await open(node.url, { token: token({ sub: 'victor' }) });
  const id = sessionId('witness');
  await ok(socket, 'session:join', { sessionId: id });
  const disconnects = [];
  socket.on('disconnect', (reason) => disconnects.push(reason));
  let said = 0;
  let read = readFileSync(node.logFile).length;
  const speak = async () => {
    said += 1;
    const content = `message ${said}`;
    await ok(socket, 'message:send', { sessionId: id, content });
    await heard.next('message:new', (message) => message.content === content, 5_000);
    heard.events.length = 0;
  };
  await speak();
  // The runner's own requests are kept alive for some seconds.
  const alone = () => connections(node) >= 1 && connections(node) <= 1 + kept;
  await eventually(alone, { what: 'no connection but the honest one' });
  const held = memory(node);
  return {
    socket,
    async well() {
      assert.ok(node.alive, `the process ended: ${JSON.stringify(node.end)}`);
      await speak();
      assert.deepEqual(disconnects, [], 'the honest client was disconnected');
      await eventually(alone, { what: 'no connection is left but the honest one' });
      const log = readFileSync(node.logFile).subarray(read).toString();
      read += Buffer.byteLength(log);
      const blames = log.split('\n').filter((line) => / ERROR |panicked/.test(line));
      assert.deepEqual(blames, [], 'the log blames the node');
      return log.split('\n').length - 1;
    },
    async flat() {
      await eventually(async () => (await metrics(node)).sum('socket_io_connected') === 1, { within: 20_000, what: 'sockets end' });
      const grown = memory(node) - held;
      console.log(`memory: ${Math.round(held / MIB)} MiB, grown by ${Math.round(grown / MIB)} MiB`);
      assert.ok(grown < GROWTH_MAX, `memory has grown by ${grown} bytes`);
      const reply = await ask(socket, 'session:join', { sessionId: id });
      assert.equal(reply.ok, true);
    },
  };
}

/** Plays all cases, one after the other but for those that wait for a limit of time, and says which failed, of all; `also` is asserted after each. */
export async function playAll(node, cases, { url = node.url, kept, also = () => {} } = {}) {
  const honest = await witness(node, { kept });
  const failures = [];
  const attempt = async (name, job) => {
    try {
      return await job();
    } catch (error) {
      const said = [error.message, error.cause?.message].filter(Boolean).map((text) => text.split('\n')[0]);
      failures.push(`${name}: ${said.join(': ').slice(0, 600)}`);
      return 0;
    }
  };
  let lines = 0;
  for (const one of cases.filter(({ waits }) => !waits)) {
    const begun = performance.now();
    await attempt(one.name, () => play(url, one));
    const took = performance.now() - begun;
    if (took > SLOW) console.log(`${one.name}: ${Math.round(took)} ms`);
    lines += await attempt(`after ${one.name}`, () => honest.well());
    await attempt(`after ${one.name}, too`, also);
    if (!node.alive) break;
  }
  const waiting = cases.filter(({ waits }) => waits);
  await Promise.all(waiting.map((one) => attempt(one.name, () => play(url, one))));
  lines += await attempt('after those that wait', () => honest.well());
  await attempt('at the end', () => honest.flat());
  console.log(`${cases.length} cases, ${lines} lines of log`);
  if (failures.length > 0) throw new Error(`${failures.length} of ${cases.length}:\n${failures.join('\n')}`);
}
