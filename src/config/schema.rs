//! The JSON Schema of the TOML, for editors. Made from the types of `file` and the defaults of `Config`, so that it says what they
//! say; only the patterns of texts are written down here, and `tests/e2e/schema` holds them against the rules.
//!
//! Draft 7 is the newest that editors know well: so say the authors of the catalogue at schemastore.org, and Taplo reads it.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::file::{MainFile, Spanned, Table};
use super::value::{
    BackoffInitial, BackoffMax, EndpointUrl, ExternalId, FixedInterval, ForgetAfter, IncludePattern, Interval, Keep,
    KeepFiles, Listen, MinInterval, Profile, Region, RequestsPerSecond, RoleArn, Share, Since, TargetName, Text,
    Timeout, UserName, WatchName, Written, WrittenPath,
};
use super::watch_list::StoreEntry;
use super::{Config, PasswordHash, Quota, TargetConfig};
use crate::core::job::{ImportJobId, ReferenceStoreId};

/// What humantime takes.
const DURATION: &str = "( *[0-9]+(\\.[0-9]+)? *(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|\
                        wks?|w|months?|M|years?|yrs?|y))+ *";

/// The limits of a duration, in words, since no keyword of JSON Schema tells them. Goes over to the description.
const LIMITS: &str = "x-limits";

/// The schema, as JSON.
#[must_use]
pub fn schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let settings = settings.with_transform(RecursiveTransform(without_null)).with_transform(with_limits);
    let mut schema = settings.into_generator().into_root_schema_for::<MainFile>();
    let default = Config::new("".into());
    let StoreEntry { since, each } = StoreEntry::new("".into(), default.poll.policy());
    let written: toml::Table = default.in_force().parse().unwrap_or_default();
    for (table, keys) in &written {
        for (key, value) in keys.as_table().into_iter().flatten() {
            set_default(&mut schema, &format!("/properties/{table}/properties/{key}"), json!(value));
        }
    }
    if let Some(Value::Object(targets)) = schema.pointer_mut("/properties/target") {
        targets.insert("additionalProperties".to_owned(), false.into());
    }
    let Quota { requests_per_second, share } = Quota::default();
    for (key, value) in [("requests_per_second", requests_per_second), ("share", share)] {
        set_default(&mut schema, &format!("/properties/quota/properties/{key}"), json!(value));
    }
    for watch in ["job", "store"] {
        let target = format!("/properties/{watch}/items/properties/target");
        set_default(&mut schema, &target, json!(TargetConfig::DEFAULT));
    }
    for (key, value) in [("since", Some(since)), ("forget_after", each.forget_after)] {
        let value = value.map(|value| Written(value).to_string());
        set_default(&mut schema, &format!("/properties/store/items/properties/{key}"), json!(value));
    }
    schema.to_value()
}

/// The tables that have this key, as they are written; `None` stands for the file itself.
pub(super) fn tables_with(key: &str) -> Vec<Option<String>> {
    let schema = schema();
    let has = |table: &Value| table["properties"].get(key).is_some();
    let tables = schema["properties"].as_object().into_iter().flatten();
    let named = tables.filter_map(|(name, table)| match name.as_str() {
        "target" => {
            let targets = table["patternProperties"].as_object()?;
            targets.values().any(has).then(|| Some("[target.NAME]".to_owned()))
        }
        _ if has(&table["items"]) => Some(Some(format!("[[{name}]]"))),
        _ => has(table).then(|| Some(format!("[{name}]"))),
    });
    named.chain(has(&schema).then_some(None)).collect()
}

fn set_default(schema: &mut Schema, pointer: &str, value: Value) {
    let empty = value.as_str().is_some_and(str::is_empty);
    if let Some(Value::Object(key)) = schema.pointer_mut(pointer).filter(|_| !empty) {
        key.insert("default".to_owned(), value);
    }
}

