// The demo chat. What is stored is read over REST each time the page joins its room; what happens
// from then on comes over the socket, and waits while the page reads. Whatever comes from the
// network is shown as text, never as markup.
import { Bubble, part } from "./demo-message.js";
import { Socket, explain, lost } from "./demo-socket.js";

const $ = (id) => document.getElementById(id);
const random = (length) => Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => "abcdefghijkmnpqrstuvwxyz23456789"[byte % 32]).join("");

const newRoom = () => `#room-${random(10)}`;

const isNew = !/^#[A-Za-z0-9._:-]{1,128}$/.test(location.hash);
if (isNew) history.replaceState(null, "", newRoom());
const sessionId = location.hash.slice(1);
const ROOM = `/api/chat/sessions/${encodeURIComponent(sessionId)}`;
addEventListener("hashchange", () => location.reload());

/** The name chosen in this tab, else the last one in this browser: two tabs may be two people. */
function storedName(name) {
  try {
    for (const storage of name ? [sessionStorage, localStorage] : []) storage.setItem("tokencast.name", name);
    return sessionStorage.getItem("tokencast.name") ?? localStorage.getItem("tokencast.name");
  } catch { return null; }
}

let name = storedName() || `guest-${random(5)}`;
let token, me, nodeId, noticeTimer, joining, joinAgain, rejoin, editing, draft = "", isOwner = false, isOpen = false, holds = 0, typedAt = 0;
const messages = new Map(); // id → bubble
const streams = new Map(); // id of a running stream → its bubble
const people = new Map(); // user id → { name, here, seen }
const typists = new Map(); // user id → name
const unsent = new Map(); // client message id → what is sent, until the server has acknowledged it
const held = []; // events that wait

// ---- What is shown -----------------------------------------------------------------------------

function notice(text, isGood = false) {
  clearTimeout(noticeTimer);
  $("notice").textContent = text;
  $("notice").hidden = !text;
  $("notice").toggleAttribute("data-good", isGood);
  if (text) noticeTimer = setTimeout(() => notice(""), isGood ? 4000 : 12000);
}

const complain = (error) => notice(explain(error));

function showState(state, detail) {
  $("state").dataset.state = state;
  $("state-text").textContent = detail ?? { connecting: "Connecting", online: "Online" }[state];
  $("node").textContent = state === "online" && nodeId ? ` · node ${nodeId.slice(-8)}` : "";
  $("node").title = nodeId ?? "";
}

const nameOf = (id) => (id === me ? "You" : people.get(id)?.name ?? id ?? "?");

function showPeople() {
  const listed = [...people].sort(([, one], [, other]) => other.here - one.here);
  $("people").replaceChildren(...listed.map(([id, { name: shown, here, seen }]) => {
    const item = part("li", "", shown ?? id);
    item.title = here ? `${id} is here` : `${id} is away${seen ? `, last seen ${new Date(seen).toLocaleString()}` : ""}`;
    item.toggleAttribute("data-me", id === me);
    item.toggleAttribute("data-away", !here);
    return item;
  }));
}

function came(id, shown) { people.set(id, { name: shown ?? people.get(id)?.name, here: true }); }
function went(id, seen) { people.set(id, { name: people.get(id)?.name, here: false, seen }); typists.delete(id); }

function showTyping() {
  const names = [...typists.values()];
  $("typing").textContent = names.length > 2 ? "Several people are typing…" : names.length ? `${names.join(" and ")} ${names.length > 1 ? "are" : "is"} typing…` : "";
}

function showMode() {
  const asks = $("asks").checked;
  $("submit").textContent = editing ? "Save" : asks ? "Ask" : "Send";
  $("prompt").placeholder = editing ? "The new text" : asks ? "Ask the model" : "Write to the room";
  $("editing").hidden = !editing;
  $("agent").hidden = Boolean(editing) || !asks || $("agent").length < 2;
}

/** Who may answer; whoever answers in this room anyway is chosen until somebody else is. */
function showAgents(agents, usual) {
  const chosen = $("agent").value;
  $("agent").replaceChildren(...agents.map(({ id, name: shown }) => new Option(shown, id)));
  $("agent").value = agents.some(({ id }) => id === chosen) ? chosen : usual ?? agents.find((agent) => agent.default)?.id;
  showMode();
}

function showRoom({ visibility, role }, isClosed = false) {
  [isOwner, isOpen] = [role === "owner", visibility === "open"];
  $("visibility").hidden = !isOwner;
  $("open").checked = isOpen;
  $("closed").hidden = !isClosed;
  $("prompt").disabled = $("submit").disabled = isClosed;
  showEmpty();
}

