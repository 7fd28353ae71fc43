//! Generates the JSON Schema of the configuration file from the tables of `raw` and the defaults of [`Config`].
//!
//! It uses draft 7: schemastore.org recommends this draft, because editors support it best.

use serde_json::{Value as Json, json};

use super::duration_text::DurationText;
use super::raw::RootTable;
use super::reader::table_schema;
use super::sinks::SinkConfig;
use super::watch_list::StoreSettings;
use super::{Config, Quota, TargetConfig};
use crate::core::event::EventType;

#[must_use]
pub fn schema() -> Json {
    let mut schema = table_schema::<RootTable>();
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "refwatch.toml".into();
    schema["description"] =
        "The configuration of refwatch. Durations are strings such as \"30s\". Relative paths start at the file's directory."
            .into();
    // Most defaults are the values of the rendered default configuration.
    let tables: toml::Table = Config::new("".into()).to_redacted_toml().parse().unwrap_or_default();
    let mut defaults = Vec::new();
    for (table, keys) in tables.iter().filter(|(table, _)| *table != "target") {
        let keys = keys.as_table().into_iter().flatten();
        defaults.extend(keys.map(|(key, value)| (format!("{table}/properties/{key}"), json!(value))));
    }
    let Quota { requests_per_second, share } = Quota::default();
    let duration = |duration| json!(DurationText(duration).to_string());
    let other_defaults = [
        ("quota/properties/requests_per_second", json!(requests_per_second)),
        ("quota/properties/share", json!(share)),
        ("job/items/properties/target", json!(TargetConfig::DEFAULT)),
        ("store/items/properties/target", json!(TargetConfig::DEFAULT)),
        ("store/items/properties/created_within", duration(StoreSettings::CREATED_WITHIN_DEFAULT)),
        ("store/items/properties/remove_after", duration(StoreSettings::REMOVE_AFTER_DEFAULT)),
        ("notify/items/properties/on", EventType::DEFAULT.iter().map(EventType::as_str).collect()),
        ("notify/items/properties/format", json!(SinkConfig::FORMAT_DEFAULT)),
        ("notify/items/properties/timeout", duration(SinkConfig::TIMEOUT_DEFAULT)),
    ];
    defaults.extend(other_defaults.map(|(pointer, value)| (pointer.to_owned(), value)));
    // The default of `database.path` depends on the environment, so the schema has none: its value here is "".
    for (pointer, value) in defaults.into_iter().filter(|(_, value)| value != "") {
        if let Some(node) = schema.pointer_mut(&format!("/properties/{pointer}")) {
            node["default"] = value;
        }
    }
    schema
}
