//! `refwatch rules`: the shipped rules with other settings, and the rules of config/kubernetes/.

use std::fs;

use crate::process::Workspace;

const SHIPPED: &str = include_str!("../../config/prometheus/rules.yml");

fn printed(workspace: &Workspace, arguments: &[&str]) -> String {
    let (status, stdout, stderr) = run(workspace, arguments);
    assert_eq!(status, 0, "{stderr}");
    stdout
}

fn run(workspace: &Workspace, arguments: &[&str]) -> (i32, String, String) {
    let output = workspace.refwatch(&[&["rules"], arguments].concat()).output().expect("a process");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("a status"), text(output.stdout), text(output.stderr))
}

#[test]
fn the_rules_have_the_url_of_the_configuration_and_the_given_job_and_thresholds() {
    let workspace = Workspace::new();
    let config = "[database]\npath = \"refwatch.db\"\n[http]\nexternal_url = \"https://ops.lab.example/refwatch\"\n";
    let config = workspace.write("refwatch.toml", config);
    let path = config.to_str().expect("UTF-8");
    let rules = printed(&workspace, &["--config", path]);
    assert_eq!(rules, SHIPPED.replace("http://127.0.0.1:10210/", "https://ops.lab.example/refwatch/"));
    assert!(rules.contains("runbook_url: https://ops.lab.example/refwatch/runbook#refwatchjobfailed\n"), "{rules}");

    let arguments = ["--config", path, "--external-url", "http://127.0.0.1:10210", "--job", "genomics/refwatch"];
    let settings = ["--set", "in_progress_seconds=86400", "--set", "throttled_ratio=0.25"];
    let rules = printed(&workspace, &[&arguments[..], &settings].concat());
    let expected = SHIPPED
        .replace("job=\"refwatch\"", "job=\"genomics/refwatch\"")
        .replace("> 43200 # in_progress_seconds", "> 86400 # in_progress_seconds")
        .replace("> 0.1 # throttled_ratio", "> 0.25 # throttled_ratio");
    assert_eq!(rules, expected);
    assert_eq!(
        rules.matches("genomics/refwatch").count(),
        3,
        "RefwatchDown, RefwatchAbsent, RefwatchRestarting: {rules}"
    );
}

#[test]
fn wrong_settings_of_the_rules_are_rejected() {
    let workspace = Workspace::new();
    let config = workspace.write("refwatch.toml", "[database]\npath = \"refwatch.db\"\n");
    let path = config.to_str().expect("UTF-8");
    let (status, _, stderr) = run(&workspace, &["--config", path]);
    assert_eq!(status, 78);
    assert_eq!(stderr, format!("error: {path}: http.external_url is not set: set it, or use --external-url\n"));
    let url = ["--external-url", "https://ops.lab.example/"];
    for (arguments, expected) in [
        (
            ["--set", "no_such=1"],
            "--set no_such: there is no such threshold; use one of: ended_seconds, submitted_seconds",
        ),
        (["--set", "ended_seconds=1d"], "must be NAME=NUMBER, with a number in the base unit such as 3600 or 0.1"),
        (["--set", "ended_seconds"], "must be NAME=NUMBER"),
        (["--job", "a\"} or vector(1)"], "must consist of letters, digits and _ - . / :"),
    ] {
        let (status, stdout, stderr) = run(&workspace, &[&url[..], &arguments].concat());
        assert_eq!((status, stdout.as_str()), (64, ""), "{arguments:?}");
        assert!(stderr.contains(expected), "{expected} in {stderr}");
    }
    let (status, _, stderr) = run(&workspace, &["--external-url", "ops.lab.example"]);
    assert!(status == 64 && stderr.contains("must be a URL such as"), "{stderr}");
}

#[test]
fn the_document_lists_each_threshold_with_its_default() {
    let document = include_str!("../../docs/metrics.md");
    let thresholds = SHIPPED.lines().filter_map(|line| line.rsplit_once(" # "));
    let mut count = 0;
    for (rule, name) in thresholds.filter(|(rule, _)| !rule.trim().is_empty() && !rule.trim_start().starts_with('#')) {
        let default = rule.rsplit(' ').next().expect("a number");
        let row = document.lines().find(|line| line.starts_with(&format!("| `--set {name}=` |")));
        assert!(row.is_some_and(|row| row.ends_with(&format!("| `{default}` |"))), "{name} {default}: {row:?}");
        count += 1;
    }
    assert_eq!(count, document.matches("| `--set ").count());
}

/// `BLESS=1` writes the file.
#[test]
fn the_rules_for_kubernetes_are_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/kubernetes/prometheusrule.yaml");
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config/kubernetes/refwatch.toml");
    let settings = refwatch::config::main_settings(config.as_ref()).http;
    let url = settings.external_url.expect("a URL").to_string();
    let generated = printed(&Workspace::new(), &["--kubernetes", "--external-url", &url]);
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, &generated).expect("the rules");
    }
    assert!(fs::read_to_string(path).expect("the rules") == generated, "run BLESS=1 cargo test rules_for_kubernetes");
}
