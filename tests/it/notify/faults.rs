//! Receivers that fail: what waits, what is sent again, and what goes on meanwhile.

use std::sync::{Barrier, OnceLock};
use std::time::Duration;

use refwatch::simulator::{SinkFault, SinkReply};
use rusqlite::Connection;
use rustix::process::Signal;

use super::{Host, OTHER_SECRET, SECRET, accepted, always, entry, entry_to, job_and_type, sink_in_state};
use crate::faults::service::{Service, response};
use crate::process::{between, eventually, get, json, metric};

/// The jobs of the test of a receiver that hangs: more than the requests that one sink has in flight.
const MANY: u32 = 20;
const IN_FLIGHT: usize = 8;

#[test]
fn fault_151_a_receiver_that_fails_pauses_its_sink_and_gets_every_event_once_it_recovers() {
    for fault in [SinkFault::Internal, SinkFault::Reset, SinkFault::Throttling] {
        let host = Host::new(3);
        let receiver = host.receiver(always(fault));
        let (daemon, address) = host.start(&[entry("pipeline", &receiver, "")]);
        host.end(1, "COMPLETED");
        sink_in_state(address, "pipeline", |sink| sink["state"] == "paused");
        host.end(2, "FAILED");
        host.end(3, "CANCELLED");
        let sink = sink_in_state(address, "pipeline", |sink| sink["waiting"] == 3);
        assert!(sink["next_attempt_at"].is_string() && sink["last_error"].is_string(), "{sink}");
        receiver.set_faults(Vec::new());
        let mut ends: Vec<_> = accepted(&receiver, 3).iter().map(job_and_type).collect();
        ends.sort();
        assert_eq!(ends, [(1, "completed".to_owned()), (2, "failed".to_owned()), (3, "cancelled".to_owned())]);
        sink_in_state(address, "pipeline", |sink| sink["state"] == "up" && sink["waiting"] == 0);
        let log = daemon.log_with("event=\"sink_recovered\"");
        assert_eq!(log.matches("event=\"sink_paused\"").count(), 1, "{log}");
        assert_eq!(log.matches("event=\"sink_recovered\"").count(), 1, "{log}");
    }
}

#[test]
fn fault_151_an_event_that_its_receiver_cannot_handle_stops_no_other() {
    let host = Host::new(3);
    let first_id = OnceLock::new();
    let receiver = Service::new(move |request| {
        let id = between(&request.head, "webhook-id: ", "\r\n").to_owned();
        let status =
            if first_id.get_or_init(|| id.clone()) == &id { "500 Internal Server Error" } else { "204 No Content" };
        response(status, "", "")
    });
    let (_daemon, address) = host.start(&[entry_to("pipeline", &format!("http://{}/", receiver.address), "")]);
    host.end(1, "COMPLETED");
    sink_in_state(address, "pipeline", |sink| sink["state"] == "paused");
    host.end(2, "COMPLETED");
    host.end(3, "COMPLETED");
    sink_in_state(address, "pipeline", |sink| sink["waiting"] == 3);
    sink_in_state(address, "pipeline", |sink| sink["waiting"] == 1);
    assert_eq!(metric(address, "refwatch_notify_delivered_total", &["pipeline"]), Some(2.0));
}

#[test]
fn fault_152_a_rejected_event_is_sent_again_before_the_next_event_of_its_job() {
    let host = Host::new(2);
    let receiver = host.receiver(Vec::new());
    // The receiver responds with 401.
    host.write_secret(OTHER_SECRET);
    let (daemon, address) = host.start(&[entry("pipeline", &receiver, "on = [\"IN_PROGRESS\", \"COMPLETED\"]")]);
    host.end(1, "COMPLETED");
    host.end(2, "COMPLETED");
    let sink = sink_in_state(address, "pipeline", |sink| sink["waiting"] == 4);
    assert_eq!((&sink["state"], &sink["last_error"]), (&"up".into(), &"HTTP status 401".into()));
    let rejected = receiver.received();
    assert!(rejected.iter().all(|event| job_and_type(event).1 == "in_progress"), "{rejected:?}");
    host.write_secret(SECRET);
    let events = accepted(&receiver, 4);
    for nth in [1, 2] {
        let types: Vec<_> =
            events.iter().map(job_and_type).filter(|(job, _)| *job == nth).map(|(_, kind)| kind).collect();
        assert_eq!(types, ["in_progress", "completed"], "job {nth}");
        let requests = receiver.received().into_iter().filter(|event| job_and_type(event).0 == nth);
        let first = requests.map(|event| (job_and_type(&event).1, event.reply)).find(|(kind, _)| kind == "completed");
        assert_eq!(first.map(|(_, reply)| reply), Some(SinkReply::Accepted), "job {nth}: the next event has waited");
    }
    let log = daemon.log_with("event=\"delivery_rejected\"");
    assert_eq!(log.matches("event=\"delivery_rejected\"").count(), 1, "one line until a delivery succeeds: {log}");
}

