//! Faults that make the AWS SDK panic.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use refwatch::clock::Clock;
use serde_json::json;

use super::identity::FAILURES;
use super::service::{JOB, STORE, Service, config, daemon, job, response};
use crate::process::{Workspace, eventually, get, metric};

/// More than the polls of a job whose task is restarted five times and then given up.
const MANY: f64 = 8.0;

#[test]
fn fault_122_a_panic_while_a_request_is_signed_is_a_failed_poll_and_corrected_credentials_are_used() {
    let workspace = Workspace::new();
    let service = Service::new(|request| job(request, &json!({})));
    fs::create_dir(workspace.path(".aws")).expect("a directory");
    let keys = |key: &str| format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n");
    // The SDK writes the key to a header, which allows no control character.
    workspace.write(".aws/credentials", &keys("AKID\u{1}BAD"));
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let (daemon, address) = daemon(&workspace, &text, &[]);
    eventually("failed polls", || {
        let failures = ["internal", "credentials"]
            .map(|reason| metric(address, FAILURES, &["GetReferenceImportJob", &format!("reason=\"{reason}\"")]));
        (failures.iter().flatten().sum::<f64>() >= MANY).then_some(())
    });
    assert_eq!(metric(address, "refwatch_watches", &["live"]), Some(1.0), "{}", daemon.stderr());
    assert_eq!(metric(address, "refwatch_task_restarts_total", &[]), Some(0.0));
    assert_eq!(service.requests().len(), 0);
    assert!(get(address, "/").1.contains("access key"), "{}", daemon.stderr());

    workspace.write(".aws/credentials", &keys("AKIDGOOD"));
    eventually("a successful poll", || metric(address, "refwatch_job_up", &[]).filter(|up| *up >= 1.0));
    assert_eq!(service.requests()[0].key(), "AKIDGOOD");
}

#[test]
fn fault_122_a_page_token_that_is_too_long_is_a_failed_listing_and_not_sent() {
    let workspace = Workspace::new();
    let long = Arc::new(AtomicBool::new(true));
    let is_long = Arc::clone(&long);
    let service = Service::new(move |request| {
        if !request.head.starts_with("POST") {
            return job(request, &json!({}));
        }
        let listed = json!({"id": JOB, "referenceStoreId": STORE, "status": "IN_PROGRESS",
            "creationTime": Clock::system().now().wall.to_string(), "roleArn": "arn:aws:iam::123456789012:role/omics"});
        // A URI of the SDK's HTTP library has at most 65,534 bytes.
        let token = is_long.load(Ordering::SeqCst).then(|| "t".repeat(70_000));
        response("200 OK", "", &json!({"importJobs": [listed], "nextToken": token}).to_string())
    });
    let text = config(&[("default", service.address, "")], &[]);
    let text = format!("{text}[[store]]\nreference_store_id = \"{STORE}\"\n");
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &text));
    let failures = || metric(address, FAILURES, &["ListReferenceImportJobs", "reason=\"protocol\""]);
    eventually("a failed listing", || failures().filter(|failures| *failures >= 1.0));
    long.store(false, Ordering::SeqCst);
    eventually("the discovered job", || (metric(address, "refwatch_watches", &["live"]) == Some(1.0)).then_some(()));
    assert_eq!(metric(address, "refwatch_task_restarts_total", &[]), Some(0.0), "{}", daemon.stderr());
    assert!(service.requests().iter().all(|request| !request.head.contains("nextToken=")));
}
