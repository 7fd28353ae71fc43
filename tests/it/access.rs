//! Who gets in at the listener: over TLS, with a certificate, with a password.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::authority::Authority;
use crate::process::{Scene, eventually, get};

const HOST: &str = "refwatch.example";

fn configuration(http: &str) -> String {
    format!(
        "[database]\npath = \"refwatch.db\"\n[http]\nlisten = \"127.0.0.1:0\"\n{http}\n[target.default]\nregion = \"us-west-2\"\n"
    )
}

/// Writes a certificate of this authority and its key.
fn certify(scene: &Scene, authority: &Authority, name: &str) {
    let (certificate, key) = authority.certificate(HOST, 2999);
    scene.write(&format!("{name}.key"), &key.serialize_pem());
    scene.write(&format!("{name}.crt"), &certificate.pem());
}

/// The status and the body of a GET by whoever trusts this authority, and shows the certificate of that name if there is one.
fn ask(scene: &Scene, address: SocketAddr, authority: &Authority, name: Option<&str>) -> io::Result<(u16, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("a certificate")).expect("an authority");
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = match name {
        None => config.with_no_client_auth(),
        Some(name) => {
            let certificate = CertificateDer::from_pem_file(scene.path(&format!("{name}.crt"))).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(scene.path(&format!("{name}.key"))).expect("a key");
            config.with_client_auth_cert(vec![certificate], key).expect("a certificate and its key")
        }
    };
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(HOST).expect("a name"));
    let mut stream = StreamOwned::new(connection.expect("a connection"), TcpStream::connect(address)?);
    write!(stream, "GET /-/healthy HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    Ok((answer[9..12].parse().expect("a status"), body.expect("a body")))
}

#[test]
fn a_certificate_that_is_replaced_is_taken_up_without_a_restart_and_one_that_is_no_use_is_not() {
    let scene = Scene::new();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    certify(&scene, &first, "server");
    let file = configuration("tls = { cert = \"server.crt\", key = \"server.key\" }");
    let file = scene.write("refwatch.toml", &file);
    let (daemon, address) = scene.daemon(&file);
    let ask = |authority| ask(&scene, address, authority, None);
    assert_eq!(ask(&first).expect("an answer").0, 200, "under the name in the certificate");
    assert!(ask(&second).is_err(), "it is not the other's");
    let mut plain = TcpStream::connect(address).expect("it listens");
    let sent = plain.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let mut answer = Vec::new();
    assert!(sent.and_then(|()| plain.read_to_end(&mut answer)).is_err() || !answer.starts_with(b"HTTP"), "{answer:?}");
    let (status, shown, said) = scene.run(&["--config", file.to_str().expect("text"), "status"]);
    assert_eq!((status, shown.as_str()), (0, "Nothing is watched."), "over the control socket: {said}");

    scene.write("server.crt", "no certificate");
    eventually("the refusal", || daemon.stderr().contains("event=\"certificate_refused\"").then_some(()));
    assert_eq!(ask(&first).expect("an answer").0, 200, "the one before it stays in force");
    certify(&scene, &second, "server");
    eventually("the other certificate", || ask(&second).ok().filter(|(status, _)| *status == 200));
    assert!(ask(&first).is_err());
    assert_eq!(daemon.stderr().matches("event=\"certificate_refused\"").count(), 1, "told once: {}", daemon.stderr());
}

#[test]
fn only_who_shows_a_certificate_of_the_clients_authority_gets_in() {
    let scene = Scene::new();
    let (servers, clients, others) = (Authority::new("servers"), Authority::new("clients"), Authority::new("others"));
    certify(&scene, &servers, "server");
    certify(&scene, &clients, "client");
    certify(&scene, &others, "other");
    scene.write("clients.crt", &clients.pem);
    let tls = "tls = { cert = \"server.crt\", key = \"server.key\", client_ca = \"clients.crt\" }";
    let (_daemon, address) = scene.daemon(&scene.write("refwatch.toml", &configuration(tls)));
    let ask = |name| ask(&scene, address, &servers, name);
    assert_eq!(ask(Some("client")).expect("an answer").0, 200);
    assert!(ask(Some("other")).is_err() && ask(None).is_err());
}

