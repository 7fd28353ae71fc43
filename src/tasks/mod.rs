//! The tasks that watch jobs. The supervisor starts and stops them, a job watcher polls one job, and a lister lists one store.
//!
//! Tasks publish status through `TaskContext::shared` and never read it. They decide by their own data and by
//! `registry`, which the tasks of a store share.
//!
//! - A *target* is where requests go: region, identity and endpoint. A *store* is not an AWS store but a `TargetStore`: one target, one
//!   kind of jobs and one reference or sequence store of AWS HealthOmics. A job (`TargetJob`) that two targets poll counts as two jobs. The
//!   *known state* of a job (`JobState`) is what polls or the database last showed. A job is *seen* when a poll returns its status; a
//!   listing does not count. A *view* is the `WatchStatus` or `StoreStatus` that a task publishes.
//! - A *watched* job is in the `registry` of its store. A job with its *own entry* (`[[job]]`) stays there after its task has
//!   exited. A *discovered* job has no own entry: it is watched because of a `[[store]]` entry. The lister *hands over* new jobs to the
//!   supervisor, which starts to watch them. The log field `watch` is the name of the `[[job]]` or `[[store]]` entry. All discovered
//!   jobs of a `[[store]]` share its name.
//! - Jobs *end*, tasks *exit*. A *hint* asks a job watcher to poll now.
//! - A job has *ended* if its last known status is terminal. Its next action is then `Finished`. AWS may *reopen* it: report a status that
//!   is not terminal after a terminal one. The task of a discovered job waits for a hint that this may have happened. The task of a job
//!   with its own entry exits.
//! - A job has *vanished* if it was seen and then returned 404, until it is seen again.
//! - A *parked* job is not polled until its entry or target changes, because no retry can succeed.
//! - A job is *listable* if its next action is a poll, unless the job has vanished or is older than 24 hours: a listing would have to
//!   reach back too far (`listing_can_replace_poll`).
//! - A listing reads the pages of a store, in *parts* of at most `PART_PAGES_MAX` pages. It compares the listed with the known status of
//!   the jobs that were listable when the part began and, with discovery, of finished jobs.
//! - A poll without a hint is *routine*. With `use_list`, the listings of a store with several listable jobs replace most routine polls:
//!   the lister hints the jobs that changed.
//! - The *routine interval* slows routine polls while listings replace them: the next routine poll of a listable job is at least this long
//!   after its last successful poll. It does not apply after a failed poll, or if the user set the job's poll interval. The lister sets it.
//! - A discovered job is *overdue* once its *retention* (`remove_after`) has passed since it ended or vanished. A job that was never seen
//!   is overdue after the longer of its retention and one hour, counted from the start of its task. An overdue job *expires*: its task
//!   exits. A vanished or unseen job is still polled, so it expires at the first poll after that time that returns 404 (for an unseen job
//!   also 403: its polls may never have been allowed; `Decision::may_expire`). A finished or parked job is not polled, so it
//!   expires as soon as it is overdue. A parked job that was seen and has neither ended nor vanished is never overdue.
//! - A target has a circuit breaker. A store has one for polls and one for listings.
//! - The *retained* jobs of a store are those in the database that have not ended, or whose end was observed less than the retention ago.

pub mod context;
pub mod job_watcher;
pub mod lister;
mod plan;
pub(crate) mod registry;
pub mod supervisor;
