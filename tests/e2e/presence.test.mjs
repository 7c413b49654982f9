// Who is there: told once per user, not per device, across nodes, and also where a node dies.

import assert from 'node:assert/strict';
import {
  SHAPES, assertFields, client, close, connected, eventually, flushed, forget, joined, nodeOf, ok, open, record, refused, sessionId,
  suite, token, within,
} from './harness.mjs';
import { at, makeSession, rest } from './harness/rest.mjs';

const PRESENCE = { userId: 'string', status: 'string', lastSeenAt: 'time' };
/** The requirement for a node's death, and what a busy machine adds. */
const DEATH_WITHIN = 10_000 + 2_000;

const about = (heard, user) =>
  heard.events.filter(({ name, payload }) => payload?.userId === user && /^(user:|presence:)/.test(name)).map(({ name, payload }) => payload.status ?? name);

for (const [shape, options] of Object.entries(SHAPES)) {
  suite(`presence: ${shape}`, options, (e2e) => {
    e2e('user:joined and user:left come once per user, whatever the number of devices', {}, async (cluster) => {
      const bob = sessionId('bob');
      const id = await makeSession(nodeOf(cluster, 0), 'alice', [bob]);
      const alice = await joined(nodeOf(cluster, 0), 'alice', id);
      forget(alice);
      const laptop = await joined(nodeOf(cluster, 0), bob, id, { name: 'Bob' });
      const phone = await joined(nodeOf(cluster, 1), bob, id, { name: 'Bob' });
      await ok(phone.socket, 'session:join', { sessionId: id }); // again
      await alice.heard.next('user:joined');
      await ok(laptop.socket, 'session:leave', { sessionId: id });
      // The leaving of one of two is told to nobody: what comes after it has come.
      const { message } = await ok(phone.socket, 'message:send', { sessionId: id, content: 'Still here' });
      await alice.heard.next('message:new', (heard) => heard.id === message.id);
      assert.equal(alice.heard.of('user:left').length, 0);
      await ok(phone.socket, 'session:leave', { sessionId: id });
      const left = await alice.heard.next('user:left');
      assert.deepEqual([left.sessionId, left.userId, left.online], [id, bob, 1]);
      await flushed(alice);
      assert.deepEqual(about(alice.heard, bob).filter((word) => word.startsWith('user:')), ['user:joined', 'user:left']);
    });

    e2e('presence:update to those who share a session, once per user, and to nobody else', { timeout: 40_000 }, async (cluster) => {
      const bob = sessionId('bob');
      const [shared, also] = [await makeSession(nodeOf(cluster, 0), 'alice', [bob]), await makeSession(nodeOf(cluster, 1), 'alice', [bob])];
      const apart = await makeSession(nodeOf(cluster, 0), 'mallory');
      const alice = await joined(nodeOf(cluster, 0), 'alice', [shared, also]);
      const mallory = await joined(nodeOf(cluster, 0), 'mallory', apart);
      forget(alice, mallory);
      // Connecting is being there: no session needs to be joined.
      const laptop = await open(nodeOf(cluster, 1).url, { token: token({ sub: bob }) });
      const online = await alice.heard.next('presence:update');
      assertFields(online, PRESENCE, 'presence:update');
      assert.deepEqual([online.userId, online.status], [bob, 'online']);
      const phone = await open(nodeOf(cluster, 0).url, { token: token({ sub: bob }) });
      await phone.heard.next('connection:success');
      close(laptop.socket);
      close(phone.socket);
      const offline = await alice.heard.next('presence:update', ({ status }) => status === 'offline');
      assertFields(offline, PRESENCE, 'presence:update');
      assert.equal(offline.userId, bob);
      await flushed(alice, mallory);
      assert.deepEqual(about(alice.heard, bob), ['online', 'offline'], 'once for two devices and two sessions');
      assert.deepEqual(about(mallory.heard, bob), []);
    });

    e2e('who reconnects within the grace was never away', { timeout: 40_000 }, async (cluster) => {
      const bob = sessionId('bob');
      const id = await makeSession(nodeOf(cluster, 0), 'alice', [bob]);
      const alice = await joined(nodeOf(cluster, 0), 'alice', id);
      const first = await joined(nodeOf(cluster, 1), bob, id);
      await alice.heard.next('user:joined');
      await alice.heard.next('presence:update', ({ status }) => status === 'online');
      forget(alice);
      first.socket.io.engine.close(); // the transport: the client comes back by itself
      await first.heard.next('connection:success', () => first.heard.of('connection:success').length === 2);
      await ok(first.socket, 'session:join', { sessionId: id });
      // Someone else's going is told after the grace has passed for both.
      const carol = sessionId('carol');
      await rest(nodeOf(cluster, 0), 'alice').post(at.members(id), { userId: carol });
      const other = await joined(nodeOf(cluster, 1), carol, id);
      close(other.socket);
      await alice.heard.next('presence:update', ({ userId, status }) => userId === carol && status === 'offline');
      assert.deepEqual(about(alice.heard, bob), []);
    });

    e2e('who is offline was last seen when the last device went', { timeout: 40_000 }, async (cluster) => {
      const bob = sessionId('bob');
      const id = await makeSession(nodeOf(cluster, 0), 'alice', [bob]);
      const alice = await joined(nodeOf(cluster, 0), 'alice', id);
      const device = await joined(nodeOf(cluster, 1), bob, id);
      await alice.heard.next('presence:update', ({ userId, status }) => userId === bob && status === 'online');
      close(device.socket);
      const { lastSeenAt } = await alice.heard.next('presence:update', ({ status }) => status === 'offline');
      assert.ok(Math.abs(Date.now() - Date.parse(lastSeenAt)) < 30_000);
      const { users } = await rest(nodeOf(cluster, 1), 'alice').get(at.presence(id));
      const found = users.find(({ userId }) => userId === bob);
      assert.deepEqual([found.status, found.devices], ['offline', 0]);
      assert.equal(typeof found.lastSeenAt, 'string');
    });

    e2e('POST /api/admin/users/:userId/disconnect closes every device, for those with the scope', {}, async (cluster) => {
      const bob = sessionId('bob');
      const devices = [];
      for (const n of [0, 0, 1]) {
        const device = await open(nodeOf(cluster, n).url, { token: token({ sub: bob }), reconnection: false });
        device.gone = new Promise((done) => device.socket.once('disconnect', done));
        await device.heard.next('connection:success');
        devices.push(device);
      }
      const bystander = await joined(nodeOf(cluster, 0), 'bystander', sessionId('by'));
      for (const claims of [{}, { scope: 'tokencast' }, { scope: 'not-tokencast:admin tokencast:administrator' }, { scope: 'TOKENCAST:ADMIN' }]) {
        await rest(nodeOf(cluster, 0), 'admin', { jwt: token({ sub: 'admin', claims }) }).refused(403, 'FORBIDDEN', 'POST', at.disconnect(bob));
      }
      assert.ok(devices.every(({ socket }) => socket.connected));
      const jwt = token({ sub: 'admin', claims: { scope: 'read tokencast:admin write' } });
      await rest(nodeOf(cluster, 0), 'admin', { jwt }).post(at.disconnect(bob));
      await within(10_000, 'every device is closed', Promise.all(devices.map(({ gone }) => gone)));
      await flushed(bystander);
      assert.ok(bystander.socket.connected);
    });
  });

  suite(`MAX_CONNECTIONS_PER_USER: ${shape}`, { ...options, env: { MAX_CONNECTIONS_PER_USER: '3' } }, (e2e) => {
    e2e('holds across nodes; the older ones stay, and who goes makes room', {}, async (cluster) => {
      const sub = sessionId('bob');
      const devices = [];
      for (let n = 0; n < 3; n += 1) devices.push(await open(nodeOf(cluster, n).url, { token: token({ sub }) }));
      for (let n = 0; n < 2; n += 1) {
        for (const transports of [['websocket'], ['polling']]) {
          const socket = client(nodeOf(cluster, n).url, { token: token({ sub }), transports });
          const error = await refused(socket);
          assert.equal(error.message, 'Too many connections');
          assert.equal(error.data.code, 'OVERLOADED');
          close(socket);
        }
      }
      await flushed(...devices);
      await connected(client(nodeOf(cluster, 1).url, { token: token({ sub: sessionId('another') }) }));
      close(devices[0].socket);
      await eventually(
        async () => {
          const socket = client(nodeOf(cluster, 1).url, { token: token({ sub }) });
          try {
            return await connected(socket);
          } catch (error) {
            close(socket);
            throw error;
          }
        },
        { within: 10_000, every: 100, what: 'there is room again' },
      );
    });

    e2e('all at once: no more than there is room for', {}, async (cluster) => {
      const sub = sessionId('bob');
      const outcomes = await Promise.all(
        Array.from({ length: 12 }, async (_, n) => {
          const socket = client(nodeOf(cluster, n).url, { token: token({ sub }), reconnection: false });
          record(socket);
          return connected(socket).then(() => 'in', (error) => error.message);
        }),
      );
      assert.equal(outcomes.filter((outcome) => outcome === 'in').length, 3, `${outcomes}`);
      assert.equal(outcomes.filter((outcome) => outcome === 'Too many connections').length, 9, `${outcomes}`);
    });
  });
}

