// Made from /asyncapi.json by `GENERATE=1 make types`. Do not edit.
// Dialect session.

import type { AckOf } from './acknowledged.js';
import type { Attachment, ConnectionOffset, Done, ErrorInfo, ErrorCode, Failed, Message, Reaction, Usage } from './shapes.js';
export type { Acknowledged } from './acknowledged.js';
export type { Attachment, ConnectionOffset, Done, ErrorInfo, ErrorCode, Failed, Message, Reaction, Usage } from './shapes.js';

/** What the server sends: each event with its listener. */
export interface ServerToClientEvents {
  /** For Socket.IO's recovery of connections, which takes it from the second argument: what the socket has joined, or left, has changed. Nothing to do. */
  'connection:offset': (payload: ConnectionOffset) => void;
  /** Once, on every connection whose handshake names no other dialect. */
  'connection:success': (payload: Connected) => void;
  /** An event without an acknowledgement was refused, or a session may not be seen any more. */
  error: (payload: ErrorInfo) => void;
  /** A message was deleted: it keeps its place without its content. */
  'message:deleted': (payload: MessageDeleted) => void;
  /** After the `message:new` of one's own `message:send`. */
  'message:delivered': (payload: MessageDelivered) => void;
  /** A message has another text. */
  'message:edited': (payload: Message) => void;
  /** A person's message, one's own too. Answers come in `stream:complete`. */
  'message:new': (payload: Message) => void;
  /** Somebody gave or took back a reaction. */
  'message:reaction:update': (payload: ReactionChanged) => void;
  /** Somebody has read up to a message. */
  'message:seen:update': (payload: MessageSeen) => void;
  /** After a join with `lastMessageId`. Unasked, without messages and with `hasMore`: the connection was away or slow for longer than the session's log reaches, and was shown what was stored meanwhile; of older messages it may lack changes. */
  'messages:missed': (payload: MessagesMissed) => void;
  /** A stage of a pipeline begins or is over. The last one's text is the answer's. */
  'pipeline:stage': (payload: PipelineStage) => void;
  /** Somebody who shares a session with this user came or went. */
  'presence:update': (payload: PresenceChanged) => void;
  /** The node is about to close the connection. */
  'server:shutdown': (payload: ServerShutdown) => void;
  /** The connection is about to be closed for its age. */
  'server:timeout': (payload: ServerTimeout) => void;
  /** New text of an answer; the last one has all of it. */
  'stream:chunk': (payload: StreamChunk) => void;
  /** An answer is whole, and stored. */
  'stream:complete': (payload: StreamCompleted) => void;
  /** An answer failed; what there was of it is kept. */
  'stream:error': (payload: StreamFailed) => void;
  /** The model does something beside its text: it thinks, asks for a tool, or names a source. */
  'stream:event': (payload: StreamEvent) => void;
  /** Forget the answer's text so far: it starts again at offset 0. */
  'stream:reset': (payload: StreamReset) => void;
  /** Another node goes on with the answer; nothing is to be done. */
  'stream:resumed': (payload: StreamResumed) => void;
  /** An answer is being written. */
  'stream:start': (payload: StreamStarted) => void;
  /** Somebody stopped an answer; what there was of it is kept. */
  'stream:stopped': (payload: StreamStopped) => void;
  /** Somebody else is typing. */
  'typing:start': (payload: UserTyping) => void;
  /** They are not any more. */
  'typing:stop': (payload: UserTyping) => void;
  /** A user came into the session, with the first of their devices. */
  'user:joined': (payload: UserPresent) => void;
  /** A user left it, with the last of them. */
  'user:left': (payload: UserPresent) => void;
}

/** What a client sends: each event with its payload, and the callback of its acknowledgement. */
export interface ClientToServerEvents {
  /** Deletes a message, as its author or the session's owner. */
  'message:delete': (payload: DeleteMessage, ack?: (answer: Done | Failed) => void) => void;
  /** Gives a message of one's own another text. */
  'message:edit': (payload: EditMessage, ack?: (answer: MessageStored | Failed) => void) => void;
  /** Gives a reaction, or takes it back. */
  'message:reaction': (payload: ReactToMessage, ack?: (answer: ReactionToggled | Failed) => void) => void;
  /** Says that one has read up to a message. */
  'message:seen': (payload: SeeMessage, ack?: (answer: Done | Failed) => void) => void;
  /** Stores a message and shows it to the session. */
  'message:send': (payload: SendMessage, ack?: (answer: MessageStored | Failed) => void) => void;
  /** Shows this connection the session from now on, and what it missed. */
  'session:join': (payload: JoinSession, ack?: (answer: SessionJoined | Failed) => void) => void;
  /** Shows it no more. */
  'session:leave': (payload: LeaveSession, ack?: (answer: Done | Failed) => void) => void;
  /** Stores a prompt and has an agent answer it; joins the session where that is needed. */
  'stream:request': (payload: RequestStream, ack?: (answer: StreamRequested | Failed) => void) => void;
  /** Stops an answer, wherever it runs. */
  'stream:stop': (payload: StopStream, ack?: (answer: Done | Failed) => void) => void;
  /** Says that one types; ends by itself after 5 s. */
  'typing:start': (payload: StartTyping, ack?: (answer: Done | Failed) => void) => void;
  /** Says that one does not any more. */
  'typing:stop': (payload: StopTyping, ack?: (answer: Done | Failed) => void) => void;
}

