-- An index that also finds the deliveries of a job over all sinks.
DROP INDEX deliveries_waiting;
CREATE INDEX deliveries_of_job ON deliveries (store_id, job_id, kind, target, sink, transition_id);
