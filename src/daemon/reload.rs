//! What becomes of a configuration that was read anew: put in force, or told what is wrong with it.

use tracing::{error, info, warn};

use super::Daemon;
use super::reader::Reading;
use super::status_line::status_line;
use super::systemd;
use crate::config::watch_list::WatchList;
use crate::config::{Config, Loaded, Problems};
use crate::reload::Reloaded;
use crate::state::ConfigError;
use crate::tasks::job_watcher::Workplace;
use crate::tasks::supervisor::ApplyError;

/// What is in force where included files have mistakes.
pub(super) const LEFT_OUT: &str = "files with mistakes were left out, the rest is in force";
const LEFT_OUT_AT_RELOAD: &str =
    "files with mistakes were left out, the rest is in force; what they named before goes on";

impl Daemon {
    /// Takes up a configuration that was read anew. What is wrong with it is told, and the one before stays in force.
    pub(super) async fn take_up(&mut self, Reading { outcome, asked, to_answer }: Reading) -> Result<(), ApplyError> {
        if !asked && self.read.as_ref() == Some(&outcome) {
            return Ok(());
        }
        systemd::reloading();
        self.read = Some(outcome.clone());
        let refused = match outcome {
            Ok(loaded) => match self.put_in_force(loaded).await {
                Ok(()) => None,
                Err(error @ ApplyError::Lost(_)) => return Err(error),
                Err(error) => {
                    if matches!(error, ApplyError::Record(_)) {
                        // That passes, and then it is as good as new.
                        self.read = None;
                    }
                    error!(event = "config_problem", "{error}");
                    Some((error.to_string(), error.to_string()))
                }
            },
            Err(problems) => {
                log_problems(&problems);
                Some((problems.summary(), problems.to_string()))
            }
        };
        if let Some((summary, details)) = refused {
            let in_force = "the one before it stays in force";
            error!(event = "reload_failed", "reload refused: {in_force}");
            let error = ConfigError { in_force, summary, details };
            self.workplace.board.update_daemon(|daemon| daemon.config_error = Some(error));
        }
        systemd::ready(&status_line(&self.workplace.board, self.workplace.clock.now()));
        let answer = self.reloaded();
        for waiting in to_answer {
            // An error: whoever asked has gone.
            drop(waiting.send(answer.clone()));
        }
        Ok(())
    }

    /// What to say of the reload to whoever asked for it.
    fn reloaded(&self) -> Reloaded {
        if let Some(ConfigError { in_force, details, .. }) = self.workplace.board.daemon().config_error {
            return Err(format!("{details}\n\n{in_force}"));
        }
        let later = match &self.read {
            Some(Ok(loaded)) => self.config.needs_restart(&loaded.config),
            Some(Err(_)) | None => Vec::new(),
        };
        let later = later.iter().map(|table| format!("; changes in [{table}] take effect at the next start"));
        Ok(format!("in force: {}{}", self.config.watch_list, later.collect::<String>()))
    }

    async fn put_in_force(&mut self, loaded: Loaded) -> Result<(), ApplyError> {
        let Loaded { mut config, problems, .. } = loaded;
        if !problems.is_empty() {
            config.keep_of(&self.config);
        }
        self.supervisor.apply(&config).await?;
        for table in self.config.needs_restart(&config) {
            warn!(event = "restart_needed", "changes in [{table}] take effect at the next start");
        }
        // These tables stay as the process was started with them.
        let Config { record, http, log, .. } = self.config.clone();
        let config = Config { record, http, log, ..config };
        let WatchList { jobs, stores } = &config.watch_list;
        info!(event = "reloaded", jobs = jobs.len(), stores = any(stores.len()), "the new watch list is in force");
        publish_config(&self.workplace, &config, &problems, LEFT_OUT_AT_RELOAD);
        self.config = config;
        Ok(())
    }
}

/// `problems` are those of included files; where there are any, `in_force` says what is in force all the same.
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

/// A count, where there is anything to count.
pub(super) fn any(count: usize) -> Option<usize> {
    Some(count).filter(|count| *count > 0)
}
