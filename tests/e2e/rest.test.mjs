// REST as a protocol: who may ask, in which shape, and how refusals look. What a change does is told
// by the suites of sessions and messages.

import assert from 'node:assert/strict';
import { get, metrics, no, ok, open, sessionId, suite, token } from './harness.mjs';

const APP = 'https://app.example';
const EVIL = 'https://evil.example';
const JSON_TYPE = { 'Content-Type': 'application/json' };

/** Asks; gives `{ status, headers, text, body }`. */
async function ask(url, method, path, { body, headers = {}, jwt } = {}) {
  const given = body === undefined ? {} : JSON_TYPE;
  const auth = jwt ? { Authorization: `Bearer ${jwt}` } : {};
  const response = await get(`${url}${path}`, {
    method,
    headers: { ...given, ...auth, ...headers },
    body: body === undefined || typeof body === 'string' ? body : JSON.stringify(body),
  });
  const text = await response.text();
  let parsed;
  try {
    parsed = JSON.parse(text);
  } catch {
    // Not every answer is JSON.
  }
  return { status: response.status, headers: response.headers, text, body: parsed };
}

/** `answer` is a refusal with this status and code, in the one shape there is. */
function refused(answer, status, code) {
  assert.equal(answer.status, status, answer.text);
  assert.match(answer.headers.get('content-type'), /^application\/json/);
  const { error } = answer.body;
  assert.deepEqual([error.type, error.code, typeof error.message], [code, code, 'string']);
  return error;
}

