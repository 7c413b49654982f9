// Made from /asyncapi.json by `GENERATE=1 make types`. Do not edit.
// What several vocabularies have in common.

/** An answer will be written. */
export interface AnswerAccepted {
  /** The answer's id, known from now on. */
  messageId: string;
  ok: true;
  /** The id of the message that is answered. */
  promptMessageId: string;
  /** What writes it. */
  streamId: string;
}

/** A file named with a message. */
export interface Attachment {
  fileName: string;
  fileSize: number;
  fileUrl: string;
  id: string;
  metadata: Record<string, unknown>;
  mimeType: string;
}

/** What the connection has joined has changed. */
export interface ConnectionOffset {
  /** Whether the connection could be recovered now. */
  recoverable: boolean;
}

/** It was done. */
export interface Done {
  ok: true;
}

/** What went wrong. */
export interface ErrorInfo {
  attachmentId?: string;
  clientMessageId?: string;
  /** Stable: what programs look at. */
  code: ErrorCode;
  conversationId?: string;
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

export type ErrorCode = 'AUTH_ERROR' | 'NOT_FOUND' | 'FORBIDDEN' | 'INVALID' | 'RATE_LIMIT' | 'MODERATION_FAILED' | 'TIMEOUT' | 'OVERLOADED' | 'PROVIDER_ERROR' | 'INTERNAL_ERROR';

/** It was refused, or failed. */
export interface Failed {
  error: ErrorInfo;
  ok: false;
}

/** What is stored in a session. */
export interface Message {
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
  sessionId: string;
  /** How many tokens an agent's text took. */
  tokens: number | null;
  updatedAt: string;
  usage?: Usage;
  /** The person who wrote it. */
  userId: string | null;
}

/** One emoji under a message. */
export interface Reaction {
  count: number;
  emoji: string;
  /** Who gave it, in the order they did. */
  userIds: string[];
}

/** Tokens, as the provider counted them. */
export interface Usage {
  inputTokens: number;
  outputTokens: number;
}
