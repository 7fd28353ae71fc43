//! The commands as processes: output and exit status.

use std::collections::BTreeMap;

use rustix::process::Signal;

use crate::faults::service::{self, Service};
use crate::healthomics::LONG;
use crate::kinds::KINDS;
use crate::process::{Workspace, between, eventually, get, json, metric, serve_sts, sts_response};

#[test]
fn the_demo_shows_each_job_to_its_end_and_leaves_no_files() {
    let workspace = Workspace::new();
    let mut demo = workspace.start(&["demo", "--jobs", "8", "--seconds", "1", "--listen", "127.0.0.1:0"]);
    let mut shown = vec![demo.line()];
    assert!(shown[0].starts_with("8 jobs on a simulated HealthOmics at http://"), "{shown:?}");
    let address = loop {
        let line = demo.line();
        if line.contains("status page") {
            break between(&line, "http://", "/").parse().expect("an address");
        }
    };
    assert_eq!(get(address, "/-/healthy").0, 200);
    assert_eq!(get(address, "/-/ready").0, 200);
    assert_eq!(json(address, "/api/v1/sinks")[0]["name"], "receiver");

    // The page, the metrics and the API match the database, which the API's transitions show.
    eventually("page, metrics, API and database to agree", || {
        let mut latest = BTreeMap::new();
        for row in json(address, "/api/v1/transitions").as_array()? {
            latest.insert(row["job_id"].as_str()?.to_owned(), row["to_status"].as_str()?.to_owned());
        }
        let watches = json(address, "/api/v1/jobs");
        let (_, page) = get(address, "/");
        let agree = watches.as_array()?.iter().all(|watch| {
            let (id, status) = (watch["job_id"].as_str().unwrap_or(""), watch["status"].as_str().unwrap_or(""));
            let labels = [&*format!("job_id=\"{id}\""), &*format!("status=\"{status}\"")];
            latest.get(id).is_some_and(|latest| latest == status)
                && metric(address, "refwatch_job_status", &labels) == Some(1.0)
                && page.contains(id)
        });
        (latest.len() == 8 && agree).then_some(())
    });
    for kind in KINDS {
        assert_eq!(json(address, &format!("/api/v1/jobs?kind={kind}")).as_array().map(Vec::len), Some(2), "{kind}");
    }

    assert!(demo.end().success(), "{}", demo.stderr());
    shown.extend(demo.rest());
    let shown = shown.join("\n");
    for end in ["COMPLETED", "COMPLETED_WITH_FAILURES", "FAILED", "CANCELLED"] {
        assert!(shown.contains(&format!("→ {end}")), "{end} in {shown}");
    }
    assert!(shown.contains("8 jobs ended"), "{shown}");
    assert!(shown.contains("8 notifications received and verified"), "{shown}");
    let files = std::fs::read_dir(workspace.path("")).expect("a directory").filter_map(Result::ok);
    let files: Vec<_> =
        files.map(|entry| entry.file_name()).filter(|name| !name.to_string_lossy().contains("stderr")).collect();
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn the_demo_stops_on_sigint() {
    let workspace = Workspace::new();
    let mut demo = workspace.start(&["demo", "--jobs", "2", "--listen", "127.0.0.1:0"]);
    while !demo.line().contains("status page") {}
    demo.signal(Signal::INT);
    assert!(demo.end().success(), "{}", demo.stderr());
}

#[test]
fn the_exit_status_of_wait_reflects_the_ends_of_its_jobs() {
    let workspace = Workspace::new();
    let (_simulator, simulator, _) = workspace.simulate(&["--jobs", "8", "--mean-seconds", "2", "--stuck", "1"]);
    let endpoint = format!("http://{simulator}");
    let jobs = json(simulator, "/-/jobs");
    let ending_as = |end: &str| -> Vec<String> {
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let jobs = jobs.as_array().expect("an array").iter();
        let ending = jobs.filter(|job| {
            let last = job["timeline"].as_array().and_then(|timeline| timeline.last()).expect("a timeline");
            last["status"] == end
        });
        ending.map(|job| format!("{}/{}", text(&job["store_id"]), text(&job["id"]))).collect()
    };
    let wait = |jobs: &[String], more: &[&str]| {
        let mut arguments = vec!["wait", "--region", "us-west-2", "--endpoint-url", &endpoint];
        arguments.extend(more);
        arguments.extend(jobs.iter().map(String::as_str));
        workspace.run(&arguments)
    };

    let completed = ending_as("COMPLETED");
    let (status, results, error) = wait(&completed[..2], &[]);
    assert_eq!(status, 0, "{error}");
    let mut lines: Vec<&str> = results.lines().collect();
    let mut expected: Vec<String> = completed[..2].iter().map(|job| format!("{job} COMPLETED")).collect();
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected);

    for end in ["FAILED", "CANCELLED", "COMPLETED_WITH_FAILURES"] {
        let (status, results, error) = wait(&[completed[0].clone(), ending_as(end)[0].clone()], &[]);
        assert_eq!(status, 3, "{error}");
        assert!(results.contains(&format!("{} {end}", ending_as(end)[0])), "{results}");
    }

    let stuck = jobs.as_array().expect("an array").iter().find(|job| job["outcome"] == "STUCK").expect("a stuck job");
    let stuck = format!("{}/{}", stuck["store_id"].as_str().expect("text"), stuck["id"].as_str().expect("text"));
    let (status, _, error) = wait(&[stuck], &["--timeout", "1s"]);
    assert_eq!(status, 124, "{error}");

    let (status, _, error) = wait(&["1234567890/9999999999".to_owned()], &[]);
    assert_eq!(status, 1, "{error}");
    assert!(error.contains("ResourceNotFoundException"), "{error}");
    let (status, _, error) = wait(&["12345".to_owned()], &[]);
    assert_eq!(status, 64, "{error}");
}

