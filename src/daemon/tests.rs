//! Unit tests of the status line and of the daemon's end.

use super::*;
use crate::config::{self, Config, LoadedFiles};
use crate::core::job::TargetStore;
use crate::core::kind::JobKind;
use crate::core::time::Timestamp;
use crate::state::StoreStatus;

#[test]
fn the_status_line_begins_with_a_problem_and_counts_jobs_and_stores() {
    let shared = SharedState::default();
    let line = || status_line(&shared, Clock::system().now());
    shared.update_daemon(|daemon| daemon.config_loaded_at = Some(Timestamp::UNIX_EPOCH));
    assert_eq!(line(), "0 jobs: 0 in progress, 0 finished, 0 parked; 0 stores");
    let store = |id: &str, error: Option<&str>| {
        let (name, error) = (id.into(), error.map(str::to_owned));
        let id =
            TargetStore { target: "default".into(), store: id.parse().expect("an id"), kind: JobKind::ReferenceImport };
        shared.publish_store(StoreStatus { id, name, listed_at: None, error, limit_message: None });
    };
    store("1000000001", None);
    assert_eq!(line(), "0 jobs: 0 in progress, 0 finished, 0 parked; 1 store");
    store("1000000002", Some("denied"));
    let jobs = "0 jobs: 0 in progress, 0 finished, 0 parked; 2 stores";
    assert_eq!(line(), format!("new jobs of store 1000000002 cannot be discovered; {jobs}"));
}

#[tokio::test(start_paused = true)]
async fn fault_095_the_daemon_ends_when_the_writer_thread_has_died() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = Config::new(directory.path().join("refwatch.db"));
    config.http.listen = "127.0.0.1:0".parse().expect("an address");
    let loaded = Loaded { config, problems: Problems::default(), files: LoadedFiles::default(), is_blank: false };
    let main = directory.path().join("refwatch.toml");
    let load_config: Loader = Arc::new(move || config::load(&main));
    let daemon = Daemon::start(loaded, load_config, Log::default()).await.expect("a start");
    daemon.context.database.clone().close().await;
    let end = daemon.run(async || std::future::pending::<SignalAction>().await).await;
    let end = end.expect_err("no writer");
    assert!(matches!(end, DaemonError::Apply(SupervisorError::Fatal(WriterError::Stopped))), "{end}");
}
