//! Sets up the log: standard error, or journald if systemd connects standard error to the journal; also files in `log.directory`.
//!
//! Every line is sanitized, so untrusted text cannot forge a line or move a cursor. Threads of their own write each of them, so a slow disk
//! or a terminal that is stopped delays no task. Libraries log errors only: their finer levels would print headers with signatures.

use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Level, Subscriber, error};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use self::files::LogFiles;
use self::journal::{Journal, JournalFormat};
use crate::clock::Clock;
use crate::config::{LogConfig, LogFormat};
use crate::core::sanitize::Sanitized;

mod files;
pub mod journal;

/// Lines queued for the log files, the journal or standard error. Further lines are dropped and counted, so a poll never waits for the log.
const BACKLOG_LINES_MAX: usize = 16_384;

/// Owns the threads that write the log. Dropping it writes the queued lines, for at most 1.1 s per thread.
#[derive(Debug, Default)]
pub struct Log {
    queues: Vec<ErrorCounter>,
    threads: Vec<WorkerGuard>,
    /// Lines that were not accepted by a file, the journal or standard error.
    failed: Arc<AtomicU64>,
    level: LogLevel,
}

/// Changes `log.level` while the log is in use.
#[derive(Clone, Debug, Default)]
pub struct LogLevel(Option<reload::Handle<Targets, Registry>>);

impl LogLevel {
    pub fn set(&self, level: Level) {
        if let Some(filter) = &self.0 {
            // An error means that the log has ended.
            drop(filter.reload(filter_of(level)));
        }
    }
}

fn filter_of(level: Level) -> Targets {
    Targets::new().with_target("refwatch", level).with_default(Level::ERROR)
}

impl Log {
    #[must_use]
    pub fn level(&self) -> LogLevel {
        self.level.clone()
    }

    /// The number of lines that were lost: a write failed, or the queue was full.
    #[must_use]
    pub fn lines_dropped(&self) -> u64 {
        let overflowed = self.queues.iter().map(|queue| u64::try_from(queue.dropped_lines()).unwrap_or(u64::MAX));
        overflowed.fold(self.failed.load(Ordering::Relaxed), u64::saturating_add)
    }

    /// Starts a thread that writes to `sink`, and returns its queue. Writes to the queue do not block.
    fn queue(&mut self, sink: impl Write + Send + 'static) -> NonBlocking {
        let sink = CountingWriter { sink, failed: Arc::clone(&self.failed) };
        let (writer, thread) = NonBlockingBuilder::default().buffered_lines_limit(BACKLOG_LINES_MAX).finish(sink);
        self.queues.push(writer.error_counter());
        self.threads.push(thread);
        writer
    }
}

/// Counts the lines that `sink` does not accept.
struct CountingWriter<W> {
    sink: W,
    failed: Arc<AtomicU64>,
}

impl<W: Write> Write for CountingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sink.write_all(line).is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Starts the log of this process.
///
/// # Errors
/// Returns an error if the log has already been started.
pub fn init(config: &LogConfig) -> Result<Log, TryInitError> {
    let mut log = Log::default();
    let to_stderr = match Journal::new(journal::SOCKET.as_ref(), io::stderr()) {
        Ok(journal) if journal::is_standard_error() => journal_layer(config.format, log.queue(journal)),
        // Without a socket, systemd still forwards standard error to the journal.
        Ok(_) | Err(_) => layer(config.format, log.queue(io::stderr())),
    };
    // A file is opened at the first line, on the thread of the queue, because a file system can hang. Without files, the daemon runs, too:
    // standard error has every line.
    let to_files = config.directory.clone().map(|directory| {
        let (rotation, keep, clock) = (config.rotation, config.keep_files, Clock::system());
        let files = LogFiles { directory, rotation, keep, clock, open_file: None, failing: false };
        layer(config.format, log.queue(files))
    });
    let (filter, handle) = reload::Layer::new(filter_of(config.level));
    log.level = LogLevel(Some(handle));
    tracing_subscriber::registry().with(filter).with(to_stderr).with(to_files).try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(log)
}

/// Writes each event as one sanitized line.
pub fn layer<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_ansi(false).with_target(false).with_writer(SanitizingWriter(writer));
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Writes each event as one journal entry. The text has no time and severity: the entry has them.
pub fn journal_layer<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (layer, line) = (fmt::layer().with_writer(writer), fmt::format().with_ansi(false).with_target(false));
    match format {
        LogFormat::Text => layer.event_format(JournalFormat(line.without_time().with_level(false))).boxed(),
        LogFormat::Json => layer.event_format(JournalFormat(line.json().flatten_event(true))).boxed(),
    }
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    error!(event = "panic", place, "internal error: {}", info.payload_as_str().unwrap_or("no message"));
}

struct SanitizingWriter<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for SanitizingWriter<W> {
    type Writer = SanitizingWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        SanitizingWriter(self.0.make_writer())
    }
}

impl<W: Write> Write for SanitizingWriter<W> {
    /// `tracing-subscriber` writes each event with one call, so `line` is complete.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        self.0.write_all(format!("{}\n", Sanitized(text)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Any text. Characters that affect displays, lines or JSON are frequent.
    const UNTRUSTED: &str = "(?s)(.|[\n\r\u{2028}\u{202e}\u{1b}\u{e0041}\"\\\\{}]){0,20}";

    /// The log line of an event with this field and message.
    fn logged(format: LogFormat, field: &str, message: &str) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::registry().with(layer(format, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            error!(status_message = field, "{message}");
        });
        let bytes = buffer.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).expect("text")
    }

    proptest::proptest! {
        #[test]
        fn fault_113_a_log_line_with_untrusted_text_is_sanitized_and_parses_back(field in UNTRUSTED, message in UNTRUSTED) {
            for format in [LogFormat::Text, LogFormat::Json] {
                let line = logged(format, &field, &message);
                let text = line.strip_suffix('\n').expect("a line");
                assert!(!text.chars().any(crate::core::sanitize::is_unsafe_to_display), "{line:?}");
            }
            let event: serde_json::Value =
                serde_json::from_str(&logged(LogFormat::Json, &field, &message)).expect("JSON");
            assert_eq!([&event["status_message"], &event["message"]], [&field, &message]);
        }
    }
}
