// One process of a crowd: stock clients as a frontend has them that knows about recovery. It joins
// its session; where a connection is lost and `socket.recovered` is true when it is back, it does
// nothing, and else it joins again with the last message that it knows.

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { io } from 'socket.io-client';
import { dice } from './dice.mjs';

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const count = (counts, name) => (counts[name] = (counts[name] ?? 0) + 1);

/** The most examples of what went wrong that are told. */
const EXAMPLES = 5;
/** One cut in so many is silent: the server hears of it only when it hears of the device again. */
const SILENT = 4;
/** How long the server may go on sending to a device that is gone. */
const SILENT_FOR = 6_000;

/** A message that says in which phase, and when, it was sent. */
const TIMED = /^(\d+)@([\d.]+)$/;
/** How long such messages took, in ms, by phase. */
const delays = {};
const refused = {};
const retried = {};
const reasons = {};
const lag = monitorEventLoopDelay({ resolution: 10 });

class Device {
  constructor({ token, sub, session, last }, url, options) {
    Object.assign(this, { sub, session, last, first: last });
    this.heard = []; // ids of messages and answers, as they came
    this.texts = new Map(); // the answers' texts as they were put together, by their messages' ids
    this.answers = new Map(); // by stream
    this.offsets = []; // text that did not begin where the text so far ended
    this.returns = [];
    this.tally = { shutdowns: 0, resets: 0, incomplete: 0 };
    this.isJoined = false;
    this.back = undefined; // the return that is going on
    this.joins = new Promise((done) => (this.hasJoined = done));
    this.socket = io(`${url}/chat`, {
      transports: ['websocket'], forceNew: true, autoConnect: false, auth: { token, dialect: 'session' }, ...options,
    });
    this.listen(this.socket);
  }

  listen(socket) {
    socket.on('connect', () => this.connected());
    socket.on('disconnect', (reason) => {
      this.isJoined = false;
      this.back ??= { at: performance.now(), from: this.heard.length };
      count(reasons, reason);
      // Stock clients stay away then.
      if (reason === 'io server disconnect') count(refused, reason);
    });
    socket.on('connect_error', (error) => {
      // One that was refused does not try again by itself; one that found nobody does.
      if (socket.active) count(retried, error.message);
      else count(refused, error.message);
    });
    socket.io.on('open', () => (this.opened = { at: performance.now(), time: Date.now() }));
    socket.on('message:new', (message) => this.hears(message));
    socket.on('messages:missed', ({ messages, hasMore }) => {
      if (hasMore) this.tally.incomplete += 1;
      for (const message of messages) this.finds(message);
    });
    socket.on('stream:start', (payload) => this.known(payload));
    socket.on('stream:reset', (payload) => {
      this.known(payload).text = '';
      this.tally.resets += 1;
    });
    socket.on('stream:chunk', (chunk) => {
      const answer = this.known(chunk);
      if (chunk.offset !== answer.text.length) {
        this.offsets.push(`${chunk.streamId}: ${chunk.offset} after ${answer.text.length}`);
      }
      answer.text = answer.text.slice(0, chunk.offset) + chunk.delta;
    });
    for (const name of ['stream:complete', 'stream:stopped', 'stream:error']) {
      socket.on(name, (payload) => this.ends(this.known(payload), payload.message));
    }
    socket.on('server:shutdown', () => (this.tally.shutdowns += 1));
  }

  known({ streamId, messageId }) {
    if (!this.answers.has(streamId)) this.answers.set(streamId, { messageId, text: '', isOver: false });
    return this.answers.get(streamId);
  }

  /** A message came, live or in a replay. */
  hears({ id, createdAt, content }) {
    this.heard.push(id);
    this.last = id;
    const sent = TIMED.exec(content);
    if (sent) (delays[sent[1]] ??= []).push(performance.timeOrigin + performance.now() - Number(sent[2]));
    const back = this.returns.at(-1);
    // What was sent before the connection was open again was missed.
    if (back && this.opened && Date.parse(createdAt) <= this.opened.time) {
      back.missed += 1;
      back.replay = performance.now() - this.opened.at;
    }
  }

  /** A join brought a message: where it is an answer, whole. */
  finds(message) {
    const running = [...this.answers.values()].find(({ messageId, isOver }) => messageId === message.id && !isOver);
    if (running && !message.content.startsWith(running.text)) this.offsets.push(`${message.id} begins otherwise`);
    if (running) running.text = message.content;
    this.ends(running ?? { text: message.content }, message);
  }

  ends(answer, message) {
    answer.isOver = true;
    this.texts.set(message.id, answer.text);
    this.hears(message);
  }

  connected() {
    const { back, socket } = this;
    if (back) {
      const { at, from } = back;
      this.back = undefined;
      this.returns.push({ away: performance.now() - at, begun: at, from, recovered: Boolean(socket.recovered), missed: 0, replay: 0 });
    }
    if (back && socket.recovered) this.isIn();
    else if (this.wantsIn) void this.join();
  }

  isIn() {
    this.isJoined = true;
    const back = this.returns.at(-1);
    if (back) back.took = performance.now() - back.begun;
    this.hasJoined();
  }

  /** Joins, as often as it takes, for as long as this connection lasts. */
  async join() {
    this.wantsIn = true;
    const { socket } = this;
    const { id } = socket;
    while (socket.connected && socket.id === id) {
      const running = [...this.answers].filter(([, { isOver }]) => !isOver).map(([stream, { text }]) => [stream, text.length]);
      const request = { sessionId: this.session, lastMessageId: this.last, streams: Object.fromEntries(running) };
      // Asked once, however long it takes: the answer to a second one would bring everything again.
      const reply = await new Promise((done) => {
        socket.emit('session:join', request, done);
        socket.once('disconnect', () => done());
      });
      if (!reply || socket.id !== id) return;
      if (reply.ok) return void this.isIn();
      count(retried, `session:join: ${reply.error.code}`);
      await pause(reply.error.retryAfterMs ?? 500);
    }
  }

