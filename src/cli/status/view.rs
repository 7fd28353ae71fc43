//! Formats the status: errors of the daemon, the table of watches, stores that cannot be listed, sinks that are down, a summary.

use super::super::exit::{count, count_each};
use super::super::table;
use super::super::terminal::wrap;
use crate::core::kind::JobKind;
use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;
use crate::http::daemon::DaemonInfo;
use crate::http::jobs::JobInfo;
use crate::http::stores::StoreInfo;
use crate::http::{self, Severity, stores};
use crate::state::{ConfigError, SinkState, SinkStatus};

const LAYOUT: table::Layout<6> = table::Layout {
    header: ["WATCH", "JOB", "STATUS", "FOR", "ITEMS", "NEXT POLL"],
    cut: Some(0),
    dropped: &[5, 4, 3],
    below: 1,
    status: 2,
};

/// In place of a status.
const NOT_SEEN_YET: &str = "not seen yet";

/// The responses of a daemon.
pub(super) struct View {
    pub(super) watches: Vec<JobInfo>,
    pub(super) stores: Vec<StoreInfo>,
    pub(super) sinks: Vec<SinkStatus>,
    pub(super) daemon: DaemonInfo,
    pub(super) now: Timestamp,
    /// Whether other jobs may exist that do not match.
    pub(super) is_filtered: bool,
}

impl View {
    pub(super) fn text(&self, width: usize, colours: bool) -> String {
        let table = self.lines(width, colours).text();
        let gap = if table.is_empty() { "" } else { "\n" };
        wrap(&errors(&self.daemon), width) + &table + gap + &wrap(&self.notices(), width)
    }

    /// The lines above the table, for a screen.
    pub(super) fn head(&self, width: usize) -> String {
        wrap(&(errors(&self.daemon) + &self.notices()), width)
    }

    /// The stores that cannot be listed, the sinks that are down, and the summary.
    fn notices(&self) -> String {
        let matches_none = self.watches.is_empty() && self.is_filtered;
        let summary = if matches_none { "No job matches.\n".to_owned() } else { summary(&self.watches, &self.stores) };
        unlisted(&self.stores) + &down(&self.sinks) + &summary
    }

    pub(super) fn lines(&self, width: usize, colours: bool) -> table::Lines {
        lines(&self.watches, self.now, width, colours)
    }

    pub(super) fn need_attention(&self) -> impl Iterator<Item = bool> {
        self.watches.iter().map(|watch| watch.severity() == Severity::Attention)
    }
}

/// The errors of the daemon and an empty line; nothing if there are none.
fn errors(daemon: &DaemonInfo) -> String {
    let not_ready = daemon.not_ready.iter().map(|reason| format!("Not ready: {}\n", Sanitized(reason)));
    let configuration = daemon.config_error.iter().map(|ConfigError { in_use, summary, .. }| {
        format!("Configuration: {} ({}): run refwatch check\n", Sanitized(summary), Sanitized(in_use))
    });
    let errors: String = not_ready.chain(configuration).collect();
    if errors.is_empty() { errors } else { errors + "\n" }
}

/// The stores that cannot be listed, one line per store.
fn unlisted(stores: &[StoreInfo]) -> String {
    let lines = stores.iter().filter_map(|store| {
        let name = stores::display_name(&store.watch, &store.store_id);
        let error = Sanitized(store.error.as_ref()?);
        Some(format!("New {} jobs of the store {name} cannot be discovered: {error}\n", Sanitized(&store.kind)))
    });
    lines.collect()
}

/// One line for the sinks that are paused or disabled.
fn down(sinks: &[SinkStatus]) -> String {
    let down = sinks.iter().filter(|sink| sink.state != SinkState::Up);
    let down: Vec<_> = down.map(|sink| format!("{} is {}", Sanitized(&sink.name), sink.state.as_str())).collect();
    if down.is_empty() {
        return String::new();
    }
    format!("Notifications are not delivered: {}: run refwatch notify status\n", down.join(", "))
}

/// Such as: 14 jobs: 13 COMPLETED, 1 FAILED; 1 needs attention.
fn summary(watches: &[JobInfo], stores: &[StoreInfo]) -> String {
    match watches.len() {
        0 if stores.is_empty() => return "Nothing is watched.\n".to_owned(),
        0 => return "No job was discovered yet.\n".to_owned(),
        _ => {}
    }
    let attention = watches.iter().filter(|watch| watch.severity() == Severity::Attention).count();
    let counts = count_each(watches.iter().map(|watch| watch.status.as_deref().unwrap_or(NOT_SEEN_YET)));
    let need = match attention {
        0 => String::new(),
        1 => "; 1 needs attention".to_owned(),
        _ => format!("; {attention} need attention"),
    };
    format!("{}: {counts}{need}\n", count(watches.len(), "job"))
}

