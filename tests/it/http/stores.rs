//! `/api/v1/stores`.

use super::*;

pub(super) fn store_view(store: &str, error: Option<&str>) -> StoreStatus {
    StoreStatus {
        id: TargetStore { target: "default".into(), store: store.parse().unwrap(), kind: JobKind::ReferenceImport },
        name: format!("store {store}").into(),
        listed_at: Some(at("2026-03-01T08:06:00Z")),
        error: error.map(str::to_owned),
        limit_message: None,
    }
}

#[tokio::test]
async fn the_api_shows_which_stores_are_listed_and_which_cannot_be() {
    let server = Server::start().await;
    assert_eq!(server.get("/api/v1/stores").await.json(), serde_json::json!([]));
    server.shared.publish(view("2222222222", JobStatus::InProgress));
    let other_target = TargetStore { target: "other".into(), ..target_job("2222222222").target_store() };
    let never = StoreStatus { id: other_target, listed_at: None, ..store_view(STORE, Some("denied")) };
    server.shared.publish_store(never);
    server.shared.publish_store(store_view(STORE, None));
    let expected = serde_json::json!([
        {"watch": "store 1234567890", "target": "default", "kind": "reference_import", "store_id": STORE,
         "last_listed_at": "2026-03-01T08:06:00.000Z", "error": null},
        {"watch": "store 1234567890", "target": "other", "kind": "reference_import", "store_id": STORE,
         "last_listed_at": null, "error": "denied"},
    ]);
    assert_eq!(server.get("/api/v1/stores").await.json(), expected);
}
