//! The script, the icon and the title of pages, and the pages for 404, the configuration and ended jobs.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha2::{Digest as _, Sha256};

use super::*;

const SCRIPT: &str = include_str!("../../../src/http/ui/page.js");

/// The page without its script. Fails if the page does not have the script exactly once.
pub(super) fn without_script(page: &str) -> String {
    let (before, after) = page.split_once(&format!("<script>{SCRIPT}</script>")).expect("the script");
    before.to_owned() + after
}

impl Server {
    /// As a browser sends it.
    async fn browse(&self, path: &str) -> Response {
        let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n", self.address);
        Response::parse(&self.raw(&request).await)
    }
}

#[tokio::test]
async fn the_policy_allows_the_script_of_the_page_and_no_other() {
    let server = Server::start().await;
    let response = server.get("/").await;
    let hash = BASE64_STANDARD.encode(Sha256::digest(SCRIPT));
    let policy = &response.headers["content-security-policy"];
    assert!(policy.contains(&format!("; script-src 'sha256-{hash}'; connect-src 'self';")), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(!without_script(&response.body).contains("<script"), "{}", response.body);
    assert!(SCRIPT.lines().count() < 80);
}

#[tokio::test]
async fn a_job_page_is_refreshed_while_the_job_runs() {
    let server = Server::start().await;
    let path = "/jobs/reference_import/1234567890/2222222222";
    for (status, refreshes) in [(JobStatus::InProgress, true), (JobStatus::Completed, false)] {
        server.shared.publish(view("2222222222", status));
        let page = without_script(&server.get(path).await.body);
        assert_eq!(page.contains("data-refresh=\"10\""), refreshes, "{page}");
        assert_eq!(page.contains("<noscript><meta http-equiv=\"refresh\" content=\"10\">"), refreshes, "{page}");
        assert!(page.contains("data-part=\"job\""), "{page}");
    }
}

#[tokio::test]
async fn without_the_script_the_status_page_is_refreshed_only_on_request() {
    let server = Server::start().await;
    for (path, with_script, without, links) in [
        (
            "/",
            true,
            false,
            ["<noscript><a href=\"./?refresh=on\">", "<a class=\"scripted\" href=\"./?refresh=off\" hidden>"],
        ),
        ("/?refresh=on", true, true, ["<a href=\"./?refresh=off\">Stop refreshing.</a>"; 2]),
        ("/?refresh=off", false, false, ["<a href=\"./?refresh=on\">Refresh every 10 s.</a>"; 2]),
    ] {
        let page = without_script(&server.get(path).await.body);
        assert_eq!(page.contains("data-refresh=\"10\""), with_script, "{path}: {page}");
        assert_eq!(page.contains("<noscript><meta http-equiv=\"refresh\" content=\"10\">"), without, "{path}: {page}");
        assert!(links.iter().all(|link| page.contains(link)), "{path}: {page}");
    }
}

#[tokio::test]
async fn a_refresh_replaces_everything_but_the_form() {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::InProgress));
    let page = server.get("/").await.body;
    let parts: Vec<&str> = page.split(" data-part=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(parts, ["alerts", "top", "filters", "watches", "sinks", "quota", "footer"]);
    let filters = page.split("data-part=\"filters\"").nth(1).unwrap();
    assert!(filters.split("</nav>").nth(1).unwrap().starts_with("<form"), "the form is outside of the parts: {page}");
}

#[tokio::test]
async fn the_icon_and_the_title_show_the_number_of_problems() {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::InProgress));
    for path in ["/", "/history", "/jobs/reference_import/1234567890/2222222222"] {
        let page = server.get(path).await.body;
        assert!(page.contains("/icon.svg\"") && !page.contains("<title>("), "{page}");
    }
    server.shared.publish(view("3333333333", JobStatus::Failed));
    server.shared.update_daemon(|daemon| daemon.database_error = Some("disk full".to_owned()));
    for path in ["/", "/history", "/jobs/reference_import/1234567890/2222222222"] {
        let page = server.get(path).await.body;
        assert!(page.contains("/icon-attention.svg\"") && page.contains("<title>(2) "), "{page}");
    }
}

