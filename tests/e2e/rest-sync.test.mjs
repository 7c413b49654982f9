// What changes over REST is heard by sockets, on another node, exactly as if it had come over a
// socket; and what is read over REST is what was said there.

import assert from 'node:assert/strict';
import {
  MESSAGE, SESSION, SHAPES, assertError, assertFields, flushed, forget, joined, no, nodeOf, ok, open, sessionId, suite, token,
} from './harness.mjs';
import { at, makeSession, rest } from './harness/rest.mjs';

const FILE = { fileName: 'plan.pdf', fileUrl: 'https://files.example/plan.pdf', mimeType: 'application/pdf', fileSize: 12_345, metadata: { pages: 3 } };
const UNKNOWN = '01890000-0000-7000-8000-000000000000';

/** What differs between two events of one kind that happened at different times to different messages. */
const shapeOf = (payload) =>
  JSON.parse(JSON.stringify(payload, (key, value) => {
    if (typeof value !== 'string') return value;
    if (/(At|^id|Id)$/.test(key) && key !== 'userId') return `<${key}>`;
    return value;
  }));

const idsOf = ({ messages }) => messages.map(({ id }) => id);

for (const [shape, options] of Object.entries(SHAPES)) {
  suite(`REST and sockets: ${shape}`, options, (e2e) => {
    // Each change, over a socket and over REST: the events are the same but for ids and times.
    const prepared = async (cluster) => {
      const id = await makeSession(nodeOf(cluster, 0), 'alice', ['bob']);
      const alice = await joined(nodeOf(cluster, 0), 'alice', id, { name: 'Alice' });
      const bob = await joined(nodeOf(cluster, 1), 'bob', id, { name: 'Bob' });
      await alice.heard.next('user:joined');
      const api = rest(nodeOf(cluster, 0), 'alice');
      const { message } = await ok(alice.socket, 'message:send', { sessionId: id, content: 'Before' });
      await bob.heard.next('message:new');
      await alice.heard.next('message:delivered');
      forget(alice, bob);
      return { id, alice, bob, api, message };
    };
    const changes = {
      'a message': [
        'message:new',
        ({ id }) => ['message:send', { sessionId: id, content: 'Hello', attachments: [FILE], clientMessageId: 'c' }],
        ({ id, api }) => api.post(at.messages, { sessionId: id, content: 'Hello', attachments: [FILE], clientMessageId: 'c' }),
      ],
      'a reply': [
        'message:new',
        ({ id, message }) => ['message:send', { sessionId: id, content: 'Reply', parentMessageId: message.id }],
        ({ id, api, message }) => api.post(at.messages, { sessionId: id, content: 'Reply', parentMessageId: message.id }),
      ],
      'an edit': [
        'message:edited',
        ({ message }) => ['message:edit', { messageId: message.id, content: 'After' }],
        ({ api, message }) => api.put(at.message(message.id), { content: 'After' }),
      ],
      'a deletion': [
        'message:deleted',
        ({ message }) => ['message:delete', { messageId: message.id }],
        ({ api, message }) => api.delete(at.message(message.id)),
      ],
      'a reaction': [
        'message:reaction:update',
        ({ message }) => ['message:reaction', { messageId: message.id, emoji: '👍' }],
        ({ api, message }) => api.post(at.reactions(message.id), { emoji: '👍' }),
      ],
    };
    for (const [what, [name, bySocket, byRest]] of Object.entries(changes)) {
      e2e(`${what} is heard alike`, {}, async (cluster) => {
        const socket = await prepared(cluster);
        await ok(socket.alice.socket, ...bySocket(socket));
        const over = await prepared(cluster);
        await byRest(over);
        for (const who of ['alice', 'bob']) {
          const [expected, found] = [await socket[who].heard.next(name), await over[who].heard.next(name)];
          assert.deepEqual(shapeOf(found), shapeOf(expected), who);
        }
        await flushed(over.alice, over.bob);
        assert.deepEqual(over.bob.heard.said(), [name]);
        // message:delivered is for the socket that sent; over REST there is none.
        assert.deepEqual(over.alice.heard.said(), [name]);
      });
    }

    e2e('attachments that are added and taken away are heard as an edit of the message', {}, async (cluster) => {
      const { bob, api, message } = await prepared(cluster);
      await api.post(at.attachments(message.id), FILE);
      const added = await bob.heard.next('message:edited');
      assertFields(added, MESSAGE, 'message:edited');
      assert.deepEqual([added.content, added.attachments.map(({ fileName }) => fileName)], ['Before', ['plan.pdf']]);
      const { attachments } = await api.get(at.attachments(message.id));
      assert.deepEqual(attachments, added.attachments);
      await rest(bob.node, 'bob').refused(403, 'FORBIDDEN', 'DELETE', at.attachment(attachments[0].id));
      await rest(bob.node, 'bob').refused(403, 'FORBIDDEN', 'POST', at.attachments(message.id), FILE);
      forget(bob);
      await api.delete(at.attachment(attachments[0].id));
      assert.deepEqual((await bob.heard.next('message:edited')).attachments, []);
      await api.refused(404, 'NOT_FOUND', 'DELETE', at.attachment(attachments[0].id));
    });

    e2e('sessions are made, listed, changed and deleted', {}, async (cluster) => {
      const sub = sessionId('user');
      const [api, elsewhere] = [rest(nodeOf(cluster, 0), sub), rest(nodeOf(cluster, 1), sub)];
      const own = sessionId('own');
      const made = await api.call('POST', at.sessions, { id: own, title: 'Mine', agentId: 'quick', visibility: 'private' });
      assert.equal(made.status, 201);
      assertFields(made.body, SESSION, 'Session');
      assert.deepEqual(
        [made.body.id, made.body.ownerId, made.body.title, made.body.agentId, made.body.visibility, made.body.role, made.body.memberCount],
        [own, sub, 'Mine', 'quick', 'private', 'owner', 1],
      );
      const again = await elsewhere.call('POST', at.sessions, { id: own, title: 'Another' });
      assert.deepEqual([again.status, again.body.title], [200, 'Mine']);
      await rest(nodeOf(cluster, 1), 'mallory').refused(409, 'INVALID', 'POST', at.sessions, { id: own });

      const ids = [own];
      for (let n = 0; n < 4; n += 1) ids.push(await makeSession(nodeOf(cluster, n), sub));
      await api.post(at.messages, { sessionId: ids[1], content: 'now it is the last active one' });
      const listed = [];
      let cursor;
      do {
        const page = await elsewhere.get(`${at.sessions}?limit=2${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`);
        assert.ok(page.sessions.length <= 2);
        for (const session of page.sessions) assertFields(session, SESSION, 'Session');
        listed.push(...page.sessions.map(({ id }) => id));
        cursor = page.nextCursor;
      } while (cursor);
      assert.deepEqual([...listed].sort(), [...ids].sort(), 'each once');
      assert.deepEqual([listed[0], listed.at(-1)], [ids[1], own]);

      const changed = await api.patch(at.session(own), { title: 'Ours', visibility: 'open' });
      assert.deepEqual([changed.title, changed.visibility, changed.agentId], ['Ours', 'open', 'quick']);
      assert.deepEqual(await elsewhere.get(at.session(own)), changed);
      await rest(nodeOf(cluster, 1), 'bob').refused(403, 'FORBIDDEN', 'PATCH', at.session(own), { title: 'Bob’s' });
      for (const body of [{ title: 5 }, { visibility: 'secret' }, { agentId: 7 }, 'no json', []]) {
        const { status, text } = await api.call('PATCH', at.session(own), body);
        assert.ok(status === 400 || status === 422, `${status} ${text}`);
      }

      const device = await joined(nodeOf(cluster, 1), sub, own);
      const guest = await joined(nodeOf(cluster, 0), 'bob', own);
      await device.heard.next('user:joined');
      await ok(device.socket, 'message:send', { sessionId: own, content: 'Last words' });
      await guest.heard.next('message:new');
      forget(guest);
      await api.delete(at.session(own));
      for (const { heard } of [device, guest]) assertError({ event: '', ...(await heard.next('error')) }, 'NOT_FOUND');
      for (const path of [at.session(own), at.history(own), at.members(own), at.presence(own)]) await elsewhere.refused(404, 'NOT_FOUND', 'GET', path);
      await no(device.socket, 'NOT_FOUND', 'message:send', { sessionId: own, content: 'Are you there?' });
      await no(device.socket, 'NOT_FOUND', 'session:join', { sessionId: own });
      assert.ok(!(await api.get(at.sessions)).sessions.some(({ id }) => id === own));
      const taken = await api.call('POST', at.sessions, { id: own });
      assert.equal(taken.status, 409, 'a deleted session’s id is not given again');
    });

    e2e('history pages from the newest, and before and after a message', {}, async (cluster) => {
      const id = await makeSession(nodeOf(cluster, 0), 'alice');
      const api = rest(nodeOf(cluster, 0), 'alice');
      const all = [];
      for (let n = 0; n < 12; n += 1) all.push((await api.post(at.messages, { sessionId: id, content: `n${n}` })).id);
      await api.delete(at.message(all[5]));
      const page = async (query, ids, hasMore) => {
        const found = await rest(nodeOf(cluster, 1), 'alice').get(at.history(id, query));
        for (const message of found.messages) assertFields(message, MESSAGE, 'Message');
        assert.deepEqual(idsOf(found), ids, query);
        assert.equal(found.hasMore, hasMore, `${query}: hasMore`);
        assert.equal(found.total, 12, `${query}: total`);
      };
      await page('', all, false);
      await page('?limit=5', all.slice(7), true);
      await page('?limit=5&offset=5', all.slice(2, 7), true);
      await page('?limit=5&offset=10', all.slice(0, 2), false);
      await page('?limit=5&offset=50', [], false);
      await page(`?limit=3&before=${all[6]}`, all.slice(3, 6), true);
      await page(`?limit=9&before=${all[6]}`, all.slice(0, 6), false);
      await page(`?limit=3&after=${all[6]}`, all.slice(7, 10), true);
      await page(`?limit=9&after=${all[6]}`, all.slice(7), false);
      await page(`?limit=9&after=${all[2]}&before=${all[6]}`, all.slice(3, 6), false);
      const walked = [];
      for (let after = all[0]; after; ) {
        const { messages, hasMore } = await api.get(at.history(id, `?limit=4&after=${after}`));
        walked.push(...messages.map((message) => message.id));
        after = hasMore ? walked.at(-1) : undefined;
      }
      assert.deepEqual(walked, all.slice(1));
      for (const query of ['?limit=-1', '?limit=x', '?offset=-1', '?limit=1e9', '?offset=99999999999999999999']) {
        const { status, text } = await api.call('GET', at.history(id, query));
        assert.ok(status === 400 || status === 422 || status === 200, `${query}: ${status} ${text}`);
      }
    });

    e2e('search finds words, in any case, in this session only', {}, async (cluster) => {
      const id = await makeSession(nodeOf(cluster, 0), 'alice', ['bob']);
      const api = rest(nodeOf(cluster, 0), 'alice');
      const post = (content, session = id) => api.post(at.messages, { sessionId: session, content });
      const [one, two, three] = [await post('The quick brown fox'), await post('A QUICK answer'), await post('Grüße über Köln')];
      await post('quick, but elsewhere', await makeSession(nodeOf(cluster, 0), 'alice'));
      const search = async (query, more) => (await rest(nodeOf(cluster, 1), 'bob').get(at.search(id, { query, ...more })));
      const found = async (query, ...messages) => {
        const { messages: hits, total } = await search(query);
        assert.deepEqual(hits.map((hit) => hit.id).sort(), messages.map((message) => message.id).sort(), query);
        assert.equal(total, messages.length, query);
        for (const hit of hits) assertFields(hit, MESSAGE, 'hit');
      };
      await found('quick', one, two);
      await found('Quick FOX', one);
      await found('köln', three);
      await found('nothing-like-it');
      await found('%');
      await found("'; DROP TABLE message; --");
      const pages = [(await search('quick', { limit: 1 })), (await search('quick', { limit: 1, offset: 1 }))];
      assert.deepEqual(pages.flatMap(idsOf).sort(), [one.id, two.id].sort());
      assert.deepEqual(pages.map(({ total }) => total), [2, 2]);
      await api.put(at.message(one.id), { content: 'The slow brown fox' });
      await found('quick', two);
      await found('slow', one);
      await api.delete(at.message(two.id));
      await found('quick');
      await rest(nodeOf(cluster, 1), 'mallory').refused(404, 'NOT_FOUND', 'GET', at.search(id, { query: 'fox' }));
      const { status } = await api.call('GET', at.session(id) + '/search');
      assert.ok(status === 400 || status === 422, `a search for nothing: ${status}`);
    });

    e2e('members: the owner manages them', {}, async (cluster) => {
      const id = await makeSession(nodeOf(cluster, 0), 'alice', ['bob']);
      const [api, bob] = [rest(nodeOf(cluster, 1), 'alice'), rest(nodeOf(cluster, 1), 'bob')];
      const { members } = await bob.get(at.members(id));
      for (const member of members) assertFields(member, { userId: 'string', role: 'string', joinedAt: 'time', lastSeenMessageId: '?string' }, 'member');
      assert.deepEqual(members.map(({ userId, role }) => [userId, role]).sort(), [['alice', 'owner'], ['bob', 'member']]);
      assert.equal((await bob.get(at.session(id))).memberCount, 2);
      await api.post(at.members(id), { userId: 'bob' }); // again
      assert.equal((await bob.get(at.session(id))).memberCount, 2);
      await bob.refused(403, 'FORBIDDEN', 'POST', at.members(id), { userId: 'mallory' });
      await bob.refused(403, 'FORBIDDEN', 'DELETE', at.member(id, 'alice'));
      await api.refused(404, 'NOT_FOUND', 'DELETE', at.member(id, 'nobody'));
      await rest(nodeOf(cluster, 0), 'mallory').refused(404, 'NOT_FOUND', 'GET', at.members(id));
      for (const body of [{}, { userId: '' }, { userId: 5 }, { userId: 'x'.repeat(257) }]) {
        const { status, text } = await api.call('POST', at.members(id), body);
        assert.ok(status === 400 || status === 422, `${status} ${text}`);
      }
    });

    e2e('a removed member’s sockets leave at once, on every node', {}, async (cluster) => {
      const id = await makeSession(nodeOf(cluster, 0), 'alice', ['bob']);
      const other = await makeSession(nodeOf(cluster, 0), 'bob');
      const alice = await joined(nodeOf(cluster, 0), 'alice', id);
      const bobs = [await joined(nodeOf(cluster, 0), 'bob', [id, other]), await joined(nodeOf(cluster, 1), 'bob', [id, other])];
      await alice.heard.next('user:joined');
      const { message } = await ok(bobs[0].socket, 'message:send', { sessionId: id, content: 'I was here' });
      for (const { heard } of bobs) await heard.next('message:new');
      await bobs[0].heard.next('message:delivered');
      forget(alice, ...bobs);

      const api = rest(nodeOf(cluster, 0), 'alice');
      await api.delete(at.member(id, 'bob'));
      for (const { heard } of bobs) {
        const error = await heard.next('error');
        assertError({ event: '', ...error }, 'NOT_FOUND');
        assert.equal(error.sessionId, id);
      }
      assert.equal((await alice.heard.next('user:left')).userId, 'bob');
      forget(...bobs);
      await ok(alice.socket, 'message:send', { sessionId: id, content: 'He is gone' });
      await ok(alice.socket, 'typing:start', { sessionId: id });
      await ok(alice.socket, 'message:reaction', { messageId: message.id, emoji: '👋' });
      const { streamId } = await ok(alice.socket, 'stream:request', { sessionId: id, prompt: 'p', agentId: 'instant' });
      await alice.heard.finished(streamId);
      // Both nodes have had all of it: others there have.
      await api.post(at.members(id), { userId: 'carol' });
      for (const n of [0, 1]) {
        const control = await joined(nodeOf(cluster, n), 'carol', id);
        const { message: last } = await ok(alice.socket, 'message:send', { sessionId: id, content: 'fence' });
        await control.heard.next('message:new', (heard) => heard.id === last.id);
      }
      await flushed(...bobs);
      for (const { heard, socket } of bobs) {
        assert.deepEqual(heard.events.filter(({ payload }) => payload.sessionId === id), [], 'nothing is heard any more');
        assert.ok(socket.connected, 'and nothing else is lost');
        await no(socket, 'NOT_FOUND', 'message:send', { sessionId: id, content: 'x' });
        await no(socket, 'NOT_FOUND', 'message:edit', { messageId: message.id, content: 'x' });
        await no(socket, 'NOT_FOUND', 'session:join', { sessionId: id });
      }
      const { message: own } = await ok(bobs[0].socket, 'message:send', { sessionId: other, content: 'Mine' });
      assert.equal((await bobs[1].heard.next('message:new')).id, own.id);
      await rest(nodeOf(cluster, 1), 'bob').refused(404, 'NOT_FOUND', 'GET', at.history(id));

      await api.post(at.members(id), { userId: 'bob' });
      await ok(bobs[1].socket, 'session:join', { sessionId: id }); // and may come back
      await rest(nodeOf(cluster, 1), 'bob').delete(at.member(id, 'bob')); // may go by himself
      await bobs[1].heard.next('error');
    });

    e2e('an open session becomes private: guests leave, members stay', {}, async (cluster) => {
      const id = await makeSession(nodeOf(cluster, 0), 'alice', ['bob'], { visibility: 'open' });
      const bob = await joined(nodeOf(cluster, 1), 'bob', id);
      const guests = [await joined(nodeOf(cluster, 0), 'guest', id), await joined(nodeOf(cluster, 1), 'guest', id)];
      assert.equal(guests[0].reply.session.role ?? null, null);
      await ok(guests[0].socket, 'message:send', { sessionId: id, content: 'Guests may write' });
      for (const { heard } of [bob, ...guests]) await heard.next('message:new');
      const api = rest(nodeOf(cluster, 1), 'alice');
      await rest(nodeOf(cluster, 0), 'guest').refused(403, 'FORBIDDEN', 'PATCH', at.session(id), { title: 'x' });
      forget(bob, ...guests);
      await api.patch(at.session(id), { visibility: 'private' });
      for (const { heard } of guests) assertError({ event: '', ...(await heard.next('error')) }, 'NOT_FOUND');
      forget(...guests);
      const { id: message } = await api.post(at.messages, { sessionId: id, content: 'Among ourselves' });
      await bob.heard.next('message:new', (heard) => heard.id === message);
      await flushed(bob, ...guests);
      for (const { heard, socket } of guests) {
        assert.deepEqual(heard.of('message:new'), []);
        await no(socket, 'NOT_FOUND', 'session:join', { sessionId: id });
      }
      assert.deepEqual(bob.heard.of('error'), []);
    });

    e2e('presence is the cluster’s', {}, async (cluster) => {
      const [alice, bob] = [sessionId('alice'), sessionId('bob')];
      const id = await makeSession(nodeOf(cluster, 0), alice, [bob, 'never-there']);
      await joined(nodeOf(cluster, 0), alice, id);
      await joined(nodeOf(cluster, 1), alice, id);
      await joined(nodeOf(cluster, 1), bob, id);
      for (const n of [0, 1]) {
        const { users } = await rest(nodeOf(cluster, n), bob).get(at.presence(id));
        for (const user of users) assertFields(user, { userId: 'string', status: 'string', devices: 'int', lastSeenAt: '?time' }, 'presence');
        assert.deepEqual(
          Object.fromEntries(users.map(({ userId, status, devices }) => [userId, [status, devices]])),
          { [alice]: ['online', 2], [bob]: ['online', 1], 'never-there': ['offline', 0] },
        );
      }
    });

    e2e('what is not there, and who is not told', {}, async (cluster) => {
      const [api, nobody] = [rest(nodeOf(cluster, 0), 'alice'), rest(nodeOf(cluster, 0), 'x', { jwt: null })];
      for (const path of [at.session('nowhere'), at.history('nowhere'), at.message(UNKNOWN), at.message('no-uuid'), at.reactions(UNKNOWN), at.thread(UNKNOWN), at.attachments(UNKNOWN)]) {
        await api.refused(404, 'NOT_FOUND', 'GET', path);
        await nobody.refused(401, 'AUTH_ERROR', 'GET', path);
      }
      const sse = rest(nodeOf(cluster, 0), 'alice', { jwt: token({ claims: { type: 'sse' } }) });
      await sse.refused(401, 'AUTH_ERROR', 'GET', at.sessions);
      const cookie = rest(nodeOf(cluster, 0), 'alice', { jwt: null });
      const { status } = await cookie.call('GET', at.sessions, undefined, { Cookie: `access_token=${token()}` });
      assert.equal(status, 200);
      const made = sessionId('rest');
      const sent = await api.call('POST', at.messages, { sessionId: made, content: 'x' });
      assert.equal(sent.status, 201, 'sending makes a session here too');
      assertFields(sent.body, MESSAGE, 'Message');
      const { socket } = await open(nodeOf(cluster, 1).url, { token: token() });
      assert.equal((await ok(socket, 'session:join', { sessionId: made })).session.role, 'owner');
      for (const body of ['{', '[]', '{"sessionId":5}', { sessionId: made }, { sessionId: made, content: '' }, { sessionId: made, content: 'x'.repeat(32_001) }]) {
        const { status, body: answer, text } = await api.call('POST', at.messages, body);
        assert.ok([400, 413, 422].includes(status), `${status} ${text}`);
        assert.equal(answer.error.code, 'INVALID');
      }
      const big = await api.call('POST', at.messages, { sessionId: made, content: 'x'.repeat(3 * 1024 * 1024) });
      assert.ok([400, 413].includes(big.status), `${big.status}`);
    });
  });
}
