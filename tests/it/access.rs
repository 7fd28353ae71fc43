//! Access to the HTTP listener: TLS, client certificates, passwords, and warnings about an open listener.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::certificate_authority::CertificateAuthority;
use crate::process::{Workspace, eventually, get};

const HOST: &str = "refwatch.example";

fn configuration(http: &str) -> String {
    format!(
        "[database]\npath = \"refwatch.db\"\n[http]\nlisten = \"127.0.0.1:0\"\n{http}\n[target.default]\nregion = \"us-west-2\"\n"
    )
}

/// Writes a certificate and its key.
fn write_certificate(workspace: &Workspace, authority: &CertificateAuthority, name: &str) {
    let (certificate, key) = authority.certificate(HOST, 2999);
    workspace.write(&format!("{name}.key"), &key.serialize_pem());
    workspace.write(&format!("{name}.crt"), &certificate.pem());
}

/// Requests `/metrics` over TLS. Trusts `authority`, with the client certificate `name` if given. Returns status and body.
fn request(
    workspace: &Workspace,
    address: SocketAddr,
    authority: &CertificateAuthority,
    name: Option<&str>,
) -> io::Result<(u16, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("a certificate")).expect("an authority");
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = match name {
        None => config.with_no_client_auth(),
        Some(name) => {
            let certificate =
                CertificateDer::from_pem_file(workspace.path(&format!("{name}.crt"))).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(workspace.path(&format!("{name}.key"))).expect("a key");
            config.with_client_auth_cert(vec![certificate], key).expect("a certificate and its key")
        }
    };
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(HOST).expect("a name"));
    let mut stream = StreamOwned::new(connection.expect("a connection"), TcpStream::connect(address)?);
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let body = response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    Ok((response[9..12].parse().expect("a status"), body.expect("a body")))
}

#[test]
fn a_replaced_certificate_is_loaded_without_a_restart_and_an_invalid_one_is_rejected() {
    let workspace = Workspace::new();
    let (first, second) = (CertificateAuthority::new("first"), CertificateAuthority::new("second"));
    write_certificate(&workspace, &first, "server");
    let file = configuration("tls = { cert = \"server.crt\", key = \"server.key\" }");
    let file = workspace.write("refwatch.toml", &file);
    let (daemon, address) = workspace.daemon(&file);
    let request = |authority| request(&workspace, address, authority, None);
    assert_eq!(request(&first).expect("a response").0, 200, "the certificate's host name");
    assert!(request(&second).is_err(), "not signed by the other authority");
    let mut plain = TcpStream::connect(address).expect("a listener");
    let sent = plain.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let mut response = Vec::new();
    assert!(
        sent.and_then(|()| plain.read_to_end(&mut response)).is_err() || !response.starts_with(b"HTTP"),
        "{response:?}"
    );
    let (status, shown, error) = workspace.run(&["--config", file.to_str().expect("text"), "status"]);
    assert_eq!((status, shown.as_str()), (0, "Nothing is watched."), "over the control socket: {error}");

    workspace.write("server.crt", "no certificate");
    eventually("the rejected certificate", || daemon.stderr().contains("event=\"certificate_rejected\"").then_some(()));
    assert_eq!(request(&first).expect("a response").0, 200, "the previous certificate stays in use");
    write_certificate(&workspace, &second, "server");
    eventually("the other certificate", || request(&second).ok().filter(|(status, _)| *status == 200));
    assert!(request(&first).is_err());
    // The end of 2999, as `write_certificate` sets it.
    let expiry = "\nrefwatch_tls_certificate_expiry_timestamp_seconds 32503593600\n";
    let metrics = request(&second).expect("a response").1;
    assert!(metrics.contains(expiry), "{metrics}");
    assert_eq!(daemon.stderr().matches("event=\"certificate_rejected\"").count(), 1, "one event: {}", daemon.stderr());
}

