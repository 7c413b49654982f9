// Back on another node: after the old one was killed, drained, or still believes the connection
// open; while Redis or the database is away; where a user has no connection left.

import assert from 'node:assert/strict';
import { begin, written } from './harness/families.mjs';
import { startLink } from './harness/link.mjs';
import { at, rest } from './harness/rest.mjs';
import { DIALECTS, ENV, answer, frontend, haveJoined, sameStories, send, speaker, talk, theEnd } from './harness/recovery.mjs';
import { ask, eventually, lasting, metrics, ok, sessionId, suite, token } from './harness.mjs';

const agents = { assistant: { tokensPerSecond: 150, tokens: 30 }, slow: { tokensPerSecond: 60, tokens: 90 } };

/**
 * Frontends of all dialects on `first`, each by a link of its own, that come back to `others`; uncut ones; and somebody
 * who speaks. `body` is given all that.
 */
async function crowd(cluster, first, others, body, { dialects = DIALECTS, options = {}, each = 2 } = {}) {
  const who = await begin(cluster);
  const away = { now: false };
  const links = [];
  const cut = [];
  for (const dialect of dialects) {
    for (let n = 0; n < each; n += 1) {
      const link = await startLink(() => (away.now ? others[n % others.length] : first).url);
      links.push(link);
      cut.push(Object.assign(frontend(link.url, dialect, who, options), { link, what: `${n}` }));
    }
  }
  const whole = DIALECTS.map((dialect, n) => frontend(others[n % others.length].url, dialect, who));
  const driver = await speaker(others[0].url, who);
  try {
    await haveJoined([...cut, ...whole]);
    await body({ who, cut, whole, links, driver, away });
  } finally {
    await Promise.all(links.map((link) => link.stop()));
  }
}

const recoveredAll = (cut, times = 1) => {
  for (const { dialect, what, recovered, fresh, refused } of cut) {
    assert.deepEqual([fresh, refused], [1, []], `${dialect} ${what}: recovered each time`);
    assert.ok(recovered >= times, `${dialect} ${what}: recovered`);
  }
};

const midway = (cut) => eventually(() => cut.filter(({ dialect }) => dialect !== 'persona').every((one) => written({ family: one.family, events: one.heard.events }).length > 40), { what: 'the middle of an answer' });

