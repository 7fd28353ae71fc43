//! Whether the indexes have the rows that the tables have, each in its order: rows are found by them.
//!
//! SQLite's own check of that looks every row up in every index, which is most of a start with a long record. Here a table and an
//! index are read from end to end, and what was read is compared by the sum of its hashes. How their pages hang together is for
//! SQLite to check, and before this, or reading them might find no end.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

/// Every index of the schema, with its table and its columns. SQLite puts `id` after them.
pub(super) const INDEXES: [(&str, &str, &str); 4] = [
    ("transitions_of_job", "transitions", "reference_store_id, import_job_id, target"),
    ("transitions_by_time", "transitions", "observed_at"),
    ("source_transitions_of_job", "source_transitions", "reference_store_id, import_job_id, target"),
    ("details_of_job", "details", "reference_store_id, import_job_id, target"),
];

/// Which index does not fit its table, in words; `None`: none.
pub(super) fn damage(connection: &Connection) -> Result<Option<String>> {
    for (index, table, columns) in INDEXES {
        let rows = Content::read(connection, &format!("SELECT {columns}, id FROM {table} NOT INDEXED"))?;
        let entries = Content::read(connection, &by_index(index, table, columns))?;
        if !entries.ascend || entries.sum != rows.sum {
            return Ok(Some(format!("the index {index} does not fit the rows of {table}")));
        }
    }
    Ok(None)
}

/// What reads an index alone, in the order that it has.
pub(super) fn by_index(index: &str, table: &str, columns: &str) -> String {
    format!("SELECT {columns}, id FROM {table} INDEXED BY {index} ORDER BY {columns}, id")
}

/// What was read, in whatever order.
struct Content {
    /// Whether each row was greater than the one before it, as SQLite compares texts, and then ids.
    ascend: bool,
    sum: u64,
}

impl Content {
    fn read(connection: &Connection, sql: &str) -> Result<Self> {
        let mut select = connection.prepare(sql)?;
        let mut texts = vec![Vec::new(); select.column_count() - 1];
        let (mut last, mut last_id) = (texts.clone(), i64::MIN);
        let mut rows = select.query([])?;
        let mut content = Self { ascend: true, sum: 0 };
        while let Some(row) = rows.next()? {
            for (column, text) in texts.iter_mut().enumerate() {
                text.clear();
                // Nothing else is in these columns, and if it is it is damage: the table's own are checked by SQLite and the
                // chain.
                if let ValueRef::Text(bytes) = row.get_ref(column)? {
                    text.extend_from_slice(bytes);
                }
            }
            let id = row.get(texts.len())?;
            content.ascend &= (&last, last_id) < (&texts, id);
            let mut hasher = DefaultHasher::new();
            (&texts, id).hash(&mut hasher);
            content.sum = content.sum.wrapping_add(hasher.finish());
            mem::swap(&mut last, &mut texts);
            last_id = id;
        }
        Ok(content)
    }
}
