//! The tasks that watch jobs. The supervisor starts and stops them, a job watcher polls one job, and a lister lists one store.
//!
//! Tasks publish status through `TaskContext::shared` and never read it. Decisions use the supervisor's own data and `registry`.
//!
//! A *watched* job is in its store's `registry`, also after its task has ended. A job has *ended* if its last known status is
//! terminal, and *vanished* if it was seen and then returned 404. A *discovered* job has no `[[job]]` entry. It may *expire* once
//! its *retention* (`remove_after`) has passed since it ended or vanished. A *view* is the published status of a job or store.

pub mod job_watcher;
pub mod lister;
mod plan;
pub(crate) mod registry;
pub mod supervisor;
