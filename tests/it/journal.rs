//! The journal, as journald has it: a datagram socket that entries come to, read by a parser of the native protocol, and the
//! stream on standard error that takes what the socket does not.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
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

use crate::process::{Process, Scene, eventually, get, metric};

/// An entry's fields, by name.
type Fields = BTreeMap<String, String>;

/// In journald's place.
struct Journald {
    folder: TempDir,
    socket: UnixDatagram,
    /// What comes over standard error.
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
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("socket")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_mins(1))).expect("a timeout");
        Self { folder, socket, stream: Stream::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// What is logged in `format` goes to this journal.
    fn takes(&self, format: LogFormat, logs: impl FnOnce()) {
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

/// Reads an entry as the page of the native protocol says: a line `NAME=value`, or a line `NAME`, a length in 64 bits, and that
/// many bytes.
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
fn an_event_is_an_entry_with_its_priority_its_line_and_its_fields() {
    let journald = Journald::new();
    journald.takes(LogFormat::Text, || {
        tracing::info!(event = "transition", job_id = %9_876_543_210_u64, from_status = None::<&str>, "GRCh38: {}", "COMPLETED");
    });
    let message = "GRCh38: COMPLETED event=\"transition\" job_id=9876543210";
    let expected = [("REFWATCH_EVENT", "transition"), ("REFWATCH_JOB_ID", "9876543210")];
    let own = [("PRIORITY", "6"), ("SYSLOG_IDENTIFIER", "refwatch"), ("MESSAGE", message)];
    assert_eq!(journald.entry(), [fields(expected), fields(own)].into_iter().flatten().collect());
    assert_eq!(journald.streamed(), "");
}

#[test]
fn an_event_in_json_is_an_entry_whose_message_is_json() {
    let journald = Journald::new();
    journald.takes(LogFormat::Json, || tracing::warn!(event = "listener_exposed", "nothing guards it"));
    let mut entry = journald.entry();
    let message: serde_json::Value = serde_json::from_str(&entry.remove("MESSAGE").expect("a message")).expect("JSON");
    assert_eq!((&message["message"], &message["level"]), (&"nothing guards it".into(), &"WARN".into()));
    assert_eq!(
        entry,
        fields([("PRIORITY", "4"), ("SYSLOG_IDENTIFIER", "refwatch"), ("REFWATCH_EVENT", "listener_exposed")])
    );
}

#[test]
fn every_level_has_its_priority() {
    let journald = Journald::new();
    journald.takes(LogFormat::Text, || {
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
fn what_no_journald_takes_goes_the_way_of_standard_error_and_a_new_one_takes_the_next() {
    let mut journald = Journald::new();
    fs::remove_file(journald.path()).expect("a socket");
    journald.takes(LogFormat::Text, || tracing::error!(event = "panic", "no socket"));
    assert_eq!(journald.streamed(), "<3>no socket event=\"panic\"\n");
    let path = journald.path();
    drop(UnixDatagram::bind(&path).expect("a socket that nobody holds"));
    journald.takes(LogFormat::Text, || tracing::warn!("nobody there"));
    assert_eq!(journald.streamed().lines().last(), Some("<4>nobody there"));
    fs::remove_file(&path).expect("a socket");
    journald.socket = UnixDatagram::bind(&path).expect("a socket");
    journald.takes(LogFormat::Text, || tracing::warn!("it is back"));
    assert_eq!(journald.entry()["MESSAGE"], "it is back");
}

#[test]
fn what_is_too_long_for_a_datagram_goes_the_way_of_standard_error() {
    let journald = Journald::new();
    let long = "x".repeat(1 << 20);
    journald.takes(LogFormat::Text, || tracing::info!(event = "transition", status_message = long, "long"));
    assert_eq!(journald.streamed(), format!("<6>long event=\"transition\" status_message=\"{long}\"\n"));
}

const FOREIGN: &str = "(?s)(.|[\n\r\t\u{0}\u{2028}\u{202e}\u{1b}\u{e0041}\"'\\\\=]|\nPRIORITY=0\n|\n_UID=0\n){0,20}";

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn fault_113_text_of_others_makes_no_field_and_acts_on_no_display(text in FOREIGN) {
        let journald = Journald::new();
        for format in [LogFormat::Text, LogFormat::Json] {
            journald.takes(format, || {
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

/// Makes standard error what `JOURNAL_STREAM` says it is, as systemd does.
const LED_TO_THE_JOURNAL: &str = "JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec \"$@\"";

/// `command`, run by what these words are.
fn run_by(words: &[&str], command: &Command) -> Command {
    let mut shell = Command::new(words[0]);
    shell.args(&words[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

#[test]
fn each_line_about_a_wrong_configuration_has_the_priority_of_an_error_where_standard_error_is_the_journal() {
    let scene = Scene::new();
    let file = scene.write("refwatch.toml", "[poll]\nintervall = \"5s\"\n");
    let run = scene.refwatch(&["--config", file.to_str().expect("text"), "run"]);
    let elsewhere = "JOURNAL_STREAM=1:2 exec \"$@\"";
    let [journal, elsewhere] = [LED_TO_THE_JOURNAL, elsewhere].map(|script| {
        let command = run_by(&["sh", "-c", script, "sh"], &run);
        let mut process = scene.spawn(command);
        assert_eq!(process.end().code(), Some(78), "{}", process.stderr());
        process.stderr()
    });
    assert!(elsewhere.starts_with("error: ") && elsewhere.contains("unknown key"), "{elsewhere}");
    let prefixed: String = elsewhere.lines().map(|line| format!("<3>{line}\n").replace("<3>\n", "\n")).collect();
    assert_eq!(journal, prefixed);
}

/// A daemon of 12 simulated jobs that finds this journald in /run, and what it runs on. `None` where this user may not mount.
fn daemon(scene: &Scene, journald: &Journald) -> Option<(Process, Process)> {
    let (simulator, _, config) = scene.simulate(&["--jobs", "12", "--mean-seconds", "4"]);
    let file = scene.write("refwatch.toml", &config);
    let run = scene.refwatch(&["--config", file.to_str().expect("text"), "run"]);
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && ln -s {} /run/systemd/journal/socket && {LED_TO_THE_JOURNAL}",
        journald.path().display()
    );
    let mut daemon = scene.spawn(run_by(&["unshare", "--mount", "sh", "-c", &script, "sh"], &run));
    let listens = || fs::exists(scene.path("refwatch.db.sock")).expect("a folder");
    eventually("a daemon, or its end", || (daemon.has_ended() || listens()).then_some(()));
    if daemon.has_ended() {
        assert!(["unshare:", "mount:"].iter().any(|what| daemon.stderr().contains(what)), "{}", daemon.stderr());
        return crate::trouble::skipped(&daemon.stderr());
    }
    Some((simulator, daemon))
}

/// The entry of this event, and the entries before it.
fn until(journald: &Journald, event: &str) -> Vec<Fields> {
    let mut entries = vec![];
    while entries.last().is_none_or(|entry: &Fields| entry.get("REFWATCH_EVENT").is_none_or(|told| told != event)) {
        entries.push(journald.entry());
    }
    entries
}

#[test]
fn a_service_logs_to_the_journal_and_not_to_standard_error() {
    let (scene, journald) = (Scene::new(), Journald::new());
    let Some((_simulator, mut daemon)) = daemon(&scene, &journald) else { return };
    let started = until(&journald, "started").pop().expect("an entry");
    assert_eq!([&started["PRIORITY"], &started["REFWATCH_JOBS"]], ["6", "12"]);
    let transition = until(&journald, "transition").pop().expect("an entry");
    assert!(transition["MESSAGE"].contains(&format!("job_id={} ", transition["REFWATCH_JOB_ID"])));
    daemon.signal(Signal::TERM);
    until(&journald, "stopping");
    assert!(daemon.end().success());
    assert_eq!(daemon.stderr(), "");
}

#[test]
fn a_journald_that_takes_nothing_for_now_keeps_no_poll_waiting_and_gets_each_line_later() {
    let (scene, journald) = (Scene::new(), Journald::new());
    let Some((_simulator, mut daemon)) = daemon(&scene, &journald) else { return };
    // A socket that nobody reads holds some ten datagrams.
    let address = until(&journald, "started").pop().expect("an entry")["REFWATCH_ADDRESS"].parse().expect("an address");
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
