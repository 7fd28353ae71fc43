//! Faults 33 to 47: requests that AWS rejects, by credentials, permissions, region or job.
//!
//! Each test checks that only the affected target, store or job slows down, that probes are paced, and that log, page and
//! readiness say what to do.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use refwatch::clock::Clock;
use refwatch::core::time::Monotonic;
use rustix::process::Signal;
use serde_json::json;

use super::service::{JOB, Request, STORE, Service, config, daemon, job, refusal, response};
use crate::process::{Workspace, eventually, get, json as api, metric};
use crate::transition_rows::transitions;

pub(super) const FAILURES: &str = "refwatch_api_request_failures_total";

/// The least delay of the configured backoff with jitter: three times the quota's interval.
const PAUSE_MIN: Duration = Duration::from_millis(150);

/// After three failures one probe is sent at a time. Up to six requests may be out by then.
const PROBES_FROM: usize = 6;

/// Credentials from the environment; the services accept any.
const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_SECRET_ACCESS_KEY", "secret")];

/// Job ids.
pub(super) fn ids(count: usize) -> Vec<String> {
    (0..count).map(|nth| (5_000_000_000 + nth).to_string()).collect()
}

/// A service that returns `error` while the flag is set, and a running job otherwise.
fn rejecting(error: impl Fn() -> String + Send + Sync + 'static) -> (Service, Arc<AtomicBool>) {
    let rejecting = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&rejecting);
    let respond = move |request: &Request| if now.load(Ordering::SeqCst) { error() } else { job(request, &json!({})) };
    (Service::new(respond), rejecting)
}

/// Asserts the pause between requests, from request `first` on.
#[track_caller]
pub(super) fn assert_paced(first: usize, requests: impl Fn() -> Vec<Request>) {
    let requests = eventually("probes", || Some(requests()).filter(|requests| requests.len() > first + 1));
    let times: Vec<Monotonic> = requests.iter().skip(first).map(|request| request.at).collect();
    assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= PAUSE_MIN), "{times:?}");
}

pub(super) fn ready(address: std::net::SocketAddr, wanted: u16) -> String {
    eventually("readiness", || Some(get(address, "/-/ready")).filter(|(status, _)| *status == wanted)).1
}

