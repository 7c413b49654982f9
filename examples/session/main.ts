// ?server=http://localhost:3000&token=…&session=…&agent=… (the agent may be left out)

import { io, type Socket } from "socket.io-client";
import type { ClientToServerEvents, ServerToClientEvents } from "tokencast-types/session";
import { type Message, Transcript } from "./transcript";

const query = new URLSearchParams(location.search);
const server = query.get("server") ?? location.origin;
const token = query.get("token") ?? "";
const sessionId = query.get("session") ?? "lobby";
const agentId = query.get("agent");

const main = find("main");
const list = find("ol");
const form = find("form");
const input = find("input");
const stop = find<HTMLButtonElement>("button[name=stop]");
const send = find<HTMLButtonElement>("button:not([name])");

const transcript = new Transcript();
let hasHistory = false;
/** An answer was asked for, and nothing of it is there yet. */
let isThinking = false;
/** Which stage of a pipeline speaks. */
let stage = "";

const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io(`${server}/chat`, { auth: { token } });

// A connection that comes back may be a new one: join again, with what there is already. One that was
// recovered (`socket.recovered`) need not, and is told nothing twice.
socket.on("connect", () => {
  const { lastMessageId, offsets: streams } = transcript;
  // A callback, not `await`: what comes right after the acknowledgement has to find it taken in.
  socket.emit("session:join", { sessionId, ...(lastMessageId && { lastMessageId }), streams }, (reply) => {
    if (!reply.ok) return say(reply.error.message);
    transcript.keep(reply.activeStreams.map(({ streamId }) => streamId));
    isThinking &&= reply.activeStreams.length > 0;
    say("");
    draw();
    if (!hasHistory || reply.hasMore) void loadHistory();
  });
});
socket.on("disconnect", draw);
socket.on("connect_error", (error) => {
  say(error.message);
  draw();
});

socket.on("messages:missed", ({ messages }) => {
  for (const message of messages) transcript.add(message);
  draw();
});
socket.on("message:new", (message) => {
  transcript.add(message);
  draw();
});
socket.on("message:edited", (message) => {
  transcript.add(message);
  draw();
});

socket.on("stream:start", ({ streamId }) => {
  transcript.start(streamId);
  isThinking = true;
  stage = "";
  draw();
});
socket.on("pipeline:stage", ({ stage: name, status, index, total }) => {
  stage = status === "started" ? `${name} (${index + 1} of ${total})` : "";
  draw();
});
socket.on("stream:chunk", ({ streamId, offset, delta }) => {
  transcript.write(streamId, offset, delta);
  isThinking = false;
  draw();
});
socket.on("stream:reset", ({ streamId }) => {
  transcript.start(streamId);
  draw();
});
socket.on("stream:complete", ({ streamId, message }) => ended(streamId, message));
socket.on("stream:stopped", ({ streamId, messageId, content }) =>
  ended(streamId, { id: messageId, role: "assistant", content }));
socket.on("stream:error", ({ streamId, error }) => {
  ended(streamId);
  say(error.message);
});
socket.on("error", ({ message }) => say(message));

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = input.value.trim();
  if (!prompt) return;
  input.value = "";
  say("");
  isThinking = true;
  draw();
  socket.emit("stream:request", { sessionId, prompt, ...(agentId && { agentId }) }, (reply) => {
    if (reply.ok) return;
    isThinking = false;
    input.value ||= prompt; // what was refused is not lost
    say(reply.error.message);
    draw();
  });
});

stop.addEventListener("click", () => {
  for (const streamId of transcript.answers.keys()) socket.emit("stream:stop", { streamId });
});

function ended(streamId: string, message?: Message) {
  transcript.end(streamId);
  if (message) transcript.add(message);
  isThinking = false;
  draw();
}

async function loadHistory() {
  const path = `/api/chat/sessions/${encodeURIComponent(sessionId)}/messages?limit=100`;
  const before = [...transcript.messages];
  try {
    const response = await fetch(server + path, { headers: { Authorization: `Bearer ${token}` } });
    if (!response.ok) return say(`The history cannot be read (${response.status})`);
    const { messages }: { messages: Message[] } = await response.json();
    transcript.take(messages, before);
    hasHistory = true;
    draw();
  } catch {
    say("The history cannot be read (no connection)"); // the next connection reads it
  }
}

function draw() {
  const answers = [...transcript.answers.values()];
  const state = !socket.connected ? "connecting" : isThinking ? "thinking" : answers.length ? "streaming" : "idle";
  main.dataset["state"] = state;
  find("[role=status]").textContent = { connecting: "Connecting…", thinking: `${stage || "Thinking"}…`, streaming: "", idle: "" }[state];
  send.disabled = state === "connecting";
  stop.hidden = answers.length === 0;
  list.replaceChildren(
    ...transcript.messages.map(({ role, content }) => item(role, content)),
    ...answers.filter(({ text }) => text).map(({ text }) => {
      const live = item("assistant", text);
      live.dataset["live"] = "";
      return live;
    }),
  );
}

function item(role: string, content: string): HTMLLIElement {
  const element = document.createElement("li");
  element.dataset["role"] = role;
  element.textContent = content;
  return element;
}

function say(problem: string) {
  find("[role=alert]").textContent = problem;
}

function find<T extends keyof HTMLElementTagNameMap>(selector: T): HTMLElementTagNameMap[T];
function find<T extends HTMLElement = HTMLElement>(selector: string): T;
function find(selector: string): HTMLElement {
  const found = document.querySelector<HTMLElement>(selector);
  if (!found) throw new Error(`the page has no ${selector}`);
  return found;
}
