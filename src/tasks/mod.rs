//! The tasks that watch jobs. The supervisor starts and stops them, a job watcher polls one job, and a lister lists one store.
//!
//! Tasks write the published status (`state`) and never read it: `hints` and the supervisor keep what decisions need.

pub(crate) mod hints;
pub mod job_watcher;
pub mod lister;
mod plan;
pub mod supervisor;
