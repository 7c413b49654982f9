// Every event and every route as a request with places for ids, made from the program's own documents:
// what is new in them is swept without anybody's thinking of it, or fails until it is said what it names.

import { randomBytes, randomUUID } from 'node:crypto';
import { AGENT } from './model.mjs';

/** The kinds of ids that are somebody's, and how one like it is made up that does not exist. */
const KINDS = {
  session: (id) => like('Nowhere-', id),
  message: () => uuid(),
  attachment: () => uuid(),
  stream: () => uuid(),
  user: (id) => like('nobody-', id),
  client: (id) => like('own-', id ?? ' '.repeat(40)),
  event: (id) => id, // what it says is a place in whichever session it is used
  cursor: (id) => id,
};
/** Ids that do not exist, as long as these. */
export const missing = (ids) => Object.fromEntries(Object.entries(KINDS).map(([kind, make]) => [kind, make(ids[kind])]));
const like = (begin, id) => `${begin}${randomBytes(128).toString('hex')}`.slice(0, id.length);
const uuid = () => randomUUID().replace(/-....-(?=.{17}$)/, '-7000-');

/** What names somebody's, by the name of its field or parameter; `id` is a new session's own. */
const SLOTS = {
  sessionId: 'session', conversationId: 'session', session: 'session', id: 'session',
  messageId: 'message', lastMessageId: 'message', parentMessageId: 'message', before: 'message', after: 'message',
  attachmentId: 'attachment', streamId: 'stream', streams: 'stream', userId: 'user',
  clientMessageId: 'client', 'idempotency-key': 'client', lastEventId: 'event', 'last-event-id': 'event', cursor: 'cursor',
};
/** What a schema alone does not tell. */
const VALUES = {
  agentId: AGENT, personaId: AGENT, emoji: '👀', fileUrl: 'https://files.example/a', model: undefined, visibility: 'private',
  limit: 5, offset: 0, query: 'zq', metadata: { a: 1 }, content: 'x', prompt: 'x', title: 'x', userName: 'x', fileName: 'x', mimeType: 'text/plain',
};

const slot = (kind) => ({ slot: kind });

/** A schema's own, with what it refers to. */
function resolve(document, schema) {
  let found = schema;
  while (found?.$ref) found = found.$ref.slice(2).split('/').reduce((inner, key) => inner[key.replaceAll('~1', '/')], document);
  return found;
}

/** What fits a schema: each alternative; of an object all of its fields, and only those that it needs. */
function templates(document, given, name) {
  const schema = resolve(document, given);
  if (name === 'streams') return [{ streams: slot('stream') }];
  if (name in SLOTS) return [slot(SLOTS[name])];
  if (name in VALUES) return VALUES[name] === undefined ? [] : [VALUES[name]];
  const kinds = (schema.oneOf ?? schema.anyOf)?.filter((one) => one.type !== 'null');
  if (kinds) return kinds.flatMap((one) => templates(document, one, name || 'sessionId*'));
  if ('const' in schema) return [schema.const];
  const type = [schema.type].flat().find((one) => one !== 'null');
  if (type === 'object') {
    const fields = (names) => Object.fromEntries(names.map((field) => [field, templates(document, schema.properties[field], field)[0]]).filter(([, value]) => value !== undefined));
    const [all, needed] = [Object.keys(schema.properties ?? {}), schema.required ?? []];
    return [fields(all), ...(needed.length < all.length ? [fields(needed)] : [])];
  }
  if (type === 'array') return [templates(document, schema.items, '').slice(0, 1)];
  if (type === 'boolean') return [true];
  if (type === 'integer' || type === 'number') return [schema.minimum ?? 1];
  // A bare text as a whole payload is a session's id.
  if (type === 'string' && name === 'sessionId*') return [slot('session')];
  throw new Error(`no value for ${name || JSON.stringify(schema)}: say in SLOTS or VALUES what stands for it`);
}

/** The events that clients may send: `{ name, dialect, event, templates }`. */
export function events(asyncapi) {
  const found = [];
  for (const [dialect, { messages }] of Object.entries(asyncapi.channels)) {
    for (const [key, { payload }] of Object.entries(messages)) {
      const [, event] = /^client\.(.+?)(?<!\.ack)$/.exec(key) ?? [];
      if (event) found.push({ name: `${dialect} ${event}`, dialect, event, templates: templates(asyncapi, payload, '') });
    }
  }
  return found;
}

/** The routes: `{ name, method, path, isStream, templates: [{ path, query, headers, body }] }`. `open` ones know nobody's data. */
export function routes(openapi) {
  const found = [];
  for (const [path, operations] of Object.entries(openapi.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      if (!['get', 'post', 'put', 'patch', 'delete', 'head', 'options'].includes(method)) continue;
      const request = { path: {}, query: {}, headers: {} };
      for (const parameter of [...(operations.parameters ?? []), ...(operation.parameters ?? [])].map((one) => resolve(openapi, one))) {
        const place = { path: request.path, query: request.query, header: request.headers }[parameter.in];
        const name = parameter.in === 'header' ? parameter.name.toLowerCase() : parameter.name;
        [place[name]] = templates(openapi, parameter.schema, name);
      }
      const body = resolve(openapi, operation.requestBody)?.content?.['application/json']?.schema;
      const bodies = body ? templates(openapi, body, '') : [undefined];
      found.push({
        name: `${method.toUpperCase()} ${path}`, method: method.toUpperCase(), path,
        isOpen: !operation.security?.length,
        isStream: 'text/event-stream' in (resolve(openapi, operation.responses['200'])?.content ?? {}),
        templates: bodies.map((one) => {
          const made = { ...structuredClone(request), body: one };
          // Two words for the same: given both, they would have to agree.
          if (one?.clientMessageId) delete made.headers['idempotency-key'];
          return made;
        }),
      });
    }
  }
  return found;
}