/** What an event is acknowledged with. */
export type Ack<Event extends keyof ClientToServerEvents> = AckOf<ClientToServerEvents[Event]>;

/** An answer that is being written. */
export interface ActiveStream {
  agentId: string;
  messageId: string;
  /** How much of it there is, in UTF-16 code units. */
  offset: number;
  streamId: string;
}

/** Who the connection is, and where. */
export interface Connected {
  nodeId: string;
  /** Whether Socket.IO recovered its state: its sessions are joined. */
  recovered: boolean;
  serverTime: string;
  /** A credential of the transport: nobody else is told it. */
  socketId: string;
  userId: string;
}

/** Which message to delete. */
export interface DeleteMessage {
  messageId: string;
}

/** A message's new text. */
export interface EditMessage {
  content: string;
  messageId: string;
}

/** Which session to join, and what the client has of it. */
export interface JoinSession {
  /** The last message that the client has: `messages:missed` brings those after it. */
  lastMessageId?: string | null;
  sessionId: string;
  /** How much it has of each running answer, in UTF-16 code units, by `streamId`; at most 64. */
  streams?: Record<string, number> | null;
}

/** Which session to leave. */
export interface LeaveSession {
  sessionId: string;
}

/** A message was deleted. */
export interface MessageDeleted {
  deletedAt: string;
  deletedBy: string;
  messageId: string;
  sessionId: string;
}

/** A message of this user was stored and shown to the session. */
export interface MessageDelivered {
  clientMessageId?: string;
  deliveredAt: string;
  messageId: string;
  /** How many other users are in the session. */
  recipients: number;
  sessionId: string;
}

/** Somebody has read up to a message. */
export interface MessageSeen {
  messageId: string;
  seenAt: string;
  sessionId: string;
  userId: string;
}

/** The message, as it is stored now. */
export interface MessageStored {
  message: Message;
  ok: true;
}

/**
 * What came after the message that the join named; without messages where there may be more than
 * a connection was shown.
 */
export interface MessagesMissed {
  /** Whether there are more of them: REST has them. */
  hasMore: boolean;
  messages: Message[];
  sessionId: string;
}

/** A file to be named with a message. The file itself is kept elsewhere. */
export interface NewAttachment {
  /** What it is called. */
  fileName: string;
  /** Its size in bytes. */
  fileSize: number;
  /** Where it is: `http:`, `https:`, or relative to the frontend. */
  fileUrl: string;
  /** What the frontend keeps beside it: at most 4 KiB. */
  metadata?: Record<string, unknown> | null;
  /** What it is. */
  mimeType: string;
}

/** A stage of a pipeline begins or is over. */
export interface PipelineStage {
  /** The ids of those who speak in it. */
  agents: string[];
  /** Which it is, from 0. */
  index: number;
  sessionId: string;
  /** Its name. */
  stage: string;
  /** Where a stage of a pipeline stands. */
  status: 'started' | 'completed';
  streamId: string;
  /** How many there are. */
  total: number;
}

/** A user is there, or is not, across the cluster. */
export interface PresenceChanged {
  lastSeenAt: string;
  /** Whether a user is there. */
  status: 'online' | 'offline';
  userId: string;
}

/** A reaction. */
export interface ReactToMessage {
  /** 1 to 64 bytes without white space. */
  emoji: string;
  messageId: string;
}

/** A reaction was given or taken back. */
export interface ReactionChanged {
  /** Whether it was given. */
  added: boolean;
  /** How often each emoji is given now. */
  counts: ReactionCounts;
  emoji: string;
  messageId: string;
  sessionId: string;
  userId: string;
}

export type ReactionCounts = Record<string, number>;

/** The reaction was given or taken back. */
export interface ReactionToggled {
  /** Whether it is there now. */
  added: boolean;
  ok: true;
}

/** What is to be answered, and how. */
export interface RequestStream {
  /** Who is to answer; else the session's agent. */
  agentId?: string | null;
  /** The client's own id for the prompt, of at most 128 bytes, which makes a retry harmless. */
  clientMessageId?: string | null;
  config?: StreamConfig | null;
  prompt: string;
  sessionId: string;
}

/** How far one has read. */
export interface SeeMessage {
  messageId: string;
  sessionId: string;
}

/** A message to be stored. */
export interface SendMessage {
  attachments?: NewAttachment[] | null;
  /** The client's own id for it, of at most 128 bytes, which makes a retry harmless. */
  clientMessageId?: string | null;
  content: string;
  /** The message it replies to. */
  parentMessageId?: string | null;
  sessionId: string;
}

/** The node is about to close the connection. */
export interface ServerShutdown {
  message: string;
  /** When to connect again. */
  reconnectInMs: number;
}

