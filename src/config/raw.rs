//! The tables and keys of the configuration files, before defaults are applied.
//!
//! The type of a key is a marker: it names the rule for reading the value. Most markers are in `values`. The parsed field has the type
//! [`KeyContent::Parsed`]. For example, the marker `LogFormatWord` reads a `LogFormat`. The suffix `Word` (one of a fixed set) or `Text`
//! distinguishes the marker from the type of the value.
//!
//! The comments on keys become the descriptions in the JSON Schema. docs/configuration.md repeats most of them. `requires` lists groups of
//! keys: `[&["name"], &["url", "url_file"]]` requires `name`, and one of `url` and `url_file`.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeTable;

use super::diagnostics::{Location, Problem, SourceText};
use super::labels::LimitedLabels;
use super::reader::{Key, KeyContent, List, Map, Nested, Reader, Table, tables};
use super::sinks::{EventTypeWord, HeaderNameText, HeaderText, SinkFormatWord, SinkName, SinkTimeout, SinkUrlText};
use super::urls::{EndpointUrl, ExternalUrl};
use super::values::{
    BackoffInitial, BackoffMax, Boolean, CreatedWithin, ExternalId, FilePath, HostName, IncludePattern, Interval,
    JobIdText, JobKindWord, KeepFiles, Listen, LogFormatWord, LogLevelWord, LogRotationWord, MinInterval, Name,
    PasswordHashText, ReferenceStoreIdText, Region, RemoveAfter, RequestsPerSecond, Retention, RoleArn,
    SequenceStoreIdText, Share, TargetName, Timeout, UserName,
};
use crate::core::failure::Operation;
use crate::core::job::StoreId;
use crate::core::kind::{JobKind, StoreType};

