//! The secrets of a sink: a changed file is used for the next request, and no secret is shown.

use std::fmt::Write as _;

use refwatch::simulator::SinkFault;

use super::{Host, OTHER_SECRET, SECRET, accepted, always, entry, job_id, sink_in_state};
use crate::faults::service::STORE;
use crate::process::get;

#[test]
fn fault_156_a_secret_that_is_changed_while_the_daemon_runs_is_used_for_the_next_request() {
    let host = Host::new(1);
    let receiver = host.receiver(Vec::new());
    let (_daemon, _) = host.start(&[entry("pipeline", &receiver, "")]);
    let test = || host.command(&["notify", "test", "pipeline"]);
    // Rotation: with both secrets a request has two signatures.
    for (secrets, expected) in [
        (SECRET.to_owned(), 0),
        (format!("{OTHER_SECRET}\n{SECRET}\n"), 0),
        (OTHER_SECRET.to_owned(), 1),
        (format!("{SECRET}\n"), 0),
    ] {
        host.write_secret(&secrets);
        let (status, output, error) = test();
        assert_eq!(status, expected, "{output}{error}");
    }
    // A file that is unusable for a moment is a failed request, and not the end of the sink.
    host.write_secret("");
    let (status, _, error) = test();
    assert!(status == 1 && error.contains("secret_file") && error.contains("is empty"), "{status} {error}");
    host.end(1, "COMPLETED");
    host.write_secret(SECRET);
    assert_eq!(accepted(&receiver, 4).len(), 4);
}

#[test]
fn fault_156_no_secret_of_a_sink_is_in_a_log_page_api_metric_or_command() {
    let host = Host::new(2);
    let (failing, rejecting) = (host.receiver(always(SinkFault::Internal)), host.receiver(Vec::new()));
    host.write_secret(OTHER_SECRET);
    host.workspace.write("token", "hunter2token");
    host.workspace.write("url", &format!("{}?token=hunter2", failing.url()));
    for file in ["token", "url"] {
        std::fs::set_permissions(host.workspace.path(file), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("our file");
    }
    let more = "bearer_token_file = \"token\"\nheaders = { X-Key = \"hunter2\" }";
    let hidden_url = format!("[[notify]]\nname = \"hidden\"\nurl_file = \"url\"\nsecret_file = \"signing\"\n{more}\n");
    let in_query = entry("shown", &rejecting, more).replace("/sink\"", "/sink?token=hunter2\"");
    let (daemon, address) = host.start(&[format!("[log]\nlevel = \"trace\"\n{hidden_url}"), in_query]);
    host.end(1, "FAILED");
    sink_in_state(address, "hidden", |sink| sink["state"] == "paused");
    sink_in_state(address, "shown", |sink| sink["last_error"] == "HTTP status 401");
    assert!(rejecting.received()[0].headers["authorization"] == "Bearer hunter2token", "the token was sent");

    let job = format!("/jobs/reference_import/{STORE}/{}", job_id(1));
    let mut shown = String::new();
    for path in ["/", &job, "/config", "/metrics", "/api/v1/sinks", "/api/v1/daemon", "/api/v1/jobs"] {
        let (status, body) = get(address, path);
        assert_eq!(status, 200, "{path}");
        writeln!(shown, "{path}\n{body}").expect("memory");
    }
    for command in [
        &["notify", "status"][..],
        &["notify", "status", "--json"],
        &["notify", "test", "hidden"],
        &["notify", "test", "shown"],
        &["check"],
        &["check", "--json"],
        &["check", "--online"],
        &["status", "--json"],
    ] {
        let (_, output, error) = host.command(command);
        writeln!(shown, "{command:?}\n{output}{error}").expect("memory");
    }
    // An unusable file is an error that quotes nothing.
    host.write_secret("whsec_hunter2!");
    host.end(2, "FAILED");
    let (_, output, error) = host.command(&["notify", "test", "shown"]);
    writeln!(shown, "{output}{error}\n{}", daemon.stderr()).expect("memory");
    assert!(shown.contains("must be base64"), "{shown}");
    for (nth, line) in shown.lines().enumerate() {
        assert!(!line.contains("hunter2") && !line.contains("aHVudGVyMm"), "line {nth}: {line}");
    }
}
