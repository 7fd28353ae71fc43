//! The tasks that watch jobs. The supervisor starts and stops them, a job watcher polls one job, and a lister lists one store.
//!
//! Tasks publish status through `TaskContext::shared` and never read it. Decisions use the supervisor's own data and `registry`.

pub mod job_watcher;
pub mod lister;
mod plan;
pub(crate) mod registry;
pub mod supervisor;
