// Redis, PostgreSQL and the model's server over TLS, with certificates of a CA of one's own: what is
// trusted works, and what is not is refused at the start in one line that holds no password. The
// rights that docs/SECURITY.md gives Redis' user and the database's roles are enough, and no more.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { createServer } from 'node:https';
import { dirname, join, resolve } from 'node:path';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BIN, Child, eventually, joined, metrics, ok, sessionId, suite, token, within, open } from './harness.mjs';
import { at, rest } from './harness/rest.mjs';
import { makeCertificates, startTlsPostgres, startTlsRedis } from './harness/tls.mjs';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const DOC = readFileSync(join(ROOT, 'docs/SECURITY.md'), 'utf8');
const PASSWORD = 'correct-horse-battery';
const WRONG = 'wrong-horse-battery';
const OWNER = 'owner-horse-battery';

/** The rules of the user as the document has them, for a line of an ACL file. */
function documentedUser() {
  const found = /ACL SETUSER (tokencast [^`]*?)\n```/.exec(DOC);
  assert.ok(found, 'docs/SECURITY.md shows ACL SETUSER');
  return found[1].replaceAll('\\\n', ' ').replace(/>\S+/, `>${PASSWORD}`).replace(/\s+/g, ' ').trim();
}

/** The statements that make the role that serves: before the migration, and after it. */
function documentedRole() {
  const found = [...DOC.matchAll(/```sql\n([^`]*tokencast_serve[^`]*)```/g)].map(([, sql]) => sql);
  assert.equal(found.length, 2, 'docs/SECURITY.md shows the role: before the migration, and after it');
  return [found[0].replace(/PASSWORD '[^']*'/, `PASSWORD '${PASSWORD}'`), found[1]];
}

suite('TLS', { nodes: 0, redis: false, database: 'sqlite' }, (e2e) => {
  let tls;
  let redis;
  let postgres;
  before(async () => {
    tls = await makeCertificates();
    redis = await startTlsRedis(tls, ['default on nopass ~* &* +@all', documentedUser()]);
    postgres = await startTlsPostgres(tls, OWNER);
  });
  after(async () => {
    await redis?.stop();
    await postgres?.stop();
    await tls?.remove();
  });

  /** The one line of a node that does not start. */
  async function refusal(cluster, env, args = ['serve']) {
    const all = { ...cluster.env, PORT: '0', METRICS_PORT: '0', SSL_CERT_FILE: tls.ca, ...env };
    const child = new Child('refused', BIN, args, { env: all, cwd: cluster.dir, dir: cluster.dir });
    const end = await within(20_000, 'the node gives up', child.exited).catch(async (error) => {
      await child.stop('SIGKILL');
      error.message += `\n${child.log()}`;
      throw error;
    });
    const lines = child.log().split('\n').filter((line) => line.startsWith('tokencast: '));
    assert.equal(end.code, 1, child.log());
    assert.equal(lines.length, 1, child.log());
    for (const secret of [PASSWORD, WRONG, OWNER]) assert.ok(!child.log().includes(secret), `a password is shown: ${child.log()}`);
    assert.ok(!child.log().includes('panicked'), child.log());
    return lines[0];
  }

  /** A message and an answer from one node to the other. */
  async function together(a, b) {
    const id = sessionId('tls');
    const alice = await joined(a, 'alice', id);
    const other = await joined(b, 'alice', id);
    await ok(alice.socket, 'message:send', { sessionId: id, content: 'over TLS' });
    await other.heard.next('message:new', ({ content }) => content === 'over TLS');
    const { streamId } = await ok(other.socket, 'stream:request', { sessionId: id, prompt: 'And back?', agentId: 'instant' });
    assert.equal((await alice.heard.finished(streamId)).name, 'stream:complete');
    assert.equal(alice.heard.follow(streamId).text, other.heard.follow(streamId).text);
    return { alice, other, id, streamId };
  }

  e2e('two nodes share a Redis over TLS under the documented user, who needs no more', { timeout: 90_000 }, async (cluster) => {
    const env = { SSL_CERT_FILE: tls.ca, REDIS_URL: redis.url(`tokencast:${PASSWORD}`), TOKEN_BUDGET: '100000/1h', WS_THROTTLE_LIMIT: '1000' };
    const nodes = [await cluster.startNode(env), await cluster.startNode(env)];
    const { alice, id } = await together(...nodes);
    const living = (count) => async () => (await metrics(nodes[0])).sum('cluster_nodes') === count;
    await eventually(living(2), { what: 'both are counted' });
    // What happens seldom: a stopped answer, presence, rate limits, a node that dies in its answer.
    const { streamId } = await ok(alice.socket, 'stream:request', { sessionId: id, prompt: 'Long?', agentId: 'slow' });
    await alice.heard.next('stream:chunk', (chunk) => chunk.streamId === streamId);
    await ok(alice.socket, 'stream:stop', { streamId });
    assert.equal((await alice.heard.finished(streamId)).name, 'stream:stopped');
    await rest(nodes[0], 'alice').get(at.presence(id));
    await rest(nodes[1], 'alice').get(at.metrics(streamId));
    const doomed = await joined(nodes[1], 'bob', sessionId('doomed'));
    const asked = await ok(doomed.socket, 'stream:request', { sessionId: doomed.reply.session.id, prompt: 'Go on.', agentId: 'slow' });
    await doomed.heard.next('stream:chunk', (chunk) => chunk.streamId === asked.streamId);
    await nodes[1].stop('SIGKILL');
    await eventually(async () => (await living(1)()) && (await redis.command('ZCARD', 'tc:{tc:nodes}:dead')) === '0' && (await redis.command('ZCARD', 'tc:nodes')) === '1',
      { within: 30_000, what: 'the dead node is taken out' });
    assert.equal(await redis.command('ACL', 'LOG'), '', 'something was refused to the node');

    const user = (...words) => redis.command('--user', 'tokencast', '--pass', PASSWORD, '--no-auth-warning', ...words).catch((error) => error.stdout ?? String(error));
    await redis.command('SET', 'other', 'x');
    for (const words of [
      ['FLUSHALL'], ['FLUSHDB'], ['CONFIG', 'GET', '*'], ['KEYS', '*'], ['SCAN', '0'], ['ACL', 'LIST'], ['CLIENT', 'LIST'], ['CLIENT', 'KILL', 'TYPE', 'normal'],
      ['MONITOR'], ['SHUTDOWN'], ['SCRIPT', 'FLUSH'], ['FUNCTION', 'LIST'], ['MODULE', 'LIST'], ['REPLICAOF', 'NO', 'ONE'],
      ['GET', 'other'], ['SPUBLISH', 'other', 'x'], ['SSUBSCRIBE', 'other'], ['PSUBSCRIBE', '*'], ['MIGRATE', 'h', '1', 'tc:x', '0', '1'], ['DUMP', 'tc:x'],
      ['EVAL', "return redis.call('GET', 'other')", '0'], ['EVAL', "return redis.call('FLUSHALL')", '0'],
    ]) {
      assert.match(await user(...words), /NOPERM|can't access|can't run this command|ACL failure/, words.join(' '));
    }
    // Every command of the scripts is among those that are documented, also what no test got to.
    const scripts = join(ROOT, 'src/adapter/redis/scripts');
    for (const file of readdirSync(scripts)) {
      for (const [, command] of readFileSync(join(scripts, file), 'utf8').matchAll(/redis\.p?call\('(\w+)'/g)) {
        assert.ok(`${documentedUser()} `.includes(`+${command.toLowerCase()} `), `${command} of ${file}`);
      }
    }
  });

  e2e('a Redis that cannot be trusted or does not trust is refused at the start', { timeout: 90_000 }, async (cluster) => {
    const right = `tokencast:${PASSWORD}`;
    const opens = (url, env) => refusal(cluster, { REDIS_URL: url, ...env });
    assert.match(await opens(redis.url(right), { SSL_CERT_FILE: tls.other }), /REDIS_URL: .*certificate is refused.*UnknownIssuer/);
    assert.match(await opens(redis.url(right, { host: '127.0.0.1' })), /REDIS_URL: .*certificate is refused.*[nN]ot ?[vV]alid ?[fF]or ?[nN]ame/);
    assert.match(await opens(redis.url(`tokencast:${WRONG}`)), /REDIS_URL: .*user or the password/);
    assert.match(await opens(redis.url(`nobody:${PASSWORD}`)), /REDIS_URL: .*user or the password/);
    assert.match(await opens(redis.url(right), { SSL_CERT_FILE: '/nonexistent/ca.pem' }), /REDIS_URL: .*nonexistent/);
    assert.match(await opens(redis.url(right, { scheme: 'redis' })), /REDIS_URL: .*TLS/);
    assert.match(await opens(`${redis.url(right, { scheme: 'rediss-cluster' })}?node=x:${WRONG}`), /REDIS_URL: .*cannot be read/);
  });

  e2e('PostgreSQL over TLS: migrated by its owner, served under a role that may only read and write rows', { timeout: 90_000 }, async (cluster) => {
    const verified = `sslmode=verify-full&sslrootcert=${tls.ca}`;
    const role = { DATABASE_URL: postgres.url(`tokencast_serve:${PASSWORD}`, verified), REDIS_URL: redis.url(`tokencast:${PASSWORD}`), SSL_CERT_FILE: tls.ca };
    const [first, afterwards] = documentedRole();
    await postgres.query(first);
    // Nobody has migrated yet, and this role must not.
    assert.match(await refusal(cluster, role), /DATABASE_URL.*permission denied/);

    const owner = { ...cluster.env, DATABASE_URL: postgres.url(`owner:${OWNER}`, verified) };
    const migrated = new Child('migrate', BIN, ['migrate'], { env: owner, cwd: cluster.dir, dir: cluster.dir });
    assert.equal((await within(30_000, 'migrate', migrated.exited)).code, 0, migrated.log());
    await postgres.query(afterwards);
    const nodes = [await cluster.startNode(role), await cluster.startNode({ ...role, DATABASE_URL: postgres.url(`tokencast_serve:${PASSWORD}`) })];
    const { alice, id } = await together(...nodes);
    const { messages } = await rest(nodes[1], 'alice').get(at.history(id));
    assert.ok(messages.length >= 3, 'what was sent is stored');
    const message = messages.find(({ role: by }) => by === 'user');
    await ok(alice.socket, 'message:edit', { messageId: message.id, content: 'edited' });
    await ok(alice.socket, 'message:delete', { messageId: message.id });
    assert.equal(await postgres.query("SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'tokencast_serve' AND NOT ssl"), '0');
    for (const sql of ['DROP TABLE message', 'CREATE TABLE more (id int)', 'TRUNCATE message', 'ALTER TABLE message ADD COLUMN x int', 'DELETE FROM _sqlx_migrations', 'CREATE ROLE x', "COPY message TO PROGRAM 'true'"]) {
      await assert.rejects(postgres.query(sql, `tokencast_serve:${PASSWORD}`), /permission denied|must be/, sql);
    }
  });

  e2e('a PostgreSQL that cannot be trusted or does not trust is refused at the start', { timeout: 90_000 }, async (cluster) => {
    const right = `owner:${OWNER}`;
    const opens = (url) => refusal(cluster, { DATABASE_URL: url });
    assert.match(await opens(postgres.url(right, `sslmode=verify-full&sslrootcert=${tls.other}`)), /DATABASE_URL.*UnknownIssuer/);
    assert.match(await opens(postgres.url(right, `sslmode=verify-full&sslrootcert=${tls.ca}`, { host: '127.0.0.1' })), /DATABASE_URL.*[nN]ot ?[vV]alid ?[fF]or ?[nN]ame/);
    assert.match(await opens(postgres.url(right, 'sslmode=verify-full')), /DATABASE_URL.*UnknownIssuer/);
    assert.match(await opens(postgres.url(right, 'sslmode=verify-full&sslrootcert=/nonexistent/ca.pem')), /DATABASE_URL.*No such file/);
    assert.match(await opens(postgres.url(`owner:${WRONG}`)), /DATABASE_URL.*password authentication failed/);
    assert.match(await opens(postgres.url(right, 'sslmode=disable')), /DATABASE_URL.*no encryption/);
    assert.match(await opens(postgres.url(right, 'sslmode=nonsense')), /DATABASE_URL.*nonsense/);
    // The driver passes over what it does not know, and says its value.
    assert.match(await opens(postgres.url(right, `sslmode=require&sslmod=${WRONG}`)), /DATABASE_URL.*parameter 2 is not known/);
  });

  e2e('a model behind https: asked where its CA is trusted, an error of the answer where it is not', { timeout: 60_000 }, async (cluster) => {
    const upstream = createServer({ cert: readFileSync(tls.cert), key: readFileSync(tls.key) }, (request, response) => {
      request.resume().on('end', () => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        const chunk = (delta, reason = null) => `data: ${JSON.stringify({ id: 'x', object: 'chat.completion.chunk', choices: [{ index: 0, delta, finish_reason: reason }] })}\n\n`;
        response.end(`${chunk({ role: 'assistant', content: 'from behind TLS' })}${chunk({}, 'stop')}data: [DONE]\n\n`);
      });
    });
    await new Promise((done) => upstream.listen(0, '127.0.0.1', done));
    try {
      const base = { AGENTS_FILE: '', OPENAI_BASE_URL: `https://localhost:${upstream.address().port}/v1`, OPENAI_MODEL: 'm', OPENAI_API_KEY: PASSWORD };
      for (const [ca, end] of [[tls.ca, 'stream:complete'], [tls.other, 'stream:error']]) {
        const node = await cluster.startNode({ ...base, SSL_CERT_FILE: ca, STREAM_RETRIES: '0', DATABASE_URL: `sqlite://${join(cluster.dir, `${end.slice(7)}.db`)}` });
        const { socket, heard } = await open(node.url, { token: token() });
        const id = sessionId('https');
        await ok(socket, 'session:join', { sessionId: id });
        const { streamId } = await ok(socket, 'stream:request', { sessionId: id, prompt: 'Who is there?' });
        assert.equal((await heard.finished(streamId)).name, end, node.log());
        if (end === 'stream:complete') assert.equal(heard.follow(streamId).text, 'from behind TLS');
        assert.ok(!node.log(1000).includes('panicked'));
        assert.ok(!node.log(1000).includes(PASSWORD), 'the key is logged');
      }
    } finally {
      upstream.closeAllConnections();
      upstream.close();
    }
  });
});