const showEmpty = () => { $("empty").hidden = messages.size > 0 || !$("closed").hidden; };

/** Runs `change`, and stays at the end where the reader was at the end. */
function keepingEnd(change) {
  const view = $("scroll");
  const atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 80;
  change();
  if (atEnd) view.scrollTop = view.scrollHeight;
}

// ---- Messages ----------------------------------------------------------------------------------

function bubble(id, before = null) {
  let at = messages.get(id);
  if (!at) {
    messages.set(id, (at = new Bubble(id)));
    $("log").insertBefore(at.element, before);
    showEmpty();
  }
  return at;
}

function running(at, streamId) {
  if (streamId) streams.set(streamId, at); else streams.forEach((other, id) => other === at && streams.delete(id));
  at.element.setAttribute("aria-busy", String(Boolean(streamId)));
  $("stop").hidden = streams.size === 0;
}

function ended(at, note = "", failed = false) {
  running(at);
  at.note.textContent = note;
  at.element.toggleAttribute("data-failed", failed);
}

function streaming({ streamId, messageId, agentId }) {
  let at = streams.get(streamId);
  if (!at) {
    at = bubble(messageId);
    at.author(agentId ?? "assistant", "assistant");
    running(at, streamId);
  }
  return at;
}

/** Shows a stored message: new, edited, or the whole of an answer that was running. */
function showMessage(message, before) {
  const at = bubble(message.id, before);
  const mine = message.role === "user" && message.userId === me;
  at.author(message.role === "user" ? nameOf(message.userId) : message.agentId ?? message.role, message.role, mine);
  at.show(message);
  at.showReactions(me, nameOf);
  at.may({ edit: mine, remove: mine || isOwner });
  const { error, stopped } = message.metadata;
  if (message.role === "assistant") ended(at, error ? explain({ code: error }) : stopped ? "Stopped" : at.note.textContent, Boolean(error));
}

/** Shows the newest messages. Where too much was missed, the page begins again with them. */
function showNewest({ messages: newest, hasMore }) {
  const isRunning = new Set(streams.values());
  const follows = newest.some(({ id }) => messages.has(id) && !isRunning.has(messages.get(id)));
  if (!follows) {
    for (const [id, at] of messages) if (!isRunning.has(at)) { at.element.remove(); messages.delete(id); }
    $("earlier").hidden = !hasMore;
  }
  // What is running already stands below what came before it.
  const [first] = isRunning;
  for (const message of newest) showMessage(message, first?.element);
}

function forgetAll() {
  for (const known of [messages, streams, people, typists, unsent]) known.clear();
  $("log").replaceChildren();
  $("stop").hidden = $("earlier").hidden = true;
  endEditing();
  showPeople();
  showTyping();
}

async function showEarlier() {
  const first = $("log").firstElementChild;
  const page = await rest("GET", `${ROOM}/messages?limit=50&before=${first.dataset.id}`);
  const view = $("scroll");
  const fromEnd = view.scrollHeight - view.scrollTop;
  for (const message of page.messages) showMessage(message, first);
  $("earlier").hidden = !page.hasMore;
  view.scrollTop = view.scrollHeight - fromEnd;
}

// ---- The server --------------------------------------------------------------------------------

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

async function rest(method, path, body) {
  const headers = { Authorization: `Bearer ${token}`, ...(body && { "Content-Type": "application/json" }) };
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(10000) }).catch(() => { throw lost(); });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw answer.error ?? { code: `HTTP ${response.status}` };
  return answer;
}

/** Events that arrive while `load` runs are shown after it: what it brings may be older. */
async function holding(load) {
  holds++;
  try { return await load(); } finally {
    if (--holds === 0) keepingEnd(() => held.splice(0).forEach((event) => event()));
  }
}

/** Joins, or joins again to be given what is missing; one at a time, however many ask for it. */
function join() {
  clearTimeout(rejoin);
  joinAgain = Boolean(joining);
  joining ??= holding(joinNow).catch(notJoined).finally(() => { joining = undefined; if (joinAgain) join(); });
}

