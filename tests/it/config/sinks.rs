//! `[[notify]]`: values, defaults, and secrets that are shown nowhere.

use std::time::Duration;

use refwatch::config::{Config, SinkConfig, SinkFormat, SinkUrl};
use refwatch::core::event::EventType;
use refwatch::core::job::JobStatus;

use super::{FULL, good, load_text};

const MINIMAL: &str = "[[notify]]\nname = \"pipeline\"\nurl = \"https://hooks.lab.example\"\n";

fn sink(text: &str) -> SinkConfig {
    let sinks = good(text).sinks;
    let [sink] = &sinks[..] else { panic!("{sinks:?}") };
    sink.clone()
}

#[test]
fn a_sink_has_the_documented_defaults() {
    let sink = sink(&format!("database.path = \"/refwatch.db\"\n{MINIMAL}"));
    assert_eq!(sink.events.types, EventType::DEFAULT.into());
    assert_eq!((sink.format, sink.timeout), (SinkFormat::CloudEvents, Duration::from_secs(15)));
    assert_eq!((sink.secret_file, sink.bearer_token_file, sink.headers.len()), (None, None, 0));
    assert!(sink.events.watches.is_empty());
}

#[test]
fn sinks_are_loaded_as_written_and_in_this_order() {
    let Config { sinks, .. } = good(FULL);
    let [pipeline, chat] = &sinks[..] else { panic!("{sinks:?}") };
    assert_eq!((&*pipeline.name, &*chat.name), ("pipeline", "chat"));
    assert!(matches!(&pipeline.url, SinkUrl::Text(url) if url.expose() == "https://hooks.lab.example:8443"));
    assert!(matches!(&chat.url, SinkUrl::File(file) if file.is_absolute() && file.ends_with("secrets/chat.url")));
    assert!(pipeline.secret_file.as_ref().is_some_and(|file| file.is_absolute() && file.ends_with("secrets/signing")));
    assert!(pipeline.bearer_token_file.as_ref().is_some_and(|file| file == "/etc/refwatch/token"));
    let headers: Vec<_> = pipeline.headers.iter().map(|(name, text)| (name.as_str(), text.expose())).collect();
    assert_eq!(headers, [("X-Team", "not-for-all-eyes")]);
    let on = [EventType::Status(JobStatus::Submitted), EventType::Vanished];
    assert_eq!(pipeline.events.types.iter().cloned().collect::<Vec<_>>(), on);
    assert_eq!((chat.format, chat.timeout), (SinkFormat::Slack, Duration::from_secs(5)));
    assert_eq!(pipeline.events.watches, ["GRCh38", "shared *"]);
    assert!(chat.events.watches.is_empty());
}

#[test]
fn the_path_of_a_url_and_the_values_of_headers_are_hidden() {
    let text = "database.path = \"/refwatch.db\"\n[[notify]]\nname = \"chat\"\nheaders = { X-Key = \"hunter2\" }\n\
                url = \"https://hooks.lab.example:8443/services/hunter2?token=hunter2\"\n";
    let config = good(text);
    let shown = config.to_redacted_toml();
    assert!(shown.contains("url = \"https://hooks.lab.example:8443\"\n"), "{shown}");
    assert!(shown.contains("X-Key = \"(hidden)\"\n"), "{shown}");
    assert!(!shown.contains("hunter2") && !format!("{config:?}").contains("hunter2"), "{shown}");
}

#[test]
fn a_changed_sink_needs_no_restart() {
    let before = good(&format!("database.path = \"/refwatch.db\"\n{MINIMAL}"));
    let after = good(&format!("database.path = \"/refwatch.db\"\n{MINIMAL}timeout = \"5s\"\n"));
    assert_ne!(before.sinks, after.sinks);
    assert_eq!(after.tables_needing_restart(&before), [""; 0]);
}

#[test]
fn no_diagnostic_of_a_sink_quotes_a_secret() {
    for (key, value) in [
        ("url", "\"http://hooks.lab.example/hunter2\""),
        ("url", "\"https://ada:hunter2@hooks.lab.example/\""),
        ("url", "\"hunter2\""),
        ("url", "\"https://hooks.lab.example/#hunter2\""),
        ("url", "[\"hunter2\"]"),
        ("url_file", "\"~hunter2\""),
        ("secret_file", "{ hunter2 = 1 }"),
        ("headers", "{ X-Key = \"hunter2\\u0007\" }"),
        ("headers", "{ \"X-Key: hunter2\" = \"\" }"),
        ("headers", "\"X-Key: hunter2\""),
        ("headers", "{ Authorization = \"Bearer hunter2\" }"),
    ] {
        let problems = load_text(&format!("[[notify]]\nname = \"chat\"\n{key} = {value}\n")).expect_err(value);
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
        assert!(!format!("{problems:?}").contains("hunter2"), "{problems}");
    }
}
