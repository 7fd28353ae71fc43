//! The types of values. Each has a rule and a JSON Schema, and some suggest a correction of an invalid value.
//!
//! The text of a rule follows the key's name: "`timeout` must be between 1s and 5m". Rules never quote the value, because it may be a
//! password. A suggestion quotes the value only in a corrected form that satisfies the rule.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use regex_lite::Regex;
use serde_json::{Value as Json, json};
use toml::de::DeValue;
use tracing::Level;

use super::duration_text::DurationText;
use super::ids::{IdOf, id_candidates, id_rule};
use super::suggest::nearest;
use super::{LogFormat, LogRotation, PasswordHash};
use crate::core::job;
use crate::core::kind::{JobKind, StoreType};
use crate::core::sanitize::is_unsafe_to_display;
use crate::core::secret::Secret;
use crate::core::time::parse_duration;

/// A type of value, such as a duration within limits.
pub(super) trait ValueType {
    type Value;

    fn convert(value: &DeValue<'_>) -> Result<Self::Value, Invalid>;

    fn schema() -> Json;
}

pub(super) struct Invalid {
    /// Follows the key's name in the message.
    pub rule: String,
    pub help: Option<String>,
}

impl Invalid {
    pub(super) fn wrong_type(expected: &str, found: &DeValue<'_>, help: Option<String>) -> Self {
        Self { rule: format!("must be {expected}, but it is of type {}", found.type_str()), help }
    }
}

/// Declares the marker type `$name` of a key: the Rust type of its value, its JSON Schema, and the conversion from TOML. The
/// suffix `Text` or `Word` distinguishes the marker from the type of the value.
macro_rules! value_type {
    ($name:ident, $value:ty, $schema:expr, $convert:expr) => {
        pub(super) enum $name {}

        impl ValueType for $name {
            type Value = $value;

            fn convert(value: &DeValue<'_>) -> Result<$value, Invalid> {
                let convert: fn(&DeValue<'_>) -> Result<$value, Invalid> = $convert;
                convert(value)
            }

            fn schema() -> Json {
                $schema
            }
        }
    };
}

macro_rules! duration {
    ($name:ident, $min:expr, $max:expr) => {
        value_type!($name, Duration, duration_schema(&($min..=$max)), |value| {
            read_text(value, |text| parse_duration_between(text, &($min..=$max)), duration_candidates)
        });
    };
}

macro_rules! id {
    ($name:ident, $value:ty, $wanted:expr) => {
        value_type!($name, $value, pattern_schema("^[0-9]{10,36}$"), |value| {
            let parse = |text: &str| text.parse().map_err(|_| id_rule(text, $wanted));
            read_text(value, parse, |text| id_candidates(text, $wanted))
        });
    };
}

/// Declares a type of string that matches a regular expression, which is also in the schema.
macro_rules! regex {
    ($name:ident, $pattern:literal, $rule:literal) => {
        regex!($name, String, str::to_owned, $pattern, $rule);
    };
    ($name:ident, $value:ty, $new:expr, $pattern:literal, $rule:literal) => {
        value_type!($name, $value, pattern_schema($pattern), |value| {
            static REGEX: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($pattern).ok());
            let matches = |text: &str| REGEX.as_ref().is_some_and(|regex| regex.is_match(text));
            read_text(value, |text| require(matches(text), $rule).map(|()| $new(text)), no_candidates)
        });
    };
}

pub(super) use {duration, regex, value_type};

/// More than ten polls of one job in a second are a mistake.
const SHORTEST_DELAY: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

duration!(MinInterval, SHORTEST_DELAY, HOUR);
duration!(Timeout, SECOND, 5 * MINUTE);
duration!(BackoffInitial, SHORTEST_DELAY, 5 * MINUTE);
duration!(BackoffMax, SECOND, HOUR);
duration!(Retention, DAY, 36_500 * DAY);
duration!(RemoveAfter, SECOND, 365 * DAY);
value_type!(Interval, Option<Duration>, interval_schema(), |value| read_text(
    value,
    parse_interval,
    duration_candidates
));
// At least one minute, because the clocks of this host and of AWS may differ.
duration!(CreatedWithin, MINUTE, 3_650 * DAY);

regex!(TargetName, "^[A-Za-z0-9_-]{1,64}$", "must be 1 to 64 letters, digits, hyphens or underscores");
regex!(Region, "^[a-z]{2,}(-[a-z]+)+-[0-9]+$", "must be a region such as us-west-2");
regex!(
    RoleArn,
    "^arn:aws[^:]*:iam::[0-9]{12}:role/[!-9;-~]+$",
    "must be an ARN such as arn:aws:iam::123456789012:role/NAME"
);
// The limits are from the API reference of AssumeRole.
regex!(
    ExternalId,
    Secret,
    Secret::new,
    "^[A-Za-z0-9_+=,.@:/-]{2,1224}$",
    "must be 2 to 1224 letters, digits or characters of =,.@:/-_+"
);
regex!(
    HostName,
    "^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?$",
    "must be a host name such as \"refwatch.lab.example\", without scheme, port and wildcard"
);
// HTTP basic authentication separates name and password by a colon.
regex!(UserName, "^[^:]{1,128}$", "must be 1 to 128 characters without a colon");

value_type!(Name, String, pattern_schema("^(?=.*\\S).{1,128}$"), |value| {
    read_text(value, |text| parse_name(text, 128), no_candidates)
});
id!(ReferenceStoreIdText, job::StoreId, IdOf::Store(StoreType::Reference));
id!(SequenceStoreIdText, job::StoreId, IdOf::Store(StoreType::Sequence));
id!(JobIdText, job::JobId, IdOf::Job);
value_type!(FilePath, PathBuf, pattern_schema("^[^~$]"), |value| read_text(value, parse_path, no_candidates));
value_type!(IncludePattern, PathBuf, pattern_schema("^([^*]*/)?([^*/]+\\*?|\\*)[^*/]*$"), |value| {
    read_text(value, parse_include_pattern, no_candidates)
});
value_type!(Listen, SocketAddr, pattern_schema("^.+:[0-9]{1,5}$"), |value| {
    let rule = "must be an IP address and a port up to 65535 such as \"127.0.0.1:10210\" or \"[::1]:10210\"";
    read_text(value, |text| parse(text, rule), listen_candidates)
});
value_type!(PasswordHashText, PasswordHash, pattern_schema("^\\$2[abxy]\\$1[0-6]\\$[./A-Za-z0-9]{53}$"), |value| {
    read_text(value, |text| text.parse().map_err(|rule: &str| rule.to_owned()), no_candidates)
});
value_type!(JobKindWord, JobKind, words_schema(&JOB_KINDS), |value| read_word(value, &JOB_KINDS));
value_type!(LogLevelWord, Level, words_schema(&LEVELS), |value| read_word(value, &LEVELS));
value_type!(LogFormatWord, LogFormat, words_schema(&FORMATS), |value| read_word(value, &FORMATS));
value_type!(LogRotationWord, LogRotation, words_schema(&ROTATIONS), |value| read_word(value, &ROTATIONS));
value_type!(RequestsPerSecond, f64, number_schema(0.01, 100_000.0), |value| read_number(value, &(0.01..=100_000.0)));
value_type!(Share, f64, number_schema(0.01, 1.0), |value| read_number(value, &(0.01..=1.0)));
value_type!(KeepFiles, usize, json!({"type": "integer", "minimum": 1, "maximum": 10_000}), |value| {
    let number: Option<usize> = value.as_integer().and_then(|number| number.to_string().parse().ok());
    let rule = || Invalid { rule: "must be a whole number from 1 to 10000".to_owned(), help: None };
    number.filter(|number| (1..=10_000).contains(number)).ok_or_else(rule)
});
value_type!(Boolean, bool, json!({"type": "boolean"}), |value| {
    value.as_bool().ok_or_else(|| Invalid::wrong_type("true or false", value, None))
});

const JOB_KINDS: [(&str, JobKind); 4] = [
    (JobKind::ReferenceImport.as_str(), JobKind::ReferenceImport),
    (JobKind::ReadSetImport.as_str(), JobKind::ReadSetImport),
    (JobKind::ReadSetExport.as_str(), JobKind::ReadSetExport),
    (JobKind::ReadSetActivation.as_str(), JobKind::ReadSetActivation),
];
const LEVELS: [(&str, Level); 5] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];
const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const ROTATIONS: [(&str, LogRotation); 3] =
    [("hourly", LogRotation::Hourly), ("daily", LogRotation::Daily), ("never", LogRotation::Never)];

