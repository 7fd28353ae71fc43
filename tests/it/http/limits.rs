//! Faults 99 to 109: requests that the server rejects, and clients that it does not wait for.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::*;
use crate::process::expect_closed;

#[tokio::test]
async fn fault_105_an_unknown_path_returns_404() {
    let server = Server::start().await;
    server.shared.publish(view("2222222222", JobStatus::InProgress));
    for path in [
        "/..",
        "/../etc/passwd",
        "//",
        "//metrics",
        "/%2f",
        "/%2e%2e/metrics",
        "/%00",
        "/metrics/",
        "/style.css%00",
        "/jobs/reference_import/1234567890",
        "/jobs/reference_import/1234567890/..",
        "/jobs/reference_import/1234567890/2222222222%2f..",
        "/jobs/reference_import/1234567890/9999999999",
        "/jobs/reference_import/%3Cscript%3E/2222222222",
    ] {
        let response = server.get(path).await;
        assert_eq!(response.status, 404, "{path}");
        assert_eq!(response.headers["x-content-type-options"], "nosniff", "{path}");
    }
}

#[tokio::test]
async fn fault_106_a_foreign_or_missing_host_header_is_rejected() {
    let server = Server::start().await;
    let port = server.address.port();
    for (host, status) in [
        (format!("Host: 127.0.0.1:{port}\r\n"), 200),
        ("Host: localhost\r\n".to_owned(), 200),
        ("Host: LocalHost:1\r\n".to_owned(), 200),
        ("Host: [::1]:80\r\n".to_owned(), 200),
        ("Host: 192.0.2.7\r\n".to_owned(), 200),
        ("Host: refwatch.example:443\r\n".to_owned(), 200),
        ("Host: REFWATCH.example\r\n".to_owned(), 200),
        ("Host: refwatch.examples\r\n".to_owned(), 421),
        ("Host: refwatch.example.attacker.example\r\n".to_owned(), 421),
        ("Host: attacker.example\r\n".to_owned(), 421),
        ("Host: localhost.attacker.example\r\n".to_owned(), 421),
        ("Host: 127.0.0.1.attacker.example\r\n".to_owned(), 421),
        (String::new(), 400),
        ("Host:\r\n".to_owned(), 400),
        ("Host: localhost\r\nHost: attacker.example\r\n".to_owned(), 400),
    ] {
        let response = server.raw(&format!("GET /-/healthy HTTP/1.1\r\n{host}Connection: close\r\n\r\n")).await;
        assert_eq!(Response::parse(&response).status, status, "{host}");
    }
    let absolute = "GET http://attacker.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(Response::parse(&server.raw(absolute).await).status, 400);
}

