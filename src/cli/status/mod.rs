//! `refwatch status`: shows every watch of the running daemon as a table. The data comes from the daemon's API.

mod screen;
mod view;

use std::cmp::Reverse;
use std::fmt::Display;
use std::io::stdout;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use serde_json::from_slice;

use super::exit::{Failure, print_note, print_to_reader};
use super::notify::SINKS_PATH;
use super::{own_daemon, terminal};
use crate::clock::Clock;
use crate::config;
use crate::core::job::JobStatus;
use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;
use crate::daemon::signals::Signals;
use crate::http::NOT_SEEN;
use crate::http::client;
use crate::http::client::DaemonAddress;
use crate::http::daemon::DaemonInfo;
use crate::http::jobs::JobInfo;
use crate::http::stores::StoreInfo;
use crate::state::SinkStatus;
use screen::Screen;
use view::View;

pub use view::table;

const JOBS_PATH: &str = "/api/v1/jobs";

const FOLLOW_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Jobs that need attention, then the latest change first
    Attention,
    Name,
    /// The longest in its status first
    #[value(name = "-duration")]
    DurationDescending,
    /// The shortest in its status first
    Duration,
    #[value(name = "-name")]
    NameDescending,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the jobs of this watch
    #[arg(long, value_name = "NAME")]
    watch: Option<String>,
    /// Only jobs with this status
    #[arg(long, value_name = "S", ignore_case = true, value_parser = PossibleValuesParser::new(JobStatus::labels().chain([NOT_SEEN])))]
    status: Option<String>,
    /// The order
    #[arg(long, value_name = "KEY", default_value = "attention", allow_hyphen_values = true)]
    sort: Sort,
    /// Print the JSON of the daemon's API
    #[arg(long)]
    json: bool,
    /// Repeat every 2 seconds until Ctrl-C; on a terminal, redraw it
    #[arg(long)]
    follow: bool,
    /// The address of a daemon, also of another configuration [default: the daemon of this configuration]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
}

/// The query of `/api/v1/jobs`.
#[derive(Serialize)]
struct Query<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    watch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
}

struct Source {
    address: DaemonAddress,
    jobs_path: String,
    sort: Sort,
}

/// # Errors
/// Returns an error if the daemon does not respond to the first request.
pub async fn run(config: &Path, args: Args) -> Result<(), Failure> {
    let clock = Clock::system();
    let (json, follow) = (args.json, args.follow);
    let source = Source::new(config, args).await?;
    if follow && !json && terminal::understands_escapes(&stdout()) {
        return follow_on_screen(&source, clock).await;
    }
    let mut text = source.text(json, clock.now().wall).await?;
    while print_to_reader(&text)? && follow {
        clock.sleep(FOLLOW_INTERVAL).await;
        // The daemon may restart: an error is shown and the next request is sent as usual.
        text = source.text(json, clock.now().wall).await.unwrap_or_else(|failure| {
            if json {
                print_note(&failure.message);
                String::new()
            } else {
                failure.message + "\n"
            }
        });
    }
    Ok(())
}

/// Redraws the alternate screen until a signal. Restores the screen at the end.
async fn follow_on_screen(source: &Source, clock: Clock) -> Result<(), Failure> {
    let first = source.view(clock.now().wall).await?;
    let mut signals = Signals::install_stop_only().map_err(Failure::running)?;
    let mut screen = Screen::default();
    let mut text = screen.draw(&first);
    print_to_reader(screen::ENTER)?;
    let drawing = async {
        while print_to_reader(&text)? {
            clock.sleep(FOLLOW_INTERVAL).await;
            // As in `run`.
            text = match source.view(clock.now().wall).await {
                Ok(view) => screen.draw(&view),
                Err(failure) => screen::error(&failure.message),
            };
        }
        Ok(())
    };
    let drawn = tokio::select! {
        drawn = drawing => drawn,
        _ = signals.next() => Ok(()),
    };
    print_to_reader(screen::LEAVE)?;
    drawn
}

impl Source {
    async fn new(config: &Path, args: Args) -> Result<Self, Failure> {
        let status = args.status.map(|status| status.to_uppercase());
        let status =
            status.map(|status| if status.eq_ignore_ascii_case(NOT_SEEN) { NOT_SEEN.to_owned() } else { status });
        let query =
            serde_urlencoded::to_string(Query { watch: args.watch.as_deref(), status }).map_err(Failure::running)?;
        let jobs_path = if query.is_empty() { JOBS_PATH.to_owned() } else { format!("{JOBS_PATH}?{query}") };
        let address = match args.address {
            Some(address) => DaemonAddress::Listener(address),
            None => configured_address(config).await?,
        };
        Ok(Self { address, jobs_path, sort: args.sort })
    }

    async fn text(&self, json: bool, now: Timestamp) -> Result<String, Failure> {
        let view = self.view(now).await?;
        if json {
            let json = serde_json::to_string(&view.watches).map_err(Failure::running)?;
            return Ok(format!("{}\n", Sanitized(&json)));
        }
        Ok(view.text(terminal::width(), terminal::shows_colours(&stdout())))
    }

    async fn view(&self, now: Timestamp) -> Result<View, Failure> {
        let address = &self.address;
        let failure = |error: &dyn Display| {
            Failure::running(format_args!(
                "cannot read the status from {address}: {error}: check systemctl status refwatch, or set --address"
            ))
        };
        let get = async |path| client::get(address, path).await.map_err(|error| failure(&error));
        let (jobs, stores) = (get(&self.jobs_path).await?, get("/api/v1/stores").await?);
        let (sinks, daemon) = (get(SINKS_PATH).await?, get("/api/v1/daemon").await?);
        // All are parsed in each format: another program may listen at this address.
        let parsed = || Ok((from_slice(&jobs)?, from_slice(&stores)?, from_slice(&sinks)?, from_slice(&daemon)?));
        let (mut watches, stores, sinks, daemon): (Vec<JobInfo>, Vec<StoreInfo>, Vec<SinkStatus>, DaemonInfo) =
            parsed()
                .map_err(|error: serde_json::Error| failure(&format_args!("not a response of refwatch: {error}")))?;
        self.sort.apply(&mut watches);
        Ok(View { watches, stores, sinks, daemon, now, is_filtered: self.jobs_path != JOBS_PATH })
    }
}

impl Sort {
    /// As on the status page. Times are RFC 3339 with equal lengths, so texts sort in their order. Jobs without a status are last.
    fn apply(self, watches: &mut [JobInfo]) {
        match self {
            Self::Attention => watches.sort_by_cached_key(|watch| (watch.severity(), Reverse(watch.since.clone()))),
            Self::Name => watches.sort_by_cached_key(|watch| watch.watch.to_lowercase()),
            Self::NameDescending => watches.sort_by_cached_key(|watch| Reverse(watch.watch.to_lowercase())),
            Self::Duration => watches.sort_by_cached_key(|watch| Reverse(watch.since.clone())),
            Self::DurationDescending => {
                watches.sort_by_cached_key(|watch| (watch.since.is_none(), watch.since.clone()));
            }
        }
    }
}

/// The daemon of the configuration. It may still run if the file has errors by now.
async fn configured_address(path: &Path) -> Result<DaemonAddress, Failure> {
    if let Err(problems) = config::load(path) {
        print_note(format_args!("warning: {}: run refwatch check", problems.summary()));
    }
    own_daemon::find(path).await
}
