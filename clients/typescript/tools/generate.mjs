// generate.mjs ASYNCAPI FOLDER: writes the types of what an AsyncAPI document of tokencast describes, one
// module for each channel and `shapes.d.ts` for what several of them use. The same document gives the same
// bytes. A schema that says something this does not know how to write is an error, not a guess.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [from, folder] = process.argv.slice(2);
const api = JSON.parse(readFileSync(from, 'utf8'));

/** Names that would hide one of the language's own. */
const RENAMED = { Error: 'ErrorInfo' };
const SHAPES = 'shapes';

/** What of a schema makes a type, and what is only for validators and readers. */
const TYPED = ['$ref', 'const', 'enum', 'oneOf', 'anyOf', 'allOf', 'type', 'properties', 'required', 'additionalProperties', 'items'];
const SAID = ['description', 'title', 'examples', 'default', 'format', 'pattern', 'minimum', 'maximum', 'minLength', 'maxLength', 'minItems', 'maxItems'];

const last = (reference) => reference.split('/').at(-1);
const nameOf = (schema) => RENAMED[schema] ?? schema;
const quoted = (name) => (/^[A-Za-z_$][\w$]*$/.test(name) ? name : `'${name}'`);
const literal = (value) => (typeof value === 'string' ? `'${value.replace(/[\\']/g, '\\$&')}'` : JSON.stringify(value));
const indented = (text) => text.replace(/^(?=.)/gm, '  ');

function comment(text) {
  if (!text) return '';
  const lines = text.trim().split('\n');
  return lines.length === 1 ? `/** ${lines[0]} */\n` : `/**\n${lines.map((line) => ` * ${line}`.trimEnd()).join('\n')}\n */\n`;
}

// ── Types ──────────────────────────────────────────────────────────────────────────────────────

const union = (types) => [...new Set(types)].join(' | ');
/** A type that stands where a union would need parentheses. */
const closed = (text) => (/ [|&] /.test(text.replace(/\{[^]*\}/, '')) ? `(${text})` : text);

const PLAIN = { string: 'string', boolean: 'boolean', null: 'null', number: 'number', integer: 'number' };

function plain(word, schema) {
  if (word === 'array') return `${closed(type(schema.items ?? true))}[]`;
  if (word === 'object') return object(schema);
  if (!PLAIN[word]) throw new Error(`no type is called ${word}`);
  return PLAIN[word];
}

function object({ properties = {}, required = [], additionalProperties: others }) {
  const fields = Object.entries(properties).map(([name, schema]) => {
    const about = typeof schema === 'object' ? comment(schema.description) : '';
    return `${about}${quoted(name)}${required.includes(name) ? '' : '?'}: ${type(schema)};\n`;
  });
  if (fields.length === 0) return others === undefined || others === false ? 'Record<string, never>' : `Record<string, ${type(others)}>`;
  if (others !== undefined && others !== false) throw new Error(`named fields and others: ${Object.keys(properties)}`);
  return `{\n${indented(fields.join(''))}}`;
}

function type(schema) {
  if (schema === true) return 'unknown';
  for (const key of Object.keys(schema)) {
    if (!TYPED.includes(key) && !SAID.includes(key)) throw new Error(`${key} is not known: ${JSON.stringify(schema)}`);
  }
  if (schema.$ref) return nameOf(last(schema.$ref));
  if (schema.const !== undefined) return literal(schema.const);
  if (schema.enum) return union(schema.enum.map(literal));
  const parts = [];
  for (const several of [schema.oneOf, schema.anyOf]) if (several) parts.push(union(several.map(type)));
  if (schema.allOf) parts.push(...schema.allOf.map(type));
  if (schema.type && !(parts.length && schema.type === 'object' && !schema.properties)) {
    parts.push(union([schema.type].flat().map((word) => plain(word, schema))));
  }
  if (parts.length === 0) return 'unknown';
  return parts.length === 1 ? parts[0] : parts.map(closed).join(' & ');
}

