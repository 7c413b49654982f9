// Made from /asyncapi.json by `GENERATE=1 make types`. Do not edit.
// Dialect conversation.

import type { AckOf } from './acknowledged.js';
import type { AnswerAccepted, ConnectionOffset, Done, ErrorInfo, ErrorCode, Failed } from './shapes.js';
export type { Acknowledged } from './acknowledged.js';
export type { AnswerAccepted, ConnectionOffset, Done, ErrorInfo, ErrorCode, Failed } from './shapes.js';

/** What the server sends: each event with its listener. */
export interface ServerToClientEvents {
  /** An answer is over, and stored. */
  'chat:complete': (payload: ChatComplete) => void;
  /** A command without an acknowledgement was refused, an answer broke off, or the conversation may not be seen any more. */
  'chat:error': (payload: ChatError) => void;
  /** The conversation is joined. */
  'chat:joined': (payload: ChatJoined) => void;
  /** A message is stored: a person's, the sender's own too, or an answer. */
  'chat:message': (payload: ChatSaid) => void;
  /** New text of an answer; `isComplete` with an empty `chunk` is the last. */
  'chat:streaming': (payload: ChatStreaming) => void;
  /** An answer begins, or begins again: forget the live text. */
  'chat:thinking': (payload: ChatThinking) => void;
  /** A user's first device came. */
  'chat:user-joined': (payload: ChatUser) => void;
  /** A user's last device went. */
  'chat:user-left': (payload: ChatUser) => void;
  /** A user types, or no longer does. */
  'chat:user-typing': (payload: ChatUserTyping) => void;
  /** For Socket.IO's recovery of connections, which takes it from the second argument: what the socket has joined, or left, has changed. Nothing to do. */
  'connection:offset': (payload: ConnectionOffset) => void;
}

/** What a client sends: each event with its payload, and the callback of its acknowledgement. */
export interface ClientToServerEvents {
  /** Joins a conversation. */
  'chat:join': (payload: Conversation, ack?: (answer: ChatJoinedAck | Failed) => void) => void;
  /** Leaves a conversation. */
  'chat:leave': (payload: Conversation, ack?: (answer: ChatJoinedAck | Failed) => void) => void;
  /** Stores a message, which the conversation's agent answers. Joins, where the socket has not. */
  'chat:send': (payload: ChatSend, ack?: (answer: AnswerAccepted | Failed) => void) => void;
  /** Tells the others; typing ends by itself after 5 s without renewal. */
  'chat:typing': (payload: ChatTyping, ack?: (answer: Done | Failed) => void) => void;
}

/** What an event is acknowledged with. */
export type Ack<Event extends keyof ClientToServerEvents> = AckOf<ClientToServerEvents[Event]>;

/** An answer is over. */
export interface ChatComplete {
  conversationId: string;
  /** The answer's. */
  messageId: string;
}

/** What went wrong, in which conversation. */
export interface ChatError {
  attachmentId?: string;
  clientMessageId?: string;
  /** Stable: what programs look at. */
  code: ErrorCode;
  conversationId?: string;
  /** For a person: `message`. */
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

/** The conversation is joined. */
export interface ChatJoined {
  conversationId: string;
}

/** It is joined, or left. */
export interface ChatJoinedAck {
  conversationId: string;
  ok: true;
}

/** A stored message. */
export interface ChatMessage {
  content: string;
  conversationId: string;
  createdAt: string;
  id: string;
  role: 'user' | 'assistant' | 'system';
}

/** A stored message, and where it stands. */
export interface ChatSaid {
  conversationId: string;
  message: ChatMessage;
}

/** A message for the conversation's agent. */
export interface ChatSend {
  /** The client's own id for it, which makes a retry harmless. */
  clientMessageId?: string | null;
  content: string;
  conversationId: string;
  role?: 'user';
}

/** New text of an answer. */
export interface ChatStreaming {
  /** The new text only. */
  chunk: string;
  conversationId: string;
  isComplete: boolean;
  /** The answer's. */
  messageId: string;
}

/** An answer is being made. */
export interface ChatThinking {
  conversationId: string;
  status: 'processing';
}

/** Whether one types. */
export interface ChatTyping {
  conversationId: string;
  isTyping: boolean;
}

/** Somebody who came or went. */
export interface ChatUser {
  conversationId: string;
  userId: string;
  /** Their name; the id where it is not known. */
  username: string;
}

/** Whether somebody types. */
export interface ChatUserTyping {
  conversationId: string;
  isTyping: boolean;
  userId: string;
  /** Their name; the id where it is not known. */
  username: string;
}

/** Which conversation. */
export interface Conversation {
  conversationId: string;
}
