-- What was appended to the logs a moment ago: should a log lose it, it is appended again.
-- The twin of migrations/postgres/0004_told.sql.

CREATE TABLE outbox_told (
    -- The event's own id.
    id         BLOB    PRIMARY KEY,
    session_id TEXT    NOT NULL,
    revision   INTEGER NOT NULL,
    event      BLOB    NOT NULL,
    told_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_told_session ON outbox_told (session_id, revision);
CREATE INDEX outbox_told_at ON outbox_told (told_at);
