//! Faults 33 to 49 but for credentials that do not come: what AWS refuses an identity, and what it does not know.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use refwatch::clock::Clock;
use refwatch::core::time::Monotonic;
use rustix::process::Signal;
use serde_json::json;

use super::service::{Asked, JOB, STORE, Service, config, daemon, job, refusal, response};
use crate::process::{Scene, eventually, get, json as api, metric};
use crate::truth::transitions;

pub(super) const FAILURES: &str = "refwatch_api_request_failures_total";

/// The first delay of the configuration's backoff, as it may be cut by jitter: three times what the quota asks for.
const PAUSE_MIN: Duration = Duration::from_millis(150);

/// After three refusals there is one probe at a time, but for what was in flight then.
const PROBES_FROM: usize = 6;

/// Credentials from the environment, accepted by nobody who looks at them.
const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_SECRET_ACCESS_KEY", "secret")];

/// The ids of so many jobs.
pub(super) fn ids(count: usize) -> Vec<String> {
    (0..count).map(|nth| (5_000_000_000 + nth).to_string()).collect()
}

/// A service that says what `refused` says while `refusing`, and else that every job goes on.
fn refusing(refused: impl Fn() -> String + Send + Sync + 'static) -> (Service, Arc<AtomicBool>) {
    let refusing = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&refusing);
    let answer = move |asked: &Asked| if now.load(Ordering::SeqCst) { refused() } else { job(asked, &json!({})) };
    (Service::new(answer), refusing)
}

/// From the `first` on no request came sooner than a pause after the one before it.
#[track_caller]
pub(super) fn assert_paced(first: usize, asked: impl Fn() -> Vec<Asked>) {
    let asked = eventually("probes", || Some(asked()).filter(|asked| asked.len() > first + 1));
    let times: Vec<Monotonic> = asked.iter().skip(first).map(|asked| asked.at).collect();
    assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= PAUSE_MIN), "{times:?}");
}

pub(super) fn ready(address: std::net::SocketAddr, wanted: u16) -> String {
    eventually("readiness", || Some(get(address, "/-/ready")).filter(|(status, _)| *status == wanted)).1
}

