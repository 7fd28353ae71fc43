//! The schema, its migrations, and SQLite's check of the file.
//!
//! The rows of the three tables with changes of jobs are numbered in one sequence. `id` gives the order of writing, even if the wall clock
//! was set back.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::errors::FileError;

/// `PRAGMA application_id`: "rfwt".
pub(super) const APPLICATION_ID: i32 = 0x7266_7774;

/// The migrations from an empty database to the present schema. `PRAGMA user_version` is the number of applied migrations. Append
/// only: existing databases have applied the old migrations.
const MIGRATIONS: [&str; 7] = [
    include_str!("migrations/1.sql"),
    include_str!("migrations/2.sql"),
    include_str!("migrations/3.sql"),
    include_str!("migrations/4.sql"),
    include_str!("migrations/5.sql"),
    include_str!("migrations/6.sql"),
    include_str!("migrations/7.sql"),
];

pub(super) const VERSION: usize = MIGRATIONS.len();

/// Migrates to the present schema, in one transaction.
///
/// # Errors
/// The file is not a database of refwatch, its schema is newer, or it cannot be written.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), FileError> {
    let pending = &MIGRATIONS[version(connection, path)?..];
    if pending.is_empty() {
        return Ok(());
    }
    let apply = |connection: &mut Connection| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        pending.iter().try_for_each(|migration| transaction.execute_batch(migration))?;
        transaction
            .execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"))?;
        transaction.commit()
    };
    apply(connection).map_err(|error| FileError::of_sqlite(path, error))
}

/// Checks that the database is empty or was made by refwatch and, after an unclean stop, that SQLite finds no damage.
///
/// It uses `quick_check`, which takes 0.4 s for 500,000 transitions. `integrity_check` takes 1.4 s, because it also compares rows with
/// indexes.
///
/// # Errors
/// The file is damaged or not a database of refwatch, its schema is newer, or it cannot be read.
pub(super) fn check(connection: &Connection, path: &Path, needs_check: bool) -> Result<(), FileError> {
    let version = version(connection, path)?;
    if version > 0 && needs_check {
        let found: String = connection
            .query_one("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| FileError::of_sqlite(path, error))?;
        if found != "ok" {
            return Err(FileError::damaged(path, &found));
        }
    }
    Ok(())
}

/// Reads the version of the schema: 0 for an empty database, at most [`VERSION`].
///
/// # Errors
/// The file is not a database of refwatch, its schema is newer, or it cannot be read.
pub(super) fn version(connection: &Connection, path: &Path) -> Result<usize, FileError> {
    let number = |sql| {
        let read = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        read.map_err(|error| FileError::of_sqlite(path, error))
    };
    let application_id = number("PRAGMA application_id")?;
    let user_version = number("PRAGMA user_version")?;
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    if (application_id, user_version, objects) == (0, 0, 0) {
        return Ok(0);
    }
    if application_id != i64::from(APPLICATION_ID) {
        let looks_like_ours = number("SELECT count(*) FROM sqlite_schema WHERE name = 'transitions'")? > 0;
        return Err(if looks_like_ours {
            FileError::damaged(path, &"its application id is wrong")
        } else {
            FileError::foreign(path, "the database of another program")
        });
    }
    match usize::try_from(user_version) {
        Ok(found) if found > VERSION => Err(FileError::NewerSchema { path: path.into(), found, known: VERSION }),
        Ok(found) if found > 0 => Ok(found),
        Ok(_) | Err(_) => Err(FileError::damaged(path, &"its schema has no version")),
    }
}

/// Creates an empty database of an older version.
#[cfg(test)]
pub(super) fn create_version(path: &Path, version: usize) {
    let connection = Connection::open(path).expect("a connection");
    MIGRATIONS[..version].iter().for_each(|migration| connection.execute_batch(migration).expect("a schema"));
    let versions = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};");
    connection.execute_batch(&versions).expect("its version");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema after all migrations.
    const PRESENT_SCHEMA: &str = "
        CREATE VIEW failed_deliveries AS
            SELECT sink, transition_id, reason, attempts, at FROM deliveries WHERE next_attempt_at IS NULL;
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
        CREATE TABLE \"transitions\" ( id INTEGER PRIMARY KEY, target TEXT NOT NULL, kind TEXT NOT NULL,
            store_id TEXT NOT NULL, job_id TEXT NOT NULL, from_status TEXT, to_status TEXT NOT NULL,
            observed_at TEXT NOT NULL, not_before TEXT, status_message TEXT, created_at TEXT, completed_at TEXT,
            anomaly TEXT , region TEXT, watch TEXT, labels TEXT) STRICT;
        CREATE TABLE \"details\" ( id INTEGER PRIMARY KEY, target TEXT NOT NULL, kind TEXT NOT NULL,
            store_id TEXT NOT NULL, job_id TEXT NOT NULL, detail TEXT NOT NULL, value TEXT,
            observed_at TEXT NOT NULL ) STRICT;
        CREATE TABLE \"item_transitions\" ( id INTEGER PRIMARY KEY, target TEXT NOT NULL, kind TEXT NOT NULL,
            store_id TEXT NOT NULL, job_id TEXT NOT NULL, name TEXT NOT NULL, source_file TEXT NOT NULL,
            nth INTEGER NOT NULL, from_status TEXT, to_status TEXT, status_message TEXT,
            observed_at TEXT NOT NULL ) STRICT;
        CREATE TABLE sinks ( name TEXT PRIMARY KEY, cursor INTEGER NOT NULL, created_at TEXT NOT NULL,
            config_hash TEXT NOT NULL, disabled_at TEXT ) STRICT;
        CREATE TABLE deliveries ( sink TEXT NOT NULL, transition_id INTEGER NOT NULL, target TEXT NOT NULL,
            kind TEXT NOT NULL, store_id TEXT NOT NULL, job_id TEXT NOT NULL, attempts INTEGER NOT NULL,
            next_attempt_at TEXT, reason TEXT, at TEXT, PRIMARY KEY (sink, transition_id) ) STRICT;
        CREATE INDEX transitions_of_job ON transitions (store_id, job_id, kind, target);
        CREATE INDEX transitions_by_time ON transitions (observed_at);
        CREATE INDEX details_of_job ON details (store_id, job_id, kind, target);
        CREATE INDEX item_transitions_of_job ON item_transitions (store_id, job_id, kind, target);
        CREATE INDEX deliveries_of_job ON deliveries (store_id, job_id, kind, target, sink, transition_id);";

    #[test]
    fn the_migrations_produce_the_present_schema() {
        let mut connection = Connection::open_in_memory().expect("memory");
        for _ in 0..2 {
            migrate(&mut connection, Path::new("")).expect("a schema");
        }
        let schema: String = connection
            .query_one("SELECT group_concat(sql || ';', ' ' ORDER BY type DESC, rowid) FROM sqlite_schema", [], |row| {
                row.get(0)
            })
            .expect("its text");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(&schema), words(PRESENT_SCHEMA));
        assert_eq!(version(&connection, Path::new("")).expect("a version"), 7);
    }
}
