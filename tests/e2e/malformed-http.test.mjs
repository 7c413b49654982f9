// Requests that no browser and no stock client sends: heads, bodies, queries, and Engine.IO over them.

import { corpus, playAll } from './harness/malformed.mjs';
import { suite } from './harness.mjs';

// Soon enough that a session is given up which is not polled any more.
const env = { PING_INTERVAL: '4s', PING_TIMEOUT: '4s', RUST_LOG: 'info,engineioxide=warn,socketioxide=warn' };

suite('malformed requests', { nodes: 1, database: 'sqlite', redis: false, env }, (e2e) => {
  for (const [title, name] of [['WebSocket handshakes', 'handshakes'], ['Engine.IO by polling', 'polling'], ['HTTP', 'http'], ['the API', 'rest']]) {
    e2e(title, { timeout: 240_000 }, (cluster) => playAll(cluster.nodes[0], corpus(name)));
  }
});
