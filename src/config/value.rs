//! The values as they are written: a type for each kind, which carries its rule into deserialisation, so that serde itself joins
//! rule and place.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use super::hint::Hint;
use crate::core::sanitize::is_hostile;
use crate::core::time::parse_duration;

/// A value written as a string. The rule is in its type's `FromStr`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text<T>(pub T);

impl<'de, T: Hint<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor<T>(PhantomData<T>);

        impl<T: Hint<Err: Display>> Visitor<'_> for TextVisitor<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<T>, E> {
                text.parse().map(Text).map_err(|rule| E::custom(with_hint(&rule, T::hint(text))))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Text<T>, E> {
                // One that would break the rule in quotes, too, is told the rule at once.
                Self(PhantomData).visit_str::<E>(&number.to_string())?;
                Err(E::invalid_type(Unexpected::Signed(number), &self))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Text<T>, E> {
                Self(PhantomData).visit_str::<E>(&number.to_string())?;
                Err(E::invalid_type(Unexpected::Float(number), &self))
            }
        }

        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

/// A rule, and help on a line of its own. serde carries one text, so both have to go through it.
pub(super) fn with_hint(rule: &impl Display, hint: Option<String>) -> String {
    hint.map_or_else(|| rule.to_string(), |hint| format!("{rule}\n{hint}"))
}

/// The rule that a value does not hold.
#[derive(Debug)]
pub(super) struct Rule(Cow<'static, str>);

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! duration {
    ($name:ident, $min:expr, $max:expr, $why:literal) => {
        #[doc = concat!("A duration with limits: ", $why, ".")]
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name(pub Duration);

        impl FromStr for $name {
            type Err = Rule;

            fn from_str(text: &str) -> Result<Self, Rule> {
                let duration = parse_duration(text).map_err(|rule| Rule(rule.to_string().into()))?;
                if Self::LIMITS.contains(&duration) {
                    return Ok(Self(duration));
                }
                let (min, max) = (Written(*Self::LIMITS.start()), Written(*Self::LIMITS.end()));
                Err(Rule(format!("this must be from {min} to {max}: {}", $why).into()))
            }
        }

        impl $name {
            pub(super) const LIMITS: RangeInclusive<Duration> = $min..=$max;
        }
    };
}

const SECOND: Duration = Duration::from_secs(1);
const fn days(days: u64) -> Duration {
    Duration::from_hours(24 * days)
}

duration!(
    FixedInterval,
    Duration::from_millis(100),
    days(1),
    "jobs end within hours, and more than 10 polls a second of one job tell nothing"
);
duration!(
    MinInterval,
    Duration::from_millis(100),
    Duration::from_hours(1),
    "jobs end within hours, and more than 10 polls a second of one job tell nothing"
);
duration!(
    Timeout,
    SECOND,
    Duration::from_mins(5),
    "an answer takes time, and a request that hangs must not hold its job for long"
);
duration!(
    BackoffInitial,
    Duration::from_millis(100),
    Duration::from_mins(5),
    "a service in trouble needs a pause, and most failures pass quickly"
);
duration!(BackoffMax, SECOND, Duration::from_hours(1), "a job in trouble must be looked at again in time");
duration!(Keep, days(1), days(36_500), "a record kept for less is none, and one kept for longer is kept for ever");
duration!(Since, Duration::from_mins(1), days(3_650), "clocks differ, and no import job is older");
duration!(ForgetAfter, SECOND, days(365), "a scrape has to see the end, and the record knows it for longer");

/// A duration as this file takes it: in the largest unit that needs no fraction.
pub(super) struct Written(pub Duration);

impl Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let millis = self.0.as_millis();
        match units.into_iter().find(|(_, length)| millis >= *length && millis.is_multiple_of(*length)) {
            Some((unit, length)) => write!(f, "{}{unit}", millis / length),
            None => write!(f, "{millis}ms"),
        }
    }
}

/// `"auto"` or a fixed interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval(pub Option<Duration>);