#[test]
fn fault_033_034_035_an_identity_that_is_refused_slows_its_target_alone_and_says_what_to_check() {
    let scene = Scene::new();
    let ahead = || {
        let date = Clock::system().now().wall + jiff::SignedDuration::from_hours(1);
        let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let headers = format!("x-amzn-errortype: RequestTimeTooSkewed\r\nDate: {date}\r\n");
        response("403 No", &headers, r#"{"message": "no"}"#)
    };
    let cases = [
        (
            "signature",
            refusing(|| refusal(403, "InvalidSignatureException")),
            "check the secret key and this machine's clock)",
        ),
        ("skewed", refusing(ahead), "s behind the service's)"),
        ("unknown", refusing(|| refusal(403, "UnrecognizedClientException")), "check the access key"),
        ("token", refusing(|| refusal(403, "InvalidClientTokenId")), "check the access key"),
    ];
    let healthy = Service::new(|asked| job(asked, &json!({})));
    let jobs = ids(10);
    let targets: Vec<_> = cases.iter().map(|(name, (service, _), _)| (*name, service.address, "")).collect();
    let targets = [targets, vec![("healthy", healthy.address, "")]].concat();
    let entries: Vec<_> =
        targets.iter().flat_map(|(name, ..)| jobs.iter().map(|id| (*name, STORE, id.as_str()))).collect();
    let (daemon, address) = daemon(&scene, &config(&targets, &entries), &KEYS);
    let reason = ready(address, 503);
    assert!(reason.contains("target \"") && reason.contains("is down: "), "{reason}");
    for (name, (service, _), advice) in &cases {
        let refused = eventually("the refusal", || {
            let log = daemon.stderr();
            log.lines()
                .find(|line| line.contains("credentials_rejected") && line.contains(&format!("target={name}")))
                .map(str::to_owned)
        });
        assert!(refused.contains(advice), "{refused}");
        assert_paced(PROBES_FROM, || service.asked());
    }
    healthy.wait_for(40);
    for (_, (_, refusing), _) in &cases {
        refusing.store(false, Ordering::SeqCst);
    }
    ready(address, 200);
    eventually("every job of every target", || {
        (transitions(&scene.path("refwatch.db")).len() == entries.len()).then_some(())
    });
    assert!(!get(address, "/").1.contains("is down"), "it is over");
}

#[test]
fn fault_036_a_store_that_is_denied_slows_itself_alone() {
    let scene = Scene::new();
    let denied = format!(" /referencestore/{STORE}/");
    let service = Service::new(move |asked| {
        if asked.head.contains(&denied) { refusal(403, "AccessDeniedException") } else { job(asked, &json!({})) }
    });
    let jobs = ids(10);
    let of = |store: &'static str| jobs.iter().map(move |id| ("default", store, id.as_str()));
    let entries: Vec<_> = of(STORE).chain(of("2222222222")).collect();
    let (daemon, address) = daemon(&scene, &config(&[("default", service.address, "")], &entries), &KEYS);
    eventually("the refusal", || daemon.stderr().contains("event=\"access_refused\"").then_some(()));
    let of_denied = || -> Vec<Asked> {
        service.asked().into_iter().filter(|asked| asked.head.contains(&format!("/{STORE}/"))).collect()
    };
    assert_paced(PROBES_FROM, of_denied);
    service.wait_for(80);
    assert_eq!(transitions(&scene.path("refwatch.db")).len(), jobs.len(), "all of the other store");
    assert_eq!(get(address, "/-/ready").0, 200);
    let log = daemon.stderr();
    assert!(
        log.contains("access denied to every job of this store") && log.contains("omics:GetReferenceImportJob"),
        "{log}"
    );
}

#[test]
fn fault_037_where_everything_is_denied_the_daemon_is_not_ready_and_names_the_action() {
    let scene = Scene::new();
    let (service, refusing) = refusing(|| refusal(403, "AccessDeniedException"));
    let jobs = ids(10);
    let of = |store: &'static str| jobs.iter().map(move |id| ("default", store, id.as_str()));
    let entries: Vec<_> = of(STORE).chain(of("2222222222")).collect();
    let text = config(&[("default", service.address, "")], &entries);
    let (daemon, address) = daemon(&scene, &text, &KEYS);
    let reason = ready(address, 503);
    let action = "allow this identity omics:GetReferenceImportJob on the reference store";
    assert!(reason.contains(action) && get(address, "/").1.contains(action), "{reason}");
    for store in [STORE, "2222222222"] {
        let of_store = |asked: &Asked| asked.head.contains(&format!("/{store}/"));
        assert_paced(PROBES_FROM, || service.asked().into_iter().filter(of_store).collect());
    }
    assert_eq!(get(address, "/-/healthy").0, 200);
    assert_eq!(daemon.stderr().matches("event=\"access_refused\"").count(), 2, "once a store: {}", daemon.stderr());
    // Nothing of the target is asked for any more, so nothing of it is refused.
    scene.write("refwatch.toml", &config(&[("default", service.address, "")], &[]));
    daemon.signal(Signal::HUP);
    ready(address, 200);
    scene.write("refwatch.toml", &text);
    daemon.signal(Signal::HUP);
    ready(address, 503);
    refusing.store(false, Ordering::SeqCst);
    ready(address, 200);
    eventually("every job", || (transitions(&scene.path("refwatch.db")).len() == entries.len()).then_some(()));
}

#[test]
fn fault_042_no_region_or_an_impossible_one_is_refused() {
    let scene = Scene::new();
    let text = config(&[("default", ([127, 0, 0, 1], 1).into(), "")], &[("default", STORE, JOB)]);
    for (region, command, expected, message) in [
        ("region = \"us west\"", "check", 78, "region"),
        ("region = \"\"", "check", 78, "region"),
        // An instance's metadata service may come to tell one, so that the file names none is no mistake.
        ("", "run", 1, "has no AWS region"),
    ] {
        let file = scene.write("refwatch.toml", &text.replace("region = \"us-west-2\"", region));
        let (status, out, said) = scene.run(&["--config", file.to_str().expect("text"), command]);
        assert_eq!(status, expected, "{region}: {out}{said}");
        assert!(said.contains(message), "{region}: {said}");
    }
}

#[test]
fn fault_043_a_region_without_health_omics_is_named() {
    let scene = Scene::new();
    let text = config(&[], &[("default", STORE, JOB)]) + "[target.default]\nregion = \"xx-nowhere-9\"\n";
    let file = scene.write("refwatch.toml", &text);
    let alone = scene.refwatch(&["--config", file.to_str().expect("text"), "run"]);
    // In a network of its own, so that no look-up leaves this machine.
    let mut command = Command::new("/usr/bin/unshare");
    command.arg("--net").arg(alone.get_program()).args(alone.get_args()).env_clear();
    command.envs(alone.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut daemon = scene.spawn(command);
    let log = eventually("the failure, or an end", || {
        let log = daemon.stderr();
        (log.contains("poll_failed") || log.contains("unshare:")).then_some(log)
    });
    if log.contains("unshare:") {
        return crate::trouble::skipped::<()>(&log).unwrap_or_default();
    }
    assert!(log.contains("(is HealthOmics offered in the region xx-nowhere-9?)"), "{log}");
    daemon.signal(Signal::TERM);
    daemon.end();
}

#[test]
fn fault_045_046_a_job_that_is_not_there_is_looked_for_rarely_and_one_that_was_has_vanished() {
    let scene = Scene::new();
    let seen = Arc::new(AtomicBool::new(false));
    let already = Arc::clone(&seen);
    let service = Service::new(move |asked| {
        if asked.head.contains("/1111111111 ") || already.load(Ordering::SeqCst) {
            return refusal(404, "ResourceNotFoundException");
        }
        job(asked, &json!({}))
    });
    let text =
        config(&[("default", service.address, "")], &[("default", STORE, "1111111111"), ("default", STORE, JOB)]);
    let (_daemon, address) = daemon(&scene, &text, &KEYS);
    let database = scene.path("refwatch.db");
    eventually("the job that is there", || (transitions(&database).len() == 1).then_some(()));
    seen.store(true, Ordering::SeqCst);
    let watches = eventually("both to be gone", || {
        let watches = api(address, "/api/v1/jobs");
        (watches[1]["vanished"] == true && watches[0]["up"] == false).then_some(watches)
    });
    assert_eq!((&watches[0]["status"], &watches[0]["state"]), (&().into(), &"live".into()));
    assert_eq!(watches[0]["recent_failures"][0]["reason"], "not_found");
    assert_eq!((&watches[1]["status"], &watches[1]["state"]), (&"IN_PROGRESS".into(), &"live".into()));
    assert_eq!(details(&scene), ["vanished"]);
    assert_eq!(transitions(&database).len(), 1, "it is not FAILED");
    let of_missing = || service.asked().into_iter().filter(|asked| asked.head.contains("/1111111111 ")).collect();
    assert_paced(0, of_missing);
    assert_eq!(get(address, "/-/ready").0, 200);
}

/// The kinds of details in the database, in their order.
fn details(scene: &Scene) -> Vec<String> {
    let database = rusqlite::Connection::open(scene.path("refwatch.db")).expect("the database");
    let mut kinds = database.prepare("SELECT kind FROM details ORDER BY id").expect("a table");
    let kinds = kinds.query_map([], |row| row.get(0)).expect("rows");
    kinds.collect::<Result<_, _>>().expect("texts")
}

#[test]
fn fault_047_a_request_that_is_called_invalid_parks_its_job_until_the_configuration_changes() {
    let scene = Scene::new();
    let (service, refusing) = refusing(|| refusal(400, "ValidationException"));
    let healthy = Service::new(|asked| job(asked, &json!({})));
    let text = config(
        &[("default", service.address, ""), ("other", healthy.address, "")],
        &[("default", STORE, JOB), ("other", STORE, JOB)],
    );
    let (daemon, address) = daemon(&scene, &text, &KEYS);
    let parked = || metric(address, "refwatch_watches", &["parked"]);
    eventually("it to be parked", || (parked() == Some(1.0)).then_some(()));
    refusing.store(false, Ordering::SeqCst);
    let polled = healthy.asked().len();
    healthy.wait_for(polled + 10);
    assert_eq!(service.asked().len(), 1, "one request told it");
    scene.write("refwatch.toml", &text.replacen("name = \"default/", "name = \"again/", 1));
    daemon.signal(Signal::HUP);
    eventually("another poll", || (parked() == Some(0.0) && service.asked().len() > 1).then_some(()));
}
