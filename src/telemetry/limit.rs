//! The names of what bounds clients.

/// What bounds a client, by the name that it has in docs/LIMITS.md. Limits of users' requests over
/// time are [`super::metrics::RATE_LIMITED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `MAX_TCP_CONNECTIONS`.
    TcpConnections,
    /// `MAX_CONNECTIONS_PER_ADDRESS`.
    AddressConnections,
    /// `MAX_HANDSHAKES`.
    Handshakes,
    /// `MAX_CONNECTIONS`.
    Connections,
    /// `MAX_CONNECTIONS_PER_USER`.
    UserConnections,
    /// `HEADERS_MAX`, and how many headers there are.
    Headers,
    /// `HEADERS_TIMEOUT`.
    HeadersTimeout,
    /// `BODY_MAX`.
    Body,
    /// `BODY_TIMEOUT`.
    BodyTimeout,
    /// `PAYLOAD_MAX`.
    Payload,
    /// `BINARIES_MAX`.
    Binaries,
    /// `CONNECT_TIMEOUT`.
    ConnectTimeout,
    /// How often one connection may ask for its place in `/chat`.
    Connects,
    /// `POLLS_MAX`.
    Polls,
    /// `SOCKET_EVENTS_MAX`.
    Events,
    /// `SOCKET_COMMANDS_MAX`.
    Commands,
    /// `JOINED_SESSIONS_MAX`.
    JoinedSessions,
    /// `SOCKET_STALL_TIMEOUT`.
    Stall,
    /// `CONNECTION_MAX_AGE`.
    Age,
    /// `LOG_EVENTS_MAX`: a reader fell behind it.
    Log,
    /// `PAGE_MAX`.
    Page,
    /// `SEARCH_MAX`.
    Search,
    /// `CONTENT_MAX`.
    Content,
    /// `ATTACHMENTS_MAX`.
    Attachments,
    /// `MEMBERS_MAX`.
    Members,
    /// `MAX_CONCURRENT_STREAMS`.
    UserStreams,
    /// `MAX_NODE_STREAMS`.
    NodeStreams,
    /// The 4 KiB of a token.
    Token,
}

impl Limit {
    /// Its name, as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpConnections => "tcp_connections",
            Self::AddressConnections => "address_connections",
            Self::Handshakes => "handshakes",
            Self::Connections => "connections",
            Self::UserConnections => "user_connections",
            Self::Headers => "headers",
            Self::HeadersTimeout => "headers_timeout",
            Self::Body => "body",
            Self::BodyTimeout => "body_timeout",
            Self::Payload => "payload",
            Self::Binaries => "binaries",
            Self::ConnectTimeout => "connect_timeout",
            Self::Connects => "connects",
            Self::Polls => "polls",
            Self::Events => "events",
            Self::Commands => "commands",
            Self::JoinedSessions => "joined_sessions",
            Self::Stall => "stall",
            Self::Age => "age",
            Self::Log => "log",
            Self::Page => "page",
            Self::Search => "search",
            Self::Content => "content",
            Self::Attachments => "attachments",
            Self::Members => "members",
            Self::UserStreams => "user_streams",
            Self::NodeStreams => "node_streams",
            Self::Token => "token",
        }
    }
}
