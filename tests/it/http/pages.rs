//! The status page and the job page: sorting, filters, paging, timelines and advice.

use refwatch::core::transition::{Detail, DetailKind, ItemTransition};

use super::*;

/// The names in the table of watches, in order.
async fn names(server: &Server, path: &str) -> Vec<String> {
    let page = server.get(path).await.body;
    let table = page.split("class=\"cards watches\"").nth(1).unwrap_or_default();
    let rows = table.split("<tbody>").nth(1).unwrap_or_default().split("</tbody>").next().unwrap_or_default();
    let name = |row: &str| row.split("</a>").next()?.rsplit('>').next().map(str::to_owned);
    rows.split("<th scope=\"row\">").skip(1).filter_map(name).collect()
}

/// Watches b (failed), c (in progress), a (completed) and d (without a response).
async fn server_with_four_watches() -> Server {
    let server = Server::start().await;
    let named = |name: &str, view: WatchStatus| WatchStatus { name: name.into(), ..view };
    let changed_at = |view: WatchStatus, time: &str| {
        let known = view.known.as_deref().map(|known| JobState { since: at(time), ..known.clone() }.into());
        WatchStatus { known, ..view }
    };
    let unseen = WatchStatus { known: None, up: None, next_poll: None, ..view("5555555555", JobStatus::Submitted) };
    server.shared.publish(named("b", view("2222222222", JobStatus::Failed)));
    server.shared.publish(changed_at(named("c", view("3333333333", JobStatus::InProgress)), "2026-03-01T08:04:00Z"));
    server.shared.publish(changed_at(named("a", view("4444444444", JobStatus::Completed)), "2026-03-01T08:06:00Z"));
    server.shared.publish(named("d", unseen));
    server
}

