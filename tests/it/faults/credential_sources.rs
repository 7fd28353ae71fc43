//! Faults 121, 123, 124 and 126: roles of profiles, STS and credential processes.
//!
//! Scripted services stand in for HealthOmics and STS. Credential processes are shell scripts.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::json;

use super::identity::{FAILURES, ids, ready};
use super::service::{JOB, STORE, Service, config, daemon, job, response};
use crate::process::{Process, Workspace, eventually, get, metric};
use crate::transition_rows::transitions;

const ROLE: &str = "arn:aws:iam::123456789012:role/lab";

/// A profile with keys, and one with a role that these keys may assume.
const PROFILES: &str = "[profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = secret\n\
    [profile lab]\nrole_arn = arn:aws:iam::123456789012:role/lab\nsource_profile = base\nregion = eu-west-1\n";

/// The response of STS for an assumed role.
fn assumed_role() -> String {
    let xml = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><AssumedRoleUser>\
        <AssumedRoleId>AROA:refwatch</AssumedRoleId><Arn>arn:aws:sts::123456789012:assumed-role/lab/refwatch</Arn>\
        </AssumedRoleUser><Credentials><AccessKeyId>AKIDROLE</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
        <SessionToken>token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>\
        </AssumeRoleResponse>";
    response("200 OK", "Content-Type: text/xml\r\n", xml)
}

/// An error of STS.
fn sts_error(status: &str, code: &str) -> String {
    let xml = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code>\
        <Message>no</Message></Error></ErrorResponse>"
    );
    response(status, "Content-Type: text/xml\r\n", &xml)
}

/// The output of a credential process.
fn process_output(key: &str) -> String {
    json!({"Version": 1, "AccessKeyId": key, "SecretAccessKey": "secret", "SessionToken": "token"}).to_string()
}

fn write_profiles(workspace: &Workspace, profiles: &str) {
    fs::create_dir_all(workspace.path(".aws")).expect("a directory");
    workspace.write(".aws/config", profiles);
}