  /** Cuts the connection; nobody is told by a close frame. */
  cut(isSilent) {
    const { ws } = this.socket.io.engine.transport;
    this.back = { at: performance.now(), from: this.heard.length };
    if (!isSilent) return void ws._socket.resetAndDestroy();
    // The device is gone, and what connects the server to it is not, for now.
    const tcp = ws._socket;
    tcp.pause();
    const { onclose } = ws;
    ws.onmessage = () => {};
    ws.close = () => {};
    setTimeout(() => tcp.destroy(), SILENT_FOR);
    onclose.call(ws, { code: 1006 });
  }

  /** How what it heard differs from what is stored. */
  compare(stored) {
    const at = stored.findIndex(({ id }) => id === this.first);
    const expected = stored.slice(at + 1);
    const seen = new Set(this.heard);
    const order = new Map(expected.map(({ id }, n) => [id, n]));
    const missing = expected.filter(({ id }) => !seen.has(id)).map(({ id }) => order.get(id));
    const doubled = this.heard.filter((id, n) => this.heard.indexOf(id) !== n).map((id) => order.get(id));
    let last = -1;
    const disordered = [];
    for (const id of seen) {
      if ((order.get(id) ?? -1) < last) disordered.push(order.get(id));
      last = Math.max(last, order.get(id) ?? -1);
    }
    const other = expected.filter(({ id, role, content }) => role === 'assistant' && seen.has(id) && this.texts.get(id) !== content);
    const found = { expected: expected.length, missing, doubled, disordered, texts: other.map(({ id }) => order.get(id)) };
    const isWrong = missing.length + doubled.length + disordered.length + other.length + this.offsets.length > 0;
    return { ...found, isWrong };
  }
}

let devices = [];
let random;
let isCutting = false;

/** Cuts a device again and again, each time at some moment around `every` ms after it was back. */
async function jitter(device, every) {
  await pause(random.next() * every);
  while (isCutting) {
    // One that is away, or not yet back in its session, is left alone.
    if (device.socket.connected && device.isJoined) {
      device.cut(random.below(SILENT) === 0);
      await pause(every * (0.7 + random.next() * 0.6));
    } else {
      await pause(50);
    }
  }
}

const does = {
  begin({ url, devices: all, options, seed }) {
    lag.enable();
    random = dice(seed);
    devices = all.map((one) => new Device(one, url, options));
  },
  /** Connects all devices, `atOnce` at a time; they join unless told not to. */
  async open({ atOnce, joins = true }) {
    let next = 0;
    const open = async () => {
      while (next < devices.length) {
        const device = devices[next];
        next += 1;
        device.wantsIn = joins;
        const up = new Promise((done) => device.socket.once('connect', done));
        device.socket.connect();
        await (joins ? device.joins : up);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, open));
  },
  /** All of them join in one moment: how long each took, and how often somebody was told to try again. */
  async join() {
    const begun = performance.now();
    return Promise.all(devices.map(async (device) => {
      await device.join();
      return performance.now() - begun;
    }));
  },
  /** Cuts devices from now on. */
  cut({ every }) {
    isCutting = true;
    for (const device of devices) void jitter(device, every);
  },
  calm() {
    isCutting = false;
  },
  /** How many devices are in their session, and have so many messages of it. */
  have: ({ messages }) => devices.filter(({ isJoined, heard, session }) => isJoined && heard.length >= (messages[session] ?? messages.all)).length,
  delays: ({ phase }) => delays[phase] ?? [],
  joined: () => devices.filter(({ isJoined }) => isJoined).length,
  /** What became of them; see `merged` in crowd.mjs. */
  report({ stored }) {
    const report = {
      expected: 0, missing: 0, doubled: 0, disordered: 0, offsets: 0, wrong: [], refused, retried, reasons,
      returns: 0, recovered: 0, away: [], took: [], replays: [], shutdowns: 0, resets: 0, incomplete: 0, stayed: 0, lag: [lag.percentile(99) / 1e6],
    };
    for (const device of devices) {
      const found = device.compare(stored[device.session]);
      report.expected += found.expected;
      for (const name of ['missing', 'doubled', 'disordered']) report[name] += found[name].length;
      report.offsets += device.offsets.length;
      for (const name of ['shutdowns', 'resets', 'incomplete']) report[name] += device.tally[name];
      report.returns += device.returns.length;
      report.stayed += device.returns.length === 0 ? 1 : 0;
      for (const back of device.returns) {
        report.recovered += back.recovered ? 1 : 0;
        report.away.push(back.away);
        if (back.took !== undefined) report.took.push(back.took);
        if (back.missed > 0) report.replays.push(back.replay);
      }
      if (found.isWrong && report.wrong.length < EXAMPLES) {
        const returns = device.returns.map(({ recovered, from, missed }) => `${recovered ? 'recovered' : 'joined'} after ${from}, missed ${missed}`);
        report.wrong.push(JSON.stringify({ sub: device.sub, ...found, offsets: device.offsets.slice(0, EXAMPLES), returns }));
      }
    }
    return report;
  },
};

process.on('message', async ({ id, op, args }) => {
  try {
    process.send({ id, result: (await does[op](args)) ?? 0 });
  } catch (error) {
    process.send({ id, error: error.stack });
  }
});
// Whoever started this is gone, or has enough.
process.on('disconnect', () => process.exit(0));
