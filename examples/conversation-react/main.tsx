// ?server=http://localhost:3000&token=…&session=…

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Chat } from "./Chat";
import { SocketProvider } from "./SocketProvider";

const query = new URLSearchParams(location.search);
const root = document.getElementById("root");
if (!root) throw new Error("the page has no #root");

createRoot(root).render(
  <StrictMode>
    <SocketProvider server={query.get("server") ?? location.origin} token={query.get("token") ?? ""}>
      <Chat conversationId={query.get("session") ?? "lobby"} />
    </SocketProvider>
  </StrictMode>,
);
