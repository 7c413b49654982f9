// Made from /asyncapi.json by `GENERATE=1 make types`. Do not edit.
// Dialect subscribe.

import type { AckOf } from './acknowledged.js';
import type { AnswerAccepted, Attachment, ConnectionOffset, ErrorInfo, ErrorCode, Failed, Message, Reaction, Usage } from './shapes.js';
export type { Acknowledged } from './acknowledged.js';
export type { AnswerAccepted, Attachment, ConnectionOffset, ErrorInfo, ErrorCode, Failed, Message, Reaction, Usage } from './shapes.js';

/** What the server sends: each event with its listener. */
export interface ServerToClientEvents {
  /** For Socket.IO's recovery of connections, which takes it from the second argument: what the socket has joined, or left, has changed. Nothing to do. */
  'connection:offset': (payload: ConnectionOffset) => void;
  /** A command without an acknowledgement was refused, an answer broke off, or the session may not be seen any more. */
  error: (payload: ErrorInfo) => void;
  /** New text of an answer. */
  'message:chunk': (payload: MessageChunk) => void;
  /** An answer is stored; also what there was of one that was stopped or broke off. */
  'message:complete': (payload: MessageComplete) => void;
  /** Somebody else, or another device of the user, wrote a message. */
  'message:new': (payload: Message) => void;
  /** Forget the text of this answer: it starts again at offset 0. */
  'message:reset': (payload: MessageReset) => void;
  /** What came after the `lastMessageId` of a subscription, before `subscribed`. Unasked, without messages and with `hasMore`: the connection was away or slow for longer than the session's log reaches, and was shown what was stored meanwhile; of older messages it may lack changes. */
  'messages:missed': (payload: SubscribeMissed) => void;
  /** A stage of a pipeline begins or is over. The last one's text is the answer's. */
  'pipeline:stage': (payload: SubscribeStage) => void;
  /** The node is about to close the connection. */
  'server:shutdown': (payload: Notice) => void;
  /** The connection has reached its age and is about to be closed. */
  'server:timeout': (payload: Notice) => void;
  /** The session is joined. */
  subscribed: (payload: Subscribed) => void;
}

/** What a client sends: each event with its payload, and the callback of its acknowledgement. */
export interface ClientToServerEvents {
  /** Stores a message, which the session's agent answers. Joins, where the socket has not. */
  'message:send': (payload: SubscribeMessageSend, ack?: (answer: AnswerAccepted | Failed) => void) => void;
  /** Joins a session; with `lastMessageId`, `messages:missed` brings what came after it. */
  subscribe: (payload: Subscribe | string, ack?: (answer: SubscribedAck | Failed) => void) => void;
  /** Leaves a session. */
  unsubscribe: (payload: Subscribe | string, ack?: (answer: SubscribedAck | Failed) => void) => void;
}

/** What an event is acknowledged with. */
export type Ack<Event extends keyof ClientToServerEvents> = AckOf<ClientToServerEvents[Event]>;

/** New text of an answer. */
export interface MessageChunk {
  /** The new text only. */
  chunk: string;
  /** Where `chunk` starts in the answer, in UTF-16 code units. */
  offset: number;
  /** Counts the chunks as they were made; may jump. */
  seq: number;
  sessionId: string;
  streamId: string;
}

/** An answer, as it is stored. */
export interface MessageComplete {
  message: Message;
  sessionId: string;
  streamId: string;
}

/** The text so far is void. */
export interface MessageReset {
  sessionId: string;
  streamId: string;
}

/** What is about to happen, for a person. */
export interface Notice {
  message: string;
}

/** Which session. */
export interface Subscribe {
  /** The last message that the client has. */
  lastMessageId?: string | null;
  sessionId: string;
}

/** A message for the session's agent. */
export interface SubscribeMessageSend {
  /** The client's own id for it, which makes a retry harmless. */
  clientMessageId?: string | null;
  content: string;
  sessionId: string;
}

/** Messages that the client does not have. */
export interface SubscribeMissed {
  /** Whether there is more, or may be, over REST. */
  hasMore: boolean;
  messages: Message[];
  sessionId: string;
}

/** A stage of a pipeline begins or is over. */
export interface SubscribeStage {
  sessionId: string;
  /** Its name. */
  stage: string;
  /** Where a stage of a pipeline stands. */
  status: 'started' | 'completed';
}

/** The session is joined. */
export interface Subscribed {
  sessionId: string;
}

/** It is joined, or left. */
export interface SubscribedAck {
  ok: true;
  sessionId: string;
}
