-- item_transitions.to_status may be NULL: the service no longer names the item.
CREATE TABLE new_item_transitions (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    kind TEXT NOT NULL,
    store_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    name TEXT NOT NULL,
    source_file TEXT NOT NULL,
    nth INTEGER NOT NULL,
    from_status TEXT,
    to_status TEXT,
    status_message TEXT,
    observed_at TEXT NOT NULL
) STRICT;
INSERT INTO new_item_transitions
SELECT id, target, kind, store_id, job_id, name, source_file, nth, from_status, to_status, status_message, observed_at
FROM item_transitions;
DROP TABLE item_transitions;
ALTER TABLE new_item_transitions RENAME TO item_transitions;
CREATE INDEX item_transitions_of_job ON item_transitions (store_id, job_id, kind, target);
