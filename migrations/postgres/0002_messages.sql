-- Sending, changing and finding messages; the order of a session's stored events.
-- The twin of migrations/sqlite/0002_messages.sql.

-- Counts the stored events of a session, as last_ordinal counts its messages: given under the same
-- row lock, so that whoever appends them to the log can tell that an earlier one is missing.
ALTER TABLE session ADD COLUMN last_revision bigint NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN revision bigint NOT NULL DEFAULT 0;
CREATE INDEX outbox_session ON outbox (session_id, revision);

CREATE INDEX message_parent ON message (parent_message_id, ordinal)
    WHERE parent_message_id IS NOT NULL;

-- What a message is found by: the words of its text, made by the program, so that both databases
-- find the same. Each begins with a digest of its session. A message gets its row, be it without
-- words, in the transaction that stores it, so a session's ids rise as its ordinals do; a deleted
-- message has none.
CREATE TABLE message_search (
    id         bigint   GENERATED ALWAYS AS IDENTITY,
    message_id uuid     PRIMARY KEY REFERENCES message (id) ON DELETE CASCADE,
    -- Without positions, and from an array: no text search configuration has a say in it.
    words      tsvector NOT NULL
);
-- Without a list of what is yet to be put into it, which each search would read to its end.
CREATE INDEX message_search_words ON message_search USING gin (words) WITH (fastupdate = off);

-- The messages stored before, which the program gives their rows as it starts, in this order.
CREATE TABLE message_unindexed (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id uuid   NOT NULL
);
INSERT INTO message_unindexed (message_id)
    SELECT id FROM message WHERE deleted_at IS NULL ORDER BY session_id, ordinal;
