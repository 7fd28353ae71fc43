//! Logging to journald: a datagram socket stands in for it, and a parser of the native protocol reads the entries. Lines that the
//! socket rejects go to standard error.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proptest::prelude::*;
use refwatch::config::LogFormat;
use refwatch::core::job::JobStatus;
use refwatch::core::sanitize::{Sanitized, is_unsafe_to_display};
use refwatch::logging::journal::Journal;
use refwatch::logging::journal_layer;
use rustix::process::Signal;
use tempfile::TempDir;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::process::{Process, Workspace, eventually, get, metric, with_prefix};

/// An entry's fields, by name.
type Fields = BTreeMap<String, String>;

/// Stands in for journald.
struct Journald {
    directory: TempDir,
    socket: UnixDatagram,
    /// Receives the lines of standard error.
    stream: Stream,
}

#[derive(Clone, Default)]
struct Stream(Arc<Mutex<Vec<u8>>>);

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Journald {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("socket")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_mins(1))).expect("a timeout");
        Self { directory, socket, stream: Stream::default() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Logs to this journal in `format`.
    fn collect(&self, format: LogFormat, logs: impl FnOnce()) {
        let (path, stream) = (self.path(), self.stream.clone());
        let writer = move || Journal::new(&path, stream.clone()).expect("a socket");
        let subscriber = tracing_subscriber::registry().with(journal_layer(format, writer));
        tracing::subscriber::with_default(subscriber, logs);
    }

    fn entry(&self) -> Fields {
        let mut datagram = vec![0; 1 << 20];
        let length = self.socket.recv(&mut datagram).expect("an entry");
        parse(&datagram[..length])
    }

    fn streamed(&self) -> String {
        String::from_utf8(self.stream.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).expect("text")
    }
}

/// Parses an entry of the native protocol: lines `NAME=value`, or `NAME`, a length of 64 bits, and that many bytes.
fn parse(mut entry: &[u8]) -> Fields {
    let mut fields = Fields::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|byte| *byte == b'\n').expect("a line ends");
        let line = std::str::from_utf8(&entry[..end]).expect("text");
        entry = &entry[end + 1..];
        let (name, value) = if let Some((name, value)) = line.split_once('=') {
            (name, value.to_owned())
        } else {
            let (length, rest) = entry.split_first_chunk().expect("a length");
            let (value, rest) = rest.split_at(u64::from_le_bytes(*length).try_into().expect("a length"));
            entry = rest.strip_prefix(b"\n").expect("a line ends");
            (line, String::from_utf8(value.to_vec()).expect("text"))
        };
        assert!(name.len() <= 64 && !name.starts_with(|c: char| c == '_' || c.is_ascii_digit()), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'), "{name}");
        assert_eq!(fields.insert(name.to_owned(), value), None, "{name} twice");
    }
    fields
}

