//! Names, resolved by a server of the test's own on a loopback address of its own, in a mount namespace in which it is the resolver.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use super::{SHORT, failures, head, one_job_each, told_of_failure};
use crate::healthomics::answer;
use crate::process::{Scene, eventually};

/// Where the resolver listens: a loopback address that nothing else has.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 83, 21, 22);

/// What a DNS header says of an answer.
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// Answers by the first label of the name; `moves` is at 127.0.0.x, which may change. `None` where this user may not listen there.
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
                // The name of the question, an address of the internet, kept for an hour, four bytes.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4]);
                answer.extend(address);
            }
            drop(socket.send_to(&answer, from));
        }
    });
    Some(())
}

/// 1 where an address is asked for, 28 where one of IPv6 is.
fn question_kind(question: &[u8]) -> u8 {
    let end = question.iter().position(|byte| *byte == 0).expect("an end");
    question[end + 2]
}

/// A service at an address, which closes each connection after its answer; who was asked last is told by its last byte.
fn service(address: SocketAddr, asked: Arc<Mutex<Vec<u8>>>) -> Option<()> {
    let listener = TcpListener::bind(address).ok()?;
    let SocketAddr::V4(at) = address else { return None };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            if !head(&mut stream).is_empty() {
                asked.lock().expect("a lock").push(at.ip().octets()[3]);
                drop(stream.write_all(answer(&[]).as_bytes()));
            }
        }
    });
    Some(())
}

#[test]
fn fault_021_022_a_name_that_does_not_resolve_passes_and_one_that_moves_is_followed() {
    let (last, asked) = (Arc::new(AtomicU8::new(2)), Arc::new(Mutex::new(Vec::new())));
    if resolver(Arc::clone(&last)).is_none() {
        return crate::trouble::skipped("port 53 of a loopback address").unwrap_or_default();
    }
    let port = TcpListener::bind("127.0.0.2:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    for host in [2, 3] {
        service((Ipv4Addr::new(127, 0, 0, host), port).into(), Arc::clone(&asked))
            .expect("a port that is free there too");
    }
    let scene = Scene::new();
    let resolver = scene.write("resolv.conf", &format!("nameserver {RESOLVER}\noptions timeout:30 attempts:5\n"));
    let names = ["moves", "nowhere", "failing", "silent"];
    let config = one_job_each(SHORT, names.map(|name| (name, format!("http://{name}.omics.test:{port}"))));
    let config = scene.write("refwatch.toml", &config);
    let daemon = scene.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    let mut command = Command::new("unshare");
    let mounted = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    command.args(["--mount", "sh", "-c", mounted]).arg(resolver).arg(daemon.get_program()).args(daemon.get_args());
    command.env_clear().envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut daemon = scene.spawn(command);
    let address = daemon.address();
    for (name, reason) in [("nowhere", "connect"), ("failing", "connect"), ("silent", "timeout")] {
        eventually("a second failure", || (failures(address, name, reason) >= 2.0).then_some(()));
    }
    for name in ["nowhere", "failing"] {
        let line = told_of_failure(&daemon, name);
        assert!(line.contains("dns error"), "{line}");
    }
    assert!(told_of_failure(&daemon, "silent").contains("before poll.timeout"));
    let asked_last = || asked.lock().expect("a lock").last().copied();
    eventually("the first address", || (asked_last() == Some(2)).then_some(()));
    last.store(3, Ordering::SeqCst);
    eventually("the second address", || (asked_last() == Some(3)).then_some(()));
    assert!(failures(address, "moves", "connect") <= 0.0, "{}", daemon.stderr());
    // A lookup that hangs for longer than the test has patience holds up nobody who wants to go.
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success(), "{}", daemon.stderr());
}
