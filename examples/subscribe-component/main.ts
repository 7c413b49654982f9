// ?server=http://localhost:3000&token=…&session=…

import { ChatBox } from "./chat-box";

const query = new URLSearchParams(location.search);
const box = document.querySelector("chat-box");
box?.setAttribute("server", query.get("server") ?? location.origin);
box?.setAttribute("token", query.get("token") ?? "");
box?.setAttribute("session", query.get("session") ?? "lobby");
customElements.define("chat-box", ChatBox);
