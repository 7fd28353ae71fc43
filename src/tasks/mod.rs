//! The tasks that watch jobs. The supervisor starts and stops them, a job watcher polls one job, and a lister lists one store.
//!
//! Tasks publish status through `TaskContext::shared` and never read it. Decisions use the supervisor's own data and `registry`.
//!
//! - A *target* is where requests go: region, identity and endpoint. A *view* is the published status of a job or store.
//! - A *watched* job is in the `registry` of its store. A job with its *own entry* (`[[job]]`) stays there after its task has
//!   ended. A *discovered* job has no own entry: it is watched because of a `[[store]]` entry.
//! - A job has *ended* if its last known status is terminal: its next action is `NextAction::Finished`, or a poll after a hint.
//! - A job has *vanished* if it was seen and then returned 404, until it is seen again.
//! - A *parked* job is not polled until its entry or target changes, because no retry can succeed.
//! - A *hint* asks a job watcher to poll now. A *listable* job has a next poll that a listing can replace.
//! - While listings of a store succeed, its listable jobs are polled only once in a *safety interval*, in case listings are wrong.
//! - A discovered job *expires* once its *retention* (`remove_after`) has passed since it ended or vanished or, if it was never
//!   seen, since its task started. While it is polled, it expires only right after a poll, if `Decision::may_expire` is true.
//!   Before its task starts, it expires without a poll, except a vanished job when its store's lister starts.

pub mod job_watcher;
pub mod lister;
mod plan;
pub(crate) mod registry;
pub mod supervisor;
