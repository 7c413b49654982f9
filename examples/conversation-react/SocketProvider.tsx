import { createContext, type ReactNode, useContext, useEffect, useState } from "react";
import { io, type Socket } from "socket.io-client";
import type { ClientToServerEvents, ServerToClientEvents } from "tokencast-types/conversation";

export type ChatSocket = Socket<ServerToClientEvents, ClientToServerEvents>;

interface Connection {
  socket: ChatSocket;
  /** Where the REST API is. */
  server: string;
  token: string;
}

const SocketContext = createContext<Connection | null>(null);

interface Props {
  server: string;
  token: string;
  children: ReactNode;
}

/** One connection for everything below it. */
export function SocketProvider({ server, token, children }: Props) {
  const [connection, setConnection] = useState<Connection | null>(null);

  useEffect(() => {
    const socket: ChatSocket = io(`${server}/chat`, { auth: { token } });
    setConnection({ socket, server, token });
    return () => {
      socket.disconnect();
    };
  }, [server, token]);

  return connection && <SocketContext value={connection}>{children}</SocketContext>;
}

export function useConnection(): Connection {
  const connection = useContext(SocketContext);
  if (!connection) throw new Error("useConnection needs a <SocketProvider> above it");
  return connection;
}
