//! Reads the transitions that match a filter, page by page, also those that are committed later. No transition is skipped or read twice.

use std::time::Duration;

use crate::core::transition::Transition;
use crate::database::{DatabaseReader, Filter, ReadError, Row, RowLimit};

/// The pause before new transitions are read. A reading without new rows takes less than 1 ms.
pub(super) const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Transitions of a page, about 400 kB of JSON. A cursor is saved after each page.
pub(super) const PAGE_ROWS: usize = 1000;

/// Reads the next rows, none if there are no new ones, and the id up to which rows have been read. `filter` then selects the rows after
/// that id. `filter.limit` is for the first page. Blocks on the disk.
pub(super) fn next_page(
    reader: &DatabaseReader,
    filter: &mut Filter,
) -> Result<(Vec<Row<Transition>>, i64), ReadError> {
    // Read first: rows that are committed after this reading have higher ids.
    let last = reader.last_id()?;
    let rows = if filter.after == Some(last) { Vec::new() } else { reader.rows::<Transition>(filter)? };
    let is_full = matches!(filter.limit, Some(RowLimit::First(limit)) if limit == rows.len());
    let position = match rows.last() {
        Some(row) if is_full => row.id,
        Some(row) => row.id.max(last),
        None => last,
    };
    filter.after = Some(position);
    filter.limit = Some(RowLimit::First(PAGE_ROWS));
    Ok((rows, position))
}
