//! Fault 149: `--config` where no configuration is read, and advice about a configuration that is not used.

use super::service::{JOB, STORE, Service, refusal, response};
use crate::process::Workspace;

#[test]
fn fault_149_config_is_rejected_by_each_command_that_reads_no_configuration() {
    let workspace = Workspace::new();
    let file = workspace.write("refwatch.toml", "[http]\nlisten = \"127.0.0.1:0\"\n");
    let (file, job) = (file.to_str().expect("text"), format!("{STORE}/{JOB}"));
    for command in [&["wait", &job][..], &["demo"], &["simulate"], &["schema"], &["completions", "bash"], &["man"]] {
        for arguments in [[&["--config", file], command].concat(), [command, &["--config", file]].concat()] {
            let (status, shown, error) = workspace.run(&arguments);
            assert_eq!((status, shown.as_str()), (64, ""), "{arguments:?}: {error}");
            assert!(error.contains(&format!("{} reads no configuration", command[0])), "{arguments:?}: {error}");
        }
        let help = workspace.run(&[command[0], "--help"]).1;
        assert!(!help.contains("--config "), "{help}");
        let mut with_variable = workspace.refwatch(&[command[0], "--help"]);
        with_variable.env("REFWATCH_CONFIG", file);
        assert!(workspace.spawn(with_variable).end().success(), "{command:?}");
    }
    // The variable is for all commands.
    let mut schema = workspace.refwatch(&["schema"]);
    schema.env("REFWATCH_CONFIG", file);
    assert!(workspace.spawn(schema).end().success());
    for arguments in [["--config", file, "check"], ["check", "--config", file]] {
        assert_eq!(workspace.run(&arguments).0, 0);
    }
    let mut check = workspace.refwatch(&["check"]);
    check.env("REFWATCH_CONFIG", workspace.path("missing.toml"));
    assert_eq!(workspace.spawn(check).end().code(), Some(78));
    for command in ["run", "check", "status", "add", "reload", "history"] {
        let help = workspace.run(&[command, "--help"]).1;
        assert!(help.contains("--config <FILE>"), "{help}");
    }
}

#[test]
fn fault_149_wait_never_advises_to_edit_a_configuration() {
    let workspace = Workspace::new();
    let job = format!("{STORE}/{JOB}");
    let run = |service: &Service, more: &[&str]| {
        let endpoint = format!("http://{}", service.address);
        let arguments = [&["wait", "--timeout", "2s", "--endpoint-url", &endpoint, &job], more].concat();
        let (_, _, error) = workspace.run(&arguments);
        for word in ["[target", "refwatch.toml", "poll.timeout", "the target", "entry", "endpoint_url", "reload"] {
            assert!(!error.contains(word), "{word}: {error}");
        }
        error
    };
    let error = run(&Service::silent(), &[]);
    assert!(error.contains("--region") && error.contains("AWS_REGION"), "{error}");
    for code in [
        "AccessDeniedException",
        "ResourceNotFoundException",
        "ValidationException",
        "UnrecognizedClientException",
        "ExpiredTokenException",
        "SignatureDoesNotMatch",
        "ThrottlingException",
    ] {
        let status = if code == "ThrottlingException" { 429 } else { 400 };
        run(&Service::new(move |_| refusal(status, code)), &["--region", "us-west-2"]);
    }
    let login = Service::new(|_| response("302 Found", "Location: https://login.example\r\n", "<html>"));
    run(&login, &["--region", "us-west-2"]);
}
