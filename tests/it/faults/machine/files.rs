//! Fault 132: files that are FIFOs, or that are on a file system that does not respond.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use rustix::fs::OFlags;
use rustix::process::Signal;
use serde_json::json;

use super::Tracer;
use super::watchdog::Watched;
use crate::certificate_authority::CertificateAuthority;
use crate::faults::service::{JOB, STORE, Service, config, job, refusal};
use crate::process::{Process, Workspace, between, eventually, get, metric};

/// Options of strace that delay each `openat` of a path by 100 s.
const STUCK_OPEN: [&str; 4] = ["-e", "trace=openat", "-e", "inject=openat:delay_enter=100000000"];

/// Consecutive checks with a stopped thread after which it is in a delayed call.
const CHECKS_OF_DELAY: u32 = 10;

/// Replaces what is at the path.
fn make_fifo(path: &Path) {
    drop(fs::remove_file(path));
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

/// Writes a certificate with its key, and adds them to the configuration.
fn with_tls(workspace: &Workspace, config: &str) -> String {
    let authority = CertificateAuthority::new("a");
    let (certificate, key) = authority.certificate("refwatch.example", 2999);
    workspace.write("server.crt", &certificate.pem());
    workspace.write("server.key", &key.serialize_pem());
    workspace.write("clients.crt", &authority.pem);
    let tls = "[http]\ntls = { cert = \"server.crt\", key = \"server.key\", client_ca = \"clients.crt\" }\n";
    config.replace("[http]\n", tls)
}

/// The workspace, and a configuration without jobs.
fn idle() -> (Workspace, String) {
    let text = "[database]\npath = \"refwatch.db\"\n[http]\nlisten = \"127.0.0.1:0\"\n[target.default]\nregion = \"us-west-2\"\n";
    (Workspace::new(), text.to_owned())
}

#[test]
fn fault_132_check_and_run_reject_a_fifo_as_tls_file() {
    let (workspace, config) = idle();
    let config = workspace.write("refwatch.toml", &with_tls(&workspace, &config));
    for name in ["server.crt", "server.key", "clients.crt"] {
        let path = workspace.path(name);
        let content = fs::read(&path).expect("a file");
        make_fifo(&path);
        for command in ["check", "run"] {
            let (status, _, error) = workspace.run(&["--config", config.to_str().expect("text"), command]);
            let expected = format!("http.tls: {}: not a regular file", path.display());
            assert!(status == 78 && error.contains(&expected), "{command}: {error}");
        }
        fs::remove_file(&path).and_then(|()| fs::write(&path, content)).expect("the old file");
    }
}

#[test]
fn fault_132_the_certificate_and_the_watchdog_survive_a_tls_file_that_becomes_a_fifo() {
    let watched = Watched::start_with(&["--mean-seconds", "600"], |workspace, config| with_tls(workspace, &config));
    make_fifo(&watched.workspace.path("server.crt"));
    eventually("a warning", || {
        let log = watched.daemon.stderr();
        let line = log.lines().find(|line| line.contains("event=\"certificate_rejected\""))?;
        line.contains("server.crt: not a regular file").then_some(())
    });
    watched.expect_pings(6);
}

#[test]
fn fault_132_the_watchdog_survives_a_tls_file_on_a_file_system_that_does_not_respond() {
    let watched = Watched::start_with(&["--mean-seconds", "600"], |workspace, config| with_tls(workspace, &config));
    let path = watched.workspace.path("server.key");
    let arguments = [&["-P", path.to_str().expect("text")], STUCK_OPEN.as_slice()].concat();
    let Some(_tracer) = Tracer::on(&watched.daemon, &arguments) else { return };
    eventually("a warning", || {
        let log = watched.daemon.stderr();
        let line = log.lines().find(|line| line.contains("event=\"certificate_rejected\""))?;
        line.contains("the file system does not respond").then_some(())
    });
    watched.expect_pings(6);
}

/// Starts the daemon stopped, so that a tracer can be attached before it opens a file.
fn start_stopped(workspace: &Workspace, config: &Path) -> Process {
    let mut run = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    run.env("SSL_CERT_DIR", workspace.path("certificates"));
    let mut command = Command::new("sh");
    command.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).arg(run.get_program()).args(run.get_args());
    command.env_clear().envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let process = workspace.spawn(command);
    eventually("the stop", || status_contains(&process, "State:\tT"));
    process
}

