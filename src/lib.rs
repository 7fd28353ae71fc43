//! refwatch: a daemon that watches AWS HealthOmics import, export and activation jobs until they end.
//!
//! ARCHITECTURE.md explains the terms, the data flow and the decisions. Read the modules in this order:
//!
//! 1. [`core`]: the rules, without I/O. [`core::job`] has AWS's terms; [`core::tracker::JobTracker`] decides after each poll.
//! 2. [`healthomics`]: requests to AWS. [`database`]: the saved transitions. [`state`]: the published state. [`clock`]: time.
//! 3. [`tasks`]: one task per job ([`tasks::job_watcher`]), one per store ([`tasks::lister`]), and their [`tasks::supervisor`].
//! 4. [`http`]: pages and API. [`metrics`]: a scrape of `state` and of the counters in [`instruments`]. [`notify`]: notifications.
//! 5. [`config`]: the watch list and settings, from TOML. [`logging`]: the log. [`files`]: opening files. [`reload`]: requests for a reload.
//!    [`version`]: the version and the commit.
//! 6. [`daemon`]: starts, runs and stops all of the above. [`cli`]: the subcommands; [`cli::run`] is the one that runs the daemon.
//! 7. [`simulator`]: a simulated HealthOmics for the demo, the tests and the benches.

pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod daemon;
pub mod database;
pub mod files;
pub mod healthomics;
pub mod http;
pub mod instruments;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod reload;
pub mod simulator;
pub mod state;
pub mod tasks;
pub mod version;