tables! {
    RootTable, "the top level of the main file" requires [] {
        /// More files, for `[[job]]`, `[[store]]` and `[target.*]` only. One `*` matches any text in the last part of the path.
        include: List<IncludePattern>,
        /// How jobs are polled.
        poll: Nested<PollTable>,
        /// How many requests refwatch may send, for each target and operation.
        quota: Nested<QuotaTable>,
        /// The SQLite database of observed status changes.
        database: Nested<DatabaseTable>,
        /// The status page, the metrics and the API.
        http: Nested<HttpTable>,
        /// The log.
        log: Nested<LogTable>,
        /// Accounts and regions, by name. A job or store without `target` uses `[target.default]`.
        target: Map<TargetName, Nested<TargetTable>>,
        /// The jobs to watch.
        job: List<Nested<JobTable>>,
        /// The stores to watch, with all their jobs that are not older than `created_within`.
        store: List<Nested<StoreTable>>,
        /// The receivers of notifications, called sinks.
        notify: List<Nested<NotifyTable>>,
    }

    // Its keys need no descriptions: the schema describes the main file, which has the same keys and more.
    IncludedRootTable, "an included file" requires [] {
        target: Map<TargetName, Nested<TargetTable>>,
        job: List<Nested<JobTable>>,
        store: List<Nested<StoreTable>>,
    }

    PollTable, "[poll]" requires [] {
        /// "auto" polls every job as often as `min_interval` and the quota allow. A duration is a minimum; the quota may make it longer.
        interval: Interval,
        /// The minimum interval between two polls of one job. Retries and polls prompted by a listing may come sooner.
        min_interval: MinInterval,
        /// The timeout of one request, from credentials to response.
        timeout: Timeout,
        /// The delay after a failed poll. It doubles with each failure.
        backoff_initial: BackoffInitial,
        /// The maximum delay after a failed poll.
        backoff_max: BackoffMax,
        /// Whether to list a store if that saves polls of its jobs. A `[[store]]` is always listed. Requires the List action of the kind, such as omics:ListReferenceImportJobs.
        use_list: Boolean,
    }

    QuotaTable, "[quota] or [target.NAME.quota]" requires [] {
        /// The account's quota for the region. AWS's default is 5. Service Quotas shows yours.
        requests_per_second: RequestsPerSecond,
        /// The fraction of the quota that refwatch may use. The rest is for other callers of the account.
        share: Share,
        /// The quota of this operation, if it differs.
        GetReferenceImportJob: Nested<OperationQuotaTable>,
        /// The quota of this operation, if it differs.
        ListReferenceImportJobs: Nested<OperationQuotaTable>,
        /// The quota of this operation, if it differs.
        GetReadSetImportJob: Nested<OperationQuotaTable>,
        /// The quota of this operation, if it differs.
        ListReadSetImportJobs: Nested<OperationQuotaTable>,
        /// The quota of this operation, if it differs.
        GetReadSetExportJob: Nested<OperationQuotaTable>,
        /// The quota of this operation, if it differs.
        ListReadSetExportJobs: Nested<OperationQuotaTable>,
        /// The quota of this operation, if it differs.
        GetReadSetActivationJob: Nested<OperationQuotaTable>,
        /// The quota of this operation, if it differs.
        ListReadSetActivationJobs: Nested<OperationQuotaTable>,
    }

    OperationQuotaTable, "[quota.OPERATION] or [target.NAME.quota.OPERATION]" requires [] {
        /// The account's quota for this operation in the region.
        requests_per_second: RequestsPerSecond,
        /// The fraction of this quota that refwatch may use.
        share: Share,
    }

    DatabaseTable, "[database]" requires [] {
        /// The file, in an existing directory. The default is `refwatch.db` in `$STATE_DIRECTORY`, else for a configuration in `/etc` in `/var/lib/refwatch` (in `/var/lib/refwatch/NAME` for `/etc/refwatch/NAME`) if that exists, else in `refwatch` in the user's state directory.
        path: FilePath,
        /// How long a job's rows are kept after its end.
        retention: Retention,
    }

    HttpTable, "[http]" requires [] {
        /// The IP address and port to listen on.
        listen: Listen,
        /// The URL at which people open the status page, if it is behind a reverse proxy. Its host is accepted, and its path is removed from requests.
        external_url: ExternalUrl,
        /// Host names that requests may use. IP addresses, `localhost` and the host of `external_url` are always accepted, and this machine's name if `listen` is not on loopback.
        allowed_hosts: List<HostName>,
        /// TLS on the listener. The files are reloaded when they change.
        tls: Nested<TlsTable>,
        /// The users that have access, each with the bcrypt hash of a password, as `htpasswd -nBC 10 NAME` prints it after the colon.
        users: Map<UserName, PasswordHashText>,
    }

    TlsTable, "[http.tls]" requires [&["cert"], &["key"]] {
        /// The certificate and its intermediates, in PEM.
        cert: FilePath,
        /// The private key, in PEM.
        key: FilePath,
        /// The CA certificates for client certificates, in PEM. Without `client_ca`, no client certificate is requested.
        client_ca: FilePath,
    }

    LogTable, "[log]" requires [] {
        /// The minimum level of logged events. An edit applies without a restart.
        level: LogLevelWord,
        /// The format of a line.
        format: LogFormatWord,
        /// The directory of the log files. Its parent must exist. Without `directory`, refwatch logs to standard error only.
        directory: FilePath,
        /// How often a new file is started.
        rotation: LogRotationWord,
        /// The number of earlier files that are kept beside the current one.
        keep_files: KeepFiles,
    }

    TargetTable, "[target.NAME]" requires [] {
        /// The AWS region, such as us-west-2. Without `region`, the AWS SDK determines the region: environment, shared configuration files, instance.
        region: Region,
        /// A profile of the shared AWS configuration files.
        profile: Name,
        /// The ARN of the role to assume.
        role_arn: RoleArn,
        /// The external id that the role requires.
        external_id: ExternalId,
        /// The URL that replaces AWS's endpoint.
        endpoint_url: EndpointUrl,
        /// The quota of this target, if it differs from `[quota]`.
        quota: Nested<QuotaTable>,
    }

    JobTable, "[[job]]" requires [&["reference_store_id", "sequence_store_id"], &["id"]] {
        /// The `watch` label of the job's metrics. The default is `STORE/ID`, or `KIND/STORE/ID` in a sequence store.
        name: Name,
        /// The id of the reference store that the job imports into.
        reference_store_id: ReferenceStoreIdText,
        /// The id of the sequence store of a read set job.
        sequence_store_id: SequenceStoreIdText,
        /// The kind of the job. Required with `sequence_store_id`.
        kind: JobKindWord,
        /// The id of the job, as AWS returned it when the job was started.
        id: JobIdText,
        /// The target that sends the requests.
        target: TargetName,
        /// The interval of this job. It overrides `interval` in `[poll]`. Not shorter than `min_interval`.
        interval: Interval,
        /// Your own labels, such as a project or team. At most 16. They appear in `refwatch_job_labels`, on the job's page and in the API.
        labels: LimitedLabels,
    }

    StoreTable, "[[store]]" requires [&["reference_store_id", "sequence_store_id"]] {
        /// The `watch` label in the metrics of all its jobs. The default is the id of the store.
        name: Name,
        /// The id of a reference store.
        reference_store_id: ReferenceStoreIdText,
        /// The id of a sequence store.
        sequence_store_id: SequenceStoreIdText,
        /// The kinds of jobs to watch. The default is all kinds of the store.
        kinds: List<JobKindWord>,
        /// The maximum age of a job at the time when refwatch starts to list the store. Older jobs are not discovered. Not longer than `retention`.
        created_within: CreatedWithin,
        /// How long a job stays on the page and in the metrics after its end. Not longer than `retention`.
        remove_after: RemoveAfter,
        /// The target that sends the requests.
        target: TargetName,
        /// The interval of the store's jobs. It overrides `interval` in `[poll]`. Not shorter than `min_interval`.
        interval: Interval,
        /// The labels of the store's jobs, as for `[[job]]`. A job with its own entry has the labels of that entry only.
        labels: LimitedLabels,
    }

    NotifyTable, "[[notify]]" requires [&["name"], &["url", "url_file"]] {
        /// The `sink` label in the metrics. refwatch remembers by this name what it has delivered.
        name: SinkName,
        /// The URL that receives a POST request for each event. It begins with https://, or with http:// if the host is this machine.
        url: SinkUrlText,
        /// A file with the URL, for a URL that contains a token.
        url_file: FilePath,
        /// A file with the secrets that sign events, one `whsec_…` on each line. During a rotation it has the new and the old one.
        secret_file: FilePath,
        /// A file with a token for the header `Authorization: Bearer`.
        bearer_token_file: FilePath,
        /// More headers of each request. `/config` hides their values.
        headers: Map<HeaderNameText, HeaderText>,
        /// The statuses to notify of. `vanished` means that AWS no longer knows the job.
        on: List<EventTypeWord>,
        /// The names of the watches to notify of. A `*` matches any text. The default is all watches.
        watches: List<Name>,
        /// The body of a request: a CloudEvents object, or a line of text as Slack, Mattermost and Teams accept it.
        format: SinkFormatWord,
        /// The timeout of one request.
        timeout: SinkTimeout,
    }
}