#[test]
fn only_clients_with_a_certificate_of_the_client_ca_are_accepted() {
    let workspace = Workspace::new();
    let (servers, clients, others) = (
        CertificateAuthority::new("servers"),
        CertificateAuthority::new("clients"),
        CertificateAuthority::new("others"),
    );
    write_certificate(&workspace, &servers, "server");
    write_certificate(&workspace, &clients, "client");
    write_certificate(&workspace, &others, "other");
    workspace.write("clients.crt", &clients.pem);
    let tls = "tls = { cert = \"server.crt\", key = \"server.key\", client_ca = \"clients.crt\" }";
    let (_daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &configuration(tls)));
    let request = |name| request(&workspace, address, &servers, name);
    assert_eq!(request(Some("client")).expect("a response").0, 200);
    assert!(request(Some("other")).is_err() && request(None).is_err());
}

#[test]
fn fault_119_check_and_run_report_unusable_tls_files_with_their_names() {
    let workspace = Workspace::new();
    write_certificate(&workspace, &CertificateAuthority::new("first"), "server");
    write_certificate(&workspace, &CertificateAuthority::new("first"), "other");
    workspace.write("empty.crt", "");
    // As `openssl pkey -aes256` writes them, without and with `-traditional`.
    let pem = |label: &str, text: &str| format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
    workspace.write("encrypted.key", &pem("ENCRYPTED PRIVATE KEY", "MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAc"));
    let header = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0F4C8A2B\n\nMIHsMFcGCSqGSIb3DQEFDTBK";
    workspace.write("old.key", &pem("EC PRIVATE KEY", header));
    for (files, expected) in [
        ("cert = \"missing.crt\", key = \"server.key\"", "missing.crt: No such file"),
        ("cert = \"server.crt\", key = \"missing.key\"", "missing.key: No such file"),
        ("cert = \"empty.crt\", key = \"server.key\"", "empty.crt: the file contains no certificate"),
        ("cert = \"server.key\", key = \"server.crt\"", "server.key: this is a private key, not a certificate"),
        ("cert = \"server.crt\", key = \"server.crt\"", "server.crt: this is a certificate, not a private key"),
        ("cert = \"server.crt\", key = \"other.key\"", "server.crt: the certificate or its key cannot be used"),
        ("cert = \"server.crt\", key = \"encrypted.key\"", "encrypted.key: the private key is encrypted"),
        ("cert = \"server.crt\", key = \"old.key\"", "old.key: the private key is encrypted"),
        ("cert = \"server.crt\", key = \"server.key\", client_ca = \"missing.crt\"", "missing.crt: No such file"),
        ("cert = \"server.crt\", key = \"server.key\", client_ca = \"empty.crt\"", "empty.crt: the file contains no"),
        (
            "cert = \"server.crt\", key = \"server.key\", client_ca = \"server.key\"",
            "server.key: this is a private key",
        ),
    ] {
        let file = workspace.write("refwatch.toml", &configuration(&format!("tls = {{ {files} }}")));
        for command in ["check", "run"] {
            let (status, _, error) = workspace.run(&["--config", file.to_str().expect("text"), command]);
            assert!(status == 78 && error.contains("http.tls: ") && error.contains(expected), "{command}: {error}");
            if expected.contains("encrypted") {
                assert!(error.contains("decrypt it with `openssl pkey -in "), "{error}");
            }
        }
        assert!(!workspace.path("refwatch.db").exists(), "{expected}");
    }
}

