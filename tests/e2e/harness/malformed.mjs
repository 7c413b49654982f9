// Bytes that no honest client sends, from the corpora in tests/fixtures/malformed (its README says
// what a case holds), and what has to hold after each: the node serves on, and owns nothing of it.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { ask, close, eventually, metrics, ok, open, sessionId, token, within } from '../harness.mjs';
import { LIMIT, Raw, UPGRADE, bytes, filled, frame, once } from './raw.mjs';

const CORPORA = new URL('../../fixtures/malformed/', import.meta.url);
const MIB = 1024 * 1024;
/** How much more memory a node may hold after garbage than before. */
const GROWTH_MAX = 64 * MIB;
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

// ── Engine.IO ──────────────────────────────────────────────────────────────────────────────────

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
    const probe = () => start === 'chat' && raw.write(frame(Buffer.from(PROBE)));
    probe();
    // One that finds the connection full of answers is not answered.
    const again = setInterval(probe, 500);
    let alive = 'there';
    try {
      if (!expect.unanswered) alive = await raw.until(() => start === 'chat' && raw.said(ANSWERED, before), 'an answer or the end of the connection', limit);
    } finally {
      clearInterval(again);
    }
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
      assert.deepEqual(blames, [], `the log blames the node: ${blames[0]}`);
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
  close(honest.socket);
  console.log(`${cases.length} cases, ${lines} lines of log`);
  if (failures.length > 0) throw new Error(`${failures.length} of ${cases.length}:\n${failures.join('\n')}`);
}
