//! `/api/v1/transitions`.

use super::*;

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
    assert_eq!(statuses("?limit=1").await, ["COMPLETED"]);
    for (query, named) in [
        ("?since=yesterday", "since"),
        ("?limit=0", "limit"),
        ("?limit=10001", "limit"),
        ("?job_id=abc", "job_id"),
        ("?store_id=", "store_id"),
        ("?limt=3", "limt"),
        ("?since=%FF", "since"),
    ] {
        let response = server.get(&format!("/api/v1/transitions{query}")).await;
        assert_eq!(response.status, 400, "{query}");
        assert!(response.json()["error"].as_str().unwrap().contains(named), "{query}: {}", response.body);
    }
}
