-- The events that a sink may be notified of: a job has reached the status `type`, or vanished.
CREATE VIEW events AS
    SELECT id, target, kind, store_id, job_id, to_status AS type, observed_at, watch,
        from_status IS NULL AS is_first, completed_at
    FROM transitions
    UNION ALL
    SELECT id, target, kind, store_id, job_id, detail, observed_at,
        (SELECT watch FROM transitions AS latest WHERE store_id = details.store_id AND job_id = details.job_id
            AND kind = details.kind AND target = details.target AND id < details.id ORDER BY id DESC LIMIT 1),
        FALSE, NULL
    FROM details WHERE detail = 'vanished';