#[tokio::test]
async fn a_finished_job_shows_no_failed_poll() {
    let server = Server::start().await;
    let failure =
        FailedPoll { at: at("2026-03-01T08:00:00Z"), reason: FailureReason::Timeout, message: "too slow".to_owned() };
    let failed_before = |status, up| WatchStatus {
        recent_failures: [failure.clone()].into(),
        up: Some(up),
        ..view("2222222222", status)
    };
    // A watch is finished after a successful poll only.
    for (status, up, shown) in [(JobStatus::InProgress, false, true), (JobStatus::Completed, true, false)] {
        server.shared.publish(failed_before(status, up));
        for path in ["/", "/jobs/reference_import/1234567890/2222222222"] {
            let page = server.get(path).await.body;
            assert_eq!(page.contains("too slow"), shown, "{path}: {page}");
        }
    }
}

#[tokio::test]
async fn a_browser_gets_pages_for_404_and_the_configuration_and_others_get_text() {
    let server = Server::start().await;
    server.shared.update_daemon(|daemon| daemon.effective_config = "[http]\nlisten = \"<b>\"".into());
    let page = server.browse("/config").await;
    assert_eq!((page.status, page.headers["vary"].as_str()), (200, "accept"));
    assert!(page.body.contains("listen = &quot;&lt;b&gt;&quot;"), "{}", page.body);
    assert_eq!(server.get("/config").await.body, "[http]\nlisten = \"<b>\"\n");
    let unwatched = "/jobs/reference_import/1234567890/2222222222";
    for (path, root) in [("/none", "./"), ("/none/deeper/", "../../"), (unwatched, "../../../")] {
        let page = server.browse(path).await;
        assert_eq!((page.status, page.headers["content-type"].as_str()), (404, "text/html; charset=utf-8"), "{path}");
        assert!(page.body.contains(&format!("<a href=\"{root}\">Show all watches</a>")), "{}", page.body);
        let text = server.get(path).await;
        assert_eq!((text.status, text.body.starts_with("not found: ")), (404, true), "{}", text.body);
    }
    let json = server.browse("/api/v1/none").await;
    assert_eq!((json.status, json.json()["error"].as_str()), (404, Some("not found")));
}

#[tokio::test]
async fn an_empty_page_names_the_file_to_edit_and_the_command_to_run() {
    let server = Server::start().await;
    server.shared.update_daemon(|daemon| daemon.config_file = "/etc/refwatch/refwatch.toml".into());
    let page = server.get("/").await.body;
    assert!(page.contains("<code>refwatch --config /etc/refwatch/refwatch.toml add STORE/JOB</code>"), "{page}");
    assert!(page.contains("<code>/etc/refwatch/refwatch.toml</code>"), "{page}");
}

#[tokio::test]
async fn a_job_page_has_the_job_as_json_a_link_to_the_console_and_buttons_that_copy_its_ids() {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::InProgress));
    server.shared.publish(view("3333333333", JobStatus::InProgress));
    let page = server.get("/jobs/reference_import/1234567890/2222222222").await.body;
    let query = "kind=reference_import&store_id=1234567890&job_id=2222222222";
    assert!(page.contains(&format!("../../../api/v1/jobs?{}", query.replace('&', "&amp;"))), "{page}");
    let json = server.get(&format!("/api/v1/jobs?{query}")).await.json();
    let ids: Vec<_> = json.as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["2222222222"]);
    let console = "https://us-west-2.console.aws.amazon.com/omics/home?region=us-west-2";
    assert!(page.contains(&format!("href=\"{console}\"")), "{page}");
    for id in ["1234567890", "2222222222"] {
        assert!(page.contains(&format!("data-key=\"{id}\"")), "{page}");
    }
    assert!(server.get("/").await.body.contains("data-key=\"1234567890/2222222222\""));
    server.shared.publish(WatchStatus { aws_region: "".into(), ..view("2222222222", JobStatus::InProgress) });
    let page = server.get("/jobs/reference_import/1234567890/2222222222").await.body;
    assert!(!page.contains("console.aws"), "{page}");
}

