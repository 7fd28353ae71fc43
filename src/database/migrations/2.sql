-- Version 2 chained the rows by hashes. Migration 3 removes the hashes.
ALTER TABLE transitions ADD COLUMN hash INTEGER NOT NULL DEFAULT 0;
ALTER TABLE source_transitions ADD COLUMN hash INTEGER NOT NULL DEFAULT 0;
ALTER TABLE details ADD COLUMN hash INTEGER NOT NULL DEFAULT 0;
