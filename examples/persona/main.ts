// ?server=http://localhost:3000&persona=assistant, with &token=… or &user=…

import { type Message, PersonaClient } from "./persona-client";

const query = new URLSearchParams(location.search);
const personaId = query.get("persona") ?? "assistant";

const main = find("main");
const list = find("ol");
const button = find("button");
const form = find("form");
const input = find("input");

let isWaiting = false;
show("connecting", "Connecting…");

const client = new PersonaClient({
  server: query.get("server") ?? location.origin,
  personaId,
  ...(query.has("token") ? { token: query.get("token") ?? "" } : { userId: query.get("user") ?? "guest" }),
  onSession(messages) {
    list.replaceChildren(...messages.map(item));
    // The answer may have come while the connection was away.
    if (messages.at(-1)?.sender === personaId) isWaiting = false;
    say("");
    if (isWaiting) show("thinking", "Thinking…");
    else show("idle");
  },
  onResponse(message) {
    list.append(item(message));
    isWaiting = false;
    show("idle");
  },
  onError(message) {
    say(message);
    isWaiting = false;
    if (main.dataset["state"] !== "connecting") show("idle");
  },
  onDisconnect() {
    show("connecting", "Connecting…");
  },
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const content = input.value.trim();
  if (!content || !client.send(content)) return;
  input.value = "";
  list.append(item({ sender: "me", content }));
  isWaiting = true;
  say("");
  show("thinking", "Thinking…");
});

function item({ sender, content }: Pick<Message, "sender" | "content">): HTMLLIElement {
  const element = document.createElement("li");
  element.dataset["role"] = sender === personaId ? "assistant" : "user";
  element.textContent = content;
  return element;
}

function show(state: "connecting" | "idle" | "thinking", status = "") {
  main.dataset["state"] = state;
  button.disabled = state === "connecting";
  find("[role=status]").textContent = status;
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
