//! `refwatch status`: shows every watch of the running daemon as a table. The data comes from the daemon's API.

use std::fmt::Display;
use std::io::stdout;
use std::iter;
use std::path::Path;
use std::time::Duration;

use serde_json::from_slice;

use super::exit::{Failure, print_note, print_to_reader};
use super::{own_daemon, table, terminal};
use crate::clock::Clock;
use crate::config;
use crate::core::kind::JobKind;
use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;
use crate::http::client::DaemonAddress;
use crate::http::daemon::{ConfigErrorInfo, DaemonInfo};
use crate::http::jobs::JobInfo;
use crate::http::stores::StoreInfo;
use crate::http::{self, client, stores};

const FOLLOW_INTERVAL: Duration = Duration::from_secs(2);

/// Cursor home, then erase to the end of the screen (ECMA-48 CUP, ED).
const REDRAW: &str = "\x1b[H\x1b[J";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the JSON of the daemon's API
    #[arg(long)]
    json: bool,
    /// Repeat every 2 seconds until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// The address of a daemon, also of another configuration [default: the daemon of this configuration]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
}

/// # Errors
/// Returns an error if the daemon does not respond to the first request.
pub async fn run(config: &Path, args: Args) -> Result<(), Failure> {
    let clock = Clock::system();
    let address = match args.address {
        Some(address) => DaemonAddress::Listener(address),
        None => configured_address(config).await?,
    };
    let redraw = args.follow && !args.json && terminal::understands_escapes(&stdout());
    let start = if redraw { REDRAW } else { "" };
    let mut text = fetch(&address, args.json, clock.now().wall).await?;
    while print_to_reader(format_args!("{start}{text}"))? && args.follow {
        clock.sleep(FOLLOW_INTERVAL).await;
        // The daemon may restart: an error is shown and the next request is sent as usual.
        text = fetch(&address, args.json, clock.now().wall).await.unwrap_or_else(|failure| {
            if args.json {
                print_note(&failure.message);
                String::new()
            } else {
                failure.message + "\n"
            }
        });
    }
    Ok(())
}

/// The daemon of the configuration. It may still run if the file has errors by now.
async fn configured_address(path: &Path) -> Result<DaemonAddress, Failure> {
    if let Err(problems) = config::load(path) {
        print_note(format_args!("warning: {}: run refwatch check", problems.summary()));
    }
    own_daemon::find(path).await
}

async fn fetch(address: &DaemonAddress, json: bool, now: Timestamp) -> Result<String, Failure> {
    let failure = |error: &dyn Display| {
        Failure::running(format_args!(
            "cannot read the status from {address}: {error}: check systemctl status refwatch, or set --address"
        ))
    };
    let get = async |path| client::get(address, path).await.map_err(|error| failure(&error));
    let (jobs, stores, daemon) =
        (get("/api/v1/jobs").await?, get("/api/v1/stores").await?, get("/api/v1/daemon").await?);
    // All three are parsed in each format: another program may listen at this address.
    let parsed = || Ok((from_slice(&jobs)?, from_slice(&stores)?, from_slice(&daemon)?));
    let (watches, stores, daemon): (Vec<JobInfo>, Vec<StoreInfo>, DaemonInfo) =
        parsed().map_err(|error: serde_json::Error| failure(&format_args!("not a response of refwatch: {error}")))?;
    if json {
        let json = serde_json::to_string(&watches).map_err(Failure::running)?;
        return Ok(format!("{}\n", Sanitized(&json)));
    }
    Ok(errors(&daemon) + &watch_table(&watches, &stores, now, terminal::width()))
}

/// The errors of the daemon and an empty line; nothing if there are none.
fn errors(daemon: &DaemonInfo) -> String {
    let not_ready = daemon.not_ready.iter().map(|reason| format!("Not ready: {}\n", Sanitized(reason)));
    let configuration = daemon.config_error.iter().map(|ConfigErrorInfo { in_force, summary, .. }| {
        format!("Configuration: {} ({}): run refwatch check\n", Sanitized(summary), Sanitized(in_force))
    });
    let errors: String = not_ready.chain(configuration).collect();
    if errors.is_empty() { errors } else { errors + "\n" }
}

/// The watches, then one line per store that cannot be listed. The line is not cut: the advice is at its end.
fn watch_table(watches: &[JobInfo], stores: &[StoreInfo], now: Timestamp, width: usize) -> String {
    let watches = match (watches, stores) {
        ([], []) => "Nothing is watched.\n".to_owned(),
        ([], _) => "No job was discovered yet.\n".to_owned(),
        (watches, _) => table(watches, now, width),
    };
    let unlisted = stores.iter().filter_map(|store| {
        let name = stores::display_name(&store.watch, &store.store_id);
        let error = Sanitized(store.error.as_ref()?);
        Some(format!("New {} jobs of the store {name} cannot be discovered: {error}\n", Sanitized(&store.kind)))
    });
    iter::once(watches).chain(unlisted).collect()
}

/// One line per watch, and its most urgent note under it.
#[must_use]
pub fn table(watches: &[JobInfo], now: Timestamp, width: usize) -> String {
    let kinds = watches.iter().filter_map(|watch| watch.kind.parse().ok());
    let items = JobKind::items_heading(kinds).to_uppercase();
    let header = ["WATCH", "JOB", "STATUS", "FOR", &*items, "NEXT POLL"];
    table::lines(header, watches.iter().map(|watch| (row(watch, now), note(watch))), width)
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
        Sanitized(watch.status.as_deref().unwrap_or("not seen yet")).to_string(),
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
        let now = "2026-03-01T10:05:00Z".parse().expect("a time");
        let shown = |watches: &[JobInfo], stores: &[StoreInfo]| watch_table(watches, stores, now, 40);
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
        assert_eq!(shown(&[], &[denied.clone(), listed.clone()]), format!("No job was discovered yet.\n{expected}"));
        assert_eq!(shown(&[watch()], &[denied, listed]), table(&[watch()], now, 40) + expected);
    }

    #[test]
    fn rows_are_not_cut_notes_fit_the_terminal_and_text_is_sanitized() {
        let failure = PollFailure {
            at: "2026-03-01T10:04:00.000Z".to_owned(),
            reason: "internal".to_owned(),
            message: "a long and hostile message \u{1b}[2J\n of the service".repeat(3),
        };
        let hostile =
            JobInfo { watch: "\u{202e}name\n".to_owned(), up: Some(false), recent_failures: vec![failure], ..watch() };
        let now = "2026-03-01T10:05:00Z".parse().expect("a time");
        let watches = [watch(), hostile];
        for width in [40, 80, 140] {
            let shown = table(&watches, now, width);
            let note = shown.lines().nth(3).expect("a note");
            assert_eq!(note.chars().count(), width, "{shown}");
            assert!(note.trim().starts_with("internal: a long"), "{shown}");
        }
        let shown = table(&watches, now, 40);
        let row = shown.lines().nth(1).expect("a row");
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["GRCh38", "1234567890/2222222222", "IN_PROGRESS", "2h 5m", "2 of 3", "in 12s"], "{shown}");
        assert!(!shown.contains(|c: char| crate::core::sanitize::is_unsafe_to_display(c) && c != '\n'), "{shown}");
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
            // A header, and a row and a note for each watch.
            assert_eq!(shown.matches('\n').count(), 7, "{shown:?}");
        }
    }
}
