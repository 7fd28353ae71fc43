//! Faults 31, 32 and 38 to 41: where credentials come from, and that they do not come.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::identity::{FAILURES, assert_paced, ids, ready};
use super::service::{JOB, STORE, Service, config, credentials, daemon, job, refusal};
use crate::process::{Scene, eventually, get, metric};
use crate::truth::transitions;

#[test]
fn fault_031_expired_credentials_are_fetched_anew_at_once_and_then_at_the_backoffs_pace() {
    let scene = Scene::new();
    let endpoint = Service::new(|asked| credentials(&format!("AKID{}", asked.nth), Duration::from_hours(1)));
    let good_from = Arc::new(AtomicUsize::new(1));
    let good = Arc::clone(&good_from);
    let service = Service::new(move |asked| {
        let key: usize = asked.key().trim_start_matches("AKID").parse().expect("a number");
        if key < good.load(Ordering::SeqCst) { refusal(403, "ExpiredTokenException") } else { job(asked, &json!({})) }
    });
    let jobs = ids(20);
    let entries: Vec<_> = jobs.iter().map(|id| ("default", STORE, id.as_str())).collect();
    let uri = format!("http://{}/", endpoint.address);
    let text = config(&[("default", service.address, "")], &entries);
    let (daemon, address) = daemon(&scene, &text, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)]);
    let database = scene.path("refwatch.db");
    eventually("every job", || (transitions(&database).len() == jobs.len()).then_some(()));
    assert_eq!(endpoint.asked().len(), 2, "those that were refused, and others");
    assert!(daemon.stderr().contains("ExpiredTokenException: no (renew the credentials"), "{}", daemon.stderr());
    assert_eq!(get(address, "/-/ready").0, 200);

    good_from.store(usize::MAX, Ordering::SeqCst);
    let reason = ready(address, 503);
    assert!(reason.contains("renew the credentials"), "{reason}");
    let so_far = service.asked().len();
    assert_paced(so_far, || service.asked());
    let keys: BTreeSet<String> = service.asked()[so_far..].iter().map(|asked| asked.key().to_owned()).collect();
    assert_eq!(keys.len(), service.asked().len() - so_far, "each probe has credentials of its own");
    good_from.store(0, Ordering::SeqCst);
    ready(address, 200);
    let log = daemon.stderr();
    assert!(log.contains("event=\"identity_refused\"") && log.contains("event=\"identity_accepted\""), "{log}");
}

#[test]
fn fault_032_credentials_that_expire_between_two_polls_are_fetched_anew_before_they_do() {
    let scene = Scene::new();
    // The SDK fetches new ones ten seconds before the end.
    let endpoint = Service::new(|asked| credentials(&format!("AKID{}", asked.nth), Duration::from_secs(11)));
    let service = Service::new(|asked| job(asked, &json!({})));
    let uri = format!("http://{}/", endpoint.address);
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let (_daemon, address) = daemon(&scene, &text, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)]);
    eventually("the third credentials", || service.asked().iter().find(|asked| asked.key() == "AKID2").map(|_| ()));
    assert!(service.asked().len() > endpoint.asked().len(), "they are kept for as long as they are good");
    assert_eq!(metric(address, FAILURES, &["GetReferenceImportJob", "credentials"]), Some(0.0));
}

#[test]
fn fault_038_039_credentials_that_hang_end_at_the_attempts_deadline_and_other_targets_go_on() {
    let scene = Scene::new();
    let (service, silent) = (Service::new(|asked| job(asked, &json!({}))), Service::silent());
    fs::create_dir_all(scene.path(".aws/sso/cache")).expect("a folder");
    let start =
        "sso_start_url = https://example.awsapps.com/start\nsso_region = us-west-2\nsso_account_id = 123456789012\n";
    scene.write(
        ".aws/config",
        &format!(
            "[profile static]\naws_access_key_id = AKIDSTATIC\naws_secret_access_key = secret\n\
            [profile instance]\nrole_arn = arn:aws:iam::123456789012:role/a\ncredential_source = Ec2InstanceMetadata\n\
            [profile process]\ncredential_process = /bin/sleep 5\n\
            [profile sso]\n{start}sso_role_name = a\n",
        ),
    );
    scene.write(SSO_TOKEN, &sso_token("2099-01-01T00:00:00Z"));
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
    let (_daemon, address) = daemon(&scene, &text, &environment);
    for profile in &profiles[1..] {
        eventually("two ends at the deadline", || {
            let target = format!("target=\"{profile}\"");
            let failed = |reason| metric(address, FAILURES, &["GetReferenceImportJob", &target, reason]);
            (failed("timeout")? + failed("credentials")? >= 2.0).then_some(())
        });
    }
    assert!(service.asked().iter().all(|asked| asked.key() == "AKIDSTATIC"));
    service.wait_for(20);
    assert_eq!(transitions(&scene.path("refwatch.db")).len(), 1);
    let silent = silent.asked();
    for path in ["PUT /latest/api/token", "GET / ", "GET /federation/credentials"] {
        assert!(silent.iter().any(|asked| asked.head.starts_with(path)), "{path}: {silent:?}");
    }
}

