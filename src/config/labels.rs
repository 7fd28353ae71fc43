//! The key `labels` of jobs and stores. The number of labels is limited, because the series of a job in the metric `refwatch_job_labels`
//! has all labels of the job.

use std::sync::LazyLock;

use regex_lite::Regex;
use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;

use super::reader::{KeyContent, Map, Reader};
use super::values::{Invalid, ValueType, no_candidates, pattern_schema, read_text, regex, require, value_type};
use crate::core::job::Labels;
use crate::core::sanitize::is_unsafe_to_display;

/// Each series has five more labels. Prometheus has no default limit. Hosted services commonly accept 30 labels, so 16 leaves a margin.
const LABELS_MAX: usize = 16;

regex!(
    LabelName,
    "^(_|[A-Za-z][A-Za-z0-9_]{0,127}|_[A-Za-z0-9][A-Za-z0-9_]{0,126})$",
    "must be 1 to 128 letters, digits or underscores, and must not begin with a digit or `__`"
);
value_type!(LabelValue, String, json!({"type": "string", "maxLength": 128}), |value| {
    read_text(value, label_value, no_candidates)
});

/// The type of the key `labels`.
pub(super) struct LimitedLabels;

type LabelMap = Map<LabelName, LabelValue>;

impl KeyContent for LimitedLabels {
    type Parsed = <LabelMap as KeyContent>::Parsed;

    fn read(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Self::Parsed {
        if value.get_ref().as_table().is_some_and(|labels| labels.len() > LABELS_MAX) {
            reader.report(value.span(), &format!("`{key}` must have at most {LABELS_MAX} entries"), None);
        }
        LabelMap::read(reader, key, value)
    }

    fn schema() -> Json {
        let mut schema = LabelMap::schema();
        schema["maxProperties"] = LABELS_MAX.into();
        schema
    }
}

fn label_value(text: &str) -> Result<String, String> {
    let is_value = text.chars().count() <= 128 && !text.chars().any(is_unsafe_to_display);
    require(is_value, "must be at most 128 visible characters").map(|()| text.to_owned())
}

/// The labels without invalid values, which are reported already.
pub(super) fn valid_labels(parsed: <LimitedLabels as KeyContent>::Parsed) -> Labels {
    parsed.into_iter().filter_map(|(name, value)| Some((name.into_inner(), value?.into_inner()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_name_has_at_most_128_characters_and_does_not_begin_with_two_underscores() {
        let is_name = |text: &str| LabelName::convert(&DeValue::String(text.into())).is_ok();
        for start in ["a", "_", "_1"] {
            let longest = start.to_owned() + &"x".repeat(128 - start.len());
            assert!(is_name(start) && is_name(&longest) && !is_name(&(longest + "x")), "{start}");
        }
        assert!(!is_name("") && !is_name("1") && !is_name("__a") && !is_name("a-b"));
    }
}
