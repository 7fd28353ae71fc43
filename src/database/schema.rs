//! The record's schema, and the way to it from every earlier one.
//!
//! One sequence numbers the rows of all three tables: `id` tells in what order they were written, whichever table they
//! stand in and wherever the wall clock jumped.

use std::fmt::Display;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::chain::Link;
use super::connection::is_denied;
use super::{OpenError, chain, indexes};

/// `PRAGMA application_id`: "rfwt". It tells a record from any other SQLite database.
const APPLICATION_ID: i64 = 0x7266_7774;

/// The steps from an empty database to the present schema. `PRAGMA user_version` counts those that were taken. Append
/// only: a record out there has taken the old ones as they stand here.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE transitions (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    reference_store_id TEXT NOT NULL,
    import_job_id TEXT NOT NULL,
    from_status TEXT,
    to_status TEXT NOT NULL,
    observed_at TEXT NOT NULL,
    not_before TEXT,
    status_message TEXT,
    created_at TEXT,
    completed_at TEXT,
    anomaly TEXT
) STRICT;
CREATE INDEX transitions_of_job ON transitions (reference_store_id, import_job_id, target);
CREATE INDEX transitions_by_time ON transitions (observed_at);

CREATE TABLE source_transitions (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    reference_store_id TEXT NOT NULL,
    import_job_id TEXT NOT NULL,
    name TEXT NOT NULL,
    source_file TEXT NOT NULL,
    nth INTEGER NOT NULL,
    from_status TEXT,
    to_status TEXT NOT NULL,
    status_message TEXT,
    observed_at TEXT NOT NULL
) STRICT;
CREATE INDEX source_transitions_of_job ON source_transitions (reference_store_id, import_job_id, target);

CREATE TABLE details (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    reference_store_id TEXT NOT NULL,
    import_job_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT,
    observed_at TEXT NOT NULL
) STRICT;
CREATE INDEX details_of_job ON details (reference_store_id, import_job_id, target);
",
    "
ALTER TABLE transitions ADD COLUMN hash INTEGER NOT NULL DEFAULT 0;
ALTER TABLE source_transitions ADD COLUMN hash INTEGER NOT NULL DEFAULT 0;
ALTER TABLE details ADD COLUMN hash INTEGER NOT NULL DEFAULT 0;
",
];

/// The version of the present schema.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// Brings the schema up to date, at once or not at all.
///
/// # Errors
/// It is no record, a newer one, or it cannot be written.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let pending = &MIGRATIONS[version(connection, path)?..];
    if pending.is_empty() {
        return Ok(());
    }
    let take = |connection: &mut Connection| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        pending.iter().try_for_each(|migration| transaction.execute_batch(migration))?;
        chain::make(&transaction)?;
        transaction
            .execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"))?;
        transaction.commit()
    };
    take(connection).map_err(|error| failed(path, error))
}

/// Whether the file is a record without damage: the columns of the schema, every page and index as SQLite made them, every row as
/// it was written, up to the last one known to be on disk (`mark`) and whatever came after. A record of an older schema has no
/// hashes yet: there, SQLite's own check is all there is. One that is byte for byte what was found sound (`sealed`) is sound,
/// where it ends with the mark.
///
/// # Errors
/// It is no record, a damaged one, a newer one, or it cannot be read.
pub(super) fn check(connection: &Connection, path: &Path, mark: Option<Link>, sealed: bool) -> Result<(), OpenError> {
    let version = version(connection, path)?;
    let check = || {
        if version == 0 {
            return Ok(mark.map(|mark| format!("it is empty, and row {} that was recorded is not in it", mark.id)));
        }
        if version == VERSION && sealed && chain::last(connection)? == mark.unwrap_or_default() {
            return Ok(None);
        }
        // An index that somebody has added, or changed, is SQLite's to check.
        let own = version == VERSION && has_own_indexes(connection)?;
        let pages = if own { "PRAGMA quick_check(1)" } else { "PRAGMA integrity_check(1)" };
        let pages: String = connection.query_one(pages, [], |row| row.get(0))?;
        if pages != "ok" {
            return Ok(Some(pages));
        }
        if version < VERSION {
            return Ok(None);
        }
        if !is_whole(connection)? {
            return Ok(Some("its tables are not as they were made".to_owned()));
        }
        match chain::damage(connection, mark)? {
            None if own => indexes::damage(connection),
            found => Ok(found),
        }
    };
    match check() {
        Ok(None) => Ok(()),
        Ok(Some(damage)) => Err(not_a_record(path, &damage)),
        Err(error) => Err(failed(path, error)),
    }
}

/// Whether the indexes are those that the migrations make.
fn has_own_indexes(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT CAST(group_concat(sql, ';' ORDER BY sql) AS BLOB) FROM sqlite_schema WHERE type = 'index'";
    let indexes = |connection: &Connection| connection.query_one(sql, [], |row| row.get::<_, Option<Vec<u8>>>(0));
    Ok(indexes(connection)? == indexes(&made()?)?)
}

/// The schema as the migrations make it.
fn made() -> rusqlite::Result<Connection> {
    let made = Connection::open_in_memory()?;
    MIGRATIONS.iter().try_for_each(|migration| made.execute_batch(migration))?;
    Ok(made)
}