/// One line per watch, and its most urgent note under it.
#[must_use]
pub fn table(watches: &[JobInfo], now: Timestamp, width: usize) -> String {
    lines(watches, now, width, false).text()
}

fn lines(watches: &[JobInfo], now: Timestamp, width: usize, colours: bool) -> table::Lines {
    let rows: Vec<_> = watches.iter().map(|watch| table::Row { cells: row(watch, now), note: note(watch) }).collect();
    let kinds = watches.iter().filter_map(|watch| watch.kind.parse().ok());
    let items = JobKind::items_heading(kinds).to_uppercase();
    let header = ["WATCH", "JOB", "STATUS", "FOR", &*items, "NEXT POLL"];
    table::lines(&table::Layout { header, ..LAYOUT }, &rows, width, colours)
}

fn row(watch: &JobInfo, now: Timestamp) -> [String; 6] {
    let items = watch.items.as_ref().map(|items| {
        let finished = items.by_status.get("FINISHED").copied().unwrap_or_default();
        format!("{finished} of {}", items.total)
    });
    let next_poll = watch.next_poll.as_deref().map(|at| match at.parse::<Timestamp>() {
        Ok(at) if at.duration_since(now).as_secs() <= 0 => "now".to_owned(),
        _ => format!("in {}", distance(at, now)),
    });
    [
        Sanitized(&watch.watch).to_string(),
        Sanitized(&job(watch)).to_string(),
        Sanitized(watch.status.as_deref().unwrap_or(NOT_SEEN_YET)).to_string(),
        watch.since.as_deref().map(|since| distance(since, now)).unwrap_or_default(),
        items.unwrap_or_default(),
        next_poll.unwrap_or_default(),
    ]
}

/// The job as the commands accept it.
fn job(JobInfo { kind, store_id, job_id, .. }: &JobInfo) -> String {
    let job = format!("{store_id}/{job_id}");
    if kind == JobKind::ReferenceImport.as_str() { job } else { format!("{kind}/{job}") }
}

/// In this order: why the watch is parked, why polls fail, that AWS does not find the job, AWS's message.
fn note(watch: &JobInfo) -> Option<String> {
    let failure = watch.recent_failures.last().filter(|_| watch.up == Some(false));
    let note = match (&watch.parked_reason, failure, &watch.status_message) {
        (Some(reason), _, _) => format!("parked: {reason}"),
        (None, Some(failure), _) => format!("{}: {}", failure.reason, failure.message),
        (None, None, _) if watch.vanished => "AWS no longer finds this job".to_owned(),
        (None, None, message) => message.clone()?,
    };
    Some(Sanitized(&note).to_string())
}

