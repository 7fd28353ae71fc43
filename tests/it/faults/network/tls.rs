//! TLS with certificates made here: an authority that the daemon trusts, and servers that it must not.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::omics::answer;
use crate::process::{Scene, eventually, json, metric};
use crate::truth::transitions;

/// An authority and its certificate.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A server, the connections that came, and the requests that could be read off them.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().expect("a key"));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A server whose certificate is this authority's, for a host, and was last valid in a year.
    fn server(&self, host: &str, year: i32) -> Server {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(year, 12, 31));
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        serve(Arc::new(config.expect("a server")))
    }
}

fn serve(config: Arc<ServerConfig>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let [connections, requests] = [0, 0].map(|_| Arc::new(AtomicUsize::new(0)));
    let server = Server { address, connections: Arc::clone(&connections), requests: Arc::clone(&requests) };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            connections.fetch_add(1, Ordering::SeqCst);
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            let mut stream = StreamOwned::new(connection, stream.expect("a connection"));
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
                head.push(byte[0]);
            }
            if !head.is_empty() {
                requests.fetch_add(1, Ordering::SeqCst);
                drop(stream.write_all(answer(&[]).as_bytes()));
                stream.conn.send_close_notify();
                drop(stream.flush());
            }
        }
    });
    server
}

#[test]
fn fault_019_a_server_that_cannot_be_verified_gets_no_request_and_is_tried_again_visibly() {
    let (trusted, unknown) = (Authority::new("trusted"), Authority::new("unknown"));
    let scene = Scene::new();
    let authority = scene.write("authority.pem", &trusted.pem);
    let servers = [
        ("good", trusted.server("127.0.0.1", 2999), ""),
        ("expired", trusted.server("127.0.0.1", 2020), "expired"),
        ("elsewhere", trusted.server("elsewhere.example", 2999), "not valid for name"),
        ("unknown", unknown.server("127.0.0.1", 2999), "UnknownIssuer"),
    ];
    let mut toml = "[poll]\nmin_interval = \"100ms\"\nbackoff_initial = \"100ms\"\n[record]\npath = \"refwatch.db\"\n\
        [http]\nlisten = \"127.0.0.1:0\"\n"
        .to_owned();
    for (name, server, _) in &servers {
        toml.push_str(&format!(
            "[target.{name}]\nregion = \"us-west-2\"\nendpoint_url = \"https://{}\"\n\
            [[job]]\nname = \"{name}\"\ntarget = \"{name}\"\nreference_store_id = \"1234567890\"\nid = \"9876543210\"\n",
            server.address
        ));
    }
    let config = scene.write("refwatch.toml", &toml);
    let mut command = scene.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    command.env("SSL_CERT_FILE", &authority);
    let daemon = scene.spawn(command);
    let address = daemon.address();
    for (name, server, words) in &servers[1..] {
        let labels = [&*format!("target=\"{name}\""), "reason=\"connect\""];
        let failed = || metric(address, "refwatch_api_request_failures_total", &labels).filter(|count| *count >= 4.0);
        eventually("a second and a third try", failed);
        let attempts = server.connections.load(Ordering::SeqCst);
        let failures = failed().expect("as before");
        assert!(
            (4.0..=failures + 1.0).contains(&f64::from(u32::try_from(attempts).expect("few"))),
            "{name}: {attempts}"
        );
        assert_eq!(server.requests.load(Ordering::SeqCst), 0, "{name}");
        let log = daemon.stderr();
        let about = format!("watch=\"{name}\" ");
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&about) && line.contains("poll_failed")).collect();
        assert!(lines.len() == 1 && lines[0].contains(words) && lines[0].contains("SSL_CERT_FILE"), "{name}: {log}");
    }
    eventually("the good one's answer", || (servers[0].1.requests.load(Ordering::SeqCst) > 1).then_some(()));
    let rows = transitions(&scene.path("refwatch.db"));
    assert!(rows.len() == 1 && rows[0].target == "good", "{rows:?}");
    let watches = json(address, "/api/v1/watches");
    for watch in watches.as_array().expect("an array") {
        assert_eq!(watch["up"] == true, watch["watch"] == "good", "{watches}");
    }
}
