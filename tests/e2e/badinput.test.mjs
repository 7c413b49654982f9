// What clients may send by mistake or on purpose: it is answered as an error, or ends their own
// connection, and nobody else notices.

import assert from 'node:assert/strict';
import {
  ask, assertError, client, close, connected, eventually, get, ok, open, random, rawChat, rawWebSocket, record, sessionId, suite, token,
  within,
} from './harness.mjs';

const MIB = 1024 * 1024;

/** A value nested `depth` deep. */
const nested = (depth, open_ = '[', close_ = ']') => open_.repeat(depth) + close_.repeat(depth);

/** A client that has done nothing wrong, and the proof that it still works. */
async function bystander(cluster) {
  const { socket, heard } = await open(cluster.nodes[0].url, { token: token({ sub: 'bystander' }) });
  let disconnected = false;
  socket.on('disconnect', () => {
    disconnected = true;
  });
  const id = sessionId('bystander');
  await ok(socket, 'session:join', { sessionId: id });
  const before = heard.events.length;
  return {
    async untouched() {
      const { streamId } = await ok(socket, 'stream:request', { sessionId: id, prompt: 'Still here?', agentId: 'instant' });
      assert.equal((await heard.finished(streamId)).name, 'stream:complete');
      heard.follow(streamId);
      assert.equal(disconnected, false, 'the bystander was disconnected');
      const strange = heard.events.slice(before).filter(({ payload }) => payload?.sessionId !== id && payload?.streamId !== streamId);
      assert.deepEqual(strange, [], 'the bystander heard of others');
      assert.ok(cluster.nodes[0].alive, 'the process lives');
      assert.equal((await get(`${cluster.nodes[0].url}/livez`)).status, 200);
    },
  };
}

/** Payloads of the wrong shape, and the event that they are sent with. */
function wrongShapes() {
  const uuid = '01890000-0000-7000-8000-000000000000';
  const join = [
    [], [null], [42], [true], ['text'], [[]], [{}], [{ sessionId: null }], [{ sessionId: 7 }], [{ sessionId: '' }],
    [{ sessionId: {} }], [{ sessionId: 'a b' }], [{ sessionId: 'ä' }], [{ sessionId: '../x' }], [{ sessionId: '{x}' }],
    [{ sessionId: 'a'.repeat(129) }], [{ sessionId: 'a\u0000b' }], [{ sessionId: 'ok', lastMessageId: 5 }],
    [{ sessionId: 'ok', streams: [] }], [{ sessionId: 'ok', streams: { x: 1 } }], [{ sessionId: 'ok', streams: { [uuid]: -1 } }],
    [{ sessionId: 'ok', streams: { [uuid]: 1.5 } }], [{ sessionId: 'ok', streams: { [uuid]: 'a' } }],
  ].map((args) => ['session:join', args]);
  const request = [
    [], [null], [{}], [{ sessionId: 'ok' }], [{ prompt: 'no session' }], [{ sessionId: 'ok', prompt: 5 }],
    [{ sessionId: 'ok', prompt: '' }], [{ sessionId: 'ok', prompt: 'x'.repeat(32_001) }],
    [{ sessionId: 'ok', prompt: { deep: 1 } }], [{ sessionId: 'ok', prompt: 'p', config: 'hot' }],
    [{ sessionId: 'ok', prompt: 'p', config: { temperature: 'hot' } }], [{ sessionId: 'ok', prompt: 'p', config: { maxTokens: -1 } }],
    [{ sessionId: 'ok', prompt: 'p', config: { maxTokens: 1e300 } }], [{ sessionId: 'ok', prompt: 'p', clientMessageId: 5 }],
    [{ sessionId: 'ok', prompt: 'p', clientMessageId: 'x'.repeat(5_000) }], [{ sessionId: 'ok', prompt: 'p', agentId: 3 }],
  ].map((args) => ['stream:request', args]);
  const others = [
    ['session:leave', []], ['session:leave', [{}]], ['session:leave', [{ sessionId: [] }]],
    ['stream:stop', []], ['stream:stop', [null]], ['stream:stop', [{}]], ['stream:stop', [{ streamId: 1 }]],
    ['message:send', []], ['message:send', [{ sessionId: 'ok' }]], ['message:send', [{ sessionId: 'ok', content: '' }]],
    ['message:send', [{ sessionId: 'ok', content: 'c', attachments: {} }]], ['message:send', [{ sessionId: 'ok', content: 'c', attachments: [1] }]],
    ['message:edit', [{ messageId: uuid }]], ['message:edit', [{ messageId: 7, content: 'c' }]], ['message:delete', [[]]],
    ['message:seen', [{ sessionId: 'ok' }]], ['message:reaction', [{ messageId: uuid, emoji: '' }]],
    ['message:reaction', [{ messageId: uuid, emoji: 'x'.repeat(65) }]], ['typing:start', [{ sessionId: 'a b' }]],
    ['typing:start', [{ sessionId: 'ok', userName: 7 }]], ['typing:stop', [{}]],
  ];
  return [...join, ...request, ...others];
}

