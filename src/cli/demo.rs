//! `refwatch demo`: runs the daemon on a simulated HealthOmics and prints each transition.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::Level;

use super::demo_directory::DemoDirectory;
use super::exit::{Failure, count, count_each, print, print_note, print_to_reader};
use super::simulate;
use crate::clock::Clock;
use crate::config::{self, Loaded, Problems};
use crate::core::job::JobStatus;
use crate::core::sanitize::Sanitized;
use crate::core::time::Monotonic;
use crate::daemon::signals::{SignalAction, Signals};
use crate::daemon::{Daemon, DaemonError};
use crate::logging;
use crate::notify::signature::SigningSecret;
use crate::simulator::{Kind, Options, Received, SignatureCheck, Simulator, SinkOptions, SinkReceiver};
use crate::state::{SharedState, TransitionEvent, WatchState, WatchStatus};

/// The mean duration of a simulated job. Real jobs take minutes, too long for a demo.
const MEAN_DURATION: Duration = Duration::from_secs(16);

/// The file of the receiver's signing secret, in the demo's directory.
const SECRET_FILE: &str = "webhook-secret";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The number of jobs, the four kinds in turn; with 16 or more, jobs of each kind reach every terminal status
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    jobs: u32,
    /// Run for at least this many seconds, and until all jobs have ended; 0 runs until Ctrl-C
    #[arg(long, value_name = "S", default_value_t = 0)]
    seconds: u64,
    /// The address of the status page and the metrics
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10210")]
    listen: SocketAddr,
}

/// # Errors
/// Returns an error if the simulator or the daemon cannot start, or if the daemon fails.
pub async fn run(args: Args) -> Result<(), Failure> {
    let mut signals = Signals::install_stop_only().map_err(Failure::running)?;
    let options = Options { jobs: args.jobs, kinds: Kind::ALL.to_vec(), mean: MEAN_DURATION, ..Options::default() };
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let simulator = Simulator::start(any_port, &options).await.map_err(Failure::running)?;
    let directory = DemoDirectory::create().map_err(Failure::running)?;
    let file = directory.configuration();
    let (receiver, entry) = start_receiver(&directory).await.map_err(Failure::running)?;
    simulate::write_configuration(&file, &simulator, &options, &entry).map_err(Failure::running)?;
    let load_config = Arc::new(move || load(&file, args.listen));
    let loaded = load_config().map_err(|problems| Failure::problems(&problems.0))?;
    let log = logging::init(&loaded.config.log).map_err(Failure::running)?;
    let daemon = Daemon::start(loaded, load_config, log).await.map_err(|error| match error {
        DaemonError::Listen { address, error } => {
            Failure::running(format_args!("--listen {address}: {error}: use --listen 127.0.0.1:0 for a free port"))
        }
        error => error.into(),
    })?;
    let page = daemon.address();
    let end = match args.seconds {
        0 => "Ctrl-C stops it.".to_owned(),
        seconds => format!("It ends when {seconds} s have passed and all jobs have ended. Ctrl-C stops it earlier."),
    };
    print(format_args!(
        "{jobs} on a simulated HealthOmics at http://{endpoint}\n\n  \
         status page  http://{page}/\n  metrics      http://{page}/metrics\n  API          http://{page}/api/v1/jobs\n  \
         receiver     {receiver}: gets a signed notification of each end\n\n{end}\n\n",
        jobs = count(args.jobs as usize, "job"),
        endpoint = simulator.address(),
        receiver = receiver.url(),
    ))?;
    let (shared, clock) = (daemon.shared().clone(), Clock::system());
    let mut transitions = shared.subscribe();
    let ends_at = (args.seconds > 0).then(|| clock.now().monotonic + Duration::from_secs(args.seconds));
    let asked = async || {
        tokio::select! {
            // The last transitions are printed before the demo ends.
            biased;
            () = print_transitions(&mut transitions) => SignalAction::Stop,
            asked = signals.next() => asked,
            () = all_ended(&shared, &receiver, clock, ends_at) => SignalAction::Stop,
        }
    };
    let ended = Box::pin(daemon.run(asked)).await;
    simulator.stop().await;
    ended?;
    print(summary(&shared, &receiver.received()))?;
    receiver.stop().await;
    directory.remove().map_err(Failure::running)
}