async function joinNow() {
  const known = Object.fromEntries([...streams].map(([id, at]) => [id, at.length]));
  const joined = await socket.emit("session:join", { sessionId, streams: known });
  const [newest, { users }, { agents }] = await Promise.all([`${ROOM}/messages?limit=50`, `${ROOM}/presence`, "/api/chat/agents"].map((path) => rest("GET", path)));
  people.clear();
  typists.clear();
  for (const { userId, lastSeenAt } of users) went(userId, lastSeenAt);
  for (const id of joined.online) came(id, id === me ? name : undefined);
  showRoom(joined.session);
  showAgents(agents, joined.session.agentId);
  showPeople();
  showTyping();
  keepingEnd(() => {
    showNewest(newest);
    const active = new Set(joined.activeStreams.map(({ streamId }) => streamId));
    for (const [id, at] of [...streams]) if (!active.has(id)) ended(at);
    joined.activeStreams.forEach(streaming);
  });
  [...unsent.keys()].forEach(deliver);
}

function notJoined(error) {
  if (!socket.connected) return; // The next connection joins.
  if (error.code === "NOT_FOUND") {
    forgetAll();
    showRoom({}, true);
  } else if (error.code === "AUTH_ERROR") {
    token = undefined;
    socket.open();
  } else {
    complain(error);
    rejoin = setTimeout(join, Math.max(error.retryAfterMs ?? 3000, 1000));
  }
}

/** The same `clientMessageId` makes sending again harmless. */
async function deliver(clientMessageId) {
  const { event, payload, text } = unsent.get(clientMessageId);
  try {
    await socket.emit(event, { sessionId, clientMessageId, ...payload });
    unsent.delete(clientMessageId);
  } catch (error) {
    if (error.code === "LOST") return notice("Not connected. The message goes out when the connection is back.");
    unsent.delete(clientMessageId);
    complain(error);
    $("prompt").value ||= text;
    fit();
  }
}

const here = (handler) => (payload) => {
  if (payload?.sessionId !== sessionId) return;
  if (holds) held.push(() => handler(payload)); else keepingEnd(() => handler(payload));
};
const socket = new Socket("/chat", auth, showState)
  .on("connect", () => showState("online"))
  .on("connect_error", ({ data } = {}) => { if (data?.code === "AUTH_ERROR") token = undefined; })
  .on("connection:success", ({ userId, nodeId: node }) => {
    [me, nodeId] = [userId, node];
    showState("online");
    join();
  })
  .on("message:new", here((message) => { typists.delete(message.userId); showTyping(); showMessage(message); }))
  .on("message:edited", here((message) => messages.has(message.id) && showMessage(message)))
  .on("message:deleted", here(({ messageId }) => {
    if (editing === messageId) endEditing();
    messages.get(messageId)?.deleted();
  }))
  .on("message:reaction:update", here(({ messageId, userId, emoji, added }) => {
    const at = messages.get(messageId);
    at?.reacted(emoji, userId, added);
    at?.showReactions(me, nameOf);
  }))
  .on("typing:start", here(({ userId, userName }) => { typists.set(userId, userName ?? nameOf(userId)); showTyping(); }))
  .on("typing:stop", here(({ userId }) => { typists.delete(userId); showTyping(); }))
  .on("user:joined", here(({ userId, userName }) => { came(userId, userName); showPeople(); }))
  .on("user:left", here(({ userId }) => { went(userId, Date.now()); showPeople(); showTyping(); }))
  .on("presence:update", ({ userId, status, lastSeenAt }) => {
    if (status !== "offline" || !people.has(userId)) return;
    went(userId, lastSeenAt);
    showPeople();
    showTyping();
  })
  .on("stream:start", here(streaming))
  .on("stream:chunk", here((chunk) => {
    const at = streaming(chunk);
    if (chunk.isComplete && chunk.content) at.text = chunk.content;
    else if (!at.place(chunk.offset, chunk.delta ?? "")) join();
  }))
  .on("stream:reset", here((reset) => { const at = streaming(reset); at.restart(); at.note.textContent = "Another node began again"; }))
  .on("stream:resumed", here((resumed) => { streaming(resumed).note.textContent = "Another node went on"; }))
  .on("pipeline:stage", here(({ streamId, stage, status, index, total }) => {
    const at = streams.get(streamId);
    if (at) at.note.textContent = `${stage} ${status === "started" ? "is at work" : "is done"} (${index + 1} of ${total})`;
  }))
  .on("stream:event", here(({ streamId, kind, text }) => { if (kind === "thinking") streams.get(streamId)?.think(text); }))
  .on("stream:complete", here(({ streamId, message, usage }) => {
    showMessage(message);
    ended(messages.get(message.id), usage ? `${usage.outputTokens} tokens` : "");
    streams.delete(streamId);
  }))
  .on("stream:stopped", here((stopped) => {
    const at = bubble(stopped.messageId);
    if (stopped.content !== undefined) at.text = stopped.content;
    ended(at, `Stopped by ${stopped.stoppedBy === me ? "you" : nameOf(stopped.stoppedBy)}`);
    at.may({ edit: false, remove: isOwner });
  }))
  .on("stream:error", here(({ streamId, messageId, error }) => {
    const at = streams.get(streamId) ?? (messageId && bubble(messageId));
    if (at) ended(at, explain(error), true); else complain(error);
  }))
  .on("error", complain)
  .on("server:timeout", ({ message } = {}) => notice(message ?? "This connection is renewed."))
  .on("server:shutdown", ({ message } = {}) => notice(`${message ?? "This node is going away"}. Another one takes over.`));

