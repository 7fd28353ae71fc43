//! Timelines: the shared time axis, bars, end marks, and the times at which they end.

use refwatch::core::transition::{Detail, DetailKind};

use super::*;

const PATH: &str = "/jobs/reference_import/1234567890/2222222222";

#[tokio::test]
async fn all_timelines_of_the_list_share_one_time_axis() {
    let rows = [
        row("2222222222", None, "SUBMITTED", "2026-03-01T08:00:00.000Z"),
        row("2222222222", Some("SUBMITTED"), "FAILED", "2026-03-01T08:30:00.000Z"),
        row("3333333333", None, "SUBMITTED", "2026-03-01T08:30:00.000Z"),
        row("3333333333", Some("SUBMITTED"), "COMPLETED", "2026-03-01T09:00:00.000Z"),
    ];
    let server = Server::with(Limits::default(), rows).await;
    for (job, status, created_at, since) in [
        ("2222222222", JobStatus::Failed, "2026-03-01T08:00:00Z", "2026-03-01T08:30:00Z"),
        ("3333333333", JobStatus::Completed, "2026-03-01T08:30:00Z", "2026-03-01T09:00:00Z"),
    ] {
        let known = JobState { created_at: Some(at(created_at)), since: at(since), ..known(status.clone()) };
        server.shared.publish(WatchStatus { known: Some(known.into()), ..view(job, status) });
    }
    let page = server.get("/").await.body;
    for part in [
        r#"<rect class="waiting" x="0.00%" y="6" width="50.00%" height="4">"#,
        r#"<rect class="bad" x="50.00%" y="0""#,
        r#"<rect class="waiting" x="50.00%" y="6" width="50.00%" height="4">"#,
        r#"<rect class="good" x="100.00%" y="0""#,
        r#"<text x="50.00%" y="12" text-anchor="middle" data-time="2026-03-01T08:30:00.000Z">08:30</text>"#,
        r#"<ul class="legend""#,
        r#"<td class="duration" data-label="Duration"><span class="nowrap">30m</span></td>"#,
    ] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    assert!(page.contains(r#"<td class="ended" data-label="Ended"><span class="nowrap"><time"#), "{page}");
}

#[tokio::test]
async fn a_running_bar_is_solid_and_only_its_uncertain_edge_is_hatched() {
    let mut second = row("2222222222", Some("SUBMITTED"), "IN_PROGRESS", "2026-03-01T08:10:00.000Z");
    second.1.transition.as_mut().unwrap().not_before = Some(at("2026-03-01T08:05:00Z"));
    let rows = [row("2222222222", None, "SUBMITTED", "2026-03-01T08:00:00.000Z"), second];
    let server = Server::with(Limits::default(), rows).await;
    let vanished_at = Some(at("2026-03-01T08:20:00Z"));
    let known = JobState { last_seen: at("2026-03-01T08:18:00Z"), vanished_at, ..known(JobStatus::InProgress) };
    server.shared.publish(WatchStatus { known: Some(known.into()), ..view("2222222222", JobStatus::InProgress) });
    let page = server.get(PATH).await.body;
    for part in [
        r#"<rect class="waiting" x="0.00%" y="6" width="50.00%" height="4">"#,
        r#"<rect class="unsure" x="25.00%" y="6" width="25.00%" height="4" fill="url(#hatch)">"#,
        r#"<rect class="active" x="50.00%" y="3" width="50.00%" height="10">"#,
        r#"<rect class="unsure" x="90.00%" y="3" width="10.00%" height="10" fill="url(#hatch)">"#,
    ] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
}

#[tokio::test]
async fn a_timeline_ends_at_the_completion_if_the_end_was_observed_later() {
    let mut end = row("2222222222", Some("IN_PROGRESS"), "COMPLETED", "2026-03-01T10:00:00.000Z");
    end.1.transition.as_mut().unwrap().completed_at = Some(at("2026-03-01T08:30:00Z"));
    let server = Server::with(
        Limits::default(),
        [
            row("2222222222", None, "IN_PROGRESS", "2026-03-01T08:00:00.000Z"),
            end,
            row("3333333333", None, "IN_PROGRESS", "2026-03-01T08:00:00.000Z"),
            row("3333333333", Some("IN_PROGRESS"), "CANCELLED", "2026-03-01T09:00:00.000Z"),
        ],
    )
    .await;
    for (job, status, completed_at, since) in [
        ("2222222222", JobStatus::Completed, Some(at("2026-03-01T08:30:00Z")), "2026-03-01T10:00:00Z"),
        ("3333333333", JobStatus::Cancelled, None, "2026-03-01T09:00:00Z"),
    ] {
        let known = JobState { completed_at, since: at(since), ..known(status.clone()) };
        server.shared.publish(WatchStatus { known: Some(known.into()), ..view(job, status) });
    }
    let page = server.get("/").await.body;
    for part in [
        "<title>watch 2222222222: IN_PROGRESS for 30m, then COMPLETED</title>",
        r#"<rect class="active" x="0.00%" y="3" width="50.00%" height="10"><title>IN_PROGRESS, 30m</title>"#,
        r#"<rect class="good" x="50.00%" y="0""#,
    ] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
}

#[tokio::test]
async fn the_timeline_of_an_unwatched_job_ends_when_the_job_vanished() {
    let detail = |kind, observed_at| {
        let detail = Detail { kind, value: None, observed_at: at(observed_at) };
        (target_job("2222222222"), Change { details: vec![detail], ..Change::default() })
    };
    let first = row("2222222222", None, "IN_PROGRESS", "2026-03-01T08:00:00.000Z");
    let still_seen = detail(DetailKind::StillSeen, "2026-03-01T08:30:00Z");
    let vanished = detail(DetailKind::Vanished, "2026-03-01T09:00:00Z");
    let returned = detail(DetailKind::Returned, "2026-03-01T09:30:00Z");
    let gone = "in total</span><span><time class=\"absolute\" datetime=\"2026-03-01T09:00:00.000Z\">";
    let half_hatched = r#"<rect class="unsure" x="50.00%""#;
    let rows = [first, still_seen, vanished];
    let page = Server::with(Limits::default(), rows.clone()).await.get(PATH).await.body;
    assert!(page.contains(gone) && page.contains(half_hatched), "{page}");
    let page = Server::with(Limits::default(), rows.into_iter().chain([returned])).await.get(PATH).await.body;
    assert!(page.contains("in total</span><span>now</span>"), "{page}");
}
