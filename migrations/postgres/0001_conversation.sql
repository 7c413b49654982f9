-- Sessions, messages, generations ("stream" on the wire), the nodes and the outbox.
-- The twin of migrations/sqlite/0001_conversation.sql: a column here is a column there.

CREATE TABLE session (
    id              text        PRIMARY KEY,
    owner_id        text        NOT NULL,
    title           text,
    agent_id        text,
    visibility      text        NOT NULL DEFAULT 'private' CHECK (visibility IN ('private', 'open')),
    persona_key     text,
    metadata        jsonb       NOT NULL DEFAULT '{}',
    -- Kept with the members rather than counted at each read.
    member_count    bigint      NOT NULL DEFAULT 1,
    -- The next message's ordinal is one more. Its row lock puts a session's messages in order.
    last_ordinal    bigint      NOT NULL DEFAULT 0,
    last_message_at timestamptz,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    deleted_at      timestamptz
);
CREATE UNIQUE INDEX session_persona ON session (owner_id, persona_key)
    WHERE persona_key IS NOT NULL AND deleted_at IS NULL;

CREATE TABLE session_member (
    session_id           text        NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    user_id              text        NOT NULL,
    role                 text        NOT NULL CHECK (role IN ('owner', 'member')),
    joined_at            timestamptz NOT NULL,
    last_seen_message_id uuid,
    PRIMARY KEY (session_id, user_id)
);
CREATE INDEX session_member_user ON session_member (user_id);

CREATE TABLE message (
    id                uuid        PRIMARY KEY,
    session_id        text        NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    ordinal           bigint      NOT NULL CHECK (ordinal > 0),
    user_id           text,
    agent_id          text,
    role              text        NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
    content           text        NOT NULL,
    metadata          jsonb       NOT NULL DEFAULT '{}',
    tokens            bigint,
    input_tokens      bigint,
    output_tokens     bigint,
    parent_message_id uuid,
    client_message_id text,
    is_edited         boolean     NOT NULL GENERATED ALWAYS AS (edited_at IS NOT NULL) STORED,
    edited_at         timestamptz,
    is_deleted        boolean     NOT NULL GENERATED ALWAYS AS (deleted_at IS NOT NULL) STORED,
    deleted_at        timestamptz,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    UNIQUE (session_id, ordinal)
);
CREATE UNIQUE INDEX message_client ON message (session_id, user_id, client_message_id)
    WHERE client_message_id IS NOT NULL;

CREATE TABLE message_reaction (
    id         uuid        PRIMARY KEY,
    message_id uuid        NOT NULL REFERENCES message (id) ON DELETE CASCADE,
    user_id    text        NOT NULL,
    emoji      text        NOT NULL,
    created_at timestamptz NOT NULL,
    UNIQUE (message_id, user_id, emoji)
);

CREATE TABLE message_attachment (
    id         uuid        PRIMARY KEY,
    message_id uuid        NOT NULL REFERENCES message (id) ON DELETE CASCADE,
    file_name  text        NOT NULL,
    file_url   text        NOT NULL,
    mime_type  text        NOT NULL,
    file_size  bigint      NOT NULL,
    metadata   jsonb       NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL
);
CREATE INDEX message_attachment_message ON message_attachment (message_id);

CREATE TABLE stream (
    id                uuid        PRIMARY KEY,
    session_id        text        NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    user_id           text        NOT NULL,
    prompt_message_id uuid        NOT NULL REFERENCES message (id) ON DELETE CASCADE,
    -- The answer's id, given from the start: no reference, the row comes at the end.
    message_id        uuid        NOT NULL UNIQUE,
    agent_id          text        NOT NULL,
    provider          text        NOT NULL,
    model             text        NOT NULL,
    status            text        NOT NULL
        CHECK (status IN ('pending', 'streaming', 'completed', 'stopped', 'failed')),
    config            jsonb       NOT NULL DEFAULT '{}',
    owner_node_id     uuid        NOT NULL,
    attempt           bigint      NOT NULL CHECK (attempt > 0),
    tokens            bigint,
    usage             jsonb,
    error             jsonb,
    stop_requested    text,
    created_at        timestamptz NOT NULL,
    started_at        timestamptz,
    first_token_at    timestamptz,
    completed_at      timestamptz,
    CHECK ((completed_at IS NOT NULL) = (status IN ('completed', 'stopped', 'failed')))
);
CREATE UNIQUE INDEX stream_prompt ON stream (prompt_message_id);
CREATE INDEX stream_session ON stream (session_id);
CREATE INDEX stream_unfinished_owner ON stream (owner_node_id) WHERE completed_at IS NULL;
CREATE INDEX stream_unfinished_user ON stream (user_id) WHERE completed_at IS NULL;

CREATE TABLE node (
    id           uuid        PRIMARY KEY,
    address      text        NOT NULL,
    role         text        NOT NULL DEFAULT 'all',
    started_at   timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    redis_up     boolean     NOT NULL
);
CREATE INDEX node_heartbeat ON node (heartbeat_at);

CREATE TABLE outbox (
    -- The order in which the events of a session were stored.
    seq        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The event's own id.
    id         uuid        NOT NULL UNIQUE,
    session_id text        NOT NULL,
    event      bytea       NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX outbox_created ON outbox (created_at);
