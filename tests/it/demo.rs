//! `refwatch demo` with enough jobs for each kind to reach every terminal status.

use std::collections::BTreeMap;

use rustix::process::Signal;

use crate::kinds::KINDS;
use crate::process::{Workspace, between, eventually, get, json, metric};

const ENDS: [&str; 4] = ["CANCELLED", "COMPLETED", "COMPLETED_WITH_FAILURES", "FAILED"];

#[test]
fn jobs_of_each_kind_reach_every_end_and_page_metrics_api_and_history_agree() {
    let workspace = Workspace::new();
    let mut demo = workspace.start(&["demo", "--jobs", "16", "--listen", "127.0.0.1:0"]);
    let address = loop {
        let line = demo.line();
        if line.contains("status page") {
            break between(&line, "http://", "/").parse().expect("an address");
        }
    };
    let text = |value: &serde_json::Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let key = |row: &serde_json::Value| ["kind", "store_id", "job_id"].map(|key| text(row, key));
    let jobs = eventually("the end of every job", || {
        let jobs = json(address, "/api/v1/jobs?state=finished");
        let jobs: BTreeMap<_, _> = jobs.as_array()?.iter().map(|job| (key(job), text(job, "status"))).collect();
        (jobs.len() == 16).then_some(jobs)
    });
    for kind in KINDS {
        let ends = jobs.iter().filter(|([of_kind, ..], _)| of_kind == kind).map(|(_, end)| end.as_str());
        let mut ends: Vec<&str> = ends.collect();
        ends.sort_unstable();
        assert_eq!(ends, ENDS, "{kind}");
    }

    let database = text(&json(address, "/api/v1/daemon"), "database");
    let (status, history, error) = workspace.run(&["history", "--json", "--database", &database]);
    assert_eq!(status, 0, "{error}");
    let history: serde_json::Value = serde_json::from_str(&history).expect("JSON");
    // Later rows replace earlier ones.
    let last: BTreeMap<_, _> =
        history.as_array().expect("rows").iter().map(|row| (key(row), text(row, "to_status"))).collect();
    assert_eq!(last, jobs, "the history and the API");
    for ([kind, store, job], end) in &jobs {
        let labels = [format!("kind=\"{kind}\""), format!("job_id=\"{job}\""), format!("status=\"{end}\"")];
        let labels = labels.each_ref().map(String::as_str);
        assert_eq!(metric(address, "refwatch_job_status", &labels), Some(1.0), "{kind} {end}");
        let selected = get(address, &format!("/?kind={kind}&status={end}")).1;
        assert!(selected.contains(&format!("jobs/{kind}/{store}/{job}")), "{kind} {end}: {selected}");
        let page = get(address, &format!("/jobs/{kind}/{store}/{job}")).1;
        let heading =
            if kind.ends_with("_import") { "<caption>Sources</caption>" } else { "<caption>Read sets</caption>" };
        assert!(page.contains(&format!(">{end}</span>")) && page.contains(heading), "{kind} {end}: {page}");
    }
    demo.signal(Signal::INT);
    assert!(demo.end().success(), "{}", demo.stderr());
}
