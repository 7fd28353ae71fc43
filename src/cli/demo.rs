//! `refwatch demo`: a simulated HealthOmics, the daemon on it, and each transition as it is seen.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::Level;

use super::exit::{Exit, Failure, print, remark};
use super::simulate;
use crate::clock::Clock;
use crate::config::{self, Loaded, Problems};
use crate::core::job::JobStatus;
use crate::core::sanitize::Printable;
use crate::core::time::Monotonic;
use crate::daemon::signals::{Asked, Signals};
use crate::daemon::{Daemon, DaemonError};
use crate::logging;
use crate::simulator::{Options, Simulator};
use crate::state::{Announced, StatusBoard, WatchState, WatchView};

/// The mean life of a simulated job. Real imports take minutes; nobody watches a demonstration that long.
const MEAN_LIFE: Duration = Duration::from_secs(16);

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many import jobs there are
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    jobs: u32,
    /// End when all jobs have ended and this many seconds have passed; 0 stays until Ctrl-C
    #[arg(long, value_name = "S", default_value_t = 0)]
    seconds: u64,
    /// Where the status page and the metrics are
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10210")]
    listen: SocketAddr,
}

/// Runs it.
///
/// # Errors
/// Why it failed.
pub async fn run(args: Args) -> Result<Exit, Failure> {
    let mut signals = Signals::install().map_err(Failure::running)?;
    let options = Options { jobs: args.jobs, mean: MEAN_LIFE, ..Options::default() };
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let simulator = Simulator::start(anywhere, &options).await.map_err(Failure::running)?;
    let directory = tempfile::Builder::new().prefix("refwatch-demo-").tempdir().map_err(Failure::running)?;
    let file = directory.path().join("refwatch.toml");
    simulate::write_configuration(&file, &simulator, &options).map_err(Failure::running)?;
    let load_config = Arc::new(move || load(&file, args.listen));
    let loaded = load_config().map_err(|problems| Failure::problems(&problems))?;
    let log = logging::init(&loaded.config.log).map_err(Failure::running)?;
    let daemon = Daemon::start(loaded, load_config, log).await.map_err(|error| match error {
        DaemonError::Listen { address, error } => Failure::running(format_args!(
            "--listen {address}: {error} (try --listen 127.0.0.1:0, which is always free)"
        )),
        error => error.into(),
    })?;
    let page = daemon.address();
    print(format_args!(
        "{jobs} import jobs on a simulated HealthOmics at http://{endpoint}\n\n  \
         status page  http://{page}/\n  metrics      http://{page}/metrics\n  API          http://{page}/api/v1/watches\n\n",
        jobs = args.jobs,
        endpoint = simulator.address(),
    ))?;
    let mut show = Show::new(daemon.board().clone(), Duration::from_secs(args.seconds));
    let asked = async || {
        tokio::select! {
            asked = signals.next() => asked,
            () = show.transitions() => Asked::Stop,
        }
    };
    let ended = Box::pin(daemon.run(asked)).await;
    simulator.stop().await;
    ended?;
    show.summary()?;
    directory.close().map_err(Failure::running)?;
    Ok(Exit::Done)
}

/// Prints transitions as they are announced, until every job has ended and the time has passed.
struct Show {
    board: StatusBoard,
    transitions: Receiver<Arc<Announced>>,
    clock: Clock,
    /// When it may end; `None`: not of itself.
    ends_at: Option<Monotonic>,
}

impl Show {
    fn new(board: StatusBoard, least: Duration) -> Self {
        let clock = Clock::system();
        let ends_at = (!least.is_zero()).then(|| clock.now().monotonic + least);
        Self { transitions: board.follow(), board, clock, ends_at }
    }

    /// Returns when the show is over. It may be dropped and called again: nothing that was announced is passed over.
    async fn transitions(&mut self) {
        loop {
            let over = self.ends_at.filter(|_| self.all_ended());
            tokio::select! {
                biased;
                announced = self.transitions.recv() => match announced {
                    Ok(announced) => print_transition(&announced),
                    Err(RecvError::Lagged(missed)) => remark(format_args!("{missed} transitions went by too fast to show")),
                    Err(RecvError::Closed) => return,
                },
                () = self.clock.sleep_until(over.unwrap_or_else(|| self.clock.now().monotonic)), if over.is_some() => return,
            }
        }
    }

    fn all_ended(&self) -> bool {
        let watches = self.board.watches();
        !watches.is_empty() && watches.iter().all(|watch| matches!(watch.state, WatchState::Finished))
    }
}

fn print_transition(announced: &Announced) {
    let transition = &announced.transition;
    let from = transition.from.as_ref().map_or("", JobStatus::as_str);
    let message = transition.status_message.as_deref().map(|message| format!("  {message}")).unwrap_or_default();
    let time = transition.observed_at.strftime("%H:%M:%S");
    let line = format!("{time}  {name:28} {from:>11} → {to}{message}", name = announced.name, to = transition.to);
    // A reader that has gone ends the show no sooner: Ctrl-C does.
    drop(print(format_args!("{}\n", Printable(&line))));
}

impl Show {
    /// How many jobs ended, and how.
    fn summary(&self) -> Result<(), Failure> {
        let watches = self.board.watches();
        let status = |watch: &Arc<WatchView>| watch.known.as_ref().map(|known| known.status.clone());
        let ended: Vec<JobStatus> = watches.iter().filter_map(status).filter(JobStatus::is_terminal).collect();
        let ends = JobStatus::KNOWN.iter().filter_map(|status| {
            let count = ended.iter().filter(|end| *end == status).count();
            (count > 0).then(|| format!("{count} {status}"))
        });
        let ends: Vec<String> = ends.collect();
        if ends.is_empty() {
            return print("\nno job ended\n");
        }
        print(format_args!("\n{} jobs ended: {}\n", ended.len(), ends.join(", ")))
    }
}

/// Loads the file that `refwatch simulate` writes, with settings that only a demo may use.
fn load(path: &Path, listen: SocketAddr) -> Result<Loaded, Problems> {
    let mut loaded = config::load(path)?;
    loaded.config.http.listen = listen;
    loaded.config.log.level = Level::WARN;
    for target in loaded.config.targets.values_mut() {
        target.simulated = true;
    }
    Ok(loaded)
}
