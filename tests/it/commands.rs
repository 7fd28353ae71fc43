//! The commands as a person or a script meets them: what they print, and how they end.

use std::collections::BTreeMap;

use rustix::process::Signal;

use crate::healthomics::LONG;
use crate::process::{Scene, between, eventually, get, json, metric, serve_sts, sts_answer};

#[test]
fn the_demo_shows_every_job_to_its_end_and_leaves_nothing_behind() {
    let scene = Scene::new();
    let mut demo = scene.start(&["demo", "--jobs", "8", "--seconds", "1", "--listen", "127.0.0.1:0"]);
    let mut shown = Vec::new();
    let address = loop {
        let line = demo.line();
        if line.contains("status page") {
            break between(&line, "http://", "/").parse().expect("an address");
        }
    };
    assert_eq!(get(address, "/-/healthy").0, 200);
    assert_eq!(get(address, "/-/ready").0, 200);

    // Page, metrics and API say the same as the database, which the API's transitions are.
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

    assert!(demo.end().success(), "{}", demo.stderr());
    shown.extend(demo.rest());
    let shown = shown.join("\n");
    for end in ["COMPLETED", "COMPLETED_WITH_FAILURES", "FAILED", "CANCELLED"] {
        assert!(shown.contains(&format!("→ {end}")), "{end} in {shown}");
    }
    assert!(shown.contains("8 jobs ended"), "{shown}");
    let left = std::fs::read_dir(scene.path("")).expect("a folder").filter_map(Result::ok);
    let left: Vec<_> =
        left.map(|entry| entry.file_name()).filter(|name| !name.to_string_lossy().contains("stderr")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_demo_ends_when_it_is_told_to() {
    let scene = Scene::new();
    let mut demo = scene.start(&["demo", "--jobs", "2", "--listen", "127.0.0.1:0"]);
    while !demo.line().contains("status page") {}
    demo.signal(Signal::INT);
    assert!(demo.end().success(), "{}", demo.stderr());
}

#[test]
fn wait_ends_as_its_jobs_do() {
    let scene = Scene::new();
    let (_simulator, simulator, _) = scene.simulate(&["--jobs", "8", "--mean-seconds", "2", "--stuck", "1"]);
    let endpoint = format!("http://{simulator}");
    let jobs = json(simulator, "/-/jobs");
    let of = |end: &str| -> Vec<String> {
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let jobs = jobs.as_array().expect("an array").iter();
        let ending = jobs.filter(|job| {
            let last = job["timeline"].as_array().and_then(|timeline| timeline.last()).expect("a timeline");
            last["status"] == end
        });
        ending.map(|job| format!("{}/{}", text(&job["reference_store_id"]), text(&job["id"]))).collect()
    };
    let wait = |jobs: &[String], more: &[&str]| {
        let mut arguments = vec!["wait", "--region", "us-west-2", "--endpoint-url", &endpoint];
        arguments.extend(more);
        arguments.extend(jobs.iter().map(String::as_str));
        scene.run(&arguments)
    };

    let completed = of("COMPLETED");
    let (status, results, said) = wait(&completed[..2], &[]);
    assert_eq!(status, 0, "{said}");
    let mut lines: Vec<&str> = results.lines().collect();
    let mut expected: Vec<String> = completed[..2].iter().map(|job| format!("{job} COMPLETED")).collect();
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected);

    for end in ["FAILED", "CANCELLED", "COMPLETED_WITH_FAILURES"] {
        let (status, results, said) = wait(&[completed[0].clone(), of(end)[0].clone()], &[]);
        assert_eq!(status, 3, "{said}");
        assert!(results.contains(&format!("{} {end}", of(end)[0])), "{results}");
    }

    let stuck = jobs.as_array().expect("an array").iter().find(|job| job["kind"] == "STUCK").expect("a stuck job");
    let stuck =
        format!("{}/{}", stuck["reference_store_id"].as_str().expect("text"), stuck["id"].as_str().expect("text"));
    let (status, _, said) = wait(&[stuck], &["--timeout", "1s"]);
    assert_eq!(status, 124, "{said}");

    let (status, _, said) = wait(&["1234567890/9999999999".to_owned()], &[]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("ResourceNotFoundException"), "{said}");
    let (status, _, said) = wait(&["12345".to_owned()], &[]);
    assert_eq!(status, 64, "{said}");
}

#[test]
fn check_names_all_of_five_different_mistakes() {
    let scene = Scene::new();
    let file = scene.write(
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
    let (status, results, said) = scene.run(&["--config", path, "check"]);
    assert_eq!((status, results.as_str()), (78, ""), "{said}");
    for (place, word) in [
        ("refwatch.toml:2:1", "interval"),
        ("refwatch.toml:3:11", "duration"),
        ("refwatch.toml:6:10", "IP address"),
        ("refwatch.toml:9:22", "10 to 36 digits"),
        ("refwatch.toml:15:10", "default"),
    ] {
        assert!(said.contains(place) && said.contains(word), "{place} {word} in {said}");
    }
    let (run_status, _, run_said) = scene.run(&["--config", path, "run"]);
    assert_eq!((run_status, run_said), (78, said), "run refuses it in the same words");
}

#[test]
fn fault_111_at_trace_a_transition_is_one_line_with_the_fields_of_its_row_and_no_secret_is_in_any_line() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "3", "--mean-seconds", "1"]);
    let logs = scene.path("logs");
    let log = format!("\n[log]\nlevel = \"trace\"\nformat = \"json\"\ndirectory = \"{}\"\n", logs.display());
    let config = scene.write("refwatch.toml", &(config + &log));
    let mut daemon = scene.start(&["--config", config.to_str().expect("text"), "run"]);
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
    let files = std::fs::read_dir(&logs).expect("a folder").map(|file| file.expect("a file").path());
    let written: String = files.map(|file| std::fs::read_to_string(file).expect("text")).collect();
    let said = |log: &str| -> Vec<String> {
        // Each writer takes the time for itself.
        log.lines().map(|line| line.split_once(',').expect(line).1.to_owned()).collect()
    };
    assert_eq!(said(&written), said(&stderr), "the files hold what standard error showed");
    for secret in ["verysecretkey", "AKIDTEST", "AWS4-HMAC", "Signature="] {
        assert!(!stderr.contains(secret), "{secret}");
    }
    let events = stderr.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line));
    let transitions: Vec<_> = events.filter(|event| event["event"] == "transition").collect();
    let rows = rows.as_array().expect("an array");
    assert_eq!(transitions.len(), rows.len());
    for row in rows {
        let mut columns = row.as_object().expect("an object").keys().filter(|column| *column != "id");
        let logged = transitions.iter().any(|event| columns.clone().all(|column| event[column] == row[column]));
        assert!(columns.any(|column| column == "observed_at"), "{row}");
        assert!(logged, "{row} in {transitions:?}");
    }
}