fn fields<const N: usize>(fields: [(&str, &str); N]) -> Fields {
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[test]
fn an_event_becomes_an_entry_with_priority_message_and_fields() {
    let journald = Journald::new();
    journald.collect(LogFormat::Text, || {
        tracing::info!(event = "transition", job_id = %9_876_543_210_u64, from_status = None::<&str>, "GRCh38: {}", "COMPLETED");
    });
    let message = "GRCh38: COMPLETED event=\"transition\" job_id=9876543210";
    let expected = [("REFWATCH_EVENT", "transition"), ("REFWATCH_JOB_ID", "9876543210")];
    let own = [("PRIORITY", "6"), ("SYSLOG_IDENTIFIER", "refwatch"), ("MESSAGE", message)];
    assert_eq!(journald.entry(), [fields(expected), fields(own)].into_iter().flatten().collect());
    assert_eq!(journald.streamed(), "");
}

#[test]
fn in_json_format_the_message_of_an_entry_is_json() {
    let journald = Journald::new();
    journald.collect(LogFormat::Json, || tracing::warn!(event = "listener_exposed", "nothing guards it"));
    let mut entry = journald.entry();
    let message: serde_json::Value = serde_json::from_str(&entry.remove("MESSAGE").expect("a message")).expect("JSON");
    assert_eq!((&message["message"], &message["level"]), (&"nothing guards it".into(), &"WARN".into()));
    assert_eq!(
        entry,
        fields([("PRIORITY", "4"), ("SYSLOG_IDENTIFIER", "refwatch"), ("REFWATCH_EVENT", "listener_exposed")])
    );
}

#[test]
fn each_level_maps_to_its_priority() {
    let journald = Journald::new();
    journald.collect(LogFormat::Text, || {
        tracing::error!("an error");
        tracing::warn!("a warning");
        tracing::info!("what happens");
        tracing::debug!("how");
        tracing::trace!("why");
    });
    let priorities = [(); 5].map(|()| journald.entry().remove("PRIORITY").expect("a priority"));
    assert_eq!(priorities, ["3", "4", "6", "7", "7"]);
}

#[test]
fn without_journald_lines_go_to_standard_error_until_it_is_back() {
    let mut journald = Journald::new();
    fs::remove_file(journald.path()).expect("a socket");
    journald.collect(LogFormat::Text, || tracing::error!(event = "panic", "no socket"));
    assert_eq!(journald.streamed(), "<3>no socket event=\"panic\"\n");
    let path = journald.path();
    drop(UnixDatagram::bind(&path).expect("a socket without a reader"));
    journald.collect(LogFormat::Text, || tracing::warn!("nobody there"));
    assert_eq!(journald.streamed().lines().last(), Some("<4>nobody there"));
    fs::remove_file(&path).expect("a socket");
    journald.socket = UnixDatagram::bind(&path).expect("a socket");
    journald.collect(LogFormat::Text, || tracing::warn!("it is back"));
    assert_eq!(journald.entry()["MESSAGE"], "it is back");
}

#[test]
fn a_line_too_long_for_a_datagram_goes_to_standard_error() {
    let journald = Journald::new();
    let long = "x".repeat(1 << 20);
    journald.collect(LogFormat::Text, || tracing::info!(event = "transition", status_message = long, "long"));
    assert_eq!(journald.streamed(), format!("<6>long event=\"transition\" status_message=\"{long}\"\n"));
}

const UNTRUSTED: &str = "(?s)(.|[\n\r\t\u{0}\u{2028}\u{202e}\u{1b}\u{e0041}\"'\\\\=]|\nPRIORITY=0\n|\n_UID=0\n){0,20}";

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn fault_113_untrusted_text_adds_no_journal_field_and_no_control_character(text in UNTRUSTED) {
        let journald = Journald::new();
        for format in [LogFormat::Text, LogFormat::Json] {
            journald.collect(format, || {
                tracing::error!(event = "poll_failed", status_message = text, error = %text, source = ?text, "{text}");
            });
            let entry = journald.entry();
            let names: Vec<&str> = entry.keys().map(String::as_str).collect();
            assert_eq!(names, ["MESSAGE", "PRIORITY", "REFWATCH_ERROR", "REFWATCH_EVENT", "REFWATCH_SOURCE",
                "REFWATCH_STATUS_MESSAGE", "SYSLOG_IDENTIFIER"]);
            assert!(!entry.values().any(|value| value.chars().any(is_unsafe_to_display)), "{entry:?}");
            let shown = Sanitized(&text).to_string();
            assert_eq!([&entry["REFWATCH_STATUS_MESSAGE"], &entry["REFWATCH_ERROR"]], [&shown, &shown]);
        }
    }
}

/// Sets `JOURNAL_STREAM` to describe standard error, as systemd does.
const WITH_JOURNAL_STREAM: &str = "JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec \"$@\"";

