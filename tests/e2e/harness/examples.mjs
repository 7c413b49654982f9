// The frontends of examples/, built and served from an origin of their own, and what can be seen of
// them. Only this file knows their markup.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createReadStream, existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, extname, join, normalize, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { eventually, freePort, token } from '../harness.mjs';
import { newTab } from './chromium.mjs';
import { at, rest } from './rest.mjs';
import { AGENT } from './model.mjs';

const EXAMPLES = resolve(dirname(fileURLToPath(import.meta.url)), '../../../examples');
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.map': 'application/json' };

/**
 * Each frontend, whether its answers grow, and when it reads the history: `first`, before anything can
 * be asked, or `beside` all else. One without that is given it by its join.
 */
export const FRONTENDS = [
  { name: 'session', isLive: true, history: 'beside' },
  { name: 'subscribe-component', isLive: true, history: 'first' },
  { name: 'conversation-react', isLive: true, history: 'beside' },
  { name: 'persona', isLive: false },
  { name: 'sse', isLive: true, history: 'first' },
];

/** Runs one of the examples' own scripts. */
export async function script(name) {
  assert.ok(existsSync(join(EXAMPLES, 'node_modules')), 'the examples are not installed: run dev/install.sh tests');
  try {
    return await promisify(execFile)('npm', ['run', '--silent', name], { cwd: EXAMPLES, timeout: 60_000 });
  } catch (error) {
    throw new Error(`npm run ${name}: ${error.stdout}${error.stderr}`);
  }
}

/** Builds them and serves them on a port of 127.0.0.1. */
export async function servePages() {
  await script('build');
  const port = await freePort();
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    const file = join(EXAMPLES, 'dist', normalize(pathname.endsWith('/') ? `${pathname}index.html` : pathname));
    if (!existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, { 'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream' });
    return createReadStream(file).pipe(response);
  });
  await new Promise((done) => server.listen(port, '127.0.0.1', done));
  return {
    origin: `http://127.0.0.1:${port}`,
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** What a page does, from its first moment on: its states, and each length of the live text. */
function watch() {
  const seen = { states: [], lengths: [] };
  Object.assign(globalThis, { seen });
  const look = () => {
    const state = document.querySelector('main')?.dataset.state;
    if (state && state !== seen.states.at(-1)) seen.states.push(state);
    const live = document.querySelector('[data-live]')?.textContent.length;
    if (live && live !== seen.lengths.at(-1)) seen.lengths.push(live);
  };
  new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
}

/** One frontend in a tab of a browser of its own, as user `sub`; its server is at `url`. */
export async function openFrontend(browser, { name, origin, url, session, sub }) {
  const jwt = token({ sub });
  const context = await browser.newContext();
  const { page, wrong } = await newTab(context);
  const transports = [];
  page.on('request', (request) => {
    if (request.url().startsWith(`${url}/socket.io/`)) transports.push('polling');
  });
  page.on('websocket', (socket) => {
    if (new URL(socket.url()).host === new URL(url).host) transports.push('websocket');
  });
  await page.addInitScript(watch);
  const query = new URLSearchParams({ server: url, token: jwt, ...(name === 'persona' ? { persona: AGENT } : { session }) });
  await page.goto(`${origin}/${name}/?${query}`);

  const frontend = {
    name, page, wrong, transports, jwt, sub,
    seen: () => page.evaluate(() => globalThis.seen),
    state: () => page.locator('main').getAttribute('data-state'),
    until: (state) => page.locator(`main[data-state="${state}"]`).waitFor(),
    /** The texts of all messages that are shown with this role, byte for byte. */
    texts: (role) => page.locator(`[data-role="${role}"]`).allTextContents(),
    /** The live text, or where answers come whole nothing. */
    live: async () => (await page.locator('[data-live]').allTextContents())[0] ?? '',
    untilLive: (text) =>
      eventually(async () => (await frontend.live()) === text, { what: `${name} shows ${JSON.stringify(text)} live` }),
    async ask(prompt) {
      await frontend.until('idle');
      await page.getByRole('textbox', { name: 'Message' }).fill(prompt);
      await page.getByRole('button', { name: 'Send' }).click();
    },
    /**
     * From now on the history comes late: what the page asks for is read at once and held back or, with
     * `unread`, not even read, until `release`. `asked` waits until it asks (and that is read).
     */
    async holdHistory({ unread = false } = {}) {
      let count = 0;
      const held = {};
      const gate = new Promise((open) => {
        held.release = open;
      });
      held.asked = () => eventually(() => count > 0, { what: `${name} asks for the history` });
      await page.route(/\/messages\?/, async (route) => {
        const early = unread ? undefined : await route.fetch();
        count += 1;
        await gate;
        await route.fulfill({ response: early ?? (await route.fetch()) });
      });
      return held;
    },
    /** Until it shows exactly these messages and is at rest. */
    untilShown: ({ user, assistant }) =>
      eventually(
        async () => {
          assert.deepEqual(await frontend.texts('user'), user);
          assert.deepEqual(await frontend.texts('assistant'), assistant);
          assert.equal(await frontend.state(), 'idle');
          return true;
        },
        { within: 20_000, what: `${name} shows all of it and is at rest` },
      ),
    /** The id of the session it is in. A persona's is its user's only one. */
    async session(node) {
      if (name !== 'persona') return session;
      const { sessions } = await rest(node, sub).get(at.sessions);
      assert.equal(sessions.length, 1, 'one session with the persona');
      return sessions[0].id;
    },
    /** The stored messages: `{ user, assistant }`. */
    async stored(node) {
      const { messages } = await rest(node, sub).get(at.history(await frontend.session(node)));
      const of = (role) => messages.filter((message) => message.role === role).map(({ content }) => content);
      return { user: of('user'), assistant: of('assistant') };
    },
    close: () => context.close(),
  };
  return frontend;
}