/** The places for ids in a template: `[path, kind]`. */
export function places(template) {
  const found = [];
  const find = (value, path) => {
    if (value?.slot) found.push([path.join('.'), value.slot]);
    else if (value && typeof value === 'object') for (const [key, inner] of Object.entries(value)) find(inner, [...path, key]);
  };
  find(template, []);
  return found;
}

/** Names that mean something only to who gave them: tried alone, and with all others. */
const NAMES = ['client', 'event', 'cursor'];

/** Every way to put another's ids into the places of a template, at least one where there is one. */
export function* assignments(template) {
  const all = places(template);
  if (all.length === 0) yield [];
  for (let mask = 1; mask < 1 << all.length; mask += 1) {
    const where = all.filter((_, n) => mask & (1 << n));
    if (where.length === 1 || where.length === all.length || where.every(([, kind]) => !NAMES.includes(kind))) yield where;
  }
}

/** Whether the answer must be that for ids that do not exist. */
export const isTold = (where) => where.some(([, kind]) => !NAMES.includes(kind));

/** The template with ids: `theirs` in the places of `where`, one's own in the others. */
export function filled(template, where, theirs, own) {
  const taken = new Set(where.map(([path]) => path));
  const fill = (value, path) => {
    // One's own name for a message is new each time: else it is that message again.
    if (value?.slot === 'client' && !taken.has(path.join('.'))) return KINDS.client();
    if (value?.slot) return (taken.has(path.join('.')) ? theirs : own)[value.slot];
    if (Array.isArray(value)) return value.map((inner, n) => fill(inner, [...path, String(n)]));
    if (!value || typeof value !== 'object') return value;
    const made = Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, fill(inner, [...path, key])]));
    // A map by a stream's id: keys cannot be places.
    return value.streams?.streams ? { ...made, streams: { [made.streams.streams]: 3 } } : made;
  };
  return fill(template, []);
}

/** An id in other spellings than its own, by name: none of them is anybody's. In paths they stand as they are where they are `raw`. */
export const SPELLINGS = {
  'in capitals': (id) => id.toUpperCase(),
  'in small letters': (id) => id.toLowerCase(),
  'a space after it': (id) => `${id} `,
  'a space before it': (id) => ` ${id}`,
  'a tab and a line end after it': (id) => `${id}\t\n`,
  'NUL after it': (id) => `${id}\0`,
  'NUL and more after it': (id) => `${id}\0x`,
  'percent-encoded': (id) => [...Buffer.from(id)].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join(''),
  'percent-encoded twice': (id) => [...Buffer.from(id)].map((byte) => `%25${byte.toString(16).padStart(2, '0')}`).join(''),
  'in braces': (id) => `{${id}}`,
  'as a URN': (id) => `urn:uuid:${id}`,
  'without dashes': (id) => id.replaceAll('-', ''),
  'in wide letters': (id) => [...id].map((letter) => (/[a-z0-9]/i.test(letter) ? String.fromCodePoint(letter.codePointAt(0) + 0xfee0) : letter)).join(''),
  'with a mark that is not seen': (id) => `${id}\u200b`,
  'a dot after it': (id) => `${id}.`,
  'another folder before it': (id) => `x/../${id}`,
  'a pattern': (id) => `${id.slice(0, -1)}%`,
  'a pattern of Redis': (id) => `${id.slice(0, -1)}*`,
  'a quote after it': (id) => `${id}' OR '1'='1`,
  'ten kilobytes after it': (id) => `${id}${'x'.repeat(10_240)}`,
  'a list of it': (id) => [id],
  'an object of it': (id) => ({ id }),
};
/** Those that are texts: what can stand in a URL. */
export const TEXTS = Object.keys(SPELLINGS).filter((name) => typeof SPELLINGS[name]('a-b') === 'string');

/** An answer without what differs between any two: ids that were sent and who sent them, new ones, times. */
export function plain(text, ...sets) {
  let result = text;
  const put = (id, kind) => {
    for (const one of [id, JSON.stringify(id).slice(1, -1), encodeURIComponent(id)]) result = result.replaceAll(one, `<${kind}>`);
  };
  for (const ids of sets) for (const [kind, id] of Object.entries(ids)) if (typeof id === 'string' && id !== '') put(id, kind);
  return result
    .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/gi, '<uuid>')
    .replace(/own-[0-9a-f]+/g, '<client>')
    .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g, '<time>')
    .replace(/"offset":\d+/g, '"offset":<offset>'); // of one's own answer, which grows
}
