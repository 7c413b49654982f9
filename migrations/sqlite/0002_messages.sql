-- Sending, changing and finding messages; the order of a session's stored events.
-- The twin of migrations/postgres/0002_messages.sql.

-- Counts the stored events of a session, as last_ordinal counts its messages: given under the same
-- lock, so that whoever appends them to the log can tell that an earlier one is missing.
ALTER TABLE session ADD COLUMN last_revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
CREATE INDEX outbox_session ON outbox (session_id, revision);

CREATE INDEX message_parent ON message (parent_message_id, ordinal)
    WHERE parent_message_id IS NOT NULL;

-- What a message is found by: the words of its text, made by the program, so that both databases
-- find the same. Each begins with a digest of its session. A message gets its row, be it without
-- words, in the transaction that stores it, so a session's ids rise as its ordinals do; a deleted
-- message has none.
CREATE TABLE message_search (
    -- An alias of the rowid, which the index refers to: another rowid may change at a VACUUM.
    id         INTEGER PRIMARY KEY,
    message_id BLOB    NOT NULL UNIQUE REFERENCES message (id) ON DELETE CASCADE,
    words      TEXT    NOT NULL
) STRICT;
-- Every character beyond ASCII belongs to a word: only the spaces between our words divide them.
CREATE VIRTUAL TABLE message_search_words USING fts5 (
    words, content = 'message_search', content_rowid = 'id', tokenize = 'ascii', detail = 'none'
);
CREATE TRIGGER message_search_insert AFTER INSERT ON message_search BEGIN
    INSERT INTO message_search_words (rowid, words) VALUES (new.id, new.words);
END;
CREATE TRIGGER message_search_delete AFTER DELETE ON message_search BEGIN
    INSERT INTO message_search_words (message_search_words, rowid, words)
    VALUES ('delete', old.id, old.words);
END;
CREATE TRIGGER message_search_update AFTER UPDATE ON message_search BEGIN
    INSERT INTO message_search_words (message_search_words, rowid, words)
    VALUES ('delete', old.id, old.words);
    INSERT INTO message_search_words (rowid, words) VALUES (new.id, new.words);
END;

-- The messages stored before, which the program gives their rows as it starts, in this order.
CREATE TABLE message_unindexed (
    id         INTEGER PRIMARY KEY,
    message_id BLOB    NOT NULL
) STRICT;
INSERT INTO message_unindexed (message_id)
    SELECT id FROM message WHERE deleted_at IS NULL ORDER BY session_id, ordinal;