impl FromStr for Interval {
    type Err = Rule;

    fn from_str(text: &str) -> Result<Self, Rule> {
        if text == "auto" {
            return Ok(Self(None));
        }
        parse_duration(text).map_err(|rule| Rule(format!("{rule}, or \"auto\"").into()))?;
        text.parse().map(|FixedInterval(interval)| Self(Some(interval)))
    }
}

macro_rules! number {
    ($name:ident, $limits:expr, $rule:literal, $hint:expr) => {
        #[doc = concat!("A number with limits: ", $rule, ".")]
        #[derive(Clone, Copy, Debug, serde::Deserialize)]
        #[serde(try_from = "f64")]
        pub(super) struct $name(pub f64);

        impl $name {
            pub(super) const LIMITS: RangeInclusive<f64> = $limits;
        }

        impl TryFrom<f64> for $name {
            type Error = Rule;

            fn try_from(number: f64) -> Result<Self, Rule> {
                let hint: fn(f64) -> Option<String> = $hint;
                let rule = || Rule(with_hint(&$rule, hint(number)).into());
                if Self::LIMITS.contains(&number) { Ok(Self(number)) } else { Err(rule()) }
            }
        }
    };
}

number!(RequestsPerSecond, 0.01..=100_000.0, "this must be from 0.01 to 100000: AWS's default quota is 5", |_| None);
number!(Share, 0.01..=1.0, "this must be from 0.01 to 1: it is a part of the quota", |number| {
    (2.0..=100.0).contains(&number).then(|| format!("{number} percent is {}", number / 100.0))
});

/// How many log files to keep.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct KeepFiles(pub usize);

impl KeepFiles {
    pub(super) const LIMITS: RangeInclusive<usize> = 1..=10_000;
}

impl TryFrom<i64> for KeepFiles {
    type Error = Rule;

    fn try_from(number: i64) -> Result<Self, Rule> {
        let files = usize::try_from(number).ok().filter(|files| Self::LIMITS.contains(files));
        files.map(Self).ok_or(Rule("this must be from 1 to 10000 files".into()))
    }
}

macro_rules! text {
    ($name:ident, $holds:expr, $rule:literal) => {
        #[doc = concat!("A text with a rule: ", $rule, ".")]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) struct $name(pub String);

        impl FromStr for $name {
            type Err = Rule;

            fn from_str(text: &str) -> Result<Self, Rule> {
                let holds: fn(&str) -> bool = $holds;
                if holds(text) { Ok(Self(text.to_owned())) } else { Err(Rule($rule.into())) }
            }
        }
    };
}

text!(TargetName, is_target_name, "a target's name is 1 to 64 letters, digits, hyphens or underscores");
text!(WatchName, is_label, "a name is 1 to 128 characters, none of them invisible");
text!(UserName, is_user_name, "a user's name is 1 to 128 characters, none of them invisible or a colon");
text!(Profile, is_label, "a profile's name is 1 to 128 characters, none of them invisible");
text!(Region, is_region, "a region is written like us-west-2");
text!(RoleArn, is_role_arn, "a role is written arn:aws:iam::ACCOUNT:role/NAME, the account with 12 digits");
text!(ExternalId, is_external_id, "an external id is 2 to 1224 letters, digits or characters of =,.@:/-_+");

/// Long enough for a name that says all; it becomes a label of every series.
const LABEL_LENGTH_MAX: usize = 128;

/// A target's name is part of every row of the record and of its own series.
const TARGET_NAME_LENGTH_MAX: usize = 64;

