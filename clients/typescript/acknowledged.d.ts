/** What the acknowledgement of an event with this listener is. */
export type AckOf<Listener> = Listener extends (payload: infer _, ack?: (answer: infer Answer) => void) => void ? Answer : never;

/**
 * The same events, each with an acknowledgement that has to be asked for. socket.io-client knows what
 * `emitWithAck` gives, and what a callback behind `timeout()` is given, of such events only.
 */
export type Acknowledged<Events> = {
  [Event in keyof Events]: Events[Event] extends (payload: infer Payload, ack?: infer Ack) => void
    ? (payload: Payload, ack: NonNullable<Ack>) => void
    : never;
};