fn status_contains(process: &Process, text: &str) -> Option<()> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("a process");
    status.contains(text).then_some(())
}

fn catches_sigterm(process: &Process) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("a process");
    let caught = u64::from_str_radix(between(&status, "SigCgt:\t", "\n"), 16).expect("a mask");
    caught & (1 << (Signal::TERM.as_raw() - 1)) != 0
}

/// Whether strace has stopped a thread, for the delay or for a moment.
fn has_delayed_thread(process: &Process) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.pid())).expect("its threads");
    let mut statuses = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    statuses.any(|status| status.contains("State:\tt"))
}

#[test]
fn fault_132_sigterm_ends_a_start_that_waits_for_a_file() {
    for name in ["refwatch.toml", "server.key"] {
        let (workspace, config) = idle();
        let config = workspace.write("refwatch.toml", &with_tls(&workspace, &config));
        let mut daemon = start_stopped(&workspace, &config);
        let path = workspace.path(name);
        let arguments = [&["-P", path.to_str().expect("text")], STUCK_OPEN.as_slice()].concat();
        let Some(tracer) = Tracer::on(&daemon, &arguments) else { return };
        daemon.signal(Signal::CONT);
        let mut delayed = 0;
        eventually("the delayed call", || {
            delayed = if catches_sigterm(&daemon) && has_delayed_thread(&daemon) { delayed + 1 } else { 0 };
            (delayed >= CHECKS_OF_DELAY).then_some(())
        });
        daemon.signal(Signal::TERM);
        // strace keeps the thread in the delayed call; the main thread has ended.
        eventually(name, || status_contains(&daemon, "State:\tZ"));
        drop(tracer);
        assert!(daemon.end().success(), "{}", daemon.stderr());
    }
}

#[test]
fn fault_132_a_fifo_as_log_file_or_directory_is_reported_and_lines_are_written_once_it_is_removed() {
    for (fifo, with_reader, error) in [
        ("logs/refwatch.log", false, "refwatch.log: not a regular file"),
        ("logs/refwatch.log", true, "refwatch.log: not a regular file"),
        ("logs", false, "refwatch.log: Not a directory"),
    ] {
        let (workspace, config) = idle();
        let (logs, fifo) = (workspace.path("logs"), workspace.path(fifo));
        let file = logs.join("refwatch.log");
        if fifo == file {
            fs::create_dir(&logs).expect("a directory");
        }
        make_fifo(&fifo);
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let _reader = with_reader
            .then(|| fs::File::options().read(true).custom_flags(nonblocking).open(&fifo).expect("a FIFO to read"));
        let config = format!("{config}[log]\nrotation = \"never\"\ndirectory = \"{}\"\n", logs.display());
        let (mut daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
        let line = eventually("an error", || {
            let log = daemon.stderr();
            log.lines().find(|line| line.contains("event=\"log_files_failed\"")).map(str::to_owned)
        });
        assert!(line.contains(error), "{line}");
        let dropped = || metric(address, "refwatch_log_lines_dropped_total", &[]).expect("a counter");
        eventually("dropped lines", || (dropped() > 0.0).then_some(()));
        fs::remove_file(&fifo).expect("the FIFO");
        daemon.signal(Signal::HUP);
        eventually("a log", || fs::read_to_string(&file).ok().filter(|log| log.contains("reloaded")));
        daemon.signal(Signal::TERM);
        assert!(daemon.end().success());
    }
}

#[test]
fn fault_132_a_fifo_among_the_files_of_the_aws_sdk_is_named_and_blocks_nothing() {
    for variable in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "SSL_CERT_FILE"] {
        let workspace = Workspace::new();
        let service = Service::new(|request| job(request, &json!({})));
        let config = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
        let config = workspace.write("refwatch.toml", &config);
        let fifo = workspace.path("fifo");
        make_fifo(&fifo);
        let start = |value: &Path| {
            let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
            command.env(variable, value);
            workspace.spawn(command)
        };
        let mut daemon = start(&fifo);
        assert_eq!(daemon.end().code(), Some(78), "{}", daemon.stderr());
        let expected = format!("{} ({variable}): not a regular file", fifo.display());
        assert!(daemon.stderr().contains(&expected), "{}", daemon.stderr());
        if variable != "SSL_CERT_FILE" {
            start(Path::new("/dev/null")).address();
        }
    }
}