function declaration(name) {
  const schema = api.components.schemas[name];
  const text = type(schema);
  const isObject = schema.type === 'object' && text.startsWith('{\n') && !/^\} &/m.test(text);
  return `${comment(schema.description)}export ${isObject ? `interface ${nameOf(name)} ${text}` : `type ${nameOf(name)} = ${text};`}\n`;
}

// ── Modules ────────────────────────────────────────────────────────────────────────────────────

/** The schemas that a value refers to, directly and through others. */
function reached(value, found = new Set()) {
  if (value === null || typeof value !== 'object') return found;
  if (typeof value.$ref === 'string' && value.$ref.startsWith('#/components/schemas/') && !found.has(last(value.$ref))) {
    found.add(last(value.$ref));
    reached(api.components.schemas[last(value.$ref)], found);
  }
  for (const inner of Object.values(value)) reached(inner, found);
  return found;
}

const channels = Object.entries(api.channels).map(([name, channel]) => ({ name, channel, uses: reached(channel.messages) }));
const isShared = (schema) => channels.filter(({ uses }) => uses.has(schema)).length > 1;

/** The operations of a channel, by what the server does. */
function operations(name, action) {
  return Object.values(api.operations)
    .filter((operation) => operation.action === action && last(operation.channel.$ref) === name)
    .map((operation) => {
      const message = (list) => api.channels[name].messages[last(list[0].$ref)];
      const ack = operation.reply && type(message(operation.reply.messages).payload);
      const { name: event, payload } = message(operation.messages);
      return { event, about: comment(operation.summary), payload: type(payload), ack };
    });
}

const body = (fields) => `{\n${indented(fields.join(''))}}\n`;

function socketTypes(name) {
  const heard = operations(name, 'send').map(({ event, about, payload }) => `${about}${quoted(event)}: (payload: ${payload}) => void;\n`);
  const asked = operations(name, 'receive').map(({ event, about, payload, ack }) => `${about}${quoted(event)}: (payload: ${payload}, ack?: (answer: ${ack}) => void) => void;\n`);
  return [
    `/** What the server sends: each event with its listener. */\nexport interface ServerToClientEvents ${body(heard)}`,
    `/** What a client sends: each event with its payload, and the callback of its acknowledgement. */\nexport interface ClientToServerEvents ${body(asked)}`,
    `/** What an event is acknowledged with. */\nexport type Ack<Event extends keyof ClientToServerEvents> = AckOf<ClientToServerEvents[Event]>;\n`,
  ];
}

function sseTypes(name) {
  const heard = operations(name, 'send').map(({ event, about, payload }) => `${about}${quoted(event)}: ${payload};\n`);
  return [`/** What the \`data\` of each event is, as JSON; \`message\` is the event without a name. */\nexport interface ServerSentEvents ${body(heard)}`];
}

const HEAD = '// Made from /asyncapi.json by `GENERATE=1 make types`. Do not edit.\n';

for (const { name, channel, uses } of channels) {
  const names = [...uses].sort();
  const shared = names.filter(isShared).map(nameOf);
  const list = shared.join(', ');
  const isSocket = channel.servers.some(({ $ref }) => last($ref) === 'sockets');
  const head = [HEAD, `// ${channel.title}.\n`];
  if (isSocket || shared.length) head.push('\n');
  if (isSocket) head.push(`import type { AckOf } from './acknowledged.js';\n`);
  if (shared.length) head.push(`import type { ${list} } from './${SHAPES}.js';\n`);
  if (isSocket) head.push(`export type { Acknowledged } from './acknowledged.js';\n`);
  if (shared.length) head.push(`export type { ${list} } from './${SHAPES}.js';\n`);
  const parts = [...(isSocket ? socketTypes(name) : sseTypes(name)), ...names.filter((schema) => !isShared(schema)).map(declaration)];
  writeFileSync(join(folder, `${name}.d.ts`), `${head.join('')}\n${parts.join('\n')}`);
}
const shapes = Object.keys(api.components.schemas).filter(isShared).sort();
writeFileSync(join(folder, `${SHAPES}.d.ts`), `${HEAD}// What several vocabularies have in common.\n\n${shapes.map(declaration).join('\n')}`);
