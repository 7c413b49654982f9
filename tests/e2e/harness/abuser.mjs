// One process of abuse, told what to do by its parent: each kind is a loop with a rate of its own,
// from an address of its own, so that what it costs is the server's and not the honest clients'.
// Every answer is thrown away; only how often each kind was tried is told.

import { randomBytes } from 'node:crypto';
import http from 'node:http';
import { connect } from 'node:net';
import { io } from 'socket.io-client';

/** Another address of loopback than the honest clients'. */
const ADDRESS = '127.0.0.2';
/** The most connections that it has beside its stock clients'. */
const CONNECTIONS_MAX = 2_000;

const tried = {};
const socketsOpen = new Set();
const clients = new Set();
let isOn = false;
let plan;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const count = (kind) => (tried[kind] = (tried[kind] ?? 0) + 1);
const pick = (items) => items[Math.floor(Math.random() * items.length)];
const node = () => new URL(pick(plan.urls));

/** A TCP connection that ends by itself after a while, whatever the server does. */
function dial({ hostname, port }, lifetime = 15_000) {
  if (socketsOpen.size > CONNECTIONS_MAX) return undefined;
  const tcp = connect({ host: hostname, port: Number(port), localAddress: ADDRESS });
  socketsOpen.add(tcp);
  const timer = setTimeout(() => tcp.destroy(), lifetime);
  tcp.on('error', () => {});
  tcp.on('close', () => {
    clearTimeout(timer);
    socketsOpen.delete(tcp);
  });
  tcp.resume();
  return tcp;
}

