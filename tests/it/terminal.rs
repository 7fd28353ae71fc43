//! Commands on a terminal and their output for programs: `status`, `wait`, `--version`, manual pages.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use refwatch::config::schema;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::faults::service::{self, STORE, Service};
use crate::faults::terminals::Terminal;
use crate::process::{Process, Workspace, eventually, get};

const IDS: [&str; 3] = ["1111111111", "2222222222", "3333333333"];
const VANISHED: &str = "5555555555";

/// HealthOmics with a completed, a failed and running jobs, one of which vanishes after its first poll.
fn healthomics() -> Service {
    let was_polled = AtomicBool::new(false);
    Service::new(move |request| {
        if request.head.contains(VANISHED) && was_polled.swap(true, Ordering::SeqCst) {
            let error = "x-amzn-errortype: ResourceNotFoundException\r\n";
            return service::response("404 Not Found", error, &json!({"message": "no such job"}).to_string());
        }
        let members = match request.head.split(['/', ' ']).nth(5) {
            Some("1111111111") => json!({"status": "COMPLETED"}),
            Some("2222222222") => json!({"status": "FAILED", "statusMessage": "no such file"}),
            _ => json!({}),
        };
        service::job(request, &members)
    })
}

fn without_escapes(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest)
    })
}

#[test]
fn status_fits_the_terminal_and_shows_jobs_that_need_attention_first() {
    let (workspace, service) = (Workspace::new(), healthomics());
    let names = [1, 2, 3].map(|number| format!("{number}{}", "n".repeat(127)));
    let job = |(name, id)| format!("[[job]]\nname = \"{name}\"\nreference_store_id = \"{STORE}\"\nid = \"{id}\"\n");
    let jobs: Vec<String> = names.iter().zip(IDS).map(job).collect();
    let config = service::config(&[("default", service.address, "")], &[]) + &jobs.concat();
    let (_daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    eventually("three statuses", || {
        let jobs = get(address, "/api/v1/jobs").1;
        let has = |status: &str| jobs.contains(&format!("\"status\":\"{status}\",\"state\""));
        ["COMPLETED", "FAILED", "IN_PROGRESS"].into_iter().all(has).then_some(())
    });
    let address = address.to_string();
    for columns in [80, 100, 120] {
        let status = workspace.refwatch(&["status", "--address", &address]);
        let (_, shown) = Terminal { columns, ..Terminal::default() }.run(&workspace, &status);
        assert!(shown.contains("\u{1b}[31mFAILED\u{1b}[0m"), "{shown:?}");
        let lines: Vec<String> = shown.lines().map(|line| without_escapes(line).trim_end().to_owned()).collect();
        assert!(lines.iter().all(|line| line.chars().count() <= usize::from(columns)), "{lines:#?}");
        for (line, id) in [(1, IDS[1]), (3, IDS[2]), (4, IDS[0])] {
            assert!(lines[line].contains(&format!("…  {STORE}/{id}  ")), "{lines:#?}");
        }
        assert_eq!(lines[2], "   no such file");
        assert_eq!(
            lines.last().map(String::as_str),
            Some("3 jobs: 1 COMPLETED, 1 FAILED, 1 IN_PROGRESS; 1 needs attention")
        );
    }
    let ids = |arguments: &[&str]| {
        let (status, shown, error) = workspace.run(&[&["status", "--json", "--address", &address], arguments].concat());
        assert_eq!(status, 0, "{error}");
        let jobs: Value = serde_json::from_str(&shown).expect("JSON");
        jobs.as_array()
            .expect("an array")
            .iter()
            .map(|job| job["job_id"].as_str().expect("an id").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&["--sort", "name"]), IDS);
    assert_eq!(ids(&["--sort", "-name"]), [IDS[2], IDS[1], IDS[0]]);
    assert_eq!(ids(&["--status", "failed"]), [IDS[1]]);
    assert_eq!(ids(&["--watch", &names[2]]), [IDS[2]]);
    assert_eq!(ids(&["--search", "FAILED"]), [IDS[1]]);
    assert_eq!(ids(&["--search", "1nnn", "--kind", "reference_import"]), [IDS[0]]);
    assert!(ids(&["--kind", "read_set_import"]).is_empty());
    let (status, _, error) = workspace.run(&["status", "--kind", "read_set"]);
    assert!(status == 64 && error.contains("read_set_import"), "{error}");
    let shown = |options: &[&str]| workspace.run(&[&["status", "--address", &address], options].concat()).1;
    assert!(!shown(&[]).contains('\u{1b}'), "no terminal");
    assert!(shown(&["--color", "always"]).contains("\u{1b}[31mFAILED\u{1b}[0m"));
    let never = workspace.refwatch(&["status", "--address", &address, "--color", "never"]);
    assert!(!Terminal::default().run(&workspace, &never).1.contains("\u{1b}[31m"));
}

#[test]
fn status_follow_uses_the_alternate_screen_and_restores_the_terminal() {
    let (workspace, service) = (Workspace::new(), healthomics());
    let config = service::config(&[("default", service.address, "")], &[("default", STORE, IDS[1])]);
    let (_daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    let status = workspace.refwatch(&["status", "--follow", "--address", &address.to_string()]);
    let mut script = Terminal::default().start(&workspace, &status);
    assert!(script.line().contains("\u{1b}[?1049h"));
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", script.pid())).expect("children");
    let child = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a process id");
    kill_process(Pid::from_raw(child).expect("a process id"), Signal::INT).expect("a running process");
    assert!(script.end().success(), "{}", script.stderr());
    assert!(script.rest().concat().contains("\u{1b}[?1049l"));
}

#[test]
fn in_status_follow_keys_scroll_and_q_quits() {
    let (workspace, service) = (Workspace::new(), healthomics());
    let job = |number| {
        format!("[[job]]\nname = \"job-{number}\"\nreference_store_id = \"{STORE}\"\nid = \"44444444{number}\"\n")
    };
    let jobs: Vec<String> = (11..=40).map(job).collect();
    let config = service::config(&[("default", service.address, "")], &[]) + &jobs.concat();
    let (_daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    let status = workspace.refwatch(&["status", "--follow", "--sort", "name", "--address", &address.to_string()]);
    let mut script = Terminal::default().start(&workspace, &status);
    let read_to = |script: &Process, text: &str| {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains(text)) {
            lines.push(script.line());
        }
        lines.concat()
    };
    let shown = read_to(&script, "0 jobs above, 10 below: arrow keys scroll, q quits");
    assert!(shown.contains("job-11") && shown.contains("job-30") && !shown.contains("job-31"), "{shown}");
    script.input("\u{1b}[B");
    read_to(&script, "job-31");
    script.input("\u{1b}[6~");
    read_to(&script, "job-40");
    script.input("q");
    assert!(script.end().success(), "{}", script.stderr());
    assert!(script.rest().concat().contains("\u{1b}[?1049l"));
}

#[test]
fn wait_prints_json_ends_at_the_first_end_and_stamps_its_progress() {
    let (workspace, service) = (Workspace::new(), healthomics());
    let endpoint = format!("http://{}", service.address);
    let wait = |arguments: &[&str]| {
        workspace.run(&[&["wait", "--region", "us-west-2", "--endpoint-url", &endpoint], arguments].concat())
    };
    let [completed, failed, running] = IDS.map(|id| format!("{STORE}/{id}"));
    let (status, results, notes) = wait(&["--any", "--json", &failed, &running]);
    let result: Value = serde_json::from_str(&results).expect("one object");
    assert_eq!((status, &result["job_id"], &result["status"]), (3, &json!(IDS[1]), &json!("FAILED")), "{notes}");
    assert_eq!((&result["status_message"], &result["ended"]), (&json!("no such file"), &json!(true)));
    let (status, results, _) = wait(&["--any", &completed, &running]);
    assert_eq!((status, results), (0, format!("{completed} COMPLETED")));
    let (status, results, notes) = wait(&["--json", "--timeout", "2s", &running]);
    let result: Value = serde_json::from_str(&results).expect("one object");
    assert_eq!((status, &result["ended"], &result["status"]), (124, &json!(false), &json!("IN_PROGRESS")), "{notes}");
    let (stamp, line) = notes.lines().next().expect("progress").split_once(' ').expect("a time");
    assert!(stamp.ends_with('Z') && stamp.len() == 20 && line.starts_with(&running), "{notes}");
    let vanished = format!("{STORE}/{VANISHED}");
    let (status, results, notes) = wait(&["--json", &vanished]);
    let result: Value = serde_json::from_str(&results).expect("one object");
    assert_eq!((status, &result["ended"], &result["status"]), (1, &json!(false), &json!("IN_PROGRESS")), "{notes}");
    assert!(result["error"].as_str().is_some_and(|error| error.contains("no such job")), "{result}");
    let (status, _, error) = wait(&["--role-arn", "refwatch", &running]);
    assert!(status == 64 && error.contains("arn:"), "{error}");
}

#[test]
fn the_version_names_commit_and_target() {
    let (status, shown, _) = Workspace::new().run(&["--version"]);
    assert_eq!(status, 0);
    let start = format!("refwatch {} (commit ", env!("CARGO_PKG_VERSION"));
    assert!(
        shown.starts_with(&start) && shown.ends_with(&format!("-unknown-{}-gnu)", std::env::consts::OS)),
        "{shown}"
    );
}

#[test]
fn help_and_manual_pages_have_examples_and_the_configuration_page_has_every_key() {
    let workspace = Workspace::new();
    let pages = workspace.path("pages");
    fs::create_dir(&pages).expect("a directory");
    assert_eq!(workspace.run(&["man", "--directory", pages.to_str().expect("text")]).0, 0);
    let page = |name: &str| fs::read_to_string(pages.join(name)).expect(name);
    for entry in fs::read_dir(&pages).expect("pages") {
        let name = entry.expect("a page").file_name().into_string().expect("text");
        let Some(command) = name.strip_prefix("refwatch-").and_then(|name| name.strip_suffix(".1")) else { continue };
        for section in ["EXAMPLES", "\"EXIT STATUS\"", "FILES", "ENVIRONMENT"] {
            assert!(page(&name).contains(&format!(".SH {section}\n")), "{name} {section}: {}", page(&name));
        }
        let words: Vec<&str> = command.split('-').collect();
        assert!(page(&name).contains(".SH EXAMPLES\n\\fB"), "{name}: {}", page(&name));
        let help = workspace.run(&[&words[..], &["--help"]].concat()).1;
        assert!(help.contains("Examples:\n  ") && help.contains("Exit status: 0 "), "{help}");
        assert!(help.contains(&format!("refwatch {}", words.join(" "))), "{help}");
    }
    let help = workspace.run(&["--help"]).1;
    assert!(help.contains("Examples:\n  refwatch demo\n") && help.contains("Exit status: 0 "), "{help}");
    assert!(page("refwatch-notify-replay.1").contains("pipeline") && !pages.join("refwatch-help.1").exists());
    let page = page("refwatch.toml.5");
    let mut keys = 0;
    let mut values = vec![schema()];
    while let Some(value) = values.pop() {
        for (key, value) in value["properties"].as_object().into_iter().flatten() {
            keys += 1;
            assert!(page.contains(key.as_str()), "{key}: {page}");
            values.push(value.clone());
            values.push(value["items"].clone());
            values
                .extend(value["patternProperties"].as_object().into_iter().flat_map(|tables| tables.values().cloned()));
        }
    }
    assert!(keys > 30 && page.contains(".SH [[job]]") && page.contains(".SH [target.NAME]"), "{page}");
}