#[test]
fn tls_that_cannot_be_used_is_told_with_its_file() {
    let scene = Scene::new();
    certify(&scene, &Authority::new("first"), "server");
    certify(&scene, &Authority::new("first"), "other");
    scene.write("empty.crt", "");
    for (cert, key, said) in [
        ("missing.crt", "server.key", "missing.crt: No such file"),
        ("empty.crt", "server.key", "empty.crt: it holds no certificate"),
        ("server.crt", "server.crt", "server.crt: this is no PEM file with a private key"),
        ("server.crt", "other.key", "server.crt: the certificate or its key cannot be used"),
    ] {
        let file = configuration(&format!("tls = {{ cert = \"{cert}\", key = \"{key}\" }}"));
        let file = scene.write("refwatch.toml", &file);
        let (status, _, told) = scene.run(&["--config", file.to_str().expect("text"), "run"]);
        assert!(status == 1 && told.contains("http.tls: ") && told.contains(said), "{told}");
    }
}

#[test]
fn only_users_get_in_and_no_hash_or_password_is_shown_anywhere() {
    let scene = Scene::new();
    let hash = bcrypt::hash("open sesame", 4).expect("a hash");
    let text = configuration(&format!("users = {{ prometheus = \"{hash}\" }}"));
    let file = scene.write("refwatch.toml", &text);
    let path = file.to_str().expect("text");
    let (daemon, address) = scene.daemon(&file);
    let ask = |path: &str, authorization: &str| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{authorization}\r\n")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let basic = |credentials: &str| format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(credentials));
    for path in ["/", "/metrics", "/config", "/-/healthy", "/none"] {
        let refused = ask(path, "").to_lowercase();
        assert!(refused.starts_with("http/1.1 401") && refused.contains("www-authenticate: basic"), "{refused}");
        for wrong in ["prometheus:open sesam", "prometheus:", "somebody:open sesame", ":open sesame", "prometheus"] {
            assert!(ask(path, &basic(wrong)).starts_with("HTTP/1.1 401"), "{wrong}");
        }
    }
    assert!(ask("/", "Authorization: Basic ???\r\n").starts_with("HTTP/1.1 401"));
    assert!(ask("/", "Authorization: Bearer open sesame\r\n").starts_with("HTTP/1.1 401"));
    for path in ["/", "/metrics", "/-/healthy", "/config"] {
        let answer = ask(path, &basic("prometheus:open sesame"));
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("$2"), "{answer}");
    }
    let (status, shown, said) = scene.run(&["--config", path, "status"]);
    assert_eq!((status, shown.as_str()), (0, "Nothing is watched."), "over the control socket: {said}");

    // Mistakes of every kind on the lines where secrets stand.
    for secret in [
        "users = { prometheus = \"open sesame\" }".to_owned(),
        format!("users = {{ prometheus = \"{hash}\", other = 1 }}"),
        format!("user = {{ prometheus = \"{hash}\" }}"),
        format!("[http.users]\nprometheus = \"{hash}"),
        "[http.users]\nprometheus = \"open sesame\"".to_owned(),
        format!("[http.users]\n\"a:b\" = \"{hash}\""),
    ] {
        fs::write(&file, configuration(&secret)).expect("a file");
        let (status, _, said) = scene.run(&["--config", path, "check"]);
        assert!(
            status == 78 && !said.contains("sesame") && !said.contains("$2b") && said.contains("refwatch.toml:"),
            "{said}"
        );
    }
    drop(daemon);
}

#[test]
fn a_listener_that_others_can_reach_and_that_nothing_guards_is_a_warning_of_check_and_at_the_start() {
    let scene = Scene::new();
    certify(&scene, &Authority::new("first"), "server");
    let tls = "tls = { cert = \"server.crt\", key = \"server.key\" }";
    let users = format!("users = {{ a = \"{}\" }}", bcrypt::hash("a", 4).expect("a hash"));
    for (http, said) in [
        (String::new(), "anybody there may read it, in the clear"),
        (tls.to_owned(), "anybody there may read it; set http.users"),
        (users.clone(), "passwords and answers go there in the clear"),
        (format!("{tls}\n{users}"), ""),
    ] {
        let file = scene.write("refwatch.toml", &configuration(&http).replace("127.0.0.1:0", "0.0.0.0:0"));
        let (status, _, warned) = scene.run(&["--config", file.to_str().expect("text"), "check"]);
        assert_eq!(status, 0);
        assert_eq!(warned.contains("warning: http.listen is 0.0.0.0:0, which others can reach"), !said.is_empty());
        let log = scene.daemon(&file).0.stderr();
        assert!(warned.contains(said) && log.contains(said), "{warned}{log}");
        assert_eq!(log.contains("event=\"exposed\""), !said.is_empty(), "{log}");
    }
    let file = scene.write("refwatch.toml", &configuration(""));
    let (daemon, address) = scene.daemon(&file);
    assert_eq!(get(address, "/-/healthy").0, 200);
    assert!(!daemon.stderr().contains("event=\"exposed\""));
}
