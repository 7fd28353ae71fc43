//! The four kinds of jobs: the simulator serves them, and a daemon watches them to their end.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::faults::service::{Service, config, refusal, response};
use crate::process::{Workspace, eventually, get, json, metric, metric_sum};

pub(crate) const KINDS: [&str; 4] = ["reference_import", "read_set_import", "read_set_export", "read_set_activation"];

fn simulation(arguments: &[&'static str]) -> Vec<&'static str> {
    let kinds = KINDS.iter().flat_map(|kind| ["--kind", kind]);
    kinds.chain(["--jobs", "16", "--mean-seconds", "3", "--quota", "50"]).chain(arguments.iter().copied()).collect()
}

/// The statuses in the database by kind, store and job, in the order saved.
fn saved(address: std::net::SocketAddr) -> BTreeMap<[String; 3], Vec<String>> {
    let mut saved: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for row in json(address, "/api/v1/transitions?after=0&limit=10000").as_array().expect("rows") {
        let text = |column: &str| row[column].as_str().expect("text").to_owned();
        saved.entry(["kind", "store_id", "job_id"].map(text)).or_default().push(text("to_status"));
    }
    saved
}

/// The last status of each simulated job.
fn ends(simulator: std::net::SocketAddr) -> BTreeMap<[String; 3], String> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let jobs = json(simulator, "/-/jobs");
    let end = |job: &Value| {
        let last = job["timeline"].as_array().expect("a timeline").last().expect("a status");
        (["kind", "store_id", "id"].map(|key| text(&job[key])), text(&last["status"]))
    };
    jobs.as_array().expect("jobs").iter().map(end).collect()
}

#[test]
fn jobs_of_every_kind_are_watched_to_their_end_and_shown_by_kind() {
    for discovered in [false, true] {
        let workspace = Workspace::new();
        // With arrivals, the configuration names stores instead of jobs.
        let arrivals: &[&str] = if discovered { &["--arrivals-per-minute", "0.001"] } else { &[] };
        let (_simulator, simulator, config) = workspace.simulate(&simulation(arrivals));
        let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
        let ends = ends(simulator);
        eventually("the end of every job", || {
            let saved = saved(address);
            let has_ended =
                |(key, end): (&[String; 3], &String)| saved.get(key).and_then(|all| all.last()) == Some(end);
            ends.iter().all(has_ended).then_some(())
        });
        assert_eq!(saved(address).len(), ends.len(), "{}", daemon.stderr());
        for kind in KINDS {
            let of_kind = |key: &&[String; 3]| key[0] == kind;
            let [_, store, job] = ends.keys().find(of_kind).expect("a job of each kind");
            let page = get(address, &format!("/jobs/{kind}/{store}/{job}"));
            assert!(page.0 == 200 && page.1.contains(kind), "{}", page.1);
            let label = format!("kind=\"{kind}\"");
            assert_eq!(metric(address, "refwatch_job_up", &[&label, &format!("job_id=\"{job}\"")]), Some(1.0));
            let count =
                saved(address).iter().filter(|(key, _)| key[0] == kind).map(|(_, all)| all.len()).sum::<usize>();
            let transitions = metric_sum(address, "refwatch_transitions_total", &label);
            assert_eq!(transitions.to_string(), count.to_string(), "{kind}");
            let jobs = ends.keys().filter(of_kind).count().to_string();
            assert_eq!(metric_sum(address, "refwatch_jobs", &label).to_string(), jobs, "{kind}");
            eventually("the duration of every job", || {
                let durations = metric_sum(address, "refwatch_job_duration_seconds_count", &label);
                (durations.to_string() == jobs).then_some(())
            });
            let seconds = metric_sum(address, "refwatch_job_duration_seconds_sum", &label);
            assert!(seconds > 0.0 && seconds < 600.0, "{kind}: {seconds}");
        }
    }
}

#[test]
fn a_listing_that_is_denied_for_one_kind_leaves_the_other_kinds_alone() {
    let workspace = Workspace::new();
    let service = Service::new(|request| {
        if request.head.starts_with("POST") && request.head.contains("/exportjobs") {
            return refusal(403, "AccessDeniedException");
        }
        response("200 OK", "", r#"{"importJobs": [], "exportJobs": [], "activationJobs": []}"#)
    });
    let text = config(&[("default", service.address, "")], &[]);
    let text = format!("{text}[[store]]\nname = \"runs\"\nsequence_store_id = \"1234567890\"\n");
    let (_daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &text));
    let up = |kind: &str| metric(address, "refwatch_store_up", &[&format!("kind=\"{kind}\"")]);
    eventually("a denied listing", || (up("read_set_export") == Some(0.0)).then_some(()));
    for kind in ["read_set_import", "read_set_activation"] {
        let listed = || metric(address, "refwatch_store_last_listed_timestamp_seconds", &[&format!("kind=\"{kind}\"")]);
        eventually("a listing", listed);
        assert_eq!(up(kind), Some(1.0), "{kind}");
        assert_eq!(metric(address, "refwatch_jobs", &[&format!("kind=\"{kind}\"")]), Some(0.0), "{kind}");
    }
    assert_eq!(metric(address, "refwatch_jobs", &["kind=\"reference_import\""]), None, "not watched");
    let page = get(address, "/").1;
    assert!(page.contains("New read_set_export jobs of the store runs (1234567890) cannot be discovered"), "{page}");
}

#[test]
fn wait_and_history_accept_a_job_of_each_kind() {
    let workspace = Workspace::new();
    let arguments = KINDS.iter().flat_map(|kind| ["--kind", kind]).chain(["--jobs", "8", "--mean-seconds", "2"]);
    let (_simulator, simulator, config) = workspace.simulate(&arguments.collect::<Vec<_>>());
    let config = workspace.write("refwatch.toml", &config);
    let (_daemon, address) = workspace.daemon(&config);
    let (ends, endpoint) = (ends(simulator), format!("http://{simulator}"));
    for kind in KINDS {
        let (key, end) = ends.iter().find(|(key, _)| key[0] == kind).expect("a job of each kind");
        let job = key.join("/");
        let (status, results, error) =
            workspace.run(&["wait", "--region", "us-west-2", "--endpoint-url", &endpoint, &job]);
        assert_eq!(status, if end == "COMPLETED" { 0 } else { 3 }, "{job}: {error}");
        // A reference import is printed without its kind.
        let shown = job.trim_start_matches("reference_import/");
        assert!(results.starts_with(&format!("{shown} {end}")), "{end}: {results}");

        eventually("the end in the database", || (saved(address).get(key)?.last() == Some(end)).then_some(()));
        let config = config.to_str().expect("text");
        let (status, results, error) = workspace.run(&["--config", config, "history", &job]);
        assert_eq!(status, 0, "{error}");
        assert_eq!(results.matches(shown).count(), saved(address)[key].len(), "{results}");
        let (status, results, error) = workspace.run(&["--config", config, "status"]);
        assert!(status == 0 && results.contains(&format!(" {shown} ")), "{results}{error}");
    }
}
