// Compiled, never run: the other vocabularies.

import type { Socket } from 'socket.io-client';
import type * as conversation from 'tokencast-types/conversation';
import type * as persona from 'tokencast-types/persona';
import type { ServerSentEvents } from 'tokencast-types/sse';
import type * as subscribe from 'tokencast-types/subscribe';

declare const one: Socket<subscribe.ServerToClientEvents, subscribe.ClientToServerEvents>;
one.emit('subscribe', 's');
one.emit('subscribe', { sessionId: 's' });
one.on('pipeline:stage', ({ stage, status }) => stage + status);
one.on('message:chunk', ({ sessionId, chunk }) => sessionId + chunk);
// @ts-expect-error
one.emit('subscribe', 7);

declare const two: Socket<conversation.ServerToClientEvents, conversation.ClientToServerEvents>;
two.emit('chat:join', { conversationId: 'c' });
two.on('chat:streaming', ({ chunk, isComplete }) => (isComplete ? '' : chunk));
// @ts-expect-error
two.emit('chat:join', { sessionId: 'c' });

declare const three: Socket<persona.ServerToClientEvents, persona.ClientToServerEvents>;
three.emit('chat:join', { personaId: 'p' }, (answer) => (answer.ok ? answer.messages.length : answer.error.code));
three.on('chat:response', ({ sender, content }) => sender + content);
// @ts-expect-error
three.on('chat:response', ({ text }) => text);

const source = new EventSource('/chat/stream/s');
source.onmessage = (event) => {
  const data: ServerSentEvents['message'] = JSON.parse(event.data);
  if ('chunk' in data) data.chunk.length;
  else if ('done' in data) data.messageId.length;
  // @ts-expect-error
  else data.chunk;
};
