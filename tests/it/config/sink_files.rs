//! The files and connections of sinks, as `check` and the start read and check them.

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificate_authority::CertificateAuthority;
use crate::process::{Workspace, get};

const BASE: &str = "[database]\npath = \"refwatch.db\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"debug\"\n\
                    [[notify]]\nname = \"pipeline\"\nsecret_file = \"signing\"\nbearer_token_file = \"token\"\nurl_file = \"url\"\n\
                    headers = { X-Key = \"hunter2\" }\n";
const SECRET: &str = "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==";
const TOKEN: &str = "hunter2";
const URL: &str = "https://localhost:9/hunter2?token=hunter2\n";

/// A workspace with the configuration `BASE` and valid files.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    for (name, text) in [("refwatch.toml", BASE), ("signing", SECRET), ("token", TOKEN), ("url", URL)] {
        let path = workspace.write(name, text);
        fs::set_permissions(path, Permissions::from_mode(0o640)).expect("our file");
    }
    workspace
}

fn run(workspace: &Workspace, command: &str) -> (i32, String) {
    let config = workspace.path("refwatch.toml");
    let (status, output, error) = workspace.run(&["--config", config.to_str().expect("text"), command]);
    (status, format!("{output}\n{error}"))
}

fn assert_hides_secrets(shown: &str) {
    assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMm"), "{shown}");
}

#[test]
fn fault_150_check_and_run_reject_an_unusable_file_of_a_sink() {
    let large = "hunter2".repeat(1000);
    let table = [
        ("signing", Some(""), "is empty"),
        ("signing", Some("whsec_aHVudGVyMg=="), "on line 1: a secret must have 24 to 64 bytes"),
        ("signing", Some("whsec_hunter2!"), "must be base64"),
        ("signing", Some("hunter2"), "must start with `whsec_`"),
        ("signing", Some(&large), "is larger than 4096 bytes"),
        ("signing", None, "not a regular file"),
        ("token", Some("\n"), "is empty"),
        ("token", Some("hunter2 hunter2"), "must have one token"),
        ("token", None, "not a regular file"),
        ("url", Some("http://example.org/hunter2"), "it must begin with https://"),
        ("url", None, "not a regular file"),
    ];
    for (name, content, expected) in table {
        let workspace = workspace();
        let path = workspace.path(name);
        if let Some(text) = content {
            workspace.write(name, text);
        } else {
            fs::remove_file(&path).expect("our file");
            assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        }
        for command in ["check", "run"] {
            let (status, output) = run(&workspace, command);
            let has_place = output.contains("the sink \"pipeline\"") && output.contains(&*path.to_string_lossy());
            assert!(status == 78 && has_place && output.contains(expected), "{command} {name} {content:?}: {output}");
            assert_hides_secrets(&output);
        }
        // A directory, and then nothing.
        fs::remove_file(&path).and_then(|()| fs::create_dir(&path)).expect("our directory");
        assert!(run(&workspace, "check").1.contains("not a regular file"), "{name}");
        fs::remove_dir(&path).expect("our directory");
        assert!(run(&workspace, "check").1.contains("No such file or directory"), "{name}");
    }
}

#[test]
fn no_secret_of_a_sink_is_in_the_log_the_output_or_the_pages() {
    let workspace = workspace();
    let (status, output) = run(&workspace, "check");
    assert_eq!(status, 0, "{output}");
    let (daemon, address) = workspace.daemon(&workspace.path("refwatch.toml"));
    let config = get(address, "/config").1;
    assert!(config.contains("name = \"pipeline\"") && config.contains("X-Key"), "{config}");
    for shown in [output, config, get(address, "/").1, get(address, "/api/v1/daemon").1, daemon.stderr()] {
        assert_hides_secrets(&shown);
    }
}

#[test]
fn secrets_of_a_sink_that_every_user_can_read_cause_warnings() {
    let workspace = workspace();
    for name in ["signing", "token", "url"] {
        let path = workspace.path(name);
        let command = format!("run `chmod o-rwx {}`", path.display());
        assert!(!run(&workspace, "check").1.contains(&command), "{name}");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("our file");
        let (status, output) = run(&workspace, "check");
        assert!(status == 0 && output.contains(&command), "{output}");
        let log = workspace.daemon(&workspace.path("refwatch.toml")).0.stderr();
        assert!(log.lines().any(|line| line.contains("secret_readable") && line.contains(&command)), "{log}");
    }
}

