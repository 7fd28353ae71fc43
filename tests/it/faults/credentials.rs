//! Faults 31, 32 and 38 to 41: sources of credentials that fail, expire or hang.
//!
//! Scripted services stand in for HealthOmics, the container endpoint, the metadata service and the SSO portal.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::identity::{FAILURES, assert_paced, ids, ready};
use super::service::{JOB, STORE, Service, config, credentials, daemon, job, refusal};
use crate::process::{Workspace, eventually, get, metric};
use crate::transition_rows::transitions;

#[test]
fn fault_031_expired_credentials_are_refreshed_at_once_and_then_with_backoff() {
    let workspace = Workspace::new();
    let endpoint = Service::new(|request| credentials(&format!("AKID{}", request.nth), Duration::from_hours(1)));
    let good_from = Arc::new(AtomicUsize::new(1));
    let good = Arc::clone(&good_from);
    let service = Service::new(move |request| {
        let key: usize = request.key().trim_start_matches("AKID").parse().expect("a number");
        if key < good.load(Ordering::SeqCst) { refusal(403, "ExpiredTokenException") } else { job(request, &json!({})) }
    });
    let jobs = ids(20);
    let entries: Vec<_> = jobs.iter().map(|id| ("default", STORE, id.as_str())).collect();
    let uri = format!("http://{}/", endpoint.address);
    let text = config(&[("default", service.address, "")], &entries);
    let (daemon, address) = daemon(&workspace, &text, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)]);
    let database = workspace.path("refwatch.db");
    eventually("every job", || (transitions(&database).len() == jobs.len()).then_some(()));
    assert_eq!(endpoint.requests().len(), 2, "the rejected credentials and new ones");
    assert!(daemon.stderr().contains("ExpiredTokenException: no (renew the credentials"), "{}", daemon.stderr());
    assert_eq!(get(address, "/-/ready").0, 200);

    good_from.store(usize::MAX, Ordering::SeqCst);
    let reason = ready(address, 503);
    assert!(reason.contains("renew the credentials"), "{reason}");
    let before = service.requests().len();
    assert_paced(before, || service.requests());
    let keys: BTreeSet<String> = service.requests()[before..].iter().map(|request| request.key().to_owned()).collect();
    assert_eq!(keys.len(), service.requests().len() - before, "each probe uses new credentials");
    good_from.store(0, Ordering::SeqCst);
    ready(address, 200);
    let log = daemon.log_with("event=\"credentials_accepted\"");
    assert!(log.contains("event=\"credentials_rejected\""), "{log}");
}

#[test]
fn fault_032_credentials_are_refreshed_before_they_expire() {
    let workspace = Workspace::new();
    // The SDK refreshes credentials ten seconds before they expire.
    let endpoint = Service::new(|request| credentials(&format!("AKID{}", request.nth), Duration::from_secs(11)));
    let service = Service::new(|request| job(request, &json!({})));
    let uri = format!("http://{}/", endpoint.address);
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let (_daemon, address) = daemon(&workspace, &text, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)]);
    eventually("the third credentials", || {
        service.requests().iter().find(|request| request.key() == "AKID2").map(|_| ())
    });
    assert!(service.requests().len() > endpoint.requests().len(), "valid credentials are reused");
    assert_eq!(metric(address, FAILURES, &["GetReferenceImportJob", "credentials"]), Some(0.0));
}

#[test]
fn fault_038_039_hanging_credential_providers_fail_at_the_deadline_and_other_targets_continue() {
    let workspace = Workspace::new();
    let (service, silent) = (Service::new(|request| job(request, &json!({}))), Service::silent());
    fs::create_dir_all(workspace.path(".aws/sso/cache")).expect("a directory");
    let start =
        "sso_start_url = https://example.awsapps.com/start\nsso_region = us-west-2\nsso_account_id = 123456789012\n";
    workspace.write(
        ".aws/config",
        &format!(
            "[profile static]\naws_access_key_id = AKIDSTATIC\naws_secret_access_key = secret\n\
            [profile instance]\nrole_arn = arn:aws:iam::123456789012:role/a\ncredential_source = Ec2InstanceMetadata\n\
            [profile process]\ncredential_process = /bin/sleep 5\n\
            [profile sso]\n{start}sso_role_name = a\n",
        ),
    );
    workspace.write(SSO_TOKEN, &sso_token("2099-01-01T00:00:00Z"));
    let profiles = ["static", "instance", "process", "sso", "container"];
    let keys = profiles.map(|name| if name == "container" { String::new() } else { format!("profile = \"{name}\"") });
    let targets: Vec<_> =
        profiles.iter().zip(&keys).map(|(name, keys)| (*name, service.address, keys.as_str())).collect();
    let text = config(&targets, &profiles.map(|name| (name, STORE, JOB)));
    let uri = format!("http://{}", silent.address);
    let environment = [
        ("AWS_EC2_METADATA_DISABLED", "false"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*uri),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*uri),
        ("AWS_ENDPOINT_URL_SSO", &*uri),
    ];
    let (_daemon, address) = daemon(&workspace, &text, &environment);
    for profile in &profiles[1..] {
        eventually("two failures at the deadline", || {
            let target = format!("target=\"{profile}\"");
            let failed = |reason| metric(address, FAILURES, &["GetReferenceImportJob", &target, reason]);
            (failed("timeout")? + failed("credentials")? >= 2.0).then_some(())
        });
    }
    assert!(service.requests().iter().all(|request| request.key() == "AKIDSTATIC"));
    service.wait_for(20);
    assert_eq!(transitions(&workspace.path("refwatch.db")).len(), 1);
    let silent = silent.requests();
    for path in ["PUT /latest/api/token", "GET / ", "GET /federation/credentials"] {
        assert!(silent.iter().any(|request| request.head.starts_with(path)), "{path}: {silent:?}");
    }
}

