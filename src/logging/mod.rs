//! The log: standard error, or the journal if standard error leads there, and rolling files if a directory is configured.
//!
//! Every line passes one sanitiser, so untrusted text cannot forge a line or move a cursor. Libraries log errors only: their finer
//! levels would print headers with signatures.

use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Level, Subscriber, error};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{self, RollingFileAppender, Rotation};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use self::journal::{Entry, Journal};
use crate::config::{LogConfig, LogFormat, LogRotation};
use crate::core::sanitize::Sanitized;

pub mod journal;

/// Lines queued for the log files or the journal. Further lines are dropped and counted: a poll never waits for a log.
const BACKLOG_LINES_MAX: usize = 16_384;

/// Keeps the log going. Dropping it writes the queued lines, for a second at most.
#[derive(Debug, Default)]
pub struct Log {
    queues: Vec<ErrorCounter>,
    threads: Vec<WorkerGuard>,
    /// Lines that a file or the journal did not take.
    failed: Arc<AtomicU64>,
}

impl Log {
    /// The number of lines that were dropped because they could not be written, or not fast enough.
    #[must_use]
    pub fn lines_dropped(&self) -> u64 {
        let late = self.queues.iter().map(|queue| u64::try_from(queue.dropped_lines()).unwrap_or(u64::MAX));
        late.fold(self.failed.load(Ordering::Relaxed), u64::saturating_add)
    }

    /// A queue whose thread writes to `sink`. The thread may wait for a disk or for journald.
    fn queue(&mut self, sink: impl Write + Send + 'static) -> NonBlocking {
        let sink = Counted { sink, failed: Arc::clone(&self.failed) };
        let (writer, thread) = NonBlockingBuilder::default().buffered_lines_limit(BACKLOG_LINES_MAX).finish(sink);
        self.queues.push(writer.error_counter());
        self.threads.push(thread);
        writer
    }
}

/// Counts the lines that its sink does not take.
struct Counted<W> {
    sink: W,
    failed: Arc<AtomicU64>,
}

impl<W: Write> Write for Counted<W> {
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
/// An internal error: it was started before.
pub fn init(config: &LogConfig) -> Result<Log, TryInitError> {
    let (mut log, mut to_files, mut trouble) = (Log::default(), None, None);
    let to_stderr = match Journal::new(journal::SOCKET.as_ref(), io::stderr()) {
        Ok(journal) if journal::is_standard_error() => journal_layer(config.format, log.queue(journal)),
        // Standard error leads to the journal, too, if no socket can be created.
        Ok(_) | Err(_) => layer(config.format, io::stderr),
    };
    if let Some(directory) = &config.directory {
        let mut files = LogFiles { config: config.clone(), file: None, torn: false };
        // Standard error has every line, so the daemon starts without the files.
        trouble = files.open().err().map(|error| (directory, error));
        to_files = Some(layer(config.format, log.queue(files)));
    }
    let filter = Targets::new().with_target("refwatch", config.level).with_default(Level::ERROR);
    tracing_subscriber::registry().with(to_stderr).with(to_files).with(filter).try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    if let Some((directory, error)) = trouble {
        error!(event = "log_files_failed", directory = %directory.display(), %error,
            "log.directory: no file can be written there: its lines are dropped until one can");
    }
    Ok(log)
}

/// The log files, on the thread that writes them.
struct LogFiles {
    config: LogConfig,
    file: Option<RollingFileAppender>,
    /// Whether the last line may be incomplete.
    torn: bool,
}

impl LogFiles {
    fn open(&mut self) -> io::Result<&mut RollingFileAppender> {
        if self.file.is_none()
            && let Some(directory) = &self.config.directory
        {
            std::fs::create_dir_all(directory)?;
            let rotation = match self.config.rotation {
                LogRotation::Hourly => Rotation::HOURLY,
                LogRotation::Daily => Rotation::DAILY,
                LogRotation::Never => Rotation::NEVER,
            };
            let rolling = rolling::Builder::new()
                .rotation(rotation)
                .max_log_files(self.config.keep_files)
                .filename_prefix("refwatch")
                .filename_suffix("log");
            self.file = Some(rolling.build(directory).map_err(io::Error::other)?);
        }
        self.file.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Write for LogFiles {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let start: &[u8] = if self.torn { b"\n" } else { b"" };
        let done = self.open()?.write_all(&[start, line].concat());
        self.torn = done.is_err();
        done.map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// Writes each event as one sanitized line.
pub fn layer<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_ansi(false).with_target(false).with_writer(Sanitised(writer));
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Writes each event as one entry of the journal, which has the time and the severity itself.
pub fn journal_layer<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (layer, line) = (fmt::layer().with_writer(writer), fmt::format().with_ansi(false).with_target(false));
    match format {
        LogFormat::Text => layer.event_format(Entry(line.without_time().with_level(false))).boxed(),
        LogFormat::Json => layer.event_format(Entry(line.json().flatten_event(true))).boxed(),
    }
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    error!(event = "panic", place, "a fault of refwatch: {}", info.payload_as_str().unwrap_or("no message"));
}

struct Sanitised<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Sanitised<W> {
    type Writer = Sanitised<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Sanitised(self.0.make_writer())
    }
}

impl<W: Write> Write for Sanitised<W> {
    /// `line` is one whole event, as `tracing-subscriber` writes them.
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

    /// Any text, with what acts on displays, on lines and on JSON more often than chance has it.
    const FOREIGN: &str = "(?s)(.|[\n\r\u{2028}\u{202e}\u{1b}\u{e0041}\"\\\\{}]){0,20}";

    /// What one event with a hostile message and field looks like.
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
        fn fault_113_a_line_of_the_log_reads_back_whatever_it_says(field in FOREIGN, message in FOREIGN) {
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
