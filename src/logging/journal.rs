//! The journal, where standard error leads there: each event by journald's native protocol, so that its severity and its fields
//! are the journal's own, and `journalctl -p err` and `journalctl REFWATCH_EVENT=transition` find it.
//!
//! The `tracing-journald` crate would send text of others as it is, and lose what journald does not take. Here every value has
//! passed the sanitiser, which leaves no line break in it; so an entry is a line for each field, and never needs the protocol's
//! binary form.

use std::fmt::{self, Debug};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use rustix::fs::fstat;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::core::sanitize::Printable;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Whether standard error leads to the journal. systemd says which stream it gave (systemd.exec(5)), and another may have been
/// put in its place since.
#[must_use]
pub fn is_standard_error() -> bool {
    let told = std::env::var("JOURNAL_STREAM");
    fstat(io::stderr())
        .is_ok_and(|stream| told.is_ok_and(|told| told == format!("{}:{}", stream.st_dev, stream.st_ino)))
}

/// Each line of `text` as systemd takes it from a stream into the journal: with the priority of `level` before it (sd-daemon(3)).
#[must_use]
pub fn prefixed(level: Level, text: &str) -> String {
    let priority = priority(level);
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("<{priority}>{line}\n") }).collect()
}

/// The priority of syslog(3): `err`, `warning`, `info`, `debug`. There is none below `debug`, and `notice` is for what is normal
/// and yet wants to be looked at, which transitions do not.
const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Writes an event as an entry of the journal. MESSAGE is the line that the format within makes of it.
#[derive(Debug)]
pub struct Entry<F>(pub F);

impl<S, N, F> FormatEvent<S, N> for Entry<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut entry: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let (priority, line) = (priority(*event.metadata().level()), Printable(line.trim_end_matches('\n')));
        write!(entry, "PRIORITY={priority}\nMESSAGE={line}\nSYSLOG_IDENTIFIER=refwatch\n")?;
        let mut fields = Fields { entry, written: Ok(()) };
        event.record(&mut fields);
        fields.written
    }
}

/// Writes the fields of an event, each under a name that is none of the journal's own.
struct Fields<'a> {
    entry: Writer<'a>,
    written: fmt::Result,
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            // The protocol has capitals, digits and underscores.
            let name = field.name().to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            self.written = self.written.and_then(|()| writeln!(self.entry, "REFWATCH_{name}={}", Printable(value)));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Hands entries to journald. It waits for that as long as it takes, so it belongs on a thread of its own.
#[derive(Debug)]
pub struct Journal<W> {
    socket: UnixDatagram,
    path: PathBuf,
    stderr: W,
}

impl Journal<io::Stderr> {
    /// The journal that standard error leads to.
    #[must_use]
    pub fn of_standard_error() -> Option<Self> {
        is_standard_error().then(|| Self::new(SOCKET.as_ref(), io::stderr()))?.ok()
    }
}

impl<W: Write> Journal<W> {
    /// The journal behind this socket, and the stream to it that takes what the socket does not.
    ///
    /// # Errors
    /// No socket can be made.
    pub fn new(path: &Path, stderr: W) -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned(), stderr })
    }
}

impl<W: Write> Write for Journal<W> {
    /// `entry` is one whole entry.
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        // By its path each time: journald may have been started anew since. An entry that is too long for a datagram (some 200
        // KiB), or that no journald takes, goes the way of standard error: without fields, and in pieces where it is long.
        if self.socket.send_to(entry, &self.path).is_err() {
            let entry = String::from_utf8_lossy(entry);
            let field = |name| entry.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            writeln!(self.stderr, "<{}>{}", field("PRIORITY="), field("MESSAGE="))?;
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stderr.flush()
    }
}