#[test]
fn fault_152_an_event_fails_after_three_days_the_next_one_is_sent_and_a_replay_sends_the_failed_one() {
    let host = Host::new(1);
    let receiver = host.receiver(Vec::new());
    host.write_secret(OTHER_SECRET);
    let entries = [entry("pipeline", &receiver, "on = [\"IN_PROGRESS\", \"COMPLETED\"]")];
    let (mut daemon, address) = host.start(&entries);
    host.end(1, "COMPLETED");
    sink_in_state(address, "pipeline", |sink| sink["waiting"] == 2);
    daemon.signal(Signal::TERM);
    daemon.end();
    // As if it had been sent for three days.
    let connection = Connection::open(host.workspace.path("refwatch.db")).expect("a database");
    let last = "UPDATE deliveries SET attempts = 9, next_attempt_at = '2026-01-01T00:00:00.000Z' WHERE attempts > 0";
    assert_eq!(connection.execute(last, []).expect("an update"), 1);
    drop(connection);

    let (daemon, address) = host.start(&entries);
    sink_in_state(address, "pipeline", |sink| sink["failed"] == 1);
    eventually("the next event", || {
        receiver.received().iter().any(|event| job_and_type(event).1 == "completed").then_some(())
    });
    assert_eq!(metric(address, "refwatch_notify_failed_total", &["pipeline"]), Some(1.0));
    assert_eq!(daemon.log_with("event=\"delivery_failed\"").matches("event=\"delivery_failed\"").count(), 1);
    host.write_secret(SECRET);
    let (status, output, error) = host.command(&["notify", "replay", "pipeline", "--failed"]);
    assert_eq!((status, &*output), (0, "pipeline: 1 event will be sent again"), "{error}");
    let events = accepted(&receiver, 2);
    let failed = receiver
        .received()
        .into_iter()
        .find(|event| job_and_type(event).1 == "in_progress")
        .expect("its first request");
    let replayed = events.iter().find(|event| job_and_type(event).1 == "in_progress").expect("its last request");
    assert_eq!((&replayed.id, &replayed.body), (&failed.id, &failed.body));
    sink_in_state(address, "pipeline", |sink| sink["failed"] == 0 && sink["waiting"] == 0);
}

#[test]
fn fault_153_a_sink_that_responds_with_410_is_disabled_until_its_entry_changes() {
    let host = Host::new(2);
    let receiver = host.receiver(always(SinkFault::Gone));
    let entries = [entry("pipeline", &receiver, "")];
    let (mut daemon, address) = host.start(&entries);
    host.end(1, "COMPLETED");
    sink_in_state(address, "pipeline", |sink| sink["state"] == "disabled");
    assert_eq!(daemon.log_with("event=\"sink_disabled\"").matches("event=\"sink_disabled\"").count(), 1);
    receiver.set_faults(Vec::new());
    daemon.signal(Signal::TERM);
    daemon.end();
    let (_daemon, address) = host.start(&entries);
    host.end(2, "COMPLETED");
    sink_in_state(address, "pipeline", |sink| sink["state"] == "disabled" && sink["waiting"] == 2);
    // The same entry changes nothing.
    host.reload(&entries);
    sink_in_state(address, "pipeline", |sink| sink["state"] == "disabled" && sink["waiting"] == 2);
    assert_eq!(receiver.received().len(), 1, "{:?}", receiver.received());
    host.reload(&[entry("pipeline", &receiver, "timeout = \"14s\"")]);
    let mut jobs: Vec<_> = accepted(&receiver, 2).iter().map(|event| job_and_type(event).0).collect();
    jobs.sort_unstable();
    assert_eq!(jobs, [1, 2]);
}

