// The dialect `session`, event by event: what the sender is answered, what everybody else hears, on
// whichever node, and what is stored.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import {
  MESSAGE, SHAPES, SESSION, ask, assertError, assertFields, eventually, flushed, forget, joined, no, nodeOf, ok, open, rateLimits,
  sessionId, startCluster, suite, token,
} from './harness.mjs';
import { at, makeSession, rest } from './harness/rest.mjs';

const UNKNOWN = '01890000-0000-7000-8000-000000000000';
const FILE = { fileName: 'plan.pdf', fileUrl: 'https://files.example/plan.pdf', mimeType: 'application/pdf', fileSize: 12_345, metadata: { pages: 3 } };

/** Alice with a laptop and a phone, and Bob, in one session, each on another node where there is one. */
async function people(cluster) {
  const id = await makeSession(nodeOf(cluster, 0), 'alice', ['bob']);
  const laptop = await joined(nodeOf(cluster, 0), 'alice', id, { name: 'Alice' });
  const phone = await joined(nodeOf(cluster, 1), 'alice', id, { name: 'Alice' });
  const bob = await joined(nodeOf(cluster, 1), 'bob', id, { name: 'Bob' });
  await laptop.heard.next('user:joined', ({ userId }) => userId === 'bob');
  await phone.heard.next('user:joined', ({ userId }) => userId === 'bob');
  forget(laptop, phone, bob);
  return { id, laptop, phone, bob, all: [laptop, phone, bob] };
}

const send = async ({ socket }, id, content = 'Hello', more = {}) =>
  (await ok(socket, 'message:send', { sessionId: id, content, ...more })).message;

/** That each reader hears `name` once, as `check` wants it, and nothing else. */
async function eachHears(readers, name, check) {
  for (const { heard } of readers) check(await heard.next(name));
  await flushed(...readers);
  for (const { heard } of readers) assert.deepEqual(heard.said(), [name]);
}

