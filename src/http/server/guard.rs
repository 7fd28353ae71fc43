//! Guards the routes that the listener and the control socket share: checks each request, allows only GET and HEAD, and adds security
//! headers to the response. The POST endpoints of the control socket are outside the guard.
//!
//! The Host header is checked because of DNS rebinding. An attacker's host name can resolve to 127.0.0.1, so that the scripts
//! of the attacker's page could read this server in a visitor's browser. Such a request has the attacker's name as Host. IP
//! addresses do not resolve, so every IP address is allowed.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha2::{Digest as _, Sha256};

use crate::core::sanitize::Sanitized;
use crate::http::ui::html::SCRIPT;

/// A page may load its style sheet and its icon, submit a form to this server, and run one script, which may send requests to this server.
/// Everything else is forbidden.
static CONTENT_SECURITY_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Sha256::digest(SCRIPT));
    let policy = format!(
        "default-src 'none'; style-src 'self'; script-src 'sha256-{hash}'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'"
    );
    // The text is a valid header. If it were not, nothing would be allowed.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// Applies the rules of this module. `host_names` is `None` with TLS: every name is then allowed, because a browser rejects a certificate
/// for another name.
pub(super) fn guarded(router: Router, host_names: Option<Arc<[String]>>) -> Router {
    router.layer(from_fn_with_state(host_names, guard))
}

async fn guard(State(host_names): State<Option<Arc<[String]>>>, request: Request, next: Next) -> Response {
    let mut response = match rejection(&request, host_names.as_deref()) {
        Some(rejection) => rejection,
        None => next.run(request).await,
    };
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY.clone());
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn rejection(request: &Request, host_names: Option<&[String]>) -> Option<Response> {
    let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    if is_chunked || !request.body().is_end_stream() {
        // No body is allowed. A chunked body may be empty, so the response is not 413.
        let status = if is_chunked { StatusCode::BAD_REQUEST } else { StatusCode::PAYLOAD_TOO_LARGE };
        // The unread body could be parsed as the next request, so the connection is closed.
        return Some((status, [(header::CONNECTION, "close")], "a request body is not allowed\n").into_response());
    }
    match host(request) {
        None => return Some((StatusCode::BAD_REQUEST, "exactly one valid Host header is required\n").into_response()),
        Some(host) if host_names.is_some_and(|names| !is_allowed(host.host(), names)) => {
            let shown = Sanitized(host.host());
            let message = format!(
                "host {shown} is not allowed: use the IP address of the server, or add the name to allowed_hosts in [http]\n"
            );
            return Some((StatusCode::MISDIRECTED_REQUEST, message).into_response());
        }
        Some(_) => {}
    }
    let is_get = [Method::GET, Method::HEAD].contains(request.method());
    (!is_get).then(|| (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response())
}

/// `None` if the request has no valid Host header, or several, or its URL has another host or port.
fn host(request: &Request) -> Option<Authority> {
    let mut headers = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (headers.next(), headers.next()) else { return None };
    let host = Authority::try_from(host.as_bytes()).ok()?;
    // In the absolute form (RFC 9112, 3.2.2) the URL has a host, too.
    request.uri().authority().is_none_or(|authority| *authority == host).then_some(host)
}

fn is_allowed(host: &str, host_names: &[String]) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // A fully qualified name may end with a dot.
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    address.parse::<IpAddr>().is_ok() || host == "localhost" || host_names.contains(&host)
}
