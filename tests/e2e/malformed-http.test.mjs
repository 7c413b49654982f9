// Requests that no browser and no stock client sends: heads, bodies, queries, and Engine.IO over them.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { corpus, playAll } from './harness/malformed.mjs';
import { once } from './harness/raw.mjs';
import { suite } from './harness.mjs';

// Soon enough that a session is given up which is not polled any more.
const env = { PING_INTERVAL: '4s', PING_TIMEOUT: '4s' };

suite('malformed requests', { nodes: 1, database: 'sqlite', redis: false, env }, (e2e) => {
  for (const [title, name] of [['WebSocket handshakes', 'handshakes'], ['Engine.IO by polling', 'polling'], ['HTTP', 'http'], ['the API', 'rest']]) {
    e2e(title, { timeout: 240_000 }, (cluster) => playAll(cluster.nodes[0], corpus(name)));
  }
});

const short = { ...env, HEADERS_TIMEOUT: '1s', BODY_TIMEOUT: '1s' };

suite('slow requests', { nodes: 1, database: 'sqlite', redis: false, env: short }, (e2e) => {
  e2e('heads and bodies that do not arrive', { timeout: 120_000 }, (cluster) => playAll(cluster.nodes[0], corpus('slow')));
});

suite('malformed requests behind nginx', { nodes: 1, nginx: true, database: 'sqlite', redis: false, env }, (e2e) => {
  e2e('nginx and the node agree on where a request ends', { timeout: 120_000 }, async (cluster) => {
    const [node] = cluster.nodes;
    // An answer to what one of them took for a body would come to whoever asks next.
    const also = async () => {
      for (const path of ['/livez', '/openapi.json', '/livez']) {
        const answer = await once(cluster.url, { request: `GET ${path}` });
        assert.equal(answer.status, 200);
        assert.equal(answer.body, (await once(node.url, { request: `GET ${path}` })).body);
      }
    };
    await playAll(node, corpus('nginx'), { url: cluster.url, kept: 16, also });
    await playAll(node, corpus('nginx'), { kept: 16 });
    const log = readFileSync(`${cluster.dir}/nginx/access.log`, 'utf8');
    assert.ok(log.includes('GET /livez '), log);
    assert.ok(!log.includes('/smuggled'), log);
  });
});
