// What a session looks like to one reader: its messages, and the answers that are being written.
// Positions are counted as `string.length` counts.

export interface Message {
  id: string;
  role: string;
  content: string;
}

/** An answer as far as it is written. */
export interface Answer {
  streamId: string;
  text: string;
}

export class Transcript {
  readonly messages: Message[] = [];
  readonly answers = new Map<string, Answer>();

  /** The last message, for the next join. */
  get lastMessageId(): string | undefined {
    return this.messages.at(-1)?.id;
  }

  /** How much there is of each running answer, for the next join. */
  get offsets(): Record<string, number> {
    return Object.fromEntries([...this.answers.values()].map(({ streamId, text }) => [streamId, text.length]));
  }

  /** Adds a message, once. */
  add(message: Message) {
    const at = this.messages.findIndex(({ id }) => id === message.id);
    if (at < 0) this.messages.push(message);
    else this.messages[at] = message;
  }

  /**
   * Puts the newest stored messages in their place. What was here before they were asked for (`before`) and is
   * not among them is older; what has come since, and is not among them, is newer.
   */
  take(page: readonly Message[], before: readonly Message[]) {
    const known = new Map(this.messages.map((message) => [message.id, message]));
    const inPage = new Set(page.map(({ id }) => id));
    const ids = new Set(before.map(({ id }) => id));
    const others = this.messages.filter(({ id }) => !inPage.has(id));
    const older = others.filter(({ id }) => ids.has(id));
    const newer = others.filter(({ id }) => !ids.has(id));
    // A message that was changed meanwhile came as it is now.
    this.messages.splice(0, Infinity, ...older, ...page.map((message) => known.get(message.id) ?? message), ...newer);
  }

  /** Keeps the answers that still run; the others have ended. */
  keep(running: readonly string[]) {
    for (const streamId of this.answers.keys()) {
      if (!running.includes(streamId)) this.answers.delete(streamId);
    }
  }

  start(streamId: string) {
    this.answers.set(streamId, { streamId, text: "" });
  }

  /** Text that stands at `offset`; what is there from that offset on is written over. */
  write(streamId: string, offset: number, delta: string) {
    const text = this.answers.get(streamId)?.text ?? "";
    this.answers.set(streamId, { streamId, text: text.slice(0, offset) + delta });
  }

  end(streamId: string) {
    this.answers.delete(streamId);
  }
}
