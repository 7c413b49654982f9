// What the program says where it does not start, of itself, and of its settings, never has a key or a password
// in it: each setting wrong in turn, in the environment, as a flag, in a file, in `.env` and in the agents file.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { BIN, baseEnv, freePort } from './harness.mjs';

const SECRET = `zq${randomBytes(12).toString('hex')}`;
const dir = await mkdtemp(join(tmpdir(), 'tokencast-start-'));
after(() => rm(dir, { recursive: true, force: true }));
const file = async (name, text) => {
  await writeFile(join(dir, name), text);
  return join(dir, name);
};

/** What a run says, on both channels. It is stopped once it has run for a while: some try again for long. */
async function says(args, env = {}, { patience = 3_000, cwd = dir } = {}) {
  const child = spawn(BIN, args, { env: { ...baseEnv(), RUST_LOG: 'trace', PORT: String(await freePort()), METRICS_PORT: '0', ...env }, cwd });
  let text = '';
  for (const channel of [child.stdout, child.stderr]) channel.on('data', (data) => (text += data));
  const timer = setTimeout(() => child.kill('SIGTERM'), patience);
  const hard = setTimeout(() => child.kill('SIGKILL'), patience + 8_000);
  const code = await new Promise((done) => child.once('close', done));
  clearTimeout(timer);
  clearTimeout(hard);
  return { code, text };
}

const closed = await freePort();
const KEY = 'a key that is long enough, and no secret here';
/** Settings that hold a secret in what is wrong with them, or beside it. */
const WRONG = {
  'a database that is not there': { DATABASE_URL: `postgres://user:${SECRET}@127.0.0.1:${closed}/x` },
  'a database of no port': { DATABASE_URL: `postgres://user:${SECRET}@127.0.0.1:none/x` },
  'a database of no host': { DATABASE_URL: `postgres://user:${SECRET}@/x` },
  'a database with a broken password': { DATABASE_URL: `postgres://user:${SECRET}%zz#@127.0.0.1:${closed}/x` },
  'a database with the password in the query': { DATABASE_URL: `postgres://127.0.0.1:${closed}/x?user=u&password=${SECRET}` },
  'a database with a setting that is none': { DATABASE_URL: `postgres://user:${SECRET}@127.0.0.1:${closed}/x?sslmode=nonsense` },
  'a database with a parameter that is unknown': { DATABASE_URL: `postgres://user@127.0.0.1:${closed}/x?pasword=${SECRET}` },
  'a database with a slash in the password': { DATABASE_URL: `postgres://user:${SECRET}/${SECRET}@127.0.0.1:${closed}/x` },
  'a database with a question mark in the password': { DATABASE_URL: `postgres://user:${SECRET}?${SECRET}=${SECRET}@127.0.0.1:${closed}/x` },
  'a database with a hash in the password': { DATABASE_URL: `postgres://user:${SECRET}#${SECRET}@127.0.0.1:${closed}/x` },
  'a file with a parameter that is unknown': { DATABASE_URL: `sqlite://x.db?key=${SECRET}` },
  'another database': { DATABASE_URL: `mysql://user:${SECRET}@127.0.0.1/x` },
  'no scheme': { DATABASE_URL: `user:${SECRET}@127.0.0.1/x` },
  'a certificate that is not there': { DATABASE_URL: `postgres://user:${SECRET}@127.0.0.1:${closed}/x?sslmode=verify-full&sslrootcert=/nowhere` },
  'a Redis that is not there': { REDIS_URL: `redis://user:${SECRET}@127.0.0.1:${closed}` },
  'a Redis of no port': { REDIS_URL: `redis://user:${SECRET}@127.0.0.1:none` },
  'a Redis with a broken password': { REDIS_URL: `redis://user:${SECRET}%zz@127.0.0.1:${closed}/x` },
  'a Redis of a database that is none': { REDIS_URL: `redis://user:${SECRET}@127.0.0.1:${closed}/${SECRET}` },
  'a Redis with a slash in the password': { REDIS_URL: `redis://user:${SECRET}/${SECRET}@127.0.0.1:${closed}` },
  'a Redis with a question mark in the password': { REDIS_URL: `redis://user:${SECRET}?${SECRET}=1@127.0.0.1:${closed}` },
  'a Redis with a parameter that is unknown': { REDIS_URL: `redis://127.0.0.1:${closed}/?pasword=${SECRET}` },
  'another Redis': { REDIS_URL: `http://user:${SECRET}@127.0.0.1` },
  'TLS to a Redis that is not there': { REDIS_URL: `rediss://user:${SECRET}@127.0.0.1:${closed}` },
  'sentinels that are not there': { REDIS_URL: `redis-sentinel://user:${SECRET}@127.0.0.1:${closed}/?sentinelServiceName=x&sentinelPassword=${SECRET}` },
  'a cluster that is not there': { REDIS_URL: `redis-cluster://user:${SECRET}@127.0.0.1:${closed}` },
  'a key that is too short': { JWT_SECRET: SECRET.slice(0, 20) },
  'a public key that is none': { JWT_PUBLIC_KEY: SECRET },
  'a public key that is private': { JWT_PUBLIC_KEY: `-----BEGIN PRIVATE KEY-----\n${Buffer.from(SECRET).toString('base64')}${SECRET}\n-----END PRIVATE KEY-----\n` },
  'a signing key that is too short': { SIGNING_SECRET: SECRET.slice(0, 20) },
  'a key that no header can hold': { OPENAI_API_KEY: `${SECRET}\nx` },
  'the other key that no header can hold': { ANTHROPIC_API_KEY: `${SECRET}\nx` },
  'a provider with a password': { OPENAI_BASE_URL: `https://user:${SECRET}@gateway.example/v1` },
  'a provider with a key in the query': { ANTHROPIC_BASE_URL: `https://gateway.example/?key=${SECRET}` },
  'an issuer’s keys with a password': { JWKS_URL: `ftp://user:${SECRET}@issuer.example/keys` },
  'an issuer’s keys with a password and without a scheme': { JWKS_URL: `user:${SECRET}@issuer.example/keys?key=${SECRET}` },
  'an origin with a password': { CORS_ORIGIN: `https://user:${SECRET}@app.example` },
  'traces to where a password is needed': { OTEL_EXPORTER_OTLP_ENDPOINT: `nonsense://user:${SECRET}@traces.example` },
  'all at once': { DATABASE_URL: `x://u:${SECRET}@h`, REDIS_URL: `x://u:${SECRET}@h`, JWT_SECRET: SECRET.slice(0, 20), SIGNING_SECRET: SECRET.slice(0, 20), PORT: 'x' },
};
const SHORT = SECRET.slice(0, 20);
const hides = ({ text }, what) => {
  const at = text.indexOf(SHORT);
  assert.ok(at < 0, `${what}: …${text.slice(Math.max(0, at - 200), at + 60)}…`);
};

