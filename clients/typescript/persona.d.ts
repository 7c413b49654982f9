// Made from /asyncapi.json by `GENERATE=1 make types`. Do not edit.
// Dialect persona.

import type { AckOf } from './acknowledged.js';
import type { AnswerAccepted, Attachment, ConnectionOffset, ErrorInfo, ErrorCode, Failed, Reaction, Usage } from './shapes.js';
export type { Acknowledged } from './acknowledged.js';
export type { AnswerAccepted, Attachment, ConnectionOffset, ErrorInfo, ErrorCode, Failed, Reaction, Usage } from './shapes.js';

/** What the server sends: each event with its listener. */
export interface ServerToClientEvents {
  /** A command without an acknowledgement was refused, an answer broke off, or the session may not be seen any more. */
  'chat:error': (payload: PersonaError) => void;
  /** An answer, whole; also what there was of one that was stopped. */
  'chat:response': (payload: PersonaResponse) => void;
  /** The session with the agent is joined. */
  'chat:session': (payload: PersonaSession) => void;
  /** For Socket.IO's recovery of connections, which takes it from the second argument: what the socket has joined, or left, has changed. Nothing to do. */
  'connection:offset': (payload: ConnectionOffset) => void;
}

/** What a client sends: each event with its payload, and the callback of its acknowledgement. */
export interface ClientToServerEvents {
  /** Says who one is. With a token: accepted only if it equals the token's `sub`. */
  'chat:auth': (payload: ChatAuth, ack?: (answer: PersonaAuthAck | Failed) => void) => void;
  /** Joins the user's own session with an agent, which is made where there is none. */
  'chat:join': (payload: PersonaJoin, ack?: (answer: PersonaSessionAck | Failed) => void) => void;
  /** Stores a message, which the session's agent answers. Joins, where the socket has not. */
  'chat:message': (payload: PersonaMessageSend, ack?: (answer: AnswerAccepted | Failed) => void) => void;
}

/** What an event is acknowledged with. */
export type Ack<Event extends keyof ClientToServerEvents> = AckOf<ClientToServerEvents[Event]>;

/** Who one is. */
export interface ChatAuth {
  userId: string;
}

/** Who one is now. */
export interface PersonaAuthAck {
  ok: true;
  userId: string;
}

/** What went wrong. */
export interface PersonaError {
  attachmentId?: string;
  clientMessageId?: string;
  /** Stable: what programs look at. */
  code: ErrorCode;
  conversationId?: string;
  /** `NOT_AUTHENTICATED`, `SESSION_NOT_FOUND`, or the same as `code`. */
  error: string;
  /** What the client called what it asked for; only over sockets. */
  event?: string;
  /** For a person; names the field of an `INVALID`. */
  message: string;
  messageId?: string;
  personaId?: string;
  /** When to try again, where that is known. */
  retryAfterMs?: number;
  sessionId?: string;
  streamId?: string;
  /** The same word as `code`. */
  type: ErrorCode;
  userId?: string;
}

/** Which agent. */
export interface PersonaJoin {
  personaId: string;
}

/** A `Message`, and who sent it. */
export interface PersonaMessage {
  /** The agent that wrote it. */
  agentId: string | null;
  attachments: Attachment[];
  /** The sender's own id for it. */
  clientMessageId: string | null;
  /** Empty where the message was deleted. */
  content: string;
  createdAt: string;
  deletedAt: string | null;
  editedAt: string | null;
  id: string;
  isDeleted: boolean;
  isEdited: boolean;
  /** What is kept beside the text (`partial`, `error`, …). */
  metadata: Record<string, unknown>;
  /** The message it replies to. */
  parentMessageId: string | null;
  reactions: Reaction[];
  role: 'user' | 'assistant' | 'system';
  /** The persona's id, or the user's. */
  sender: string;
  sessionId: string;
  /** How many tokens an agent's text took. */
  tokens: number | null;
  updatedAt: string;
  usage?: Usage;
  /** The person who wrote it. */
  userId: string | null;
}

/** A message for the agent. */
export interface PersonaMessageSend {
  /** The client's own id for it, which makes a retry harmless. */
  clientMessageId?: string | null;
  content: string;
  sessionId: string;
}

/** An answer. */
export interface PersonaResponse {
  content: string;
  createdAt: string;
  id: string;
  /** The persona's id. */
  sender: string;
  sessionId: string;
}

/** A session with an agent. */
export interface PersonaSession {
  /** The last ten, oldest first. */
  messages: PersonaMessage[];
  personaId: string;
  sessionId: string;
}

/** A session with an agent is joined. */
export interface PersonaSessionAck {
  /** The last ten, oldest first. */
  messages: PersonaMessage[];
  ok: true;
  personaId: string;
  sessionId: string;
}
