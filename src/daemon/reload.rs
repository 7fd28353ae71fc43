//! Applies a newly loaded configuration, or reports its errors and keeps the running configuration.
//!
//! Only this module decides whether the configuration has changed. It never reads files. The tables `database`, `http` and `log`, except
//! `log.level`, keep their values until a restart.

use tracing::{error, info, warn};

use super::Daemon;
use super::config_watcher::ConfigLoad;
use super::systemd::{self, status_line};
use crate::config::watch_list::WatchList;
use crate::config::{Config, Loaded, LogConfig, Problems};
use crate::database::WriterError;
use crate::reload::ReloadResult;
use crate::state::ConfigError;
use crate::tasks::context::TaskContext;
use crate::tasks::supervisor::SupervisorError;

/// Published if included files have errors, or directories of them cannot be listed.
const FILES_LEFT_OUT: &str =
    "files with errors were left out and the rest is applied; previously watched jobs and stores are still watched";
/// Published if the main file has errors, or if applying failed.
const CONFIG_UNCHANGED: &str = "the previous configuration is still used";
/// Published if only the sinks could not be applied.
const SINKS_UNCHANGED: &str = "jobs and stores are applied; sinks are changed once the database can be written";
const BLANK: &str = "the main file is empty: restore it, or to watch nothing, keep its [target.default]";

impl Daemon {
    /// Applies a load. An unrequested load with the same result as the last load is ignored.
    pub(super) async fn handle_load(&mut self, load: ConfigLoad) -> Result<(), SupervisorError> {
        let ConfigLoad { outcome, requests } = load;
        if requests.is_empty() && self.last_load.as_ref() == Some(&outcome) {
            return Ok(());
        }
        systemd::reloading();
        self.last_load = Some(outcome.clone());
        let result = match outcome {
            // An editor or a full disk may have emptied the file.
            Ok(Loaded { is_blank: true, .. })
                if !self.runs_blank && self.supervisor.config().watch_list != WatchList::default() =>
            {
                error!(event = "config_problem", "{BLANK}");
                self.reject(CONFIG_UNCHANGED, BLANK.to_owned(), BLANK.to_owned())
            }
            Ok(loaded) => match self.apply(loaded).await {
                Ok(result) => result,
                Err(error @ SupervisorError::Fatal(_)) => return Err(error),
                Err(error) => {
                    if matches!(error, SupervisorError::Unreadable(_)) {
                        self.apply_later();
                    }
                    error!(event = "config_problem", "{error}");
                    self.reject(CONFIG_UNCHANGED, error.to_string(), error.to_string())
                }
            },
            Err(problems) => {
                log_problems(&problems);
                self.reject(CONFIG_UNCHANGED, problems.summary(), problems.to_string())
            }
        };
        systemd::ready(&status_line(&self.context.shared, self.context.clock.now()));
        for request in requests {
            // Fails if the client has disconnected, or if the request was a signal.
            drop(request.send(result.clone()));
        }
        Ok(())
    }

    /// The same files may be applied later, when the database works again.
    fn apply_later(&mut self) {
        self.last_load = None;
        self.config_watcher.retry();
    }

    /// Reports a failure. `in_use` names the configuration that is used despite the failure.
    fn reject(&self, in_use: &str, summary: String, details: String) -> ReloadResult {
        error!(event = "reload_failed", "reload failed: {in_use}");
        let result = Err(format!("{details}\n\n{in_use}"));
        let error = ConfigError { in_use: in_use.to_owned(), summary, details };
        self.context.shared.update_daemon(|daemon| daemon.config_error = Some(error));
        result
    }

    async fn apply(&mut self, loaded: Loaded) -> Result<ReloadResult, SupervisorError> {
        let Loaded { mut config, problems, is_blank, .. } = loaded;
        let running = self.supervisor.config();
        if !problems.is_empty() {
            config.add_missing_entries_of(running);
        }
        let restart = config.tables_needing_restart(running);
        let Config { database, http, log, .. } = running.clone();
        let log = LogConfig { level: config.log.level, ..log };
        self.supervisor.apply(&Config { database, http, log, ..config }).await?;
        self.runs_blank = is_blank;
        let config = self.supervisor.config();
        let sinks = config.sinks.clone();
        self.log_level.set(config.log.level);
        publish_config(&self.context, config, &problems);
        if let Err(error) = self.sinks.apply(&sinks).await {
            if matches!(error, WriterError::Stopped) {
                return Err(SupervisorError::Fatal(error));
            }
            self.apply_later();
            error!(event = "config_problem", "{error}");
            return Ok(self.reject(
                SINKS_UNCHANGED,
                error.to_string(),
                format!("{error}\n{problems}").trim_end().to_owned(),
            ));
        }
        let notes = restart.iter().map(|table| format!("; changes in [{table}] take effect at the next start"));
        let notes: String = notes.collect();
        if !restart.is_empty() {
            warn!(event = "restart_needed", "the configuration is applied{notes}");
        }
        let config = self.supervisor.config();
        let list = &config.watch_list;
        info!(
            event = "reloaded",
            jobs = list.jobs.len(),
            stores = list.store_count(),
            "the new configuration is applied"
        );
        if problems.is_empty() {
            return Ok(Ok(format!("applied: {}{notes}", config.watch_list)));
        }
        Ok(Err(format!("{problems}\n\n{FILES_LEFT_OUT}")))
    }
}

/// Publishes the running configuration and the problems of included files.
pub(super) fn publish_config(context: &TaskContext, config: &Config, problems: &Problems) {
    let loaded_at = context.clock.now().wall;
    log_problems(problems);
    let error = (!problems.is_empty()).then(|| {
        error!(event = "include_not_readable", "{FILES_LEFT_OUT}");
        ConfigError { in_use: FILES_LEFT_OUT.to_owned(), summary: problems.summary(), details: problems.to_string() }
    });
    context.shared.update_daemon(|daemon| {
        daemon.config_loaded_at = Some(loaded_at);
        daemon.config_error = error;
        daemon.effective_config = config.to_redacted_toml().into();
    });
}

fn log_problems(problems: &Problems) {
    for problem in &problems.0 {
        error!(event = "config_problem", "{problem}");
    }
}