for (const [shape, options] of Object.entries(SHAPES)) {
  suite(`messages: ${shape}`, options, (e2e) => {
    e2e('session:join and session:leave', {}, async (cluster) => {
      const id = await makeSession(nodeOf(cluster, 0), 'alice', ['bob'], { title: 'Plans' });
      const alice = await joined(nodeOf(cluster, 0), 'alice', id, { name: 'Alice' });
      assertFields(alice.reply, { session: 'object', online: 'array', activeStreams: 'array', missed: 'int', hasMore: 'boolean' }, 'ack');
      assertFields(alice.reply.session, SESSION, 'session');
      assert.deepEqual(
        [alice.reply.session.id, alice.reply.session.ownerId, alice.reply.session.title, alice.reply.session.role, alice.reply.session.memberCount],
        [id, 'alice', 'Plans', 'owner', 2],
      );
      assert.deepEqual(alice.reply.online, ['alice']);
      const bob = await joined(nodeOf(cluster, 1), 'bob', id, { name: 'Bob' });
      assert.equal(bob.reply.session.role, 'member');
      assert.deepEqual([...bob.reply.online].sort(), ['alice', 'bob']);
      const came = await alice.heard.next('user:joined');
      assert.deepEqual([came.sessionId, came.userId, came.userName, came.online], [id, 'bob', 'Bob', 2]);
      forget(alice, bob);
      await ok(bob.socket, 'session:leave', { sessionId: id });
      const went = await alice.heard.next('user:left');
      assert.deepEqual([went.sessionId, went.userId, went.online], [id, 'bob', 1]);
      await send(alice, id);
      await alice.heard.next('message:new');
      await flushed(bob);
      assert.ok(!bob.heard.names().includes('message:new'), 'who has left hears nothing');
    });

    e2e('session:join with lastMessageId brings what came after it', {}, async (cluster) => {
      const { id, laptop } = await people(cluster);
      const messages = [];
      for (let n = 0; n < 103; n += 1) messages.push(await send(laptop, id, `number ${n}`));
      const away = await joined(nodeOf(cluster, 1), 'bob', id, { lastMessageId: messages[99].id });
      const page = await away.heard.next('messages:missed');
      assertFields(page, { sessionId: 'string', messages: 'array', hasMore: 'boolean' }, 'messages:missed');
      for (const message of page.messages) assertFields(message, MESSAGE, 'missed');
      assert.deepEqual(page.messages.map(({ id }) => id), messages.slice(100).map(({ id }) => id));
      assert.deepEqual([away.reply.missed, away.reply.hasMore, page.hasMore], [3, false, false]);
      const longAway = await joined(nodeOf(cluster, 1), 'bob', id, { lastMessageId: messages[0].id });
      assert.deepEqual([longAway.reply.missed, longAway.reply.hasMore], [100, true]);
      assert.deepEqual(
        (await longAway.heard.next('messages:missed')).messages.map(({ id }) => id),
        messages.slice(1, 101).map(({ id }) => id),
      );
    });

    e2e('message:send: message:new for everybody, then message:delivered for the sender', {}, async (cluster) => {
      const { id, laptop, phone, bob, all } = await people(cluster);
      const before = Date.now();
      const reply = await ok(laptop.socket, 'message:send', { sessionId: id, content: 'Hello', clientMessageId: 'c-1' });
      assertFields(reply, { message: 'object' }, 'ack');
      assertFields(reply.message, MESSAGE, 'ack.message');
      const { message } = reply;
      assert.deepEqual(
        [message.sessionId, message.userId, message.agentId, message.role, message.content, message.isEdited, message.isDeleted],
        [id, 'alice', null, 'user', 'Hello', false, false],
      );
      assert.deepEqual([message.reactions, message.attachments, message.parentMessageId], [[], [], null]);
      assert.ok(Math.abs(Date.parse(message.createdAt) - before) < 60_000);
      for (const { heard } of all) assert.deepEqual(await heard.next('message:new'), message);
      const delivered = await laptop.heard.next('message:delivered');
      assertFields(delivered, { sessionId: 'string', messageId: 'string', clientMessageId: 'string', deliveredAt: 'time', recipients: 'int' }, 'delivered');
      assert.deepEqual(
        [delivered.sessionId, delivered.messageId, delivered.clientMessageId, delivered.recipients],
        [id, message.id, 'c-1', 1],
      );
      await flushed(...all);
      assert.deepEqual(laptop.heard.said(), ['message:new', 'message:delivered'], 'in this order');
      assert.deepEqual(phone.heard.said(), ['message:new']);
      assert.deepEqual(bob.heard.said(), ['message:new']);

      forget(...all);
      for (let n = 0; n < 50; n += 1) laptop.socket.emit('message:send', { sessionId: id, content: `${n}` }); // without an ack
      await laptop.heard.next('message:delivered', () => laptop.heard.of('message:delivered').length === 50);
      for (const { heard } of all) {
        await heard.next('message:new', ({ content }) => content === '49');
        assert.deepEqual(heard.of('message:new').map(({ content }) => content), Array.from({ length: 50 }, (_, n) => `${n}`));
      }
      const told = new Set();
      for (const { name, payload } of laptop.heard.events) {
        if (name === 'message:new') told.add(payload.id);
        else assert.ok(told.has(payload.messageId), 'message:new comes before its message:delivered');
      }
    });

    e2e('message:send to a session that does not exist makes it; the sender need not have joined to be told', {}, async (cluster) => {
      const { socket, heard } = await open(nodeOf(cluster, 0).url, { token: token() });
      const id = sessionId('made');
      const message = await send({ socket }, id);
      assert.equal((await heard.next('message:delivered')).messageId, message.id);
      const { role, ownerId } = await rest(nodeOf(cluster, 1), 'alice').get(at.session(id));
      assert.deepEqual([role, ownerId], ['owner', 'alice']);
      await no((await open(nodeOf(cluster, 1).url, { token: token({ sub: 'mallory' }) })).socket, 'NOT_FOUND', 'message:send', { sessionId: id, content: 'x' });
    });

    e2e('clientMessageId: the same id gives the same message, anywhere and at once', {}, async (cluster) => {
      const { id, laptop, phone, bob, all } = await people(cluster);
      const ask20 = (content) => Promise.all(
        Array.from({ length: 20 }, (_, n) => send([laptop, phone][n % 2], id, content, { clientMessageId: 'once' })),
      );
      const first = await ask20('The first');
      assert.equal(new Set(first.map((message) => message.id)).size, 1, 'one message for twenty at once');
      const again = await send(phone, id, 'Another text', { clientMessageId: 'once' });
      assert.deepEqual([again.id, again.content], [first[0].id, 'The first']);
      const other = await send(bob, id, 'Somebody else’s', { clientMessageId: 'once' });
      assert.notEqual(other.id, again.id, 'the id is the sender’s own');
      const elsewhere = await send(laptop, await makeSession(nodeOf(cluster, 0), 'alice'), 'x', { clientMessageId: 'once' });
      assert.notEqual(elsewhere.id, again.id, 'and the session’s');
      for (const { heard } of all) {
        await heard.next('message:new', (message) => message.id === other.id);
        assert.deepEqual(heard.of('message:new').map((message) => message.id), [again.id, other.id], 'heard once');
      }
      const api = rest(nodeOf(cluster, 1), 'alice');
      const posted = await api.post(at.messages, { sessionId: id, content: 'x' }, { 'Idempotency-Key': 'once' });
      assert.equal(posted.id, again.id);
      assert.equal((await api.get(at.history(id))).total, 2);
    });

    e2e('message:edit', {}, async (cluster) => {
      const { id, laptop, bob, all } = await people(cluster);
      const message = await send(laptop, id, 'Helo');
      for (const { heard } of all) await heard.next('message:new');
      await laptop.heard.next('message:delivered');
      forget(...all);
      await ok(laptop.socket, 'message:edit', { messageId: message.id, content: 'Hello' });
      await eachHears(all, 'message:edited', (edited) => {
        assertFields(edited, { ...MESSAGE, editedAt: 'time' }, 'message:edited');
        assert.deepEqual([edited.id, edited.content, edited.isEdited, edited.createdAt], [message.id, 'Hello', true, message.createdAt]);
      });
      const stored = await rest(nodeOf(cluster, 1), 'bob').get(at.message(message.id));
      assert.deepEqual([stored.content, stored.isEdited], ['Hello', true]);
      await no(bob.socket, 'FORBIDDEN', 'message:edit', { messageId: message.id, content: 'Mine now' });
      await no(laptop.socket, 'NOT_FOUND', 'message:edit', { messageId: UNKNOWN, content: 'x' });
      await no(laptop.socket, 'NOT_FOUND', 'message:edit', { messageId: 'no uuid', content: 'x' });
      for (const content of ['', 'x'.repeat(32_001), 7, null, undefined]) {
        await no(laptop.socket, 'INVALID', 'message:edit', { messageId: message.id, content });
      }
    });

    e2e('message:delete: by its author or the owner; nothing is found of it any more', {}, async (cluster) => {
      const { id, laptop, bob, all } = await people(cluster);
      const alices = await send(laptop, id, 'A secret of Alice');
      const bobs = await send(bob, id, 'A secret of Bob', { attachments: [FILE] });
      await ok(bob.socket, 'message:reaction', { messageId: bobs.id, emoji: '👍' });
      for (const { heard } of all) await heard.next('message:reaction:update');
      await bob.heard.next('message:delivered');
      await laptop.heard.next('message:delivered');
      await no(bob.socket, 'FORBIDDEN', 'message:delete', { messageId: alices.id });
      forget(...all);
      await ok(laptop.socket, 'message:delete', { messageId: bobs.id }); // the owner
      await eachHears(all, 'message:deleted', (deleted) => {
        assertFields(deleted, { sessionId: 'string', messageId: 'string', deletedBy: 'string', deletedAt: 'time' }, 'message:deleted');
        assert.deepEqual([deleted.sessionId, deleted.messageId, deleted.deletedBy], [id, bobs.id, 'alice']);
      });
      forget(...all);
      await ok(laptop.socket, 'message:delete', { messageId: alices.id });
      for (const { heard } of all) await heard.next('message:deleted', ({ messageId }) => messageId === alices.id);
      for (const [event, more] of [['message:edit', { content: 'x' }], ['message:reaction', { emoji: '👍' }], ['message:delete', {}]]) {
        await no(bob.socket, 'NOT_FOUND', event, { messageId: bobs.id, ...more });
      }
      await no(bob.socket, 'NOT_FOUND', 'message:send', { sessionId: id, content: 'x', parentMessageId: bobs.id });
      const api = rest(nodeOf(cluster, 1), 'bob');
      const history = await api.call('GET', at.history(id));
      assert.ok(!history.text.includes('A secret of') && !history.text.includes(FILE.fileUrl), 'its content is gone');
      assert.deepEqual(history.body.messages.map((message) => [message.id, message.content, message.isDeleted]), [[alices.id, '', true], [bobs.id, '', true]], 'it keeps its place');
      assert.equal((await api.get(at.search(id, { query: 'secret' }))).total, 0);
    });

    e2e('message:seen moves on, never back', {}, async (cluster) => {
      const { id, laptop, bob, all } = await people(cluster);
      const messages = [];
      for (let n = 0; n < 3; n += 1) messages.push(await send(laptop, id, `${n}`));
      for (const { heard } of all) await heard.next('message:new', ({ content }) => content === '2');
      await laptop.heard.next('message:delivered', ({ messageId }) => messageId === messages[2].id);
      forget(...all);
      await ok(bob.socket, 'message:seen', { sessionId: id, messageId: messages[1].id });
      await eachHears(all, 'message:seen:update', (seen) => {
        assertFields(seen, { sessionId: 'string', messageId: 'string', userId: 'string', seenAt: 'time' }, 'seen');
        assert.deepEqual([seen.sessionId, seen.messageId, seen.userId], [id, messages[1].id, 'bob']);
      });
      forget(...all);
      await ok(bob.socket, 'message:seen', { sessionId: id, messageId: messages[0].id });
      await ok(bob.socket, 'message:seen', { sessionId: id, messageId: messages[1].id });
      await ok(bob.socket, 'message:seen', { sessionId: id, messageId: messages[2].id });
      await eachHears(all, 'message:seen:update', (seen) => assert.equal(seen.messageId, messages[2].id));
      const { members } = await rest(nodeOf(cluster, 0), 'alice').get(at.members(id));
      assert.equal(members.find(({ userId }) => userId === 'bob').lastSeenMessageId, messages[2].id);
      await no(bob.socket, 'NOT_FOUND', 'message:seen', { sessionId: id, messageId: UNKNOWN });
      const other = await send(bob, await makeSession(nodeOf(cluster, 0), 'bob'));
      await no(bob.socket, 'NOT_FOUND', 'message:seen', { sessionId: id, messageId: other.id });
    });

    e2e('message:reaction toggles, and counts', {}, async (cluster) => {
      const { id, laptop, phone, bob, all } = await people(cluster);
      const message = await send(laptop, id);
      const toggles = [
        [laptop, '👍', true, { '👍': 1 }],
        [bob, '👍', true, { '👍': 2 }],
        [bob, '🎉', true, { '👍': 2, '🎉': 1 }],
        [phone, '👍', false, { '👍': 1, '🎉': 1 }],
        [bob, '🎉', false, { '👍': 1 }],
      ];
      for (const { heard } of all) await heard.next('message:new');
      await laptop.heard.next('message:delivered');
      for (const [who, emoji, added, counts] of toggles) {
        forget(...all);
        assert.equal((await ok(who.socket, 'message:reaction', { messageId: message.id, emoji })).added, added);
        await eachHears(all, 'message:reaction:update', (update) => {
          assertFields(update, { sessionId: 'string', messageId: 'string', userId: 'string', emoji: 'string', added: 'boolean', counts: 'object' }, 'reaction');
          assert.deepEqual({ ...update }, { ...update, sessionId: id, messageId: message.id, userId: who.sub, emoji, added, counts });
        });
      }
      const stored = await rest(nodeOf(cluster, 1), 'alice').get(at.message(message.id));
      assert.deepEqual(stored.reactions, [{ emoji: '👍', count: 1, userIds: ['bob'] }]);
      for (const emoji of ['', 'x'.repeat(65), 5, null]) await no(bob.socket, 'INVALID', 'message:reaction', { messageId: message.id, emoji });
      await no(bob.socket, 'NOT_FOUND', 'message:reaction', { messageId: UNKNOWN, emoji: '👍' });

      // As many at once as there are: none is lost, none counted twice.
      await Promise.all(Array.from({ length: 11 }, (_, n) => ok([laptop, phone][n % 2].socket, 'message:reaction', { messageId: message.id, emoji: '🔥' })));
      const { reactions } = await rest(nodeOf(cluster, 1), 'alice').get(at.message(message.id));
      assert.deepEqual(reactions.find(({ emoji }) => emoji === '🔥'), { emoji: '🔥', count: 1, userIds: ['alice'] }, 'an odd number of toggles');
    });

    e2e('typing is relayed to the others, ends by itself, and is not kept', { timeout: 40_000 }, async (cluster) => {
      const { id, laptop, phone, bob, all } = await people(cluster);
      await ok(laptop.socket, 'typing:start', { sessionId: id, userName: 'Ali' });
      const started = await bob.heard.next('typing:start');
      assert.deepEqual([started.sessionId, started.userId, started.userName], [id, 'alice', 'Ali']);
      await ok(laptop.socket, 'typing:stop', { sessionId: id });
      const stopped = await bob.heard.next('typing:stop');
      assert.deepEqual([stopped.sessionId, stopped.userId], [id, 'alice']);
      await flushed(laptop, phone);
      assert.deepEqual([...laptop.heard.said(), ...phone.heard.said()], [], 'one’s own devices are not told');

      forget(...all);
      await ok(phone.socket, 'typing:start', { sessionId: id });
      assert.equal((await bob.heard.next('typing:start')).userName, 'Alice', 'the name of the token');
      await bob.heard.next('typing:stop', () => true, 12_000); // 5 s without renewal

      forget(...all);
      await ok(bob.socket, 'typing:start', { sessionId: id });
      for (const device of [laptop, phone]) await device.heard.next('typing:start', ({ userId }) => userId === 'bob');
      await send(bob, id, 'That was it');
      for (const device of all) await device.heard.next('message:new');
      // Nothing of it is kept: who comes later is told nothing of the past.
      await ok(laptop.socket, 'typing:stop', { sessionId: id });
      const late = await joined(nodeOf(cluster, 0), 'bob', id);
      await flushed(late);
      assert.ok(!late.heard.names().includes('typing:start'));
      const { socket: stranger } = await open(nodeOf(cluster, 1).url, { token: token({ sub: 'mallory' }) });
      await no(stranger, 'NOT_FOUND', 'typing:start', { sessionId: id });
      await no(stranger, 'NOT_FOUND', 'typing:stop', { sessionId: id });
    });

    e2e('stream:request: the prompt is a message like any other', {}, async (cluster) => {
      const { id, laptop, all } = await people(cluster);
      const reply = await ok(laptop.socket, 'stream:request', { sessionId: id, prompt: 'Well?', agentId: 'instant', clientMessageId: 'p-1' });
      for (const { heard } of all) {
        const prompt = await heard.next('message:new');
        assertFields(prompt, MESSAGE, 'prompt');
        assert.deepEqual([prompt.id, prompt.content, prompt.userId], [reply.promptMessageId, 'Well?', 'alice']);
        const end = await heard.finished(reply.streamId);
        assert.equal(end.name, 'stream:complete');
        assertFields(end.payload.message, MESSAGE, 'answer');
        assert.equal(heard.of('message:new').length, 1, 'the answer comes in stream:complete only');
      }
      await ok(laptop.socket, 'message:reaction', { messageId: reply.messageId, emoji: '👏' });
      await no(laptop.socket, 'FORBIDDEN', 'message:edit', { messageId: reply.messageId, content: 'I said that' });
      await ok(laptop.socket, 'message:delete', { messageId: reply.messageId }); // the owner may
      await ok(laptop.socket, 'stream:stop', { streamId: reply.streamId });
    });

    e2e('threads', {}, async (cluster) => {
      const { id, laptop, bob, all } = await people(cluster);
      const root = await send(laptop, id, 'root');
      const child = await send(bob, id, 'child', { parentMessageId: root.id });
      const grandchild = await send(laptop, id, 'grandchild', { parentMessageId: child.id });
      await send(laptop, id, 'beside');
      assert.equal(child.parentMessageId, root.id);
      for (const { heard } of all) assert.equal((await heard.next('message:new', ({ id }) => id === grandchild.id)).parentMessageId, child.id);
      const api = rest(nodeOf(cluster, 1), 'bob');
      const thread = await api.get(at.thread(root.id));
      assert.deepEqual([thread.messages.map((message) => message.id), thread.total], [[child.id, grandchild.id], 2]);
      assert.deepEqual((await api.get(at.thread(root.id, '?limit=1&offset=1'))).messages.map((message) => message.id), [grandchild.id]);
      const direct = await api.get(at.history(id, `?parentMessageId=${root.id}`));
      assert.deepEqual([direct.messages.map((message) => message.id), direct.total], [[child.id], 1]);
      for (const parentMessageId of [UNKNOWN, (await send(laptop, await makeSession(nodeOf(cluster, 0), 'alice'))).id]) {
        await no(laptop.socket, 'NOT_FOUND', 'message:send', { sessionId: id, content: 'x', parentMessageId });
      }
    });

    e2e('attachments', {}, async (cluster) => {
      const { id, laptop, bob, all } = await people(cluster);
      const message = await send(laptop, id, 'See these', { attachments: [FILE, { ...FILE, fileName: 'b.pdf', metadata: undefined }] });
      for (const { heard } of all) {
        const { attachments } = await heard.next('message:new');
        assert.deepEqual(attachments.map(({ fileName }) => fileName), ['plan.pdf', 'b.pdf']);
        for (const attachment of attachments) {
          assertFields(attachment, { id: 'string', fileName: 'string', fileUrl: 'string', mimeType: 'string', fileSize: 'int', metadata: '?object' }, 'attachment');
        }
        const { fileName, fileUrl, mimeType, fileSize, metadata } = attachments[0];
        assert.deepEqual({ fileName, fileUrl, mimeType, fileSize, metadata }, FILE);
      }
      assert.deepEqual((await rest(nodeOf(cluster, 1), 'bob').get(at.message(message.id))).attachments, message.attachments);
      const wrong = [
        'no array', {}, [null], [{}], [{ ...FILE, fileName: undefined }], [{ ...FILE, fileUrl: 5 }], [{ ...FILE, fileSize: -1 }],
        [{ ...FILE, fileSize: 1.5 }], [{ ...FILE, mimeType: null }], Array.from({ length: 11 }, () => FILE),
      ];
      for (const attachments of wrong) await no(bob.socket, 'INVALID', 'message:send', { sessionId: id, content: 'x', attachments });
      await send(bob, id, 'Ten', { attachments: Array.from({ length: 10 }, () => FILE) });
    });

    e2e('what a message may be', {}, async (cluster) => {
      const { id, laptop, bob } = await people(cluster);
      for (const content of ['x'.repeat(32_000), '𝒳'.repeat(32_000), ' leading', 'a\nb', '\u202e', '👩‍👩‍👧']) {
        const message = await send(laptop, id, content);
        assert.equal(message.content, content);
        assert.equal((await bob.heard.next('message:new', (heard) => heard.id === message.id)).content, content);
      }
      for (const content of ['', 'x'.repeat(32_001), 5, null, undefined, {}, []]) {
        await no(laptop.socket, 'INVALID', 'message:send', { sessionId: id, content });
      }
      for (const more of [{ clientMessageId: 5 }, { clientMessageId: '' }, { clientMessageId: 'x'.repeat(129) }, { parentMessageId: 5 }, { sessionId: 'a b' }, { sessionId: undefined }]) {
        await no(laptop.socket, 'INVALID', 'message:send', { sessionId: id, content: 'x', ...more });
      }
      forget(laptop);
      laptop.socket.emit('message:send', { sessionId: id, content: '' });
      assertError(await laptop.heard.next('error'), 'INVALID', 'message:send');
    });

    e2e('profanity becomes asterisks, also by an edit, in what people write', {}, async (cluster) => {
      const { id, laptop, all } = await people(cluster);
      const message = await send(laptop, id, 'Oh shit, Scunthorpe');
      assert.equal(message.content, 'Oh ****, Scunthorpe');
      for (const { heard } of all) assert.equal((await heard.next('message:new')).content, message.content);
      await ok(laptop.socket, 'message:edit', { messageId: message.id, content: 'What the FUCK' });
      for (const { heard } of all) assert.equal((await heard.next('message:edited')).content, 'What the ****');
      const { messages } = await rest(nodeOf(cluster, 1), 'alice').get(at.history(id));
      assert.deepEqual(messages.map(({ content }) => content), ['What the ****']);
      const { promptMessageId } = await ok(laptop.socket, 'stream:request', { sessionId: id, prompt: 'shit?', agentId: 'instant' });
      assert.equal((await laptop.heard.next('message:new', (heard) => heard.id === promptMessageId)).content, '****?');
    });
  });
}

