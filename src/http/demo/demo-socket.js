// A small Socket.IO client of the demo's own (Engine.IO 4, Socket.IO 5): WebSocket only, one
// namespace, connected for as long as the page is open.

/** What fails because there is no connection, or none any more. */
export const lost = () => ({ code: "LOST", message: "The connection was lost" });

const TROUBLE = {
  AUTH_ERROR: "Not signed in", FORBIDDEN: "Not allowed", INVALID: "Not accepted", NOT_FOUND: "Not found", LOST: "Not connected",
  RATE_LIMIT: "Too many requests", OVERLOADED: "The model is overloaded", TIMEOUT: "The model did not answer in time",
  PROVIDER_ERROR: "The model failed", MODERATION_FAILED: "Refused by moderation", INTERNAL_ERROR: "The server failed",
};

/** What an error, as events and REST bring it, says to people. */
export function explain({ code, message, retryAfterMs } = {}) {
  const title = TROUBLE[code] ?? code ?? "Error";
  const said = message?.startsWith(title) ? message : message ? `${title}: ${message}` : title;
  return `${said.replace(/\.?$/, ".")}${retryAfterMs ? ` Try again in ${Math.ceil(retryAfterMs / 1000)} s.` : ""}`;
}

export class Socket {
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
