//! The three tables with changes of jobs: which type of `crate::core` each stores, and how its values map to columns. Most columns have
//! the name of their field. `from_status` and `to_status` are `from` and `to`. The column `watch` is `WatchInfo::name`.
//!
//! Each table starts with the columns `id`, `target`, `kind`, `store_id`, `job_id`. `kind` is the kind of job. The [`DetailKind`]
//! of a detail is in the column `detail`.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use rusqlite::types::{Type, Value};
use serde::ser::{Error as _, Serialize, SerializeMap as _, Serializer};

use crate::core::job::{Item, ItemKey, ItemStatus, JobKey, JobStatus, Labels, TargetJob};
use crate::core::time::Timestamp;
use crate::core::transition::{Anomaly, Detail, DetailKind, ItemTransition, Transition, WatchInfo};

/// A type whose values are stored in a table, one value a row.
pub trait Stored: Sized {
    const TABLE: &str;
    /// The columns after those of the job.
    const COLUMNS: &[&str];

    fn values(&self) -> Vec<Value>;

    /// # Errors
    /// A value has the wrong type or range, or a time or a kind of detail cannot be parsed. An unknown anomaly is read as `None`.
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<T> {
    /// The order of writing, over all tables.
    pub id: i64,
    pub target_job: TargetJob,
    pub value: T,
}

impl<T: Stored> Row<T> {
    /// # Errors
    /// As [`Stored::read`], or the kind or an id of the job cannot be parsed.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let key = JobKey { kind: parsed(row, "kind")?, store: parsed(row, "store_id")?, job: parsed(row, "job_id")? };
        let target_job = TargetJob { target: row.get::<_, Box<str>>("target")?.into(), key };
        Ok(Self { id: row.get("id")?, target_job, value: T::read(row)? })
    }
}

impl Stored for Transition {
    const TABLE: &str = "transitions";
    const COLUMNS: &[&str] = &[
        "from_status",
        "to_status",
        "observed_at",
        // When the old status was last observed, or `observed_at` if that is earlier (the clock was set back). NULL at the first
        // observation.
        "not_before",
        "status_message",
        "created_at",
        "completed_at",
        // The rule of the life cycle that the transition breaks.
        "anomaly",
        "region",
        "watch",
        "labels",
    ];

    fn values(&self) -> Vec<Value> {
        let Self { from, to, observed_at, not_before, status_message, created_at, completed_at, anomaly, watch } = self;
        let watch = watch.as_deref();
        vec![
            from.as_ref().map(|from| from.as_str().to_owned()).into(),
            text_value(to.as_str()),
            millisecond_text(*observed_at).into(),
            not_before.map(millisecond_text).into(),
            status_message.clone().into(),
            created_at.as_ref().map(Timestamp::to_string).into(),
            completed_at.as_ref().map(Timestamp::to_string).into(),
            anomaly.map(|anomaly| anomaly.as_str().to_owned()).into(),
            watch.map(|watch| watch.region.to_string()).into(),
            watch.map(|watch| watch.name.to_string()).into(),
            watch.map(|watch| serde_json::json!(*watch.labels).to_string()).into(),
        ]
    }

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let status = |text: &str| JobStatus::from(text);
        Ok(Self {
            from: row.get::<_, Option<Box<str>>>("from_status")?.as_deref().map(status),
            to: status(&row.get::<_, Box<str>>("to_status")?),
            observed_at: parsed(row, "observed_at")?,
            not_before: parsed_if_set(row, "not_before")?,
            status_message: row.get("status_message")?,
            created_at: parsed_if_set(row, "created_at")?,
            completed_at: parsed_if_set(row, "completed_at")?,
            anomaly: row.get::<_, Option<Box<str>>>("anomaly")?.and_then(|text| Anomaly::from_name(&text)),
            watch: watch_info(row)?.map(Arc::new),
        })
    }
}

