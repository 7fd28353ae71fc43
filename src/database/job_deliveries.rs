//! Reads the notifications of a job that wait for delivery or have failed.

use super::errors::ReadError;
use super::queries::DatabaseReader;
use crate::core::job::JobKey;

/// A notification that is not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobDelivery {
    pub sink: String,
    pub target: String,
    /// The status, or `vanished`. Empty if its row was deleted.
    pub event_type: String,
    /// How often the event was rejected so far. Requests that paused the sink do not count.
    pub rejections: u32,
    /// Only a replay sends it again.
    pub has_failed: bool,
    /// Why it was rejected last.
    pub reason: Option<String>,
}

/// `transition_id` is the id of an event. The base tables are read: SQLite would scan the view `events` for an id of an outer row.
pub(super) const DELIVERIES_OF_JOB: &str = "SELECT sink, target,
        coalesce((SELECT to_status FROM transitions WHERE id = transition_id),
            (SELECT detail FROM details WHERE id = transition_id), ''),
        attempts, next_attempt_at IS NULL, reason
    FROM deliveries WHERE store_id = ? AND job_id = ? AND kind = ? ORDER BY sink, transition_id LIMIT ?";

impl DatabaseReader {
    /// Reads the deliveries of a job over all targets, ordered by sink and age, at most `limit`.
    ///
    /// # Errors
    /// There is no database, its schema has another version, or it cannot be read.
    pub fn deliveries(&self, job: &JobKey, limit: usize) -> Result<Vec<JobDelivery>, ReadError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.in_transaction(|connection| {
            let params = rusqlite::params![job.store.as_str(), job.job.as_str(), job.kind.as_str(), limit];
            let read = |row: &rusqlite::Row<'_>| {
                Ok(JobDelivery {
                    sink: row.get(0)?,
                    target: row.get(1)?,
                    event_type: row.get(2)?,
                    rejections: row.get(3)?,
                    has_failed: row.get(4)?,
                    reason: row.get(5)?,
                })
            };
            connection.prepare_cached(DELIVERIES_OF_JOB)?.query_map(params, read)?.collect()
        })
    }
}