impl QuotaTable {
    /// Each operation with its table.
    pub(super) fn operations(self) -> [(Operation, OperationQuotaTable); 8] {
        use JobKind::{ReadSetActivation, ReadSetExport, ReadSetImport, ReferenceImport};
        [
            (Operation::Get(ReferenceImport), self.GetReferenceImportJob),
            (Operation::List(ReferenceImport), self.ListReferenceImportJobs),
            (Operation::Get(ReadSetImport), self.GetReadSetImportJob),
            (Operation::List(ReadSetImport), self.ListReadSetImportJobs),
            (Operation::Get(ReadSetExport), self.GetReadSetExportJob),
            (Operation::List(ReadSetExport), self.ListReadSetExportJobs),
            (Operation::Get(ReadSetActivation), self.GetReadSetActivationJob),
            (Operation::List(ReadSetActivation), self.ListReadSetActivationJobs),
        ]
    }
}

impl JobTable {
    /// The store's id and type. If both stores are set, which is an error, those of the reference store.
    pub(super) fn store_id_and_type(&self) -> Option<(&Spanned<StoreId>, StoreType)> {
        store_id_and_type(self.reference_store_id.as_ref(), self.sequence_store_id.as_ref())
    }
}

impl StoreTable {
    /// As [`JobTable::store_id_and_type`].
    pub(super) fn store_id_and_type(&self) -> Option<(&Spanned<StoreId>, StoreType)> {
        store_id_and_type(self.reference_store_id.as_ref(), self.sequence_store_id.as_ref())
    }
}

fn store_id_and_type<'a>(
    reference: Option<&'a Spanned<StoreId>>,
    sequence: Option<&'a Spanned<StoreId>>,
) -> Option<(&'a Spanned<StoreId>, StoreType)> {
    match (reference, sequence) {
        (Some(id), _) => Some((id, StoreType::Reference)),
        (None, Some(id)) => Some((id, StoreType::Sequence)),
        (None, None) => None,
    }
}

pub(super) struct ParsedFile {
    pub source: SourceText,
    pub is_syntax_valid: bool,
    /// Invalid values are absent. `resolve` and `cross_check` cannot distinguish an invalid value from an absent one. So they report an
    /// absent value only if the file has no problem yet. If `is_syntax_valid` is false, all values are absent, except in `main_settings`. An
    /// included file has only the keys of `IncludedRootTable`.
    pub root: RootTable,
    pub problems: Vec<Problem>,
}

impl ParsedFile {
    pub(super) fn report(&mut self, span: Range<usize>, message: &str, help: Option<String>) {
        self.problems.push(Problem::new(Location::new(&self.source, span), message, help));
    }
}
