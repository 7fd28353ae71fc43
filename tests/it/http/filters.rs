//! The filters by kind, status, state and watch on the status page and in `/api/v1/jobs`.

use super::*;

const FORM: &str = r#"<input type="hidden" name="kind" value="read_set_export">"#;

fn view_of_kind(kind: JobKind, job: &str, status: JobStatus) -> WatchStatus {
    let id = target_job(job);
    let id = TargetJob { key: JobKey { kind, ..id.key }, ..id };
    WatchStatus { id: id.into(), ..view(job, status) }
}

/// A failed reference import, a read set import in progress, and two read set exports, one of them not seen yet.
async fn server_with_three_kinds() -> Server {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::Failed));
    server.shared.publish(view_of_kind(JobKind::ReadSetImport, "3333333333", JobStatus::InProgress));
    server.shared.publish(view_of_kind(JobKind::ReadSetExport, "4444444444", JobStatus::Completed));
    let unseen = view_of_kind(JobKind::ReadSetExport, "5555555555", JobStatus::Submitted);
    server.shared.publish(WatchStatus { known: None, up: None, ..unseen });
    server
}

#[tokio::test]
async fn the_page_filters_by_kind_and_shows_the_kind_of_each_job_if_there_are_several_kinds() {
    let server = server_with_three_kinds().await;
    let page = server.get("/").await.body;
    assert!(
        page.contains(r#"<a href="./?kind=read_set_export">read_set_export <span class="count">2</span>"#),
        "{page}"
    );
    assert!(!page.contains("kind=read_set_activation"), "no job has this kind: {page}");
    assert!(
        page.contains(r#"<small>read_set_import <span class="copyable"><code>1234567890/<wbr>3333333333</code>"#),
        "{page}"
    );

    let page = server.get("/?kind=read_set_export&q=watch").await.body;
    let shown = |job: &str| page.contains(&format!("<wbr>{job}</code>"));
    assert_eq!(["2222222222", "3333333333", "4444444444", "5555555555"].map(shown), [false, false, true, true]);
    assert!(page.contains(r#"<a href="./?q=watch" aria-current="true">read_set_export"#), "{page}");
    assert!(page.contains(FORM), "{page}");
}

#[tokio::test]
async fn the_page_rejects_unknown_values_with_the_known_ones_and_shows_all_jobs() {
    let server = server_with_three_kinds().await;
    for (query, error) in [
        (
            "kind=read_set",
            "kind must be one of reference_import, read_set_import, read_set_export, read_set_activation",
        ),
        (
            "status=FALED",
            "status must be one of SUBMITTED, IN_PROGRESS, CANCELLING, CANCELLED, FAILED, COMPLETED, \
                          COMPLETED_WITH_FAILURES, UNKNOWN, not_seen",
        ),
        ("state=over", "state must be one of live, finished, parked, attention"),
    ] {
        let response = server.get(&format!("/?{query}")).await;
        assert_eq!(response.status, 400, "{query}");
        assert!(response.body.contains(&format!("invalid query: {error}")), "{}", response.body);
        assert!(response.body.contains("2222222222") && response.body.contains("5555555555"), "{}", response.body);
    }
}

#[tokio::test]
async fn the_page_has_no_filter_by_kind_if_all_jobs_have_one_kind() {
    let server = Server::start().await;
    for job in ["2222222222", "3333333333"] {
        server.shared.publish(view(job, JobStatus::InProgress));
    }
    let page = server.get("/").await.body;
    assert!(!page.contains("kind=") && !page.contains("<small>reference_import"), "{page}");
    // A bookmarked filter that selects nothing is shown, so that it can be removed.
    let page = server.get("/?kind=read_set_export").await.body;
    assert!(page.contains(r#"<a href="./" aria-current="true">read_set_export"#) && page.contains(FORM), "{page}");
}

#[tokio::test]
async fn the_api_filters_jobs_and_rejects_unknown_values() {
    let server = server_with_three_kinds().await;
    for (query, expected) in [
        ("kind=reference_import", &["2222222222"][..]),
        ("kind=read_set_export", &["4444444444", "5555555555"]),
        ("kind=read_set_activation", &[]),
        ("kind=read_set_export&status=COMPLETED", &["4444444444"]),
        ("status=not_seen", &["5555555555"]),
        ("state=live", &["3333333333", "5555555555"]),
        ("state=attention", &["2222222222"]),
        ("q=WATCH+3333333333", &["3333333333"]),
        ("q=read_set_export&status=COMPLETED", &["4444444444"]),
        ("watch=watch+3333333333", &["3333333333"]),
        ("watch=watch", &[]),
    ] {
        let jobs = server.get(&format!("/api/v1/jobs?{query}")).await.json();
        let mut ids: Vec<_> = jobs.as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, expected, "{query}");
    }
    for query in ["", "kind=&status=&state=&watch="] {
        assert_eq!(server.get(&format!("/api/v1/jobs?{query}")).await.json().as_array().unwrap().len(), 4, "{query}");
    }
    for (query, error) in [
        ("kind=read_set", "kind must be one of reference_import, "),
        ("status=FALED", "status must be one of SUBMITTED, "),
        ("status=failed", "status must be one of SUBMITTED, "),
        ("state=over", "state must be one of live, finished, parked, attention"),
        ("kind=read_set_export&kind=read_set_import", "kind"),
    ] {
        let response = server.get(&format!("/api/v1/jobs?{query}")).await;
        assert_eq!(response.status, 400, "{query}");
        assert!(response.json()["error"].as_str().unwrap().contains(error), "{}", response.body);
    }
}
