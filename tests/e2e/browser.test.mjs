// The demo page, as people use it: two tabs on one session, one of them asks, both watch the answer
// appear; two people in one room, who write, edit, react and delete; and the page that shows the
// HTTP API. Nothing is logged as an error and nothing is asked of another origin.

import assert from 'node:assert/strict';
import { launch, newTab } from './harness/chromium.mjs';
import { eventually, suite } from './harness.mjs';

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

// What the page is known by. Only this block knows its markup.
const markup = {
  prompt: (page) => page.getByRole('textbox', { name: 'Message' }),
  name: (page) => page.getByRole('textbox', { name: 'Your name' }),
  asks: (page) => page.getByRole('switch', { name: 'Ask the model' }),
  agent: (page) => page.getByRole('combobox', { name: 'Who answers' }),
  openRoom: (page) => page.getByRole('switch', { name: /^Open to/ }),
  people: (page) => page.getByRole('list', { name: 'Who is here' }).getByRole('listitem'),
  send: (page) => page.getByRole('button', { name: /^(Send|Ask)$/ }),
  action: (message, name) => message.getByRole('button', { name }),
  answers: (page) => page.locator('[data-role="assistant"]'),
  prompts: (page) => page.locator('[data-role="user"]'),
};

/** A tab, and what went wrong in it. */
async function tab(context, url) {
  const { page, wrong } = await newTab(context);
  page.on('request', (request) => {
    const { protocol, origin } = new URL(request.url());
    const foreign = origin !== new URL(url).origin && !['data:', 'blob:'].includes(protocol);
    if (foreign) wrong.push(`another origin: ${request.url()}`);
  });
  page.on('websocket', (socket) => {
    if (new URL(socket.url()).host !== new URL(url).host) wrong.push(`another host: ${socket.url()}`);
  });
  await page.goto(url, { waitUntil: 'load' });
  return { page, wrong };
}

/** Somebody of this name in a browser of their own, in a room of their own or in the one at `url`. */
async function person(browser, base, name, url) {
  const context = await browser.newContext();
  const opened = await tab(context, base);
  await markup.name(opened.page).fill(name);
  await markup.name(opened.page).press('Enter');
  await markup.people(opened.page).filter({ hasText: name }).waitFor();
  if (url) {
    await opened.page.goto('about:blank');
    await opened.page.goto(url);
  }
  return opened;
}

/** Writes to the room, not to the model. */
async function say(page, text) {
  await markup.asks(page).uncheck();
  await markup.prompt(page).fill(text);
  await markup.send(page).click();
}

const texts = (page) => page.locator('.message .text').allInnerTexts();

/** How many messages a user may send in an hour. */
const SENDS = 4;
const env = { DEV_AUTH: 'true', DEMO_UI: 'true', RATE_LIMITS: `message:send=${SENDS}/3600s` };