/// A key that is not set is not there: TOML has no null.
fn without_null(schema: &mut Schema) {
    let not_null =
        |value: &Value| *value != Value::Null && *value != json!("null") && *value != json!({"type": "null"});
    for keyword in ["type", "enum", "anyOf", "oneOf"] {
        let Some(Value::Array(values)) = schema.get_mut(keyword) else { continue };
        values.retain(not_null);
        if let ([only], true) = (values.as_slice(), keyword != "enum") {
            let only = only.clone();
            schema.remove(keyword);
            let keywords = if let Value::Object(keywords) = only {
                keywords
            } else {
                Map::from_iter([(keyword.to_owned(), only)])
            };
            for (keyword, value) in keywords {
                schema.ensure_object().entry(keyword).or_insert(value);
            }
        }
    }
}

fn with_limits(schema: &mut Schema) {
    if let Some(Value::String(limits)) = schema.remove(LIMITS) {
        let description = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        let description = format!("{description} {limits}").trim().to_owned();
        schema.insert("description".to_owned(), description.into());
    }
    transform_subschemas(&mut with_limits, schema);
}

macro_rules! schemas {
    ($($name:ty => $schema:expr;)*) => {
        $(impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        })*
    };
}

schemas! {
    BackoffInitial => duration(&Self::LIMITS);
    BackoffMax => duration(&Self::LIMITS);
    ForgetAfter => duration(&Self::LIMITS);
    Keep => duration(&Self::LIMITS);
    MinInterval => duration(&Self::LIMITS);
    Since => duration(&Self::LIMITS);
    Timeout => duration(&Self::LIMITS);
    Interval => {
        let mut schema = duration(&FixedInterval::LIMITS);
        schema.insert("pattern".to_owned(), format!("^(auto|{DURATION})$").into());
        schema
    };
    RequestsPerSecond => json_schema!({"type": "number", "minimum": Self::LIMITS.start(), "maximum": Self::LIMITS.end()});
    Share => json_schema!({"type": "number", "minimum": Self::LIMITS.start(), "maximum": Self::LIMITS.end()});
    KeepFiles => json_schema!({"type": "integer", "minimum": Self::LIMITS.start(), "maximum": Self::LIMITS.end()});
    ReferenceStoreId => text("^[0-9]{10,36}$");
    ImportJobId => text("^[0-9]{10,36}$");
    TargetName => text("^[A-Za-z0-9_-]{1,64}$");
    WatchName => label();
    Profile => label();
    Region => text("^[a-z]{2,}(-[a-z]+)+-[0-9]+$");
    RoleArn => text("^arn:aws[^:]*:iam::[0-9]{12}:role/[!-9;-~]+$");
    ExternalId => text("^[A-Za-z0-9_+=,.@:/-]{2,1224}$");
    UserName => text("^[^:]{1,128}$");
    PasswordHash => {
        let mut schema = text("^\\$2[abxy]\\$(0[4-9]|1[0-6])\\$[./A-Za-z0-9]{53}$");
        schema.insert("description".to_owned(), "A bcrypt hash of the user's password.".into());
        schema
    };
    WrittenPath => text("^[^~$]");
    IncludePattern => text("^([^*]*/)?([^*/]+\\*?|\\*)[^*/]*$");
    Listen => text(
        "^([0-9.]+|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\]):0*([1-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$",
    );
    EndpointUrl => text("^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@ ]+(/[^?# ]*)?$");
}

fn text(pattern: &str) -> Schema {
    json_schema!({"type": "string", "pattern": pattern})
}

fn label() -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 128, "pattern": "\\S"})
}

fn duration(limits: &RangeInclusive<Duration>) -> Schema {
    let (min, max) = (Written(*limits.start()), Written(*limits.end()));
    json_schema!({"type": "string", "pattern": format!("^{DURATION}$"), LIMITS: format!("From {min} to {max}.")})
}

/// What adds nothing to the schema of its content.
macro_rules! transparent {
    ($($name:ident),*) => {
        $(impl<T: JsonSchema> JsonSchema for $name<T> {
            fn inline_schema() -> bool {
                T::inline_schema()
            }

            fn schema_name() -> Cow<'static, str> {
                T::schema_name()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                T::json_schema(generator)
            }
        })*
    };
}

transparent!(Spanned, Table, Text);