#[test]
fn wait_prints_each_ended_job_once_and_at_the_timeout_how_many_have_not_ended() {
    let service = Service::new(|request| {
        let members = match request.head.split(['/', ' ']).nth(5) {
            Some("1111111111") => serde_json::json!({"status": "COMPLETED"}),
            Some("2222222222") => serde_json::json!({"status": "FAILED", "statusMessage": "no such\nfile"}),
            _ => serde_json::json!({}),
        };
        service::job(request, &members)
    });
    let (workspace, endpoint) = (Workspace::new(), format!("http://{}", service.address));
    let ids = ["1111111111", "2222222222", "3333333333", "4444444444"];
    let jobs = ids.map(|job| format!("1234567890/{job}"));
    let mut arguments = vec!["wait", "--region", "us-west-2", "--endpoint-url", &endpoint, "--timeout", "3s"];
    arguments.extend(jobs.iter().map(String::as_str));
    let (status, results, notes) = workspace.run(&arguments);
    assert_eq!(status, 124, "{notes}");
    let mut lines: Vec<&str> = results.lines().collect();
    lines.sort_unstable();
    let expected = ["1111111111 COMPLETED", r"2222222222 FAILED  no such\u000afile"];
    let expected = [expected, ["3333333333 IN_PROGRESS", "4444444444 IN_PROGRESS"]].concat();
    assert_eq!(lines, expected.iter().map(|line| format!("1234567890/{line}")).collect::<Vec<_>>());
    assert!(!notes.contains(&jobs[0]) && !notes.contains(&jobs[1]), "{notes}");
    assert_eq!(notes.lines().last(), Some("timed out after 3s: 2 of 4 jobs still IN_PROGRESS"), "{notes}");
}

#[test]
fn the_help_of_every_command_fits_80_columns() {
    let workspace = Workspace::new();
    let commands =
        ["add", "check", "completions", "demo", "history", "man", "reload", "remove", "run", "schema", "simulate"];
    for command in commands.into_iter().chain(["status", "wait", "--help"]) {
        let mut help = workspace.refwatch(&[command, "--help"]);
        help.env("COLUMNS", "80");
        let mut process = workspace.spawn(help);
        assert!(process.end().success(), "{command}");
        let lines = process.rest();
        assert!(!lines.is_empty() && lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    }
}

#[test]
fn check_reports_five_different_errors() {
    let workspace = Workspace::new();
    let file = workspace.write(
        "refwatch.toml",
        r#"[poll]
intervall = "30s"
timeout = "soon"

[http]
listen = "localhost"

[[job]]
reference_store_id = "12345"
id = "9876543210"

[[job]]
reference_store_id = "1234567890"
id = "9876543210"
target = "defalt"
"#,
    );
    let path = file.to_str().expect("text");
    let (status, results, error) = workspace.run(&["--config", path, "check"]);
    assert_eq!((status, results.as_str()), (78, ""), "{error}");
    for (place, word) in [
        ("refwatch.toml:2:1", "interval"),
        ("refwatch.toml:3:11", "duration"),
        ("refwatch.toml:6:10", "IP address"),
        ("refwatch.toml:9:22", "10 to 36 digits"),
        ("refwatch.toml:15:10", "default"),
    ] {
        assert!(error.contains(place) && error.contains(word), "{place} {word} in {error}");
    }
    let (run_status, _, run_error) = workspace.run(&["--config", path, "run"]);
    assert_eq!(
        (run_status, format!("{}\n{path}: 5 problems", run_error.trim_end())),
        (78, error.trim_end().to_owned()),
        "run reports the same errors"
    );
    let (status, results, error) = workspace.run(&["--config", path, "check", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&results).expect("an object");
    assert_eq!((status, error.as_str(), report["problems"].as_array().map(Vec::len)), (78, "", Some(5)));
    let problem = &report["problems"][0];
    assert_eq!((&problem["line"], &problem["column"]), (&2.into(), &1.into()));
    assert!(problem["suggestion"].as_str().is_some_and(|text| text.contains("interval")), "{report}");
}

#[test]
fn fault_111_at_trace_a_transition_is_one_line_with_its_fields_and_no_line_has_a_secret() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "3", "--mean-seconds", "1"]);
    let logs = workspace.path("logs");
    let log = format!("\n[log]\nlevel = \"trace\"\nformat = \"json\"\ndirectory = \"{}\"\n", logs.display());
    let config = workspace.write("refwatch.toml", &(config + &log));
    let mut daemon = workspace.start(&["--config", config.to_str().expect("text"), "run"]);
    let address = eventually("the daemon's address", || {
        let log = daemon.stderr();
        log.contains("\"event\":\"started\"")
            .then(|| between(&log, "\"address\":\"", "\"").parse().expect("an address"))
    });
    eventually("three ends", || (metric(address, "refwatch_watches", &["finished"]) == Some(3.0)).then_some(()));
    let rows = json(address, "/api/v1/transitions");
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());

    let stderr = daemon.stderr();
    let files = std::fs::read_dir(&logs).expect("a directory").map(|file| file.expect("a file").path());
    let written: String = files.map(|file| std::fs::read_to_string(file).expect("text")).collect();
    let error = |log: &str| -> Vec<String> {
        // Each writer has its own timestamp.
        log.lines().map(|line| line.split_once(',').expect(line).1.to_owned()).collect()
    };
    assert_eq!(error(&written), error(&stderr), "the files contain the lines of standard error");
    for secret in ["verysecretkey", "AKIDTEST", "AWS4-HMAC", "Signature="] {
        assert!(!stderr.contains(secret), "{secret}");
    }
    let events = stderr.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line));
    let transitions: Vec<_> = events.filter(|event| event["event"] == "transition").collect();
    let rows = rows.as_array().expect("an array");
    assert_eq!(transitions.len(), rows.len());
    for row in rows {
        // A line without labels has no field for them.
        let is_logged =
            |column: &str| column != "id" && !(column == "labels" && row["labels"] == serde_json::json!({}));
        let mut columns = row.as_object().expect("an object").keys().filter(|column| is_logged(column));
        let logged = transitions.iter().any(|event| columns.clone().all(|column| event[column] == row[column]));
        assert!(columns.any(|column| column == "observed_at"), "{row}");
        assert!(logged, "{row} in {transitions:?}");
    }
}