#[test]
fn fault_119_check_reports_every_problem_that_the_start_would_find() {
    let workspace = Workspace::new();
    let logs = workspace.write("logs", "no directory");
    let text =
        configuration("tls = { cert = \"missing.crt\", key = \"missing.key\" }").replace("region = \"us-west-2\"", "");
    let text = format!(
        "{text}[log]\ndirectory = \"{}\"\n[[job]]\nreference_store_id = \"1234567890\"\nid = \"9876543210\"\n",
        logs.display()
    );
    let file = workspace.write("refwatch.toml", &text);
    let errors = ["check", "run"].map(|command| {
        let (status, _, error) = workspace.run(&["--config", file.to_str().expect("text"), command]);
        assert_eq!(status, 78, "{command}: {error}");
        error.lines().filter(|line| line.starts_with("error: ")).map(str::to_owned).collect::<Vec<_>>()
    });
    assert!(errors[0][0].contains("missing.crt") && errors[0][1].contains("no AWS region"), "{errors:?}");
    assert_eq!(errors[0], errors[1]);

    // Neither ends the daemon, because it uses them once they are there.
    for (listen, expected) in [("192.0.2.1:10210", "192.0.2.1 is no address of this machine"), ("127.0.0.1:0", "logs")]
    {
        let text = configuration("").replace("127.0.0.1:0", listen);
        let file = workspace.write("refwatch.toml", &format!("{text}[log]\ndirectory = \"{}\"\n", logs.display()));
        let (status, _, error) = workspace.run(&["--config", file.to_str().expect("text"), "check"]);
        assert!(status == 0 && error.contains("warning: ") && error.contains(expected), "{listen}: {error}");
    }
    assert_eq!(fs::read_to_string(&logs).expect("the file"), "no directory", "check writes nothing");
}

#[test]
fn fault_118_a_password_is_compared_with_all_its_bytes() {
    let workspace = Workspace::new();
    let password = "a".repeat(72);
    let hash = bcrypt::hash(&password, 10).expect("a hash");
    let file = workspace.write("refwatch.toml", &configuration(&format!("users = {{ prometheus = \"{hash}\" }}")));
    let (_daemon, address) = workspace.daemon(&file);
    for (password, expected) in [(format!("{password}a"), "HTTP/1.1 401"), (password, "HTTP/1.1 200")] {
        let mut stream = TcpStream::connect(address).expect("a listener");
        let credentials = BASE64_STANDARD.encode(format!("prometheus:{password}"));
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {credentials}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("a response");
        assert!(response.starts_with(expected), "{} bytes: {response}", password.len());
    }
}

#[test]
fn fault_145_failed_logins_are_counted_and_logged_at_a_bounded_rate_without_the_password() {
    let workspace = Workspace::new();
    let hash = |cost| bcrypt::hash("open sesame", cost).expect("a hash");
    let users = format!("users = {{ ada = \"{}\", bob = \"{}\" }}", hash(10), hash(11));
    let file = workspace.write("refwatch.toml", &configuration(&users));
    let (daemon, address) = workspace.daemon(&file);
    let status = |credentials: &str| {
        let mut stream = TcpStream::connect(address).expect("a listener");
        let authorization = BASE64_STANDARD.encode(credentials);
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {authorization}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("a response");
        response
    };
    assert_eq!(get(address, "/").0, 401, "a request without a user is not a login");
    let long_user = format!("{}:guess 1", "x".repeat(1000));
    let wrong = ["ada\u{1b}[2J\n\u{202e}:guess 1", "ada:guess 2", "bob:guess 3", "carol:guess 4", &long_user];
    for credentials in wrong {
        assert!(status(credentials).starts_with("HTTP/1.1 401"), "{credentials}");
    }
    for user in ["ada", "bob"] {
        let response = status(&format!("{user}:open sesame"));
        assert!(response.contains("\nrefwatch_http_login_failures_total 5\n"), "{response}");
    }
    let log = daemon.log_with("event=\"login_failed\"");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("event=\"login_failed\"")).collect();
    assert!(!lines.is_empty() && lines.len() < wrong.len(), "{log}");
    assert!(
        lines[0].contains("WARN") && lines[0].contains("client=\"127.0.0.1\"") && lines[0].contains("ada"),
        "{log}"
    );
    assert!(!log.contains("guess") && !log.contains("$2b$") && !log.contains(['\u{1b}', '\u{202e}']), "{log}");
    assert!(log.lines().all(|line| line.len() < 500), "{log}");
}

