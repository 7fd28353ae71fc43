//! Faults of listings: page tokens that a listing must not follow for ever, unreadable jobs, and more pages than are read at once.

use refwatch::clock::Clock;
use serde_json::{Value, json};

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

/// A job of a listing. `members` replace its members.
fn listed(id: &str, members: &Value) -> Value {
    let mut job = json!({"id": id, "referenceStoreId": STORE, "status": "IN_PROGRESS",
        "creationTime": Clock::system().now().wall.to_string(), "roleArn": "arn:aws:iam::123456789012:role/omics"});
    job.as_object_mut().expect("an object").extend(members.as_object().expect("members").clone());
    job
}

#[test]
fn fault_142_an_unreadable_listed_job_is_skipped_and_the_others_are_watched() {
    let unreadable = [
        json!({"id": null}),
        json!({"id": 5}),
        json!({"id": "not digits"}),
        json!({"status": null}),
        json!({"status": {}}),
        json!({"creationTime": true}),
        json!({"creationTime": "yesterday"}),
        json!({"referenceStoreId": "9999999999"}),
    ];
    for members in unreadable {
        let workspace = Workspace::new();
        let described = members.to_string();
        let service = Service::new(move |request| {
            if !request.head.starts_with("POST") {
                return job(request, &json!({}));
            }
            let jobs = [listed(SECOND, &members), json!(7), listed(JOB, &json!({}))];
            response("200 OK", "", &json!({ "importJobs": jobs }).to_string())
        });
        let text = config(&[("default", service.address, "")], &[]);
        let text = format!("{text}[[store]]\nreference_store_id = \"{STORE}\"\n");
        let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &text));
        eventually(&described, || metric(address, "refwatch_watches", &["live"]).filter(|live| *live >= 1.0));
        eventually("two listings", || {
            metric(address, "refwatch_listed_jobs_skipped_total", &[]).filter(|skipped| *skipped >= 4.0)
        });
        let log = daemon.log_with("event=\"listed_job_skipped\"");
        assert_eq!(log.matches("event=\"listed_job_skipped\"").count(), 1, "{log}");
        assert_eq!(metric(address, "refwatch_watches", &["live"]), Some(1.0), "{described}: {log}");
        assert!(!log.contains("listing_failed"), "{described}: {log}");
    }
}

#[test]
fn fault_142_a_listing_of_many_pages_continues_until_every_job_was_listed() {
    /// More than are read at once.
    const PAGES: u32 = 105;
    let workspace = Workspace::new();
    // One job a page. The service ignores the filter, and the order of the pages is not that of creation.
    let service = Service::new(|request| {
        if !request.head.starts_with("POST") {
            return job(request, &json!({}));
        }
        let token = request
            .head
            .split_once("nextToken=")
            .map_or("0", |(_, rest)| rest.split(['&', ' ']).next().expect("a token"));
        let page: u32 = token.parse().expect("a page");
        let next = (page + 1 < PAGES).then(|| (page + 1).to_string());
        let jobs = [listed(&format!("{:010}", 1_000_000_000 + page), &json!({}))];
        response("200 OK", "", &json!({"importJobs": jobs, "nextToken": next}).to_string())
    });
    let text = config(&[("default", service.address, "")], &[]);
    let text = format!("{text}[[store]]\nreference_store_id = \"{STORE}\"\n");
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &text));
    eventually("every job", || metric(address, "refwatch_watches", &["live"]).filter(|live| *live >= f64::from(PAGES)));
    assert_eq!(metric(address, "refwatch_limit_exceeded_total", &["listing_pages"]), Some(0.0), "{}", daemon.stderr());
}

#[test]
fn fault_142_a_listing_starts_again_once_every_watched_job_was_listed() {
    let workspace = Workspace::new();
    let service = Service::new(|request| {
        let recent = json!({"creationTime": Clock::system().now().wall.to_string()});
        if !request.head.starts_with("POST") {
            return job(request, &recent);
        }
        let jobs = [JOB, SECOND].map(|id| listed(id, &json!({})));
        response("200 OK", "", &json!({"importJobs": jobs, "nextToken": "next"}).to_string())
    });
    let text = config(&[("default", service.address, "")], &[("default", STORE, JOB), ("default", STORE, SECOND)]);
    let text = text.replace("use_list = false", "use_list = true");
    let _daemon = workspace.daemon(&workspace.write("refwatch.toml", &text));
    let listings = || service.requests().into_iter().filter(|request| request.head.starts_with("POST"));
    eventually("three listings", || (listings().count() >= 3).then_some(()));
    assert!(listings().all(|request| !request.head.contains("nextToken=")));
}
