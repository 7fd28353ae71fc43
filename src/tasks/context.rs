//! The resources that all tasks share, and the error that a task returns if the process must end.

use crate::clock::Clock;
use crate::database::Database;
use crate::instruments::Instruments;
use crate::state::SharedState;

/// The resources that all tasks share.
#[derive(Clone, Debug)]
pub struct TaskContext {
    pub clock: Clock,
    pub database: Database,
    /// The published status. Tasks never read it.
    pub shared: SharedState,
    pub instruments: Instruments,
}

/// The writer of the database has ended, so the process must end. systemd restarts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread that writes the database has ended")]
pub struct WriterStopped;
