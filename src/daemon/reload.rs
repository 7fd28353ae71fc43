//! Applies a configuration that was loaded again, or reports its errors and keeps the running one.
//!
//! This is the only place that decides whether the configuration has changed. It never reads files. Tables that need a restart keep
//! their values from the start of the process.

use tracing::{error, info, warn};

use super::Daemon;
use super::config_watcher::ConfigLoad;
use super::systemd::{self, status_line};
use crate::config::watch_list::WatchList;
use crate::config::{Config, Loaded, Problems};
use crate::reload::Reloaded;
use crate::state::ConfigError;
use crate::tasks::job_watcher::TaskContext;
use crate::tasks::supervisor::ApplyError;

/// Published where included files have errors.
const LEFT_OUT: &str =
    "files with errors were left out, the rest is in force; their jobs and stores from before are still watched";
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
                    if matches!(error, ApplyError::Database(_)) {
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
        systemd::ready(&status_line(&self.context.board, self.context.clock.now()));
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
        self.context.board.update_daemon(|daemon| daemon.config_error = Some(error));
        result
    }

    async fn apply(&mut self, loaded: Loaded) -> Result<Reloaded, ApplyError> {
        let Loaded { mut config, problems, .. } = loaded;
        if !problems.is_empty() {
            config.retain_missing_from(&self.config);
        }
        self.supervisor.apply(&config).await?;
        let restart = self.config.tables_needing_restart(&config);
        let notes = restart.iter().map(|table| format!("; changes in [{table}] take effect at the next start"));
        let notes: String = notes.collect();
        if !restart.is_empty() {
            warn!(event = "restart_needed", "the configuration is in force{notes}");
        }
        let Config { database, http, log, .. } = self.config.clone();
        self.config = Config { database, http, log, ..config };
        let WatchList { jobs, stores } = &self.config.watch_list;
        info!(event = "reloaded", jobs = jobs.len(), stores = stores.len(), "the new watch list is in force");
        publish_config(&self.context, &self.config, &problems);
        if problems.is_empty() {
            return Ok(Ok(format!("in force: {}{notes}", self.config.watch_list)));
        }
        Ok(Err(format!("{problems}\n\n{LEFT_OUT}")))
    }
}

/// `problems` are those of included files.
pub(super) fn publish_config(context: &TaskContext, config: &Config, problems: &Problems) {
    let loaded_at = context.clock.now().wall;
    log_problems(problems);
    let error = (!problems.is_empty()).then(|| {
        error!(event = "include_not_readable", "{LEFT_OUT}");
        ConfigError { in_force: LEFT_OUT, summary: problems.summary(), details: problems.to_string() }
    });
    context.board.update_daemon(|daemon| {
        daemon.config_loaded_at = Some(loaded_at);
        daemon.config_error = error;
        daemon.effective_config = config.to_redacted_toml().into();
    });
}

/// One line for each mistake. `refwatch check` prints the lines of the file, too.
fn log_problems(problems: &Problems) {
    for problem in &problems.0 {
        error!(event = "config_problem", "{problem}");
    }
}
