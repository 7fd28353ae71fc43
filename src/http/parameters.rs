//! The query parameters of the endpoints that have any. An unknown parameter is an error: a misspelled filter would otherwise be ignored.

use std::error::Error as _;

use axum::extract::{FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::response::{json_error, sanitized_lines};

/// The parameters of an endpoint. If `T` is a struct, it must deny unknown fields.
pub(super) struct Parameters<T>(pub T);

/// The response 400: JSON below `/api`, otherwise one line of text.
#[derive(Clone, Debug, thiserror::Error)]
#[error("invalid query: {message}")]
pub(super) struct InvalidParameters {
    message: String,
    is_json: bool,
}

/// For endpoints without query parameters. Prometheus adds the `params` of its scrape configuration, such as `collect[]`, so names that end
/// with `[]` are ignored.
#[derive(Debug)]
pub(super) struct NoQueryParameters;

impl InvalidParameters {
    fn new(parts: &Parts, message: String) -> Self {
        Self { message, is_json: parts.uri.path().starts_with("/api/") }
    }
}

impl IntoResponse for InvalidParameters {
    fn into_response(self) -> Response {
        let message = self.to_string();
        if self.is_json {
            return json_error(StatusCode::BAD_REQUEST, message);
        }
        (StatusCode::BAD_REQUEST, sanitized_lines(&message) + "\n").into_response()
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = InvalidParameters;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, InvalidParameters> {
        let Query(parameters) = Query::try_from_uri(&parts.uri).map_err(|rejection| {
            // The source is the error of serde without axum's prefix.
            let message = rejection.source().map_or_else(|| rejection.body_text(), ToString::to_string);
            InvalidParameters::new(parts, message)
        })?;
        Ok(Self(parameters))
    }
}

impl<S: Sync> FromRequestParts<S> for NoQueryParameters {
    type Rejection = InvalidParameters;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, InvalidParameters> {
        let Parameters(pairs) = Parameters::<Vec<(String, String)>>::from_request_parts(parts, &()).await?;
        match pairs.iter().find(|(name, _)| !name.ends_with("[]")) {
            Some((name, _)) => {
                Err(InvalidParameters::new(parts, format!("unknown parameter `{name}`: this path has no parameters")))
            }
            None => Ok(Self),
        }
    }
}
