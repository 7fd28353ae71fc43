//! The TOML as it is written: a type for each table.
//!
//! Nothing here knows a default: those are the domain types' own.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use toml::Spanned;

use super::value::{
    BackoffInitial, BackoffMax, EndpointUrl, ExternalId, ForgetAfter, IncludePattern, Interval, Keep, KeepFiles,
    Listen, LogLevel, MinInterval, Profile, Region, RequestsPerSecond, RoleArn, Share, Since, TargetName, Text,
    Timeout, WatchName, WrittenPath,
};
use super::{LogFormat, LogRotation};
use crate::core::job::{ImportJobId, ReferenceStoreId};

/// The file that the command line names.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct MainFile {
    pub include: Option<Vec<Spanned<Text<IncludePattern>>>>,
    pub poll: Table<Poll>,
    pub quota: Table<Quota>,
    pub record: Table<Record>,
    pub http: Table<Http>,
    pub log: Table<Log>,
    pub target: Targets,
    pub job: Vec<Table<Job>>,
    pub store: Vec<Table<Store>>,
}

/// The keys of [`MainFile`] that an included file may not have.
pub(super) const MAIN_FILE_ONLY: [&str; 6] = ["include", "poll", "quota", "record", "http", "log"];

/// A file that the main one includes.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct IncludedFile {
    pub target: Targets,
    pub job: Vec<Table<Job>>,
    pub store: Vec<Table<Store>>,
}

pub(super) type Targets = BTreeMap<Spanned<Text<TargetName>>, Table<Target>>;

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Poll {
    pub interval: Option<Spanned<Text<Interval>>>,
    pub min_interval: Option<Spanned<Text<MinInterval>>>,
    pub timeout: Option<Text<Timeout>>,
    pub backoff_initial: Option<Spanned<Text<BackoffInitial>>>,
    pub backoff_max: Option<Spanned<Text<BackoffMax>>>,
    pub sweep: Option<bool>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Quota {
    pub requests_per_second: Option<RequestsPerSecond>,
    pub share: Option<Share>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Record {
    pub path: Option<Text<WrittenPath>>,
    pub keep: Option<Text<Keep>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Http {
    pub listen: Option<Text<Listen>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    pub level: Option<LogLevel>,
    pub format: Option<LogFormat>,
    pub directory: Option<Text<WrittenPath>>,
    pub rotation: Option<LogRotation>,
    pub keep_files: Option<KeepFiles>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Target {
    pub region: Option<Text<Region>>,
    pub profile: Option<Text<Profile>>,
    pub role_arn: Option<Text<RoleArn>>,
    pub external_id: Option<Spanned<Text<ExternalId>>>,
    pub endpoint_url: Option<Text<EndpointUrl>>,
    pub quota: Table<Quota>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    pub name: Option<Spanned<Text<WatchName>>>,
    pub reference_store_id: Text<ReferenceStoreId>,
    pub id: Spanned<Text<ImportJobId>>,
    pub target: Option<Spanned<Text<TargetName>>>,
    pub interval: Option<Spanned<Text<Interval>>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    pub name: Option<Spanned<Text<WatchName>>>,
    pub reference_store_id: Spanned<Text<ReferenceStoreId>>,
    pub since: Option<Spanned<Text<Since>>>,
    pub forget_after: Option<Spanned<Text<ForgetAfter>>>,
    pub target: Option<Spanned<Text<TargetName>>>,
    pub interval: Option<Spanned<Text<Interval>>>,
}

/// A table and nothing else. serde's derived structs would take an array, too, value by value.
#[derive(Debug, Default)]
pub(super) struct Table<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TableVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Table)
            }
        }

        deserializer.deserialize_map(TableVisitor(PhantomData))
    }
}
