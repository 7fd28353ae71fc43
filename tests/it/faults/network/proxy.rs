//! A proxy between the daemon and the endpoint, as on a closed network: it is used, and where it refuses, that is said.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;

use super::{LONG, failures, head, one_job_each, told_of_failure};
use crate::process::{Scene, eventually};

/// What the proxy answers for each host.
const ANSWERS: [(&str, &str); 4] = [
    ("asks.invalid:443", "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n"),
    ("refuses.invalid:443", "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\n<no>"),
    ("fails.invalid:443", "HTTP/1.1 502 Bad Gateway\r\n\r\n"),
    ("closes.invalid:443", ""),
];

/// A proxy that opens no tunnel, and the heads of the requests that it gets.
fn proxy() -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sent, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let head = head(&mut stream);
            let host = head.split(' ').nth(1).unwrap_or_default();
            let answer = ANSWERS.iter().find(|(name, _)| *name == host).map_or("", |(_, answer)| answer);
            drop(stream.write_all(answer.as_bytes()));
            if sent.send(head).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

#[test]
fn fault_024_a_proxy_that_asks_refuses_or_is_not_there_is_named() {
    let (scene, (proxy, requests)) = (Scene::new(), proxy());
    let hosts = ANSWERS.map(|(host, _)| host.trim_end_matches(".invalid:443"));
    let config = one_job_each(LONG, hosts.map(|host| (host, format!("https://{host}.invalid"))));
    let config = scene.write("refwatch.toml", &config);
    let run = |proxy: String| {
        let mut command = scene.refwatch(&["--config", config.to_str().expect("text"), "run"]);
        command.env("HTTPS_PROXY", proxy);
        let daemon = scene.spawn(command);
        let address = daemon.address();
        for host in hosts {
            eventually("a failure", || (failures(address, host, "connect") > 0.0).then_some(()));
        }
        assert!(!daemon.stderr().contains("s3same"), "{}", daemon.stderr());
        hosts.map(|host| told_of_failure(&daemon, host))
    };
    let lines = run(format!("http://someone:s3same@{proxy}"));
    assert!(lines[0].contains("the proxy asks for credentials"), "{lines:?}");
    assert!(lines[1..].iter().all(|line| line.contains("the proxy of HTTPS_PROXY does not connect")), "{lines:?}");
    // Whoever is killed while it connects says nothing.
    for head in requests.try_iter().filter(|head| !head.is_empty()) {
        assert!(head.starts_with("CONNECT ") && !head.contains("\r\nauthorization: AWS4"), "{head}");
        assert!(head.contains("Proxy-Authorization: Basic "), "{head}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let lines = run(format!("http://{nobody}"));
    assert!(lines.iter().all(|line| line.contains("the proxy of HTTPS_PROXY does not connect")), "{lines:?}");
}
