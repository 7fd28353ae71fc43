//! The command line: parse it, run one command, turn its answer into an exit status.

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use refwatch::cli::{CommandLine, Exit, Failure, complain};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio::runtime::Builder;
use tracing::Level;

/// Threads for tasks. A poll takes less than a tenth of a millisecond, so hardly a quota keeps one of them busy. One for each of many
/// cores would keep memory and wake for nothing.
const WORKERS: usize = 2;

/// Threads for what blocks: looking names up, reading files, rendering. The default of 512 would not fit under the unit's
/// `TasksMax=`; what finds none free waits.
const BLOCKING: usize = 64;

fn main() -> ExitCode {
    if let Err(error) = forbid_core_dumps() {
        complain(Level::WARN, &format!("warning: core dumps could not be switched off: {error}"));
    }
    let exit = match CommandLine::try_parse() {
        // A panic has been told by its hook.
        Ok(command_line) => match std::panic::catch_unwind(|| run(command_line)) {
            Ok(Ok(exit)) => exit,
            Ok(Err(failure)) => {
                complain(Level::ERROR, &failure.message);
                failure.exit
            }
            Err(_) => Exit::Fault,
        },
        Err(answer) => {
            let asked_for = matches!(answer.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            match answer.print() {
                Ok(()) if asked_for => Exit::Done,
                Ok(()) => Exit::Usage,
                Err(_) => Exit::Failed,
            }
        }
    };
    ExitCode::from(exit as u8)
}

/// Memory holds credentials. The limit keeps a core out of files; what a `core_pattern` pipes to a program knows no limit, and is
/// kept back by the other.
fn forbid_core_dumps() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

fn run(command_line: CommandLine) -> Result<Exit, Failure> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(WORKERS).max_blocking_threads(BLOCKING).enable_all();
    let runtime = builder.build().map_err(Failure::running)?;
    let exit = runtime.block_on(command_line.run());
    // Tasks that are cut off here have no commit under way: whoever owned one has waited for it.
    runtime.shutdown_background();
    exit
}
