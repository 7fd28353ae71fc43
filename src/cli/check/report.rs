//! The result of `refwatch check`, as one JSON object or one summary line.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::super::exit::{Failure, count, json_line};
use super::online::TargetReport;
use super::sinks::SinkReport;
use crate::core::sanitize::Sanitized;

#[derive(Default, Serialize)]
pub(super) struct Report {
    file: String,
    /// Such as "3 jobs on 1 target"; empty if there are problems.
    pub(super) watched: String,
    /// Errors without a place have only a message.
    pub(super) problems: Vec<Value>,
    pub(super) warnings: Vec<String>,
    /// Empty without `--online`.
    pub(super) targets: Vec<TargetReport>,
    /// Empty without `--online`.
    pub(super) sinks: Vec<SinkReport>,
}

impl Report {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_string_lossy().into_owned(), ..Self::default() }
    }

    /// Whether every needed operation succeeded and every sink is reachable.
    pub(super) fn succeeded(&self) -> bool {
        self.targets.iter().all(|target| target.denied() + target.failed() == 0)
            && self.sinks.iter().all(|sink| sink.is_reachable)
    }

    pub(super) fn json(&self) -> Result<String, Failure> {
        json_line(self)
    }

    pub(super) fn summary(&self) -> String {
        let any = |number: usize, noun: &str| (number > 0).then(|| count(number, noun));
        let denied = self.targets.iter().map(TargetReport::denied).sum();
        let failed = self.targets.iter().map(TargetReport::failed).sum();
        let unreachable = self.sinks.iter().filter(|sink| !sink.is_reachable).count();
        let parts = [
            Some(self.watched.clone()).filter(|watched| !watched.is_empty()),
            any(self.problems.len(), "problem").or_else(|| Some("no problems".to_owned())),
            any(self.warnings.len(), "warning"),
            any(denied, "missing permission"),
            any(failed, "failed request"),
            any(unreachable, "unreachable sink"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("{}: {}", Sanitized(&self.file), parts.join(", "))
    }
}