fn is_target_name(text: &str) -> bool {
    (1..=TARGET_NAME_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn is_label(text: &str) -> bool {
    text.chars().count() <= LABEL_LENGTH_MAX && !text.trim().is_empty() && !text.chars().any(is_hostile)
}

/// HTTP's basic authentication puts a colon after it.
fn is_user_name(text: &str) -> bool {
    is_label(text) && !text.contains(':')
}

/// `[a-z]{2,}(-[a-z]+)+-[0-9]+`, as in us-west-2 and us-gov-west-1.
fn is_region(text: &str) -> bool {
    let all = |part: &str, class: fn(&u8) -> bool| !part.is_empty() && part.as_bytes().iter().all(class);
    let parts: Vec<&str> = text.split('-').collect();
    match parts.as_slice() {
        [first, middle @ .., last] => {
            first.len() >= 2
                && !middle.is_empty()
                && all(first, u8::is_ascii_lowercase)
                && middle.iter().all(|part| all(part, u8::is_ascii_lowercase))
                && all(last, u8::is_ascii_digit)
        }
        [] | [_] => false,
    }
}

fn is_role_arn(text: &str) -> bool {
    match text.split(':').collect::<Vec<_>>().as_slice() {
        ["arn", partition, "iam", "", account, role] => {
            partition.starts_with("aws")
                && account.len() == 12
                && account.bytes().all(|byte| byte.is_ascii_digit())
                && role
                    .strip_prefix("role/")
                    .is_some_and(|name| !name.is_empty() && name.bytes().all(|c| c.is_ascii_graphic()))
        }
        _ => false,
    }
}

/// STS: `[\w+=,.@:\/-]*`, 2 to 1224 characters (API page of `AssumeRole`).
fn is_external_id(text: &str) -> bool {
    (2..=1224).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte))
}

/// A path as it is: nothing stands in for something else.
#[derive(Clone, Debug)]
pub(super) struct WrittenPath(pub PathBuf);

impl FromStr for WrittenPath {
    type Err = Rule;

    fn from_str(text: &str) -> Result<Self, Rule> {
        if text.trim().is_empty() {
            return Err(Rule("a path must not be empty".into()));
        }
        if text.contains(|c: char| c.is_control()) {
            return Err(Rule("a path must not hold control characters".into()));
        }
        if text.starts_with(['~', '$']) {
            return Err(Rule("a path is taken as it is: no shell replaces `~` or `$` in it".into()));
        }
        Ok(Self(text.into()))
    }
}

/// The files to include: a path, with one star at most, in the file's name.
#[derive(Clone, Debug)]
pub(super) struct IncludePattern(pub PathBuf);

impl FromStr for IncludePattern {
    type Err = Rule;

    fn from_str(text: &str) -> Result<Self, Rule> {
        let WrittenPath(path) = text.parse()?;
        let (directory, name) = text.rsplit_once('/').unwrap_or(("", text));
        if name.is_empty() || directory.contains('*') || name.matches('*').count() > 1 {
            return Err(Rule("this must name files, with one star at most, in the last part of the path".into()));
        }
        Ok(Self(path))
    }
}

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = Rule;

    fn from_str(text: &str) -> Result<Self, Rule> {
        let rule =
            || Rule("this must be an IP address and a port such as \"127.0.0.1:10210\" or \"[::1]:10210\"".into());
        text.parse().map(Self).map_err(|_| rule())
    }
}

/// An endpoint in place of AWS's.
#[derive(Clone, Debug)]
pub(super) struct EndpointUrl(pub String);

impl FromStr for EndpointUrl {
    type Err = Rule;

    fn from_str(text: &str) -> Result<Self, Rule> {
        let uri = text.parse::<Uri>().ok();
        let uri = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
        let uri = uri.filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        let uri = uri.ok_or(Rule("this must be a whole URL such as \"http://127.0.0.1:4566\"".into()))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(Rule("a URL here must not hold credentials: use `profile` or `role_arn`".into()));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(Rule("an endpoint's URL has neither query nor fragment".into()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// An endpoint's URL as the command line takes it.
///
/// # Errors
/// The rule that it breaks.
pub fn parse_endpoint_url(text: &str) -> Result<String, String> {
    text.parse().map(|EndpointUrl(url)| url).map_err(|rule: Rule| rule.to_string())
}

/// The least severe level that is logged.
#[derive(Clone, Copy, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}