/** The connection is about to be closed for its age. */
export interface ServerTimeout {
  message: string;
}

/** A conversation, as the caller sees it. */
export interface Session {
  /** The agent that answers in it; the configured default where there is none. */
  agentId: string | null;
  createdAt: string;
  id: string;
  lastMessageAt: string | null;
  /** With its owner. */
  memberCount: number;
  ownerId: string;
  /** What the caller is in it; null for a guest of an open one. */
  role: 'owner' | 'member' | null;
  title: string | null;
  updatedAt: string;
  /** Who may see a session besides its owner and members: nobody, or whoever has its id. */
  visibility: 'private' | 'open';
}

/** The session was joined. */
export interface SessionJoined {
  /** The answers that are being written. */
  activeStreams: ActiveStream[];
  /** Whether there are more of them, or may be: REST has them. */
  hasMore: boolean;
  /** How many messages `messages:missed` brings. */
  missed: number;
  ok: true;
  /** Who is there: the ids of at most 200 users. */
  online: string[];
  /** How many users are there. */
  onlineCount: number;
  session: Session;
}

/** Where one types, and as whom. */
export interface StartTyping {
  sessionId: string;
  /** The name that others are shown: at most 256 bytes. */
  userName?: string | null;
}

/** Which answer to stop. */
export interface StopStream {
  streamId: string;
}

/** Where one does not type any more. */
export interface StopTyping {
  sessionId: string;
}

/** New text of an answer. */
export interface StreamChunk {
  /**
   * The whole answer where `isComplete`; else empty, or the text so far with
   * `STREAM_CHUNK_CONTENT=cumulative`.
   */
  content: string;
  /** The new text. */
  delta: string;
  /** The same as `streamId`. */
  id: string;
  /** Whether this is the last one. */
  isComplete: boolean;
  /** The answer's id. */
  messageId: string;
  /** Where `delta` starts in the answer, in UTF-16 code units. */
  offset: number;
  /** Counts the chunks as they were made: it grows, and may jump where several were joined. */
  seq: number;
  sessionId: string;
  streamId: string;
  /** How many tokens there are so far. */
  tokens: number;
}

/** An answer is whole. */
export interface StreamCompleted {
  message: Message;
  /** The answer's id. */
  messageId: string;
  sessionId: string;
  /** `end_turn`, `max_tokens`, or the provider's own word. */
  stopReason: string;
  streamId: string;
  usage: Usage;
}

/** How an agent is to answer; what is missing is as the agent has it. */
export interface StreamConfig {
  maxTokens?: number | null;
  model?: string | null;
  temperature?: number | null;
}

/** The model does something beside its text. */
export type StreamEvent = {
  kind: 'thinking';
  /** The answer's id. */
  messageId: string;
  sessionId: string;
  streamId: string;
  /** What is new of it: it stands behind what came before. */
  text: string;
} | {
  /** As the provider wrote it: JSON as a rule. */
  input: string;
  kind: 'tool';
  /** The answer's id. */
  messageId: string;
  /** The tool's. */
  name: string;
  sessionId: string;
  streamId: string;
  /** The provider's id of the call. */
  toolCallId: string;
} | {
  kind: 'citation';
  /** The answer's id. */
  messageId: string;
  sessionId: string;
  streamId: string;
  /** For people. May be empty. */
  title: string;
  /** Where it is, as the provider says: any text, not to be followed unseen. */
  url?: string;
};

/** An answer failed. */
export interface StreamFailed {
  error: ErrorInfo;
  /** The answer's id. */
  messageId: string;
  sessionId: string;
  streamId: string;
}

/** An answer is being written. */
export interface StreamRequested {
  /** The answer's id, from now on. */
  messageId: string;
  ok: true;
  /** The stored prompt's id. */
  promptMessageId: string;
  streamId: string;
}

/** An answer starts again. */
export interface StreamReset {
  /** Which attempt this is; the first is 1. */
  attempt: number;
  /** The answer's id. */
  messageId: string;
  /** Why, for a person. */
  reason: string;
  sessionId: string;
  streamId: string;
}

/** Another node goes on with an answer. */
export interface StreamResumed {
  /** Which attempt this is; the first is 1. */
  attempt: number;
  /** The answer's id. */
  messageId: string;
  /** Where it goes on, in UTF-16 code units. */
  offset: number;
  sessionId: string;
  streamId: string;
}

/** An answer is being written. */
export interface StreamStarted {
  agentId: string;
  /** The answer's id. */
  messageId: string;
  sessionId: string;
  streamId: string;
}

/** An answer was stopped. */
export interface StreamStopped {
  /** What there was of it. */
  content: string;
  /** The answer's id. */
  messageId: string;
  sessionId: string;
  stoppedBy: string;
  streamId: string;
}

/** Somebody came to a session, or left it. */
export interface UserPresent {
  /** How many users are there now. */
  online: number;
  sessionId: string;
  userId: string;
  userName?: string;
}

/** Somebody types in a session, or has stopped. */
export interface UserTyping {
  sessionId: string;
  userId: string;
  userName?: string;
}
