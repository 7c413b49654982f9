// Which pages may use a server: every transport and family of routes is asked by allowed and foreign origins,
// with and without cookies, by raw requests; and by a page of a foreign origin in a browser.

import assert from 'node:assert/strict';
import { createServer, request } from 'node:http';
import { withBrowser } from './harness/chromium.mjs';
import { freePort, sessionId, suite, token, within } from './harness.mjs';

const APP = 'https://app.example';
const FOREIGN = ['https://evil.example', 'null', '', 'https://app.example.evil.example', 'http://app.example', `${APP}, https://evil.example`, `${APP}/`, [APP, APP], [APP, 'https://evil.example']];

/** A raw request: header names may come twice. Gives status, headers and text; of a stream, what came first. */
function raw(url, method, path, headers = {}, body) {
  const { host, hostname, port } = new URL(url);
  const lines = Object.entries({ Host: host, ...headers }).flatMap(([name, values]) => [values].flat().flatMap((value) => [name, value]));
  const answered = new Promise((done, fail) => {
    const asking = request({ hostname, port, method, path, headers: lines, setHost: false, agent: false });
    const end = (answer, text) => {
      asking.destroy();
      done({ status: answer.statusCode, headers: answer.headers, text, json: () => JSON.parse(text) });
    };
    asking.on('error', fail);
    asking.on('upgrade', (answer) => end(answer, ''));
    asking.on('response', (answer) => {
      let text = '';
      answer.on('data', (chunk) => {
        text += chunk;
        if (/event-stream/.test(answer.headers['content-type'])) end(answer, text);
      });
      answer.on('end', () => end(answer, text));
    });
    asking.end(body);
  });
  return within(10_000, `${method} ${path}`, answered);
}

const JSON_BODY = { 'Content-Type': 'application/json' };
const UPGRADE = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==' };
/** Of every family of routes: method, path, headers and body, and the status where all is well. */
const ROUTES = {
  sessions: ['GET', () => '/api/chat/sessions', {}, () => undefined, 200],
  'a session': ['POST', () => '/api/chat/sessions', JSON_BODY, () => '{}', 201],
  'a message': ['POST', () => '/api/chat/messages', JSON_BODY, () => JSON.stringify({ sessionId: sessionId('origin'), content: 'Hi' }), 201],
  'a stream': ['POST', () => '/api/chat/streams', JSON_BODY, () => JSON.stringify({ sessionId: sessionId('origin'), prompt: 'Hi' }), 202],
  'a stream token': ['POST', () => '/stream/init', JSON_BODY, () => '{}', 200],
  'a stream by POST': ['POST', () => '/chat/message', JSON_BODY, () => JSON.stringify({ sessionId: sessionId('origin'), content: 'Hi' }), 0],
  agents: ['GET', () => '/api/chat/agents', {}, () => undefined, 200],
  operators: ['POST', () => '/api/admin/users/nobody/disconnect', JSON_BODY, () => '{}', 403],
  'server-sent events': ['GET', () => `/chat/stream/${sessionId('origin')}`, {}, () => undefined, 200],
  'their other paths': ['GET', () => `/stream/ai?session=${sessionId('origin')}`, {}, () => undefined, 200],
};
const PUBLIC = ['/openapi.json', '/asyncapi.json', '/docs', '/nowhere'];
const SOCKETS = {
  polling: ['GET', '/socket.io/?EIO=4&transport=polling', {}, 200],
  'a WebSocket': ['GET', '/socket.io/?EIO=4&transport=websocket', UPGRADE, 101],
};

function forbidden(answer, what) {
  assert.equal(answer.status, 403, `${what}: ${answer.text}`);
  assert.equal(answer.json().error.code, 'FORBIDDEN', what);
  assert.equal(answer.headers['access-control-allow-origin'], undefined, what);
  assert.match(answer.headers.vary ?? '', /origin/i, what);
}

