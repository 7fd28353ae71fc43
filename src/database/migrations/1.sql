-- not_before is when the old status was last observed: the transition was between not_before and observed_at. nth distinguishes the items of a job
-- with the same name and source_file.
-- details.kind is the kind of detail. Migration 3 renames it.
CREATE TABLE transitions (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    reference_store_id TEXT NOT NULL,
    import_job_id TEXT NOT NULL,
    from_status TEXT,
    to_status TEXT NOT NULL,
    observed_at TEXT NOT NULL,
    not_before TEXT,
    status_message TEXT,
    created_at TEXT,
    completed_at TEXT,
    anomaly TEXT
) STRICT;
CREATE INDEX transitions_of_job ON transitions (reference_store_id, import_job_id, target);
CREATE INDEX transitions_by_time ON transitions (observed_at);

CREATE TABLE source_transitions (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    reference_store_id TEXT NOT NULL,
    import_job_id TEXT NOT NULL,
    name TEXT NOT NULL,
    source_file TEXT NOT NULL,
    nth INTEGER NOT NULL,
    from_status TEXT,
    to_status TEXT NOT NULL,
    status_message TEXT,
    observed_at TEXT NOT NULL
) STRICT;
CREATE INDEX source_transitions_of_job ON source_transitions (reference_store_id, import_job_id, target);

CREATE TABLE details (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    reference_store_id TEXT NOT NULL,
    import_job_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT,
    observed_at TEXT NOT NULL
) STRICT;
CREATE INDEX details_of_job ON details (reference_store_id, import_job_id, target);
