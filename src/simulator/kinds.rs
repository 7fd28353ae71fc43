//! The four kinds of jobs as the API reference describes them: paths, members, operations and words.
//!
//! One row per kind. The operations, statuses, filters and errors of all kinds are otherwise the same.

use clap::ValueEnum;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Kind {
    ReferenceImport,
    ReadSetImport,
    ReadSetExport,
    ReadSetActivation,
}

/// A kind's row.
#[derive(Debug)]
pub(super) struct KindApi {
    pub(super) name: &'static str,
    pub(super) get_operation: &'static str,
    pub(super) list_operation: &'static str,
    /// The first segment of every path: the type of the store.
    pub(super) store_path: &'static str,
    pub(super) get_path: &'static str,
    pub(super) list_path: &'static str,
    pub(super) store_member: &'static str,
    pub(super) list_member: &'static str,
    pub(super) items_member: &'static str,
    /// The member of jobs in listings and in `Get` responses, beside those of every kind.
    pub(super) job_member: Option<(&'static str, &'static str)>,
    /// The member of an item that is present once the item is finished.
    pub(super) result_member: Option<&'static str>,
    pub(super) messages: Messages,
}

/// The texts of a kind's `statusMessage`. The API allows 127 characters.
#[derive(Debug)]
pub(super) struct Messages {
    pub(super) item_failures: [&'static str; 4],
    pub(super) item_cancelled: &'static str,
    pub(super) job_partly_failed: &'static str,
    pub(super) job_failed: &'static str,
}

impl Kind {
    pub const ALL: [Self; 4] =
        [Self::ReferenceImport, Self::ReadSetImport, Self::ReadSetExport, Self::ReadSetActivation];

    /// The name on refwatch's command line and in `/-/jobs`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.api().name
    }

    /// The key of the store's id in refwatch's configuration.
    #[must_use]
    pub fn store_key(self) -> &'static str {
        match self {
            Self::ReferenceImport => "reference_store_id",
            Self::ReadSetImport | Self::ReadSetExport | Self::ReadSetActivation => "sequence_store_id",
        }
    }

    pub(super) fn api(self) -> &'static KindApi {
        match self {
            Self::ReferenceImport => &REFERENCE_IMPORT,
            Self::ReadSetImport => &READ_SET_IMPORT,
            Self::ReadSetExport => &READ_SET_EXPORT,
            Self::ReadSetActivation => &READ_SET_ACTIVATION,
        }
    }
}

const REFERENCE_IMPORT: KindApi = KindApi {
    name: "reference_import",
    get_operation: "GetReferenceImportJob",
    list_operation: "ListReferenceImportJobs",
    store_path: "referencestore",
    get_path: "importjob",
    list_path: "importjobs",
    store_member: "referenceStoreId",
    list_member: "importJobs",
    items_member: "sources",
    job_member: Some(("roleArn", "arn:aws:iam::123456789012:role/HealthOmicsReferenceImport")),
    result_member: Some("referenceId"),
    messages: Messages {
        item_failures: [
            "The source file is not a valid FASTA file: sequence 'chrM' has no bases",
            "The service role is not allowed to read the source file: s3:GetObject was denied",
            "The source file was not found",
            "The reference’s MD5 checksum differs from that of an existing reference of the same name",
        ],
        item_cancelled: "The import job was cancelled before this source was imported",
        job_partly_failed: "At least one source was not imported; see the sources’ messages",
        job_failed: "No source was imported; see the sources’ messages",
    },
};

const READ_SET_IMPORT: KindApi = KindApi {
    name: "read_set_import",
    get_operation: "GetReadSetImportJob",
    list_operation: "ListReadSetImportJobs",
    store_path: "sequencestore",
    get_path: "importjob",
    list_path: "importjobs",
    store_member: "sequenceStoreId",
    list_member: "importJobs",
    items_member: "sources",
    job_member: Some(("roleArn", "arn:aws:iam::123456789012:role/HealthOmicsReadSetImport")),
    result_member: Some("readSetId"),
    messages: Messages {
        item_failures: [
            "The source file is not a valid FASTQ file: record 1048577 is truncated",
            "The service role is not allowed to read the source file: s3:GetObject was denied",
            "The source file was not found",
            "The source files have different numbers of reads",
        ],
        item_cancelled: "The import job was cancelled before this source was imported",
        job_partly_failed: "At least one source was not imported; see the sources’ messages",
        job_failed: "No source was imported; see the sources’ messages",
    },
};

const READ_SET_EXPORT: KindApi = KindApi {
    name: "read_set_export",
    get_operation: "GetReadSetExportJob",
    list_operation: "ListReadSetExportJobs",
    store_path: "sequencestore",
    get_path: "exportjob",
    list_path: "exportjobs",
    store_member: "sequenceStoreId",
    list_member: "exportJobs",
    items_member: "readSets",
    job_member: Some(("destination", "s3://example-read-set-exports/")),
    result_member: None,
    messages: Messages {
        item_failures: [
            "The read set is archived; activate it before the export",
            "The service role is not allowed to write to the destination: s3:PutObject was denied",
            "The read set was not found",
            "The destination bucket does not exist",
        ],
        item_cancelled: "The export job was cancelled before this read set was exported",
        job_partly_failed: "At least one read set was not exported; see the read sets’ messages",
        job_failed: "No read set was exported; see the read sets’ messages",
    },
};

const READ_SET_ACTIVATION: KindApi = KindApi {
    name: "read_set_activation",
    get_operation: "GetReadSetActivationJob",
    list_operation: "ListReadSetActivationJobs",
    store_path: "sequencestore",
    get_path: "activationjob",
    list_path: "activationjobs",
    store_member: "sequenceStoreId",
    list_member: "activationJobs",
    items_member: "sources",
    job_member: None,
    result_member: None,
    messages: Messages {
        item_failures: [
            "The read set is already active",
            "The read set is being deleted",
            "The read set was not found",
            "The read set could not be restored from the archive",
        ],
        item_cancelled: "The activation job was cancelled before this read set was activated",
        job_partly_failed: "At least one read set was not activated; see the sources’ messages",
        job_failed: "No read set was activated; see the sources’ messages",
    },
};