suite('bad input', { nodes: 1 }, (e2e) => {
  e2e('wrong shapes are answered through the ack, and as an error event without one', { timeout: 60_000 }, async (cluster) => {
    const other = await bystander(cluster);
    let socket;
    let heard;
    for (const [index, [event, args]] of wrongShapes().entries()) {
      // A new one now and then: a socket has a limit of 50 events a second.
      if (index % 20 === 0) {
        ({ socket, heard } = await open(cluster.url, { token: token() }));
        await heard.next('connection:success');
        heard.events.length = 0;
      }
      const shown = `${event} ${JSON.stringify(args).slice(0, 100)}`;
      const reply = await ask(socket, event, ...args);
      assert.equal(reply?.ok, false, shown);
      assertError(reply.error, 'INVALID', event);
      assert.deepEqual(heard.of('error'), [], `${shown}: no error event beside the ack`);

      socket.emit(event, ...args);
      assertError(await heard.next('error'), 'INVALID', event);
      assert.equal(heard.of('error').length, 1, shown);
      heard.events.length = 0;
    }
    ({ socket } = await open(cluster.url, { token: token() }));
    // Not found rather than invalid: what is no id of ours does not exist.
    for (const streamId of ['', 'nonsense', '../../etc', 'x'.repeat(10_000)]) {
      const reply = await ask(socket, 'stream:stop', { streamId });
      assertError(reply.error, undefined, 'stream:stop');
      assert.ok(['NOT_FOUND', 'INVALID'].includes(reply.error.code));
    }
    assert.ok(socket.connected);
    await other.untouched();
  });

  e2e('a refusal says which of several requests it is about', {}, async (cluster) => {
    const { socket, heard } = await open(cluster.url, { token: token() });
    const about = { sessionId: 'ok', clientMessageId: 'mine' };
    const reply = await ask(socket, 'message:send', { ...about, content: '', messageId: 'x'.repeat(129) });
    for (const error of [reply.error, (socket.emit('message:send', about), await heard.next('error'))]) {
      assertError(error, 'INVALID', 'message:send');
      assert.deepEqual({ sessionId: error.sessionId, clientMessageId: error.clientMessageId }, about);
      assert.ok(!('messageId' in error), 'what is too long for an id is not repeated');
    }
  });

  e2e('an unknown agent is not found', {}, async (cluster) => {
    const { socket } = await open(cluster.url, { token: token() });
    const reply = await ask(socket, 'stream:request', { sessionId: sessionId(), prompt: 'Who?', agentId: 'nobody' });
    assert.equal(reply.ok, false);
    assertError(reply.error, 'NOT_FOUND', 'stream:request');
  });

  e2e('unknown events are answered and harm nobody', {}, async (cluster) => {
    const other = await bystander(cluster);
    const { socket, heard } = await open(cluster.url, { token: token() });
    for (const event of ['nonsense', 'session:joins', '__proto__', 'constructor', '', 'x'.repeat(10_000)]) {
      const reply = await ask(socket, event, { sessionId: 'x' });
      assert.equal(reply?.ok, false, JSON.stringify(event).slice(0, 40));
      assertError(reply.error, 'INVALID');
      socket.emit(event);
      assertError(await heard.next('error'), 'INVALID');
      heard.events.length = 0;
    }
    assert.ok(socket.connected);
    await other.untouched();
  });

  e2e('binary where JSON belongs', {}, async (cluster) => {
    const other = await bystander(cluster);
    const { socket } = await open(cluster.url, { token: token() });
    for (const payload of [Buffer.from('hello'), { sessionId: Buffer.from('hello') }]) {
      const reply = await ask(socket, 'session:join', payload);
      assert.equal(reply?.ok, false);
      assertError(reply.error, 'INVALID', 'session:join');
    }
    await other.untouched();
  });

  for (const transport of ['websocket', 'polling']) {
    e2e(`a packet past the size limit: ${transport}`, { timeout: 60_000 }, async (cluster) => {
      const other = await bystander(cluster);
      const socket = client(cluster.url, { token: token(), transports: [transport], reconnection: false });
      await connected(socket);
      const gone = new Promise((done) => socket.once('disconnect', () => done('disconnected')));
      const answered = socket
        .timeout(20_000)
        .emitWithAck('stream:request', { sessionId: sessionId(), prompt: 'x'.repeat(2 * MIB) })
        .then((reply) => reply, () => 'unanswered');
      const outcome = await within(30_000, 'an answer or the end of the connection', Promise.race([gone, answered]));
      if (outcome !== 'disconnected') {
        assert.equal(outcome?.ok, false, JSON.stringify(outcome));
        assertError(outcome.error, 'INVALID', 'stream:request');
      }
      await other.untouched();
      // Just below the limit the connection lives and the content is refused by its length.
      const { socket: fresh } = await open(cluster.url, { token: token(), transports: [transport] });
      const reply = await ask(fresh, 'stream:request', { sessionId: sessionId(), prompt: 'x'.repeat(MIB - 4_096) });
      assert.equal(reply.ok, false);
      assertError(reply.error, 'INVALID', 'stream:request');
      assert.ok(fresh.connected);
    });
  }

  e2e('deep JSON', { timeout: 60_000 }, async (cluster) => {
    const other = await bystander(cluster);
    const jwt = token();
    for (const payload of [nested(100), nested(10_000), nested(200_000), nested(50_000, '{"a":', '}').replace('{"a":}', '{"a":1}')]) {
      for (const packet of [`42/chat,["session:join",${payload}]`, `42/chat,7["session:join",{"sessionId":${payload}}]`]) {
        const raw = await rawChat(cluster.url, jwt);
        raw.send(packet);
        // It is answered, or the connection is closed; it is not left hanging.
        const answered = raw.until(packet.startsWith('42/chat,7') ? '43/chat,7' : '42/chat,["error"', 10_000);
        await within(15_000, 'an answer or the end', Promise.race([answered, raw.closed]));
        raw.end();
      }
    }
    await other.untouched();
  });

  e2e('broken Engine.IO and Socket.IO packets', { timeout: 60_000 }, async (cluster) => {
    const other = await bystander(cluster);
    const jwt = token();
    const packets = [
      '', '4', '42', '42/chat', '42/chat,', '42/chat,[', '42/chat,[]', '42/chat,[1]', '42/chat,[null]', '42/chat,{}',
      '42/chat,["session:join",', '42/chat,["session:join",{"sessionId":"a"}', '42/chat,99999999999999999999["x"]',
      '42/chat,-1["x"]', '42/nowhere,["x"]', '42["x"]', '43/chat,1[]', '43/chat,', '45/chat,1-["x"]',
      '451000000-/chat,["x",{"_placeholder":true,"num":0}]', '451-/chat,["session:join",{"_placeholder":true,"num":7}]',
      '451-/chat,["session:join",{"_placeholder":true,"num":-1}]', '46/chat,1-1[]', '49', '4x', '7', 'x', 'hello',
      '40/chat,{', '40/chat,[1', '40/nowhere,{}', '41/nowhere,', '44/chat,{}', '0{}', '1', '3', '5', '6', '\u0000', '42/chat,["\ud83d"]',
    ];
    for (const packet of packets) {
      const raw = await rawChat(cluster.url, jwt);
      raw.send(packet);
      // Whether it is still there or not, the next packet has an end: an answer or a closed connection.
      raw.send('42/chat,5["nonsense"]');
      await within(20_000, `an end after ${JSON.stringify(packet)}`, Promise.race([raw.until('43/chat,5', 15_000), raw.closed]));
      raw.end();
    }
    await other.untouched();
  });

  e2e('broken WebSocket frames', { timeout: 60_000 }, async (cluster) => {
    const other = await bystander(cluster);
    const jwt = token();
    const tricks = {
      'not masked': (raw) => raw.send('42/chat,["x"]', { masked: false }),
      'not UTF-8': (raw) => raw.send(Buffer.from([0x34, 0x32, 0xff, 0xfe, 0xc0])),
      'an unknown opcode': (raw) => raw.send('x', { opcode: 11 }),
      'a continuation of nothing': (raw) => raw.send('x', { opcode: 0 }),
      'a fragmented ping': (raw) => raw.send('x', { opcode: 9, fin: false }),
      'a ping of 200 bytes': (raw) => raw.send('x'.repeat(200), { opcode: 9 }),
      'reserved bits': (raw) => raw.write(Buffer.from([0xf1, 0x80, 1, 2, 3, 4])),
      'a length of 2^63': (raw) => raw.write(Buffer.from([0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4])),
      'a length of 1 TiB': (raw) => raw.write(Buffer.from([0x81, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4])),
      'plain HTTP': (raw) => raw.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
    };
    for (const [name, trick] of Object.entries(tricks)) {
      const raw = await rawChat(cluster.url, jwt);
      trick(raw);
      await within(20_000, `${name}: the connection is closed`, raw.closed);
    }
    // Fragments of one message are no mistake, however many: together they keep to the limit.
    const raw = await rawChat(cluster.url, jwt);
    raw.send('42/chat,6["nonsense","', { fin: false });
    for (let n = 0; n < 40; n += 1) raw.send('x'.repeat(65_536), { opcode: 0, fin: false });
    await within(20_000, '2.5 MiB in fragments: the connection is closed', raw.closed);
    await other.untouched();
  });

  e2e('a flood of random bytes', { timeout: 60_000 }, async (cluster) => {
    const other = await bystander(cluster);
    const choice = random();
    for (let round = 0; round < 20; round += 1) {
      const raw = await rawChat(cluster.url, token());
      for (let n = 0; n < 30; n += 1) {
        const length = choice.below(300);
        raw.send(Buffer.from(Array.from({ length }, () => choice.below(256))), { opcode: choice.pick([1, 2]) });
      }
      raw.end();
    }
    await other.untouched();
  });

  e2e('handshakes that are none', {}, async (cluster) => {
    const other = await bystander(cluster);
    const base = `${cluster.url}/socket.io/`;
    const queries = [
      '', '?EIO=4', '?EIO=2&transport=polling', '?EIO=3&transport=polling', '?EIO=x&transport=polling', '?EIO=4&transport=pigeon',
      '?EIO=4&transport=polling&sid=nonsense', `?EIO=4&transport=polling&sid=${'a'.repeat(5_000)}`, '?EIO=4&transport=polling&sid=%00',
    ];
    for (const query of queries) {
      for (const options of [{}, { method: 'POST', body: 'x' }]) {
        const { status } = await get(base + query, options);
        assert.ok(status >= 400 && status < 500, `${options.method ?? 'GET'} ${query}: ${status}`);
      }
    }
    await assert.rejects(rawWebSocket(cluster.url, { query: 'EIO=4&transport=websocket&sid=nonsense' }).then((raw) => {
      assert.equal(raw.status(), 101);
    }));
    await other.untouched();
  });

  e2e('a namespace that does not exist', {}, async (cluster) => {
    const other = await bystander(cluster);
    const raw = await rawWebSocket(cluster.url);
    await raw.until('0{');
    raw.send('40/nowhere,{}');
    await Promise.race([raw.until('44/nowhere,'), raw.closed]);
    raw.end();
    await other.untouched();
  });

  e2e('a socket that was refused can do nothing', {}, async (cluster) => {
    const other = await bystander(cluster);
    const raw = await rawWebSocket(cluster.url);
    await raw.until('0{');
    raw.send('42/chat,1["session:join",{"sessionId":"x"}]'); // before any CONNECT
    raw.send('40/chat,{"token":"nonsense"}');
    await Promise.race([raw.until('44/chat,'), raw.closed]);
    raw.send('42/chat,2["session:join",{"sessionId":"x"}]');
    const late = await rawChat(cluster.url, token());
    late.send('42/chat,3["nonsense"]');
    await late.until('43/chat,3'); // by now the other one would have been answered
    assert.ok(!raw.received.some(({ text }) => text.startsWith('43')), JSON.stringify(raw.received));
    raw.end();
    late.end();
    await other.untouched();
  });

  e2e('clients that come and go at once', { timeout: 60_000 }, async (cluster) => {
    const other = await bystander(cluster);
    for (let n = 0; n < 50; n += 1) {
      const socket = client(cluster.url, { token: token(), transports: [n % 2 ? 'polling' : 'websocket'] });
      record(socket);
      socket.emit('session:join', { sessionId: 'gone' });
      if (n % 3) await connected(socket);
      close(socket);
    }
    await other.untouched();
  });
});

