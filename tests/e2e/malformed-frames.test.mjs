// WebSocket frames and Socket.IO packets that no stock client sends.

import { corpus, playAll } from './harness/malformed.mjs';
import { suite } from './harness.mjs';

// Soon enough that a connection is given up which says nothing more.
const env = { PING_INTERVAL: '4s', PING_TIMEOUT: '4s' };

suite('malformed frames and packets', { nodes: 1, database: 'sqlite', redis: false, env }, (e2e) => {
  e2e('WebSocket frames', { timeout: 240_000 }, (cluster) => playAll(cluster.nodes[0], corpus('frames')));
  e2e('Socket.IO packets', { timeout: 240_000 }, (cluster) => playAll(cluster.nodes[0], corpus('packets')));
});
