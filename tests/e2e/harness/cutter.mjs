// A way to the servers that breaks where a test says so: before, within, or after the n-th event
// that a server sends on a WebSocket, without a word, as when a network or a node goes away.

import { connect, createServer } from 'node:net';
import { freePort } from '../harness.mjs';

const TEXT = 0x81; // a text message in one frame, which is all that servers write

/**
 * A listener for one client. `to()` gives the URL of the server for each new connection; `cuts` are where each connection
 * breaks, in turn: `{ event, where: 'before' | 'within' | 'after' }`, counted from 1. Later ones do not break.
 */
export async function startCutter(to, cuts = []) {
  const port = await freePort();
  const open = new Set();
  const cutter = { url: `http://127.0.0.1:${port}`, port, connections: 0, broken: 0, stop };

  const listener = createServer((client) => {
    const target = new URL(to());
    const server = connect({ host: target.hostname, port: Number(target.port) });
    const events = counter();
    cutter.connections += 1;
    for (const [from, other] of [[client, server], [server, client]]) {
      open.add(from);
      from.setNoDelay(true);
      from.on('error', () => {}); // told by `close`
      from.once('close', () => {
        open.delete(from);
        other.destroy();
      });
    }
    client.pipe(server);
    let cut;
    server.on('data', (data) => {
      const length = events.next(data, (isWebSocket) => (cut ??= isWebSocket ? (cuts.shift() ?? {}) : undefined));
      if (length === undefined) return void client.write(data);
      cutter.broken += 1;
      // What is written has to reach it; then nothing more, and no goodbye.
      client.write(data.subarray(0, length), () => client.resetAndDestroy());
      if (length === 0) client.resetAndDestroy();
      server.destroy();
    });
  });
  await new Promise((done, fail) => {
    listener.once('error', fail);
    listener.listen(port, '127.0.0.1', done);
  });

  async function stop() {
    for (const socket of open) socket.destroy();
    await new Promise((done) => listener.close(done));
  }
  return cutter;
}

/** Finds the frames in what a server writes. */
function counter() {
  let head = Buffer.alloc(0); // of a response, until the frames begin
  let isWebSocket = false;
  let left = 0; // of a frame that passes
  let count = 0;
  let start = Buffer.alloc(0); // of a frame, too little to tell
  return {
    /** How many of these bytes pass before the cut; `undefined`: all. */
    next(data, cutOf) {
      let at = 0;
      if (!isWebSocket) {
        head = Buffer.concat([head, data]);
        const end = head.indexOf('\r\n\r\n');
        if (!head.subarray(0, 12).toString().startsWith('HTTP/1.1 101') || end < 0) return undefined;
        isWebSocket = true;
        at = data.length - (head.length - end - 4);
      }
      const cut = cutOf(true);
      while (at < data.length) {
        if (left > 0) {
          const taken = Math.min(left, data.length - at);
          left -= taken;
          at += taken;
          continue;
        }
        const frame = Buffer.concat([start, data.subarray(at)]);
        const header = headerOf(frame);
        // The header, and what tells an event from other packets.
        if (!header || (frame[0] === TEXT && header.length >= 2 && frame.length < header.size + 2)) {
          start = frame;
          return undefined;
        }
        const isEvent = frame[0] === TEXT && frame.subarray(header.size, header.size + 2).toString() === '42';
        const whole = header.size + header.length - start.length;
        if (isEvent) {
          count += 1;
          if (count === cut.event) {
            if (cut.where === 'before') return at;
            if (cut.where === 'within') return Math.min(at + Math.ceil(whole / 2), data.length);
          }
          if (count === cut.event + 1 && cut.where === 'after') return at;
        }
        start = Buffer.alloc(0);
        left = whole;
      }
      // The one after which it breaks may be the last for a while.
      if (count === cut.event && cut.where === 'after' && left === 0) return data.length;
      return undefined;
    },
  };
}

function headerOf(frame) {
  if (frame.length < 2) return undefined;
  const short = frame[1] & 127;
  const size = short === 127 ? 10 : short === 126 ? 4 : 2;
  if (frame.length < size) return undefined;
  const length = short === 127 ? Number(frame.readBigUInt64BE(2)) : short === 126 ? frame.readUInt16BE(2) : short;
  return { size, length };
}
