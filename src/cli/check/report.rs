//! The result of `refwatch check`, as one JSON object or one summary line.

use std::path::Path;

use serde::Serialize;

use super::super::exit::{Failure, json_line};
use super::online::TargetReport;
use super::sinks::SinkReport;
use crate::config::Problems;
use crate::core::sanitize::Sanitized;

#[derive(Default, Serialize)]
pub(super) struct Report {
    file: String,
    /// Such as "3 jobs on 1 target"; empty if there are problems.
    pub(super) watched: String,
    problems: Vec<serde_json::Value>,
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

    pub(super) fn add_problems(&mut self, problems: &Problems) {
        self.problems.extend(problems.0.iter().map(|problem| serde_json::json!(problem)));
    }

    /// Errors without a place.
    pub(super) fn add_errors(&mut self, errors: Vec<String>) {
        self.problems.extend(errors.into_iter().map(|error| serde_json::json!({ "message": error })));
    }

    /// Whether every needed operation is allowed and every sink is reachable.
    pub(super) fn succeeded(&self) -> bool {
        self.targets.iter().all(|target| target.missing() == 0) && self.sinks.iter().all(|sink| sink.is_reachable)
    }

    pub(super) fn json(&self) -> Result<String, Failure> {
        json_line(self)
    }

    pub(super) fn summary(&self) -> String {
        let count = |count: usize, noun: &str| {
            (count > 0).then(|| format!("{count} {noun}{}", if count == 1 { "" } else { "s" }))
        };
        let missing = self.targets.iter().map(TargetReport::missing).sum();
        let unreachable = self.sinks.iter().filter(|sink| !sink.is_reachable).count();
        let parts = [
            Some(self.watched.clone()).filter(|watched| !watched.is_empty()),
            count(self.problems.len(), "problem").or_else(|| Some("no problems".to_owned())),
            count(self.warnings.len(), "warning"),
            count(missing, "missing permission"),
            count(unreachable, "unreachable sink"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("{}: {}", Sanitized(&self.file), parts.join(", "))
    }
}