suite('a typer’s node is killed', { nodes: 2, fresh: true }, (e2e) => {
  e2e('typing:stop comes all the same', { timeout: 40_000 }, async (cluster) => {
    const { id, laptop, bob } = await people(cluster);
    await ok(laptop.socket, 'typing:start', { sessionId: id });
    await bob.heard.next('typing:start');
    await cluster.nodes[0].stop('SIGKILL');
    assert.equal((await bob.heard.next('typing:stop', () => true, 12_000)).userId, 'alice');
  });
});

for (const [mode, check] of Object.entries({
  reject: async ({ id, laptop, bob }) => {
    const message = await send(laptop, id, 'Fine');
    for (const [event, payload] of [
      ['message:send', { sessionId: id, content: 'shit' }],
      ['message:edit', { messageId: message.id, content: 'shit' }],
      ['stream:request', { sessionId: id, prompt: 'shit' }],
    ]) await no(laptop.socket, 'MODERATION_FAILED', event, payload);
    const api = rest(bob.node, 'bob');
    const refused = await api.call('POST', at.messages, { sessionId: id, content: 'shit' });
    assert.equal(refused.body.error.code, 'MODERATION_FAILED', refused.text);
    assert.equal(refused.status, 422);
    const titled = await rest(laptop.node, 'alice').call('PATCH', at.session(id), { title: 'shit' });
    assert.equal(titled.body.error.code, 'MODERATION_FAILED', titled.text);
    await flushed(bob);
    assert.deepEqual((await api.get(at.history(id))).messages.map(({ content }) => content), ['Fine']);
    assert.deepEqual(bob.heard.of('message:new').map(({ content }) => content), ['Fine']);
  },
  off: async ({ id, laptop, bob }) => {
    const message = await send(laptop, id, 'shit');
    assert.equal((await bob.heard.next('message:new')).content, 'shit');
    await ok(laptop.socket, 'message:edit', { messageId: message.id, content: 'fuck' });
    assert.equal((await bob.heard.next('message:edited')).content, 'fuck');
  },
})) {
  suite(`MODERATION=${mode}`, { nodes: 2, env: { MODERATION: mode } }, (e2e) => {
    e2e('of what is written and of edits', {}, async (cluster) => check(await people(cluster)));
  });
}

