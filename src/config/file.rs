//! The TOML as it is written: a type for each table.
//!
//! Nothing here knows a default: those are the domain types' own. The comments on the keys are what editors show of them, by way
//! of the JSON Schema.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::value::{
    BackoffInitial, BackoffMax, EndpointUrl, ExternalId, ForgetAfter, IncludePattern, Interval, Keep, KeepFiles,
    Listen, LogLevel, MinInterval, Profile, Region, RequestsPerSecond, RoleArn, Share, Since, TargetName, Text,
    Timeout, UserName, WatchName, WrittenPath,
};
use super::{LogFormat, LogRotation, PasswordHash};
use crate::core::job::{ImportJobId, ReferenceStoreId};

/// The configuration of refwatch. Durations are strings such as "30s", "5m", "12h" or "7d"; relative paths start at the file.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "refwatch.toml")]
pub(super) struct MainFile {
    /// Further files, for `[[job]]`, `[[store]]` and `[target.*]` only. One star may stand for any text, in the last part of the path.
    pub include: Option<Vec<Spanned<Text<IncludePattern>>>>,
    pub poll: Table<Poll>,
    pub quota: Table<Quota>,
    pub record: Table<Record>,
    pub http: Table<Http>,
    pub log: Table<Log>,
    /// Where calls go, by name. `[target.default]` is the target of a watch that names none.
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

/// How polls are made.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Poll {
    /// "auto" polls every job as often as the quota allows; or a fixed interval.
    pub interval: Option<Spanned<Text<Interval>>>,
    /// The least time between two polls of one job.
    pub min_interval: Option<Spanned<Text<MinInterval>>>,
    /// The deadline of one attempt: credentials, connection, answer.
    pub timeout: Option<Text<Timeout>>,
    /// How long after a failed poll the next one comes; twice as long each time.
    pub backoff_initial: Option<Spanned<Text<BackoffInitial>>>,
    /// The longest time from a failed poll to the next one.
    pub backoff_max: Option<Spanned<Text<BackoffMax>>>,
    /// Whether to list a store's jobs where that saves polls. It needs omics:ListReferenceImportJobs.
    pub sweep: Option<bool>,
}

/// How many requests refwatch allows itself, for each target and operation.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Quota {
    /// The account's quota for the region. AWS grants 5; Service Quotas shows yours.
    pub requests_per_second: Option<RequestsPerSecond>,
    /// The part of the quota that refwatch may use; the rest is left to the account's other callers.
    pub share: Option<Share>,
}

/// The durable log of every transition seen: an SQLite file.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Record {
    /// The file. Unless set: `$STATE_DIRECTORY/refwatch.db`, else `refwatch/refwatch.db` in the user's state directory.
    pub path: Option<Text<WrittenPath>>,
    /// How long the rows of a job are kept after its end.
    pub keep: Option<Text<Keep>>,
}

/// The status page, the metrics and the API.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Http {
    /// The IP address and port to listen on.
    pub listen: Option<Text<Listen>>,
    /// TLS on the listener. The files are read anew when they change.
    pub tls: Option<Table<Tls>>,
    /// Who may ask, each with the bcrypt hash of a password, as `htpasswd -nBC 10 NAME` prints it after the colon.
    pub users: BTreeMap<Text<UserName>, Text<PasswordHash>>,
}

/// TLS on the listener.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// The certificate, and those between it and its authority, in PEM.
    pub cert: Text<WrittenPath>,
    /// Its private key, in PEM.
    pub key: Text<WrittenPath>,
    /// The authorities of the client certificates that are asked for, in PEM. None is asked for unless set.
    pub client_ca: Option<Text<WrittenPath>>,
}

/// The log.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    /// The least severe level that is logged.
    pub level: Option<LogLevel>,
    /// The format of a line.
    pub format: Option<LogFormat>,
    /// Where rolling files go, besides standard error. None unless set.
    pub directory: Option<Text<WrittenPath>>,
    /// When a new file is begun.
    pub rotation: Option<LogRotation>,
    /// How many files are kept.
    pub keep_files: Option<KeepFiles>,
}

/// Where calls go, and as whom. What is not set comes from AWS's own chain: environment, shared configuration files, role.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Target {
    /// The AWS region, such as us-west-2.
    pub region: Option<Text<Region>>,
    /// A profile of the shared AWS configuration files.
    pub profile: Option<Text<Profile>>,
    /// A role to assume.
    pub role_arn: Option<Text<RoleArn>>,
    /// The external id that the role asks for.
    pub external_id: Option<Spanned<Text<ExternalId>>>,
    /// An endpoint to use as it is in place of AWS's.
    pub endpoint_url: Option<Text<EndpointUrl>>,
    /// The quota of this target where it is not that of `[quota]`.
    pub quota: Table<Quota>,
}

/// A job to watch.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    /// The label `watch` of its metrics. `REFERENCE_STORE_ID/ID` unless set.
    pub name: Option<Spanned<Text<WatchName>>>,
    /// The id of the reference store that the job imports into.
    pub reference_store_id: Spanned<Text<ReferenceStoreId>>,
    /// The id of the import job, as `StartReferenceImportJob` answered it.
    pub id: Spanned<Text<ImportJobId>>,
    /// The target that it is watched through.
    pub target: Option<Spanned<Text<TargetName>>>,
    /// Its own interval in place of that of `[poll]`.
    pub interval: Option<Spanned<Text<Interval>>>,
}

/// A store of which every import job is watched, those that are there and those to come.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    /// The label `watch` of the metrics of all its jobs. `REFERENCE_STORE_ID` unless set.
    pub name: Option<Spanned<Text<WatchName>>>,
    /// The id of the reference store.
    pub reference_store_id: Spanned<Text<ReferenceStoreId>>,
    /// How old a job may be when refwatch first looks.
    pub since: Option<Spanned<Text<Since>>>,
    /// How long a job stays on the page and in the metrics after its end.
    pub forget_after: Option<Spanned<Text<ForgetAfter>>>,
    /// The target that it is watched through.
    pub target: Option<Spanned<Text<TargetName>>>,
    /// Its jobs' own interval in place of that of `[poll]`.
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

/// A value with its place: toml's, with a schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Spanned<T>(toml::Spanned<T>);

impl<T> Spanned<T> {
    pub(super) fn new(span: Range<usize>, value: T) -> Self {
        Self(toml::Spanned::new(span, value))
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.0.span()
    }

    pub(super) fn get_ref(&self) -> &T {
        self.0.get_ref()
    }
}