#[test]
fn a_token_in_a_configuration_that_every_user_can_read_causes_a_warning() {
    for (keys, key) in [
        ("url = \"https://hooks.lab.example/refwatch/inbox\"\nheaders = { X-Team = \"genomics\" }\n", None),
        ("url = \"https://hooks.lab.example/services/T012/B012/abcdefghijklmnopqrstuvwx\"\n", Some("url")),
        ("url = \"https://hooks.lab.example/?key=abcdefghijklmnopqrstuvwx\"\n", Some("url")),
        ("url = \"https://a.example\"\nheaders = { X-Key = \"abcdefghijklmnopqrstuvwx\" }\n", Some("headers")),
    ] {
        let workspace = Workspace::new();
        let base = BASE.split("[[notify]]").next().expect("the settings");
        let config = workspace.write("refwatch.toml", &format!("{base}[[notify]]\nname = \"pipeline\"\n{keys}"));
        for (mode, warned) in [(0o644, key.is_some()), (0o640, false)] {
            fs::set_permissions(&config, Permissions::from_mode(mode)).expect("our file");
            let (status, output) = run(&workspace, "check");
            let warning = format!("a secret of the sink \"pipeline\" (`{}`)", key.unwrap_or_default());
            assert!(
                status == 0 && output.contains(&warning) == warned && output.contains("chmod") == warned,
                "{output}"
            );
        }
    }
}

#[test]
fn a_pattern_that_matches_no_name_is_a_warning() {
    let workspace = workspace();
    let entries = "watches = [\"GRCh*\", \"shared *\", \"GRCm39\"]\n[target.default]\nregion = \"us-west-2\"\n\
                   [[job]]\nname = \"GRCh38\"\nreference_store_id = \"1234567890\"\nid = \"9876543210\"\n\
                   [[store]]\nname = \"shared references\"\nreference_store_id = \"1234567890\"\n";
    workspace.write("refwatch.toml", &format!("{BASE}{entries}"));
    let (status, output) = run(&workspace, "check");
    let warnings: Vec<&str> = output.lines().filter(|line| line.contains("matches no name")).collect();
    assert_eq!(status, 0, "{output}");
    assert_eq!(warnings, ["warning: the sink \"pipeline\": \"GRCm39\" in `watches` matches no name of a job or store"]);
}

/// Accepts one TLS connection. Returns the bytes that the client sent after the handshake.
fn accept(listener: TcpListener, authority: &CertificateAuthority) -> thread::JoinHandle<Vec<u8>> {
    let (certificate, key) = authority.certificate("localhost", 2999);
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    thread::spawn(move || {
        let mut tls = rustls::ServerConnection::new(Arc::new(config)).expect("a connection");
        let (mut stream, mut received) = (listener.accept().expect("a client").0, Vec::new());
        // The client closes the connection, or rejects the certificate.
        drop(rustls::Stream::new(&mut tls, &mut stream).read_to_end(&mut received));
        received
    })
}

#[test]
fn check_online_does_the_handshake_and_sends_no_request() {
    let (authority, other) = (CertificateAuthority::new("a"), CertificateAuthority::new("b"));
    for (trusted, status, expected) in [
        (&authority, 0, "reachable, and its certificate is valid"),
        (&other, 1, "the TLS handshake failed: invalid peer certificate"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let workspace = workspace();
        workspace.write("url", &format!("https://localhost:{}/hunter2", address.port()));
        let bundle = workspace.write("authorities.pem", &trusted.pem);
        let server = accept(listener, &authority);
        let config = workspace.path("refwatch.toml");
        let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "check", "--online"]);
        // The target `default` is checked, too. It has no region, which is no matter here.
        command
            .env("SSL_CERT_FILE", bundle)
            .env("AWS_REGION", "us-west-2")
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
        let mut process = workspace.spawn(command);
        let code = process.end().code();
        let output = process.rest().join("\n");
        let line = format!("sink pipeline, https://localhost:{}: {expected}", address.port());
        assert!(output.contains(&line), "{output} {}", process.stderr());
        assert_eq!(code, Some(status), "{output}");
        assert_hides_secrets(&output);
        assert_eq!(server.join().expect("a server"), b"");
    }
}

#[test]
fn check_online_reports_a_sink_that_cannot_be_reached() {
    let unused = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let table = [
        (format!("http://{unused}/hunter2"), None, "no connection: "),
        ("https://hooks.invalid/hunter2".to_owned(), None, "no connection: dns error: "),
        ("https://hooks.invalid/hunter2".to_owned(), Some(format!("http://ada:hunter2@{unused}")), "the proxy: "),
    ];
    for (url, proxy, expected) in table {
        let workspace = workspace();
        workspace.write("url", &url);
        let config = workspace.path("refwatch.toml");
        let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "check", "--online"]);
        command
            .env("AWS_REGION", "us-west-2")
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            .envs(proxy.map(|proxy| ("HTTPS_PROXY", proxy)));
        let mut process = workspace.spawn(command);
        assert_eq!(process.end().code(), Some(1), "{url}");
        let output = process.rest().join("\n");
        assert!(output.contains("sink pipeline, ") && output.contains(expected), "{output}");
        assert_hides_secrets(&output);
    }
}