const LIMITS = {
  'session:join': '4/60s', 'message:send': '5/60s', 'message:edit': '3/60s', 'message:delete': '3/60s', 'message:seen': '3/60s',
  'message:reaction': '3/60s', 'typing:start': '3/60s', 'stream:request': '3/60s',
};

for (const [shape, options] of Object.entries(SHAPES)) {
  suite(`limits: ${shape}`, { ...options, env: { RATE_LIMITS: rateLimits(LIMITS) } }, (e2e) => {
    e2e('are a user’s, over all devices, nodes and transports, each event by itself', {}, async (cluster) => {
      // Names that no other test uses: the limits are the user's.
      const sub = `alice-${randomUUID()}`;
      const id = await makeSession(nodeOf(cluster, 0), sub);
      const devices = [await joined(nodeOf(cluster, 0), sub, id), await joined(nodeOf(cluster, 1), sub, id)];
      const api = rest(nodeOf(cluster, 1), sub);
      const { socket } = devices[0];
      const limited = (error) => {
        assertFields(error, { retryAfterMs: 'int' }, 'RATE_LIMIT');
        assert.ok(error.retryAfterMs > 0 && error.retryAfterMs <= 60_000, `${error.retryAfterMs}`);
      };
      const sent = [];
      for (let n = 0; n < 4; n += 1) sent.push(await send(devices[n % 2], id, `${n}`));
      sent.push(await api.post(at.messages, { sessionId: id, content: 'by REST' }));
      for (const { socket } of devices) limited(await no(socket, 'RATE_LIMIT', 'message:send', { sessionId: id, content: 'x' }));
      const refused = await api.refused(429, 'RATE_LIMIT', 'POST', at.messages, { sessionId: id, content: 'x' });
      limited(refused);
      assert.ok(Number(refused.retryAfter) >= 1, `Retry-After: ${refused.retryAfter}`);

      const spend = {
        'message:edit': [{ messageId: sent[0].id, content: 'y' }, () => api.put(at.message(sent[0].id), { content: 'z' }), ['PUT', at.message(sent[0].id), { content: 'z' }]],
        'message:reaction': [{ messageId: sent[0].id, emoji: '👍' }, () => api.post(at.reactions(sent[0].id), { emoji: '👍' }), ['POST', at.reactions(sent[0].id), { emoji: '👍' }]],
        'message:seen': [{ sessionId: id, messageId: sent[0].id }],
        'typing:start': [{ sessionId: id }],
        'stream:request': [{ sessionId: id, prompt: 'p', agentId: 'instant' }],
      };
      for (const [event, [payload, byRest, request]] of Object.entries(spend)) {
        for (let n = 0; n < (byRest ? 2 : 3); n += 1) await ok(devices[n % 2].socket, event, payload);
        await byRest?.();
        for (const device of devices) limited(await no(device.socket, 'RATE_LIMIT', event, payload));
        if (request) limited(await api.refused(429, 'RATE_LIMIT', ...request));
      }
      await ok(socket, 'message:delete', { messageId: sent[1].id });
      await ok(devices[1].socket, 'message:delete', { messageId: sent[2].id });
      await api.delete(at.message(sent[3].id));
      limited(await no(socket, 'RATE_LIMIT', 'message:delete', { messageId: sent[4].id }));
      await api.refused(429, 'RATE_LIMIT', 'DELETE', at.message(sent[4].id));

      // Another user has limits of their own, and nothing that was refused was done.
      const bob = `bob-${randomUUID()}`;
      await api.post(at.members(id), { userId: bob });
      await send(await joined(nodeOf(cluster, 1), bob, id), id, 'Bob');
      const { messages } = await api.get(at.history(id));
      assert.deepEqual(messages.filter(({ agentId, content }) => !agentId && content !== 'p').map(({ content }) => content), ['z', '', '', '', 'by REST', 'Bob']);
    });

    e2e('joining again what one was in does not count as joining', {}, async (cluster) => {
      const sub = `carol-${randomUUID()}`;
      const device = await joined(nodeOf(cluster, 0), sub, sessionId('limit'));
      const id = device.reply.session.id;
      for (let n = 0; n < 6; n += 1) {
        await ok(device.socket, 'session:leave', { sessionId: id });
        await joined(nodeOf(cluster, n), sub, id);
      }
      for (let n = 0; n < 3; n += 1) await ok(device.socket, 'session:join', { sessionId: sessionId('limit') });
      const error = await no(device.socket, 'RATE_LIMIT', 'session:join', { sessionId: sessionId('limit') });
      assert.ok(error.retryAfterMs > 0);
      await ok(device.socket, 'session:join', { sessionId: id });
    });

    e2e('stopping and leaving are never refused', {}, async (cluster) => {
      const { socket } = await open(nodeOf(cluster, 0).url, { token: token({ sub: `dave-${randomUUID()}` }) });
      const { streamId } = await ok(socket, 'stream:request', { sessionId: sessionId('limit'), prompt: 'p', agentId: 'slow' });
      for (let n = 0; n < 15; n += 1) {
        await ok(socket, 'session:leave', { sessionId: sessionId('limit') });
        await ok(socket, 'stream:stop', { streamId });
      }
    });
  });
}

