// A cable between a client and the servers: bytes pass unchanged until it is pulled out, breaks, or
// hangs.

import { connect, createServer } from 'node:net';
import { freePort } from '../harness.mjs';

/** Node never closes a socket that is reset while it ends. */
const reset = (socket) => void (socket.writableEnded ? socket.destroy() : socket.resetAndDestroy());

/**
 * A link to the server of `to`, in working order. `to` is a URL, or a function that gives one: asked again after each
 * time that the link was pulled, broke or hung, or the server was not there, so that all of a client's requests in
 * between reach one server.
 */
export async function startLink(to) {
  const port = await freePort();
  const open = new Set();
  const held = new Set(); // servers' sides whose clients are gone
  let isDown = false;
  let target;
  let left = Infinity;
  let lengths = [];

  const link = {
    url: `http://127.0.0.1:${port}`,
    /** How often it broke by itself. */
    broken: 0,
    /** Ends all connections, and lets none through, until `plug`. Gives how many it ended. */
    pull() {
      isDown = true;
      return cut();
    },
    plug() {
      isDown = false;
    },
    /** From now on it breaks after so many bytes, both ways together, then after so many more, and works afterwards. */
    breakAfter(...all) {
      lengths = all;
      left = lengths.shift() ?? Infinity;
    },
    /** The client's side of all connections ends; the server's stays as it is, and hears nothing any more. */
    hang() {
      target = undefined;
      for (const { client, server } of [...open]) {
        server.removeAllListeners('data');
        server.resume();
        held.add(server);
        reset(client);
      }
    },
    async stop() {
      isDown = true;
      for (const server of held) server.destroy();
      cut();
      await new Promise((done) => listener.close(done));
    },
  };

  function cut() {
    target = undefined;
    const count = open.size;
    for (const { client, server } of [...open]) {
      reset(client);
      reset(server);
    }
    return count;
  }

  const listener = createServer((client) => {
    if (isDown) return reset(client);
    target ??= new URL(typeof to === 'function' ? to() : to);
    const server = connect({ host: target.hostname, port: Number(target.port) });
    const ends = { client, server };
    let isThere = false;
    server.once('connect', () => (isThere = true));
    server.once('close', () => {
      if (!isThere) target = undefined;
    });
    open.add(ends);
    for (const [from, other] of [[client, server], [server, client]]) {
      from.setNoDelay(true);
      from.on('error', () => {}); // told by `close`
      from.once('close', () => {
        open.delete(ends);
        if (!held.has(other)) other.destroy();
      });
      from.on('data', (data) => {
        if (data.length < left) {
          left -= data.length;
          if (!other.write(data)) {
            from.pause();
            other.once('drain', () => from.resume());
          }
          return;
        }
        // What is written has to reach the other side; then nothing more, and no goodbye.
        const last = data.subarray(0, left);
        left = lengths.shift() ?? Infinity;
        link.broken += 1;
        target = undefined;
        open.delete(ends);
        const end = () => {
          reset(client);
          reset(server);
        };
        cut();
        if (last.length === 0) end();
        else other.write(last, end);
      });
      from.once('end', () => other.end());
    }
    return undefined;
  });
  await new Promise((done, fail) => {
    listener.once('error', fail);
    listener.listen(port, '127.0.0.1', done);
  });
  return link;
}