#[tokio::test]
async fn fault_104_108_109_only_get_and_head_without_a_body_are_accepted() {
    let server = Server::start().await;
    for (method, path) in [("POST", "/"), ("DELETE", "/metrics"), ("TRACE", "/"), ("OPTIONS", "/"), ("PUT", "/none")] {
        let response = server.request(method, path).await;
        assert_eq!((response.status, response.headers["allow"].as_str()), (405, "GET, HEAD"), "{method} {path}");
    }
    for (body, status) in [
        ("Content-Length: 9000000000\r\n\r\n", 413),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ] {
        // Without `Connection: close` the server must close by itself.
        let response = server.raw(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{body}")).await;
        assert_eq!(Response::parse(&response).status, status, "{body}");
    }
}

#[tokio::test]
async fn fault_099_100_missing_or_slow_headers_end_the_connection() {
    assert_eq!(Limits::default().header_read, Duration::from_secs(5), "the documented deadline");
    let limits = Limits { header_read: Duration::from_millis(50), connection_age: DEADLINE * 3, ..Limits::default() };
    let server = Server::with(limits, []).await;
    for beginning in ["", "GET / HTTP/1.1\r\nHost: local"] {
        let response = server.raw(beginning).await;
        assert!(!response.contains("200 OK"), "{response}");
    }
    // A slow trickle does not extend the deadline of the whole head.
    let mut stream = server.connect().await;
    let (mut reader, mut writer) = stream.split();
    let trickle = async {
        writer.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ").await?;
        loop {
            writer.write_all(b"x").await?;
            tokio::task::yield_now().await;
        }
    };
    let mut response = Vec::new();
    tokio::select! {
        ended = tokio::time::timeout(DEADLINE, reader.read_to_end(&mut response)) => drop(ended.expect("the server closes")),
        failed = trickle => drop::<std::io::Result<()>>(failed),
    }
    assert!(!response.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn fault_102_oversized_headers_are_rejected() {
    let server = Server::start().await;
    let long = "x".repeat(1_000_000);
    let many = "X: y\r\n".repeat(10_000);
    for headers in [&format!("X: {}\r\n", &long[..20_000]), &format!("X: {long}\r\n"), &many[..600], &many] {
        let mut stream = server.connect().await;
        let (mut reader, mut writer) = stream.split();
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        // The server responds before the request is complete, so writing may fail. Reading must happen at once, or a reset discards it.
        let (_, response) = tokio::join!(writer.write_all(request.as_bytes()), async {
            let mut status = [0; 13];
            reader.read_exact(&mut status).await.map(|_| status)
        });
        assert_eq!(response.unwrap(), *b"HTTP/1.1 431 ", "{} bytes of headers", headers.len());
    }
}

#[tokio::test]
async fn fault_103_a_client_that_does_not_read_is_disconnected() {
    let (connection_age, last_request_grace) = (Duration::from_millis(100), Duration::from_millis(100));
    expect_disconnection(Limits { connection_age, last_request_grace, ..Limits::default() }).await;
}

#[tokio::test]
async fn fault_129_a_client_that_stops_reading_is_disconnected() {
    assert_eq!(Limits::default().tcp_user_timeout, Duration::from_secs(5));
    expect_disconnection(Limits {
        tcp_user_timeout: Duration::from_secs(1),
        connection_age: DEADLINE * 3,
        ..Limits::default()
    })
    .await;
}

/// Requests more than the socket buffers hold, and waits until the server has closed the connection.
async fn expect_disconnection(limits: Limits) {
    let server = Server::with(limits, []).await;
    let config = "# a line of the running configuration\n".repeat(300_000);
    let shown = config.clone();
    server.shared.update_daemon(|daemon| daemon.effective_config = shown.into());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    // Writing fails once the server has closed the connection.
    let cut = async {
        while stream.write_all(b"\r\n").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, cut).await.expect("the server cuts the connection");
    assert!(read_to_end(&mut stream).await.len() < config.len());
    assert_eq!(server.get("/-/healthy").await.status, 200);
}

#[test]
fn a_response_that_is_rendered_after_the_age_of_its_connection_reaches_the_client() {
    // One blocking thread: rendering waits until the test frees it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let (connection_age, stop_grace) = (Duration::from_millis(200), Duration::from_millis(100));
        let server = Server::with(Limits { connection_age, stop_grace, ..Limits::default() }, []).await;
        let (free, is_freed) = std::sync::mpsc::channel();
        let busy = tokio::task::spawn_blocking(move || is_freed.recv());
        let mut stream = server.connect().await;
        stream.write_all(b"GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        Clock::system().sleep((connection_age + stop_grace) * 2).await;
        free.send(()).unwrap();
        busy.await.unwrap().unwrap();
        assert_eq!(Response::parse(&read_to_end(&mut stream).await).status, 200);
    });
}

#[tokio::test]
async fn responses_are_counted_by_status_and_rejected_requests_too() {
    let hash = bcrypt::hash("open sesame", 10).unwrap().parse().unwrap();
    let server = Server::with_users(Limits::default(), [], BTreeMap::from([("prometheus".to_owned(), hash)])).await;
    let login = BASE64_STANDARD.encode("prometheus:open sesame");
    let login = format!("Host: localhost\r\nAuthorization: Basic {login}\r\n");
    let large = format!("X: {}\r\n", "x".repeat(20_000));
    for (method, path, headers, status) in [
        ("GET", "/-/healthy", &*login, 200),
        ("GET", "/-/healthy", "", 400),
        ("GET", "/-/healthy", "Host: localhost\r\n", 401),
        ("GET", "/none", &login, 404),
        ("POST", "/", &login, 405),
        ("GET", "/", "Host: attacker.example\r\n", 421),
        ("GET", "/", &large, 431),
        ("GET", "/-/ready", &login, 503),
    ] {
        let response = server.raw(&format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n")).await;
        assert_eq!(Response::parse(&response).status, status, "{path} {headers}");
        // The scrapes themselves are counted after their rendering.
        let scrape = server.raw(&format!("GET /metrics HTTP/1.1\r\n{login}Connection: close\r\n\r\n")).await;
        let series = format!("\nrefwatch_http_requests_total{{code=\"{status}\"}} 1\n");
        assert!(scrape.contains(&series), "{series} in {scrape}");
    }
}

#[tokio::test]
async fn fault_101_a_connection_over_the_limit_waits_until_a_silent_one_times_out() {
    let limits = Limits { connections: 2, header_read: Duration::from_millis(100), ..Limits::default() };
    let server = Server::with(limits, []).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    assert_eq!(server.get("/-/healthy").await.status, 200);
    assert!(!read_to_end(&mut first).await.contains("200 OK"));
    assert!(!read_to_end(&mut second).await.contains("200 OK"));
}

#[tokio::test]
async fn a_verified_login_succeeds_while_100_wrong_logins_are_checked() {
    let hash = |password: &str| bcrypt::hash(password, 10).unwrap().parse().unwrap();
    let users = BTreeMap::from([("prometheus".to_owned(), hash("open sesame"))]);
    let server = Server::with_users(Limits::default(), [], users).await;
    let login = |password: &str| {
        let credentials = BASE64_STANDARD.encode(format!("prometheus:{password}"));
        format!(
            "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {credentials}\r\nConnection: close\r\n\r\n"
        )
    };
    assert_eq!(Response::parse(&server.raw(&login("open sesame")).await).status, 200);
    let mut wrong = Vec::new();
    for nth in 0..100 {
        let mut stream = server.connect().await;
        stream.write_all(login(&format!("guess {nth}")).as_bytes()).await.unwrap();
        wrong.push(stream);
    }
    assert_eq!(Response::parse(&server.raw(&login("open sesame")).await).status, 200);
    let mut statuses = BTreeMap::new();
    for stream in &mut wrong {
        let response = Response::parse(&read_to_end(stream).await);
        assert_eq!(response.headers.contains_key("retry-after"), response.status == 503);
        *statuses.entry(response.status).or_insert(0) += 1;
    }
    assert!(statuses[&503] > 0 && statuses[&401] > 0 && statuses.len() == 2, "{statuses:?}");
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_the_server() {
    // Only the stop ends the connection.
    let limits = Limits { header_read: DEADLINE * 3, connection_age: DEADLINE * 3, ..Limits::default() };
    let mut server = Server::with(limits, []).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(idle.read_u8().await.unwrap(), b'H');
    server.stop.cancel();
    tokio::time::timeout(DEADLINE, server.tasks.join_next()).await.expect("the server stops").unwrap().unwrap();
    assert!(read_to_end(&mut idle).await.starts_with("TTP/1.1 200 OK"));
    expect_closed(server.address);
}
