//! Faults 125, 126 and 140: AWS's environment variables that are malformed, that contain a password, or that name no region.

use std::process::Command;

use serde_json::json;

use super::service::{JOB, STORE, Service, config, job, refusal, response};
use crate::process::{Process, Workspace, eventually, get, json as get_json, metric};

/// A job in `us-west-2`. Its requests are sent to this machine.
fn with_region() -> String {
    config(&[("default", ([127, 0, 0, 1], 1).into(), "")], &[("default", STORE, JOB)])
}

fn without_region(keys: &str) -> String {
    with_region().replace("region = \"us-west-2\"\n", keys)
}

fn refwatch(workspace: &Workspace, text: &str, command: &str, environment: &[(&str, &str)]) -> Command {
    let file = workspace.write("refwatch.toml", text);
    let mut command = workspace.refwatch(&["--config", file.to_str().expect("text"), command]);
    command.envs(environment.iter().copied());
    command
}

/// `check` and `run` end with 78, have no effect, and print the same error; `check` adds its summary. Returns the error.
#[track_caller]
fn rejected(workspace: &Workspace, text: &str, environment: &[(&str, &str)]) -> String {
    let errors = ["check", "run"].map(|command| {
        let mut process = workspace.spawn(refwatch(workspace, text, command, environment));
        let status = process.end().code();
        let error = process.stderr();
        assert_eq!(status, Some(78), "{command} with {environment:?}: {error}");
        error
    });
    let summary = errors[0].strip_prefix(&*errors[1]).unwrap_or_else(|| panic!("{environment:?}: {errors:?}"));
    assert!(summary.ends_with(" problem\n") || summary.ends_with(" problems\n"), "{environment:?}: {errors:?}");
    assert!(!workspace.path("refwatch.db").exists(), "no database is created");
    errors[1].clone()
}

#[track_caller]
fn accepted(workspace: &Workspace, text: &str, environment: &[(&str, &str)]) {
    let mut check = workspace.spawn(refwatch(workspace, text, "check", environment));
    assert!(check.end().success(), "{environment:?}: {}", check.stderr());
    workspace.spawn(refwatch(workspace, text, "run", environment)).address();
    std::fs::remove_file(workspace.path("refwatch.db")).expect("a database");
}

#[test]
fn fault_125_malformed_variables_of_aws_are_rejected_with_their_names() {
    let workspace = Workspace::new();
    let (no_region, region) = (without_region(""), with_region());
    for value in
        ["us-west-2\r", "us-west-2\n", " us-west-2", "\"us-west-2\"", "'us-west-2'", "us west", "us-west-2/", ""]
    {
        for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
            let error = rejected(&workspace, &no_region, &[(name, value)]);
            assert!(error.contains(&format!("{name} must be a region such as us-west-2")), "{value:?}: {error}");
            // The file's region counts.
            accepted(&workspace, &region, &[(name, value)]);
        }
    }
    for (name, value) in [
        ("AWS_ENDPOINT_URL", "127.0.0.1:4566"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:4566\r"),
        ("AWS_ENDPOINT_URL_OMICS", "\"http://127.0.0.1:4566\""),
        ("AWS_ENDPOINT_URL_OMICS", ""),
        ("AWS_ENDPOINT_URL_STS", "http//sts.example"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials\n"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "v2/credentials"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "169.254.169.254"),
        ("AWS_EC2_METADATA_DISABLED", "true\r"),
        ("AWS_PROFILE", "lab\r"),
        ("AWS_CONFIG_FILE", "\"/etc/refwatch/aws\""),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token\r"),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/lab\r"),
    ] {
        let error = rejected(&workspace, &region, &[(name, value)]);
        assert!(error.contains(&format!("{name} must be ")) && error.lines().count() == 1, "{value:?}: {error}");
    }
    accepted(&workspace, &no_region, &[("AWS_REGION", "us-west-2"), ("AWS_DEFAULT_REGION", "us west")]);
    accepted(&workspace, &region, &[("AWS_ENDPOINT_URL", "http://127.0.0.1:4566"), ("AWS_PROFILE", "lab")]);
}

#[test]
fn fault_125_malformed_values_of_an_aws_profile_are_rejected() {
    let workspace = Workspace::new();
    std::fs::create_dir(workspace.path(".aws")).expect("a directory");
    let profile = |keys: &str| workspace.write(".aws/config", &format!("[profile lab]\n{keys}\n"));
    profile("region = \"us-west-2\"");
    for (keys, environment) in [("", [("AWS_PROFILE", "lab")].as_slice()), ("profile = \"lab\"\n", &[])] {
        let error = rejected(&workspace, &without_region(keys), environment);
        assert!(
            error.contains("the region of the AWS profile or of the instance must be a region such as us-west-2"),
            "{error}"
        );
    }
    profile("region = us-west-2\nendpoint_url = https://ada:hunter2@aws.example");
    let error = rejected(
        &workspace,
        &without_region("").replace("endpoint_url = \"http://127.0.0.1:1\"\n", ""),
        &[("AWS_PROFILE", "lab")],
    );
    assert!(error.contains("`endpoint_url` of the AWS profile must be a URL") && !error.contains("hunter2"), "{error}");
    profile("region = us-west-2");
    accepted(&workspace, &without_region("profile = \"lab\"\n"), &[]);
}