/// `None` in rows that were written before version 5 of the schema.
fn watch_info(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<WatchInfo>> {
    let Some(name) = row.get::<_, Option<Box<str>>>("watch")? else { return Ok(None) };
    let labels = row.get::<_, Option<String>>("labels")?.unwrap_or_else(|| "{}".to_owned());
    let labels: Labels = serde_json::from_str(&labels).map_err(|error| unreadable(row, "labels", &error))?;
    let region = row.get::<_, Option<Box<str>>>("region")?.unwrap_or_default();
    Ok(Some(WatchInfo { region: region.into(), name: name.into(), labels: labels.into() }))
}

impl Stored for ItemTransition {
    const TABLE: &str = "item_transitions";
    // `nth` is a number among the items of the job with the same name and file.
    const COLUMNS: &[&str] =
        &["name", "source_file", "nth", "from_status", "to_status", "status_message", "observed_at"];

    fn values(&self) -> Vec<Value> {
        // `to` is `None` if the response no longer contains the item.
        let Self { key, from, to, observed_at } = self;
        vec![
            text_value(&key.name),
            text_value(&key.source_file),
            i64::from(key.nth).into(),
            from.as_ref().map(|from| from.as_str().to_owned()).into(),
            to.as_ref().map(|to| to.status.as_str().to_owned()).into(),
            to.as_ref().and_then(|to| to.status_message.as_deref()).map(str::to_owned).into(),
            millisecond_text(*observed_at).into(),
        ]
    }

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let status = |text: &str| ItemStatus::from(text);
        let status_message = row.get("status_message")?;
        let to = row.get::<_, Option<Box<str>>>("to_status")?;
        let to = to.map(|to| Item { status: status(&to), status_message });
        Ok(Self {
            key: ItemKey { name: row.get("name")?, source_file: row.get("source_file")?, nth: row.get("nth")? },
            from: row.get::<_, Option<Box<str>>>("from_status")?.as_deref().map(status),
            to,
            observed_at: parsed(row, "observed_at")?,
        })
    }
}

impl Stored for Detail {
    const TABLE: &str = "details";
    const COLUMNS: &[&str] = &["detail", "value", "observed_at"];

    fn values(&self) -> Vec<Value> {
        vec![text_value(self.kind.as_str()), self.value.clone().into(), millisecond_text(self.observed_at).into()]
    }

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let kind = row.get::<_, Box<str>>("detail")?;
        let kind = DetailKind::ALL.into_iter().find(|known| known.as_str() == &*kind);
        Ok(Self {
            kind: kind.ok_or_else(|| unreadable(row, "detail", &"an unknown detail"))?,
            value: row.get("value")?,
            observed_at: parsed(row, "observed_at")?,
        })
    }
}

/// The JSON object of the API and of `history --json`: the columns of the table.
impl<T: Stored> Serialize for Row<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut columns = serializer.serialize_map(None)?;
        columns.serialize_entry("id", &self.id)?;
        columns.serialize_entry("target", &*self.target_job.target)?;
        columns.serialize_entry("kind", self.target_job.key.kind.as_str())?;
        columns.serialize_entry("store_id", self.target_job.key.store.as_str())?;
        columns.serialize_entry("job_id", self.target_job.key.job.as_str())?;
        for (column, value) in T::COLUMNS.iter().zip(self.value.values()) {
            match value {
                Value::Text(text) if *column == "labels" => {
                    let labels: Labels = serde_json::from_str(&text).map_err(S::Error::custom)?;
                    columns.serialize_entry(column, &labels)?;
                }
                Value::Integer(number) => columns.serialize_entry(column, &number)?,
                Value::Text(text) => columns.serialize_entry(column, &text)?,
                Value::Null | Value::Real(_) | Value::Blob(_) => columns.serialize_entry(column, &())?,
            }
        }
        columns.end()
    }
}

/// A time that refwatch measured, with three decimals, so that texts sort in the order of their times. Times from AWS keep all digits:
/// they are compared with the times in the next response.
pub(super) fn millisecond_text(time: Timestamp) -> String {
    format!("{time:.3}")
}

fn text_value(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn parsed<T: FromStr<Err: Display>>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<T> {
    row.get::<_, Box<str>>(column)?.parse().map_err(|error| unreadable(row, column, &error))
}

fn parsed_if_set<T: FromStr<Err: Display>>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    let text = row.get::<_, Option<Box<str>>>(column)?;
    text.map(|text| text.parse().map_err(|error| unreadable(row, column, &error))).transpose()
}

fn unreadable(row: &rusqlite::Row<'_>, column: &str, error: &dyn Display) -> rusqlite::Error {
    let message = row.get::<_, i64>("id").map(|id| format!("row {id}, {column}: {error}"));
    let index = row.as_ref().column_index(column).unwrap_or_default();
    // If even the id cannot be read, that error is returned.
    message.map_or_else(|no_id| no_id, |text| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, text.into()))
}
