//! `/api/v1/transitions`.

use refwatch::database::Filter;

use super::*;
use crate::process::open_when_unlocked;

impl Server {
    /// Saves a row and returns its id.
    async fn append(&self, (id, change): (TargetJob, Change)) -> i64 {
        let database = open_when_unlocked(&self.database, &self.instruments).unwrap();
        database.append(&id, &change).await.unwrap();
        database.close().await;
        let rows = DatabaseReader::new(&self.database).rows::<Transition>(&Filter::default()).unwrap();
        rows.last().unwrap().id
    }
}

#[tokio::test]
async fn transitions_are_filtered_and_a_wrong_parameter_is_named() {
    let rows = [
        row("2222222222", None, "SUBMITTED", "2026-03-01T08:00:00.000Z"),
        row("3333333333", None, "FAILED", "2026-03-01T08:01:00.000Z"),
        row("2222222222", Some("SUBMITTED"), "COMPLETED", "2026-03-01T08:02:00.000Z"),
    ];
    let server = Server::with(Limits::default(), rows).await;
    let statuses = async |query: &str| -> Vec<String> {
        let json = server.get(&format!("/api/v1/transitions{query}")).await.json();
        let rows = json.as_array().unwrap();
        rows.iter().map(|row| row["to_status"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(statuses("").await, ["SUBMITTED", "FAILED", "COMPLETED"]);
    assert_eq!(statuses("?store_id=1234567890&job_id=2222222222").await, ["SUBMITTED", "COMPLETED"]);
    assert_eq!(statuses("?since=2026-03-01T08:01:00Z").await, ["FAILED", "COMPLETED"]);
    assert_eq!(statuses("?since=2026-03-01T08:01:00Z&limit=1").await, ["FAILED"]);
    assert_eq!(statuses("?limit=1").await, ["COMPLETED"]);
    for (query, named) in [
        ("?since=yesterday", "since"),
        ("?limit=0", "limit"),
        ("?limit=10001", "limit"),
        ("?job_id=abc", "job_id"),
        ("?store_id=", "store_id"),
        ("?limt=3", "limt"),
        ("?since=%FF", "since"),
        ("?after=-1", "after"),
        ("?after=last", "after"),
        ("?after=", "after"),
        ("?after=1&after=2", "after"),
    ] {
        let response = server.get(&format!("/api/v1/transitions{query}")).await;
        assert_eq!(response.status, 400, "{query}");
        assert!(response.json()["error"].as_str().unwrap().contains(named), "{query}: {}", response.body);
    }
}

/// The statuses and the last id of a page, and the link to the next page.
async fn page(server: &Server, path: &str) -> (Vec<String>, Option<i64>, Option<String>) {
    let response = server.get(path).await;
    assert_eq!(response.status, 200, "{path}: {}", response.body);
    let json = response.json();
    let rows = json.as_array().unwrap();
    let statuses = rows.iter().map(|row| row["to_status"].as_str().unwrap().to_owned()).collect();
    let next = response.headers.get("link").map(|link| {
        let query = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).expect("a link");
        format!("/api/v1/transitions{query}")
    });
    (statuses, rows.last().map(|row| row["id"].as_i64().unwrap()), next)
}

#[tokio::test]
async fn fault_143_a_client_that_follows_transitions_receives_each_once() {
    let time = |second: usize| format!("2026-03-01T08:00:{second:02}.000Z");
    let statuses: Vec<String> = (0..10).map(|number| format!("S{number}")).collect();
    let rows = (0..10).map(|number| row("2222222222", None, &statuses[number], &time(number)));
    let server = Server::with(Limits::default(), rows).await;
    for (first, expected) in [
        ("/api/v1/transitions?after=0&limit=3", &statuses[..]),
        ("/api/v1/transitions?since=2026-03-01T08:00:02Z&limit=3", &statuses[2..]),
        ("/api/v1/transitions?since=2026-03-01T08:00:02Z&after=5&limit=5&kind=reference_import", &statuses[5..]),
        ("/api/v1/transitions?job_id=2222222222&store_id=1234567890&limit=2&after=0", &statuses[..]),
        ("/api/v1/transitions?after=10", &[]),
        ("/api/v1/transitions?since=2027-03-01T08:00:02%2B01:00", &[]),
    ] {
        let (mut received, mut next) = (Vec::new(), Some(first.to_owned()));
        while let Some(path) = next {
            let (page, _, link) = page(&server, &path).await;
            received.extend(page);
            next = link;
        }
        assert_eq!(received, expected, "{first}");
    }
    let (latest, last, next) = page(&server, "/api/v1/transitions?limit=3").await;
    assert_eq!((latest, next), (statuses[7..].to_vec(), None), "the latest transitions have no next page");
    let new = server.append(row("3333333333", None, "NEW", &time(1))).await;
    let after = format!("/api/v1/transitions?after={}", last.expect("an id"));
    assert_eq!(page(&server, &after).await, (vec!["NEW".to_owned()], Some(new), None));
    // The client read another database: it would miss transitions with lower ids.
    let response = server.get(&format!("/api/v1/transitions?after={}", new + 1)).await;
    assert_eq!(response.status, 410);
    assert!(response.json()["error"].as_str().unwrap().contains("after=0"), "{}", response.body);
}

#[tokio::test]
async fn fault_143_an_unknown_parameter_is_an_error_on_every_endpoint() {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::InProgress));
    server.shared.update_daemon(|daemon| daemon.config_loaded_at = Some(at("2026-03-01T08:00:00Z")));
    for path in [
        "/",
        "/jobs/reference_import/1234567890/2222222222",
        "/style.css",
        "/metrics",
        "/-/healthy",
        "/-/ready",
        "/api/v1/daemon",
        "/api/v1/jobs",
        "/api/v1/stores",
        "/api/v1/transitions",
        "/config",
    ] {
        assert_eq!(server.get(&format!("{path}?")).await.status, 200, "{path}");
        let response = server.get(&format!("{path}?sinse=1d")).await;
        assert_eq!(response.status, 400, "{path}: {}", response.body);
        let error = if path.starts_with("/api/") { response.json()["error"].to_string() } else { response.body };
        assert!(error.contains("sinse"), "{path}: {error}");
        let known = match path {
            "/" => "refresh",
            "/api/v1/jobs" => "`kind`",
            "/api/v1/transitions" => "after",
            _ => "no parameters",
        };
        assert!(error.contains(known), "{path}: {error}");
    }
    // Prometheus sends the `params` of a scrape configuration.
    assert_eq!(server.get("/metrics?name[]=a&collect%5B%5D=b&name[]=c").await.status, 200);
    assert_eq!(server.get("/none?a=b").await.status, 404);
}
