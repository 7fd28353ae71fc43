//! `refwatch status`: shows every watch of the running daemon as a table. The data comes from the daemon's API.

mod screen;
mod view;

use std::cmp::Reverse;
use std::fmt::Display;
use std::io::stdout;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use futures_util::future::OptionFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::exit::{Failure, json_line, print_note, print_to_reader};
use super::notify::SINKS_PATH;
use super::terminal::{self, Key, Keyboard};
use super::{one_of, own_daemon};
use crate::clock::Clock;
use crate::config;
use crate::core::job::JobStatus;
use crate::core::kind::JobKind;
use crate::core::time::Timestamp;
use crate::daemon::signals::Signals;
use crate::http::NOT_SEEN;
use crate::http::client::{self, DaemonAddress};
use crate::http::jobs::JobInfo;
use screen::Scroll;
use view::View;

pub use view::table;

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
    #[command(flatten)]
    query: Query,
    /// The order
    #[arg(long, value_name = "KEY", default_value = "attention", allow_hyphen_values = true)]
    sort: Sort,
    /// Print JSON, as /api/v1/jobs has it
    #[arg(long)]
    json: bool,
    /// Repeat every 2 seconds until Ctrl-C; on a terminal, redraw it: arrow and page keys scroll, q quits
    #[arg(long)]
    follow: bool,
    /// The address of a daemon, also of another configuration [default: the daemon of this configuration]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
}

/// The filters, as the query of `/api/v1/jobs`. Filters that are not given are left out.
#[derive(Debug, clap::Args, Serialize)]
struct Query {
    /// Only the jobs of this watch
    #[arg(long, value_name = "NAME")]
    watch: Option<String>,
    /// Only jobs of this kind
    #[arg(long, value_name = "KIND", value_parser = one_of(JobKind::ALL.map(JobKind::as_str)))]
    kind: Option<&'static str>,
    /// Only jobs with this status
    #[arg(long, value_name = "S", ignore_case = true, value_parser = one_of(JobStatus::labels().chain([NOT_SEEN])))]
    status: Option<&'static str>,
    /// Only jobs with this text in the name, ids, target, status or region, or with a label such as project=atlas
    #[arg(long, value_name = "TEXT")]
    #[serde(rename = "q")]
    search: Option<String>,
}

struct Source {
    address: DaemonAddress,
    /// The query of `/api/v1/jobs`. It is empty for all jobs.
    query: String,
    sort: Sort,
}

/// # Errors
/// Returns an error if the daemon does not respond to the first request.
pub async fn run(config: &Path, args: Args) -> Result<(), Failure> {
    let clock = Clock::system();
    let query = serde_urlencoded::to_string(&args.query).map_err(Failure::running)?;
    let address = if let Some(address) = args.address {
        DaemonAddress::Listener(address)
    } else {
        // The daemon may still run if the file has errors by now.
        if let Err(problems) = config::load(config) {
            print_note(format_args!("warning: {}: run refwatch check", problems.summary()));
        }
        own_daemon::find(config).await?
    };
    let source = Source { address, query, sort: args.sort };
    if args.follow && !args.json && terminal::understands_escapes(&stdout()) {
        return follow_on_screen(&source, clock).await;
    }
    let mut text = source.text(args.json, clock.now().wall).await?;
    while print_to_reader(&text)? && args.follow {
        clock.sleep(FOLLOW_INTERVAL).await;
        // The daemon may restart: an error is shown and the next request is sent as usual.
        text = source.text(args.json, clock.now().wall).await.unwrap_or_else(|failure| {
            print_note(&failure.message);
            String::new()
        });
    }
    Ok(())
}

/// Redraws the alternate screen until a signal or `q`. Restores the screen at the end.
async fn follow_on_screen(source: &Source, clock: Clock) -> Result<(), Failure> {
    let mut view = Ok(source.view(clock.now().wall).await?);
    let mut signals = Signals::install_stop_only().map_err(Failure::running)?;
    // After the signals, so that each end restores the terminal. Without a controlling terminal there are no keys.
    let mut keyboard = Keyboard::open().ok();
    print_to_reader(screen::ENTER)?;
    let drawing = async {
        let mut scroll = Scroll::default();
        let mut refresh_at = clock.now().monotonic + FOLLOW_INTERVAL;
        loop {
            // As in `run`.
            let text = match &view {
                Ok(view) => screen::draw(view, &mut scroll),
                Err(failure) => screen::error(failure),
            };
            if !print_to_reader(text)? {
                return Ok(());
            }
            tokio::select! {
                Some(keys) = OptionFuture::from(keyboard.as_mut().map(Keyboard::keys)) => for key in keys.map_err(Failure::running)? {
                    if key == Key::Quit {
                        return Ok(());
                    }
                    scroll.press(key);
                },
                () = clock.sleep_until(refresh_at) => {
                    view = source.view(clock.now().wall).await;
                    refresh_at = clock.now().monotonic + FOLLOW_INTERVAL;
                }
            }
        }
    };
    let drawn = tokio::select! {
        drawn = drawing => drawn,
        _ = signals.next() => Ok(()),
    };
    print_to_reader(screen::LEAVE)?;
    drawn
}

impl Source {
    async fn text(&self, json: bool, now: Timestamp) -> Result<String, Failure> {
        let view = self.view(now).await?;
        if json {
            return json_line(&view.watches);
        }
        Ok(view.text(terminal::width(), terminal::shows_colours(&stdout())))
    }

    /// All responses are parsed in each format: another program may listen at this address.
    async fn view(&self, now: Timestamp) -> Result<View, Failure> {
        let is_filtered = !self.query.is_empty();
        let mut watches: Vec<JobInfo> = self.get(&format!("/api/v1/jobs?{}", self.query)).await?;
        self.sort.apply(&mut watches);
        let (stores, sinks) = (self.get("/api/v1/stores").await?, self.get(SINKS_PATH).await?);
        let daemon = self.get("/api/v1/daemon").await?;
        Ok(View { watches, stores, sinks, daemon, now, is_filtered })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let address = &self.address;
        let failure = |error: &dyn Display| {
            Failure::running(format_args!(
                "cannot read the status from {address}: {error}: check systemctl status refwatch, or set --address"
            ))
        };
        let body = client::get(address, path).await.map_err(|error| failure(&error))?;
        serde_json::from_slice(&body).map_err(|error| failure(&format_args!("not a response of refwatch: {error}")))
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