/// Writes a credential process.
fn script(workspace: &Workspace, name: &str, text: &str) -> String {
    let path = workspace.write(name, &format!("#!/bin/sh\n{text}"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable script");
    path.to_str().expect("text").to_owned()
}

/// `refwatch wait --profile PROFILE` for one job.
fn wait(workspace: &Workspace, profile: &str, service: SocketAddr, sts: &str) -> Process {
    let (job, endpoint) = (format!("{STORE}/{JOB}"), format!("http://{service}"));
    let mut command = workspace.refwatch(&["wait", &job, "--profile", profile, "--endpoint-url", &endpoint]);
    command.env("AWS_ENDPOINT_URL_STS", sts).env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    workspace.spawn(command)
}

fn completed() -> Service {
    Service::new(|request| job(request, &json!({"status": "COMPLETED"})))
}

#[test]
fn fault_121_a_role_is_assumed_in_the_same_way_however_it_is_named() {
    let workspace = Workspace::new();
    let (service, sts) = (completed(), Service::new(|_| assumed_role()));
    let helper = script(&workspace, "helper", &format!("echo '{}'", process_output("AKIDHELPER")));
    let role = format!("role_arn = {ROLE}\n");
    write_profiles(
        &workspace,
        &format!(
            "{PROFILES}[profile own]\n{role}source_profile = own\naws_access_key_id = AKIDOWN\naws_secret_access_key = a\n\
            [profile twice]\n{role}source_profile = lab\n\
            [profile helper]\ncredential_process = {helper}\n\
            [profile helped]\n{role}source_profile = helper\n\
            [profile alone]\n{role}source_profile = alone\ncredential_process = {helper}\n"
        ),
    );
    let profiles = ["lab", "own", "twice", "helped", "alone"];
    let keys = profiles.map(|name| format!("profile = \"{name}\""));
    let role = format!("role_arn = \"{ROLE}\"");
    let mut targets: Vec<_> =
        profiles.iter().zip(&keys).map(|(name, keys)| (*name, service.address, keys.as_str())).collect();
    targets.extend([("default", service.address, ""), ("role", service.address, role.as_str())]);
    let jobs: Vec<_> = targets.iter().map(|(name, ..)| (*name, STORE, JOB)).collect();
    let url = format!("http://{}", sts.address);
    let environment = [("AWS_PROFILE", "lab"), ("AWS_ENDPOINT_URL_STS", &url)];
    let (daemon, _) = daemon(&workspace, &config(&targets, &jobs), &environment);
    let database = workspace.path("refwatch.db");
    eventually("every job", || (transitions(&database).len() == targets.len()).then_some(()));
    assert!(service.requests().iter().all(|request| request.key() == "AKIDROLE"), "{:?}", service.requests());
    let requests = sts.requests();
    let mut keys: Vec<_> = requests.iter().map(|request| request.key().to_owned()).collect();
    keys.sort_unstable();
    // `twice` and `role` assume a role with the credentials of `lab`.
    let expected = [["AKIDBASE"; 4].as_slice(), &["AKIDHELPER"; 2], &["AKIDOWN"], &["AKIDROLE"; 2]].concat();
    assert_eq!(keys, expected, "{}", daemon.stderr());
    assert!(requests.iter().all(|request| request.head.contains("/us-west-2/sts/")), "the target's region");

    let mut wait = wait(&workspace, "lab", service.address, &url);
    assert_eq!(wait.end().code(), Some(0), "{}", wait.stderr());
    assert!(sts.requests().last().expect("a request").head.contains("/eu-west-1/sts/"), "the profile's region");
}

#[test]
fn fault_121_a_role_without_a_source_is_an_error_also_beside_a_credential_process() {
    let workspace = Workspace::new();
    let service = completed();
    let helper = script(&workspace, "helper", &format!("echo '{}'", process_output("AKIDHELPER")));
    let role = format!("role_arn = {ROLE}\nregion = us-west-2\n");
    write_profiles(&workspace, &format!("[profile lab]\n{role}credential_process = {helper}\n"));
    let mut wait = wait(&workspace, "lab", service.address, "http://127.0.0.1:9");
    let (code, notes) = (wait.end().code(), wait.stderr());
    assert!(
        code == Some(1) && notes.contains("profile must contain `source_profile` or `credential_source`"),
        "{notes}"
    );
    assert!(service.requests().is_empty(), "no request without the role");
}

#[test]
fn fault_123_passing_failures_of_sts_do_not_end_a_wait_and_use_no_quota_of_healthomics() {
    let workspace = Workspace::new();
    write_profiles(&workspace, PROFILES);
    let service = completed();
    let sts = Service::new(|request| match request.nth {
        0 => sts_error("400 Bad Request", "Throttling"),
        1 => sts_error("503 Service Unavailable", "ServiceUnavailable"),
        2 => response("502 Bad Gateway", "", "<html>"),
        _ => assumed_role(),
    });
    let mut wait = wait(&workspace, "lab", service.address, &format!("http://{}", sts.address));
    assert_eq!(wait.end().code(), Some(0), "{}", wait.stderr());
    let notes = wait.stderr();
    for part in ["too many requests: Throttling: no", "error of the source: ServiceUnavailable: no", "HTTP 502"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    assert!(notes.contains(&format!("sts:AssumeRole on {ROLE}")) && !notes.contains("no AWS credentials"), "{notes}");
}

#[test]
fn fault_123_a_failure_of_sts_is_named_in_readiness_and_not_counted_as_healthomics_throttling() {
    let workspace = Workspace::new();
    write_profiles(&workspace, PROFILES);
    let (service, throttled) = (completed(), Arc::new(AtomicBool::new(true)));
    let now = Arc::clone(&throttled);
    let sts = Service::new(move |_| {
        if now.load(Ordering::SeqCst) { sts_error("400 Bad Request", "Throttling") } else { assumed_role() }
    });
    let text = config(&[("default", service.address, "profile = \"lab\"")], &[("default", STORE, JOB)]);
    let (_daemon, address) = daemon(&workspace, &text, &[("AWS_ENDPOINT_URL_STS", &format!("http://{}", sts.address))]);
    let reason = ready(address, 503);
    assert!(reason.contains(&format!("sts:AssumeRole on {ROLE}")) && reason.contains("too many requests"), "{reason}");
    let failed = |reason| metric(address, FAILURES, &["GetReferenceImportJob", reason]);
    assert_eq!(failed("\"throttled\""), Some(0.0));
    assert!(failed("\"credentials\"").expect("a series") >= 3.0);
    throttled.store(false, Ordering::SeqCst);
    ready(address, 200);
}

#[test]
fn fault_123_a_denied_role_is_named_with_the_action_and_ends_a_wait() {
    let workspace = Workspace::new();
    write_profiles(&workspace, PROFILES);
    let (service, sts) = (completed(), Service::new(|_| sts_error("403 Forbidden", "AccessDenied")));
    let url = format!("http://{}", sts.address);
    let role = format!("role_arn = \"{ROLE}\"");
    let targets = [("a", service.address, "profile = \"lab\""), ("b", service.address, role.as_str())];
    let text = config(&targets, &[("a", STORE, JOB), ("b", STORE, JOB)]);
    let environment =
        [("AWS_ENDPOINT_URL_STS", &*url), ("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_SECRET_ACCESS_KEY", "a")];
    let (daemon, address) = daemon(&workspace, &text, &environment);
    ready(address, 503);
    let denied = format!("sts:AssumeRole on {ROLE}: access denied: AccessDenied: no (allow it in the policy of ");
    eventually("both targets", || (daemon.stderr().matches(&denied).count() >= 2).then_some(()));
    assert_eq!(metric(address, FAILURES, &["GetReferenceImportJob", "target=\"a\"", "access_denied"]), Some(0.0));
    assert!(!daemon.stderr().contains("no AWS credentials"), "{}", daemon.stderr());

    let mut wait = wait(&workspace, "lab", service.address, &url);
    assert_eq!(wait.end().code(), Some(1), "{}", wait.stderr());
    assert!(wait.stderr().contains(&denied), "{}", wait.stderr());
}

#[test]
fn fault_123_an_unreachable_sts_is_reported_and_retried() {
    let workspace = Workspace::new();
    write_profiles(&workspace, PROFILES);
    let service = completed();
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let text = config(&[("default", service.address, "profile = \"lab\"")], &[("default", STORE, JOB)]);
    let (daemon, address) = daemon(&workspace, &text, &[("AWS_ENDPOINT_URL_STS", &format!("http://{gone}"))]);
    let reason = ready(address, 503);
    assert!(reason.contains(&format!("sts:AssumeRole on {ROLE}: no connection")), "{reason}");
    assert!(!daemon.stderr().contains("no AWS credentials"), "{}", daemon.stderr());
}

#[test]
fn fault_123_a_credential_process_that_fails_once_does_not_end_a_wait() {
    let workspace = Workspace::new();
    let text = format!("[ -e \"$0.ran\" ] || {{ : >\"$0.ran\"; exit 1; }}\necho '{}'", process_output("AKIDHELPER"));
    let helper = script(&workspace, "helper", &text);
    write_profiles(
        &workspace,
        &format!("[profile lab]\nregion = us-west-2\ncredential_process = {helper} --token=abc\n"),
    );
    let service = completed();
    let mut wait = wait(&workspace, "lab", service.address, "http://127.0.0.1:9");
    assert_eq!(wait.end().code(), Some(0), "{}", wait.stderr());
    let notes = wait.stderr();
    let failure = format!("credential_process {helper} of profile \"lab\": the process failed: exit status: 1");
    assert!(notes.contains(&failure) && !notes.contains("no AWS credentials") && !notes.contains("abc"), "{notes}");
}

#[test]
fn fault_123_output_that_is_not_the_documented_json_is_reported_without_quoting_it() {
    let workspace = Workspace::new();
    let profiles = [
        ("no-json", "echo verysecret", "is not the documented JSON: line 1, column 1"),
        ("no-version", "echo '{\"AccessKeyId\": \"verysecret\"}'", "has no \"Version\": 1"),
        ("no-secret", "echo '{\"Version\": 1, \"AccessKeyId\": \"verysecret\"}'", "has no `SecretAccessKey`"),
        ("wrong-type", "echo '{\"Version\": \"verysecret\"}'", "is not the documented JSON: line 1, column 24"),
        ("endless", "yes verysecret", "it printed more than 65536 bytes"),
        ("missing", "/no/such/program verysecret", "wrong configuration: exit status: 127"),
    ];
    let text: Vec<_> = profiles.iter().map(|(name, command, _)| (*name, script(&workspace, name, command))).collect();
    let text: String = text
        .iter()
        .map(|(name, path)| format!("[profile {name}]\ncredential_process = {path}\n"))
        .chain(["[profile missing]\ncredential_process = /no/such/program verysecret\n".to_owned()])
        .collect();
    write_profiles(&workspace, &text);
    let service = completed();
    let keys: Vec<_> = profiles.iter().map(|(name, ..)| format!("profile = \"{name}\"")).collect();
    let targets: Vec<_> =
        profiles.iter().zip(&keys).map(|((name, ..), keys)| (*name, service.address, keys.as_str())).collect();
    let jobs: Vec<_> = profiles.iter().map(|(name, ..)| (*name, STORE, JOB)).collect();
    let (daemon, _) = daemon(&workspace, &config(&targets, &jobs), &[]);
    for (name, _, problem) in profiles {
        eventually(name, || {
            let log = daemon.stderr();
            log.lines().find(|line| line.contains(&format!("profile \"{name}\"")) && line.contains(problem)).map(|_| ())
        });
    }
    assert!(!daemon.stderr().contains("verysecret"), "{}", daemon.stderr());
}

/// The processes whose command line contains `text`.
fn processes(text: &str) -> usize {
    let entries = fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}

/// A `sleep` that no other test starts.
fn own_sleep(workspace: &Workspace) -> String {
    let path = workspace.path("own-sleep");
    symlink("/bin/sleep", &path).expect("a link");
    path.to_str().expect("text").to_owned()
}

#[test]
fn fault_124_one_hanging_credential_process_runs_at_a_time_and_none_after_the_daemon() {
    let workspace = Workspace::new();
    let sleep = own_sleep(&workspace);
    // The shell stays, so that the process has a child.
    let helper = script(&workspace, "helper", &format!("{sleep} 1000\ntrue\n"));
    write_profiles(&workspace, &format!("[default]\ncredential_process = {helper}\n"));
    let service = completed();
    let jobs = ids(50);
    let entries: Vec<_> = jobs.iter().map(|id| ("default", STORE, id.as_str())).collect();
    let (mut daemon, address) = daemon(&workspace, &config(&[("default", service.address, "")], &entries), &[]);
    let mut most = 0;
    let reason = eventually("503", || {
        most = most.max(processes(&format!("{sleep}\0")));
        Some(get(address, "/-/ready")).filter(|(status, _)| *status == 503)
    })
    .1;
    assert!(reason.contains(&format!("credential_process {helper} of profile \"default\"")), "{reason}");
    assert!(reason.contains("no response in time: none within 900ms"), "{reason}");
    assert_eq!(most, 1, "processes at a time");
    eventually("a process", || (processes(&format!("{sleep}\0")) == 1).then_some(()));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().code(), Some(0), "{}", daemon.stderr());
    eventually("no process", || (processes(workspace.path("").to_str().expect("text")) == 0).then_some(()));
}

#[test]
fn fault_126_the_standard_error_of_a_credential_process_is_only_logged_and_redacted() {
    let workspace = Workspace::new();
    let errors = "cat >&2 <<'END'\nAWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIqweK7MDENGqbPxRfiCYEXAMPLEKEY\ntoken: verysecret\n\
        the vault said no\n\u{1b}[31mIQoJb3JpZ2luX2VjEXAMPLEqverysecretqIQoJb3JpZ2luX2VjEXAMPLE==\nEND\nexit 3";
    let helper = script(&workspace, "helper", errors);
    write_profiles(
        &workspace,
        &format!(
            "[profile base]\ncredential_process = {helper} verysecret\n[profile lab]\n\
        role_arn = {ROLE}\nsource_profile = base\n"
        ),
    );
    let service = completed();
    let targets = [("a", service.address, "profile = \"base\""), ("b", service.address, "profile = \"lab\"")];
    let (daemon, address) = daemon(&workspace, &config(&targets, &[("a", STORE, JOB), ("b", STORE, JOB)]), &[]);
    let reason = ready(address, 503);
    assert!(reason.contains("of profile \"base\": the process failed: exit status: 3"), "{reason}");
    let log = daemon.log_with("event=\"credential_process_failed\"");
    assert!(log.contains("the vault said no"), "{log}");
    let mut shown = vec![log];
    shown.extend(["/-/ready", "/", "/api/v1/jobs", "/metrics"].map(|path| get(address, path).1));
    for (nth, text) in shown.iter().enumerate() {
        assert!(!text.contains("verysecret") && !text.contains("EXAMPLE"), "{text}");
        assert!(nth == 0 || !text.contains("the vault said no"), "{text}");
    }
}