#[tokio::test]
async fn ended_jobs_are_listed_from_the_database_by_time_whether_they_are_watched_or_not() {
    let rows = [
        row("2222222222", None, "FAILED", "2026-03-01T08:00:00.000Z"),
        row("3333333333", None, "IN_PROGRESS", "2026-03-01T08:00:00.000Z"),
        row("4444444444", None, "COMPLETED", "2026-03-02T23:59:59.000Z"),
        row("5555555555", None, "COMPLETED", "2026-03-01T08:00:00.000Z"),
        row("5555555555", Some("COMPLETED"), "IN_PROGRESS", "2026-03-02T08:00:00.000Z"),
    ];
    let server = Server::with(Limits::default(), rows).await;
    server.shared.publish(view("2222222222", JobStatus::Failed));
    for (query, expected) in [
        ("since=2026-03-01&until=2026-03-02", "4444444444 2222222222"),
        ("since=2026-03-01&until=2026-03-01", "2222222222"),
        ("since=2026-03-02&until=2026-03-02", "4444444444"),
        ("since=2026-03-03&until=2026-03-03", ""),
        // A form sends a cleared field as an empty text.
        ("since=&until=2026-03-01", "2222222222"),
        ("since=2026-03-01&until=", "4444444444 2222222222"),
        ("since=-009999-01-01&until=9999-12-31", "4444444444 2222222222"),
    ] {
        let page = server.get(&format!("/history?{query}")).await.body;
        let jobs: Vec<&str> = page.split("<a href=\"jobs/").skip(1).map(|rest| &rest[28..38]).collect();
        assert_eq!(jobs.join(" "), expected, "{query}: {page}");
    }
    for query in ["since=yesterday", "days=7"] {
        let response = server.get(&format!("/history?{query}")).await;
        assert_eq!(response.status, 400);
        assert!(response.body.contains("invalid query: "), "{}", response.body);
    }
    let page = server.get("/jobs/reference_import/1234567890/4444444444").await.body;
    assert!(page.contains("This job is not watched.") && page.contains(">COMPLETED</span>"), "{page}");
    assert!(page.contains("../../../api/v1/transitions?kind=reference_import&amp;store_id=1234567890"), "{page}");
}

#[tokio::test]
async fn ended_and_unwatched_jobs_are_unavailable_while_the_database_cannot_be_read() {
    let server = Server::with(Limits::default(), [row("2222222222", None, "FAILED", "2026-03-01T08:01:00.000Z")]).await;
    std::fs::write(&server.database, "not a database").unwrap();
    for path in ["/jobs/reference_import/1234567890/2222222222", "/history"] {
        let page = server.get(path).await;
        assert_eq!(page.status, 503, "{path}: {}", page.body);
        assert!(page.body.contains("not a refwatch database"), "{path}: {}", page.body);
    }
    server.shared.publish(view("2222222222", JobStatus::Failed));
    assert_eq!(server.get("/jobs/reference_import/1234567890/2222222222").await.status, 200);
}

#[tokio::test]
async fn a_job_of_several_targets_is_shown_for_each() {
    let failed = row("2222222222", None, "FAILED", "2026-03-01T08:01:00.000Z");
    let other = TargetJob { target: "other".into(), ..target_job("2222222222") };
    let server = Server::with(Limits::default(), [(other.clone(), failed.1.clone()), failed]).await;
    server.shared.publish(view("2222222222", JobStatus::InProgress));
    server.shared.publish(WatchStatus { id: other.into(), ..view("2222222222", JobStatus::Failed) });
    let page = server.get("/jobs/reference_import/1234567890/2222222222").await.body;
    let parts = ["Target default", "Target other", ">IN_PROGRESS</span>", "first seen", "2026-03-01 08:01:00 UTC"];
    for part in parts {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    assert_eq!(page.matches("<figure>").count(), 2, "{page}");
    assert_eq!(page.matches("id=\"hatch\"").count(), 1, "an id is unique: {page}");
}
