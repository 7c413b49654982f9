// What an answer costs the services, counted message by message between a node and Redis and the
// database: its length makes no transactions, and a token not many bytes.

import assert from 'node:assert/strict';
import { joined, lasting, ok, sessionId, suite } from './harness.mjs';

const TOKENS = [1, 1_000, 32_000];
const agents = Object.fromEntries(TOKENS.map((tokens) => [`of-${tokens}`, { tokensPerSecond: 0, tokens }]));

/** Counts what a node's clients of PostgreSQL do: transactions, by the statements in them. */
function transactions(proxy) {
  const counted = new Map();
  const connections = new Map();
  const count = (statements) => counted.set(statements.join('; '), (counted.get(statements.join('; ')) ?? 0) + 1);
  const ran = (state, sql) => {
    const [word] = sql.trim().split(/\s/, 1);
    if (/^BEGIN/i.test(word)) state.open = [];
    else if (/^(COMMIT|ROLLBACK)/i.test(word)) {
      if (state.open) count(state.open);
      state.open = undefined;
    } else if (state.open) state.open.push(sql);
    else count([sql]);
  };
  const word = (bytes, from) => bytes.toString('utf8', from, bytes.indexOf(0, from));
  proxy.watch(({ type, bytes, from }) => {
    if (!connections.has(from)) connections.set(from, { named: new Map(), open: undefined, bound: '' });
    const state = connections.get(from);
    if (type === 'P') {
      const name = word(bytes, 5);
      state.named.set(name, word(bytes, 5 + Buffer.byteLength(name) + 1).replace(/\s+/g, ' '));
    } else if (type === 'B') {
      const portal = word(bytes, 5);
      state.bound = word(bytes, 5 + Buffer.byteLength(portal) + 1);
    } else if (type === 'E') {
      ran(state, state.named.get(state.bound) ?? '(prepared before)');
    } else if (type === 'Q') {
      ran(state, word(bytes, 5));
    }
  });
  return counted;
}

suite('what an answer costs', { nodes: 2, proxied: true, agents }, (e2e) => {
  e2e('as fast as it comes, with a reader on another node', { timeout: 120_000 }, async (cluster) => {
    const [node, other] = cluster.nodes;
    const counted = transactions(node.toDatabase);
    let bytes = 0;
    node.toRedis.watch(({ bytes: { length } }) => void (bytes += length));
    const id = sessionId('cost');
    const asker = await joined(node, 'alice', id);
    const reader = await joined(other, 'alice', id);
    const ask = async (tokens) => {
      const before = new Map(counted);
      bytes = 0;
      const { streamId } = await ok(asker.socket, 'stream:request', { sessionId: id, prompt: 'How much?', agentId: `of-${tokens}` });
      const begun = performance.now();
      const end = await reader.heard.finished(streamId, 90_000);
      assert.equal(end.name, 'stream:complete');
      assert.equal(end.payload.usage.outputTokens, tokens);
      await lasting(300); // what follows the end is of the answer too
      const grown = [...counted].map(([sql, n]) => [sql, n - (before.get(sql) ?? 0)]).filter(([, n]) => n > 0);
      reader.heard.events.splice(0);
      asker.heard.events.splice(0);
      return { bytes, seconds: (performance.now() - begun) / 1_000, grown };
    };
    await ask(1); // statements are prepared, connections made
    // What a node does by itself, whatever is asked of it.
    const before = new Map(counted);
    await lasting(3_000);
    const idle = new Set([...counted].filter(([sql, n]) => n > (before.get(sql) ?? 0)).map(([sql]) => sql));
    // And what it does with each heartbeat while anything runs, however many do.
    const beats = /WHERE owner_node_id = \$1 AND completed_at IS NULL/;
    const own = ({ grown }) => grown.filter(([sql]) => !idle.has(sql) && !beats.test(sql));
    const costs = [];
    for (const tokens of TOKENS) {
      const cost = await ask(tokens);
      costs.push(cost);
      const made = own(cost).reduce((sum, [, n]) => sum + n, 0);
      console.log(`${tokens} tokens: ${(cost.bytes / 1e6).toFixed(3)} MB to Redis, ${made} transactions, ${cost.seconds.toFixed(1)} s`);
    }
    const [least, , most] = costs.map((cost) => own(cost));
    for (const [sql, n] of most) console.log(`  ${n} × ${sql.slice(0, 150)}`);
    const count = (list) => list.reduce((sum, [, n]) => sum + n, 0);
    assert.ok(costs[2].bytes <= 4e6, `${costs[2].bytes} bytes to Redis`);
    assert.ok(count(most) <= count(least) + 1, `its length makes transactions: ${JSON.stringify(most)}`);
    // Two of asking; its context, its end, and what the outbox held of the prompt and of the end.
    assert.ok(count(most) <= 6, JSON.stringify(most));
    // Of accepting and finishing.
    const writing = most.filter(([sql]) => /\b(INSERT|UPDATE|DELETE)\b/i.test(sql) && !/DELETE FROM outbox/i.test(sql.split(';')[0]));
    assert.ok(count(writing) <= 2, JSON.stringify(writing));
  });
});
