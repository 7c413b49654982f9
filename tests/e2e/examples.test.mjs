// The frontends of examples/, as people will copy them: each knows its own family's events only, is
// served from another origin than the servers, and asks, shows and stores one answer. What the model
// says is up to the test, so each state lasts until it was seen.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { withBrowser } from './harness/chromium.mjs';
import { FRONTENDS, openFrontend, script, servePages } from './harness/examples.mjs';
import { startModel } from './harness/model.mjs';
import { at, rest } from './harness/rest.mjs';
import { sessionId, suite } from './harness.mjs';

const [pages, model] = await Promise.all([servePages(), startModel()]);
after(() => Promise.all([pages.stop(), model.stop()]));
const env = { ...model.env, CORS_ORIGIN: pages.origin };

suite('examples', { nodes: 2, nginx: true, env }, (e2e) => {
  e2e('hold what the types of the events promise', { timeout: 60_000 }, () => script('check'));

  for (const [n, { name, isLive }] of FRONTENDS.entries()) {
    e2e(`${name}: a question, and its answer as it is written`, { timeout: 90_000 }, (cluster) =>
      withBrowser(async (browser) => {
        const prompts = ['first', 'second'].map((which) => `A ${which} question of ${name}, with <b>markup</b>`);
        const asks = { name, origin: pages.origin, url: cluster.url, session: sessionId(name), sub: `user-${n}` };
        const frontend = await openFrontend(browser, asks);
        const assistant = [];
        for (const [round, prompt] of prompts.entries()) {
          await frontend.ask(prompt);
          const answer = await model.asked(prompt);
          await frontend.until('thinking');
          for (const words of ['Grüße, ', '世界 😀\n\n', '  and <i>two</i> spaces ', 'at the end.']) {
            answer.say(words);
            if (isLive) await frontend.untilLive(answer.text);
          }
          if (!isLive) assert.deepEqual(await frontend.texts('assistant'), assistant, 'nothing is shown of an unfinished answer');
          answer.end();
          assistant.push(answer.text);
          await frontend.untilShown({ user: prompts.slice(0, round + 1), assistant });
        }
        assert.deepEqual(await frontend.stored(cluster.nodes[1]), { user: prompts, assistant }, 'it is what is stored');
        const { states, lengths } = await frontend.seen();
        const round = isLive ? ['thinking', 'streaming', 'idle'] : ['thinking', 'idle'];
        assert.deepEqual(states, ['connecting', 'idle', ...round, ...round]);
        assert.ok(lengths.length >= (isLive ? 8 : 0), `live text of the lengths ${lengths}`);
        assert.deepEqual(frontend.wrong, []);
      }));
  }

  e2e('session: an answer is stopped, and what there was of it stays', { timeout: 60_000 }, (cluster) =>
    withBrowser(async (browser) => {
      const asks = { name: 'session', origin: pages.origin, url: cluster.url, session: sessionId('stop'), sub: 'stopper' };
      const frontend = await openFrontend(browser, asks);
      await frontend.ask('Say too much');
      const answer = await model.asked('Say too much');
      answer.say('Where shall I begin? ');
      await frontend.untilLive('Where shall I begin? ');
      await frontend.page.getByRole('button', { name: 'Stop' }).click();
      const shown = { user: ['Say too much'], assistant: ['Where shall I begin? '] };
      await frontend.untilShown(shown);
      assert.deepEqual(await frontend.stored(cluster.nodes[0]), shown);
      assert.equal(await frontend.page.getByRole('button', { name: 'Stop' }).isVisible(), false);
      assert.deepEqual(frontend.wrong, []);
    }));

  e2e('all of them in one session see the same', { timeout: 120_000 }, (cluster) =>
    withBrowser(async (browser) => {
      const sub = 'everywhere';
      const persona = await openFrontend(browser, { name: 'persona', origin: pages.origin, url: cluster.url, sub });
      await persona.until('idle');
      const session = await persona.session(cluster.nodes[0]);
      const others = await Promise.all(FRONTENDS.filter(({ name }) => name !== 'persona').map(({ name }) =>
        openFrontend(browser, { name, origin: pages.origin, url: cluster.url, session, sub })));
      await Promise.all(others.map((frontend) => frontend.until('idle')));
      const asker = others[0];
      await asker.ask('Who hears this?');
      const answer = await model.asked('Who hears this?');
      answer.say('Everybody, ');
      await Promise.all(others.map((frontend) => frontend.untilLive('Everybody, ')));
      answer.say('in their own words.');
      answer.end();
      for (const frontend of [persona, ...others]) {
        // Those two are not told of what is asked elsewhere: they have no word for it.
        const user = ['persona', 'sse'].includes(frontend.name) ? [] : ['Who hears this?'];
        await frontend.untilShown({ user, assistant: [answer.text] });
        assert.deepEqual(frontend.wrong, [], frontend.name);
      }
    }));

  e2e('conversation-react: who types is shown to the others', { timeout: 60_000 }, (cluster) =>
    withBrowser(async (browser) => {
      const session = sessionId('typing');
      const asks = { name: 'conversation-react', origin: pages.origin, url: cluster.url, session };
      const first = await openFrontend(browser, { ...asks, sub: 'owner' });
      await first.until('idle');
      await addMember(cluster, session, 'owner', 'guest');
      const second = await openFrontend(browser, { ...asks, sub: 'guest' });
      await second.until('idle');
      const input = second.page.getByRole('textbox', { name: 'Message' });
      await input.fill('I wonder');
      await first.page.getByRole('status').filter({ hasText: 'guest typing…' }).waitFor();
      await input.fill('');
      await first.page.getByRole('status').filter({ hasText: 'typing' }).waitFor({ state: 'hidden' });
      assert.deepEqual([...first.wrong, ...second.wrong], []);
    }));
});

const addMember = (cluster, session, owner, userId) => rest(cluster.nodes[0], owner).post(at.members(session), { userId });
