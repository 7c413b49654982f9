-- What was appended to the logs a moment ago: should a log lose it, it is appended again.
-- The twin of migrations/sqlite/0004_told.sql.
-- Not logged: it holds nothing that is not stored elsewhere, and is wanted only where Redis fails.

CREATE UNLOGGED TABLE outbox_told (
    -- The event's own id.
    id         uuid        PRIMARY KEY,
    session_id text        NOT NULL,
    revision   bigint      NOT NULL,
    event      bytea       NOT NULL,
    told_at    timestamptz NOT NULL
);
CREATE INDEX outbox_told_session ON outbox_told (session_id, revision);
CREATE INDEX outbox_told_at ON outbox_told (told_at);