suite('origins', { env: { CORS_ORIGIN: APP, ADMIN_SCOPE: 'nobody' } }, (e2e) => {
  e2e('a foreign origin is refused on every route, whatever it brings', { timeout: 60_000 }, async ({ url }) => {
    const jwt = token({ sub: 'alice' });
    for (const [name, [method, path, headers, body]] of Object.entries(ROUTES)) {
      for (const Origin of FOREIGN) {
        for (const bearer of [{ Authorization: `Bearer ${jwt}` }, { Cookie: `access_token=${jwt}` }, {}]) {
          forbidden(await raw(url, method, path(), { ...headers, ...bearer, Origin }, body()), `${name} by ${Origin}`);
        }
      }
    }
    for (const path of PUBLIC) forbidden(await raw(url, 'GET', path, { Origin: FOREIGN[0] }), path);
    // Nothing was done for any of them.
    const { sessions } = (await raw(url, 'GET', '/api/chat/sessions', { Authorization: `Bearer ${jwt}` })).json();
    assert.deepEqual(sessions, []);
  });

  e2e('allowed, own and no origins are not', {}, async ({ url }) => {
    const jwt = token({ sub: 'bob' });
    for (const [name, [method, path, headers, body, expected]] of Object.entries(ROUTES)) {
      for (const origin of [{}, { Origin: APP }, { Origin: url }, { Origin: APP.toUpperCase() }]) {
        for (const who of [{ Authorization: `Bearer ${jwt}` }, { Cookie: `access_token=${jwt}` }]) {
          const answer = await raw(url, method, path(), { ...headers, ...origin, ...who }, body());
          const what = `${name} by ${origin.Origin}: ${answer.status} ${answer.text}`;
          if (expected) assert.equal(answer.status, expected, what);
          else assert.ok(answer.status < 400, what);
          assert.match(answer.headers.vary ?? '', /origin/i, what);
          const allowed = origin.Origin === APP ? APP : undefined;
          assert.equal(answer.headers['access-control-allow-origin'], allowed, what);
        }
      }
    }
  });

  e2e('probes are for everybody', {}, async ({ url }) => {
    for (const path of ['/livez', '/healthz', '/readyz']) {
      const answer = await raw(url, 'GET', path, { Origin: FOREIGN[0] });
      assert.equal(answer.status, 200);
      assert.equal(answer.headers['access-control-allow-origin'], undefined);
    }
  });

  e2e('preflights: who may ask is told what, who may not nothing', {}, async ({ url }) => {
    const asks = { 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'authorization' };
    for (const path of ['/api/chat/sessions', '/chat/stream/s', '/socket.io/?EIO=4&transport=polling']) {
      const told = await raw(url, 'OPTIONS', path, { ...asks, Origin: APP });
      assert.equal(told.status, 200);
      assert.equal(told.headers['access-control-allow-origin'], APP);
      assert.equal(told.headers['access-control-allow-credentials'], 'true');
      for (const Origin of FOREIGN) {
        const { headers } = await raw(url, 'OPTIONS', path, { ...asks, Origin });
        assert.deepEqual(Object.keys(headers).filter((name) => name.startsWith('access-control-')), [], `${path} ${Origin}`);
        assert.match(headers.vary, /origin/i);
      }
    }
  });

  e2e('sockets: polling and WebSockets alike', {}, async ({ url }) => {
    for (const [name, [method, path, headers, expected]] of Object.entries(SOCKETS)) {
      for (const Origin of FOREIGN) {
        const answer = await raw(url, method, path, { ...headers, Origin });
        assert.deepEqual([answer.status, answer.text], [403, 'This origin is not allowed'], `${name} ${Origin}`);
      }
      for (const origin of [{}, { Origin: APP }, { Origin: url }]) {
        assert.equal((await raw(url, method, path, { ...headers, ...origin })).status, expected, `${name} ${origin.Origin}`);
      }
    }
    // Each request of a session, not only its first.
    const sid = /"sid":"([^"]+)"/.exec((await raw(url, 'GET', SOCKETS.polling[1])).text)[1];
    const at = `${SOCKETS.polling[1]}&sid=${sid}`;
    assert.equal((await raw(url, 'GET', at, { Origin: FOREIGN[0] })).status, 403);
    assert.equal((await raw(url, 'POST', at, { Origin: FOREIGN[0], 'Content-Type': 'text/plain' }, '40/chat,')).status, 403);
    const upgrade = `${SOCKETS['a WebSocket'][1]}&sid=${sid}`;
    assert.equal((await raw(url, 'GET', upgrade, { ...UPGRADE, Origin: FOREIGN[0] })).status, 403);
    assert.equal((await raw(url, 'POST', at, { Origin: APP, 'Content-Type': 'text/plain' }, '40/chat,')).status, 200);
  });

  e2e('a cookie counts only where no foreign page asks', { timeout: 60_000 }, async ({ url }) => {
    const jwt = token({ sub: 'carol' });
    const Cookie = `access_token=${jwt}`;
    const sites = [[undefined, true], ['same-origin', true], ['none', true], ['same-site', false], ['cross-site', false], ['nonsense', false], [['same-origin', 'cross-site'], false]];
    for (const [site, counts] of sites) {
      const fetched = site ? { 'Sec-Fetch-Site': site } : {};
      for (const [name, [method, path, headers, body, expected]] of Object.entries(ROUTES)) {
        const answer = await raw(url, method, path(), { ...headers, Cookie, ...fetched }, body());
        if (!counts) assert.equal(answer.status, 401, `${name} ${site}: ${answer.text}`);
        else if (expected) assert.equal(answer.status, expected, `${name} ${site}: ${answer.text}`);
        // With an allowed origin it does; and so does a token that no browser sends by itself.
        const said = { ...headers, ...fetched };
        assert.ok(![401].includes((await raw(url, method, path(), { ...said, Cookie, Origin: APP }, body())).status), name);
        assert.ok(![401].includes((await raw(url, method, path(), { ...said, Authorization: `Bearer ${jwt}` }, body())).status), name);
      }
      // Of a socket the handshake's cookie counts.
      const handshake = await raw(url, 'GET', SOCKETS.polling[1], { Cookie, ...fetched });
      const at = `${SOCKETS.polling[1]}&sid=${/"sid":"([^"]+)"/.exec(handshake.text)[1]}`;
      assert.equal((await raw(url, 'POST', at, { 'Content-Type': 'text/plain' }, '40/chat,')).status, 200);
      let answer = '';
      while (!/40\/chat|44\/chat/.test(answer)) answer = (await raw(url, 'GET', at)).text;
      assert.equal(/40\/chat/.test(answer), counts, `${site}: ${answer}`);
      if (!counts) assert.match(answer, /Token missing/);
    }
  });

  e2e('a page of a foreign origin in a browser', { timeout: 60_000 }, async ({ url }) => {
    const port = await freePort();
    const pages = createServer((_, answer) => answer.setHeader('Content-Type', 'text/html').end('<!doctype html><title>foreign</title>'));
    await new Promise((done) => { pages.listen(port, '127.0.0.1', done); });
    const jwt = token({ sub: 'dave' });
    try {
      await withBrowser(async (browser) => {
        const context = await browser.newContext();
        const { hostname } = new URL(url);
        await context.addCookies([{ name: 'access_token', value: jwt, domain: hostname, path: '/' }]);
        const page = await context.newPage();
        // Another port is another origin, though the same site: the cookie is sent with all that it asks.
        await page.goto(`http://127.0.0.1:${port}/`);
        const seen = await page.evaluate(async (server) => {
          const settled = (wait) => Promise.race([wait, new Promise((done) => { setTimeout(done, 5_000, 'nothing'); })]);
          const asked = (path, options) => fetch(`${server}${path}`, { credentials: 'include', ...options }).then((answer) => answer.status || answer.type, () => 'refused');
          const source = new EventSource(`${server}/chat/stream/foreign`, { withCredentials: true });
          const events = new Promise((done) => { source.onopen = () => done('open'); source.onerror = () => done('refused'); });
          const upgraded = new WebSocket(`${server.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`);
          const socket = new Promise((done) => { upgraded.onopen = () => done('open'); upgraded.onerror = () => done('refused'); });
          const image = new Image();
          const load = new Promise((done) => { image.onload = () => done('open'); image.onerror = () => done('refused'); });
          image.src = `${server}/chat/stream/image`;
          return {
            rest: await asked('/api/chat/sessions'),
            blind: await asked('/api/chat/sessions', { method: 'POST', mode: 'no-cors', body: '{}' }),
            json: await asked('/api/chat/sessions', { method: 'POST', body: '{}', headers: { 'Content-Type': 'application/json' } }),
            polling: await asked('/socket.io/?EIO=4&transport=polling'),
            events: await settled(events),
            socket: await settled(socket),
            image: await settled(load),
          };
        }, url);
        assert.deepEqual(seen, { rest: 'refused', blind: 'opaque', json: 'refused', polling: 'refused', events: 'refused', socket: 'refused', image: 'refused' });
        // A form goes wherever it is sent, and takes the tab with it.
        const [posted] = await Promise.all([
          page.waitForResponse((answer) => answer.url().endsWith('/api/chat/sessions') && answer.request().method() === 'POST'),
          page.evaluate((server) => {
            const form = Object.assign(document.createElement('form'), { method: 'POST', action: `${server}/api/chat/sessions`, enctype: 'text/plain' });
            document.body.append(form);
            form.submit();
          }, url),
        ]);
        assert.equal(posted.status(), 403);
        // The same browser on the server's own origin is let in by the cookie, and nothing was made by the foreign page.
        const tab = await context.newPage();
        await tab.goto(`${url}/docs`);
        const own = await tab.evaluate(async () => (await fetch('/api/chat/sessions')).json());
        assert.deepEqual(own.sessions, []);
        assert.equal(await tab.evaluate(() => new Promise((done) => {
          const source = new EventSource('/chat/stream/own');
          source.onopen = () => { source.close(); done('open'); };
          source.onerror = () => done('refused');
        })), 'open');
      });
    } finally {
      pages.closeAllConnections();
      await new Promise((done) => { pages.close(done); });
    }
  });
});
