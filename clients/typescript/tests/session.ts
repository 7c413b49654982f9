// Compiled, never run: what has to be right, and what has to be an error.

import type { Socket } from 'socket.io-client';
import type { Ack, Acknowledged, ClientToServerEvents, ErrorInfo, Message, ServerToClientEvents } from 'tokencast-types/session';

declare const socket: Socket<ServerToClientEvents, ClientToServerEvents>;

socket.on('message:new', (message) => {
  const { content, editedAt, usage }: Message = message;
  content.length;
  // Always there, and null before the first edit.
  const at: string | null = editedAt;
  // Left out where there is none, never null.
  const tokens: number | undefined = usage?.outputTokens;
  // @ts-expect-error
  const always: string = editedAt;
  // @ts-expect-error
  usage.outputTokens;
  return [at, tokens, always];
});
socket.on('stream:chunk', ({ delta, offset, isComplete }) => [delta.length + offset, !isComplete]);
socket.on('pipeline:stage', ({ stage, status, agents, index, total }) => [stage, status === 'completed', agents.length, index + total]);
socket.on('stream:event', (event) => {
  if (event.kind === 'thinking') return event.text;
  if (event.kind === 'tool') return event.toolCallId + event.name + event.input;
  const url: string | undefined = event.url;
  // @ts-expect-error it is a citation
  return [event.title, url, event.text];
});
socket.on('error', (error: ErrorInfo) => [error.code === 'RATE_LIMIT' && error.retryAfterMs, error.sessionId]);
// @ts-expect-error no such event
socket.on('message:news', () => {});
// @ts-expect-error no such field
socket.on('stream:chunk', ({ text }) => text);

socket.emit('session:join', { sessionId: 's' });
socket.emit('session:join', { sessionId: 's', lastMessageId: null, streams: { id: 3 } }, (answer) => {
  if (answer.ok) {
    answer.activeStreams.map(({ offset }) => offset.toFixed());
    // @ts-expect-error it succeeded
    answer.error;
  } else {
    const word: 'NOT_FOUND' | 'INVALID' | string = answer.error.code;
    // @ts-expect-error it did not
    answer.session;
    return word;
  }
});
socket.emit('message:send', {
  sessionId: 's',
  content: 'Hi',
  attachments: [{ fileName: 'a', fileUrl: '/a', mimeType: 'text/plain', fileSize: 1 }],
});
// @ts-expect-error content is missing
socket.emit('message:send', { sessionId: 's' });
// @ts-expect-error it is a string
socket.emit('message:send', { sessionId: 's', content: 7 });
// @ts-expect-error no such event
socket.emit('message:sent', { sessionId: 's', content: 'Hi' });
// @ts-expect-error it is a number
socket.emit('stream:request', { sessionId: 's', prompt: 'Why?', config: { temperature: 'hot' } });

const joined: Ack<'session:join'> = await socket.timeout(5_000).emitWithAck('session:join', { sessionId: 's' });
if (joined.ok) joined.onlineCount.toFixed();

// With acknowledgements that have to be asked for, promises are typed as well.
declare const acknowledged: Socket<ServerToClientEvents, Acknowledged<ClientToServerEvents>>;
const sent = await acknowledged.emitWithAck('message:send', { sessionId: 's', content: 'Hi' });
if (sent.ok) sent.message.id.length;
else sent.error.message.length;
// @ts-expect-error content is missing
await acknowledged.emitWithAck('message:send', { sessionId: 's' });
acknowledged.timeout(5_000).emit('message:reaction', { messageId: 'm', emoji: '👍' }, (late, answer) => !late && answer.ok && answer.added);