/// Where the token of `https://example.awsapps.com/start` is: the SHA-1 of that.
const SSO_TOKEN: &str = ".aws/sso/cache/e8be5486177c5b5392bd9aa76563515b29358e6e.json";

/// That of the session `work`.
const SSO_SESSION_TOKEN: &str = ".aws/sso/cache/e274eeff768c6396088ec6eb091f4bf4d47ab1e0.json";

fn sso_token(until: &str) -> String {
    json!({"accessToken": "token", "expiresAt": until, "region": "us-west-2", "startUrl": "https://example.awsapps.com/start"})
        .to_string()
}

#[test]
fn fault_040_an_sso_session_that_expired_is_told_with_the_login_to_run() {
    let scene = Scene::new();
    let service = Service::new(|asked| job(asked, &json!({})));
    let portal = Service::new(|_| refusal(401, "UnauthorizedException"));
    fs::create_dir_all(scene.path(".aws/sso/cache")).expect("a folder");
    let role = "sso_account_id = 123456789012\nsso_role_name = a\n";
    let start = "sso_start_url = https://example.awsapps.com/start\nsso_region = us-west-2\n";
    let session = format!("[sso-session work]\n{start}[profile session]\nsso_session = work\n{role}");
    scene.write(".aws/config", &format!("{session}[profile legacy]\n{start}{role}"));
    // The one says itself that it has expired, the other is told so.
    scene.write(SSO_SESSION_TOKEN, &sso_token("2020-01-01T00:00:00Z"));
    scene.write(SSO_TOKEN, &sso_token("2099-01-01T00:00:00Z"));
    let targets = [("a", service.address, "profile = \"session\""), ("b", service.address, "profile = \"legacy\"")];
    let text = config(&targets, &[("a", STORE, JOB), ("b", STORE, JOB)]);
    let uri = format!("http://{}", portal.address);
    let (daemon, address) =
        daemon(&scene, &text, &[("AWS_ENDPOINT_URL_SSO", &uri), ("AWS_ENDPOINT_URL_SSO_OIDC", &uri)]);
    ready(address, 503);
    for profile in ["session", "legacy"] {
        eventually(profile, || {
            let login = format!("(run `aws sso login --profile {profile}`)");
            (daemon.stderr().contains(&login) && get(address, "/").1.contains(&login)).then_some(())
        });
    }
    assert_eq!(service.asked().len(), 0);
}

#[test]
fn fault_041_without_credentials_it_starts_serves_and_says_what_it_waits_for() {
    let scene = Scene::new();
    let service = Service::new(|asked| job(asked, &json!({})));
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let (daemon, address) = daemon(&scene, &text, &[]);
    let reason = ready(address, 503);
    let why = "no AWS credentials; give the service an instance role, a profile, or the environment";
    assert!(reason.contains(why) && daemon.stderr().contains(why) && get(address, "/").1.contains(why), "{reason}");
    assert_eq!(get(address, "/-/healthy").0, 200);
    assert_eq!(service.asked().len(), 0);
    fs::create_dir(scene.path(".aws")).expect("a folder");
    scene.write(".aws/credentials", "[default]\naws_access_key_id = AKIDLATE\naws_secret_access_key = secret\n");
    ready(address, 200);
    assert_eq!(service.asked()[0].key(), "AKIDLATE");
}
