//! refwatch: a daemon that watches AWS HealthOmics reference import jobs until they end.
//!
//! `ARCHITECTURE.md` has the plan of the house. To read the code, take the rooms in this order:
//!
//! 1. [`core`]: the rules, pure. [`core::job`] has the words, [`core::watch`] the life of one watch.
//! 2. [`omics`]: the AWS edge. [`record`]: the durable log. [`board`]: the latest published state. [`clock`]: time.
//!    [`instruments`]: what is counted. Siblings, none of which knows another.
//! 3. [`watcher`]: the task of one job, which joins them. [`sweeper`]: the task of one store, which tells watchers through
//!    [`hints`]. [`supervisor`]: the owner of all tasks.
//! 4. [`http`] and [`metrics`]: what is shown of the board and the record.
//! 5. [`config`], [`edits`], [`reload`], [`logging`], [`signals`], [`systemd`]: what a process is given and told.
//! 6. [`daemon`]: all of it put together. [`commands`]: what a person calls.
//! 7. [`simulator`]: the other side, for the demo, the tests and the benches.

pub mod board;
pub mod clock;
pub mod commands;
pub mod config;
pub mod core;
pub mod daemon;
pub mod edits;
pub mod hints;
pub mod http;
pub mod instruments;
pub mod logging;
pub mod metrics;
pub mod omics;
pub mod record;
pub mod reload;
pub mod signals;
pub mod simulator;
pub mod supervisor;
pub mod sweeper;
pub mod systemd;
pub mod watcher;