#[test]
fn fault_132_a_fifo_as_the_token_file_of_a_profile_fails_polls_and_blocks_nothing() {
    let workspace = Workspace::new();
    let service = Service::new(|request| job(request, &json!({})));
    let fifo = workspace.path("fifo");
    make_fifo(&fifo);
    let role = "role_arn = arn:aws:iam::123456789012:role/lab";
    let profile = format!("[profile lab]\n{role}\nweb_identity_token_file = {}\n", fifo.display());
    let profiles = workspace.write("aws", &profile);
    let config = config(&[("default", service.address, "profile = \"lab\"")], &[("default", STORE, JOB)]);
    let config = workspace.write("refwatch.toml", &config);
    let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    command.env("AWS_CONFIG_FILE", &profiles);
    let mut daemon = workspace.spawn(command);
    let address = daemon.address();
    eventually("the failure", || {
        let (status, body) = get(address, "/-/ready");
        let expected = format!("{} (web_identity_token_file of the profile): not a regular file", fifo.display());
        (status == 503 && body.contains(&expected)).then_some(())
    });
    assert_eq!(get(address, "/-/healthy").0, 200);
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());
}

#[test]
fn fault_132_a_start_ends_if_the_file_system_of_the_aws_files_does_not_respond() {
    let (workspace, config) = idle();
    let entry = format!("[[job]]\nreference_store_id = \"{STORE}\"\nid = \"{JOB}\"\n");
    let config = workspace.write("refwatch.toml", &(config + &entry));
    for (directory, file) in [(".aws", "config"), ("certificates", "lab.pem")] {
        fs::create_dir(workspace.path(directory)).expect("a directory");
        let file = workspace.write(&format!("{directory}/{file}"), "");
        let mut daemon = start_stopped(&workspace, &config);
        let arguments = [&["-P", file.to_str().expect("text")], STUCK_OPEN.as_slice()].concat();
        let Some(tracer) = Tracer::on(&daemon, &arguments) else { return };
        daemon.signal(Signal::CONT);
        let expected = "AWS SDK's files does not respond within 4 s";
        eventually(directory, || daemon.stderr().contains(expected).then_some(()));
        drop(tracer);
        assert_eq!(daemon.end().code(), Some(1));
    }
}

#[test]
fn fault_132_a_fifo_among_the_certificates_of_a_directory_is_skipped() {
    let workspace = Workspace::new();
    let service = Service::new(|request| job(request, &json!({})));
    let config = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let config = workspace.write("refwatch.toml", &config);
    fs::create_dir(workspace.path("certificates")).expect("a directory");
    make_fifo(&workspace.path("certificates/fifo.pem"));
    let start = || {
        let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
        command.env("SSL_CERT_DIR", workspace.path("certificates"));
        workspace.spawn(command)
    };
    let mut daemon = start();
    assert_eq!(daemon.end().code(), Some(78), "{}", daemon.stderr());
    let expected = "no valid certificate authority: install the package ca-certificates, or correct SSL_CERT_FILE";
    assert!(daemon.stderr().contains(expected), "{}", daemon.stderr());
    workspace.write("certificates/lab.pem", &CertificateAuthority::new("a").pem);
    let daemon = start();
    daemon.address();
    service.wait_for(1);
}

#[test]
fn fault_132_a_credentials_file_that_becomes_a_fifo_fails_polls_and_blocks_nothing() {
    let workspace = Workspace::new();
    let service =
        Service::new(
            |request| {
                if request.nth == 0 { job(request, &json!({})) } else { refusal(403, "ExpiredTokenException") }
            },
        );
    let config = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let config = workspace.write("refwatch.toml", &config);
    let file =
        workspace.write("credentials", "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = secret\n");
    let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command.env("AWS_SHARED_CREDENTIALS_FILE", &file);
    let mut daemon = workspace.spawn(command);
    let address = daemon.address();
    service.wait_for(1);
    make_fifo(&file);
    eventually("the failure", || {
        let (status, body) = get(address, "/-/ready");
        (status == 503 && body.contains("not a regular file")).then_some(())
    });
    assert_eq!(get(address, "/-/healthy").0, 200);
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());
}
