//! Fault 24: a proxy that requires credentials, refuses, fails or is unreachable.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;

use super::{LONG, config_with_one_job_each, failures, head, poll_failures_in_log};
use crate::process::{Workspace, eventually};

/// The proxy's response for each host.
const RESPONSES: [(&str, &str); 4] = [
    ("asks.invalid:443", "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n"),
    ("refuses.invalid:443", "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\n<no>"),
    ("fails.invalid:443", "HTTP/1.1 502 Bad Gateway\r\n\r\n"),
    ("closes.invalid:443", ""),
];

/// A proxy that opens no tunnel, and the heads of its requests.
fn proxy() -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sent, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let head = head(&mut stream);
            let host = head.split(' ').nth(1).unwrap_or_default();
            let response = RESPONSES.iter().find(|(name, _)| *name == host).map_or("", |(_, response)| response);
            drop(stream.write_all(response.as_bytes()));
            if sent.send(head).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

#[test]
fn fault_024_a_proxy_that_requires_credentials_refuses_or_is_unreachable_is_named() {
    let (workspace, (proxy, requests)) = (Workspace::new(), proxy());
    let hosts = RESPONSES.map(|(host, _)| host.trim_end_matches(".invalid:443"));
    let config = config_with_one_job_each(LONG, hosts.map(|host| (host, format!("https://{host}.invalid"))));
    let config = workspace.write("refwatch.toml", &config);
    let run = |proxy: String| {
        let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
        command.env("HTTPS_PROXY", proxy);
        let daemon = workspace.spawn(command);
        let address = daemon.address();
        for host in hosts {
            eventually("a failure", || (failures(address, host, "connect") > 0.0).then_some(()));
        }
        assert!(!daemon.stderr().contains("s3same"), "{}", daemon.stderr());
        hosts.map(|host| poll_failures_in_log(&daemon, host))
    };
    let lines = run(format!("http://someone:s3same@{proxy}"));
    assert!(lines[0].contains("the proxy asks for credentials"), "{lines:?}");
    assert!(lines[1..].iter().all(|line| line.contains("the proxy of HTTPS_PROXY does not connect")), "{lines:?}");
    // A daemon killed while connecting sends an empty request.
    for head in requests.try_iter().filter(|head| !head.is_empty()) {
        assert!(head.starts_with("CONNECT ") && !head.contains("\r\nauthorization: AWS4"), "{head}");
        assert!(head.contains("Proxy-Authorization: Basic "), "{head}");
    }
    let unused = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let lines = run(format!("http://{unused}"));
    assert!(lines.iter().all(|line| line.contains("the proxy of HTTPS_PROXY does not connect")), "{lines:?}");
}
