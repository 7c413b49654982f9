import { useCallback, useEffect, useReducer, useRef } from "react";
import type { ServerToClientEvents } from "tokencast-types/conversation";
import { type Change, EMPTY, type Message, reduce } from "./conversation";
import { type ChatSocket, useConnection } from "./SocketProvider";

/** How often it is said that one still types. The server forgets it after five seconds. */
const TYPING_MS = 3_000;

/** A conversation: its messages, the answer that is being written, who types, and ways to take part. */
export function useChat(conversationId: string) {
  const { socket, server, token } = useConnection();
  const [state, change] = useReducer(reduce, EMPTY);

  useEffect(() => {
    let current = true; // false once another conversation is shown
    const here = (apply: Change) => {
      if (current) change(apply);
    };
    const history = async () => {
      const path = `/api/chat/sessions/${encodeURIComponent(conversationId)}/messages?limit=100`;
      const response = await fetch(server + path, { headers: { Authorization: `Bearer ${token}` } });
      if (!response.ok) throw new Error(`The history cannot be read (${response.status})`);
      const { messages }: { messages: Message[] } = await response.json();
      here({ type: "history", messages });
    };

    // A connection that comes back may be a new one: join again, and read what was said meanwhile.
    const join = () => {
      here({ type: "connected" });
      socket.emit("chat:join", { conversationId });
    };
    const disconnected = () => here({ type: "disconnected" });
    const refused = (error: Error) => here({ type: "disconnected", error: error.message });

    const isHere = (payload: { conversationId: string }) => payload.conversationId === conversationId;
    const stop = listen(socket, {
      "chat:joined": (joined) => {
        if (!isHere(joined)) return;
        here({ type: "joined" });
        history().catch((error: Error) => here({ type: "unread", error: error.message }));
      },
      "chat:thinking": (thinking) => {
        if (isHere(thinking)) here({ type: "thinking" });
      },
      "chat:streaming": (streaming) => {
        if (isHere(streaming) && !streaming.isComplete) here({ type: "chunk", chunk: streaming.chunk });
      },
      "chat:message": (said) => {
        if (isHere(said)) here({ type: "message", message: said.message });
      },
      "chat:complete": (complete) => {
        if (isHere(complete)) here({ type: "complete" });
      },
      "chat:user-typing": (typing) => {
        if (isHere(typing)) here({ ...typing, type: "typing" });
      },
      "chat:user-left": (left) => {
        if (isHere(left)) here({ type: "gone", userId: left.userId });
      },
      "chat:error": ({ error }) => here({ type: "error", error }),
    });
    socket.on("connect", join);
    socket.on("disconnect", disconnected);
    socket.on("connect_error", refused);
    if (socket.connected) join();
    return () => {
      current = false;
      stop();
      socket.off("connect", join);
      socket.off("disconnect", disconnected);
      socket.off("connect_error", refused);
      if (socket.connected) socket.emit("chat:leave", { conversationId });
    };
  }, [socket, server, token, conversationId]);

  const saidAt = useRef(0);
  const setTyping = useCallback(
    (isTyping: boolean) => {
      const now = Date.now();
      if (isTyping ? now - saidAt.current < TYPING_MS : saidAt.current === 0) return;
      saidAt.current = isTyping ? now : 0;
      if (socket.connected) socket.emit("chat:typing", { conversationId, isTyping });
    },
    [socket, conversationId],
  );

  const send = useCallback(
    (content: string) => {
      setTyping(false);
      socket.emit("chat:send", { conversationId, content, role: "user" });
    },
    [socket, conversationId, setTyping],
  );

  return { ...state, send, setTyping };
}

/** Listens to these events; gives what ends it. */
function listen(socket: ChatSocket, handlers: Partial<ServerToClientEvents>): () => void {
  // Each handler is its event's own, which TypeScript cannot follow through a loop.
  const all = Object.entries(handlers) as [keyof ServerToClientEvents, never][];
  for (const [event, handler] of all) socket.on(event, handler);
  return () => {
    for (const [event, handler] of all) socket.off(event, handler);
  };
}