#[test]
fn fault_153_a_sink_stays_disabled_whatever_its_other_requests_return() {
    let host = Host::new(4);
    let all_sent = Barrier::new(4);
    let receiver = Service::new(move |request| {
        all_sent.wait();
        if request.nth == 0 {
            return response("410 Gone", "", "");
        }
        std::thread::park_timeout(Duration::from_millis(500));
        response("503 Service Unavailable", "", "")
    });
    let (_daemon, address) = host.start(&[entry_to("pipeline", &format!("http://{}/", receiver.address), "")]);
    for nth in 1..=4 {
        host.end(nth, "COMPLETED");
    }
    let attempts = |result| metric(address, "refwatch_notify_attempts_total", &["pipeline", result]);
    eventually("every response", || (attempts("unavailable") == Some(3.0)).then_some(()));
    sink_in_state(address, "pipeline", |sink| sink["state"] == "disabled" && sink["last_error"] == "HTTP status 503");
    assert_eq!(metric(address, "refwatch_sink_disabled", &["pipeline"]), Some(1.0));
}

#[test]
fn fault_154_a_redirect_is_not_followed() {
    let host = Host::new(1);
    let elsewhere = host.receiver(Vec::new());
    let location = format!("Location: {}\r\n", elsewhere.url());
    let redirecting = Service::new(move |request| match request.nth {
        0 => response("307 Temporary Redirect", &location, ""),
        1 => response("302 Found", &location, ""),
        _ => response("204 No Content", "", ""),
    });
    let url = format!("http://{}/", redirecting.address);
    let (_daemon, address) = host.start(&[entry_to("moved", &url, "")]);
    let (status, _, error) = host.command(&["notify", "test", "moved"]);
    assert_eq!(status, 1, "{error}");
    assert!(error.contains("moved: HTTP status 307"), "{error}");
    host.end(1, "COMPLETED");
    let sink = sink_in_state(address, "moved", |sink| sink["last_error"] == "HTTP status 302");
    assert_eq!((&sink["state"], &sink["waiting"]), (&"up".into(), &1.into()));
    redirecting.wait_for(3);
    assert!(elsewhere.received().is_empty(), "{:?}", elsewhere.received());
}

#[test]
fn fault_155_a_receiver_that_hangs_delays_no_poll_scrape_stop_or_other_sink() {
    let host = Host::new(MANY);
    let (hanging, other) = (host.receiver(always(SinkFault::Hang)), host.receiver(Vec::new()));
    // Requests of the first sink end only with the daemon, those of the second time out.
    let (mut daemon, address) = host.start(&[
        entry("hanging", &hanging, "timeout = \"60s\""),
        entry("timing-out", &hanging, "timeout = \"2s\""),
        entry("other", &other, ""),
    ]);
    for nth in 1..=MANY {
        host.end(nth, "COMPLETED");
    }
    accepted(&other, 20);
    assert_eq!(json(address, "/api/v1/jobs?state=finished").as_array().map(Vec::len), Some(20));
    assert_eq!(get(address, "/-/ready").0, 200);
    let waiting = sink_in_state(address, "hanging", |sink| sink["waiting"] == MANY);
    assert_eq!(waiting["state"], "up", "its requests have not ended: {waiting}");
    let sink = sink_in_state(address, "timing-out", |sink| sink["state"] == "paused");
    assert_eq!((&sink["last_error"], &sink["waiting"]), (&"no response within 2s".into(), &MANY.into()));
    let ids = hanging.received().len();
    assert!(ids <= 2 * IN_FLIGHT + 2, "{ids} requests to a receiver that hangs");
    let clock = refwatch::clock::Clock::system();
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success(), "{}", daemon.stderr());
    let took = clock.now().monotonic.elapsed();
    assert!(took < Duration::from_secs(30), "the stop waits for no receiver: {took:?}");
}
