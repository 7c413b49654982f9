-- Sending, changing and finding messages; the order of a session's stored events.
-- The twin of migrations/sqlite/0002_messages.sql.

-- Counts the stored events of a session, as last_ordinal counts its messages: given under the same
-- row lock, so that whoever appends them to the log can tell that an earlier one is missing.
ALTER TABLE session ADD COLUMN last_revision bigint NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN revision bigint NOT NULL DEFAULT 0;
CREATE INDEX outbox_session ON outbox (session_id, revision);

CREATE INDEX message_parent ON message (parent_message_id, ordinal)
    WHERE parent_message_id IS NOT NULL;

-- What a message is found by: the words of its text and one that stands for its session, all made
-- by the program, so that both databases find the same. A deleted message has no row.
CREATE TABLE message_search (
    message_id uuid     PRIMARY KEY REFERENCES message (id) ON DELETE CASCADE,
    words      tsvector NOT NULL
);
CREATE INDEX message_search_words ON message_search USING gin (words);
