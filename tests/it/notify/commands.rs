//! `refwatch notify test`, `status` and `replay`.

use std::collections::BTreeMap;

use refwatch::simulator::{Received, SinkFault};
use serde_json::Value;

use super::schema::assert_is_valid;
use super::{Host, accepted, always, body, entry, job_id};
use crate::faults::service::STORE;

fn bodies(events: &[Received]) -> BTreeMap<&str, &[u8]> {
    events.iter().map(|event| (&*event.id, &*event.body)).collect()
}

#[test]
fn test_sends_a_valid_event_and_prints_the_response() {
    let host = Host::new(1);
    let receiver = host.receiver(Vec::new());
    let chat = host.receiver(always(SinkFault::Internal));
    let (_daemon, _) = host.start(&[entry("pipeline", &receiver, ""), entry("chat", &chat, "format = \"slack\"")]);
    let (status, output, error) = host.command(&["notify", "test", "pipeline"]);
    assert_eq!(status, 0, "{error}");
    let event = accepted(&receiver, 1).remove(0);
    assert_eq!(output, format!("pipeline: delivered test event {}: HTTP status 204", event.id));
    assert_eq!(event.attribute("type").as_deref(), Some("io.refwatch.test.v1"));
    assert_is_valid(&body(&event));

    let (status, output, error) = host.command(&["notify", "test", "chat"]);
    assert_eq!((status, &*output), (1, ""));
    assert!(error.contains("chat: HTTP status 500"), "{error}");

    for command in [&["notify", "test", "pipelin"][..], &["notify", "replay", "pipelin", "--failed"]] {
        let (status, output, error) = host.command(command);
        assert_eq!((status, &*output), (1, ""));
        assert!(error.contains("there is no sink \"pipelin\": the sinks are chat, pipeline"), "{error}");
    }
}

#[test]
fn status_shows_each_sink_as_table_and_json() {
    let host = Host::new(1);
    let (receiver, failing) = (host.receiver(Vec::new()), host.receiver(always(SinkFault::Internal)));
    let (_daemon, address) = host.start(&[entry("good", &receiver, ""), entry("bad", &failing, "")]);
    host.end(1, "FAILED");
    accepted(&receiver, 1);
    super::sink_in_state(address, "bad", |sink| sink["state"] == "paused");
    let (status, output, error) = host.command(&["notify", "status"]);
    assert_eq!(status, 0, "{error}");
    let line = |name: &str| output.lines().find(|line| line.starts_with(name)).map(str::to_owned).unwrap_or_default();
    assert!(line("good").contains(" up ") && line("bad").contains(" paused "), "{output}");
    assert!(output.contains("HTTP status 500"), "{output}");
    let (status, output, error) = host.command(&["notify", "status", "--json"]);
    assert_eq!(status, 0, "{error}");
    let sinks: Value = serde_json::from_str(&output).expect("JSON");
    let shown = |nth: usize| [&sinks[nth]["name"], &sinks[nth]["state"], &sinks[nth]["waiting"]].map(Value::to_string);
    assert_eq!(
        [shown(0), shown(1)],
        [["\"bad\"", "\"paused\"", "1"], ["\"good\"", "\"up\"", "0"]].map(|sink| sink.map(str::to_owned))
    );
}

#[test]
fn a_replay_sends_the_selected_events_with_the_same_ids_and_bodies() {
    let host = Host::new(3);
    let receiver = host.receiver(Vec::new());
    let (_daemon, _) = host.start(&[entry("pipeline", &receiver, "")]);
    for nth in 1..=3 {
        host.end(nth, "FAILED");
    }
    let first = accepted(&receiver, 3);
    let replay = |selection: &[&str]| host.command(&[&["notify", "replay", "pipeline"], selection].concat());
    let (status, output, error) = replay(&[]);
    assert_eq!((status, &*output), (64, ""));
    assert!(error.contains("name jobs, or set --since or --failed"), "{error}");

    assert_eq!(replay(&["--since", "1h"]).1, "pipeline: 3 events will be sent again");
    let second = accepted(&receiver, 6).split_off(3);
    assert_eq!(bodies(&second), bodies(&first));
    assert!(second.iter().all(|event| event.attempt == 2), "{second:?}");

    let job = format!("{STORE}/{}", job_id(2));
    assert_eq!(replay(&[&job]).1, "pipeline: 1 event will be sent again");
    let third = accepted(&receiver, 7).remove(6);
    assert_eq!(third.attribute("subject"), Some(format!("reference_import/{job}")));
    assert_eq!(bodies(&first)[&*third.id], &*third.body);

    for none in [&["--failed"][..], &["--since", "2999-01-01"], &["1234567890/5555555555"]] {
        assert_eq!(replay(none).1, "pipeline: 0 events will be sent again", "{none:?}");
    }
}