fn distance(time: &str, now: Timestamp) -> String {
    time.parse().map_or_else(|_| Sanitized(time).to_string(), |time| http::duration_between(time, now))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::http::jobs::{JobItems, PollFailure};

    fn watch() -> JobInfo {
        JobInfo {
            watch: "GRCh38".to_owned(),
            target: "default".to_owned(),
            aws_region: "us-west-2".to_owned(),
            kind: "reference_import".to_owned(),
            store_id: "1234567890".to_owned(),
            job_id: "2222222222".to_owned(),
            labels: BTreeMap::new(),
            status: Some("IN_PROGRESS".to_owned()),
            state: "live".to_owned(),
            parked_reason: None,
            vanished: false,
            status_message: None,
            created_at: None,
            completed_at: None,
            since: Some("2026-03-01T08:00:00.000Z".to_owned()),
            last_seen: None,
            items: Some(JobItems { total: 3, by_status: [("FINISHED".to_owned(), 2)].into(), listed: vec![] }),
            up: Some(true),
            last_successful_poll: None,
            next_poll: Some("2026-03-01T10:05:12.000Z".to_owned()),
            recent_failures: vec![],
        }
    }

    #[test]
    fn a_store_without_jobs_is_reported_and_a_store_that_cannot_be_listed_has_its_error() {
        let shown = |watches: &[JobInfo], stores: &[StoreInfo]| unlisted(stores) + &summary(watches, stores);
        let store = StoreInfo {
            kind: "reference_import".to_owned(),
            watch: "shared references".to_owned(),
            target: "default".to_owned(),
            store_id: "1234567890".to_owned(),
            last_listed_at: None,
            error: None,
        };
        let listed = StoreInfo { watch: "1234567891".to_owned(), store_id: "1234567891".to_owned(), ..store.clone() };
        let denied = StoreInfo { error: Some("\u{1b}[2Jdenied".to_owned()), ..store };
        assert_eq!(shown(&[], &[]), "Nothing is watched.\n");
        assert_eq!(shown(&[], std::slice::from_ref(&listed)), "No job was discovered yet.\n");
        let expected = "New reference_import jobs of the store shared references (1234567890) cannot be discovered: \\u001b[2Jdenied\n";
        assert_eq!(shown(&[], &[denied.clone(), listed.clone()]), format!("{expected}No job was discovered yet.\n"));
        assert_eq!(shown(&[watch()], &[denied, listed]), format!("{expected}1 job: 1 IN_PROGRESS\n"));
        let failed = JobInfo { status: Some("FAILED".to_owned()), ..watch() };
        let unseen = JobInfo { status: None, ..watch() };
        assert_eq!(
            shown(&[failed.clone(), watch(), unseen, failed], &[]),
            "4 jobs: 2 FAILED, 1 IN_PROGRESS, 1 not seen yet; 2 need attention\n"
        );
    }

    #[test]
    fn one_line_names_the_sinks_that_are_paused_or_disabled() {
        let sink = |name: &str, state| SinkStatus { name: name.to_owned(), state, ..SinkStatus::default() };
        let sinks = [
            sink("chat", SinkState::Up),
            sink("\u{1b}[2Jold", SinkState::Disabled),
            sink("pipeline", SinkState::Paused),
        ];
        let expected = "Notifications are not delivered: \\u001b[2Jold is disabled, pipeline is paused: \
                        run refwatch notify status\n";
        assert_eq!(down(&sinks), expected);
        assert_eq!(down(&sinks[..1]), "");
    }

    #[test]
    fn notes_fit_the_terminal_and_text_is_sanitized() {
        let failure = PollFailure {
            at: "2026-03-01T10:04:00.000Z".to_owned(),
            reason: "internal".to_owned(),
            message: "a long and hostile message \u{1b}[2J\n of the service".repeat(3),
        };
        let hostile =
            JobInfo { watch: "\u{202e}name\n".to_owned(), up: Some(false), recent_failures: vec![failure], ..watch() };
        let now = "2026-03-01T10:05:00Z".parse().expect("a time");
        let watches = [watch(), hostile];
        for width in [60, 80, 140] {
            let shown = table(&watches, now, width);
            let note = shown.lines().nth(3).expect("a note");
            assert_eq!(note.chars().count(), width, "{shown}");
            assert!(note.trim().starts_with("internal: a long"), "{shown}");
            assert!(!shown.contains(|c: char| crate::core::sanitize::is_unsafe_to_display(c) && c != '\n'), "{shown}");
        }
        let shown = table(&watches, now, usize::MAX);
        let row = shown.lines().nth(1).expect("a row");
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["GRCh38", "1234567890/2222222222", "IN_PROGRESS", "2h 5m", "2 of 3", "in 12s"], "{shown}");
    }

    proptest::proptest! {
        #[test]
        fn fault_113_untrusted_text_in_status_is_sanitized(text in "(?s)(.|[\n\r\t\u{2028}\u{202e}\u{1b}]){0,20}", width: usize) {
            let failure = PollFailure { at: text.clone(), reason: text.clone(), message: text.clone() };
            let of_text = JobInfo {
                watch: text.clone(),
                kind: text.clone(),
                store_id: text.clone(),
                job_id: text.clone(),
                status: Some(text.clone()),
                status_message: Some(text.clone()),
                since: Some(text.clone()),
                next_poll: Some(text.clone()),
                ..watch()
            };
            let failed = JobInfo { up: Some(false), recent_failures: vec![failure], ..of_text.clone() };
            let parked = JobInfo { parked_reason: Some(text.clone()), ..of_text.clone() };
            let shown = table(&[of_text, failed, parked], Timestamp::UNIX_EPOCH, width);
            assert!(!shown.contains(|c: char| crate::core::sanitize::is_unsafe_to_display(c) && c != '\n'), "{shown:?}");
            // A header, and a row and a note for each watch. In a narrow terminal, jobs are on lines of their own.
            assert!(shown.matches('\n').count() >= 7, "{shown:?}");
        }
    }
}
