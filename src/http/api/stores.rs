//! `/api/v1/stores`: every store whose jobs are discovered, as JSON.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::core::sanitize::Sanitized;
use crate::http::app_state::AppState;
use crate::http::response::{json, rfc3339};

/// A `[[store]]` entry of the configuration and one of its kinds. An entry with two kinds appears twice. `watch` is the name of the entry.
/// Every watch that is discovered through it has this name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreInfo {
    pub watch: String,
    pub target: String,
    pub kind: String,
    pub store_id: String,
    pub last_listed_at: Option<String>,
    pub error: Option<String>,
}

pub(in crate::http) async fn list(State(state): State<AppState>) -> Response {
    let stores = state.shared.stores();
    let stores = stores.iter().map(|store| StoreInfo {
        watch: store.name.to_string(),
        target: store.id.target.to_string(),
        kind: store.id.kind.to_string(),
        store_id: store.id.store.to_string(),
        last_listed_at: store.listed_at.map(rfc3339),
        error: store.error.clone(),
    });
    json(StatusCode::OK, &stores.collect::<Vec<_>>())
}

/// The sanitized name and id of a store: "shared references (1234567890)". Only the id if it is also the name.
pub(crate) fn display_name(name: &str, id: &str) -> String {
    let text = if name == id { id.to_owned() } else { format!("{name} ({id})") };
    Sanitized(&text).to_string()
}
