//! Formats transitions as a table. Untrusted text is sanitized.

use super::super::table;
use crate::core::sanitize::{Sanitized, excerpt};
use crate::core::transition::{Anomaly, Transition};
use crate::database::Row;

/// In characters. Longer text is cut in the table; `--json` has all of it.
const CELL_LENGTH_MAX: usize = 200;

const LAYOUT: table::Layout<5> = table::Layout {
    header: ["OBSERVED AT", "WATCH", "JOB", "FROM", "STATUS"],
    cut: Some(1),
    dropped: &[3, 1],
    below: 2,
    status: 4,
};

/// One line per transition, and AWS's message under it. Untrusted text is sanitized.
#[must_use]
pub fn table(rows: &[Row<Transition>], width: usize) -> String {
    lines(rows, width, false).text()
}

pub(super) fn lines(rows: &[Row<Transition>], width: usize, colours: bool) -> table::Lines {
    let cells: Vec<table::Row<5>> = rows.iter().map(cells).collect();
    table::lines(&LAYOUT, &cells, width, colours)
}

/// The cells of a transition, and AWS's message as the note.
fn cells(row: &Row<Transition>) -> table::Row<5> {
    let Transition { from, to, observed_at, status_message, anomaly, watch, .. } = &row.value;
    let anomaly = anomaly.map(|anomaly| format!(" ({})", Anomaly::as_str(anomaly))).unwrap_or_default();
    let sanitized = |text: &str| Sanitized(&excerpt(text, CELL_LENGTH_MAX)).to_string();
    let from = from.as_ref().map(|from| sanitized(from.as_str())).unwrap_or_default();
    let watch = watch.as_ref().map(|watch| sanitized(&watch.name)).unwrap_or_default();
    let status = sanitized(&format!("{to}{anomaly}"));
    table::Row {
        cells: [format!("{observed_at:.3}"), watch, row.target_job.key.to_string(), from, status],
        note: status_message.as_deref().map(sanitized),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::exit::json_line;
    use super::*;
    use crate::core::job::{JobStatus, TargetJob};
    use crate::core::transition::WatchInfo;

    fn row(id: i64, value: Transition) -> Row<Transition> {
        let key = "1234567890/9876543210".parse().expect("two ids");
        Row { id, target_job: TargetJob { target: "default".into(), key }, value }
    }

    fn transition(to: &str, observed_at: &str) -> Transition {
        Transition {
            from: None,
            to: JobStatus::from(to),
            observed_at: observed_at.parse().expect("a time"),
            not_before: None,
            status_message: None,
            created_at: None,
            completed_at: None,
            anomaly: None,
            watch: None,
        }
    }

    fn watched_as(name: &str) -> Arc<WatchInfo> {
        Arc::new(WatchInfo { name: name.into(), ..WatchInfo::default() })
    }

    fn rows() -> [Row<Transition>; 2] {
        let first = transition("SUBMITTED", "2026-01-31T12:00:00Z");
        let second = Transition {
            from: Some(first.to.clone()),
            not_before: Some(first.observed_at),
            status_message: Some("no such\nfile \u{1b}[31m".to_owned()),
            anomaly: Some(Anomaly::NoCompletionTime),
            ..transition("FAILED", "2026-01-31T12:00:05.25Z")
        };
        [row(1, first), row(2, second)]
    }

    #[test]
    fn the_table_has_one_sanitized_line_per_transition_and_one_per_message() {
        let expected = r"
OBSERVED AT               JOB                    STATUS
2026-01-31T12:00:00.000Z  1234567890/9876543210  SUBMITTED
2026-01-31T12:00:05.250Z  1234567890/9876543210  FAILED (no_completion_time)
   no such\u000afile \u001b[31m
";
        assert_eq!(table(&rows(), 80), &expected[1..]);
        assert_eq!(table(&[], 80), "");
        let status_message = Some("x".repeat(100_000));
        let long = Transition { status_message, ..transition("FAILED", "2026-01-31T12:00:00Z") };
        assert!(table(&[row(1, long)], usize::MAX).lines().all(|line| line.chars().count() < 300));
    }

    #[test]
    fn the_table_names_the_watch_and_drops_columns_until_it_fits() {
        let watch = Some(watched_as("GRCh38"));
        let ended = Transition { watch, ..transition("COMPLETED_WITH_FAILURES", "2026-01-31T12:00:05.25Z") };
        let shown = |width| table(&[row(1, Transition { from: Some("IN_PROGRESS".into()), ..ended.clone() })], width);
        for (width, line) in [
            (100, "2026-01-31T12:00:05.250Z  GRCh38  1234567890/9876543210  IN_PROGRESS  COMPLETED_WITH_FAILURES"),
            (90, "2026-01-31T12:00:05.250Z  GRCh38  1234567890/9876543210  COMPLETED_WITH_FAILURES"),
            (80, "2026-01-31T12:00:05.250Z  GRCh38  1234567890/9876543210  COMPLETED_WITH_FAILURES"),
            (79, "2026-01-31T12:00:05.250Z  1234567890/9876543210  COMPLETED_WITH_FAILURES"),
        ] {
            assert_eq!(shown(width).lines().nth(1), Some(line), "{width}");
        }
    }

    #[test]
    fn the_json_has_the_columns_of_the_database() {
        let shown = json_line(&rows()[1..]).expect("JSON");
        let expected = concat!(
            r#"[{"id":2,"target":"default","kind":"reference_import","store_id":"1234567890","job_id":"9876543210","#,
            r#""from_status":"SUBMITTED","to_status":"FAILED","observed_at":"2026-01-31T12:00:05.250Z","#,
            r#""not_before":"2026-01-31T12:00:00.000Z","status_message":"no such\nfile \u001b[31m","created_at":null,"#,
            r#""completed_at":null,"anomaly":"no_completion_time","region":null,"watch":null,"labels":null}]"#,
            "\n"
        );
        assert_eq!(shown, expected);
        assert_eq!(json_line::<[Row<Transition>]>(&[]).expect("JSON"), "[]\n");
    }

    proptest::proptest! {
        #[test]
        fn fault_113_untrusted_text_in_history_is_sanitized(text in "(?s)(.|[\n\r\t\u{2028}\u{202e}\u{1b}]){0,20}") {
            let transition = Transition {
                from: Some(JobStatus::from(text.as_str())),
                status_message: Some(text.clone()),
                watch: Some(watched_as(&text)),
                ..transition(&text, "2026-01-31T12:00:00Z")
            };
            let rows = [row(1, transition.clone()), row(2, transition)];
            let shown = table(&rows, usize::MAX);
            assert!(!shown.contains(|c: char| crate::core::sanitize::is_unsafe_to_display(c) && c != '\n'), "{shown:?}");
            assert_eq!(shown.matches('\n').count(), 5, "a header, two lines and two messages: {shown:?}");
            let parsed: serde_json::Value = serde_json::from_str(&json_line(&rows).expect("JSON")).expect("JSON");
            assert_eq!(parsed[0]["status_message"], text);
        }
    }
}
