//! Every task that watches: the supervisor owns them, a job watcher polls one job, a lister lists one store.

pub mod hints;
pub mod job_watcher;
pub mod lister;
pub mod supervisor;
