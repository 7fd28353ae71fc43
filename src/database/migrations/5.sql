-- The region that was polled, and the name and labels of the configuration's entry because of which the job was watched. NULL in rows of
-- earlier versions. labels is a JSON object.
ALTER TABLE transitions ADD COLUMN region TEXT;
ALTER TABLE transitions ADD COLUMN watch TEXT;
ALTER TABLE transitions ADD COLUMN labels TEXT;

-- The rows up to the cursor were sent, or are in deliveries, or are not for this sink. disabled_at is when the receiver responded with 410.
-- config_hash is the hash of the sink's configuration: a changed hash enables the sink again.
CREATE TABLE sinks (
    name TEXT PRIMARY KEY,
    cursor INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    config_hash TEXT NOT NULL,
    disabled_at TEXT
) STRICT;

-- Events that wait for their delivery, and failed ones. transition_id is the id of a transition, or of the detail "vanished".
-- next_attempt_at is NULL once the delivery has failed. attempts counts the rejections by the receiver; an
-- unreadable row also counts as one. at is the time of the last rejection.
CREATE TABLE deliveries (
    sink TEXT NOT NULL,
    transition_id INTEGER NOT NULL,
    target TEXT NOT NULL,
    kind TEXT NOT NULL,
    store_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt_at TEXT,
    reason TEXT,
    at TEXT,
    PRIMARY KEY (sink, transition_id)
) STRICT;
CREATE INDEX deliveries_waiting ON deliveries (sink, store_id, job_id, kind, target, transition_id)
    WHERE next_attempt_at IS NOT NULL;
CREATE VIEW failed_deliveries AS
    SELECT sink, transition_id, reason, attempts, at FROM deliveries WHERE next_attempt_at IS NULL;
