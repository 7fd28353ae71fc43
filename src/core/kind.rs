//! The kinds of jobs, in one table.
//!
//! All kinds have the same statuses, ids, errors, page size and quota. A row of the table holds everything in which they differ.
//! `healthomics::aws` reads the responses of each kind. The facts are from AWS's service model of 2022-11-28.

use std::fmt::{self, Display};
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobKind {
    ReferenceImport,
    ReadSetImport,
    ReadSetExport,
    ReadSetActivation,
}

/// Everything in which a kind differs from the others.
#[derive(Clone, Copy, Debug)]
pub struct KindInfo {
    /// The kind in the configuration, the metrics, the database, the API and paths.
    pub name: &'static str,
    /// The names of AWS's operations. The IAM action of an operation is `omics:` and its name.
    pub get_operation: &'static str,
    pub list_operation: &'static str,
    /// The member of a `List` response with the jobs.
    pub list_member: &'static str,
    pub store: StoreType,
    /// The words for the work, for one item and for a finished item: "import", "source", "imported".
    pub work_noun: &'static str,
    pub item_noun: &'static str,
    pub finished_participle: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreType {
    Reference,
    Sequence,
}

impl StoreType {
    /// The key of the store's id in the configuration.
    #[must_use]
    pub fn id_key(self) -> &'static str {
        match self {
            Self::Reference => "reference_store_id",
            Self::Sequence => "sequence_store_id",
        }
    }

    /// The member of AWS's responses with the store's id.
    #[must_use]
    pub fn id_member(self) -> &'static str {
        match self {
            Self::Reference => "referenceStoreId",
            Self::Sequence => "sequenceStoreId",
        }
    }

    /// The AWS word for the store.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Reference => "reference store",
            Self::Sequence => "sequence store",
        }
    }
}

impl JobKind {
    pub const ALL: [Self; 4] =
        [Self::ReferenceImport, Self::ReadSetImport, Self::ReadSetExport, Self::ReadSetActivation];

    #[must_use]
    pub const fn info(self) -> KindInfo {
        match self {
            Self::ReferenceImport => KindInfo {
                name: "reference_import",
                get_operation: "GetReferenceImportJob",
                list_operation: "ListReferenceImportJobs",
                list_member: "importJobs",
                store: StoreType::Reference,
                work_noun: "import",
                item_noun: "source",
                finished_participle: "imported",
            },
            Self::ReadSetImport => KindInfo {
                name: "read_set_import",
                get_operation: "GetReadSetImportJob",
                list_operation: "ListReadSetImportJobs",
                list_member: "importJobs",
                store: StoreType::Sequence,
                work_noun: "import",
                item_noun: "source",
                finished_participle: "imported",
            },
            Self::ReadSetExport => KindInfo {
                name: "read_set_export",
                get_operation: "GetReadSetExportJob",
                list_operation: "ListReadSetExportJobs",
                list_member: "exportJobs",
                store: StoreType::Sequence,
                work_noun: "export",
                item_noun: "read set",
                finished_participle: "exported",
            },
            Self::ReadSetActivation => KindInfo {
                name: "read_set_activation",
                get_operation: "GetReadSetActivationJob",
                list_operation: "ListReadSetActivationJobs",
                list_member: "activationJobs",
                store: StoreType::Sequence,
                work_noun: "activation",
                item_noun: "read set",
                finished_participle: "activated",
            },
        }
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.info().name
    }

    /// The heading of a list of items: "Sources" or "Read sets", or "Items" if jobs of these kinds have both.
    #[must_use]
    pub fn items_heading(kinds: impl IntoIterator<Item = Self>) -> String {
        let mut kinds = kinds.into_iter().map(|kind| kind.info().item_noun);
        let item = kinds.next().filter(|item| kinds.all(|other| other == *item)).unwrap_or("item");
        let mut heading = format!("{item}s");
        heading[..1].make_ascii_uppercase();
        heading
    }

    /// The kinds whose jobs are in a store of this type.
    pub fn of_store(store: StoreType) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |kind| kind.info().store == store)
    }
}

impl Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a kind must be one of {}", JobKind::ALL.map(JobKind::as_str).join(", "))]
pub struct InvalidKind;

impl FromStr for JobKind {
    type Err = InvalidKind;

    fn from_str(text: &str) -> Result<Self, InvalidKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(InvalidKind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_each_kind_follow_its_store() {
        let rows = JobKind::ALL.map(|kind| {
            let KindInfo { store, work_noun, item_noun, finished_participle, .. } = kind.info();
            [kind.as_str(), store.id_key(), store.id_member(), store.noun(), work_noun, item_noun, finished_participle]
                .join(", ")
        });
        let expected = [
            "reference_import, reference_store_id, referenceStoreId, reference store, import, source, imported",
            "read_set_import, sequence_store_id, sequenceStoreId, sequence store, import, source, imported",
            "read_set_export, sequence_store_id, sequenceStoreId, sequence store, export, read set, exported",
            "read_set_activation, sequence_store_id, sequenceStoreId, sequence store, activation, read set, activated",
        ];
        assert_eq!(rows, expected);
        let [first, sequence @ ..] = JobKind::ALL;
        assert_eq!(JobKind::items_heading([first, JobKind::ReadSetImport]), "Sources");
        assert_eq!(JobKind::items_heading([JobKind::ReadSetExport, JobKind::ReadSetActivation]), "Read sets");
        assert_eq!(JobKind::items_heading(JobKind::ALL), "Items");
        assert_eq!(JobKind::of_store(StoreType::Reference).collect::<Vec<_>>(), [first]);
        assert_eq!(JobKind::of_store(StoreType::Sequence).collect::<Vec<_>>(), sequence);
    }
}
