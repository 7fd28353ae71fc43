//! `refwatch status`: what the running daemon's API says of every watch, as a table.

use std::io::{IsTerminal as _, stdout};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

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
        None => reachable(super::load(config)?.config.http.listen).to_string(),
    };
    let redraw = args.follow && !args.json && stdout().is_terminal();
    let mut text = look(&address, args.json, clock.now().wall).await?;
    loop {
        print(format_args!("{}{text}", if redraw { REDRAW } else { "" }))?;
        if !args.follow {
            return Ok(Exit::Done);
        }
        clock.sleep(FOLLOW_INTERVAL).await;
        // A daemon that answered once is followed through its restarts.
        text = look(&address, args.json, clock.now().wall).await.unwrap_or_else(|failure| failure.message + "\n");
    }
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
    // Where the terminal is narrow, a job and a status break where their parts meet, names and remarks anywhere.
    for (index, column) in table.column_iter_mut().enumerate() {
        match index {
            0 | 6 => {}
            1 => _ = column.set_delimiter('/'),
            2 => _ = column.set_delimiter('_'),
            _ => _ = column.set_constraint(ColumnConstraint::ContentWidth),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::watches::{WatchFailure, WatchSources};

    fn watch() -> Watch {
        Watch {
            watch: "GRCh38".to_owned(),
            target: "default".to_owned(),
            aws_region: "us-west-2".to_owned(),
            reference_store_id: "1234567890".to_owned(),
            import_job_id: "2222222222".to_owned(),
            status: Some("IN_PROGRESS".to_owned()),
            state: "live".to_owned(),
            parked_reason: None,
            vanished: false,
            status_message: None,
            created_at: None,
            completed_at: None,
            since: Some("2026-03-01T08:00:00.000Z".to_owned()),
            last_seen: None,
            sources: Some(WatchSources { total: 3, by_status: [("FINISHED".to_owned(), 2)].into(), listed: vec![] }),
            up: Some(true),
            last_successful_poll: None,
            next_poll: Some("2026-03-01T10:05:12.000Z".to_owned()),
            recent_failures: vec![],
        }
    }

    #[test]
    fn the_table_fits_the_terminal_and_shows_no_text_that_acts_on_it() {
        let failure = WatchFailure {
            at: "2026-03-01T10:04:00.000Z".to_owned(),
            reason: "internal".to_owned(),
            message: "a long and hostile message \u{1b}[2J\n of the service".repeat(3),
        };
        let hostile =
            Watch { watch: "\u{202e}name\n".to_owned(), up: Some(false), recent_failures: vec![failure], ..watch() };
        let now = "2026-03-01T10:05:00Z".parse().expect("a time");
        let watches = [watch(), hostile];
        for width in [80, 100, 140] {
            let shown = table(&watches, now, width);
            assert!(shown.lines().all(|line| line.chars().count() <= usize::from(width)), "{shown}");
        }
        let shown = table(&watches, now, 140);
        let row = shown.lines().nth(1).expect("a row");
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["GRCh38", "1234567890/2222222222", "IN_PROGRESS", "2h 5m", "2 of 3", "in 12s"], "{shown}");
        assert!(!shown.contains(|c: char| crate::core::text::is_hostile(c) && c != '\n'), "{shown}");
    }
}
