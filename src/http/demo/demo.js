// The demo chat: a small Socket.IO client of its own (WebSocket only), and the page above it.
// Text is placed by its offset in UTF-16 units, which is what `string.length` counts, so joining
// and joining again in the middle of an answer need no other care. Whatever comes from the
// network is shown as text, never as markup.
"use strict";

// ---- Engine.IO 4, Socket.IO 5: one namespace, connected for as long as the page is open --------

class Socket {
  #ws; #timer; #retry; #tries = 0; #nextAck = 0; #acks = new Map(); #handlers = new Map(); #patience = 15000; #connected = false;

  /** `auth` gives the handshake's payload and is asked before each try; `state(word, detail)`. */
  constructor(namespace, auth, state) {
    Object.assign(this, { namespace, auth, state });
    addEventListener("online", () => this.#retry && this.open());
  }

  on(event, handler) { this.#handlers.set(event, handler); return this; }

  get connected() { return this.#connected; }

  async open() {
    clearTimeout(this.#retry); this.#retry = undefined;
    this.#drop();
    this.state("connecting");
    const ws = this.#ws = { close() {} }; // Taken, so that an older try knows it is over.
    try { this.payload = await this.auth(); } catch (error) {
      if (this.#ws === ws) this.#again(error.message);
      return;
    }
    if (this.#ws !== ws) return;
    const url = `${location.protocol.replace("http", "ws")}//${location.host}/socket.io/?EIO=4&transport=websocket`;
    const socket = this.#ws = new WebSocket(url);
    this.#watch();
    socket.onmessage = ({ data }) => this.#ws === socket && this.#receive(String(data));
    socket.onclose = () => this.#ws === socket && this.#again("Connection lost");
  }

  /** Answers with the ack's fields; fails with the ack's error, or with `lost` where none came. */
  emit(event, payload) {
    if (!this.#connected) return Promise.reject(lost());
    return new Promise((resolve, reject) => {
      const id = this.#nextAck++;
      const timer = setTimeout(() => { this.#acks.delete(id); reject(lost()); }, 10000);
      this.#acks.set(id, { resolve, reject, timer });
      this.#ws.send(`42${this.namespace},${id}${JSON.stringify([event, payload])}`);
    });
  }

  #receive(data) {
    this.#watch();
    if (data[0] === "0") {
      const { pingInterval = 25000, pingTimeout = 20000 } = JSON.parse(data.slice(1));
      this.#patience = pingInterval + pingTimeout;
      this.#ws.send(`40${this.namespace},${JSON.stringify(this.payload)}`);
    } else if (data[0] === "1") this.#again("Closed by the server");
    else if (data[0] === "2") this.#ws.send("3" + data.slice(1));
    else if (data[0] === "4") this.#packet(/^(\d)(?:(\/[^,]*),)?(\d*)(.*)$/s.exec(data.slice(1)));
  }

  #packet([, type, namespace, id, rest]) {
    if (namespace !== this.namespace) return;
    const body = rest ? JSON.parse(rest) : undefined;
    if (type === "0") { this.#tries = 0; this.#connected = true; this.#call("connect", body); }
    else if (type === "1") this.#again("Disconnected by the server");
    else if (type === "2") this.#call(...body);
    else if (type === "3") this.#acknowledged(Number(id), body[0]);
    else if (type === "4") { this.#call("connect_error", body); this.#again(body?.message ?? "Refused", "refused"); }
  }

  #acknowledged(id, answer) {
    const ack = this.#acks.get(id);
    if (!ack) return;
    this.#acks.delete(id); clearTimeout(ack.timer);
    if (answer?.ok === false) ack.reject(answer.error ?? {}); else ack.resolve(answer ?? {});
  }

  #call(event, ...args) { this.#handlers.get(event)?.(...args); }

  /** The server pings; when it falls silent the connection is dead, whatever TCP says. */
  #watch() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#again("The server fell silent"), this.#patience);
  }

  #drop() {
    const ws = this.#ws;
    this.#ws = undefined; this.#connected = false;
    clearTimeout(this.#timer);
    ws?.close();
    for (const ack of this.#acks.values()) { clearTimeout(ack.timer); ack.reject(lost()); }
    this.#acks.clear();
  }

  /** Tries again after 0.5 s, doubling up to 10 s, each half to one and a half times as long. */
  #again(why, state = "waiting") {
    this.#drop();
    clearTimeout(this.#retry);
    const wait = Math.min(500 * 2 ** this.#tries++, 10000) * (0.5 + Math.random());
    this.state(state, `${why}, trying again in ${Math.max(1, Math.round(wait / 1000))} s`);
    this.#retry = setTimeout(() => this.open(), wait);
  }
}

const lost = () => ({ code: "LOST", message: "The connection was lost" });

// ---- The page ----------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);
const random = (length) => Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => "abcdefghijkmnpqrstuvwxyz23456789"[byte % 32]).join("");
const stored = (key, value) => {
  try { return value === undefined ? localStorage.getItem(key) : localStorage.setItem(key, value); } catch { return null; }
};

if (!/^#[A-Za-z0-9._:-]{1,128}$/.test(location.hash)) history.replaceState(null, "", `#room-${random(10)}`);
const sessionId = location.hash.slice(1);
addEventListener("hashchange", () => location.reload());

// No message has this id: whoever has nothing is given the newest.
const NO_MESSAGE = "00000000-0000-0000-0000-000000000000";

let name = stored("tokencast.name") || `guest-${random(5)}`;
let token, me, nodeId, lastMessageId, noticeTimer, joining;
const messages = new Map(); // id → bubble
const streams = new Map(); // id of a running stream → its bubble
const online = new Map(); // user id → name
const unsent = new Map(); // client message id → prompt, until the server has acknowledged it

const TROUBLE = {
  RATE_LIMIT: "Too many requests", OVERLOADED: "The model is overloaded", TIMEOUT: "The model did not answer in time",
  PROVIDER_ERROR: "The model failed", MODERATION_FAILED: "Refused by moderation", NOT_FOUND: "Not found", LOST: "Not connected",
};

function explain(error = {}) {
  const again = error.retryAfterMs ? ` Try again in ${Math.ceil(error.retryAfterMs / 1000)} s.` : "";
  const title = TROUBLE[error.code] ?? error.code ?? "Error";
  return error.message && error.message !== title ? `${title}: ${error.message}.${again}`.replace("..", ".") : `${title}.${again}`;
}

function notice(text, lasts = 8000) {
  clearTimeout(noticeTimer);
  $("notice").textContent = text;
  $("notice").hidden = !text;
  if (text) noticeTimer = setTimeout(() => notice(""), lasts);
}

function showState(state, detail) {
  $("state").dataset.state = state;
  $("state-text").textContent = detail ?? { connecting: "Connecting", online: nodeId ? `Online · ${nodeId}` : "Online" }[state];
}

function showOnline() {
  const people = [...online].map(([id, shown]) => {
    const li = document.createElement("li");
    li.textContent = shown ?? id;
    li.title = id;
    if (id === me) li.dataset.me = "";
    return li;
  });
  $("online").replaceChildren(...people);
}

/** Runs `change`, and stays at the end where the reader was at the end. */
function keepingEnd(change) {
  const view = $("scroll");
  const atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 80;
  change();
  if (atEnd) view.scrollTop = view.scrollHeight;
}

/** One message on the page. Its text grows by appending to one text node. */
class Bubble {
  constructor(id, before) {
    const part = (tag, kind) => Object.assign(document.createElement(tag), { className: kind });
    this.element = part("li", "message");
    [this.meta, this.body, this.note] = [part("span", "meta"), part("div", "text"), part("p", "note")];
    this.node = this.body.appendChild(document.createTextNode(""));
    this.element.append(this.meta, this.body, this.note);
    $("log").insertBefore(this.element, before ?? null);
    $("empty").hidden = true;
    messages.set(id, this);
  }

  get length() { return this.node.length; }
  set text(text) { if (this.node.data !== text) this.node.data = text; }

  author(who, role, mine = false) {
    this.meta.textContent = who;
    this.element.dataset.role = role;
    this.element.toggleAttribute("data-mine", mine);
  }

  running(streamId) {
    if (streamId) streams.set(streamId, this); else streams.forEach((bubble, id) => bubble === this && streams.delete(id));
    this.element.setAttribute("aria-busy", String(Boolean(streamId)));
    $("stop").hidden = streams.size === 0;
  }

  ended(note = "", failed = false) {
    this.running();
    this.note.textContent = note;
    this.element.toggleAttribute("data-failed", failed);
  }

  /** `false` where what comes before `delta` is not here yet. */
  place(offset, delta) {
    if (offset > this.length) return false;
    this.node.appendData(delta.slice(this.length - offset)); // Nothing of it where all of it is here.
    return true;
  }
}

const bubble = (id, before) => messages.get(id) ?? new Bubble(id, before);

function streaming({ streamId, messageId, agentId }) {
  let at = streams.get(streamId);
  if (!at) {
    at = bubble(messageId);
    at.author(agentId ?? "assistant", "assistant");
    at.running(streamId);
  }
  return at;
}

/** Shows a stored message: new, edited, or the whole of an answer that was running. */
function showMessage(message, before) {
  const at = bubble(message.id, before);
  const mine = message.role === "user" && message.userId === me;
  at.author(message.role === "assistant" ? message.agentId ?? "assistant" : mine ? "You" : online.get(message.userId) ?? message.userId ?? "?", message.role, mine);
  at.text = message.isDeleted ? "(deleted)" : message.content;
  if (message.role === "assistant") at.ended(at.note.textContent);
  if (!before) lastMessageId = message.id;
}

async function auth() {
  if (!token) {
    const body = JSON.stringify({ sub: name, name });
    const headers = { "Content-Type": "application/json" };
    const response = await fetch("/dev/token", { method: "POST", headers, body }).catch(() => { throw new Error("No server"); });
    if (!response.ok) throw new Error(response.status === 404 ? "This server gives no tokens to the demo (DEV_AUTH)" : `No token: HTTP ${response.status}`);
    token = (await response.json()).token;
  }
  return { token, dialect: "session" };
}

/** Joins, or joins again to be given what is missing; once, however many gaps ask for it. */
function join() {
  joining ??= joinNow().finally(() => { joining = undefined; });
}

async function joinNow() {
  const known = Object.fromEntries([...streams].map(([id, at]) => [id, at.length]));
  const first = !lastMessageId;
  let joined;
  try {
    joined = await socket.emit("session:join", { sessionId, lastMessageId: lastMessageId ?? NO_MESSAGE, streams: known });
  } catch (error) {
    if (error.code !== "LOST") notice(explain(error), 60000);
    return;
  }
  online.clear();
  for (const id of joined.online ?? []) online.set(id, id === me ? name : undefined);
  showOnline();
  const active = new Set((joined.activeStreams ?? []).map(({ streamId }) => streamId));
  for (const [id, at] of [...streams]) if (!active.has(id)) at.ended();
  keepingEnd(() => (joined.activeStreams ?? []).forEach(streaming));
  // Too much was missed to be told: the page begins again, with the newest.
  if (joined.hasMore && !first) { clearStored(); return joinNow(); }
  for (const [id, prompt] of unsent) ask(prompt, id);
}

/** All but what is running. */
function clearStored() {
  const running = new Set(streams.values());
  for (const [id, at] of messages) if (!running.has(at)) { at.element.remove(); messages.delete(id); }
  lastMessageId = undefined;
}

/** The same `clientMessageId` makes asking again harmless. */
async function ask(prompt, clientMessageId = random(20)) {
  unsent.set(clientMessageId, prompt);
  try {
    await socket.emit("stream:request", { sessionId, prompt, clientMessageId });
    unsent.delete(clientMessageId);
  } catch (error) {
    if (error.code === "LOST") return notice("Not connected. The message goes out when the connection is back.");
    unsent.delete(clientMessageId);
    notice(explain(error));
    $("prompt").value ||= prompt;
  }
}

const here = (handler) => (payload) => payload?.sessionId === sessionId && keepingEnd(() => handler(payload));
const socket = new Socket("/chat", auth, showState)
  .on("connect", () => showState("online"))
  .on("connect_error", ({ data } = {}) => { if (data?.code === "AUTH_ERROR") token = undefined; })
  .on("connection:success", ({ userId, nodeId: node }) => {
    [me, nodeId] = [userId, node];
    showState("online");
    join();
  })
  .on("messages:missed", here(({ messages: missed }) => {
    // What is running already stands below what came before it.
    const running = [...streams.values()][0]?.element;
    missed.forEach((message) => showMessage(message, messages.has(message.id) ? undefined : running));
    lastMessageId = missed.at(-1)?.id ?? lastMessageId;
  }))
  .on("message:new", here((message) => showMessage(message)))
  .on("message:edited", here((message) => messages.has(message.id) && showMessage(message, messages.get(message.id).element)))
  .on("message:deleted", here(({ messageId }) => { if (messages.has(messageId)) messages.get(messageId).text = "(deleted)"; }))
  .on("stream:start", here(streaming))
  .on("stream:chunk", here((chunk) => {
    const at = streaming(chunk);
    if (chunk.isComplete && chunk.content) at.text = chunk.content;
    else if (!at.place(chunk.offset, chunk.delta ?? "")) join();
  }))
  .on("stream:reset", here((reset) => { const at = streaming(reset); at.text = ""; at.note.textContent = "Another node began again"; }))
  .on("stream:resumed", here((resumed) => { streaming(resumed).note.textContent = "Another node went on"; }))
  .on("pipeline:stage", here(({ streamId, stage, status, index, total }) => {
    const at = streams.get(streamId);
    if (at) at.note.textContent = `${stage} ${status}${total ? ` (${index + 1} of ${total})` : ""}`;
  }))
  .on("stream:complete", here(({ streamId, message, usage }) => {
    showMessage(message);
    messages.get(message.id).ended(usage ? `${usage.outputTokens} tokens` : "");
    streams.delete(streamId);
  }))
  .on("stream:stopped", here((stopped) => {
    const at = bubble(stopped.messageId);
    if (stopped.content !== undefined) at.text = stopped.content;
    at.ended(`Stopped by ${stopped.stoppedBy === me ? "you" : online.get(stopped.stoppedBy) ?? stopped.stoppedBy}`);
  }))
  .on("stream:error", here(({ streamId, messageId, error }) => {
    const at = streams.get(streamId) ?? (messageId && bubble(messageId));
    if (at) at.ended(explain(error), true); else notice(explain(error));
  }))
  .on("user:joined", here(({ userId, userName }) => { online.set(userId, userName); showOnline(); }))
  .on("user:left", here(({ userId }) => { online.delete(userId); showOnline(); }))
  .on("error", (error) => notice(explain(error)))
  .on("server:timeout", ({ message } = {}) => notice(message ?? "This connection is renewed."))
  .on("server:shutdown", ({ message } = {}) => notice(`${message ?? "This node is going away"}. Another one takes over.`));

// ---- What people do ----------------------------------------------------------------------------

const prompt = $("prompt");
const fit = () => { prompt.style.height = "auto"; prompt.style.height = `${prompt.scrollHeight + 2}px`; };

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = prompt.value.trim();
  if (!text) return;
  prompt.value = "";
  fit();
  notice("");
  $("scroll").scrollTop = $("scroll").scrollHeight;
  ask(text);
});
prompt.addEventListener("input", fit);
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});
$("stop").addEventListener("click", () => {
  const streamId = [...streams.keys()].at(-1);
  if (streamId) socket.emit("stream:stop", { streamId }).catch((error) => notice(explain(error)));
});
const rename = (event) => {
  event.preventDefault();
  const chosen = $("name").value.trim();
  if (!chosen || chosen === name) { $("name").value = name; return; }
  stored("tokencast.name", (name = chosen));
  token = undefined;
  socket.open();
};
$("who").addEventListener("submit", rename);
$("name").addEventListener("change", rename);

stored("tokencast.name", name);
$("name").value = name;
$("room").textContent = sessionId;
$("second").href = location.href;
showState("connecting");
socket.open();
