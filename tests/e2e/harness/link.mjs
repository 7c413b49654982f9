// A cable between a browser and the servers: bytes pass unchanged until it is pulled out.

import { connect, createServer } from 'node:net';
import { freePort } from '../harness.mjs';

/** A link to the server of `url`, in working order. */
export async function startLink(url) {
  const target = new URL(url);
  const port = await freePort();
  const open = new Set();
  let isDown = false;

  const listener = createServer((client) => {
    if (isDown) return client.resetAndDestroy();
    const server = connect({ host: target.hostname, port: Number(target.port) });
    for (const [from, to] of [[client, server], [server, client]]) {
      open.add(from);
      from.setNoDelay(true);
      from.on('error', () => {}); // told by `close`
      from.once('close', () => {
        open.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
    return undefined;
  });
  await new Promise((done, fail) => {
    listener.once('error', fail);
    listener.listen(port, '127.0.0.1', done);
  });

  return {
    url: `http://127.0.0.1:${port}`,
    /** Ends all connections, and lets none through, until `plug`. Gives how many it ended. */
    pull() {
      isDown = true;
      const count = open.size / 2;
      for (const socket of open) socket.resetAndDestroy();
      return count;
    },
    plug() {
      isDown = false;
    },
    async stop() {
      isDown = true;
      for (const socket of open) socket.destroy();
      await new Promise((done) => listener.close(done));
    },
  };
}