/// Reads a string with `parse`. If it is invalid, the help is the first of `candidates` that is valid. A TOML number is not accepted, but
/// is parsed like a string with the same characters. If the string is valid, the help is "write it in quotes". Otherwise the rule and the
/// help are those of the string.
pub(super) fn read_text<T>(
    value: &DeValue<'_>,
    parse: impl Fn(&str) -> Result<T, String>,
    candidates: fn(&str) -> Vec<String>,
) -> Result<T, Invalid> {
    let text = match value {
        DeValue::String(text) => text,
        DeValue::Integer(number) => number.as_str(),
        DeValue::Float(number) => number.as_str(),
        _ => return Err(Invalid::wrong_type("a string", value, None)),
    };
    let parsed = parse(text).map_err(|rule| {
        let valid = candidates(text).into_iter().find(|candidate| parse(candidate).is_ok());
        Invalid { rule, help: valid.map(|valid| format!("did you mean \"{valid}\"?")) }
    })?;
    if value.is_str() {
        Ok(parsed)
    } else {
        Err(Invalid::wrong_type("a string", value, Some("write it in quotes".to_owned())))
    }
}

pub(super) fn no_candidates(_: &str) -> Vec<String> {
    Vec::new()
}

/// Reads one of `words`.
pub(super) fn read_word<T: Clone>(value: &DeValue<'_>, words: &[(&str, T)]) -> Result<T, Invalid> {
    let text = value.as_str().ok_or_else(|| Invalid::wrong_type("a string", value, None))?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone());
    found.ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let help = nearest(text, words.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
        Invalid { rule: format!("must be one of \"{}\"", words.join("\", \"")), help }
    })
}