suite('demo page', { nodes: 3, nginx: true, env }, (e2e) => {
  e2e('two tabs see one answer stream', { timeout: 90_000 }, async (cluster) => {
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

  e2e('two people in one room see what each does', { timeout: 90_000 }, async (cluster) => {
    const browser = await launch();
    try {
      const alice = await person(browser, cluster.url, 'alice');
      const { page: hers } = alice;
      // Nobody else may come in before she opens the room.
      const bob = await person(browser, cluster.url, 'bob', hers.url());
      const { page: his } = bob;
      await his.getByRole('heading', { name: /not open/i }).waitFor();
      await markup.openRoom(hers).check();
      await hers.getByText('Whoever has the link can join now.').waitFor();
      await his.getByRole('button', { name: 'Try again' }).click();
      for (const page of [hers, his]) {
        for (const name of ['alice', 'bob']) await markup.people(page).filter({ hasText: name }).waitFor();
      }
      assert.equal(await markup.openRoom(his).isVisible(), false, 'only its owner opens a room');

      await say(his, 'Is this <b>the</b> river?');
      const seen = markup.prompts(hers).filter({ hasText: 'Is this <b>the</b> river?' });
      await seen.waitFor();
      assert.match(await seen.innerText(), /^bob/, 'with who wrote it');
      assert.equal(await seen.locator('b').count(), 0, 'markup is text');
      assert.equal(await markup.action(seen, /^Edit/).count(), 0, "another's message is not hers to edit");

      await markup.prompt(his).pressSequentially('and');
      await hers.getByText('bob is typing…').waitFor();
      await markup.prompt(his).fill('');
      await hers.getByText('bob is typing…').waitFor({ state: 'hidden' });

      const own = markup.prompts(his).filter({ hasText: 'river' });
      await own.hover();
      await markup.action(own, /^Edit/).click();
      await markup.prompt(his).fill('Is this the river, then?');
      await his.getByRole('button', { name: 'Save' }).click();
      const edited = markup.prompts(hers).filter({ hasText: 'Is this the river, then?' });
      await edited.waitFor();
      assert.match(await edited.innerText(), /edited/);

      await edited.hover();
      await markup.action(edited, 'React with 👍').click();
      const chip = own.getByRole('button', { name: '👍 by alice' });
      await chip.waitFor();
      assert.equal(await chip.getAttribute('aria-pressed'), 'false', 'hers, not his');
      await chip.click();
      await edited.getByRole('button', { name: '👍 by You, bob' }).waitFor();

      await say(hers, 'To be taken back');
      const taken = markup.prompts(his).filter({ hasText: 'To be taken back' });
      await taken.waitFor();
      const hersTaken = markup.prompts(hers).filter({ hasText: 'To be taken back' });
      await hersTaken.hover();
      await markup.action(hersTaken, /^Delete/).click();
      await taken.waitFor({ state: 'detached' });

      // What is stored is what was seen.
      const shown = await texts(his);
      assert.deepEqual(shown, ['Is this the river, then?', 'Deleted']);
      await his.reload();
      await eventually(async () => (await texts(his)).length === shown.length, { what: 'history is back' });
      assert.deepEqual(await texts(his), shown);
      await markup.prompts(his).first().getByRole('button', { name: /^👍 by alice, You/ }).waitFor();

      await his.close();
      await hers.locator('#people [data-away]', { hasText: 'bob' }).waitFor({ timeout: 30_000 });
      assert.deepEqual(alice.wrong, []);
      assert.deepEqual(bob.wrong, []);
    } finally {
      await browser.close();
    }
  });

  e2e('who answers is chosen, and what goes on beside the text is shown', { timeout: 60_000 }, async (cluster) => {
    const browser = await launch();
    try {
      const { page, wrong } = await person(browser, cluster.url, 'dora');
      // After the start of each answer, the page hears of two stages, and of a thought in two parts.
      await page.routeWebSocket(/socket\.io/, (socket) => {
        const server = socket.connectToServer();
        socket.onMessage((message) => server.send(message));
        server.onMessage((message) => {
          socket.send(message);
          if (!message.startsWith('42/chat,["stream:start"')) return;
          const [, of] = JSON.parse(message.slice('42/chat,'.length));
          const hear = (event, payload) => socket.send(`42/chat,${JSON.stringify([event, { ...of, ...payload }])}`);
          const stage = { stage: '<b>facilitator</b>', agents: ['a'], index: 0, total: 2 };
          hear('pipeline:stage', { ...stage, status: 'started' });
          hear('pipeline:stage', { ...stage, status: 'completed' });
          hear('stream:event', { kind: 'thinking', text: 'Herons <i>may' });
          hear('stream:event', { kind: 'citation', title: 'A book' });
          hear('stream:event', { kind: 'thinking', text: '</i> be birds' });
          hear('pipeline:stage', { ...stage, stage: 'wise friend', index: 1, status: 'started' });
        });
      });
      await page.reload();
      await markup.agent(page).selectOption({ value: 'slow' });
      await markup.prompt(page).fill('Are herons birds?');
      await markup.send(page).click();
      const answer = markup.answers(page);
      await answer.getByText('wise friend is at work (2 of 2)').waitFor();
      assert.match(await answer.innerText(), /^slow/, 'the chosen one answers');
      const thought = answer.getByText('Herons <i>may</i> be birds', { exact: true });
      assert.equal(await thought.isVisible(), false, 'thoughts are folded');
      await answer.getByText('Thinking').click();
      await thought.waitFor();
      await page.getByRole('button', { name: 'Stop' }).click();
      await answer.getByText('Stopped by you').waitFor();
      assert.equal(await markup.agent(page).inputValue(), 'slow', 'and stays chosen');
      await markup.asks(page).uncheck();
      assert.equal(await markup.agent(page).isVisible(), false, 'nobody answers what is only sent');
      assert.deepEqual(wrong, []);
    } finally {
      await browser.close();
    }
  });

  e2e('what is refused is said in words', { timeout: 60_000 }, async (cluster) => {
    const browser = await launch();
    try {
      const { page, wrong } = await person(browser, cluster.url, 'carol');
      for (let n = 1; n <= SENDS; n += 1) {
        await say(page, `message ${n}`);
        await markup.prompts(page).filter({ hasText: `message ${n}` }).waitFor();
      }
      await say(page, 'one too many');
      await page.getByRole('alert').filter({ hasText: /^Too many requests.*Try again in \d+ s\.$/ }).waitFor();
      assert.equal(await markup.prompt(page).inputValue(), 'one too many', 'what was refused is not lost');
      assert.deepEqual(wrong, []);
    } finally {
      await browser.close();
    }
  });

  e2e('/docs shows every operation', { timeout: 60_000 }, async (cluster) => {
    const document = await (await fetch(`${cluster.url}/openapi.json`)).json();
    const expected = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).filter((method) => METHODS.includes(method)).map((method) => `${method.toUpperCase()} ${path}`));
    assert.ok(expected.length > 20, `${expected.length} operations`);
    const browser = await launch();
    try {
      const { page, wrong } = await tab(await browser.newContext(), `${cluster.url}/docs`);
      await page.locator('main h3').first().waitFor();
      const shown = await page.locator('main h3:has(.method)').evaluateAll((all) => all.map((one) => [...one.children].map((part) => part.textContent).join(' ')));
      assert.deepEqual(shown.toSorted(), expected.toSorted());
      const listed = await page.locator('nav li a:has(.method)').evaluateAll((all) => all.map((one) => one.title));
      assert.deepEqual(listed.toSorted(), expected.toSorted());
      // Each entry leads to what it names.
      const dangling = await page.locator('a[href^="#"]').evaluateAll((all) => all.map((one) => one.getAttribute('href').slice(1)).filter((id) => !document.getElementById(id)));
      assert.deepEqual(dangling, []);
      await page.getByRole('searchbox').fill('no such thing');
      await page.getByText('Nothing matches.').waitFor();
      assert.deepEqual(wrong, []);
    } finally {
      await browser.close();
    }
  });
});