#[tokio::test]
async fn the_table_is_sorted_and_filtered_by_links() {
    let server = server_with_four_watches().await;
    for (path, expected) in [
        ("/", "b c d a"),
        ("/?sort=name", "a b c d"),
        ("/?sort=-name", "d c b a"),
        ("/?sort=duration", "b a c d"),
        ("/?sort=-duration", "c a b d"),
        ("/?status=FAILED", "b"),
        ("/?status=not_seen", "d"),
        ("/?state=finished&sort=name", "a b"),
        ("/?state=attention", "b"),
        ("/?q=4444&status=", "a"),
        ("/?q=IN_prog", "c"),
        ("/?q=none", ""),
    ] {
        assert_eq!(names(&server, path).await.join(" "), expected, "{path}");
    }
    let page = server.get("/?sort=name&status=FAILED&q=b").await.body;
    assert!(
        page.contains(r#"<th scope="col" aria-sort="ascending"><a href="./?sort=-name&amp;status=FAILED&amp;q=b">"#),
        "{page}"
    );
    assert!(page.contains(r#"<a href="./?sort=name&amp;q=b" aria-current="true">FAILED"#), "{page}");
    assert!(page.contains(r#"<input type="hidden" name="status" value="FAILED">"#), "{page}");
}

#[tokio::test]
async fn an_invalid_query_shows_its_error_and_all_watches() {
    let server = server_with_four_watches().await;
    let response = server.get("/?sort=%3Cscript%3E%E2%80%AE&status=FAILED&page=99").await;
    assert_eq!(response.status, 400);
    assert!(
        response.body.contains("sort: unknown variant `&lt;script&gt;\\u202e`, expected one of `attention`, `name`"),
        "{}",
        response.body
    );
    for query in ["sort=size&status=FAILED", "status=FAILED&colour=red", "page=-1"] {
        assert_eq!(names(&server, &format!("/?{query}")).await, ["b", "c", "d", "a"], "{query}");
        assert!(server.get(&format!("/?{query}")).await.body.contains("class=\"note\""), "{query}");
    }
    assert_eq!(names(&server, "/?status=FAILED&page=99").await, ["b"]);
    assert_eq!(names(&server, "/?q=%FF%00").await, [""; 0]);
}

#[tokio::test]
async fn ten_thousand_watches_are_shown_in_pages() {
    let server = Server::start().await;
    for nth in 0..10_000 {
        let view = view(&format!("{}", 1_000_000_000 + nth), JobStatus::InProgress);
        server.shared.publish(WatchStatus { name: format!("{nth:05}").into(), ..view });
    }
    let page = server.get("/?sort=name&page=2").await.body;
    assert!(page.contains("101–200 of 10000") && page.contains("Page 2 of 100"), "{page}");
    assert!(
        page.contains(r#"href="./?sort=name&amp;page=3">Next"#)
            && page.contains(r#"href="./?sort=name&amp;page=1">Previous"#),
        "{page}"
    );
    assert!(page.len() < 200_000, "{} bytes", page.len());
    assert_eq!(names(&server, "/?sort=-name").await.len(), 100);
    assert_eq!(names(&server, "/?sort=name&page=4000").await.last().unwrap(), "09999");
}

#[tokio::test]
async fn a_timeline_shows_the_statuses_of_a_job_as_shapes_and_text() {
    let server = Server::with(
        Limits::default(),
        [
            row("2222222222", None, "SUBMITTED", "2026-03-01T08:00:00.000Z"),
            row("2222222222", Some("SUBMITTED"), "IN_PROGRESS", "2026-03-01T08:01:00.000Z"),
            row("2222222222", Some("IN_PROGRESS"), "FAILED", "2026-03-01T08:04:00.000Z"),
            row("3333333333", None, HOSTILE, "2026-03-01T08:00:00.000Z"),
        ],
    )
    .await;
    for (job, status) in [("2222222222", JobStatus::Failed), ("3333333333", JobStatus::from(HOSTILE))] {
        server.shared.publish(view(job, status));
    }
    for path in ["/", "/jobs/reference_import/1234567890/2222222222", "/jobs/reference_import/1234567890/3333333333"] {
        let page = server.get(path).await.body;
        pictures(&page).for_each(assert_well_formed);
        assert!(pictures(&page).count() > 0, "{page}");
        assert!(!page.chars().any(|c| refwatch::core::sanitize::is_unsafe_to_display(c) && c != '\n'), "{page}");
    }
    let page = server.get("/jobs/reference_import/1234567890/2222222222").await.body;
    let picture = pictures(&page).next().unwrap();
    for part in [
        "<title>watch 2222222222: SUBMITTED for 1m, then IN_PROGRESS for 3m, then FAILED</title>",
        "<desc>From 2026-03-01 08:00:00 to 2026-03-01 08:04:00 UTC</desc>",
        r#"<rect class="waiting" x="0.00%" y="6" width="25.00%" height="4">"#,
        r#"<rect class="active" x="25.00%" y="3" width="75.00%" height="10">"#,
        r#"<rect class="bad" x="100.00%" y="0" width="5" height="16" rx="1.5" transform="translate(-5)">"#,
    ] {
        assert!(picture.contains(part), "{part} is missing in {picture}");
    }
}

fn pictures(page: &str) -> impl Iterator<Item = &str> {
    let images = page.split("<svg ").filter(|rest| rest.starts_with("class=\"timeline\" role=\"img\""));
    images.map(|rest| rest.split_once("</svg>").expect("its end").0)
}

/// Checks that elements are closed and that texts are escaped.
fn assert_well_formed(picture: &str) {
    let mut open = Vec::new();
    for tag in picture.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("a whole tag");
        assert!(!text.contains('>') && tag.matches('"').count() % 2 == 0, "{tag} in {picture}");
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "{picture}"),
            None => open.push(tag.split(' ').next().unwrap()),
        }
    }
    assert!(open.is_empty(), "{open:?} in {picture}");
}

#[tokio::test]
async fn the_timeline_of_an_oscillating_job_shows_its_latest_statuses() {
    let oscillation = (0..60).map(|nth| {
        let (from, to) = if nth % 2 == 0 { ("SUBMITTED", "IN_PROGRESS") } else { ("IN_PROGRESS", "SUBMITTED") };
        row("2222222222", Some(from), to, &format!("2026-03-01T08:{nth:02}:00.000Z"))
    });
    let end = row("2222222222", Some("SUBMITTED"), "COMPLETED", "2026-03-01T09:00:00.000Z");
    let server = Server::with(Limits::default(), oscillation.chain([end])).await;
    server.shared.publish(view("2222222222", JobStatus::Completed));
    let drawn = |page: &str| pictures(page).next().unwrap().matches("<rect class=\"active\"").count();
    assert_eq!(drawn(&server.get("/").await.body), 5);
    let page = server.get("/jobs/reference_import/1234567890/2222222222").await.body;
    assert_eq!(drawn(&page), 30);
    assert!(page.contains("watch 2222222222: IN_PROGRESS for 1m, then SUBMITTED for 1m"), "{page}");
}

#[tokio::test]
async fn the_job_page_shows_errors_and_advice() {
    let mut change = row("2222222222", Some("SUBMITTED"), "FAILED", "2026-03-01T08:01:00.000Z").1;
    let transition = change.transition.as_mut().unwrap();
    transition.not_before = Some(at("2026-03-01T08:00:55Z"));
    transition.anomaly = Some(refwatch::core::transition::Anomaly::NoCompletionTime);
    let key = ItemKey { name: "chr2".into(), source_file: "s3://refs/chr2.fa".into(), nth: 0 };
    let to = Some(Item { status: ItemStatus::Failed, status_message: None });
    change.items.push(ItemTransition { key, from: None, to, observed_at: at("2026-03-01T08:00:30Z") });
    change.details.push(Detail {
        kind: DetailKind::StatusMessage,
        value: Some(HOSTILE.to_owned()),
        observed_at: at("2026-03-01T08:00:40Z"),
    });
    let server = Server::with(Limits::default(), [(target_job("2222222222"), change)]).await;
    let failure = |reason, minute| FailedPoll {
        at: at(&format!("2026-03-01T08:{minute}:00Z")),
        reason,
        message: "as AWS says".to_owned(),
    };
    let recent_failures = [failure(FailureReason::Timeout, 10), failure(FailureReason::AccessDenied, 11)].into();
    let failing = WatchStatus { recent_failures, up: Some(false), ..view("2222222222", JobStatus::InProgress) };
    server.shared.publish(failing.clone());
    let page = server.get("/jobs/reference_import/1234567890/2222222222").await.body;
    for shown in [
        "<strong>What to do. </strong>Allow omics:GetReferenceImportJob on this reference store",
        r#"after <time class="absolute" datetime="2026-03-01T08:00:55.000Z">"#,
        "AWS returned no completion time.",
        "AWS&#39;s message changed",
        "&lt;script&gt;alert(1)",
        "no response in time",
        "raise poll.timeout",
        ">chr2: FAILED</title>",
    ] {
        assert!(page.contains(shown) || page.contains(&shown.replace("&#39;", "'")), "{shown} is missing in {page}");
    }
    assert!(server.get("/").await.body.contains("Polls fail: access denied"));

    // The job page keeps failures after a successful poll.
    server.shared.publish(WatchStatus { up: Some(true), ..failing });
    assert!(server.get("/jobs/reference_import/1234567890/2222222222").await.body.contains("access denied"));
    assert!(!server.get("/").await.body.contains("access denied"));
}

#[tokio::test]
async fn the_status_page_shows_the_used_and_the_allowed_request_rates() {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::InProgress));
    assert!(server.get("/").await.body.contains("0.0 of 0.0"), "before the first request");
    let get = server.instruments.operation("default", Operation::Get(JobKind::ReferenceImport));
    get.quota_configured.set(4.0);
    get.quota_allowed.set(4.0);
    let page = server.get("/").await.body;
    assert!(page.contains("0.0 of 4.0") && page.contains("4.0 requests per second, as configured"), "{page}");
    let now = Clock::system().now().monotonic;
    (0..33).for_each(|_| get.request_ended(now, now, None));
    get.quota_allowed.set(2.8);
    let page = server.get("/").await.body;
    assert!(page.contains("GetReferenceImportJob") && page.contains("1.1 of 2.8"), "{page}");
    assert!(page.contains(r#"max="2.8" value="1.1""#), "{page}");
    assert!(page.contains("AWS throttles: 2.8 of 4.0 requests per second"), "{page}");
    server.instruments.remove_target("default");
    assert!(!server.get("/").await.body.contains("Quota"));
}

/// The path of a relative link on the page at `base`.
fn resolve(base: &str, link: &str) -> String {
    let base = base.split('?').next().unwrap();
    let mut segments: Vec<&str> = base.split('/').collect();
    segments.pop();
    let (path, query) = link.split_once('?').map_or((link, None), |(path, query)| (path, Some(query)));
    for segment in path.split('/') {
        match segment {
            ".." => drop(segments.pop()),
            "." => {}
            segment => segments.push(segment),
        }
    }
    let query = query.map(|query| format!("?{}", query.replace("&amp;", "&"))).unwrap_or_default();
    segments.join("/") + &query
}

#[tokio::test]
async fn fault_144_every_page_and_link_works_with_and_without_the_path_of_the_external_url() {
    let server = server_with_four_watches().await;
    for prefix in ["", "/refwatch"] {
        let mut paths = vec![format!("{prefix}/"), format!("{prefix}/?q=none")];
        let mut seen = 0;
        while seen < paths.len() {
            let path = paths[seen].clone();
            let response = server.get(&path).await;
            assert_eq!(
                response.status,
                if path.ends_with("/-/ready") { 503 } else { 200 },
                "{path}: {}",
                response.body
            );
            let body = response.body.replace(" action=", " href=");
            for link in body.split(" href=\"").skip(1) {
                let link = link.split('"').next().unwrap();
                if link.starts_with('#') || link.starts_with("https://") {
                    continue;
                }
                let linked = resolve(&path, link);
                assert!(linked.starts_with(prefix) && !linked.starts_with("//"), "{path} {link} {linked}");
                if !paths.contains(&linked) {
                    paths.push(linked);
                }
            }
            seen += 1;
        }
        for expected in
            ["/style.css", "/icon-attention.svg", "/history", "/metrics", "/config", "/?sort=name", "/api/v1/jobs"]
        {
            assert!(paths.contains(&format!("{prefix}{expected}")), "{expected} in {paths:?}");
        }
        assert!(paths.iter().filter(|path| path.contains("/jobs/reference_import/")).count() == 4, "{paths:?}");
    }
    for (path, location) in [("/refwatch", "/refwatch/"), ("/refwatch?state=live", "/refwatch/?state=live")] {
        let response = server.get(path).await;
        assert_eq!((response.status, response.headers["location"].as_str()), (308, location));
    }
    for path in
        ["/refwatchs/metrics", "/refwatch/none", "/refwatch/refwatch/metrics", "/refwatch//evil.example/metrics"]
    {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    assert_eq!(server.get("/refwatch/api/v1/jobs?limt=1").await.status, 400);
}

#[tokio::test]
async fn the_runbook_has_an_anchor_for_each_alert_and_links_only_to_itself() {
    let server = Server::start().await;
    let response = server.get("/runbook").await;
    assert_eq!((response.status, response.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    let rules = include_str!("../../../config/prometheus/rules.yml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 15, "{alerts:?}");
    for alert in alerts {
        let heading = format!("<h2 id=\"{}\">{alert}</h2>", alert.to_lowercase());
        assert!(response.body.contains(&heading), "{heading} in {}", response.body);
    }
    let article =
        response.body.split_once("<article").expect("an article").1.split_once("</article>").expect("its end").0;
    for link in article.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        let anchor = link.strip_prefix('#').unwrap_or_else(|| panic!("{link} is not served"));
        assert!(article.contains(&format!("id=\"{anchor}\"")), "{link}");
    }
    for shown in [
        "permissions (operation.md#permissions)",
        "<td><code>throttled</code></td>",
        "<pre><code class=\"language-sh\">",
    ] {
        assert!(article.contains(shown), "{shown} in {article}");
    }
}

#[tokio::test]
async fn the_runbook_has_no_parameters() {
    assert_eq!(Server::start().await.get("/runbook?alert=RefwatchDown").await.status, 400);
}