#[test]
fn a_role_is_assumed_with_its_external_id() {
    let scene = Scene::new();
    let (_simulator, _, config) = scene.simulate(&["--jobs", "1", "--mean-seconds", "600"]);
    let role = "role_arn = \"arn:aws:iam::123456789012:role/refwatch\"\nexternal_id = \"our-external-id\"\n";
    let config = scene.write("refwatch.toml", &config.replace("endpoint_url", &format!("{role}endpoint_url")));
    let credentials = "<Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>rolesecret</SecretAccessKey>\
        <SessionToken>roletoken</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>";
    let (sts, requests) = serve_sts(vec![sts_answer("AssumeRole", credentials)]);
    let mut command = scene.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    command.env("AWS_ENDPOINT_URL_STS", sts);
    let daemon = scene.spawn(command);
    let request = requests.recv_timeout(LONG).expect("a request for the role");
    assert!(request.contains("Action=AssumeRole") && request.contains("ExternalId=our-external-id"), "{request}");
    let address = daemon.address();
    eventually("a poll with the role", || (metric(address, "refwatch_job_up", &[]) == Some(1.0)).then_some(()));
    let (_, shown) = get(address, "/config");
    assert!(shown.contains("role_arn") && !shown.contains("our-external-id"), "{shown}");
}

#[test]
fn every_command_has_a_page_in_the_manual_and_is_completed() {
    let scene = Scene::new();
    let help = scene.run(&["help"]).1;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What a command does may go on in further lines, which are indented deeper.
    let commands = commands.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 10, "{help}");
    let pages = scene.path("pages");
    std::fs::create_dir(&pages).expect("a folder");
    assert_eq!(scene.run(&["man", "--directory", pages.to_str().expect("text")]).0, 0);
    let of_refwatch = std::fs::read_to_string(pages.join("refwatch.1")).expect("a page");
    assert_eq!(scene.run(&["man"]).1.trim_end(), of_refwatch.trim_end());
    let (status, script, _) = scene.run(&["completions", "bash"]);
    assert_eq!(status, 0);
    let script = scene.write("completions", &script);
    for command in commands {
        let page = std::fs::read_to_string(pages.join(format!("refwatch-{command}.1"))).expect(command);
        assert!(page.contains(&format!(".TH refwatch-{command} 1")) && page.contains("NAME"), "{page}");
        assert!(of_refwatch.contains(&format!("refwatch\\-{command}(1)")), "{of_refwatch}");
        // As bash does it once somebody has typed all of it but a letter.
        let typed = &command[..command.len() - 1];
        let complete = format!(
            "source {}; COMP_WORDS=(refwatch {typed}); COMP_CWORD=1; _refwatch refwatch {typed} refwatch; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let completed = std::process::Command::new("bash").args(["-c", &complete]).output().expect("bash");
        let completed = String::from_utf8_lossy(&completed.stdout);
        assert!(completed.split_whitespace().any(|word| word == command), "{typed}: {completed}");
    }
    let (status, _, said) = scene.run(&["man", "nothing"]);
    assert!(status == 64 && said.contains("unexpected argument 'nothing'"), "{said}");
}
