// The demo page, as a person uses it: two tabs on one session, one of them asks, both watch the
// answer appear. Nothing is logged as an error and nothing is asked of another origin.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';
import { eventually, suite } from './harness.mjs';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

// What the page is known by. Only this block knows its markup.
const markup = {
  prompt: (page) => page.getByRole('textbox', { name: /message|prompt|ask/i }),
  send: (page) => page.getByRole('button', { name: /send|ask/i }),
  answers: (page) => page.locator('[data-role="assistant"]'),
  prompts: (page) => page.locator('[data-role="user"]'),
};

/** Chromium, which asks nobody anything by itself. */
const launch = () =>
  chromium.launch({
    executablePath: CHROMIUM,
    timeout: 30_000,
    args: [
      '--no-sandbox',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-default-apps',
      '--disable-domain-reliability',
      '--disable-sync',
      '--no-first-run',
      '--metrics-recording-only',
      '--no-proxy-server',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
    ],
  });

/** A tab, and what went wrong in it. */
async function tab(context, url) {
  const page = await context.newPage();
  const wrong = [];
  page.on('console', (message) => message.type() === 'error' && wrong.push(`console: ${message.text()} ${message.location().url}`));
  page.on('pageerror', (error) => wrong.push(`uncaught: ${error.message}`));
  page.on('request', (request) => {
    const { protocol, origin } = new URL(request.url());
    const foreign = origin !== new URL(url).origin && !['data:', 'blob:'].includes(protocol);
    if (foreign) wrong.push(`another origin: ${request.url()}`);
  });
  page.on('websocket', (socket) => {
    if (new URL(socket.url()).host !== new URL(url).host) wrong.push(`another host: ${socket.url()}`);
  });
  page.setDefaultTimeout(15_000);
  await page.goto(url, { waitUntil: 'load' });
  return { page, wrong };
}

suite('demo page', { nodes: 3, nginx: true, env: { DEV_AUTH: 'true', DEMO_UI: 'true' } }, (e2e) => {
  e2e('two tabs see one answer stream', { timeout: 90_000 }, async (cluster) => {
    assert.ok(existsSync(CHROMIUM), `no Chromium at ${CHROMIUM}: run dev/install.sh browser, or set CHROMIUM`);
    const browser = await launch();
    try {
      const context = await browser.newContext();
      const first = await tab(context, cluster.url);
      // The page puts its session into its address, so that a second tab can be given it.
      await eventually(() => first.page.url().replace(/\/$/, '') !== cluster.url, { what: 'the session is in the address' });
      const second = await tab(context, first.page.url());

      await markup.prompt(first.page).fill('What is a heron?');
      await markup.send(first.page).click();
      for (const { page } of [first, second]) {
        await markup.prompts(page).filter({ hasText: 'What is a heron?' }).waitFor();
      }
      // It grows: two different lengths are seen in each tab before the end.
      const lengths = [first, second].map(async ({ page }) => {
        const seen = new Set();
        await eventually(
          async () => {
            seen.add((await markup.answers(page).last().innerText({ timeout: 1_000 })).length);
            return seen.size >= 3;
          },
          { within: 20_000, what: 'the answer grows' },
        );
      });
      await Promise.all(lengths);
      // Both end with the same text, which is the stored one.
      const text = await eventually(
        async () => {
          const stored = await cluster.database.query(`SELECT content FROM message WHERE role = 'assistant'`);
          return stored === '' ? undefined : stored;
        },
        { within: 20_000, what: 'the answer is stored' },
      );
      const squeeze = (value) => value.replace(/\s+/g, ' ').trim();
      for (const { page } of [first, second]) {
        await eventually(
          async () => squeeze(await markup.answers(page).last().innerText()).includes(squeeze(text)),
          { what: 'the tab shows the stored text' },
        );
        assert.equal(await markup.answers(page).count(), 1, 'one answer, once');
        assert.equal(await markup.prompts(page).count(), 1, 'one prompt, once');
      }
      assert.deepEqual(first.wrong, []);
      assert.deepEqual(second.wrong, []);
    } finally {
      await browser.close();
    }
  });
});
