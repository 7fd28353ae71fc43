-- Prepares the tables for other kinds of jobs: kind is the kind of job, and all names but source_file are generic.
-- Drops the column hash. source_transitions becomes item_transitions, and details.kind becomes details.detail.
CREATE TABLE new_transitions (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    kind TEXT NOT NULL,
    store_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    from_status TEXT,
    to_status TEXT NOT NULL,
    observed_at TEXT NOT NULL,
    not_before TEXT,
    status_message TEXT,
    created_at TEXT,
    completed_at TEXT,
    anomaly TEXT
) STRICT;
INSERT INTO new_transitions
SELECT id, target, 'reference_import', reference_store_id, import_job_id, from_status, to_status, observed_at, not_before,
    status_message, created_at, completed_at, anomaly FROM transitions;
DROP TABLE transitions;
ALTER TABLE new_transitions RENAME TO transitions;
CREATE INDEX transitions_of_job ON transitions (store_id, job_id, kind, target);
CREATE INDEX transitions_by_time ON transitions (observed_at);

CREATE TABLE item_transitions (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    kind TEXT NOT NULL,
    store_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    name TEXT NOT NULL,
    source_file TEXT NOT NULL,
    nth INTEGER NOT NULL,
    from_status TEXT,
    to_status TEXT NOT NULL,
    status_message TEXT,
    observed_at TEXT NOT NULL
) STRICT;
INSERT INTO item_transitions
SELECT id, target, 'reference_import', reference_store_id, import_job_id, name, source_file, nth, from_status, to_status,
    status_message, observed_at FROM source_transitions;
DROP TABLE source_transitions;
CREATE INDEX item_transitions_of_job ON item_transitions (store_id, job_id, kind, target);

CREATE TABLE new_details (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    kind TEXT NOT NULL,
    store_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    detail TEXT NOT NULL,
    value TEXT,
    observed_at TEXT NOT NULL
) STRICT;
INSERT INTO new_details
SELECT id, target, 'reference_import', reference_store_id, import_job_id, kind, value, observed_at FROM details;
DROP TABLE details;
ALTER TABLE new_details RENAME TO details;
CREATE INDEX details_of_job ON details (store_id, job_id, kind, target);