#[test]
fn a_role_is_assumed_with_its_external_id() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "1", "--mean-seconds", "600"]);
    let role = "role_arn = \"arn:aws:iam::123456789012:role/refwatch\"\nexternal_id = \"our-external-id\"\n";
    let config = workspace.write("refwatch.toml", &config.replace("endpoint_url", &format!("{role}endpoint_url")));
    let credentials = "<Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>rolesecret</SecretAccessKey>\
        <SessionToken>roletoken</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>";
    let (sts, requests) = serve_sts(vec![sts_response("AssumeRole", credentials)]);
    let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    command.env("AWS_ENDPOINT_URL_STS", sts);
    let daemon = workspace.spawn(command);
    let request = requests.recv_timeout(LONG).expect("a request for the role");
    assert!(request.contains("Action=AssumeRole") && request.contains("ExternalId=our-external-id"), "{request}");
    let address = daemon.address();
    eventually("a poll with the role", || (metric(address, "refwatch_job_up", &[]) == Some(1.0)).then_some(()));
    let (_, shown) = get(address, "/config");
    assert!(shown.contains("role_arn") && !shown.contains("our-external-id"), "{shown}");
}

#[test]
fn every_command_has_a_manual_page_and_is_completed() {
    let workspace = Workspace::new();
    let help = workspace.run(&["help"]).1;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Descriptions may continue on deeper indented lines.
    let commands = commands.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 10, "{help}");
    let pages = workspace.path("pages");
    std::fs::create_dir(&pages).expect("a directory");
    assert_eq!(workspace.run(&["man", "--directory", pages.to_str().expect("text")]).0, 0);
    let main_page = std::fs::read_to_string(pages.join("refwatch.1")).expect("a page");
    assert_eq!(workspace.run(&["man"]).1.trim_end(), main_page.trim_end());
    let (status, script, _) = workspace.run(&["completions", "bash"]);
    assert_eq!(status, 0);
    let script = workspace.write("completions", &script);
    for command in commands.into_iter().filter(|command| *command != "help") {
        let page = std::fs::read_to_string(pages.join(format!("refwatch-{command}.1"))).expect(command);
        assert!(page.contains(&format!(".TH refwatch-{command} 1")) && page.contains("NAME"), "{page}");
        assert!(main_page.contains(&format!("refwatch\\-{command}(1)")), "{main_page}");
        // As bash calls it after all but the last letter is typed.
        let typed = &command[..command.len() - 1];
        let complete = format!(
            "source {}; COMP_WORDS=(refwatch {typed}); COMP_CWORD=1; _refwatch refwatch {typed} refwatch; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let completed = std::process::Command::new("bash").args(["-c", &complete]).output().expect("bash");
        let completed = String::from_utf8_lossy(&completed.stdout);
        assert!(completed.split_whitespace().any(|word| word == command), "{typed}: {completed}");
    }
    let (status, _, error) = workspace.run(&["man", "nothing"]);
    assert!(status == 64 && error.contains("unexpected argument 'nothing'"), "{error}");
}
