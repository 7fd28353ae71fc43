//! `refwatch status`: what the running daemon's API says of every watch, as a table.

use std::io::{IsTerminal as _, stdout};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};

use super::{Exit, Failure, print};
use crate::clock::Clock;
use crate::core::text::{Printable, excerpt};
use crate::core::time::Timestamp;
use crate::http::watches::Watch;
use crate::http::{self, client};

/// From one look to the next with `--follow`.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(2);

/// Characters shown of a message.
const BRIEF: usize = 80;

/// A width for what is no terminal, where lines are better long than broken.
const WIDTH_ELSEWHERE: u16 = 200;

/// Cursor home, then erase to the end of the screen (ECMA-48 CUP, ED).
const REDRAW: &str = "\x1b[H\x1b[J";

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the JSON of the daemon's API
    #[arg(long)]
    json: bool,
    /// Print anew every 2 seconds, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Where the daemon listens [default: http.listen of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
}

/// Runs it.
///
/// # Errors
/// The daemon does not answer, or the configuration that says where it listens is wrong.
pub async fn run(config: &Path, args: Args) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let address = match args.address {
        Some(address) => address,
        None => configured_address(config)?,
    };
    let redraw = args.follow && !args.json && stdout().is_terminal();
    loop {
        let text = look(&address, args.json, clock.now().wall).await?;
        print(format_args!("{}{text}", if redraw { REDRAW } else { "" }))?;
        if !args.follow {
            return Ok(Exit::Done);
        }
        clock.sleep(FOLLOW_INTERVAL).await;
    }
}

fn configured_address(_config: &Path) -> Result<String, Failure> {
    Ok(reachable(SocketAddr::from((Ipv4Addr::LOCALHOST, 10210))).to_string())
}

/// Where to reach a listener from this machine: one on every address is reached on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn look(address: &str, json: bool, now: Timestamp) -> Result<String, Failure> {
    let failure = |error: &dyn std::fmt::Display| {
        Failure::running(format_args!(
            "the daemon does not answer at {address}: {error}\nSee whether it runs (systemctl status refwatch, or start \
             it with `refwatch run`), and whether it listens elsewhere: --address HOST:PORT.",
        ))
    };
    let body = client::get(address, "/api/v1/watches").await.map_err(|error| failure(&error))?;
    let body = str::from_utf8(&body).map_err(|error| failure(&error))?;
    if json {
        return Ok(format!("{body}\n"));
    }
    let watches: Vec<Watch> = serde_json::from_str(body).map_err(|error| failure(&error))?;
    Ok(table(&watches, now, width()))
}

fn width() -> u16 {
    rustix::termios::tcgetwinsize(stdout()).map_or(WIDTH_ELSEWHERE, |size| size.ws_col)
}

fn table(watches: &[Watch], now: Timestamp, width: u16) -> String {
    if watches.is_empty() {
        return "Nothing is watched.\n".to_owned();
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header(["WATCH", "JOB", "STATUS", "FOR", "SOURCES", "NEXT POLL", "REMARK"]);
    for watch in watches {
        table.add_row(row(watch, now));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn row(watch: &Watch, now: Timestamp) -> [String; 7] {
    let sources = watch.sources.as_ref().map(|sources| {
        let finished = sources.by_status.get("FINISHED").copied().unwrap_or_default();
        format!("{finished} of {}", sources.total)
    });
    let next_poll = watch.next_poll.as_deref().map(|at| match at.parse::<Timestamp>() {
        Ok(at) if at <= now => "due".to_owned(),
        _ => format!("in {}", distance(at, now)),
    });
    [
        Printable(&watch.watch).to_string(),
        Printable(&format!("{}/{}", watch.reference_store_id, watch.import_job_id)).to_string(),
        Printable(watch.status.as_deref().unwrap_or("not seen yet")).to_string(),
        watch.since.as_deref().map(|since| distance(since, now)).unwrap_or_default(),
        sources.unwrap_or_default(),
        next_poll.unwrap_or_default(),
        remark(watch),
    ]
}

/// What a person should know first of a watch.
fn remark(watch: &Watch) -> String {
    let failure = watch.recent_failures.last().filter(|_| watch.up == Some(false));
    let remark = match (&watch.parked_reason, failure, &watch.status_message) {
        (Some(reason), _, _) => format!("parked: {reason}"),
        (None, Some(failure), _) => format!("{}: {}", failure.reason, failure.message),
        (None, None, _) if watch.vanished => "the service no longer knows this job".to_owned(),
        (None, None, message) => message.clone().unwrap_or_default(),
    };
    Printable(&excerpt(&remark, BRIEF)).to_string()
}

fn distance(time: &str, now: Timestamp) -> String {
    time.parse().map_or_else(|_| Printable(time).to_string(), |time| http::distance(time, now))
}