/** A request whose answer is not of interest. */
function send(path, { at = node(), method = 'GET', headers = {}, body } = {}) {
  const { hostname, port } = at;
  return new Promise((done) => {
    const request = http.request({ hostname, port, path, method, headers, localAddress: ADDRESS, agent: false, timeout: 10_000 }, (response) => {
      let text = '';
      response.on('data', (data) => (text += text.length < 4096 ? data : ''));
      response.on('end', () => done(text));
      response.on('error', () => done(''));
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => done(''));
    request.end(body);
  });
}

/** A stock client of an abuser. */
function stock(sub, options = {}) {
  const { auth, ...rest } = options;
  const socket = io(`${node().origin}/chat`, {
    transports: ['websocket'], forceNew: true, reconnectionDelay: 1_000, reconnectionDelayMax: 2_000,
    auth: { token: plan.tokens[sub], dialect: 'session', ...auth },
    agent: new http.Agent({ localAddress: ADDRESS, keepAlive: true }), ...rest,
  });
  clients.add(socket);
  return socket;
}

/** Calls `job` so often a second while abuse is on. */
async function every(perSecond, job) {
  const begun = performance.now();
  let done = 0;
  while (isOn) {
    const due = ((performance.now() - begun) / 1_000) * perSecond * plan.scale;
    // What could not be done in time is not made up for: the rate is the most there is.
    done = Math.max(done, Math.floor(due) - 50);
    for (; done < due; done += 1) void job();
    await pause(20);
  }
}

/** A text frame, masked as clients have to. */
function frame(text, first = 0x81) {
  const data = Buffer.from(text);
  const mask = randomBytes(4);
  const size = data.length < 126 ? Buffer.from([first, 128 | data.length]) : Buffer.from([first, 254, data.length >> 8, data.length & 255]);
  return Buffer.concat([size, mask, data.map((byte, n) => byte ^ mask[n % 4])]);
}

const upgrade = ({ host }) =>
  `GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: ${host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
  `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\nSec-WebSocket-Version: 13\r\n\r\n`;

/** What no client says. */
const NONSENSE = [
  () => frame('4'), () => frame('9x'), () => frame('42/chat,["a"'), () => frame('451-/chat,["a",{"_placeholder":true,"num":7}]'),
  () => frame('4599999999-/chat,["a"]'), () => frame(`42/chat,${'['.repeat(50_000)}`), () => frame('40/nowhere,'), () => frame('40/chat,[1,2'),
  () => frame('42/chat,99999999999999999999["session:join",{}]'), () => frame('x', 0x83), () => frame('x', 0xf1), () => frame('x', 0x80),
  () => Buffer.from([0x81, 0x05, 1, 2, 3, 4, 5]), () => Buffer.from([0x81, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4]),
  () => frame(Buffer.from([0xff, 0xfe, 0xfd])), () => randomBytes(200),
];

const KINDS = {
  /** Authenticated sockets that say far too much. */
  async flood() {
    const sockets = Array.from({ length: 12 * plan.scale }, (_, n) => stock(`flood-${n % 6}`));
    const says = [
      (socket) => socket.emit('typing:start', { sessionId: 'nowhere' }),
      (socket) => socket.emit('message:send', { sessionId: plan.session, content: 'spam' }),
      (socket) => socket.emit('message:send', { sessionId: plan.session, content: 'x'.repeat(40_000) }, () => {}),
      (socket) => socket.emit('made:up', { a: [[[[1]]]] }, () => {}),
      (socket) => socket.emit('session:join', { sessionId: `flood-${Math.floor(Math.random() * 1e6)}` }, () => {}),
      (socket) => socket.emit('stream:request', { sessionId: plan.session, prompt: 'more', config: { maxTokens: 400 } }, () => {}),
    ];
    await every(1_200, () => {
      count('flood');
      const socket = pick(sockets);
      if (socket.connected) pick(says)(socket);
    });
  },
  /** Sockets that have answers sent to them and read nothing. */
  async slow() {
    for (let n = 0; isOn && n < 8 * plan.scale; n += 1) {
      const socket = stock(`slow-${n}`);
      socket.on('connect', () => {
        count('slow');
        const own = `slow-${n}`;
        socket.emit('session:join', { sessionId: own }, () => {
          socket.emit('stream:request', { sessionId: own, prompt: 'much', agentId: 'much' });
          socket.io.engine?.transport?.ws?._socket?.pause();
        });
      });
      await pause(50);
    }
  },
  /** Frames and packets that mean nothing. */
  frames: () =>
    every(25, () => {
      const at = node();
      const tcp = dial(at);
      if (!tcp) return;
      count('frames');
      tcp.write(upgrade(at));
      tcp.write(frame(`40/chat,${JSON.stringify({ token: plan.tokens['flood-0'] })}`));
      tcp.write(pick(NONSENSE)());
      setTimeout(() => tcp.destroy(), 1_000);
    }),
  /** Transport sessions that are opened and left alone, and polls beside each other. */
  polls: () =>
    every(40, async () => {
      count('polls');
      const at = node();
      const opened = await send('/socket.io/?EIO=4&transport=polling', { at });
      const sid = /"sid":"([^"]+)"/.exec(opened)?.[1];
      if (!sid || Math.random() < 0.5) return;
      for (let n = 0; n < 12; n += 1) void send(`/socket.io/?EIO=4&transport=polling&sid=${sid}`, { at });
      void send(`/socket.io/?EIO=4&transport=polling&sid=${sid}`, { at, method: 'POST', body: pick(['', '4', '\x1e\x1e', '40/chat,{', 'b4AAAA=', '6']) });
    }),
  /** Joining and leaving without an end. */
  async joins() {
    const sockets = Array.from({ length: 6 * plan.scale }, (_, n) => stock(`joins-${n}`));
    await every(200, () => {
      count('joins');
      const socket = pick(sockets);
      const sessionId = `joins-${Math.floor(Math.random() * 20)}`;
      if (socket.connected) socket.emit(pick(['session:join', 'session:join', 'session:leave']), { sessionId }, () => {});
    });
  },
  /** Who nobody is. */
  tokens: () =>
    every(20, async () => {
      count('tokens');
      const bad = pick(['', 'a.b.c', `${plan.tokens['flood-0'].slice(0, -3)}AAA`, 'x'.repeat(5_000), plan.expired]);
      if (Math.random() < 0.5) return void send('/api/chat/sessions', { headers: { Authorization: `Bearer ${bad}` } });
      const socket = stock('flood-0', { auth: { token: bad }, reconnection: false });
      socket.on('connect_error', () => socket.disconnect());
      setTimeout(() => {
        socket.disconnect();
        clients.delete(socket);
      }, 3_000);
    }),
  /** One user with more connections than one may have. */
  async many() {
    for (let n = 0; isOn && n < 30; n += 1) {
      count('many');
      stock('many', { reconnection: false });
      await pause(30);
    }
  },
  /** Connections that say a byte now and then, or nothing. */
  async drips() {
    const drip = () => {
      const at = node();
      const tcp = dial(at, 60_000);
      if (!tcp) return;
      count('drips');
      const kind = Math.floor(Math.random() * 3);
      if (kind === 0) return; // nothing at all
      tcp.write(kind === 1 ? `GET /livez HTTP/1.1\r\nHost: ${at.host}\r\nX-Slow: ` : `POST /stream/init HTTP/1.1\r\nHost: ${at.host}\r\nAuthorization: Bearer ${plan.tokens['flood-0']}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{`);
      const dripping = setInterval(() => (tcp.writable ? tcp.write(' ') : clearInterval(dripping)), 700);
      tcp.on('close', () => clearInterval(dripping));
    };
    await every(20, drip);
  },
  /** Connections that are opened to be open, more than an address may have. */
  hoard: () =>
    every(120, () => {
      if (socketsOpen.size < plan.hoard && dial(node(), 60_000)) count('hoard');
    }),
  /** Long answers that nobody reads. */
  unread: () =>
    every(1, () => {
      const at = node();
      const tcp = dial(at, 30_000);
      if (!tcp) return;
      count('unread');
      tcp.pause();
      tcp.write(`GET /openapi.json HTTP/1.1\r\nHost: ${at.host}\r\n\r\n`.repeat(200));
    }),
  /** Requests that are refused: unknown paths, wrong and large bodies, large heads, greedy queries. */
  rest: () =>
    every(40, () => {
      count('rest');
      const authorization = { Authorization: `Bearer ${plan.tokens['flood-1']}` };
      const json = { ...authorization, 'Content-Type': 'application/json' };
      return pick([
        () => send(`/api/chat/sessions/${plan.session}/messages`),
        () => send('/api/nothing', { headers: authorization }),
        () => send('/api/chat/sessions?limit=5000', { headers: authorization }),
        () => send(`/api/chat/sessions/${plan.session}/search?query=${'x'.repeat(2_000)}`, { headers: authorization }),
        () => send('/api/chat/sessions', { method: 'POST', headers: json, body: `{"id":${'['.repeat(5_000)}` }),
        () => send('/api/chat/sessions', { method: 'POST', headers: json, body: 'x'.repeat(1_500_000) }),
        () => send('/livez', { headers: { 'X-Large': 'x'.repeat(60_000) } }),
        () => send('/livez', { headers: Object.fromEntries(Array.from({ length: 150 }, (_, n) => [`X-${n}`, '1'])) }),
        () => send(`/chat/stream/${plan.session}`, { headers: { 'Last-Event-ID': 'x'.repeat(3_000), ...authorization } }),
      ])();
    }),
  /** Payloads beyond what is taken. */
  large: () =>
    every(2, async () => {
      count('large');
      const at = node();
      const opened = await send('/socket.io/?EIO=4&transport=polling', { at });
      const sid = /"sid":"([^"]+)"/.exec(opened)?.[1];
      if (sid) void send(`/socket.io/?EIO=4&transport=polling&sid=${sid}`, { at, method: 'POST', body: `4${'x'.repeat(1_200_000)}` });
      const socket = stock('large', { reconnection: false });
      socket.on('connect', () => socket.emit('message:send', { sessionId: plan.session, content: 'x'.repeat(1_500_000) }));
      setTimeout(() => {
        socket.disconnect();
        clients.delete(socket);
      }, 3_000);
    }),
};

/** Those that have to be in the conversation, and so come before the ones that keep everybody from their address out. */
const INSIDE = ['many', 'flood', 'joins', 'slow'];

const does = {
  begin(given) {
    plan = given;
  },
  /** Begins all kinds. */
  async start() {
    isOn = true;
    for (const kind of INSIDE) void KINDS[kind]();
    await pause(1_500);
    for (const kind of Object.keys(KINDS)) if (!INSIDE.includes(kind)) void KINDS[kind]();
  },
  /** Ends it all; gives how often each kind was tried until now. */
  async stop() {
    isOn = false;
    await pause(100);
    for (const socket of clients) socket.disconnect();
    for (const tcp of socketsOpen) tcp.destroy();
    clients.clear();
    return tried;
  },
};

process.on('message', async ({ id, op, args }) => {
  try {
    process.send({ id, result: (await does[op](args)) ?? 0 });
  } catch (error) {
    process.send({ id, error: error.stack });
  }
});
process.on('disconnect', () => process.exit(0));
