//! The requirements of every request and the headers of every response.
//!
//! The Host is checked because of DNS rebinding: a web page can give its own name the address 127.0.0.1, so that a visitor's
//! browser reads this server for it. The browser then sends the name of that page as Host. An IP address cannot be rebound, so
//! every address is accepted.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};

use crate::core::sanitize::Sanitized;

/// A page may load the style sheet and submit its form, both on this server. It has no scripts and no frames.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

pub(super) fn guarded(router: Router, host_names: Option<Arc<[String]>>) -> Router {
    router.layer(from_fn_with_state(host_names, guard))
}

async fn guard(State(host_names): State<Option<Arc<[String]>>>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&request, host_names.as_deref()) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn refusal(request: &Request, host_names: Option<&[String]>) -> Option<Response> {
    // The connection closes, because a rejected body could be read as the next request.
    let close = [(header::CONNECTION, "close")];
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        return Some((StatusCode::BAD_REQUEST, close, "a request here has no body\n").into_response());
    }
    if !request.body().is_end_stream() {
        return Some((StatusCode::PAYLOAD_TOO_LARGE, close, "a request here has no body\n").into_response());
    }
    match host(request) {
        None => return Some((StatusCode::BAD_REQUEST, "one Host is needed\n").into_response()),
        Some(host) if host_names.is_some_and(|names| !is_ours(host.host(), names)) => {
            let shown = Sanitized(host.host());
            let message = format!("{shown} is no name of this server: use its IP address\n");
            return Some((StatusCode::MISDIRECTED_REQUEST, message).into_response());
        }
        Some(_) => {}
    }
    let allowed = [Method::GET, Method::HEAD].contains(request.method());
    (!allowed).then(|| (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response())
}

/// `None` if the request has no host, or several.
fn host(request: &Request) -> Option<Authority> {
    let mut named = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (named.next(), named.next()) else { return None };
    let host = Authority::try_from(host.as_bytes()).ok()?;
    // A request in absolute form names it twice.
    request.uri().authority().is_none_or(|authority| *authority == host).then_some(host)
}

fn is_ours(host: &str, host_names: &[String]) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = host.to_ascii_lowercase();
    // A name without its domain stands for the name in any domain.
    let is_name = |name: &str| host.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    address.parse::<IpAddr>().is_ok() || host == "localhost" || host_names.iter().any(|name| is_name(name))
}
