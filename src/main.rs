//! The process: parses the command line, runs one command and returns its exit status.

use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use refwatch::cli::{CommandLine, Exit, Failure, log_fatal};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio::runtime::Builder;
use tracing::Level;

/// Threads for blocking work: name resolution, files, rendering. tokio's default of 512 exceeds the unit's `TasksMax=`.
const BLOCKING_THREADS_MAX: usize = 64;

/// Threads for blocking work never end, because the system may refuse to start others. tokio's default is to end them after 10 s.
const BLOCKING_THREAD_LIFETIME: Duration = Duration::MAX;

fn main() -> ExitCode {
    if let Err(error) = disable_core_dumps() {
        log_fatal(Level::WARN, &format!("warning: cannot disable core dumps, which may contain credentials: {error}"));
    }
    let exit = match CommandLine::from_arguments() {
        Ok(command_line) => match std::panic::catch_unwind(|| run(command_line)) {
            Ok(Ok(exit)) => exit,
            Ok(Err(failure)) => {
                log_fatal(Level::ERROR, &failure.message);
                failure.exit
            }
            // The panic hook has logged the panic.
            Err(_panic) => Exit::InternalError,
        },
        Err(error) => {
            let is_requested = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            match error.print() {
                // Its reader may close the pipe: `refwatch help | head`.
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Failed,
                Ok(()) | Err(_) if is_requested => Exit::Done,
                Ok(()) | Err(_) => Exit::Usage,
            }
        }
    };
    ExitCode::from(exit as u8)
}

/// A core dump would contain credentials. The limit prevents core files. The flag also prevents dumps that `core_pattern` pipes to a
/// program.
fn disable_core_dumps() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

fn run(command_line: CommandLine) -> Result<Exit, Failure> {
    // One thread runs all async tasks. It is enough for any quota: a poll takes less than 0.1 ms of CPU time.
    let mut builder = Builder::new_current_thread();
    builder.max_blocking_threads(BLOCKING_THREADS_MAX).thread_keep_alive(BLOCKING_THREAD_LIFETIME);
    let runtime = builder.enable_all().build().map_err(Failure::running)?;
    let exit = runtime.block_on(command_line.run());
    // This interrupts no database commit: each command waits for its commits.
    runtime.shutdown_background();
    exit
}
