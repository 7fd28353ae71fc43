//! Faults 19 and 29: TLS. The daemon trusts a certificate authority created here; servers have valid and invalid certificates.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use refwatch::core::failure::FailureReason;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{LONG, config_with_one_job_each, failures, head, poll_failures_in_log};
use crate::certificate_authority::CertificateAuthority;
use crate::healthomics::job_response;
use crate::process::{Process, Workspace, eventually, json};
use crate::transition_rows::transitions;

struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl CertificateAuthority {
    /// A server with a certificate for `host` that expires at the end of `year`.
    fn server(&self, host: &str, year: i32) -> Server {
        serve(self.config(host, year), None)
    }

    /// A server that sends GOAWAY during the first request of its first connection, which is HTTP/2.
    fn server_that_sends_goaway(&self) -> Server {
        let mut http2 = self.config("127.0.0.1", 2999);
        http2.alpn_protocols = vec![b"h2".to_vec()];
        serve(self.config("127.0.0.1", 2999), Some(http2))
    }

    fn config(&self, host: &str, year: i32) -> ServerConfig {
        let (certificate, key) = self.certificate(host, year);
        let certificate = certificate.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        config.expect("a server")
    }
}

fn serve(config: ServerConfig, first: Option<ServerConfig>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let [connections, requests] = [0, 0].map(|_| Arc::new(AtomicUsize::new(0)));
    let server = Server { address, connections: Arc::clone(&connections), requests: Arc::clone(&requests) };
    let (config, mut first) = (Arc::new(config), first.map(Arc::new));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            connections.fetch_add(1, Ordering::SeqCst);
            let (sends_goaway, config) = first.take().map_or((false, Arc::clone(&config)), |first| (true, first));
            let connection = ServerConnection::new(config).expect("a connection");
            let mut stream = StreamOwned::new(connection, stream.expect("a connection"));
            if sends_goaway {
                send_goaway(&mut stream).expect("HTTP/2");
            } else if !head(&mut stream).is_empty() {
                requests.fetch_add(1, Ordering::SeqCst);
                drop(stream.write_all(job_response(&[]).as_bytes()));
                stream.conn.send_close_notify();
                drop(stream.flush());
            }
        }
    });
    server
}

/// Sends the HTTP/2 settings, waits for a request, and sends GOAWAY.
fn send_goaway(stream: &mut (impl Read + Write)) -> io::Result<()> {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    stream.read_exact(&mut [0; PREFACE])?;
    stream.write_all(&settings)?;
    loop {
        let mut frame = [0; 9];
        stream.read_exact(&mut frame)?;
        let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
        io::copy(&mut stream.take(length.into()), &mut io::sink())?;
        if frame[3] == HEADERS {
            return stream.write_all(&goaway);
        }
    }
}

/// A daemon that trusts `trusted` and watches one job of each server.
fn watch(workspace: &Workspace, trusted: &CertificateAuthority, servers: &[(&str, &Server)]) -> Process {
    let targets = servers.iter().map(|(name, server)| (*name, format!("https://{}", server.address)));
    let config = workspace.write("refwatch.toml", &config_with_one_job_each(LONG, targets));
    let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    command.env("SSL_CERT_FILE", workspace.write("authority.pem", &trusted.pem));
    workspace.spawn(command)
}

#[test]
fn fault_029_a_goaway_fails_at_most_one_poll() {
    let (workspace, trusted) = (Workspace::new(), CertificateAuthority::new("trusted"));
    let server = trusted.server_that_sends_goaway();
    let daemon = watch(&workspace, &trusted, &[("gone", &server)]);
    eventually("a response on another connection", || (server.requests.load(Ordering::SeqCst) > 0).then_some(()));
    eventually("a transition", || (transitions(&workspace.path("refwatch.db")).len() == 1).then_some(()));
    let failed =
        FailureReason::ALL.map(|reason| failures(daemon.address(), "gone", reason.label())).iter().sum::<f64>();
    assert!(failed <= 1.0 && failed <= failures(daemon.address(), "gone", "connect"), "{}", daemon.stderr());
}

#[test]
fn fault_019_an_unverified_server_gets_no_request_and_is_retried_with_an_error_shown() {
    let (trusted, unknown) = (CertificateAuthority::new("trusted"), CertificateAuthority::new("unknown"));
    let workspace = Workspace::new();
    let servers = [
        ("good", trusted.server("127.0.0.1", 2999), ""),
        ("expired", trusted.server("127.0.0.1", 2020), "expired"),
        ("elsewhere", trusted.server("elsewhere.example", 2999), "not valid for name"),
        ("unknown", unknown.server("127.0.0.1", 2999), "UnknownIssuer"),
    ];
    let daemon = watch(&workspace, &trusted, &servers.each_ref().map(|(name, server, _)| (*name, server)));
    let address = daemon.address();
    for (name, server, words) in &servers[1..] {
        eventually("retries", || (failures(address, name, "connect") >= 4.0).then_some(()));
        let attempts = f64::from(u32::try_from(server.connections.load(Ordering::SeqCst)).expect("few"));
        assert!((4.0..=failures(address, name, "connect") + 1.0).contains(&attempts), "{name}: {attempts}");
        assert_eq!(server.requests.load(Ordering::SeqCst), 0, "{name}");
        let line = poll_failures_in_log(&daemon, name);
        assert!(line.contains(words) && line.contains("SSL_CERT_FILE"), "{name}: {line}");
    }
    eventually("a response of the good server", || (servers[0].1.requests.load(Ordering::SeqCst) > 1).then_some(()));
    let rows = transitions(&workspace.path("refwatch.db"));
    assert!(rows.len() == 1 && rows[0].target == "good", "{rows:?}");
    let watches = json(address, "/api/v1/jobs");
    for watch in watches.as_array().expect("an array") {
        assert_eq!(watch["up"] == true, watch["watch"] == "good", "{watches}");
    }
}
