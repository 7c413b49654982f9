import { io, type Socket } from "socket.io-client";
import type { ClientToServerEvents, ServerToClientEvents } from "tokencast-types/persona";

type ChatSocket = Socket<ServerToClientEvents, ClientToServerEvents>;

export interface Message {
  id: string;
  sender: string;
  content: string;
  createdAt: string;
}

export interface Options {
  server: string;
  personaId: string;
  /** Either a token … */
  token?: string;
  /** … or who one is, where the server believes that. */
  userId?: string;
  /** The conversation with the persona is open: its last messages. */
  onSession: (messages: Message[]) => void;
  onResponse: (message: Message) => void;
  onError: (message: string) => void;
  onDisconnect: () => void;
}

/** A conversation with one persona, whose answers come whole. */
export class PersonaClient {
  readonly #socket: ChatSocket;
  #sessionId: string | undefined;

  constructor({ server, personaId, token, userId, onSession, onResponse, onError, onDisconnect }: Options) {
    const socket: ChatSocket = io(`${server}/chat`, token ? { auth: { token } } : {});
    this.#socket = socket;

    socket.on("connect", () => {
      if (!token && userId) socket.emit("chat:auth", { userId });
      socket.emit("chat:join", { personaId });
    });
    socket.on("disconnect", () => {
      this.#sessionId = undefined;
      onDisconnect();
    });
    socket.on("connect_error", (error) => onError(error.message));
    socket.on("chat:session", ({ sessionId, messages }) => {
      this.#sessionId = sessionId;
      onSession(messages);
    });
    socket.on("chat:response", (message) => onResponse(message));
    socket.on("chat:error", ({ message }) => onError(message));
  }

  /** Says something to the persona. `false` while the conversation is not open. */
  send(content: string): boolean {
    if (!this.#sessionId) return false;
    this.#socket.emit("chat:message", { sessionId: this.#sessionId, content });
    return true;
  }

  close() {
    this.#socket.disconnect();
  }
}
