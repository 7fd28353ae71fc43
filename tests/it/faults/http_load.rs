//! Faults 128 and 129: responses that are larger or slower than their clients can take.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::process::{DEADLINE, Process, Workspace, eventually, get, pause};

/// A scrape of these jobs has 15 MB before their first poll.
const JOBS: &str = "10000";

/// Upper bound for the daemon's memory. One scrape for each connection would need 800 MB.
const MEMORY_KIB_MAX: u64 = 320 * 1024;

/// Fewer than the connections that the server accepts at a time.
const CLIENTS: usize = 60;

fn daemon_with_many_jobs(workspace: &Workspace) -> (Process, Process, SocketAddr) {
    let (simulator, _, config) = workspace.simulate(&["--jobs", JOBS, "--mean-seconds", "36000"]);
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    eventually("every watch", || {
        get(address, "/metrics").1.contains(&format!("refwatch_watches{{state=\"live\"}} {JOBS}\n")).then_some(())
    });
    (simulator, daemon, address)
}

fn request(address: SocketAddr, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").expect("a reader");
    stream
}

#[test]
fn fault_128_clients_that_hang_up_leave_at_most_one_rendering_of_a_document() {
    let workspace = Workspace::new();
    let (_simulator, daemon, address) = daemon_with_many_jobs(&workspace);
    let before = daemon.status("Threads");
    let mut threads = before;
    for path in ["/metrics", "/config", "/api/v1/jobs"] {
        for _ in 0..CLIENTS / 4 {
            // Compression makes the rendering longer than the request.
            let abandoned = request(address, path, "Accept-Encoding: gzip\r\n");
            pause();
            drop(abandoned);
            threads = threads.max(daemon.status("Threads"));
        }
    }
    // Each rendering takes a thread.
    assert!(threads <= before + 4, "{before} threads, then {threads}");
    assert!(get(address, "/config").1.contains("[database]"));
}

#[test]
fn fault_129_clients_that_do_not_read_hold_a_bounded_number_of_bytes() {
    let workspace = Workspace::new();
    let (_simulator, daemon, address) = daemon_with_many_jobs(&workspace);
    let mut held = Vec::new();
    let mut rejected = 0;
    for client in 0..CLIENTS {
        let mut stream = request(address, ["/metrics", "/api/v1/jobs"][client % 2], "");
        // Once the response has begun, its rendering has ended, so the next client does not share it.
        let mut beginning = [0; 160];
        stream.read_exact(&mut beginning).expect("the beginning of a response");
        let response = String::from_utf8_lossy(&beginning).to_lowercase();
        let is_rejected = response.starts_with("http/1.1 503 ");
        assert!(
            is_rejected == response.contains("retry-after: ") && (is_rejected || response.starts_with("http/1.1 200 ")),
            "{response}"
        );
        rejected += usize::from(is_rejected);
        held.push(stream);
        let memory = daemon.status("VmRSS");
        assert!(memory < MEMORY_KIB_MAX, "{memory} KiB with {client} clients");
    }
    assert!(rejected > 0, "every client got a response");
    assert_eq!(get(address, "/-/healthy").0, 200, "small responses are not limited");
    eventually("a scrape after the slow clients were disconnected", || {
        (get(address, "/metrics").0 == 200).then_some(())
    });
    assert_eq!(held.len(), CLIENTS);
}