suite('recovery on another node', { nodes: 2, env: { ...ENV, SHUTDOWN_GRACE: '10s', PRESENCE_GRACE: '1s' }, agents }, (e2e) => {
  e2e('after kill -9 of the one that they were on, in the middle of an answer that it does not run', { timeout: 60_000 }, async (cluster) => {
    const victim = await cluster.startNode();
    await crowd(cluster, victim, cluster.nodes, async ({ who, cut, whole, driver, away }) => {
      const { streamId } = await ok(driver.socket, 'stream:request', { sessionId: who.id, prompt: 'Long', agentId: 'slow' });
      await midway(cut);
      away.now = true;
      await victim.stop('SIGKILL');
      await send(driver, who.id, 'While they are away');
      await driver.heard.finished(streamId);
      await theEnd(driver, who.id, [...cut, ...whole]);
      sameStories(cut, whole, { apart: true });
      recoveredAll(cut);
    });
  });

  e2e('after kill -9 of the one that writes the answer: the text that is stored, once', { timeout: 60_000 }, async (cluster) => {
    const victim = await cluster.startNode();
    await crowd(cluster, victim, cluster.nodes, async ({ who, cut, whole, driver, away }) => {
      const { streamId, messageId } = await rest(victim, who.sub).post('/api/chat/streams', { sessionId: who.id, prompt: 'Long', agentId: 'slow' });
      await midway(cut);
      away.now = true;
      await victim.stop('SIGKILL');
      await driver.heard.finished(streamId);
      await theEnd(driver, who.id, [...cut, ...whole]);
      recoveredAll(cut);
      const stored = await rest(cluster.nodes[0], who.sub).get(at.message(messageId));
      for (const one of cut) {
        const { dialect, family, heard } = one;
        const end = heard.events.findIndex((event) => family.whole?.(event)?.[0] === messageId);
        assert.equal(family.whole(heard.events[end])[1], stored.content, `${dialect}: the whole`);
        assert.equal(heard.events.filter((event) => family.whole(event)?.[0] === messageId).length, 1, `${dialect}: once`);
        if (dialect !== 'persona') assert.equal(written({ family, events: heard.events.slice(0, end) }), stored.content, `${dialect}: what was written`);
      }
    });
  });

  e2e('after SIGTERM, and after CONNECTION_MAX_AGE', { timeout: 60_000 }, async (cluster) => {
    const victim = await cluster.startNode({ CONNECTION_MAX_AGE: '1500ms' });
    await crowd(cluster, victim, cluster.nodes, async ({ who, cut, whole, driver, away }) => {
      await talk(driver, who.id);
      // It is their time that is up first; they come back to the same node.
      await eventually(() => cut.every(({ recovered }) => recovered > 0), { what: 'too old, and back' });
      const { streamId } = await ok(driver.socket, 'stream:request', { sessionId: who.id, prompt: 'Long', agentId: 'slow' });
      await driver.heard.next('stream:chunk', (chunk) => chunk.streamId === streamId && chunk.offset > 40);
      away.now = true;
      victim.signal('SIGTERM');
      await driver.heard.finished(streamId);
      await victim.exited;
      await theEnd(driver, who.id, [...cut, ...whole]);
      sameStories(cut, whole);
      recoveredAll(cut, 2);
    });
  });

  e2e('the old one still believes the connection open: it is replaced, and undoes nothing', { timeout: 60_000 }, async (cluster) => {
    const [here, there] = cluster.nodes;
    const old = await cluster.startNode();
    await crowd(cluster, old, [here, there], async ({ who, cut, whole, links, driver, away }) => {
      const sessions = async () => (await metrics(old)).sum('socket_io_connected');
      assert.equal(await sessions(), cut.length);
      const { streamId } = await ok(driver.socket, 'stream:request', { sessionId: who.id, prompt: 'Long', agentId: 'slow' });
      await midway(cut);
      away.now = true;
      for (const link of links) link.hang();
      await eventually(() => cut.every(({ recovered }) => recovered === 1), { what: 'they are back' });
      // Well before a ping could have told.
      await eventually(async () => (await sessions()) === 0, { within: 5_000, what: 'the old connections are closed' });
      await driver.heard.finished(streamId);
      await theEnd(driver, who.id, [...cut, ...whole]);
      sameStories(cut, whole);
      recoveredAll(cut);
    });
  });

  e2e('nobody is told that a user left whose connection was replaced, and they are there', { timeout: 60_000 }, async (cluster) => {
    const [here, there] = cluster.nodes;
    const id = sessionId('open');
    const host = await speaker(here.url, { jwt: token({ sub: 'host' }), id });
    await rest(here, 'host').patch(at.session(id), { visibility: 'open' });
    const away = { now: false };
    const link = await startLink(() => (away.now ? there : here).url);
    try {
      for (const transports of [['websocket'], ['polling']]) {
        const sub = `guest-${transports[0]}`;
        away.now = false;
        link.pull(); // the next connection asks where to go
        link.plug();
        const guest = frontend(link.url, 'session', { jwt: token({ sub }), id }, { transports });
        await haveJoined([guest]);
        await host.heard.next('user:joined', ({ userId }) => userId === sub);
        // No answer to a poll is on its way: Node's XMLHttpRequest never ends where one breaks off.
        await ok(guest.socket, 'session:leave', { sessionId: 'none' });
        away.now = true;
        link.hang();
        await eventually(() => guest.recovered === 1, { what: `back on ${transports}` });
        await eventually(async () => (await metrics(here)).sum('socket_io_connected') === 1, { within: 5_000, what: `replaced on ${transports}` });
        // Longer than a user counts as there whose last connection is gone.
        await lasting(1_500);
        assert.deepEqual(host.heard.of('user:left'), []);
        assert.deepEqual(host.heard.of('user:joined').map(({ userId }) => userId).filter((one) => one === sub), [sub], 'joined once');
        const { online } = await ok(host.socket, 'session:join', { sessionId: id });
        assert.ok(online.includes(sub), `${sub} is there: ${online}`);
        await send(host, id, `For ${sub}`);
        await guest.heard.next('message:new', ({ content }) => content === `For ${sub}`);
        guest.socket.disconnect();
        await host.heard.next('user:left', ({ userId }) => userId === sub);
        host.heard.events.splice(0);
      }
    } finally {
      await link.stop();
    }
  });
});

