//! Faults 101 and 110: many slow HTTP clients, and scrapes during reloads. `tests/it/http/` tests faults that need no process.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::process::{Workspace, between, eventually, get, metric};

/// Upper bound for the daemon's memory at any number of connections.
const MEMORY_MAX: f64 = 192.0 * 1024.0 * 1024.0;

/// The server's connection limit and 64 more.
const DESCRIPTORS_MAX: f64 = 64.0 + 64.0;

const SCRAPES: usize = 5;

/// A connection of one of three kinds: sends nothing, never ends its headers, or never reads the response.
fn slow(address: SocketAddr, nth: usize) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    match nth % 3 {
        0 => {}
        1 => stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")?,
        _ => stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?,
    }
    Ok(stream)
}

/// A scrape as Prometheus does it: ten seconds for connect and response. Returns `None` on failure, as Prometheus retries later.
fn scrape(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    response.starts_with("HTTP/1.1 200 OK").then_some(response)
}

fn value(scrape: &str, series: &str) -> f64 {
    let line = scrape.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series} in {scrape}"));
    line.rsplit_once(' ').expect("a value").1.parse().expect("a number")
}

#[test]
fn fault_101_slow_connections_block_neither_scrapes_nor_polls() {
    let clients: usize = std::env::var("SLOW_CONNECTIONS").map_or(1_000, |number| number.parse().expect("a number"));
    let descriptors = u64::try_from(clients).expect("a number") + 1_024;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.current.map(|current| current.max(descriptors)), ..limit })
        .expect("descriptors for the connections: ulimit -Hn");
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "5", "--mean-seconds", "3600"]);
    let (_daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    eventually("polls", || metric(address, "refwatch_job_up", &[]));

    let mut held: Vec<TcpStream> = (0..clients).map(|nth| slow(address, nth).expect("a listener")).collect();
    let polls = "refwatch_api_requests_total{operation=\"GetReferenceImportJob\"";
    let mut polled = 0.0;
    for nth in 0..SCRAPES {
        let scraped = eventually("a scrape, and a poll since the last one", || {
            // Reopens closed connections and sends one more byte on the others.
            for (nth, stream) in held.iter_mut().enumerate() {
                if stream.write_all(b"x").is_err() {
                    *stream = slow(address, nth).ok()?;
                }
            }
            scrape(address).filter(|scraped| value(scraped, polls) > polled)
        });
        polled = value(&scraped, polls);
        let (memory, descriptors) =
            (value(&scraped, "process_resident_memory_bytes"), value(&scraped, "process_open_fds"));
        assert!(
            memory < MEMORY_MAX && descriptors < DESCRIPTORS_MAX,
            "{memory} bytes, {descriptors} descriptors, at {nth}"
        );
        assert!(scraped.contains("\nrefwatch_watches{state=\"live\"} 5\n"), "{scraped}");
    }
    assert_eq!(held.len(), clients);
    drop(held);
    eventually("readiness", || (get(address, "/-/ready").0 == 200).then_some(()));
}

/// The number of info series of each job, and the number of watches.
fn series_and_watches(address: SocketAddr) -> (BTreeMap<String, usize>, usize) {
    let text = get(address, "/metrics").1;
    let mut jobs = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("refwatch_job_info{")) {
        *jobs.entry(between(line, "job_id=\"", "\"").to_owned()).or_default() += 1;
    }
    let counted = text.lines().filter(|line| line.starts_with("refwatch_watches{"));
    (
        jobs,
        counted
            .map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<usize>().ok()).expect("a count"))
            .sum(),
    )
}

#[test]
fn fault_110_a_scrape_during_a_reload_is_consistent() {
    let workspace = Workspace::new();
    let (_simulator, _, both) = workspace.simulate(&["--jobs", "40", "--mean-seconds", "3600"]);
    // The list without its last twenty jobs.
    let cut = both.match_indices("[[job]]").nth(20).expect("forty jobs").0;
    let config = workspace.write("refwatch.toml", &both);
    let (daemon, address) = workspace.daemon(&config);
    let (all, _) = eventually("all jobs", || Some(series_and_watches(address)).filter(|(jobs, _)| jobs.len() == 40));
    let kept = all.keys().filter(|job| both[..cut].contains(job.as_str())).count();
    assert_eq!(kept, 20);
    for (text, jobs_after) in [(&both[..cut], 20), (&both, 40), (&both[..cut], 20), (&both, 40)] {
        workspace.write("refwatch.toml", text);
        daemon.signal(Signal::HUP);
        eventually("the reload", || {
            let (jobs, counted) = series_and_watches(address);
            assert!(jobs.values().all(|series| *series == 1), "duplicate series: {jobs:?}");
            assert_eq!(jobs.len(), counted, "{jobs:?}");
            let stays = jobs.keys().filter(|job| both[..cut].contains(job.as_str())).count();
            assert_eq!(stays, kept, "a job of both files is missing: {jobs:?}");
            (jobs.len() == jobs_after).then_some(())
        });
    }
}