#[test]
fn configuration_errors_have_error_priority_if_standard_error_is_the_journal() {
    let workspace = Workspace::new();
    let file = workspace.write("refwatch.toml", "[poll]\nintervall = \"5s\"\n");
    let run = workspace.refwatch(&["--config", file.to_str().expect("text"), "run"]);
    let other_stream = "JOURNAL_STREAM=1:2 exec \"$@\"";
    let [journal, other_stream] = [WITH_JOURNAL_STREAM, other_stream].map(|script| {
        let command = with_prefix(&["sh", "-c", script, "sh"], &run);
        let mut process = workspace.spawn(command);
        assert_eq!(process.end().code(), Some(78), "{}", process.stderr());
        process.stderr()
    });
    assert!(other_stream.starts_with("error: ") && other_stream.contains("unknown key"), "{other_stream}");
    let expected: String = other_stream.lines().map(|line| format!("<3>{line}\n").replace("<3>\n", "\n")).collect();
    assert_eq!(journal, expected);
}

/// A daemon with 12 simulated jobs that uses this journald, and its simulator. `None` if this user may not mount.
fn daemon(workspace: &Workspace, journald: &Journald) -> Option<(Process, Process)> {
    let (simulator, _, config) = workspace.simulate(&["--jobs", "12", "--mean-seconds", "4"]);
    let file = workspace.write("refwatch.toml", &config);
    let run = workspace.refwatch(&["--config", file.to_str().expect("text"), "run"]);
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && ln -s {} /run/systemd/journal/socket && {WITH_JOURNAL_STREAM}",
        journald.path().display()
    );
    let mut daemon = workspace.spawn(with_prefix(&["unshare", "--mount", "sh", "-c", &script, "sh"], &run));
    let listens = || fs::exists(workspace.path("refwatch.db.sock")).expect("a directory");
    eventually("a daemon or an early exit", || (daemon.has_ended() || listens()).then_some(()));
    if daemon.has_ended() {
        assert!(["unshare:", "mount:"].iter().any(|what| daemon.stderr().contains(what)), "{}", daemon.stderr());
        return crate::disk_faults::skipped(&daemon.stderr());
    }
    Some((simulator, daemon))
}

/// Reads entries up to the one of this event.
fn read_until(journald: &Journald, event: &str) -> Vec<Fields> {
    let mut entries = vec![];
    while entries.last().is_none_or(|entry: &Fields| entry.get("REFWATCH_EVENT").is_none_or(|name| name != event)) {
        entries.push(journald.entry());
    }
    entries
}

#[test]
fn as_a_service_the_daemon_logs_to_the_journal_only() {
    let (workspace, journald) = (Workspace::new(), Journald::new());
    let Some((_simulator, mut daemon)) = daemon(&workspace, &journald) else { return };
    let started = read_until(&journald, "started").pop().expect("an entry");
    assert_eq!([&started["PRIORITY"], &started["REFWATCH_JOBS"]], ["6", "12"]);
    let transition = read_until(&journald, "transition").pop().expect("an entry");
    assert!(transition["MESSAGE"].contains(&format!("job_id={} ", transition["REFWATCH_JOB_ID"])));
    daemon.signal(Signal::TERM);
    read_until(&journald, "stopping");
    assert!(daemon.end().success());
    assert_eq!(daemon.stderr(), "");
}

#[test]
fn a_blocked_journald_delays_no_poll_and_receives_each_line_later() {
    let (workspace, journald) = (Workspace::new(), Journald::new());
    let Some((_simulator, mut daemon)) = daemon(&workspace, &journald) else { return };
    // The socket's queue holds about ten datagrams.
    let address =
        read_until(&journald, "started").pop().expect("an entry")["REFWATCH_ADDRESS"].parse().expect("an address");
    eventually("every end", || (metric(address, "refwatch_watches", &["finished"]) == Some(12.0)).then_some(()));
    assert_eq!(get(address, "/-/ready").0, 200);
    let mut ended = 0;
    while ended < 12 {
        let entry = journald.entry();
        let status = entry.get("REFWATCH_TO_STATUS").map(|status| JobStatus::from(status.as_str()));
        ended += usize::from(status.is_some_and(|status| status.is_terminal()));
    }
    assert_eq!(metric(address, "refwatch_log_lines_dropped_total", &[]), Some(0.0));
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());
    assert_eq!(daemon.stderr(), "");
}
