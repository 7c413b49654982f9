// A model that says what a test tells it to, when it tells it: a server that speaks Chat
// Completions. So a test is in the middle of an answer for as long as it likes.

import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, within } from '../harness.mjs';

/** The id of the one agent there is. */
export const AGENT = 'assistant';

/** Starts one. `model.env` is for the cluster that asks it. */
export async function startModel() {
  const dir = await mkdtemp(join(tmpdir(), 'tokencast-model-'));
  const requests = [];
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const piece of request) body += piece;
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.flushHeaders();
    const { messages } = JSON.parse(body);
    requests.push(answer(messages.at(-1).content, response));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');

  const file = join(dir, 'agents.toml');
  const base = `http://127.0.0.1:${server.address().port}/v1`;
  await writeFile(file, [
    `default = "${AGENT}"`, '[[agent]]', `id = "${AGENT}"`, 'name = "Assistant"', 'provider = "openai"',
    'model = "told"', `base_url = "${base}"`, 'timeout = "60s"', '',
  ].join('\n'));

  return {
    env: { AGENTS_FILE: file, OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: base, OPENAI_MODEL: 'told' },
    /** The answer to a prompt that was or will be asked. */
    asked: (prompt) => eventually(() => requests.find((one) => one.prompt === prompt), { what: `"${prompt}" is asked` }),
    async stop() {
      server.closeAllConnections();
      await within(5_000, 'the model stops', new Promise((done) => server.close(done)));
      await rm(dir, { recursive: true, force: true });
    },
  };
}

function answer(prompt, response) {
  const send = (data) => response.write(`data: ${JSON.stringify(data)}\n\n`);
  const told = {
    prompt,
    /** What it said until now. */
    text: '',
    say(content) {
      told.text += content;
      send({ choices: [{ index: 0, delta: { content } }] });
    },
    end() {
      send({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] });
      send({ choices: [], usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 } });
      response.end('data: [DONE]\n\n');
    },
  };
  return told;
}