#[test]
fn fault_033_034_035_rejected_credentials_slow_only_their_target_and_the_log_gives_advice() {
    let workspace = Workspace::new();
    let skewed = || {
        let date = Clock::system().now().wall + jiff::SignedDuration::from_hours(1);
        let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let headers = format!("x-amzn-errortype: RequestTimeTooSkewed\r\nDate: {date}\r\n");
        response("403 No", &headers, r#"{"message": "no"}"#)
    };
    let cases = [
        (
            "signature",
            rejecting(|| refusal(403, "InvalidSignatureException")),
            "check the secret key and this machine's clock)",
        ),
        ("skewed", rejecting(skewed), "s behind the service's)"),
        ("unknown", rejecting(|| refusal(403, "UnrecognizedClientException")), "check the access key"),
        ("token", rejecting(|| refusal(403, "InvalidClientTokenId")), "check the access key"),
    ];
    let healthy = Service::new(|request| job(request, &json!({})));
    let jobs = ids(10);
    let targets: Vec<_> = cases.iter().map(|(name, (service, _), _)| (*name, service.address, "")).collect();
    let targets = [targets, vec![("healthy", healthy.address, "")]].concat();
    let entries: Vec<_> =
        targets.iter().flat_map(|(name, ..)| jobs.iter().map(|id| (*name, STORE, id.as_str()))).collect();
    let (daemon, address) = daemon(&workspace, &config(&targets, &entries), &KEYS);
    let reason = ready(address, 503);
    assert!(reason.contains("target \"") && reason.contains("is down: "), "{reason}");
    for (name, (service, _), advice) in &cases {
        let rejected = eventually("the rejection", || {
            let log = daemon.stderr();
            log.lines()
                .find(|line| line.contains("credentials_rejected") && line.contains(&format!("target={name}")))
                .map(str::to_owned)
        });
        assert!(rejected.contains(advice), "{rejected}");
        assert_paced(PROBES_FROM, || service.requests());
    }
    healthy.wait_for(40);
    for (_, (_, rejecting), _) in &cases {
        rejecting.store(false, Ordering::SeqCst);
    }
    ready(address, 200);
    eventually("every job of every target", || {
        (transitions(&workspace.path("refwatch.db")).len() == entries.len()).then_some(())
    });
    assert!(!get(address, "/").1.contains("is down"), "the alert is gone");
}

#[test]
fn fault_036_a_denied_store_slows_only_its_own_jobs() {
    let workspace = Workspace::new();
    let denied = format!(" /referencestore/{STORE}/");
    let service = Service::new(move |request| {
        if request.head.contains(&denied) { refusal(403, "AccessDeniedException") } else { job(request, &json!({})) }
    });
    let jobs = ids(10);
    let of = |store: &'static str| jobs.iter().map(move |id| ("default", store, id.as_str()));
    let entries: Vec<_> = of(STORE).chain(of("2222222222")).collect();
    let (daemon, address) = daemon(&workspace, &config(&[("default", service.address, "")], &entries), &KEYS);
    eventually("the rejection", || daemon.stderr().contains("event=\"access_denied_to_store\"").then_some(()));
    let of_denied = || -> Vec<Request> {
        service.requests().into_iter().filter(|request| request.head.contains(&format!("/{STORE}/"))).collect()
    };
    assert_paced(PROBES_FROM, of_denied);
    service.wait_for(80);
    assert_eq!(transitions(&workspace.path("refwatch.db")).len(), jobs.len(), "all jobs of the other store");
    assert_eq!(get(address, "/-/ready").0, 200);
    let log = daemon.log_with("access denied to every job of this kind in this store");
    assert!(log.contains("omics:GetReferenceImportJob"), "{log}");
}

#[test]
fn fault_037_if_everything_is_denied_the_daemon_is_not_ready_and_names_the_action() {
    let workspace = Workspace::new();
    let (service, rejecting) = rejecting(|| refusal(403, "AccessDeniedException"));
    let jobs = ids(10);
    let of = |store: &'static str| jobs.iter().map(move |id| ("default", store, id.as_str()));
    let entries: Vec<_> = of(STORE).chain(of("2222222222")).collect();
    let text = config(&[("default", service.address, "")], &entries);
    let (daemon, address) = daemon(&workspace, &text, &KEYS);
    let reason = ready(address, 503);
    let action = "allow this identity omics:GetReferenceImportJob on the reference store";
    assert!(reason.contains(action) && get(address, "/").1.contains(action), "{reason}");
    for store in [STORE, "2222222222"] {
        let of_store = |request: &Request| request.head.contains(&format!("/{store}/"));
        assert_paced(PROBES_FROM, || service.requests().into_iter().filter(of_store).collect());
    }
    assert_eq!(get(address, "/-/healthy").0, 200);
    assert_eq!(
        daemon.stderr().matches("event=\"access_denied_to_store\"").count(),
        2,
        "one per store: {}",
        daemon.stderr()
    );
    // A target without jobs counts as up.
    workspace.write("refwatch.toml", &config(&[("default", service.address, "")], &[]));
    daemon.signal(Signal::HUP);
    ready(address, 200);
    workspace.write("refwatch.toml", &text);
    daemon.signal(Signal::HUP);
    ready(address, 503);
    rejecting.store(false, Ordering::SeqCst);
    ready(address, 200);
    eventually("every job", || (transitions(&workspace.path("refwatch.db")).len() == entries.len()).then_some(()));
}

#[test]
fn fault_042_a_missing_or_invalid_region_is_rejected() {
    let workspace = Workspace::new();
    let text = config(&[("default", ([127, 0, 0, 1], 1).into(), "")], &[("default", STORE, JOB)]);
    for (region, command, expected, message) in [
        ("region = \"us west\"", "check", 78, "region"),
        ("region = \"\"", "check", 78, "region"),
        ("", "check", 78, "has no AWS region"),
        ("", "run", 78, "has no AWS region"),
    ] {
        let file = workspace.write("refwatch.toml", &text.replace("region = \"us-west-2\"", region));
        let (status, out, error) = workspace.run(&["--config", file.to_str().expect("text"), command]);
        assert_eq!(status, expected, "{region}: {out}{error}");
        assert!(error.contains(message), "{region}: {error}");
    }
}

#[test]
fn fault_043_a_region_without_healthomics_is_named() {
    let workspace = Workspace::new();
    let text = config(&[], &[("default", STORE, JOB)]) + "[target.default]\nregion = \"xx-nowhere-9\"\n";
    let file = workspace.write("refwatch.toml", &text);
    let alone = workspace.refwatch(&["--config", file.to_str().expect("text"), "run"]);
    // In an empty network namespace: no lookup leaves this machine.
    let mut command = Command::new("/usr/bin/unshare");
    command.arg("--net").arg(alone.get_program()).args(alone.get_args()).env_clear();
    command.envs(alone.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut daemon = workspace.spawn(command);
    let log = eventually("the failure, or an error of unshare", || {
        let log = daemon.stderr();
        (log.contains("poll_failed") || log.contains("unshare:")).then_some(log)
    });
    if log.contains("unshare:") {
        return crate::disk_faults::skipped::<()>(&log).unwrap_or_default();
    }
    assert!(
        log.contains("(check the region xx-nowhere-9, name resolution and, if it is set, AWS_ENDPOINT_URL)"),
        "{log}"
    );
    daemon.signal(Signal::TERM);
    daemon.end();
}

#[test]
fn fault_045_046_a_missing_job_is_polled_rarely_and_a_known_job_that_returns_404_has_vanished() {
    let workspace = Workspace::new();
    let seen = Arc::new(AtomicBool::new(false));
    let missing = Arc::clone(&seen);
    let service = Service::new(move |request| {
        if request.head.contains("/1111111111 ") || missing.load(Ordering::SeqCst) {
            return refusal(404, "ResourceNotFoundException");
        }
        job(request, &json!({}))
    });
    let text =
        config(&[("default", service.address, "")], &[("default", STORE, "1111111111"), ("default", STORE, JOB)]);
    let (_daemon, address) = daemon(&workspace, &text, &KEYS);
    let database = workspace.path("refwatch.db");
    eventually("the existing job", || (transitions(&database).len() == 1).then_some(()));
    seen.store(true, Ordering::SeqCst);
    let watches = eventually("both to return 404", || {
        let watches = api(address, "/api/v1/jobs");
        (watches[1]["vanished"] == true && watches[0]["up"] == false).then_some(watches)
    });
    assert_eq!((&watches[0]["status"], &watches[0]["state"]), (&().into(), &"live".into()));
    assert_eq!(watches[0]["recent_failures"][0]["reason"], "not_found");
    assert_eq!((&watches[1]["status"], &watches[1]["state"]), (&"IN_PROGRESS".into(), &"live".into()));
    assert_eq!(details(&workspace), ["vanished"]);
    assert_eq!(transitions(&database).len(), 1, "404 adds no transition");
    let of_missing =
        || service.requests().into_iter().filter(|request| request.head.contains("/1111111111 ")).collect();
    assert_paced(0, of_missing);
    assert_eq!(get(address, "/-/ready").0, 200);
}

/// The kinds of details in the database, in order.
fn details(workspace: &Workspace) -> Vec<String> {
    let database = rusqlite::Connection::open(workspace.path("refwatch.db")).expect("the database");
    let mut kinds = database.prepare("SELECT detail FROM details ORDER BY id").expect("a table");
    let kinds = kinds.query_map([], |row| row.get(0)).expect("rows");
    kinds.collect::<Result<_, _>>().expect("texts")
}

#[test]
fn fault_047_a_validation_error_parks_the_job_until_the_configuration_changes() {
    let workspace = Workspace::new();
    let (service, rejecting) = rejecting(|| refusal(400, "ValidationException"));
    let healthy = Service::new(|request| job(request, &json!({})));
    let text = config(
        &[("default", service.address, ""), ("other", healthy.address, "")],
        &[("default", STORE, JOB), ("other", STORE, JOB)],
    );
    let (daemon, address) = daemon(&workspace, &text, &KEYS);
    let parked = || metric(address, "refwatch_watches", &["parked"]);
    eventually("the job to be parked", || (parked() == Some(1.0)).then_some(()));
    rejecting.store(false, Ordering::SeqCst);
    let polled = healthy.requests().len();
    healthy.wait_for(polled + 10);
    assert_eq!(service.requests().len(), 1, "a parked job is not polled");
    workspace.write("refwatch.toml", &text.replacen("name = \"default/", "name = \"again/", 1));
    daemon.signal(Signal::HUP);
    eventually("another poll", || (parked() == Some(0.0) && service.requests().len() > 1).then_some(()));
}