suite('joining again', { nodes: 2, env: { RATE_LIMITS: rateLimits({ 'session:rejoin': '4/60s' }) } }, (e2e) => {
  e2e('is bounded for a user, on all nodes together', {}, async (cluster) => {
    const sub = `erin-${randomUUID()}`;
    const id = sessionId('again');
    const devices = [await joined(nodeOf(cluster, 0), sub, id), await joined(nodeOf(cluster, 1), sub, id)];
    // The second device's was the first.
    for (let n = 0; n < 3; n += 1) await ok(devices[n % 2].socket, 'session:join', { sessionId: id });
    for (const { socket } of devices) {
      const error = await no(socket, 'RATE_LIMIT', 'session:join', { sessionId: id });
      assert.ok(error.retryAfterMs > 0);
      await ok(socket, 'session:join', { sessionId: sessionId('other') });
    }
  });
});

suite('a limit passes', { nodes: 1, database: 'sqlite', redis: false, env: { RATE_LIMITS: rateLimits({ 'message:send': '2/2s' }) } }, (e2e) => {
  e2e('after retryAfterMs the same is allowed', {}, async (cluster) => {
    const { id, laptop } = await people(cluster);
    await send(laptop, id);
    await send(laptop, id);
    const { retryAfterMs } = await no(laptop.socket, 'RATE_LIMIT', 'message:send', { sessionId: id, content: 'x' });
    assert.ok(retryAfterMs > 0 && retryAfterMs <= 2_000, `${retryAfterMs}`);
    await eventually(async () => (await ask(laptop.socket, 'message:send', { sessionId: id, content: 'x' })).ok, { within: 10_000, every: 100, what: 'it is allowed again' });
  });
});

suite('bad limits', { nodes: 1, database: 'sqlite', redis: false }, (e2e) => {
  e2e('stop the start, and say so', {}, async () => {
    for (const RATE_LIMITS of ['message:send=often', 'no:such:event=3/60s', 'message:send=3']) {
      await assert.rejects(startCluster({ nodes: 1, database: 'sqlite', redis: false, env: { RATE_LIMITS } }), /RATE_LIMITS/);
    }
  });
});
