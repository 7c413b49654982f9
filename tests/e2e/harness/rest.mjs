// The REST API, asked as a frontend does.

import assert from 'node:assert/strict';
import { assertError, assertFields, get, token } from '../harness.mjs';

/** What one user may ask of one node: `call` and one method for each verb. */
export function rest(node, sub, { jwt = token({ sub }) } = {}) {
  /** Gives `{ status, headers, text, body }`, whatever the answer is. */
  const call = async (method, path, body, headers = {}) => {
    const response = await get(`${node.url}${path}`, {
      method,
      headers: {
        ...(jwt ? { Authorization: `Bearer ${jwt}` } : {}),
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      signal: AbortSignal.timeout(10_000),
    });
    const text = await response.text();
    let parsed;
    try {
      parsed = text === '' ? undefined : JSON.parse(text);
    } catch {
      parsed = undefined;
    }
    return { status: response.status, headers: response.headers, text, body: parsed };
  };
  const succeed = (method) => async (path, body, headers) => {
    const answer = await call(method, path, body, headers);
    assert.ok(answer.status >= 200 && answer.status < 300, `${method} ${path}: ${answer.status} ${answer.text}`);
    return answer.body;
  };
  return {
    call,
    get: succeed('GET'),
    post: succeed('POST'),
    put: succeed('PUT'),
    patch: succeed('PATCH'),
    delete: succeed('DELETE'),
    /** A request that has to be refused: the error. */
    async refused(status, code, method, path, body, headers) {
      const answer = await call(method, path, body, headers);
      assert.equal(answer.status, status, `${method} ${path}: ${answer.status} ${answer.text}`);
      assertFields(answer.body?.error, { type: 'string', code: 'string', message: 'string' }, 'error');
      assertError({ event: '', ...answer.body.error }, code);
      return Object.assign(answer.body.error, { retryAfter: answer.headers.get('retry-after') });
    },
  };
}

/** The paths of the API, so that each stands once. */
export const at = {
  sessions: '/api/chat/sessions',
  session: (id) => `/api/chat/sessions/${id}`,
  members: (id) => `/api/chat/sessions/${id}/members`,
  member: (id, user) => `/api/chat/sessions/${id}/members/${encodeURIComponent(user)}`,
  presence: (id) => `/api/chat/sessions/${id}/presence`,
  history: (id, query = '') => `/api/chat/sessions/${id}/messages${query}`,
  search: (id, query) => `/api/chat/sessions/${id}/search?${new URLSearchParams(query)}`,
  messages: '/api/chat/messages',
  message: (id) => `/api/chat/messages/${id}`,
  reactions: (id) => `/api/chat/messages/${id}/reactions`,
  thread: (id, query = '') => `/api/chat/messages/${id}/thread${query}`,
  attachments: (id) => `/api/chat/messages/${id}/attachments`,
  status: (id) => `/api/chat/streams/${id}/status`,
  metrics: (id) => `/api/chat/streams/${id}/metrics`,
  attachment: (id) => `/api/chat/attachments/${id}`,
  disconnect: (user) => `/api/admin/users/${encodeURIComponent(user)}/disconnect`,
};

/** A session of `owner` with `members` in it. */
export async function makeSession(node, owner, members = [], fields = {}) {
  const api = rest(node, owner);
  const session = await api.post(at.sessions, fields);
  for (const userId of members) await api.post(at.members(session.id), { userId });
  return session.id;
}
