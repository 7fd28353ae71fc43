//! Reads the transitions that match a filter, page by page, also those that are committed later. No transition is skipped or read twice.

use std::time::Duration;

use crate::core::transition::Transition;
use crate::database::{DatabaseReader, Filter, ReadError, Row, RowLimit};

/// The pause before new transitions are read. A reading without new rows takes less than 1 ms.
pub(super) const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Transitions of a page, about 400 kB of JSON. A cursor is saved after each page.
pub(super) const PAGE_ROWS: usize = 1000;

pub(super) struct Pages {
    reader: DatabaseReader,
    filter: Filter,
}

impl Pages {
    /// `filter.limit` is for the first page.
    pub(super) fn new(reader: DatabaseReader, filter: Filter) -> Self {
        Self { reader, filter }
    }

    /// The next rows, none if there are no new ones, and the id up to which rows have been read.
    pub(super) async fn next(&mut self) -> Result<(Vec<Row<Transition>>, i64), ReadError> {
        let (reader, filter) = (self.reader.clone(), self.filter.clone());
        let page = move || {
            // Read first: rows that are committed after this reading have higher ids.
            let last = reader.last_id()?;
            let is_read = filter.after == Some(last);
            let rows = if is_read { Vec::new() } else { reader.rows::<Transition>(&filter)? };
            let is_full = matches!(filter.limit, Some(RowLimit::First(limit)) if limit == rows.len());
            let position = match rows.last() {
                Some(row) if is_full => row.id,
                Some(row) => row.id.max(last),
                None => last,
            };
            Ok((rows, position))
        };
        let (rows, position) = blocking(page).await?;
        self.filter.after = Some(position);
        self.filter.limit = Some(RowLimit::First(PAGE_ROWS));
        Ok((rows, position))
    }
}

pub(super) async fn last_id(reader: DatabaseReader) -> Result<i64, ReadError> {
    blocking(move || reader.last_id()).await
}

/// A panic of the reading goes on here.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
