import { type FormEvent, useState } from "react";
import { useChat } from "./useChat";

export function Chat({ conversationId }: { conversationId: string }) {
  const { joined, messages, streaming, isThinking, typing, error, send, setTyping } = useChat(conversationId);
  const [draft, setDraft] = useState("");

  const submit = (event: FormEvent) => {
    event.preventDefault();
    const content = draft.trim();
    if (!content) return;
    send(content);
    setDraft("");
  };

  const names = Object.values(typing);
  const state = !joined ? "connecting" : isThinking ? "thinking" : streaming !== null ? "streaming" : "idle";

  return (
    <main data-state={state}>
      <ol aria-label="Messages">
        {messages.map((message) => (
          <li key={message.id} data-role={message.role}>
            {message.content}
          </li>
        ))}
        {streaming !== null && (
          <li data-role="assistant" data-live>
            {streaming}
          </li>
        )}
      </ol>
      <p role="status">
        {!joined && "Connecting…"}
        {isThinking && "Thinking…"} {names.length > 0 && `${names.join(", ")} typing…`}
      </p>
      <p role="alert">{error}</p>
      <form onSubmit={submit}>
        <input
          aria-label="Message"
          placeholder="Write a message"
          autoComplete="off"
          value={draft}
          onChange={(event) => {
            setDraft(event.target.value);
            setTyping(event.target.value !== "");
          }}
          onBlur={() => setTyping(false)}
        />
        <button disabled={!joined}>Send</button>
      </form>
    </main>
  );
}
