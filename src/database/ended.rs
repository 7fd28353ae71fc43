//! Reads the ends of jobs, for the page of ended jobs. The page also shows jobs that are no longer watched: they are only in the database.

use std::ops::Range;

use rusqlite::Connection;

use super::changes::terminal_statuses;
use super::errors::ReadError;
use super::queries::{DatabaseReader, select};
use super::tables::{Row, millisecond_text};
use crate::core::time::Timestamp;
use crate::core::transition::Transition;

impl DatabaseReader {
    /// Reads the last transition of each job whose end was observed in the range, the latest first, at most `limit`.
    ///
    /// # Errors
    /// There is no database, its schema has another version, or it cannot be read.
    pub fn ended_jobs(&self, range: &Range<Timestamp>, limit: usize) -> Result<Vec<Row<Transition>>, ReadError> {
        let clauses = format!(
            "WHERE observed_at >= ? AND observed_at < ? AND to_status IN ({}) AND NOT EXISTS (
                 SELECT 1 FROM transitions AS later WHERE later.id > transitions.id AND later.store_id = transitions.store_id
                     AND later.job_id = transitions.job_id AND later.kind = transitions.kind AND later.target = transitions.target)
             ORDER BY observed_at DESC, id DESC",
            terminal_statuses()
        );
        let times = [range.start, range.end].map(millisecond_text);
        self.in_transaction(|connection: &Connection| select(connection, &clauses, times.each_ref(), limit))
    }
}
