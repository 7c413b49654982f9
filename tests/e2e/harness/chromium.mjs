// A headless Chromium that asks nobody anything by itself, and what goes wrong in its tabs.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** A browser. Names resolve to nothing: only 127.0.0.1 can be reached. */
export function launch() {
  assert.ok(existsSync(CHROMIUM), `no Chromium at ${CHROMIUM}: run dev/install.sh browser, or set CHROMIUM`);
  return chromium.launch({
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
}

/** Runs `body` with a browser, which is closed afterwards. */
export async function withBrowser(body) {
  const browser = await launch();
  try {
    await body(browser);
  } finally {
    await browser.close();
  }
}

/** A new tab, and a list of what goes wrong in it: errors that nobody caught, or that are logged. */
export async function newTab(context) {
  const page = await context.newPage();
  const wrong = [];
  page.on('console', (message) => message.type() === 'error' && wrong.push(`console: ${message.text()} ${message.location().url}`));
  page.on('pageerror', (error) => wrong.push(`uncaught: ${error.message}`));
  page.setDefaultTimeout(15_000);
  return { page, wrong };
}