suite('a node is killed', { nodes: 3, fresh: true, env: { MAX_CONNECTIONS_PER_USER: '2' } }, (e2e) => {
  e2e('its users are gone for others within ten seconds, told once; who has another device is not', { timeout: 90_000 }, async (cluster) => {
    const id = await makeSession(cluster.nodes[0], 'alice', ['bob', 'carol']);
    const watchers = [await joined(cluster.nodes[0], 'alice', id), await joined(cluster.nodes[1], 'alice', id)];
    for (let n = 0; n < 2; n += 1) await joined(cluster.nodes[2], 'bob', id);
    await joined(cluster.nodes[2], 'carol', id);
    const carol = await joined(cluster.nodes[1], 'carol', id);
    for (const { heard } of watchers) {
      await heard.next('user:joined', ({ userId }) => userId === 'carol');
      await heard.next('presence:update', ({ userId }) => userId === 'carol');
    }
    forget(...watchers, carol);
    await cluster.nodes[2].stop('SIGKILL');
    const told = [...watchers, carol].map(({ heard }) =>
      Promise.all([
        heard.next('user:left', ({ userId }) => userId === 'bob', DEATH_WITHIN),
        heard.next('presence:update', ({ userId, status }) => userId === 'bob' && status === 'offline', DEATH_WITHIN),
      ]));
    for (const [left] of await Promise.all(told)) assert.deepEqual([left.sessionId, left.online], [id, 2]);
    const { users } = await rest(cluster.nodes[1], 'alice').get(at.presence(id));
    assert.deepEqual(
      Object.fromEntries(users.map(({ userId, status, devices }) => [userId, [status, devices]])),
      { alice: ['online', 2], bob: ['offline', 0], carol: ['online', 1] },
    );
    const late = await joined(cluster.nodes[0], 'bob', id);
    assert.deepEqual([...late.reply.online].sort(), ['alice', 'bob', 'carol']);
    await joined(cluster.nodes[1], 'bob', id); // the dead node's two do not count against two
    for (const { heard } of watchers) await heard.next('user:joined', ({ userId }) => userId === 'bob');
    await flushed(...watchers);
    for (const { heard } of watchers) {
      assert.deepEqual(about(heard, 'bob').sort(), ['offline', 'online', 'user:joined', 'user:left'], 'each once');
      assert.deepEqual(about(heard, 'carol'), [], 'she has another device');
    }
  });
});
