//! refwatch: a daemon that watches AWS HealthOmics reference import jobs until they end.
//!
//! ARCHITECTURE.md describes the modules, their dependencies and the data flow. To read the code, take the modules in this order:
//!
//! 1. [`core`]: the pure rules. [`core::job`] defines the service's terms, [`core::tracker`] follows one job.
//! 2. [`healthomics`]: requests to AWS. [`database`]: the durable transitions. [`state`]: the latest published state. [`clock`]: time.
//!    [`instruments`]: counters.
//! 3. [`tasks`]: the supervisor and the tasks it owns, one per job and one per store.
//! 4. [`metrics`] and [`http`]: render the state and the database.
//! 5. [`config`], [`logging`], [`reload`]: input from and output to the operator.
//! 6. [`daemon`]: builds, runs and stops all of the above. [`cli`]: one file a subcommand.
//! 7. [`simulator`]: a simulated HealthOmics for the demo, the tests and the benches.

pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod daemon;
pub mod database;
pub mod healthomics;
pub mod http;
pub mod instruments;
pub mod logging;
pub mod metrics;
pub mod reload;
pub mod simulator;
pub mod state;
pub mod tasks;
