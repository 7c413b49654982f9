import { useCallback, useEffect, useReducer, useRef } from "react";
import type { ServerToClientEvents } from "tokencast-types/conversation";
import { type Change, EMPTY, type Message, reduce } from "./conversation";
import { useConnection } from "./SocketProvider";

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

    // A connection that comes back is a new one: join again, and read what was said meanwhile.
    const join = () => {
      here({ type: "connected" });
      socket.emit("chat:join", { conversationId });
    };
    const disconnected = () => here({ type: "disconnected" });
    const refused = (error: Error) => here({ type: "disconnected", error: error.message });

    const handlers: Partial<ServerToClientEvents> = {
      "chat:joined": (joined) => {
        if (joined.conversationId !== conversationId) return;
        here({ type: "joined" });
        history().catch((error: Error) => here({ type: "error", error: error.message }));
      },
      "chat:thinking": (thinking) => {
        if (thinking.conversationId === conversationId) here({ type: "thinking" });
      },
      "chat:streaming": ({ conversationId: id, chunk, isComplete }) => {
        if (id === conversationId && !isComplete) here({ type: "chunk", chunk });
      },
      "chat:message": ({ conversationId: id, message }) => {
        if (id === conversationId) here({ type: "message", message });
      },
      "chat:complete": (complete) => {
        if (complete.conversationId === conversationId) here({ type: "complete" });
      },
      "chat:user-typing": ({ conversationId: id, userId, username, isTyping }) => {
        if (id === conversationId) here({ type: "typing", userId, username, isTyping });
      },
      "chat:user-left": ({ conversationId: id, userId }) => {
        if (id === conversationId) here({ type: "gone", userId });
      },
      "chat:error": ({ error }) => here({ type: "error", error }),
    };

    const names = Object.keys(handlers) as (keyof typeof handlers)[];
    for (const name of names) socket.on(name, handlers[name] as never);
    socket.on("connect", join);
    socket.on("disconnect", disconnected);
    socket.on("connect_error", refused);
    if (socket.connected) join();
    return () => {
      current = false;
      for (const name of names) socket.off(name, handlers[name] as never);
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
