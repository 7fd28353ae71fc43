//! A proxy between the daemon and the endpoint, as on a closed network: it is used, and where it refuses, that is said.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;

use crate::process::{Scene, eventually, metric};

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
    let (heard, heads) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).expect("text");
            let host = head.split(' ').nth(1).unwrap_or_default();
            let answer = ANSWERS.iter().find(|(name, _)| *name == host).map_or("", |(_, answer)| answer);
            drop(stream.write_all(answer.as_bytes()));
            if heard.send(head).is_err() {
                return;
            }
        }
    });
    (address, heads)
}

#[test]
fn fault_024_a_proxy_that_asks_refuses_or_is_not_there_is_named() {
    let (scene, (proxy, heads)) = (Scene::new(), proxy());
    let mut toml =
        "[poll]\ntimeout = \"2s\"\n[record]\npath = \"refwatch.db\"\n[http]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    let hosts = ANSWERS.map(|(host, _)| host.trim_end_matches(".invalid:443"));
    for host in hosts {
        toml.push_str(&format!(
            "[target.{host}]\nregion = \"us-west-2\"\nendpoint_url = \"https://{host}.invalid\"\n\
            [[job]]\nname = \"{host}\"\ntarget = \"{host}\"\nreference_store_id = \"1234567890\"\nid = \"9876543210\"\n"
        ));
    }
    let config = scene.write("refwatch.toml", &toml);
    let run = |proxy: String| {
        let mut command = scene.refwatch(&["--config", config.to_str().expect("text"), "run"]);
        command.env("HTTPS_PROXY", proxy);
        let daemon = scene.spawn(command);
        let address = daemon.address();
        for host in hosts {
            let labels = [&*format!("target=\"{host}\""), "reason=\"connect\""];
            let failed =
                || metric(address, "refwatch_api_request_failures_total", &labels).filter(|count| *count > 0.0);
            eventually("a failure", failed);
        }
        let log = daemon.stderr();
        assert!(!log.contains("s3same"), "{log}");
        hosts.map(|host| {
            let about = format!("watch=\"{host}\" ");
            log.lines().find(|line| line.contains(&about) && line.contains("poll_failed")).expect("a line").to_owned()
        })
    };
    let lines = run(format!("http://someone:s3same@{proxy}"));
    assert!(lines[0].contains("the proxy asks for credentials"), "{lines:?}");
    assert!(lines[1..].iter().all(|line| line.contains("the proxy of HTTPS_PROXY does not connect")), "{lines:?}");
    for head in heads.try_iter() {
        assert!(head.starts_with("CONNECT ") && !head.contains("\r\nauthorization: AWS4"), "{head}");
        assert!(head.contains("Proxy-Authorization: Basic "), "{head}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let lines = run(format!("http://{nobody}"));
    assert!(lines.iter().all(|line| line.contains("the proxy of HTTPS_PROXY does not connect")), "{lines:?}");
}