/// Whether the tables have the columns that the migrations make.
fn is_whole(connection: &Connection) -> rusqlite::Result<bool> {
    let made = made()?;
    // As bytes: a damaged name need not be UTF-8, and rusqlite's `column_names` panics on one that is not.
    let columns = |connection: &Connection, table| {
        let sql = "SELECT CAST(group_concat(name) AS BLOB) FROM pragma_table_info(?)";
        connection.query_one(sql, [table], |row| row.get::<_, Option<Vec<u8>>>(0))
    };
    chain::TABLES
        .iter()
        .try_fold(true, |whole, table| Ok(whole && columns(connection, table)? == columns(&made, table)?))
}

/// The version of the schema that stands: 0 for an empty database, at most [`VERSION`].
///
/// # Errors
/// It is no record, a newer one, or it cannot be read.
pub(super) fn version(connection: &Connection, path: &Path) -> Result<usize, OpenError> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|error| failed(path, error));
    let application_id = number("PRAGMA application_id")?;
    let user_version = number("PRAGMA user_version")?;
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    if (application_id, user_version, objects) == (0, 0, 0) {
        return Ok(0);
    }
    match usize::try_from(user_version) {
        _ if application_id != APPLICATION_ID => Err(not_a_record(path, &"it is the database of another application")),
        Ok(found) if found > VERSION => Err(OpenError::NewerSchema { path: path.into(), found, known: VERSION }),
        Ok(found) if found > 0 => Ok(found),
        Ok(_) | Err(_) => Err(not_a_record(path, &"its schema has no version")),
    }
}

/// What a failure of SQLite says of the file.
pub(super) fn failed(path: &Path, error: rusqlite::Error) -> OpenError {
    match error.sqlite_error_code() {
        // `Unknown` is SQLITE_ERROR: a format or a column that is not what refwatch wrote. No trouble with a disk, a lock or a
        // permission reads as one of these.
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) => not_a_record(path, &error),
        Some(ErrorCode::CannotOpen) if is_denied(path) => OpenError::NoAccess { path: path.into() },
        Some(_) | None => OpenError::Sqlite { path: path.into(), error },
    }
}

fn not_a_record(path: &Path, reason: &dyn Display) -> OpenError {
    OpenError::NotARecord { path: path.into(), reason: reason.to_string() }
}

/// Makes an empty record as the version that knew so many migrations left it.
#[cfg(test)]
pub(super) fn make_older(path: &Path, version: usize) {
    let connection = Connection::open(path).expect("a connection");
    MIGRATIONS[..version].iter().for_each(|migration| connection.execute_batch(migration).expect("a schema"));
    let versions = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};");
    connection.execute_batch(&versions).expect("its version");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every record out there has taken. A new migration adds to this; an old one that was changed shows here.
    const PINNED: &str = "
        CREATE TABLE transitions ( id INTEGER PRIMARY KEY, target TEXT NOT NULL, reference_store_id TEXT NOT NULL,
            import_job_id TEXT NOT NULL, from_status TEXT, to_status TEXT NOT NULL, observed_at TEXT NOT NULL,
            not_before TEXT, status_message TEXT, created_at TEXT, completed_at TEXT, anomaly TEXT , hash INTEGER NOT NULL DEFAULT 0) STRICT;
        CREATE INDEX transitions_of_job ON transitions (reference_store_id, import_job_id, target);
        CREATE INDEX transitions_by_time ON transitions (observed_at);
        CREATE TABLE source_transitions ( id INTEGER PRIMARY KEY, target TEXT NOT NULL, reference_store_id TEXT NOT NULL,
            import_job_id TEXT NOT NULL, name TEXT NOT NULL, source_file TEXT NOT NULL, nth INTEGER NOT NULL,
            from_status TEXT, to_status TEXT NOT NULL, status_message TEXT, observed_at TEXT NOT NULL , hash INTEGER NOT NULL DEFAULT 0) STRICT;
        CREATE INDEX source_transitions_of_job ON source_transitions (reference_store_id, import_job_id, target);
        CREATE TABLE details ( id INTEGER PRIMARY KEY, target TEXT NOT NULL, reference_store_id TEXT NOT NULL,
            import_job_id TEXT NOT NULL, kind TEXT NOT NULL, value TEXT, observed_at TEXT NOT NULL , hash INTEGER NOT NULL DEFAULT 0) STRICT;
        CREATE INDEX details_of_job ON details (reference_store_id, import_job_id, target);";

    #[test]
    fn the_migrations_lead_to_the_schema_that_records_out_there_have() {
        let mut connection = Connection::open_in_memory().expect("memory");
        for _ in 0..2 {
            migrate(&mut connection, Path::new("")).expect("a schema");
        }
        let schema: String = connection
            .query_one("SELECT group_concat(sql || ';', ' ' ORDER BY rowid) FROM sqlite_schema", [], |row| row.get(0))
            .expect("its text");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(&schema), words(PINNED));
        assert_eq!(version(&connection, Path::new("")).expect("a version"), 2);
    }
}
