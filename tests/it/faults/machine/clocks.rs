//! Fault 83: jumps of the wall clock. libfaketime changes the clock of the daemon only.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use super::{polls, with_short_backoff};
use crate::disk_faults::skipped;
use crate::process::{Workspace, eventually, get, json, metric, metric_sum};

/// Paths in Debian.
const LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

#[test]
fn fault_083_wall_clock_jumps_do_not_change_schedules() {
    let Some(library) = LIBRARIES.iter().find(|library| Path::new(library).exists()) else {
        return skipped::<()>("no libfaketime").unwrap_or_default();
    };
    let workspace = Workspace::new();
    let (_simulator, simulator, config) = workspace.simulate(&["--jobs", "2", "--stuck", "4", "--mean-seconds", "4"]);
    let config = workspace
        .write("refwatch.toml", &with_short_backoff(&config).replace("[poll]\n", "[poll]\nuse_list = false\n"));
    let time = workspace.write("time", "+0d\n");
    let mut command = workspace.refwatch(&["--config", config.to_str().expect("text"), "run"]);
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &time);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    let daemon = workspace.spawn(command);
    let address = daemon.address();
    let reloads = || {
        let log = daemon.stderr();
        log.lines()
            .filter(|line| line.contains("event=\"reloaded\""))
            .map(|line| line[..4].to_owned())
            .collect::<Vec<_>>()
    };
    let year: i32 = daemon.stderr()[..4].parse().expect("a year");
    for (number, (jump, shown)) in (1..).zip([("+1d", None), ("-57y", Some(year - 57)), ("+80y", Some(year + 80))]) {
        let polled = polls(simulator);
        // Renaming is atomic: libfaketime must not read an empty file.
        fs::rename(workspace.write("next", &format!("{jump}\n")), &time).expect("a replaced file");
        daemon.signal(Signal::HUP);
        let reloads = eventually("a reload", || Some(reloads()).filter(|reloads| reloads.len() == number));
        let last = reloads.last().expect("one").parse::<i32>().expect("a year");
        assert!(shown.is_none_or(|shown| (last - shown).abs() <= 1), "{reloads:?}");
        eventually("polls as before", || (polls(simulator) >= polled + 8).then_some(()));
        // Before 1970 hyper closes connections, because it cannot write a `Date` header.
        if shown.is_none_or(|shown| shown >= 1970) {
            assert_eq!((get(address, "/").0, get(address, "/-/ready").0), (200, 200));
        }
    }
    eventually("every end", || (metric(address, "refwatch_watches", &["finished"]) == Some(2.0)).then_some(()));
    // A burst would exceed the simulator's quota.
    assert_eq!(json(simulator, "/-/calls")["GetReferenceImportJob"]["throttled"], 0);
    assert!(metric_sum(address, "refwatch_api_request_failures_total", "target=") < 0.5);
    assert!(!daemon.stderr().contains("panic"), "{}", daemon.stderr());
}
