/** What the server sends in the dialect `subscribe`: each event with its listener. */
export interface ServerToClientEvents {
  [event: string]: (payload: any) => void;
}

/** What a client sends in it: each event, and the callback of its acknowledgement. */
export interface ClientToServerEvents {
  [event: string]: (payload: any, ack?: (answer: any) => void) => void;
}
