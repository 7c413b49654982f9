-- What nodes say of themselves, and what is kept of how an answer came about.
-- The twin of migrations/postgres/0003_takeover.sql.
-- Nodes of the version before name none of these columns: they are taken for full, so that nobody
-- gives them a generation which they would not hear of.

ALTER TABLE node ADD COLUMN running INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN running_max INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;

-- The table is small now that silent nodes are deleted.
DROP INDEX node_heartbeat;

-- How often providers failed before the answer ended.
ALTER TABLE stream ADD COLUMN errors INTEGER NOT NULL DEFAULT 0;

-- How often the node that ran it died or lost it; one that handed it over did neither.
ALTER TABLE stream ADD COLUMN losses INTEGER NOT NULL DEFAULT 0;
