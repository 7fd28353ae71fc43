//! Applies a configuration that was loaded again, or reports its errors and keeps the running one.
//!
//! This is the only place that decides whether the configuration has changed. It never reads files. Tables that need a restart keep
//! their values from the start of the process.

use tracing::{error, info, warn};

use super::config_watcher::ConfigLoad;
use super::status_line::status_line;
use super::{Daemon, nonzero, systemd};
use crate::config::watch_list::WatchList;
use crate::config::{Config, Loaded, Problems};
use crate::reload::Reloaded;
use crate::state::ConfigError;
use crate::tasks::job_watcher::Workplace;
use crate::tasks::supervisor::ApplyError;

/// Published where included files have errors.
pub(super) const LEFT_OUT: &str = "files with mistakes were left out, the rest is in force";
const LEFT_OUT_AT_RELOAD: &str =
    "files with mistakes were left out, the rest is in force; what they named before goes on";
const UNCHANGED: &str = "the one before it stays in force";

impl Daemon {
    /// A load that nobody requested and that equals the last one is ignored.
    pub(super) async fn handle_load(&mut self, ConfigLoad { outcome, requests }: ConfigLoad) -> Result<(), ApplyError> {
        if requests.is_empty() && self.last_load.as_ref() == Some(&outcome) {
            return Ok(());
        }
        systemd::reloading();
        self.last_load = Some(outcome.clone());
        let result = match outcome {
            Ok(loaded) => match self.apply(loaded).await {
                Ok(reloaded) => reloaded,
                Err(error @ ApplyError::Lost(_)) => return Err(error),
                Err(error) => {
                    if matches!(error, ApplyError::Record(_)) {
                        // A later attempt can succeed with the same files.
                        self.last_load = None;
                        self.config_watcher.retry();
                    }
                    error!(event = "config_problem", "{error}");
                    self.reject(error.to_string(), error.to_string())
                }
            },
            Err(problems) => {
                log_problems(&problems);
                self.reject(problems.summary(), problems.to_string())
            }
        };
        systemd::ready(&status_line(&self.workplace.board, self.workplace.clock.now()));
        for request in requests {
            // An error: the client has disconnected, or it was a signal.
            drop(request.send(result.clone()));
        }
        Ok(())
    }

    fn reject(&self, summary: String, details: String) -> Reloaded {
        error!(event = "reload_failed", "reload refused: {UNCHANGED}");
        let result = Err(format!("{details}\n\n{UNCHANGED}"));
        let error = ConfigError { in_force: UNCHANGED, summary, details };
        self.workplace.board.update_daemon(|daemon| daemon.config_error = Some(error));
        result
    }

    async fn apply(&mut self, loaded: Loaded) -> Result<Reloaded, ApplyError> {
        let Loaded { mut config, problems, .. } = loaded;
        if !problems.is_empty() {
            config.keep_of(&self.config);
        }
        self.supervisor.apply(&config).await?;
        let mut later = String::new();
        for table in self.config.needs_restart(&config) {
            let note = format!("changes in [{table}] take effect at the next start");
            warn!(event = "restart_needed", "{note}");
            later.extend(["; ", note.as_str()]);
        }
        let Config { record, http, log, .. } = self.config.clone();
        self.config = Config { record, http, log, ..config };
        let WatchList { jobs, stores } = &self.config.watch_list;
        info!(event = "reloaded", jobs = jobs.len(), stores = nonzero(stores.len()), "the new watch list is in force");
        publish_config(&self.workplace, &self.config, &problems, LEFT_OUT_AT_RELOAD);
        if problems.is_empty() {
            return Ok(Ok(format!("in force: {}{later}", self.config.watch_list)));
        }
        Ok(Err(format!("{problems}\n\n{LEFT_OUT_AT_RELOAD}")))
    }
}

/// `problems` are those of included files. If there are any, `in_force` says what runs nevertheless.
pub(super) fn publish_config(workplace: &Workplace, config: &Config, problems: &Problems, in_force: &'static str) {
    let loaded_at = workplace.clock.now().wall;
    log_problems(problems);
    let error = (!problems.is_empty()).then(|| {
        error!(event = "include_failed", "{in_force}");
        ConfigError { in_force, summary: problems.summary(), details: problems.to_string() }
    });
    workplace.board.update_daemon(|daemon| {
        daemon.config_loaded_at = Some(loaded_at);
        daemon.config_error = error;
        daemon.config_in_force = config.in_force().into();
    });
}

/// One line for each mistake. `refwatch check` prints the lines of the file, too.
fn log_problems(problems: &Problems) {
    for problem in &problems.0 {
        error!(event = "config_problem", "{problem}");
    }
}