#[test]
fn fault_125_wait_checks_its_options_and_the_environment() {
    let workspace = Workspace::new();
    for (arguments, environment, expected) in [
        (["--region", "us west"], [].as_slice(), 64),
        (["--region", "us-west-2\r"], &[], 64),
        (["--profile", ""], &[], 64),
        (["--endpoint-url", "http://127.0.0.1:1"], &[("AWS_REGION", "us-west-2\r")], 78),
    ] {
        let mut command = workspace.refwatch(&["wait", "1234567890/9876543210"]);
        command.args(arguments).envs(environment.iter().copied());
        let mut wait = workspace.spawn(command);
        assert_eq!(wait.end().code(), Some(expected), "{arguments:?}: {}", wait.stderr());
    }
}

#[test]
fn fault_140_a_target_without_a_region_is_rejected_by_check_and_run() {
    let workspace = Workspace::new();
    let text = without_region("");
    let error = rejected(&workspace, &text, &[]);
    assert!(error.contains("target \"default\" has no AWS region: set `region` in [target.default]"), "{error}");
    let silent = Service::new(|_| response("503 Service Unavailable", "", ""));
    let url = format!("http://{}", silent.address);
    let environment = [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*url)];
    let error = rejected(&workspace, &text, &environment);
    assert!(
        error.contains("has no AWS region") && error.contains("the instance metadata service names none"),
        "{error}"
    );

    let metadata = Service::new(|request| match request.head.split(' ').nth(1) {
        Some("/latest/api/token") => response("200 OK", "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n", "token"),
        Some("/latest/meta-data/placement/region") => response("200 OK", "", "eu-central-1"),
        _ => response("404 Not Found", "", ""),
    });
    let url = format!("http://{}", metadata.address);
    accepted(&workspace, &text, &[environment[0], ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url)]);
    // No request is sent through a target that has no job.
    accepted(&workspace, "database.path = \"refwatch.db\"\nhttp.listen = \"127.0.0.1:0\"\n[target.eu]\n", &[]);
}

#[test]
fn fault_140_a_reload_to_a_target_without_a_region_is_rejected_before_any_task_is_stopped() {
    let workspace = Workspace::new();
    let service = Service::new(|request| job(request, &json!({})));
    let text = |jobs: &[_]| config(&[("default", service.address, "")], jobs);
    let file = workspace.write("refwatch.toml", &text(&[("default", STORE, JOB)]));
    let (daemon, address) = workspace.daemon(&file);
    service.wait_for(1);
    // The new file has another job, which cannot be watched.
    let other = "[target.eu]\n[[job]]\ntarget = \"eu\"\nreference_store_id = \"1234567890\"\nid = \"1000000001\"\n";
    workspace.write("refwatch.toml", &(text(&[]) + other));
    eventually("the failed reload", || daemon.stderr().contains("event=\"reload_failed\"").then_some(()));
    assert!(get(address, "/").1.contains("has no AWS region"));
    assert_eq!(metric(address, "refwatch_watches", &["live"]), Some(1.0));
    service.wait_for(service.requests().len() + 2);
}

/// All that the daemon and its commands show.
fn shown(daemon: &Process, address: std::net::SocketAddr) -> [(&'static str, String); 5] {
    let api = |path: &str| get_json(address, path).to_string();
    [
        ("log", daemon.stderr()),
        ("page", get(address, "/").1),
        ("readiness", get(address, "/-/ready").1),
        ("configuration", get(address, "/config").1),
        ("API", api("/api/v1/jobs") + &api("/api/v1/daemon")),
    ]
}

#[test]
fn fault_126_no_url_is_shown_with_its_user_and_password() {
    let workspace = Workspace::new();
    let region = with_region();
    for url in [
        "https://ada:hunter2@aws.example:x/",
        "https://ada:hunter2@",
        "https://ada:hunter2@aws.example",
        "ada:hunter2@aws.example",
        "https://hunter2@aws.example?a=hunter2 b",
    ] {
        for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_OMICS", "AWS_CONTAINER_CREDENTIALS_FULL_URI"] {
            let error = rejected(&workspace, &region, &[(name, url)]);
            assert!(error.contains(name) && !error.contains("hunter2"), "{error}");
        }
        let mut wait = workspace.start(&["wait", "1234567890/9876543210", "--endpoint-url", url]);
        assert_eq!(wait.end().code(), Some(64));
        assert!(!wait.stderr().contains("hunter2"), "{}", wait.stderr());
    }

    // The service and the proxy quote URLs.
    let quotes = r#"{"message": "cannot reach postgres+tls://ada:hunter2@db.example/x or HTTPS://hunter2@b.example"}"#;
    let service = Service::new(move |_| response("400 No", "x-amzn-errortype: ValidationException\r\n", quotes));
    let proxied = Service::new(|_| refusal(500, "InternalServerException"));
    let text = config(
        &[
            ("default", service.address, ""),
            (
                "proxied",
                ([192, 0, 2, 1], 80).into(),
                "external_id = \"hunter2\"\nrole_arn = \"arn:aws:iam::123456789012:role/lab\"\n",
            ),
        ],
        &[("default", STORE, JOB), ("proxied", STORE, JOB)],
    );
    let proxy = format!("http://ada:hunter2@{}", proxied.address);
    let environment =
        [("HTTPS_PROXY", &*proxy), ("NO_PROXY", "127.0.0.1"), ("AWS_ENDPOINT_URL_STS", "https://sts.example")];
    let daemon = workspace.spawn(refwatch(&workspace, &text, "run", &environment));
    let address = daemon.address();
    eventually("two failures", || (daemon.stderr().matches("event=\"poll_failed\"").count() >= 2).then_some(()));
    for (place, shown) in shown(&daemon, address) {
        assert!(!shown.contains("hunter2"), "{place}: {shown}");
    }
    daemon.log_with("postgres+tls://[redacted]@db.example/x");
}
