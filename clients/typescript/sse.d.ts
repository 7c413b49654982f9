/** What the \`data\` of each SSE event is, as JSON; \`message\` is the event without a name. */
export interface ServerSentEvents {
  [event: string]: any;
}
