// Made from /asyncapi.json by `GENERATE=1 make types`. Do not edit.
// Server-sent events.

/** What the `data` of each event is, as JSON; `message` is the event without a name. */
export interface ServerSentEvents {
  /** After the unnamed event with `done`. */
  done: SseDone;
  /** The answer broke off. */
  error: SseError;
  /** An answer begins, goes on, or is over: what `EventSource.onmessage` sees. */
  message: SseData;
  /** Forget the text so far: it starts again. */
  reset: SseReset;
  /** A stage of a pipeline begins or is over. */
  stage: SseStage;
}

/** What an event without a name carries. */
export type SseData = {
  sessionId: string;
  status: 'processing';
} | {
  chunk: string;
  sessionId: string;
} | {
  done: true;
  messageId: string;
  sessionId: string;
  /** There where somebody stopped it. */
  stopped?: boolean;
};

/** Nothing more. */
export type SseDone = Record<string, never>;

/** What went wrong. */
export interface SseError {
  /** For a person. */
  message: string;
  /** Stable: what programs look at. */
  type: string;
}

/** The text so far is void. */
export interface SseReset {
  streamId: string;
}

/** A stage of a pipeline begins or is over. */
export interface SseStage {
  /** Which it is, from 0. */
  index: number;
  sessionId: string;
  /** Its name. */
  stage: string;
  /** Where a stage of a pipeline stands. */
  status: 'started' | 'completed';
  /** How many there are. */
  total: number;
}
