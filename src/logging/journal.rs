//! Sends events to journald by its native protocol, so that `journalctl -p err` and `journalctl REFWATCH_EVENT=transition` select by
//! severity and field.
//!
//! The `tracing-journald` crate does not sanitize, and loses events that journald rejects. Here every value is sanitized and has no
//! line break, so an entry has one line per field and never needs the protocol's binary form.

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

use crate::core::sanitize::Sanitized;

pub const SOCKET: &str = "/run/systemd/journal/socket";

/// True if standard error is the stream to the journal that systemd names in `JOURNAL_STREAM` (systemd.exec(5)).
#[must_use]
pub fn is_standard_error() -> bool {
    let journal_id = std::env::var("JOURNAL_STREAM");
    fstat(io::stderr()).is_ok_and(|stderr| journal_id == Ok(format!("{}:{}", stderr.st_dev, stderr.st_ino)))
}

/// Prefixes each line with the priority of `level`, as systemd expects on a stream to the journal (sd-daemon(3)).
#[must_use]
pub fn prefixed(level: Level, text: &str) -> String {
    let priority = priority(level);
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("<{priority}>{line}\n") }).collect()
}

/// The priority of syslog(3): `err`, `warning`, `info`, `debug`.
const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Formats an event as a journal entry. `F` formats its MESSAGE.
pub struct JournalFormat<F>(pub F);

impl<S, N, F> FormatEvent<S, N> for JournalFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut entry: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let (priority, line) = (priority(*event.metadata().level()), Sanitized(line.trim_end_matches('\n')));
        write!(entry, "PRIORITY={priority}\nMESSAGE={line}\nSYSLOG_IDENTIFIER=refwatch\n")?;
        let mut fields = Fields { entry, written: Ok(()) };
        event.record(&mut fields);
        fields.written
    }
}

/// Writes the fields of an event. The prefix `REFWATCH_` keeps their names apart from the journal's own.
struct Fields<'a> {
    entry: Writer<'a>,
    written: fmt::Result,
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            // The protocol allows capitals, digits and underscores.
            let name = field.name().to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            self.written = self.written.and_then(|()| writeln!(self.entry, "REFWATCH_{name}={}", Sanitized(value)));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Sends entries to journald. Writes block while journald is busy, so use it on its own thread.
pub struct Journal<W> {
    socket: UnixDatagram,
    path: PathBuf,
    stderr: W,
}

impl<W: Write> Journal<W> {
    /// Entries that the socket rejects go to `stderr`.
    ///
    /// # Errors
    /// Returns an error if no socket can be created.
    pub fn new(path: &Path, stderr: W) -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned(), stderr })
    }
}

impl<W: Write> Write for Journal<W> {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        // Sent by path, because journald may have restarted. The socket rejects an entry if it is over 200 KiB or if no journald
        // runs. Then the message goes to standard error, without the fields.
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
