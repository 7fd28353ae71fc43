//! The lines of failed polls and of ends in the log.

use rustix::process::Signal;

use crate::process::{Workspace, eventually, metric, metric_sum};

#[test]
fn single_failed_polls_are_counted_and_not_logged_and_failed_jobs_are_warnings() {
    let workspace = Workspace::new();
    let arguments = ["--jobs", "8", "--mean-seconds", "20", "--quota", "50", "--fault", "internal=0.05"];
    let (_simulator, _, config) = workspace.simulate(&arguments);
    let settings = "[poll]\nuse_list = false\nbackoff_initial = \"100ms\"\nbackoff_max = \"1s\"\n";
    let config = workspace.write("refwatch.toml", &config.replacen("[poll]\n", settings, 1));
    let (mut daemon, address) = workspace.daemon(&config);
    eventually("the end of each job", || {
        (metric(address, "refwatch_watches", &["finished"]) == Some(8.0)).then_some(())
    });
    let failed = metric_sum(address, "refwatch_api_request_failures_total", "reason=\"internal\"");
    daemon.signal(Signal::TERM);
    assert!(daemon.end().success());
    let log = daemon.stderr();
    let lines =
        |event: &str| log.lines().filter(|line| line.contains(&format!("event=\"{event}\""))).collect::<Vec<_>>();
    assert!(failed > 0.0, "{log}");
    // Three failures in a row are rare at this rate.
    assert!(lines("poll_failed").len() <= 2 && lines("poll_recovered").len() <= 2, "{failed}: {log}");
    let (ends, others): (Vec<&str>, Vec<&str>) = lines("transition").into_iter().partition(|line| {
        ["FAILED", "CANCELLED", "COMPLETED_WITH_FAILURES"].iter().any(|end| line.contains(&format!("to_status={end} ")))
    });
    assert!(!ends.is_empty() && ends.iter().all(|line| line.contains(" WARN ")), "{ends:#?}");
    assert!(others.iter().all(|line| line.contains(" INFO ")), "{others:#?}");
}