pub(super) fn words_schema<T>(words: &[(&str, T)]) -> Json {
    json!({"type": "string", "enum": words.iter().map(|(word, _)| *word).collect::<Vec<_>>()})
}

fn number_schema(min: f64, max: f64) -> Json {
    json!({"type": "number", "minimum": min, "maximum": max})
}

fn read_number(value: &DeValue<'_>, limits: &RangeInclusive<f64>) -> Result<f64, Invalid> {
    let expected = format!("a number from {} to {}", limits.start(), limits.end());
    let number: Option<f64> = match value {
        DeValue::Integer(number) => number.to_string().parse().ok(),
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => return Err(Invalid::wrong_type(&expected, value, None)),
    };
    let invalid = || Invalid { rule: format!("must be {expected}"), help: None };
    number.filter(|number| limits.contains(number)).ok_or_else(invalid)
}

pub(super) fn parse<T: FromStr>(text: &str, rule: &str) -> Result<T, String> {
    text.parse().map_err(|_| rule.to_owned())
}

pub(super) fn require(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

pub(super) fn pattern_schema(pattern: &str) -> Json {
    json!({"type": "string", "pattern": pattern})
}

/// Durations as the crate humantime parses them.
const DURATION_PATTERN: &str = "( *[0-9]+(\\.[0-9]+)? *(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|\
                                wks?|w|months?|M|years?|yrs?|y))+ *";

/// JSON Schema cannot limit a duration, so the description has the limits.
pub(super) fn duration_schema(limits: &RangeInclusive<Duration>) -> Json {
    let limits = format!("From {} to {}.", DurationText(*limits.start()), DurationText(*limits.end()));
    json!({"type": "string", "pattern": format!("^{DURATION_PATTERN}$"), "description": limits})
}

pub(super) fn parse_duration_between(text: &str, limits: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let rule = "must be a duration such as \"30s\", \"5m\", \"12h\" or \"7d\"";
    let duration = parse_duration(text).map_err(|_| rule.to_owned())?;
    let (min, max) = (DurationText(*limits.start()), DurationText(*limits.end()));
    require(limits.contains(&duration), &format!("must be between {min} and {max}")).map(|()| duration)
}

/// Suggestions for a number without a unit.
pub(super) fn duration_candidates(text: &str) -> Vec<String> {
    let number = text.trim_end_matches(".0");
    vec![format!("{number}s"), format!("{number}d")]
}

fn interval_schema() -> Json {
    let mut schema = duration_schema(&(SHORTEST_DELAY..=DAY));
    schema["pattern"] = format!("^(auto|{DURATION_PATTERN})$").into();
    schema
}

fn parse_interval(text: &str) -> Result<Option<Duration>, String> {
    if text == "auto" {
        return Ok(None);
    }
    parse_duration_between(text, &(SHORTEST_DELAY..=DAY)).map(Some).map_err(|rule| format!("{rule}, or \"auto\""))
}

/// Checks the name of an AWS region.
///
/// # Errors
/// The rule that the text violates.
pub fn parse_region(text: &str) -> Result<String, String> {
    parse_as::<Region>(text)
}

/// Checks the ARN of a role.
///
/// # Errors
/// The rule that the text violates.
pub fn parse_role_arn(text: &str) -> Result<String, String> {
    parse_as::<RoleArn>(text)
}

/// Checks the name of an AWS profile.
///
/// # Errors
/// The rule that the text violates.
pub fn parse_profile_name(text: &str) -> Result<String, String> {
    parse_as::<Name>(text)
}

fn parse_as<V: ValueType>(text: &str) -> Result<V::Value, String> {
    V::convert(&DeValue::String(text.into())).map_err(|invalid| invalid.rule)
}

/// Parses the name of a watch, an AWS profile or a sink.
pub(super) fn parse_name(text: &str, length_max: usize) -> Result<String, String> {
    let is_name =
        text.chars().count() <= length_max && !text.trim().is_empty() && !text.chars().any(is_unsafe_to_display);
    require(is_name, &format!("must be 1 to {length_max} visible characters")).map(|()| text.to_owned())
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    require(!text.trim().is_empty(), "must not be empty")?;
    require(
        !text.contains(|c: char| c.is_control()),
        "must not contain control characters; a backslash begins an escape, so write the path in single quotes",
    )?;
    require(!text.starts_with(['~', '$']), "must not begin with `~` or `$`, which are not expanded")?;
    Ok(text.into())
}

fn parse_include_pattern(text: &str) -> Result<PathBuf, String> {
    let path = parse_path(text)?;
    let (directory, name) = text.rsplit_once('/').unwrap_or(("", text));
    let is_pattern = !name.is_empty() && !directory.contains('*') && name.matches('*').count() <= 1;
    require(is_pattern, "must name files, with at most one `*`, in the last part of the path")?;
    Ok(path)
}

fn listen_candidates(text: &str) -> Vec<String> {
    vec![text.replace("localhost", "127.0.0.1"), format!("127.0.0.1:{}", text.trim_start_matches(':'))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles_and_accepts_a_valid_value() {
        let string = |text: &'static str| DeValue::String(text.into());
        assert!(TargetName::convert(&string("eu-west")).is_ok());
        assert!(Region::convert(&string("us-gov-west-1")).is_ok());
        assert!(RoleArn::convert(&string("arn:aws-us-gov:iam::123456789012:role/lab/refwatch")).is_ok());
        assert!(ExternalId::convert(&string("lab:42")).is_ok());
        assert!(HostName::convert(&string("refwatch.lab.example")).is_ok());
        assert!(UserName::convert(&string("prometheus")).is_ok());
    }
}
