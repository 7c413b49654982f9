// The frontends of examples/ in a real browser whose network is not what it should be: polling first
// and WebSocket after it, a page that is loaded again in the middle of an answer, a history that comes
// late, and a cable that is pulled out and plugged in again. Each ends with exactly what is stored.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { withBrowser } from './harness/chromium.mjs';
import { FRONTENDS, openFrontend, servePages } from './harness/examples.mjs';
import { startLink } from './harness/link.mjs';
import { startModel } from './harness/model.mjs';
import { eventually, sessionId, suite } from './harness.mjs';

const [pages, model] = await Promise.all([servePages(), startModel()]);
after(() => Promise.all([pages.stop(), model.stop()]));
const env = { ...model.env, CORS_ORIGIN: pages.origin };

/** A cut connection is logged by the browser itself. */
const isNetwork = (wrong) => /net::ERR_|WebSocket connection to/.test(wrong);

suite('browser dialects', { nodes: 3, nginx: true, env }, (e2e) => {
  for (const [n, { name, isLive, history }] of FRONTENDS.entries()) {
    /**
     * A frontend behind a cable of its own that has asked; `body` is in the middle of the answer, and
     * may give what is shown in the end.
     */
    const midAnswer = (cluster, what, body) =>
      withBrowser(async (browser) => {
        const link = await startLink(cluster.url);
        try {
          const asks = { name, origin: pages.origin, url: link.url, session: sessionId(what), sub: `${what}-${n}` };
          const frontend = await openFrontend(browser, asks);
          const prompt = `${what}, ${name}?`;
          await frontend.ask(prompt);
          const answer = await model.asked(prompt);
          answer.say('One, two, ');
          if (isLive) await frontend.untilLive(answer.text);
          const shown = (await body({ frontend, answer, link })) ?? { user: [prompt], assistant: [answer.text] };
          await frontend.untilShown(shown);
          assert.deepEqual(await frontend.stored(cluster.nodes[0]), shown);
        } finally {
          await link.stop();
        }
      });

    if (name !== 'sse') {
      e2e(`${name}: polling first, then WebSocket`, { timeout: 60_000 }, (cluster) =>
        midAnswer(cluster, 'upgrade', async ({ frontend, answer }) => {
          await eventually(() => frontend.transports.includes('websocket'), { what: 'the upgrade' });
          assert.equal(frontend.transports[0], 'polling');
          answer.say('three, ');
          if (isLive) await frontend.untilLive(answer.text);
          answer.end();
          const upgrades = frontend.transports.filter((transport) => transport === 'websocket');
          assert.equal(upgrades.length, 1, 'one connection, upgraded once');
          assert.deepEqual(frontend.wrong, []);
        }));
    }

    e2e(`${name}: loaded again in the middle of an answer`, { timeout: 60_000 }, (cluster) =>
      midAnswer(cluster, 'reload', async ({ frontend, answer }) => {
        await frontend.page.reload();
        // All there is of the text comes at once, and again only once.
        if (isLive) await frontend.untilLive('One, two, ');
        else await frontend.until('idle');
        answer.say('three, ');
        if (isLive) await frontend.untilLive(answer.text);
        await frontend.page.reload();
        answer.say('four.');
        if (isLive) await frontend.untilLive(answer.text);
        else await frontend.until('idle');
        answer.end();
        assert.deepEqual(frontend.wrong, []);
      }));

    if (history) {
      e2e(`${name}: the history was read before the end of an answer, and comes after it`, { timeout: 60_000 }, (cluster) =>
        midAnswer(cluster, 'late', async ({ frontend, answer }) => {
          const late = await frontend.holdHistory();
          await frontend.page.reload();
          await late.asked();
          await frontend.untilLive('One, two, ');
          answer.say('three.');
          answer.end();
          await eventually(
            async () => {
              assert.deepEqual(await frontend.texts('assistant'), [answer.text]);
              return (await frontend.live()) === '';
            },
            { what: 'the answer is shown, and over' },
          );
          assert.deepEqual(await frontend.texts('user'), [], 'the history is not there yet');
          late.release();
          assert.deepEqual(frontend.wrong, []);
        }));

      e2e(`${name}: the history is read after the end of an answer that it was asked for in the middle of`, { timeout: 60_000 }, (cluster) =>
        midAnswer(cluster, 'later', async ({ frontend, answer }) => {
          const late = await frontend.holdHistory({ unread: true });
          await frontend.page.reload();
          await late.asked();
          await frontend.untilLive('One, two, ');
          answer.say('three.');
          answer.end();
          await eventually(async () => (await frontend.live()) === '', { what: 'the answer is over' });
          late.release();
          assert.deepEqual(frontend.wrong, []);
        }));

      e2e(`${name}: a question while the history is being read`, { timeout: 60_000 }, (cluster) =>
        midAnswer(cluster, 'early', async ({ frontend, answer }) => {
          const next = `And then, ${name}?`;
          answer.end();
          await frontend.until('idle');
          const late = await frontend.holdHistory({ unread: true });
          await frontend.page.reload();
          await late.asked();
          if (history === 'first') {
            assert.equal(await frontend.state(), 'connecting', 'nothing can be asked yet');
            late.release();
          }
          await frontend.ask(next);
          const second = await model.asked(next);
          late.release();
          second.say('Nothing.');
          second.end();
          const shown = { user: [`early, ${name}?`, next], assistant: [answer.text, second.text] };
          await frontend.untilShown(shown);
          assert.deepEqual(frontend.wrong, []);
          return shown;
        }));
    }

    for (const [when, isOver] of [['goes on', false], ['ends', true]]) {
      e2e(`${name}: the network is away while the answer ${when}`, { timeout: 90_000 }, (cluster) =>
        midAnswer(cluster, `away-${isOver}`, async ({ frontend, answer, link }) => {
          assert.ok(link.pull() > 0, 'something is cut');
          await frontend.until('connecting');
          answer.say('three, ');
          if (isOver) {
            answer.end();
            await eventually(async () => (await frontend.stored(cluster.nodes[0])).assistant.length === 1, { what: 'it is stored' });
          }
          link.plug();
          if (!isOver) {
            if (isLive) await frontend.untilLive(answer.text);
            answer.say('four.');
            if (isLive) await frontend.untilLive(answer.text);
            else await frontend.until('thinking');
            answer.end();
          }
          assert.deepEqual(frontend.wrong.filter((wrong) => !isNetwork(wrong)), []);
        }));
    }
  }
});
