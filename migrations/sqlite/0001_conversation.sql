-- Sessions, messages, generations ("stream" on the wire), the nodes and the outbox.
-- Times are milliseconds since 1970 in UTC, ids made here are their 16 bytes.
-- The twin of migrations/postgres/0001_conversation.sql: a column here is a column there.

CREATE TABLE session (
    id              TEXT        PRIMARY KEY,
    owner_id        TEXT        NOT NULL,
    title           TEXT,
    agent_id        TEXT,
    visibility      TEXT        NOT NULL DEFAULT 'private' CHECK (visibility IN ('private', 'open')),
    persona_key     TEXT,
    metadata        TEXT        NOT NULL DEFAULT '{}',
    -- Kept with the members rather than counted at each read.
    member_count    INTEGER     NOT NULL DEFAULT 1,
    -- The next message's ordinal is one more. There is one writer at a time.
    last_ordinal    INTEGER     NOT NULL DEFAULT 0,
    last_message_at INTEGER,
    created_at      INTEGER     NOT NULL,
    updated_at      INTEGER     NOT NULL,
    deleted_at      INTEGER
) STRICT;
CREATE UNIQUE INDEX session_persona ON session (owner_id, persona_key)
    WHERE persona_key IS NOT NULL AND deleted_at IS NULL;

CREATE TABLE session_member (
    session_id           TEXT        NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    user_id              TEXT        NOT NULL,
    role                 TEXT        NOT NULL CHECK (role IN ('owner', 'member')),
    joined_at            INTEGER     NOT NULL,
    last_seen_message_id BLOB,
    PRIMARY KEY (session_id, user_id)
) STRICT;
CREATE INDEX session_member_user ON session_member (user_id);

CREATE TABLE message (
    id                BLOB        PRIMARY KEY,
    session_id        TEXT        NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    ordinal           INTEGER     NOT NULL CHECK (ordinal > 0),
    user_id           TEXT,
    agent_id          TEXT,
    role              TEXT        NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
    content           TEXT        NOT NULL,
    metadata          TEXT        NOT NULL DEFAULT '{}',
    tokens            INTEGER,
    input_tokens      INTEGER,
    output_tokens     INTEGER,
    parent_message_id BLOB,
    client_message_id TEXT,
    is_edited         INTEGER     NOT NULL GENERATED ALWAYS AS (edited_at IS NOT NULL) STORED,
    edited_at         INTEGER,
    is_deleted        INTEGER     NOT NULL GENERATED ALWAYS AS (deleted_at IS NOT NULL) STORED,
    deleted_at        INTEGER,
    created_at        INTEGER     NOT NULL,
    updated_at        INTEGER     NOT NULL,
    UNIQUE (session_id, ordinal)
) STRICT;
CREATE UNIQUE INDEX message_client ON message (session_id, user_id, client_message_id)
    WHERE client_message_id IS NOT NULL;

CREATE TABLE message_reaction (
    id         BLOB        PRIMARY KEY,
    message_id BLOB        NOT NULL REFERENCES message (id) ON DELETE CASCADE,
    user_id    TEXT        NOT NULL,
    emoji      TEXT        NOT NULL,
    created_at INTEGER     NOT NULL,
    UNIQUE (message_id, user_id, emoji)
) STRICT;

CREATE TABLE message_attachment (
    id         BLOB        PRIMARY KEY,
    message_id BLOB        NOT NULL REFERENCES message (id) ON DELETE CASCADE,
    file_name  TEXT        NOT NULL,
    file_url   TEXT        NOT NULL,
    mime_type  TEXT        NOT NULL,
    file_size  INTEGER     NOT NULL,
    metadata   TEXT        NOT NULL DEFAULT '{}',
    created_at INTEGER     NOT NULL
) STRICT;
CREATE INDEX message_attachment_message ON message_attachment (message_id);

CREATE TABLE stream (
    id                BLOB        PRIMARY KEY,
    session_id        TEXT        NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    user_id           TEXT        NOT NULL,
    prompt_message_id BLOB        NOT NULL REFERENCES message (id) ON DELETE CASCADE,
    -- The answer's id, given from the start: no reference, the row comes at the end.
    message_id        BLOB        NOT NULL UNIQUE,
    agent_id          TEXT        NOT NULL,
    provider          TEXT        NOT NULL,
    model             TEXT        NOT NULL,
    status            TEXT        NOT NULL
        CHECK (status IN ('pending', 'streaming', 'completed', 'stopped', 'failed')),
    config            TEXT        NOT NULL DEFAULT '{}',
    owner_node_id     BLOB        NOT NULL,
    attempt           INTEGER     NOT NULL CHECK (attempt > 0),
    tokens            INTEGER,
    usage             TEXT,
    error             TEXT,
    stop_requested    TEXT,
    created_at        INTEGER     NOT NULL,
    started_at        INTEGER,
    first_token_at    INTEGER,
    completed_at      INTEGER,
    CHECK ((completed_at IS NOT NULL) = (status IN ('completed', 'stopped', 'failed')))
) STRICT;
CREATE UNIQUE INDEX stream_prompt ON stream (prompt_message_id);
CREATE INDEX stream_session ON stream (session_id);
CREATE INDEX stream_unfinished_owner ON stream (owner_node_id) WHERE completed_at IS NULL;
CREATE INDEX stream_unfinished_user ON stream (user_id) WHERE completed_at IS NULL;

CREATE TABLE node (
    id           BLOB        PRIMARY KEY,
    address      TEXT        NOT NULL,
    role         TEXT        NOT NULL DEFAULT 'all',
    started_at   INTEGER     NOT NULL,
    heartbeat_at INTEGER     NOT NULL,
    redis_up     INTEGER     NOT NULL
) STRICT;
CREATE INDEX node_heartbeat ON node (heartbeat_at);

CREATE TABLE outbox (
    -- The order in which the events of a session were stored.
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The event's own id.
    id         BLOB        NOT NULL UNIQUE,
    session_id TEXT        NOT NULL,
    event      BLOB        NOT NULL,
    created_at INTEGER     NOT NULL
) STRICT;
CREATE INDEX outbox_created ON outbox (created_at);
