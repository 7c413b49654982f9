// What a conversation looks like, and what each event makes of it. No React and no socket.

export interface Message {
  id: string;
  role: string;
  content: string;
  createdAt: string;
}

export interface Conversation {
  connected: boolean;
  joined: boolean;
  messages: Message[];
  /** The answer as far as it is written; `null` while none is. */
  streaming: string | null;
  /** The model has the question, and has written nothing yet. */
  isThinking: boolean;
  /** Who types: their names by their ids. */
  typing: Record<string, string>;
  error: string | null;
}

export const EMPTY: Conversation = {
  connected: false,
  joined: false,
  messages: [],
  streaming: null,
  isThinking: false,
  typing: {},
  error: null,
};

export type Change =
  | { type: "connected" }
  | { type: "disconnected"; error?: string }
  | { type: "joined" }
  | { type: "history"; messages: Message[] }
  | { type: "unread"; error: string }
  | { type: "thinking" }
  | { type: "chunk"; chunk: string }
  | { type: "message"; message: Message }
  | { type: "complete" }
  | { type: "typing"; userId: string; username: string; isTyping: boolean }
  | { type: "gone"; userId: string }
  | { type: "error"; error: string };

export function reduce(state: Conversation, change: Change): Conversation {
  switch (change.type) {
    case "connected":
      return { ...state, connected: true, error: null };
    case "disconnected":
      return { ...state, connected: false, joined: false, typing: {}, error: change.error ?? state.error };
    case "joined":
      // An answer that still runs is told of again; one that ended meanwhile is in the history.
      return { ...state, joined: true, streaming: null, isThinking: false };
    case "history":
      return { ...state, messages: merge(change.messages, state.messages) };
    case "unread":
      // What is being written goes on all the same.
      return { ...state, error: change.error };
    case "thinking":
      return { ...state, isThinking: true, streaming: null, error: null };
    case "chunk":
      return { ...state, isThinking: false, streaming: (state.streaming ?? "") + change.chunk };
    case "message": {
      const messages = [...state.messages.filter(({ id }) => id !== change.message.id), change.message];
      return change.message.role === "assistant" ? { ...state, messages, streaming: null } : { ...state, messages };
    }
    case "complete":
      return { ...state, isThinking: false, streaming: null };
    case "typing": {
      const { [change.userId]: _, ...others } = state.typing;
      return { ...state, typing: change.isTyping ? { ...others, [change.userId]: change.username } : others };
    }
    case "gone": {
      const { [change.userId]: _, ...typing } = state.typing;
      return { ...state, typing };
    }
    case "error":
      return { ...state, isThinking: false, streaming: null, error: change.error };
  }
}

/** A page of the history and the messages that came live, some of them in both. */
function merge(page: Message[], live: Message[]): Message[] {
  const inPage = new Set(page.map(({ id }) => id));
  const others = live.filter(({ id }) => !inPage.has(id));
  const start = page[0]?.createdAt ?? "";
  return [
    ...others.filter(({ createdAt }) => createdAt < start),
    ...page,
    ...others.filter(({ createdAt }) => createdAt >= start),
  ];
}
