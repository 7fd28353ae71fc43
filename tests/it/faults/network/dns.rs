//! Faults 21 and 22: DNS. The daemon runs in a mount namespace where `/etc/resolv.conf` names a resolver of this test.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use super::{SHORT, config_with_one_job_each, failures, head, poll_failures_in_log};
use crate::healthomics::job_response;
use crate::process::{Workspace, eventually};

/// A loopback address that nothing else uses.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 83, 21, 22);

/// Response codes of DNS.
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// Responds according to the first label. `moves` resolves to 127.0.0.`last`. `None` if this user may not bind port 53.
fn resolver(last: Arc<AtomicU8>) -> Option<()> {
    let socket = UdpSocket::bind((RESOLVER, 53)).ok()?;
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let question = &query[12..length];
            let (label, kind) = (&question[1..=usize::from(question[0])], question_kind(question));
            let (code, address) = match label {
                b"nowhere" => (NO_SUCH_NAME, None),
                b"failing" => (SERVER_FAILURE, None),
                b"moves" => (NO_ERROR, (kind == 1).then(|| [127, 0, 0, last.load(Ordering::SeqCst)])),
                _ => continue,
            };
            let end = question.iter().position(|byte| *byte == 0).expect("an end") + 5;
            let mut answer =
                [&query[..2], &[0x81, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]].concat();
            answer.extend(&question[..end]);
            if let Some(address) = address {
                // Pointer to the name, type A, class IN, TTL one hour, four bytes.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4]);
                answer.extend(address);
            }
            drop(socket.send_to(&answer, from));
        }
    });
    Some(())
}

/// The query type: 1 is A, 28 is AAAA.
fn question_kind(question: &[u8]) -> u8 {
    let end = question.iter().position(|byte| *byte == 0).expect("an end");
    question[end + 2]
}

/// A service that closes each connection after its response and records the last byte of its address.
fn service(address: SocketAddr, requested: Arc<Mutex<Vec<u8>>>) -> Option<()> {
    let listener = TcpListener::bind(address).ok()?;
    let SocketAddr::V4(at) = address else { return None };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            if !head(&mut stream).is_empty() {
                requested.lock().expect("a lock").push(at.ip().octets()[3]);
                drop(stream.write_all(job_response(&[]).as_bytes()));
            }
        }
    });
    Some(())
}

#[test]
fn fault_021_022_failed_lookups_are_retried_and_a_changed_address_is_used() {
    let (last, requested) = (Arc::new(AtomicU8::new(2)), Arc::new(Mutex::new(Vec::new())));
    if resolver(Arc::clone(&last)).is_none() {
        return crate::disk_faults::skipped("port 53 of a loopback address").unwrap_or_default();
    }
    let port = TcpListener::bind("127.0.0.2:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    for host in [2, 3] {
        service((Ipv4Addr::new(127, 0, 0, host), port).into(), Arc::clone(&requested)).expect("the same port");
    }
    let workspace = Workspace::new();
    let resolver = workspace.write("resolv.conf", &format!("nameserver {RESOLVER}\noptions timeout:30 attempts:5\n"));
    let names = ["moves", "nowhere", "failing", "silent"];
    let config = config_with_one_job_each(SHORT, names.map(|name| (name, format!("http://{name}.omics.test:{port}"))));
    let config = workspace.write("refwatch.toml", &config);
    let daemon = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    let mut command = Command::new("unshare");
    let mounted = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    command.args(["--mount", "sh", "-c", mounted]).arg(resolver).arg(daemon.get_program()).args(daemon.get_args());
    command.env_clear().envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut daemon = workspace.spawn(command);
    let address = daemon.address();
    for (name, reason) in [("nowhere", "connect"), ("failing", "connect"), ("silent", "timeout")] {
        eventually("a second failure", || (failures(address, name, reason) >= 2.0).then_some(()));
    }
    for name in ["nowhere", "failing"] {
        let line = poll_failures_in_log(&daemon, name);
        assert!(line.contains("dns error"), "{line}");
    }
    assert!(poll_failures_in_log(&daemon, "silent").contains("no complete response within"));
    let last_requested = || requested.lock().expect("a lock").last().copied();
    eventually("the first address", || (last_requested() == Some(2)).then_some(()));
    last.store(3, Ordering::SeqCst);
    eventually("the second address", || (last_requested() == Some(3)).then_some(()));
    assert!(failures(address, "moves", "connect") <= 0.0, "{}", daemon.stderr());
    // The hanging lookup must not delay the stop.
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success(), "{}", daemon.stderr());
}
