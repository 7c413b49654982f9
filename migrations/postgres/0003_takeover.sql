-- What nodes say of themselves, and what is kept of how an answer came about.
-- The twin of migrations/sqlite/0003_takeover.sql.
-- Nodes of the version before name none of these columns: they are taken for full, so that nobody
-- gives them a generation which they would not hear of.

ALTER TABLE node ADD COLUMN running bigint NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN running_max bigint NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN draining boolean NOT NULL DEFAULT false;

-- The table is small now that silent nodes are deleted, and without an index on what changes with
-- each heartbeat a row is renewed in its place.
DROP INDEX node_heartbeat;

-- How often providers failed before the answer ended.
ALTER TABLE stream ADD COLUMN errors bigint NOT NULL DEFAULT 0;

-- How often the node that ran it died or lost it; one that handed it over did neither.
ALTER TABLE stream ADD COLUMN losses bigint NOT NULL DEFAULT 0;
