// A model that says what a test tells it to, when it tells it, as the one agent of a cluster. So a
// test is in the middle of an answer for as long as it likes.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeAgents } from '../harness.mjs';
import { startUpstream } from './upstream.mjs';

/** The id of the one agent there is. */
export const AGENT = 'assistant';

/** Starts one. `model.env` is for the cluster that asks it; `fields` are more of its agent. */
export async function startModel(fields) {
  const dir = await mkdtemp(join(tmpdir(), 'tokencast-model-'));
  const file = join(dir, 'agents.toml');
  const upstream = await startUpstream();
  await writeAgents(file, { [AGENT]: upstream.agent('told', { name: 'Assistant', timeout: '60s', ...fields }) });
  return {
    env: { ...upstream.env, AGENTS_FILE: file, OPENAI_BASE_URL: upstream.base('openai'), OPENAI_MODEL: 'told' },
    /** All that it was asked. */
    asks: upstream.asks,
    on: upstream.on,
    /** The answer to a prompt that was or will be asked; the n-th, where it is asked again. */
    asked: (prompt, n) => upstream.asked((ask) => ask.turns.some(({ role, content }) => role === 'user' && content === prompt), n),
    async stop() {
      await upstream.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}
