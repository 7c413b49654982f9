import { io, type Socket } from "socket.io-client";
import type { ClientToServerEvents, ServerToClientEvents } from "tokencast-types/subscribe";

type ChatSocket = Socket<ServerToClientEvents, ClientToServerEvents>;

interface Message {
  /** None for what was written here: it is shown at once, and the server does not send it back. */
  id?: string;
  role: string;
  content: string;
}

const MARKUP = `
  <main data-state="connecting">
    <ol aria-label="Messages"></ol>
    <p role="status"></p>
    <p role="alert"></p>
    <form>
      <input name="content" aria-label="Message" placeholder="Write a message" autocomplete="off" required>
      <button disabled>Send</button>
    </form>
  </main>`;

/** `<chat-box server="http://localhost:3000" token="…" session="…"></chat-box>` */
export class ChatBox extends HTMLElement {
  #socket: ChatSocket | undefined;
  #messages: Message[] = [];
  /** Whether what is shown is all there is, so that what follows the last message is enough. */
  #isComplete = false;
  /** Whether it is subscribed, and has read what there was. */
  #isOpen = false;
  /** The answer as far as it is written; `undefined` while none is. */
  #live: string | undefined;

  connectedCallback() {
    this.innerHTML = MARKUP;
    this.#find("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });

    const sessionId = this.#attribute("session");
    const socket: ChatSocket = io(`${this.#attribute("server")}/chat`, {
      auth: { token: this.#attribute("token") },
    });
    this.#socket = socket;

    // A connection that comes back may be a new one: subscribe again, and get what was missed.
    socket.on("connect", () => {
      const lastMessageId = this.#messages.findLast(({ id }) => id)?.id;
      this.#isComplete &&= lastMessageId !== undefined;
      socket.emit("subscribe", lastMessageId ? { sessionId, lastMessageId } : { sessionId });
    });
    socket.on("disconnect", () => {
      this.#isOpen = false;
      this.#show("idle");
    });
    socket.on("connect_error", (error) => {
      this.#say(error.message);
      this.#show("idle");
    });

    socket.on("messages:missed", ({ messages, hasMore }) => {
      this.#forgetUnnumbered();
      for (const message of messages) this.#add(message);
      if (hasMore) this.#isComplete = false;
    });
    socket.on("subscribed", async () => {
      this.#live = undefined; // one that still runs starts again, with `message:reset`
      this.#say("");
      const { id } = socket;
      // Whatever is written now would stand in the history, and here once more.
      if (!this.#isComplete) await this.#loadHistory();
      this.#isOpen = socket.connected && socket.id === id;
      this.#show(this.#live === undefined ? "idle" : "streaming");
    });

    socket.on("message:new", (message) => {
      this.#add(message);
      this.#draw();
    });
    socket.on("message:chunk", ({ chunk }) => {
      this.#live = (this.#live ?? "") + chunk;
      this.#show("streaming");
    });
    socket.on("message:reset", () => {
      this.#live = "";
      this.#show("streaming");
    });
    socket.on("message:complete", ({ message }) => {
      this.#live = undefined;
      this.#add(message);
      this.#show("idle");
    });
    socket.on("error", ({ message }) => {
      this.#live = undefined;
      this.#say(message);
      this.#show("idle");
    });
  }

  disconnectedCallback() {
    this.#socket?.disconnect();
  }

  #send() {
    const input = this.#find("input");
    const content = input.value.trim();
    if (!content) return;
    input.value = "";
    this.#say("");
    this.#messages.push({ role: "user", content });
    this.#socket?.emit("message:send", { sessionId: this.#attribute("session"), content });
    this.#show("thinking");
  }

  /** Shows the newest stored messages, before them what is older, and after them what came since. */
  async #loadHistory() {
    this.#forgetUnnumbered();
    const before = new Set(this.#messages.map(({ id }) => id));
    const session = encodeURIComponent(this.#attribute("session"));
    try {
      const response = await fetch(`${this.#attribute("server")}/api/chat/sessions/${session}/messages?limit=100`, {
        headers: { Authorization: `Bearer ${this.#attribute("token")}` },
      });
      if (!response.ok) return this.#say(`The history cannot be read (${response.status})`);
      const { messages }: { messages: Message[] } = await response.json();
      const known = new Set(messages.map(({ id }) => id));
      const others = this.#messages.filter(({ id }) => !known.has(id));
      const older = others.filter(({ id }) => before.has(id));
      this.#messages = [...older, ...messages, ...others.filter(({ id }) => !before.has(id))];
      this.#isComplete = true;
      this.#draw();
    } catch {
      this.#say("The history cannot be read (no connection)"); // the next connection reads it
    }
  }

  /** Forgets what was written here without having an id yet: what arrived comes with what is read now. */
  #forgetUnnumbered() {
    this.#messages = this.#messages.filter(({ id }) => id);
  }

  /** Adds a message, once. */
  #add({ id, role, content }: Message) {
    this.#messages = this.#messages.filter((other) => !id || other.id !== id);
    this.#messages.push({ ...(id && { id }), role, content });
  }

  #show(state: "idle" | "thinking" | "streaming") {
    const shown = this.#isOpen ? state : "connecting";
    this.#find("main").dataset["state"] = shown;
    this.#find("[role=status]").textContent = { connecting: "Connecting…", idle: "", thinking: "Thinking…", streaming: "" }[shown];
    this.#find("button").disabled = !this.#isOpen;
    this.#draw();
  }

  #say(problem: string) {
    this.#find("[role=alert]").textContent = problem;
  }

  #draw() {
    const items = this.#messages.map(({ role, content }) => item(role, content));
    if (this.#live !== undefined) {
      const live = item("assistant", this.#live);
      live.dataset["live"] = "";
      items.push(live);
    }
    this.#find("ol").replaceChildren(...items);
  }

  #attribute(name: string): string {
    return this.getAttribute(name) ?? "";
  }

  #find<T extends keyof HTMLElementTagNameMap>(selector: T): HTMLElementTagNameMap[T];
  #find(selector: string): HTMLElement;
  #find(selector: string): HTMLElement {
    const found = this.querySelector<HTMLElement>(selector);
    if (!found) throw new Error(`<chat-box> has no ${selector}`);
    return found;
  }
}

function item(role: string, content: string): HTMLLIElement {
  const element = document.createElement("li");
  element.dataset["role"] = role;
  element.textContent = content;
  return element;
}