suite('recovery where a user has no connection left', { nodes: 2, env: { ...ENV, MAX_CONNECTIONS_PER_USER: '2' }, agents }, (e2e) => {
  for (const how of ['a cable that hangs', 'kill -9']) {
    e2e(`after ${how}: all of their devices come back`, { timeout: 60_000 }, async (cluster) => {
      const [here] = cluster.nodes;
      const old = await cluster.startNode();
      const [jwt, id] = [token({ sub: sessionId('two') }), sessionId('two')];
      const away = { now: false };
      const links = await Promise.all([1, 2].map(() => startLink(() => (away.now ? here : old).url)));
      try {
        const devices = links.map((link) => frontend(link.url, 'session', { jwt, id }));
        await haveJoined(devices);
        away.now = true;
        if (how === 'kill -9') await old.stop('SIGKILL');
        else for (const link of links) link.hang();
        await eventually(() => devices.every(({ recovered }) => recovered === 1), { within: 25_000, what: 'both are back' });
        for (const { fresh, refused, socket } of devices) assert.deepEqual([fresh, refused, socket.connected], [1, [], true]);
        await send(devices[0], id, 'Both of them');
        for (const { heard } of devices) await heard.next('message:new');
        assert.equal(devices[1].heard.of('message:new').length, 1);
      } finally {
        await Promise.all(links.map((link) => link.stop()));
      }
    });
  }
});

suite('recovery while something is away', { nodes: 2, proxied: true, fresh: true, env: ENV, agents }, (e2e) => {
  for (const how of ['freezes', 'is restarted empty', 'is away for a while']) {
    e2e(`Redis ${how}`, { timeout: 90_000 }, async (cluster) => {
      const [here, there] = cluster.nodes;
      await crowd(cluster, here, [there], async ({ who, cut, whole, links, driver, away }) => {
        await talk(driver, who.id);
        if (how === 'freezes') cluster.redis.pause();
        else await cluster.redis.child.stop('SIGKILL');
        away.now = true;
        for (const link of links) link.pull();
        for (const link of links) link.plug();
        if (how === 'is away for a while') {
          // Those who come meanwhile are told why nothing can be done in their session.
          const one = cut.find(({ dialect }) => dialect === 'session');
          await eventually(() => one.socket.connected && one.recovered === 1, { what: 'connected' });
          const reply = await ask(one.socket, 'session:join', { sessionId: who.id });
          assert.ok(reply.ok || /^[A-Z_]+$/.test(reply.error.code), JSON.stringify(reply));
        } else if (how === 'freezes') await lasting(1_000);
        // Who comes when the memory of who was where is gone, and not said again yet, begins anew.
        else await eventually(() => cut.every(({ recovered }) => recovered > 0), { within: 20_000, what: 'all are back before Redis is' });
        if (how === 'freezes') cluster.redis.resume();
        else await cluster.redis.start();
        await eventually(() => cut.every(({ recovered }) => recovered > 0), { within: 30_000, what: 'all are back' });
        await theEnd(driver, who.id, [...cut, ...whole]);
        sameStories(cut, whole);
        recoveredAll(cut);
      }, { each: 1 });
    });
  }

  e2e('the database: what carries them is closed until it is back, then they are recovered', { timeout: 90_000 }, async (cluster) => {
    const [here, there] = cluster.nodes;
    await crowd(cluster, here, [there], async ({ who, cut, whole, links, driver, away }) => {
      await talk(driver, who.id);
      there.toDatabase.watch(() => 'cut before');
      away.now = true;
      const errors = [];
      for (const { link, socket } of cut) {
        socket.io.on('close', (reason) => errors.push(reason));
        link.pull();
        link.plug();
      }
      await eventually(() => errors.length >= cut.length * 2, { within: 20_000, what: 'closed, and again' });
      assert.ok(cut.every(({ recovered }) => recovered === 0));
      there.toDatabase.watch(undefined);
      await eventually(() => cut.every(({ recovered }) => recovered > 0), { within: 30_000, what: 'all are back' });
      await theEnd(driver, who.id, [...cut, ...whole]);
      sameStories(cut, whole);
      recoveredAll(cut);
    }, { each: 1 });
  });
});