test('the search finds what is there', async () => {
  const shown = await says(['check'], { PORT: SECRET });
  assert.throws(() => hides(shown, 'a port is no secret'), /a port is no secret/);
});

for (const task of ['serve', 'check', 'migrate']) {
  test(`${task} with settings that are wrong does not quote them`, { timeout: 120_000 }, async () => {
    const wrong = [];
    const all = Object.entries(WRONG);
    await Promise.all(Array.from({ length: 4 }, async () => {
      for (let next = all.shift(); next; next = all.shift()) {
        const [what, env] = next;
        const said = await says([task], { JWT_SECRET: KEY, ...env });
        assert.ok(said.text.length > 0 || said.code === 0, `${task}: ${what}: it says something`);
        try {
          hides(said, `${task}: ${what}`);
        } catch (error) {
          wrong.push(error.message);
        }
      }
    }));
    assert.deepEqual(wrong, []);
  });
}

test('flags, files, .env and the agents file', { timeout: 120_000 }, async () => {
  const wrong = [];
  const tried = async (what, args, env, options) => {
    try {
      hides(await says(args, env, options), what);
    } catch (error) {
      wrong.push(error.message);
    }
  };
  for (const [what, env] of Object.entries(WRONG)) {
    const flags = Object.entries(env).flatMap(([name, value]) => [`--${name.toLowerCase().replaceAll('_', '-')}`, value]);
    await tried(`flags: ${what}`, ['check', ...flags], {});
    const files = await Promise.all(Object.entries(env).map(async ([name, value]) => [`${name}_FILE`, await file(`${name}-file`, value)]));
    await tried(`files: ${what}`, ['check'], Object.fromEntries(files));
  }
  await tried('--help', ['--help'], WRONG['all at once']);
  await tried('check --help', ['check', '--help'], WRONG['all at once']);
  await tried('--version', ['--version'], WRONG['all at once']);
  await tried('a flag that is unknown', ['serve', '--jwt-secrets', SECRET], {});
  await tried('a flag that is unknown, with =', ['serve', `--jwt-secrets=${SECRET}`], {});
  await tried('a command that is unknown, with a key', ['--jwt-secret', SECRET, 'serv'], {});
  await tried('a flag given twice', ['check', '--jwt-secret', SECRET, '--jwt-secret', SECRET], {});
  await tried('a token', ['token', '--sub', 'x', '--ttl', '1x'], { JWT_SECRET: `${SECRET} ${SECRET}` });
  await tried('check, all well', ['check'], {
    JWT_SECRET: `${SECRET} ${SECRET}`, SIGNING_SECRET: `${SECRET} ${SECRET}`, OPENAI_API_KEY: SECRET, REDIS_URL: `redis://:${SECRET}@h`, DATABASE_URL: `postgres://u:${SECRET}@h/d`,
  });
  for (const [what, text] of Object.entries({
    'a line that is none': `JWT_SECRET ${SECRET}\n`, 'a quote that does not end': `JWT_SECRET="${SECRET}\n`, 'a name that is none': `1-JWT=${SECRET} x\n`, 'bytes': `JWT_SECRET=\0${SECRET}\n`,
  })) {
    await file('.env', text);
    await tried(`.env: ${what}`, ['check'], {});
  }
  await rm(join(dir, '.env'));
  const agent = '[[agent]]\nid = "a"\nname = "a"\nprovider = "openai"\nmodel = "m"\n';
  for (const [what, text] of Object.entries({
    'a key': `${agent}api_key = "${SECRET}"\n`, 'a key that is broken': `${agent}api_key = "${SECRET}\n`, 'a provider with a password': `${agent}base_url = "https://user:${SECRET}@h/v1"\n`,
    'instructions that are no text': `${agent}system_prompt = ["${SECRET}"]\n`, 'a key on the first line': `key = "${SECRET}"\n${agent}`,
  })) {
    await tried(`agents: ${what}`, ['check'], { JWT_SECRET: KEY, AGENTS_FILE: await file('agents.toml', text), OPENAI_API_KEY: 'x' });
  }
  assert.deepEqual(wrong, []);
});