suite('floods', { nodes: 1, env: { SOCKET_EVENTS_MAX: '50' } }, (e2e) => {
  const tooMany = (error) => {
    assertError(error, 'RATE_LIMIT', 'nonsense');
    assert.ok(Number.isInteger(error.retryAfterMs) && error.retryAfterMs > 0 && error.retryAfterMs <= 1_000, JSON.stringify(error));
  };

  for (const transport of ['websocket', 'polling']) {
    e2e(`more than 50 events at once are refused, whatever they are: ${transport}`, {}, async (cluster) => {
      const other = await bystander(cluster);
      const { socket, heard } = await open(cluster.url, { token: token(), transports: [transport] });
      await heard.next('connection:success');
      const asked = Date.now();
      const replies = await Promise.all(
        Array.from({ length: 300 }, () => ask(socket, 'nonsense', { sessionId: 'ok' })),
      );
      const refusals = replies.filter(({ error }) => error.code === 'RATE_LIMIT');
      const most = 50 + Math.ceil((Date.now() - asked) / 20);
      assert.ok(refusals.length >= 300 - most, `${refusals.length} refused, at least ${300 - most} expected`);
      assert.ok(refusals.length <= 250, `${refusals.length} refused: 50 may be asked at once`);
      for (const { error } of refusals) {
        tooMany(error);
        assert.equal(error.sessionId, 'ok');
      }
      // The wait that it was told is enough.
      await eventually(async () => (await ask(socket, 'nonsense', {})).error.code === 'INVALID', { what: 'an event let through' });
      assert.ok(socket.connected);
      await other.untouched();
    });
  }

  e2e('without acknowledgement a flood is refused by error events', {}, async (cluster) => {
    const { socket, heard } = await open(cluster.url, { token: token() });
    await heard.next('connection:success');
    for (let n = 0; n < 200; n += 1) socket.emit('nonsense', 'x'.repeat(n === 150 ? 10_000 : 1));
    await eventually(() => heard.of('error').length === 200, { what: 'an error for each' });
    for (const error of heard.of('error').filter(({ code }) => code !== 'INVALID')) tooMany(error);
    assert.ok(heard.of('error').some(({ code }) => code === 'RATE_LIMIT'));
  });
});