#[test]
fn only_users_are_accepted_and_no_hash_or_password_is_shown() {
    let workspace = Workspace::new();
    let hash = bcrypt::hash("open sesame", 10).expect("a hash");
    let text = configuration(&format!("users = {{ prometheus = \"{hash}\" }}"));
    let file = workspace.write("refwatch.toml", &text);
    let path = file.to_str().expect("text");
    let (daemon, address) = workspace.daemon(&file);
    let request = |path: &str, authorization: &str| {
        let mut stream = TcpStream::connect(address).expect("a listener");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{authorization}\r\n")
            .expect("sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("a response");
        response
    };
    let basic = |credentials: &str| format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(credentials));
    for path in ["/", "/metrics", "/config", "/-/healthy", "/none"] {
        let rejected = request(path, "").to_lowercase();
        assert!(rejected.starts_with("http/1.1 401") && rejected.contains("www-authenticate: basic"), "{rejected}");
        for wrong in ["prometheus:open sesam", "prometheus:", "somebody:open sesame", ":open sesame", "prometheus"] {
            assert!(request(path, &basic(wrong)).starts_with("HTTP/1.1 401"), "{wrong}");
        }
    }
    assert!(request("/", "Authorization: Basic ???\r\n").starts_with("HTTP/1.1 401"));
    assert!(request("/", "Authorization: Bearer open sesame\r\n").starts_with("HTTP/1.1 401"));
    for path in ["/", "/metrics", "/-/healthy", "/config"] {
        let response = request(path, &basic("prometheus:open sesame"));
        assert!(response.starts_with("HTTP/1.1 200") && !response.contains("$2"), "{response}");
    }
    let (status, shown, error) = workspace.run(&["--config", path, "status"]);
    assert_eq!((status, shown.as_str()), (0, "Nothing is watched."), "over the control socket: {error}");

    // Mistakes of each kind on lines with secrets.
    for secret in [
        "users = { prometheus = \"open sesame\" }".to_owned(),
        format!("users = {{ prometheus = \"{hash}\", other = 1 }}"),
        format!("user = {{ prometheus = \"{hash}\" }}"),
        format!("[http.users]\nprometheus = \"{hash}"),
        "[http.users]\nprometheus = \"open sesame\"".to_owned(),
        format!("[http.users]\n\"a:b\" = \"{hash}\""),
    ] {
        fs::write(&file, configuration(&secret)).expect("a file");
        let (status, _, error) = workspace.run(&["--config", path, "check"]);
        assert!(
            status == 78 && !error.contains("sesame") && !error.contains("$2b") && error.contains("refwatch.toml:"),
            "{error}"
        );
    }
    drop(daemon);
}

#[test]
fn an_exposed_listener_causes_a_warning_in_check_and_at_start() {
    let workspace = Workspace::new();
    write_certificate(&workspace, &CertificateAuthority::new("first"), "server");
    let tls = "tls = { cert = \"server.crt\", key = \"server.key\" }";
    let users = format!("users = {{ a = \"{}\" }}", bcrypt::hash("a", 10).expect("a hash"));
    for (http, warning) in [
        (String::new(), "without authentication and encryption"),
        (tls.to_owned(), "without authentication: set http.users"),
        (users.clone(), "without encryption, so passwords are sent in clear text"),
        (format!("{tls}\n{users}"), ""),
    ] {
        let file = workspace.write("refwatch.toml", &configuration(&http).replace("127.0.0.1:0", "0.0.0.0:0"));
        let (status, _, output) = workspace.run(&["--config", file.to_str().expect("text"), "check"]);
        assert_eq!(status, 0);
        assert_eq!(output.contains("warning: other hosts can reach http.listen 0.0.0.0:0"), !warning.is_empty());
        let log = workspace.daemon(&file).0.stderr();
        assert!(output.contains(warning) && log.contains(warning), "{output}{log}");
        assert_eq!(log.contains("event=\"listener_exposed\""), !warning.is_empty(), "{log}");
    }
    let file = workspace.write("refwatch.toml", &configuration(""));
    let (daemon, address) = workspace.daemon(&file);
    assert_eq!(get(address, "/-/healthy").0, 200);
    assert!(!daemon.stderr().contains("event=\"listener_exposed\""));
}
