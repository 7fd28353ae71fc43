//! The key `labels` of jobs and stores. It limits the number of labels: each one is in every series of `refwatch_job_labels`.

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::DeValue;

use super::reader::{Field, Map, Reader};
use super::values::{LabelName, LabelValue};
use crate::core::job::Labels;

/// A job's series has five labels more. Prometheus has no default limit; hosted services commonly accept 30 labels.
const LABELS_MAX: usize = 16;

/// A table of labels. Its values may be invalid.
pub(super) struct LabelTable;

type Entries = Map<LabelName, LabelValue>;

impl Field for LabelTable {
    type Parsed = <Entries as Field>::Parsed;

    fn read(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Self::Parsed {
        if value.get_ref().as_table().is_some_and(|labels| labels.len() > LABELS_MAX) {
            reader.report(value.span(), &format!("`{key}` must have at most {LABELS_MAX} entries"), None);
        }
        Entries::read(reader, key, value)
    }

    fn schema() -> Json {
        let mut schema = Entries::schema();
        schema["maxProperties"] = LABELS_MAX.into();
        schema
    }
}

/// The labels without invalid values, which are reported already.
pub(super) fn labels(parsed: <LabelTable as Field>::Parsed) -> Labels {
    parsed.into_iter().filter_map(|(name, value)| Some((name.into_inner(), value?.into_inner()))).collect()
}
