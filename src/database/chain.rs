//! The chain of hashes by which damage shows: a row's `hash` is the digest of its content, combined by exclusive or with that of
//! the row before it in the order of ids, whichever table that one stands in.
//!
//! So a row that was changed fits neither its own hash nor the next one's, and one that was lost is missed by the next. To take
//! a row out, its hash is combined with that of the row after it, and nothing else changes; damage stays noticed where it
//! was. The chain notices accidents: whoever can write the file can also make its hashes.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Result, Row, Transaction};
use sha2::{Digest as _, Sha256};

/// The tables whose rows are chained. In each, `id` is the first column and `hash` the last.
pub(super) const TABLES: [&str; 3] = ["transitions", "source_transitions", "details"];

/// A row, as far as the chain knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) id: i64,
    /// Of all its columns but `hash`.
    pub(super) digest: i64,
}

impl Link {
    /// The link after this one, and the hash that goes into its row. `columns` are those between `id` and `hash`, in the table's
    /// order.
    pub(super) fn next<'a>(self, table: &str, columns: impl Iterator<Item = &'a Value>) -> (Self, i64) {
        let id = self.id + 1;
        let mut content = Vec::new();
        begin(&mut content, table);
        add(&mut content, ValueRef::Integer(id));
        columns.for_each(|value| add(&mut content, value.into()));
        let digest = digest(&content);
        (Self { id, digest }, digest ^ self.digest)
    }
}

/// The last row: what the next one is chained to. An empty record has the default.
pub(super) fn last(connection: &Connection) -> Result<Link> {
    let mut last = Link::default();
    for table in TABLES {
        let mut select = connection.prepare_cached(&format!("SELECT * FROM {table} ORDER BY id DESC LIMIT 1"))?;
        let row = select.query_row([], |row| read(row, table, &mut Vec::new())).optional()?;
        last =
            row.map(|(link, _)| link).into_iter().fold(last, |last, link| if link.id > last.id { link } else { last });
    }
    Ok(last)
}

/// Closes the chain where rows with these ids and hashes were deleted.
pub(super) fn close(transaction: &Transaction<'_>, deleted: &[(i64, i64)]) -> Result<()> {
    for (id, hash) in deleted {
        let mut after: Option<(i64, &str)> = None;
        for table in TABLES {
            let next = format!("SELECT min(id) FROM {table} WHERE id > ?");
            let next: Option<i64> = transaction.prepare_cached(&next)?.query_one([id], |row| row.get(0))?;
            after = after.into_iter().chain(next.map(|next| (next, table))).min();
        }
        if let Some((after, table)) = after {
            let old = format!("SELECT hash FROM {table} WHERE id = ?");
            let old: i64 = transaction.prepare_cached(&old)?.query_one([after], |row| row.get(0))?;
            let combine = format!("UPDATE {table} SET hash = ? WHERE id = ?");
            transaction.prepare_cached(&combine)?.execute([old ^ hash, after])?;
        }
    }
    Ok(())
}

/// Gives every row its hash, whatever it had. For a migration: it hides damage.
pub(super) fn make(transaction: &Transaction<'_>) -> Result<()> {
    let mut last = Link::default();
    for (link, table, _) in links(transaction)? {
        let set = format!("UPDATE {table} SET hash = ? WHERE id = ?");
        transaction.prepare_cached(&set)?.execute([link.digest ^ last.digest, link.id])?;
        last = link;
    }
    Ok(())
}

/// Where the chain is broken, in words; `None`: nowhere. `mark` is a row that was acknowledged, where one is known.
pub(super) fn damage(connection: &Connection, mark: Option<Link>) -> Result<Option<String>> {
    let (mut last, mut marked) = (Link::default(), mark.is_none());
    for (link, table, hash) in links(connection)? {
        if link.digest ^ last.digest != hash {
            return Ok(Some(format!(
                "row {} of {table} is not as it was written, or not after row {}",
                link.id, last.id
            )));
        }
        marked |= mark == Some(link);
        last = link;
    }
    let unmet =
        |mark: Link| format!("it ends with row {}, and row {} that was recorded is not in it", last.id, mark.id);
    Ok(mark.filter(|_| !marked).map(unmet))
}

/// Every row with its table and hash, by id.
fn links(connection: &Connection) -> Result<Vec<(Link, &'static str, i64)>> {
    let (mut links, mut content) = (Vec::new(), Vec::new());
    for table in TABLES {
        let mut select = connection.prepare(&format!("SELECT * FROM {table} ORDER BY id"))?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (link, hash) = read(row, table, &mut content)?;
            links.push((link, table, hash));
        }
    }
    links.sort_by_key(|(link, _, _)| link.id);
    Ok(links)
}

fn read(row: &Row<'_>, table: &str, content: &mut Vec<u8>) -> Result<(Link, i64)> {
    let hash = row.as_ref().column_count() - 1;
    begin(content, table);
    for column in 0..hash {
        add(content, row.get_ref(column)?);
    }
    Ok((Link { id: row.get(0)?, digest: digest(content) }, row.get(hash)?))
}

fn begin(content: &mut Vec<u8>, table: &str) {
    content.clear();
    add(content, ValueRef::Text(table.as_bytes()));
}

/// Adds a value in a form that no other values have: its type and, where lengths vary, its length before it.
fn add(content: &mut Vec<u8>, value: ValueRef<'_>) {
    let mut add = |kind: u8, bytes: &[u8]| {
        content.push(kind);
        content.extend_from_slice(bytes);
    };
    match value {
        ValueRef::Null => add(0, &[]),
        ValueRef::Integer(number) => add(1, &number.to_le_bytes()),
        ValueRef::Real(number) => add(2, &number.to_le_bytes()),
        ValueRef::Text(text) => {
            add(3, &text.len().to_le_bytes());
            content.extend_from_slice(text);
        }
        ValueRef::Blob(blob) => {
            add(4, &blob.len().to_le_bytes());
            content.extend_from_slice(blob);
        }
    }
}

fn digest(content: &[u8]) -> i64 {
    Sha256::digest(content).iter().take(8).fold(0, |digest, &byte| digest << 8 | i64::from(byte))
}