/// The cached token for `https://example.awsapps.com/start`; the name is the SHA-1 of the URL.
const SSO_TOKEN: &str = ".aws/sso/cache/e8be5486177c5b5392bd9aa76563515b29358e6e.json";

/// The cached token of the session `work`.
const SSO_SESSION_TOKEN: &str = ".aws/sso/cache/e274eeff768c6396088ec6eb091f4bf4d47ab1e0.json";

fn sso_token(until: &str) -> String {
    json!({"accessToken": "token", "expiresAt": until, "region": "us-west-2", "startUrl": "https://example.awsapps.com/start"})
        .to_string()
}

#[test]
fn fault_040_an_expired_sso_session_is_reported_with_the_login_command() {
    let workspace = Workspace::new();
    let service = Service::new(|request| job(request, &json!({})));
    let portal = Service::new(|_| refusal(401, "UnauthorizedException"));
    fs::create_dir_all(workspace.path(".aws/sso/cache")).expect("a directory");
    let role = "sso_account_id = 123456789012\nsso_role_name = a\n";
    let start = "sso_start_url = https://example.awsapps.com/start\nsso_region = us-west-2\n";
    let session = format!("[sso-session work]\n{start}[profile session]\nsso_session = work\n{role}");
    workspace.write(".aws/config", &format!("{session}[profile legacy]\n{start}{role}"));
    // The first token is expired by its own date, the portal rejects the second.
    workspace.write(SSO_SESSION_TOKEN, &sso_token("2020-01-01T00:00:00Z"));
    workspace.write(SSO_TOKEN, &sso_token("2099-01-01T00:00:00Z"));
    let targets = [("a", service.address, "profile = \"session\""), ("b", service.address, "profile = \"legacy\"")];
    let text = config(&targets, &[("a", STORE, JOB), ("b", STORE, JOB)]);
    let uri = format!("http://{}", portal.address);
    let (daemon, address) =
        daemon(&workspace, &text, &[("AWS_ENDPOINT_URL_SSO", &uri), ("AWS_ENDPOINT_URL_SSO_OIDC", &uri)]);
    ready(address, 503);
    for profile in ["session", "legacy"] {
        eventually(profile, || {
            let login = format!("(run `aws sso login --profile {profile}`)");
            (daemon.stderr().contains(&login) && get(address, "/").1.contains(&login)).then_some(())
        });
    }
    assert_eq!(service.requests().len(), 0);
}

#[test]
fn a_web_identity_that_overrides_sso_fails_without_advice_to_log_in_with_sso() {
    let workspace = Workspace::new();
    let service = Service::new(|request| job(request, &json!({})));
    fs::create_dir(workspace.path(".aws")).expect("a directory");
    let sso = "sso_start_url = https://example.awsapps.com/start\nsso_region = us-west-2\nsso_account_id = 123456789012\nsso_role_name = a\n";
    let web_identity = "role_arn = arn:aws:iam::123456789012:role/a\nweb_identity_token_file = /missing/token\n";
    workspace.write(".aws/config", &format!("[profile web]\n{sso}{web_identity}"));
    let text = config(&[("default", service.address, "profile = \"web\"")], &[("default", STORE, JOB)]);
    let (_daemon, address) = daemon(&workspace, &text, &[]);
    let reason = ready(address, 503);
    assert!(reason.contains("cannot get credentials: profile \"web\"") && !reason.contains("sso login"), "{reason}");
}

#[test]
fn fault_041_without_credentials_the_daemon_starts_and_reports_what_is_missing() {
    let workspace = Workspace::new();
    let service = Service::new(|request| job(request, &json!({})));
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let (daemon, address) = daemon(&workspace, &text, &[]);
    let reason = ready(address, 503);
    let why = "no AWS credentials; give refwatch an instance role, a profile, or environment variables";
    assert!(reason.contains(why) && daemon.stderr().contains(why) && get(address, "/").1.contains(why), "{reason}");
    assert_eq!(get(address, "/-/healthy").0, 200);
    assert_eq!(service.requests().len(), 0);
    fs::create_dir(workspace.path(".aws")).expect("a directory");
    workspace.write(".aws/credentials", "[default]\naws_access_key_id = AKIDLATE\naws_secret_access_key = secret\n");
    ready(address, 200);
    assert_eq!(service.requests()[0].key(), "AKIDLATE");
}