suite('rest', { env: { CORS_ORIGIN: APP } }, (e2e) => {
  e2e('a token is needed, by header or cookie, and no other', {}, async ({ url }) => {
    const list = (options, query = '') => ask(url, 'GET', `/api/chat/sessions${query}`, options);
    const cookie = (jwt) => ({ headers: { Cookie: `a=b; access_token=${jwt}` } });
    assert.equal((await list({ jwt: token() })).status, 200);
    assert.equal((await list(cookie(token()))).status, 200);
    const bad = [
      {},
      { jwt: 'x.y.z' },
      { jwt: token({ ttl: -3600 }) },
      { jwt: token({ claims: { type: 'sse' } }) },
      cookie(token({ claims: { type: 'sse' } })),
      // The header is meant; the cookie is not looked at then.
      { jwt: 'x.y.z', ...cookie(token()), headers: { Authorization: 'Bearer x.y.z', Cookie: `access_token=${token()}` } },
    ];
    for (const options of bad) {
      const answer = await list(options);
      refused(answer, 401, 'AUTH_ERROR');
      assert.equal(answer.headers.get('www-authenticate'), 'Bearer');
    }
    refused(await list({}, `?token=${token()}`), 401, 'AUTH_ERROR');
    // Before anything else is said: whether a thing exists, whether a body is right.
    refused(await ask(url, 'GET', '/api/chat/messages/no-uuid'), 401, 'AUTH_ERROR');
    refused(await ask(url, 'POST', '/api/chat/messages', { body: '{' }), 401, 'AUTH_ERROR');
  });

  e2e('a foreign page cannot act by the cookie', {}, async ({ url }) => {
    const sub = `cookie-${sessionId()}`;
    const Cookie = `access_token=${token({ sub })}`;
    const make = (headers, body = '{}') => ask(url, 'POST', '/api/chat/sessions', { body, headers: { Cookie, ...headers } });
    const count = async () => (await ask(url, 'GET', '/api/chat/sessions', { jwt: token({ sub }) })).body.sessions.length;
    refused(await make({ Origin: EVIL }), 403, 'FORBIDDEN');
    refused(await make({ Origin: 'null' }), 403, 'FORBIDDEN');
    refused(await make({ 'Content-Type': 'text/plain' }), 403, 'FORBIDDEN');
    assert.equal(await count(), 0);
    assert.equal((await make({ Origin: APP })).status, 201);
    assert.equal((await make({ Origin: url })).status, 201);
    assert.equal((await make({})).status, 201);
    assert.equal(await count(), 3);
    // With a header there is nothing to forge; the foreign page is refused all the same.
    refused(await ask(url, 'POST', '/api/chat/sessions', { body: {}, jwt: token({ sub }), headers: { Origin: EVIL } }), 403, 'FORBIDDEN');
    assert.equal(await count(), 3);
  });

  e2e('browsers are told which origins may ask, with credentials', {}, async ({ url }) => {
    const preflight = (Origin) =>
      ask(url, 'OPTIONS', '/api/chat/messages', {
        headers: { Origin, 'Access-Control-Request-Method': 'PATCH', 'Access-Control-Request-Headers': 'idempotency-key,authorization' },
      });
    const { headers } = await preflight(APP);
    assert.equal(headers.get('access-control-allow-origin'), APP);
    assert.equal(headers.get('access-control-allow-credentials'), 'true');
    assert.match(headers.get('access-control-allow-methods'), /PATCH/);
    for (const name of ['authorization', 'content-type', 'idempotency-key']) {
      assert.ok(headers.get('access-control-allow-headers').includes(name), name);
    }
    assert.equal((await preflight(EVIL)).headers.get('access-control-allow-origin'), null);
    // A refusal is to be readable, too.
    const answer = await ask(url, 'GET', '/api/chat/sessions', { headers: { Origin: APP } });
    assert.equal(answer.headers.get('access-control-allow-origin'), APP);
    assert.match(answer.headers.get('access-control-expose-headers'), /retry-after/i);
  });

  e2e('Idempotency-Key is the clientMessageId', {}, async ({ url }) => {
    const jwt = token();
    const id = sessionId();
    const send = (key, fields = {}) =>
      ask(url, 'POST', '/api/chat/messages', {
        jwt,
        body: { sessionId: id, content: 'Hello', ...fields },
        headers: key === undefined ? {} : { 'Idempotency-Key': key },
      });
    const first = await send('k-1');
    assert.equal(first.status, 201);
    assert.equal(first.body.clientMessageId, 'k-1');
    for (const again of [await send('k-1'), await send(undefined, { clientMessageId: 'k-1' }), await send('k-1', { clientMessageId: 'k-1' })]) {
      assert.deepEqual([again.status, again.body.id], [201, first.body.id]);
    }
    assert.match(refused(await send('k-1', { clientMessageId: 'k-2' }), 400, 'INVALID').message, /clientMessageId/);
    refused(await send('x'.repeat(129)), 400, 'INVALID');
    const { body } = await ask(url, 'GET', `/api/chat/sessions/${id}/messages`, { jwt });
    assert.equal(body.total, 1);
  });

  e2e('every refusal has the one shape', {}, async ({ url }) => {
    const jwt = token();
    refused(await ask(url, 'GET', '/api/chat/nothing', { jwt }), 404, 'NOT_FOUND');
    refused(await ask(url, 'GET', '/nothing'), 404, 'NOT_FOUND');
    const method = await ask(url, 'PUT', '/api/chat/sessions', { jwt });
    refused(method, 405, 'INVALID');
    assert.deepEqual(method.headers.get('allow').split(',').sort(), ['GET', 'HEAD', 'POST']);
    const post = (body, headers) => ask(url, 'POST', '/api/chat/messages', { jwt, body, headers });
    for (const body of ['{', '', '[]', 'null', '"x"', '{"sessionId":"a","content":"\\ud800"}']) {
      refused(await post(body), 400, 'INVALID');
    }
    refused(await post({ sessionId: 'a', content: 'x' }, { 'Content-Type': 'text/plain' }), 400, 'INVALID');
    refused(await post({ sessionId: 'a', content: 'x'.repeat(1024 * 1024) }), 413, 'INVALID');
    for (const [field, fields] of Object.entries({
      sessionId: { sessionId: 'a/b' },
      content: { content: 7 },
      parentMessageId: { parentMessageId: 'x' },
      attachments: { attachments: {} },
      fileUrl: { attachments: [{ fileName: 'a', fileUrl: 'javascript:x', mimeType: 'a/b', fileSize: 1 }] },
      clientMessageId: { clientMessageId: '' },
    })) {
      const { message } = refused(await post({ sessionId: 'a', content: 'x', ...fields }), 400, 'INVALID');
      assert.ok(message.includes(field), `${field}: ${message}`);
    }
  });

  e2e('pages keep to their limits, and cursors lead through all of them once', {}, async ({ url }) => {
    const jwt = token({ sub: `pages-${sessionId()}` });
    const ids = [];
    for (let n = 0; n < 5; n += 1) ids.push((await ask(url, 'POST', '/api/chat/sessions', { jwt, body: {} })).body.id);
    const list = (query) => ask(url, 'GET', `/api/chat/sessions?${query}`, { jwt });
    for (const query of ['limit=0', 'limit=101', 'limit=x', 'limit=-1', 'limit=1.5', 'limit=', 'limit=2&limit=2']) {
      assert.match(refused(await list(query), 400, 'INVALID').message, /limit/);
    }
    for (const query of ['cursor=x', 'cursor=%00', 'cursor=MSBhIGI']) refused(await list(query), 400, 'INVALID');
    assert.equal((await list('limit=100&cursor=')).body.nextCursor, null);
    const seen = [];
    let cursor = '';
    do {
      const { body } = await list(`limit=2&cursor=${cursor}`);
      assert.ok(body.sessions.length <= 2);
      seen.push(...body.sessions.map(({ id }) => id));
      cursor = body.nextCursor;
    } while (cursor);
    assert.deepEqual(seen.sort(), ids.sort());
    const history = (query) => ask(url, 'GET', `/api/chat/sessions/${ids[0]}/messages?${query}`, { jwt });
    assert.deepEqual((await history('limit=1&offset=0&parentMessageId=&before=&after=')).body, { messages: [], total: 0, hasMore: false });
    for (const query of ['offset=-1', 'before=x', 'limit=0']) refused(await history(query), 400, 'INVALID');
    refused(await ask(url, 'GET', `/api/chat/sessions/${ids[0]}/search?query=`, { jwt }), 400, 'INVALID');
  });

  e2e('what is not the caller’s to see does not exist', {}, async ({ url }) => {
    const [ours, theirs] = [token({ sub: 'mallory' }), token({ sub: 'alice' })];
    const session = (await ask(url, 'POST', '/api/chat/sessions', { jwt: theirs, body: {} })).body.id;
    const file = { fileName: 'a', fileUrl: '/a', mimeType: 'a/b', fileSize: 1 };
    const message = (await ask(url, 'POST', '/api/chat/messages', { jwt: theirs, body: { sessionId: session, content: 'x', attachments: [file] } })).body;
    const foreign = { session, message: message.id, attachment: message.attachments[0].id };
    const unknown = { session: sessionId(), message: '0198c0de-0000-7000-8000-000000000000', attachment: '0198c0de-0000-7000-8000-000000000000' };
    const never = { session: 'a%2Fb', message: 'no-uuid', attachment: 'no-uuid' };
    const routes = [
      ['GET', 'session', ''], ['PATCH', 'session', '', { title: 'x' }], ['DELETE', 'session', ''],
      ['GET', 'session', '/members'], ['POST', 'session', '/members', { userId: 'mallory' }], ['DELETE', 'session', '/members/alice'],
      ['GET', 'session', '/messages'], ['GET', 'session', '/search?query=x'], ['GET', 'session', '/presence'],
      ['GET', 'message', ''], ['PUT', 'message', '', { content: 'y' }], ['DELETE', 'message', ''], ['GET', 'message', '/thread'],
      ['GET', 'message', '/reactions'], ['POST', 'message', '/reactions', { emoji: '👍' }],
      ['GET', 'message', '/attachments'], ['POST', 'message', '/attachments', file], ['DELETE', 'attachment', ''],
    ];
    for (const [method, kind, rest, body] of routes) {
      const told = [];
      for (const ids of [foreign, unknown, never]) {
        const answer = await ask(url, method, `/api/chat/${kind}s/${ids[kind]}${rest}`, { jwt: ours, body });
        const error = refused(answer, 404, 'NOT_FOUND');
        assert.equal(error[`${kind}Id`], decodeURIComponent(ids[kind]));
        told.push(answer.text.replaceAll(decodeURIComponent(ids[kind]), 'ID'));
      }
      assert.deepEqual(new Set(told).size, 1, `${method} ${kind}${rest}: ${told.join('\n')}`);
    }
  });

  e2e('PATCH leaves what is not there, and null clears', {}, async ({ url }) => {
    const jwt = token();
    const { id } = (await ask(url, 'POST', '/api/chat/sessions', { jwt, body: { title: 'Mine', agentId: 'quick' } })).body;
    const patch = async (body) => {
      const answer = await ask(url, 'PATCH', `/api/chat/sessions/${id}`, { jwt, body });
      assert.equal(answer.status, 200, answer.text);
      return [answer.body.title, answer.body.agentId, answer.body.visibility];
    };
    assert.deepEqual(await patch({}), ['Mine', 'quick', 'private']);
    assert.deepEqual(await patch({ title: null, visibility: 'open' }), [null, 'quick', 'open']);
    assert.deepEqual(await patch({ agentId: null, title: 'Yours' }), ['Yours', null, 'open']);
  });

  e2e('agents are listed without what is the operator’s', {}, async ({ url }) => {
    const { status, body } = await ask(url, 'GET', '/api/chat/agents', { jwt: token() });
    assert.equal(status, 200);
    assert.deepEqual(Object.keys(body.agents[0]).sort(), ['default', 'id', 'name']);
    assert.deepEqual(body.agents.filter((agent) => agent.default).map(({ id }) => id), ['assistant']);
    assert.equal(body.agents.length, 4);
  });

  e2e('the document and its page need nothing from elsewhere', {}, async ({ url }) => {
    const { status, body } = await ask(url, 'GET', '/openapi.json');
    assert.equal(status, 200);
    assert.equal(body.openapi, '3.1.0');
    const ids = Object.values(body.paths).flatMap((methods) => Object.values(methods).map(({ operationId }) => operationId));
    assert.equal(new Set(ids).size, ids.length);
    assert.ok(ids.length >= 27);
    const page = await ask(url, 'GET', '/docs');
    assert.match(page.headers.get('content-security-policy'), /default-src 'none'/);
    assert.doesNotMatch(page.text, /(src|href)="(https?:)?\/\//);
    for (const path of ['/docs.js', '/docs.css']) assert.equal((await ask(url, 'GET', path)).status, 200);
  });
});

suite('rest, with limits of the operator', { env: { PAGE_MAX: '3', SEARCH_MAX: '5', CONTENT_MAX: '10', ATTACHMENTS_MAX: '1', MEMBERS_MAX: '2', MAX_CONCURRENT_STREAMS: '1', JOINED_SESSIONS_MAX: '1' } }, (e2e) => {
  e2e('every list and search holds to them, and says so in the document', {}, async ({ nodes: [node] }) => {
    const jwt = token({ sub: 'lister' });
    const id = sessionId('pages');
    const list = (path) => ask(node.url, 'GET', path, { jwt });
    const sent = [];
    for (const content of ['one', 'two', 'three', 'four']) {
      const answer = await ask(node.url, 'POST', '/api/chat/messages', { jwt, body: { sessionId: id, content, ...(sent.length ? { parentMessageId: sent[0] } : {}) } });
      assert.equal(answer.status, 201, answer.text);
      sent.push(answer.body.id);
    }
    const pages = {
      '/api/chat/sessions': '/api/chat/sessions?',
      '/api/chat/sessions/{sessionId}/messages': `/api/chat/sessions/${id}/messages?`,
      '/api/chat/messages/{messageId}/thread': `/api/chat/messages/${sent[0]}/thread?`,
      '/api/chat/sessions/{sessionId}/search': `/api/chat/sessions/${id}/search?query=two&`,
    };
    const { paths } = (await list('/openapi.json')).body;
    const parameter = (path, name) => paths[path].get.parameters.find((one) => one.name === name)?.schema;
    const documented = Object.keys(paths).filter((path) => paths[path].get?.parameters?.some(({ name }) => name === 'limit'));
    assert.deepEqual(documented.sort(), Object.keys(pages).sort());
    for (const [path, at] of Object.entries(pages)) {
      const { minimum, maximum, default: usual, ...rest } = parameter(path, 'limit');
      assert.deepEqual([minimum, maximum, usual, Object.keys(rest)], [1, 3, 3, ['type']], path);
      assert.equal((await list(`${at}limit=3`)).status, 200);
      for (const bad of ['4', '0', '', '-1', '+1', '1.5', 'x', '99999999999999999999']) {
        const { message } = refused(await list(`${at}limit=${encodeURIComponent(bad)}`), 400, 'INVALID');
        assert.equal(message, 'limit: must be a whole number from 1 to 3', `${path} ${bad}`);
      }
    }
    assert.equal((await list(pages['/api/chat/sessions/{sessionId}/messages'])).body.messages.length, 3, 'by default, too');
    assert.equal(parameter('/api/chat/sessions/{sessionId}/search', 'query').maxLength, 5);
    assert.equal((await list(`/api/chat/sessions/${id}/search?query=three`)).body.total, 1);
    for (const bad of ['threes', '']) {
      assert.match(refused(await list(`/api/chat/sessions/${id}/search?query=${bad}`), 400, 'INVALID').message, /^query must have 1 to 5/);
    }
    const post = (path, body) => ask(node.url, 'POST', path, { jwt, body });
    const attachment = { fileName: 'a.txt', fileUrl: 'https://files.example/a.txt', mimeType: 'text/plain', fileSize: 1 };
    assert.equal((await post('/api/chat/messages', { sessionId: id, content: 'x'.repeat(11) })).status, 400);
    assert.equal((await post('/api/chat/messages', { sessionId: id, content: 'x', attachments: [attachment, attachment] })).status, 400);
    assert.equal((await post(`/api/chat/sessions/${id}/members`, { userId: 'b' })).status, 201);
    assert.equal((await post(`/api/chat/sessions/${id}/members`, { userId: 'c' })).status, 400);
    assert.equal((await post('/api/chat/streams', { sessionId: id, prompt: 'x', agentId: 'slow' })).status, 202);
    assert.equal((await post('/api/chat/streams', { sessionId: id, prompt: 'y', agentId: 'slow' })).status, 503);
    const { socket } = await open(node.url, { token: jwt });
    await ok(socket, 'session:join', { sessionId: id });
    await no(socket, 'RATE_LIMIT', 'session:join', { sessionId: sessionId('second') });
    const { samples } = await metrics(node);
    const reached = (limit) => samples.get(`limit_reached_total{limit="${limit}"}`);
    // Of each list, one that asks for too much, and one for more than a number holds.
    assert.deepEqual(['page', 'search', 'content', 'attachments', 'members', 'user_streams', 'joined_sessions'].map(reached), [8, 1, 1, 1, 1, 1, 1]);
  });
});
