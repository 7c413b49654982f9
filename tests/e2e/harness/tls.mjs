// Servers that speak TLS only: a CA and certificates made for the occasion, a Redis with users, and
// a PostgreSQL of its own, since TLS and passwords are settings of the whole server.

import { execFile } from 'node:child_process';
import { chmod, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Child, baseEnv, freePort, makeDir } from '../harness.mjs';

const run = promisify(execFile);
const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

/**
 * A folder with `ca.pem`, `other.pem` (a CA that signed nothing here), and `server.pem` and
 * `server.key` for `localhost` and no other name or address.
 */
export async function makeCertificates() {
  const dir = await makeDir();
  const openssl = (...words) => run('openssl', words, { cwd: dir, env: baseEnv(), timeout: 20_000 });
  for (const name of ['ca', 'other']) {
    await openssl('req', '-x509', ...KEY, '-days', '2', '-keyout', `${name}.key`, '-out', `${name}.pem`, '-subj', `/CN=${name}`);
  }
  const name = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'];
  await openssl('req', '-new', ...KEY, '-keyout', 'server.key', '-out', 'server.csr', ...name);
  await openssl('x509', '-req', '-in', 'server.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2',
    '-copy_extensions', 'copy', '-out', 'server.pem');
  const file = (base) => join(dir, base);
  return {
    ca: file('ca.pem'), other: file('other.pem'), cert: file('server.pem'), key: file('server.key'),
    remove: () => rm(dir, { recursive: true, force: true }),
  };
}

/** A Redis that listens with TLS only, and has the users that `users` are the rules of. */
export async function startTlsRedis(tls, users = []) {
  const dir = await makeDir();
  const port = await freePort();
  await writeFile(join(dir, 'users.acl'), users.map((user) => `user ${user}\n`).join(''));
  const options = {
    port: 0, 'tls-port': port, bind: '127.0.0.1', dir, save: '', appendonly: 'no', 'tls-cert-file': tls.cert,
    'tls-key-file': tls.key, 'tls-ca-cert-file': tls.ca, 'tls-auth-clients': 'no', aclfile: join(dir, 'users.acl'),
  };
  const args = Object.entries(options).flatMap(([key, value]) => [`--${key}`, String(value)]);
  const child = new Child('redis-tls', 'redis-server', args, { env: baseEnv(), cwd: dir, dir });
  const command = async (...words) => {
    const way = ['-h', 'localhost', '-p', String(port), '--tls', '--cacert', tls.ca, '--raw'];
    return (await run('redis-cli', [...way, ...words], { env: baseEnv(), timeout: 5_000 })).stdout.trimEnd();
  };
  await child.ready(async () => (await command('PING')).includes('PONG'));
  return {
    port,
    command,
    url: (user, { scheme = 'rediss', host = 'localhost' } = {}) => `${scheme}://${user}@${host}:${port}`,
    async stop() {
      await child.stop('SIGKILL');
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** A PostgreSQL that admits over TLS only, by password; `owner` may do everything. */
export async function startTlsPostgres(tls, password) {
  const dir = await makeDir();
  const port = await freePort();
  const data = join(dir, 'data');
  const found = (await readdir('/usr/lib/postgresql')).sort((a, b) => b - a)[0];
  const bin = (program) => join('/usr/lib/postgresql', found, 'bin', program);
  const isRoot = process.getuid() === 0; // as whom PostgreSQL does not run
  const as = (program, ...args) =>
    isRoot ? ['setpriv', ['--reuid=postgres', '--regid=postgres', '--init-groups', program, ...args]] : [program, args];
  const env = baseEnv();
  if (isRoot) await run('chown', ['postgres:', dir], { env });
  const secret = join(dir, 'secret');
  await writeFile(secret, `${password}\n`);
  if (isRoot) await run('chown', ['postgres:', secret], { env });
  const init = [`--pgdata=${data}`, '--username=owner', '--auth=scram-sha-256', `--pwfile=${secret}`, '--encoding=UTF8', '--locale=C.UTF-8', '--no-sync'];
  await run(...as(bin('initdb'), ...init), { env, cwd: dir, timeout: 60_000 });
  await writeFile(join(data, 'pg_hba.conf'), 'hostssl all all 127.0.0.1/32 scram-sha-256\n');
  for (const [from, to] of [[tls.cert, 'server.crt'], [tls.key, 'server.key']]) {
    await run('cp', [from, join(data, to)], { env });
    await chmod(join(data, to), 0o600);
    if (isRoot) await run('chown', ['postgres:', join(data, to)], { env });
  }
  const settings = ['listen_addresses=127.0.0.1', 'ssl=on', 'fsync=off', 'synchronous_commit=off', 'shared_buffers=32MB'];
  const [program, args] = as(bin('postgres'), '-D', data, '-p', String(port), '-k', dir, ...settings.flatMap((word) => ['-c', word]));
  const child = new Child('postgres-tls', program, args, { env, cwd: dir, dir });
  const url = (user, query = 'sslmode=require', { host = 'localhost', database = 'postgres' } = {}) =>
    `postgres://${user}@${host}:${port}/${database}?${query}`;
  const query = async (sql, as = `owner:${password}`) => {
    const words = ['--no-psqlrc', '--quiet', '--tuples-only', '--no-align', '--set=ON_ERROR_STOP=1', '--command', sql];
    return (await run('psql', [...words, url(as)], { env, timeout: 15_000 })).stdout.trimEnd();
  };
  await child.ready(async () => (await query('SELECT 1')) === '1');
  return {
    url,
    query,
    async stop() {
      await child.stop('SIGINT');
      await rm(dir, { recursive: true, force: true });
    },
  };
}
