//! Labels of the configuration: on the job's page, in the API and in the metrics, also after a reload.

use std::fs;

use crate::process::{Workspace, eventually, get, json, metric};
use crate::transition_rows::{assert_matches_simulator, ended, transitions};

const LABELS: &str = "refwatch_job_labels";

#[test]
fn changed_labels_of_running_jobs_are_shown_after_a_reload_and_no_transition_is_lost_or_repeated() {
    let workspace = Workspace::new();
    let arguments = ["--jobs", "4", "--mean-seconds", "6", "--kind", "reference_import", "--kind", "read_set_export"];
    let (_simulator, simulator, config) = workspace.simulate(&arguments);
    assert!(config.matches("[[job]]\n").count() == 4, "{config}");
    let labelled = |labels: &str| config.replace("[[job]]\n", &format!("[[job]]\nlabels = {{ {labels} }}\n"));
    let (file, database) = (workspace.write("refwatch.toml", &labelled("")), workspace.path("refwatch.db"));
    let (_daemon, address) = workspace.daemon(&file);
    eventually("every job", || (transitions(&database).len() >= 4).then_some(()));
    assert_eq!(metric(address, LABELS, &[]), None, "no job has labels");

    fs::write(&file, labelled("project = \"atlas\", cost_center = \"4711\"")).expect("a file");
    let expected = ["label_cost_center=\"4711\",label_project=\"atlas\"}"];
    eventually("the labels", || metric(address, LABELS, &expected));
    let jobs = json(address, "/api/v1/jobs");
    for job in jobs.as_array().expect("an array") {
        assert_eq!(job["labels"], serde_json::json!({"cost_center": "4711", "project": "atlas"}));
        let id = |key: &str| job[key].as_str().expect("text").to_owned();
        let path = format!("/jobs/{}/{}/{}", id("kind"), id("store_id"), id("job_id"));
        let page = get(address, &path).1;
        assert!(page.contains("<dt>Label project</dt><dd>atlas</dd>"), "{page}");
    }
    assert_eq!(get(address, "/metrics").1.matches("label_project=\"atlas\"} 1\n").count(), 4);
    assert!(get(address, "/?q=project%3Datlas").1.contains("4 selected"), "the page finds jobs by label");

    fs::write(&file, labelled("project = \"hail\"")).expect("a file");
    eventually("the new label", || metric(address, LABELS, &["\",label_project=\"hail\"}"]));
    assert!(!get(address, "/metrics").1.contains("atlas"), "the old labels are gone");
    eventually("every end", || (ended(&transitions(&database)) == 4).then_some(()));
    assert_matches_simulator(transitions(&database), simulator);
    assert!(get(address, "/config").1.contains("project = \"hail\""), "/config shows the labels");
}
