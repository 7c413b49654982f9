// ?server=http://localhost:3000&token=…&session=…

import type { ServerSentEvents } from "tokencast-types/sse";

interface Message {
  id: string;
  role: string;
  content: string;
}

const query = new URLSearchParams(location.search);
const server = query.get("server") ?? location.origin;
const token = query.get("token") ?? "";
const sessionId = query.get("session") ?? "lobby";
const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };

const main = find("main");
const list = find("ol");
const form = find("form");
const input = find("input");
const button = find("button");

let isOpen = false;
/** An answer was asked for, and nothing of it is there yet. */
let isThinking = false;
/** The answer that is being written. */
let live: HTMLLIElement | undefined;

draw();
await open();

/** Opens the stream. A connection that is lost is the browser's to bring back, and goes on where it was. */
async function open() {
  const response = await ask("/stream/init", { method: "POST", body: JSON.stringify({ sessionId }) });
  if (response.status === 0 || response.status >= 500) setTimeout(open, 5_000);
  if (!response.ok) return say(`The stream cannot be opened (${response.status || "no connection"})`);
  const { streamToken }: { streamToken: string } = await response.json();
  const path = `/chat/stream/${encodeURIComponent(sessionId)}?token=${encodeURIComponent(streamToken)}`;
  const source = new EventSource(server + path);
  let isNew = true;
  // A new reader is given all that there is of a running answer.
  live?.remove();
  end();

  source.onopen = async () => {
    say("");
    if (isNew) isNew = !(await loadHistory());
    isOpen = source.readyState === EventSource.OPEN;
    draw();
  };
  source.onmessage = ({ data }: MessageEvent<string>) => {
    const event: ServerSentEvents["message"] = JSON.parse(data);
    if ("status" in event) {
      live = undefined;
      isThinking = true;
    } else if ("chunk" in event) {
      live ??= append("assistant", "");
      live.dataset["live"] = "";
      live.append(event.chunk);
      isThinking = false;
    } else if ("done" in event) {
      if (live) {
        // The history may have brought it already.
        for (const shown of list.querySelectorAll(`[data-id="${event.messageId}"]`)) shown.remove();
        live.dataset["id"] = event.messageId;
      }
    }
    draw();
  };
  source.addEventListener("reset", () => live?.replaceChildren());
  source.addEventListener("done", () => {
    end();
    draw();
  });
  source.addEventListener("error", (event) => {
    if (event instanceof MessageEvent) {
      // The server's: the answer broke off.
      const { message }: ServerSentEvents["error"] = JSON.parse(event.data);
      end();
      say(message);
    } else {
      // The connection's own. One that was refused does not come back by itself.
      isOpen = false;
      if (source.readyState === EventSource.CLOSED) setTimeout(open, 5_000);
    }
    draw();
  });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const content = input.value.trim();
  if (!content) return;
  input.value = "";
  say("");
  append("user", content);
  isThinking = true;
  draw();
  const response = await ask("/chat/message", { method: "POST", body: JSON.stringify({ sessionId, content }) });
  if (!response.ok) {
    isThinking = false;
    say(`The message was not sent (${response.status || "no connection"})`);
    draw();
  }
});

/** The live answer is over: it stays as it is. */
function end() {
  delete live?.dataset["live"];
  live = undefined;
  isThinking = false;
}

/** Shows what is stored, and after it what the stream has brought meanwhile. `false` where it cannot be read. */
async function loadHistory(): Promise<boolean> {
  const before = new Set([...list.children].filter((shown) => shown !== live));
  const response = await ask(`/api/chat/sessions/${encodeURIComponent(sessionId)}/messages?limit=100`);
  if (!response.ok) {
    say(`The history cannot be read (${response.status || "no connection"})`);
    return false;
  }
  const { messages }: { messages: Message[] } = await response.json();
  const ids = new Set(messages.map(({ id }) => id));
  const since = [...list.querySelectorAll("li")].filter((shown) => !before.has(shown) && !ids.has(shown.dataset["id"] ?? ""));
  const items = messages.map(({ id, role, content }) => {
    const element = item(role, content);
    element.dataset["id"] = id;
    return element;
  });
  list.replaceChildren(...items, ...since);
  return true;
}

/** Asks the server, as this user. One that cannot be reached is a response without a status. */
async function ask(path: string, init?: RequestInit): Promise<Response> {
  try {
    const response = await fetch(server + path, { ...init, headers });
    // All of it, since a connection may also break off in the middle.
    return new Response(await response.arrayBuffer(), response);
  } catch {
    return Response.error();
  }
}

function append(role: string, content: string): HTMLLIElement {
  const element = item(role, content);
  list.append(element);
  return element;
}

function item(role: string, content: string): HTMLLIElement {
  const element = document.createElement("li");
  element.dataset["role"] = role;
  element.textContent = content;
  return element;
}

function draw() {
  const state = !isOpen ? "connecting" : isThinking ? "thinking" : live ? "streaming" : "idle";
  main.dataset["state"] = state;
  button.disabled = state === "connecting";
  find("[role=status]").textContent = { connecting: "Connecting…", thinking: "Thinking…", streaming: "", idle: "" }[state];
}

function say(problem: string) {
  find("[role=alert]").textContent = problem;
}

function find<T extends keyof HTMLElementTagNameMap>(selector: T): HTMLElementTagNameMap[T];
function find(selector: string): HTMLElement;
function find(selector: string): HTMLElement {
  const found = document.querySelector<HTMLElement>(selector);
  if (!found) throw new Error(`the page has no ${selector}`);
  return found;
}