// ---- What people do ----------------------------------------------------------------------------

const prompt = $("prompt");
const fit = () => { prompt.style.height = "auto"; prompt.style.height = `${prompt.scrollHeight + 2}px`; };

/** Says so at most every three seconds; the server forgets it after five. */
function typing(active) {
  if (active ? Date.now() - typedAt < 3000 : !typedAt) return;
  typedAt = active ? Date.now() : 0;
  socket.emit(active ? "typing:start" : "typing:stop", { sessionId }).catch(() => {});
}

function startEditing(at) {
  if (!editing) draft = prompt.value;
  editing = at.id;
  prompt.value = at.text;
  showMode();
  fit();
  prompt.focus();
}

function endEditing() {
  if (!editing) return;
  editing = undefined;
  prompt.value = draft;
  showMode();
  fit();
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = prompt.value.trim();
  if (!text) return;
  notice("");
  typing(false);
  if (editing) {
    const messageId = editing;
    const saved = () => editing === messageId && endEditing();
    if (text === messages.get(messageId)?.text) saved();
    else socket.emit("message:edit", { messageId, content: text }).then(saved, complain);
    return;
  }
  prompt.value = "";
  fit();
  $("scroll").scrollTop = $("scroll").scrollHeight;
  const id = random(20);
  const [kind, payload] = $("asks").checked ? ["stream:request", { prompt: text, agentId: $("agent").value || undefined }] : ["message:send", { content: text }];
  unsent.set(id, { event: kind, payload, text });
  deliver(id);
});
prompt.addEventListener("input", () => { fit(); if (!editing) typing(Boolean(prompt.value.trim())); });
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Escape") endEditing();
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});
$("asks").addEventListener("change", showMode);
$("cancel").addEventListener("click", endEditing);
$("stop").addEventListener("click", () => {
  const streamId = [...streams.keys()].at(-1);
  if (streamId) socket.emit("stream:stop", { streamId }).catch(complain);
});
$("log").addEventListener("click", ({ target }) => {
  const chosen = target.closest("button");
  const at = messages.get(chosen?.closest("li").dataset.id);
  if (!at) return;
  const { do: action, emoji } = chosen.dataset;
  const messageId = at.id;
  if (action === "edit") startEditing(at);
  else if (action === "delete") socket.emit("message:delete", { messageId }).catch(complain);
  else socket.emit("message:reaction", { messageId, emoji }).catch(complain);
});
$("earlier").addEventListener("click", () => {
  $("earlier").disabled = true;
  holding(showEarlier).catch(complain).finally(() => { $("earlier").disabled = false; });
});
$("open").addEventListener("change", ({ target }) => {
  const visibility = target.checked ? "open" : "private";
  target.disabled = true;
  rest("PATCH", ROOM, { visibility })
    .then((session) => { showRoom(session); notice(isOpen ? "Whoever has the link can join now." : "Only you and the members see this room now.", true); })
    .catch((error) => { target.checked = isOpen; complain(error); })
    .finally(() => { target.disabled = false; });
});
$("copy").addEventListener("click", async () => {
  const isFor = isOwner && !isOpen ? " The room is private: open it, so that others can join." : "";
  try {
    await navigator.clipboard.writeText(location.href);
    notice(`Link copied.${isFor}`, true);
  } catch { notice(`The link is ${location.href}${isFor && `.${isFor}`}`, true); }
});
$("retry").addEventListener("click", () => join());
const rename = (event) => {
  event.preventDefault();
  const chosen = $("name").value.trim();
  if (!chosen || chosen === name) { $("name").value = name; return; }
  storedName((name = chosen));
  // A private room of the old name is not there for the new one. The hash reloads the page as well.
  if ((isOwner || isNew) && !isOpen) location.hash = newRoom(); else location.reload();
};
$("who").addEventListener("submit", rename);
$("name").addEventListener("change", rename);

storedName(name);
$("name").value = name;
$("room").textContent = $("room").title = sessionId;
$("second").href = location.href;
showState("connecting");
showMode();
socket.open();
