//! Faults of listings: page tokens that a listing must not follow for ever.

use refwatch::clock::Clock;
use serde_json::json;

use super::service::{JOB, STORE, Service, config, job, response};
use crate::process::{Workspace, eventually, metric};

/// Jobs of the second page. The first page has `JOB`.
const SECOND: &str = "2222222222";

#[test]
fn fault_117_a_listing_ends_at_an_empty_or_repeated_page_token() {
    for token in ["", "same"] {
        let workspace = Workspace::new();
        let service = Service::new(move |request| {
            if !request.head.starts_with("POST") {
                return job(request, &json!({"status": "IN_PROGRESS"}));
            }
            let id = if request.head.contains("nextToken=") { SECOND } else { JOB };
            let listed = json!({"id": id, "referenceStoreId": STORE, "status": "IN_PROGRESS",
                "creationTime": Clock::system().now().wall.to_string(), "roleArn": "arn:aws:iam::123456789012:role/omics"});
            response("200 OK", "", &json!({"importJobs": [listed], "nextToken": token}).to_string())
        });
        let text = config(&[("default", service.address, "")], &[]);
        let text = format!("{text}[[store]]\nreference_store_id = \"{STORE}\"\n");
        let (_daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &text));
        let jobs = if token.is_empty() { 1.0 } else { 2.0 };
        eventually("the jobs", || (metric(address, "refwatch_watches", &["live"]) == Some(jobs)).then_some(()));
        let pages = |next: bool| {
            let requests = service.requests();
            let pages = requests.iter().filter(|request| request.head.starts_with("POST"));
            pages.filter(|request| request.head.contains("nextToken=") == next).count()
        };
        eventually("three listings", || (pages(false) >= 3).then_some(()));
        let further_pages = if token.is_empty() { 0 } else { pages(false) };
        assert!(pages(true) <= further_pages, "{token:?}: {} pages after the first", pages(true));
    }
}