/// Starts a receiver of notifications and writes its secret. Returns its `[[notify]]` entry, too.
async fn start_receiver(directory: &DemoDirectory) -> io::Result<(SinkReceiver, String)> {
    let secret = format!("whsec_{}", BASE64_STANDARD.encode(std::array::from_fn::<u8, 32, _>(|_| fastrand::u8(..))));
    let secrets = vec![SigningSecret::parse(&secret).map_err(io::Error::other)?];
    let options = SinkOptions { secrets, ..SinkOptions::default() };
    let receiver = SinkReceiver::start(SocketAddr::from(([127, 0, 0, 1], 0)), options).await?;
    directory.write_secret(SECRET_FILE, &secret)?;
    let url = receiver.url();
    let entry = format!("\n[[notify]]\nname = \"receiver\"\nurl = \"{url}\"\nsecret_file = \"{SECRET_FILE}\"\n");
    Ok((receiver, entry))
}

/// Prints published transitions until the daemon has stopped or standard output cannot be written. Cancel safe.
async fn print_transitions(transitions: &mut Receiver<Arc<TransitionEvent>>) {
    loop {
        match transitions.recv().await {
            Ok(event) => match print_to_reader(line(&event)) {
                Ok(true) => {}
                // The summary at the end reports the error.
                Ok(false) | Err(_) => return,
            },
            Err(RecvError::Lagged(missed)) => print_note(format_args!("{missed} transitions are not shown")),
            Err(RecvError::Closed) => return,
        }
    }
}

fn line(event: &TransitionEvent) -> String {
    let transition = &event.transition;
    let from = transition.from.as_ref().map_or("", JobStatus::as_str);
    let message = transition.status_message.as_deref().map(|message| format!("  {message}")).unwrap_or_default();
    let time = transition.observed_at.strftime("%H:%M:%SZ");
    let line = format!("{time}  {name:28} {from:>11} → {to}{message}", name = event.name, to = transition.to);
    format!("{}\n", Sanitized(&line))
}

/// Returns once all jobs have ended and the receiver was notified of each, but not before `ends_at`. Without `ends_at` it never
/// returns.
async fn all_ended(state: &SharedState, receiver: &SinkReceiver, clock: Clock, ends_at: Option<Monotonic>) {
    let Some(ends_at) = ends_at else { return std::future::pending().await };
    clock.sleep_until(ends_at).await;
    let is_finished = |watch: &Arc<WatchStatus>| watch.state == WatchState::Finished;
    let all_notified = || receiver.received().len() >= state.watches().len();
    while state.watches().is_empty() || !state.watches().iter().all(is_finished) || !all_notified() {
        clock.sleep(Duration::from_millis(100)).await;
    }
}

/// The number of jobs that ended with each status, and of the notifications.
fn summary(state: &SharedState, received: &[Received]) -> String {
    let watches = state.watches();
    let statuses = watches.iter().filter_map(|watch| watch.known.as_ref()).map(|known| &known.status);
    let ended: Vec<&str> = statuses.filter(|status| status.is_terminal()).map(JobStatus::as_str).collect();
    let verified = received.iter().filter(|event| event.signature == SignatureCheck::Verified).count();
    let (jobs, notifications) = (count(ended.len(), "job"), count(verified, "notification"));
    format!("\n{jobs} ended: {}\n{notifications} received and verified\n", count_each(ended.into_iter()))
}

/// Loads the configuration that `refwatch simulate` writes, and overrides settings for the demo.
fn load(path: &Path, listen: SocketAddr) -> Result<Loaded, Problems> {
    let mut loaded = config::load(path)?;
    loaded.config.http.listen = listen;
    // The demo prints the transitions itself. Some of them are warnings.
    loaded.config.log.level = Level::ERROR;
    for target in loaded.config.targets.values_mut() {
        target.simulated = true;
    }
    Ok(loaded)
}
