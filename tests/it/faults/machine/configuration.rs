//! Faults 86 to 89 and 116: configuration files that are replaced, missing, unreadable or invalid, at a reload and at start.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use refwatch::config::load;
use rustix::process::Signal;

use crate::process::{Workspace, eventually, get, metric};

/// Creates a file of some kind at the path.
type Put = fn(&PathBuf);

#[test]
fn fault_087_088_reloading_an_unreadable_configuration_keeps_the_old_one_and_reports_it() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let path = workspace.write("refwatch.toml", &config);
    let (daemon, address) = workspace.daemon(&path);
    let failed_reloads = || daemon.stderr().matches("event=\"reload_failed\"").count();
    let table: [(&str, Put); 6] = [
        ("No such file or directory", |_| {}),
        ("not a regular file", |path| fs::create_dir(path).expect("a directory")),
        ("not a regular file", |path| {
            assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
        }),
        // Even root cannot read this file.
        ("Input/output error", |path| std::os::unix::fs::symlink("/proc/self/mem", path).expect("a link")),
        ("larger than 1024 KiB", |path| {
            fs::File::create(path).and_then(|file| file.set_len(100 << 20)).expect("a file with a hole");
        }),
        ("not UTF-8", |path| fs::write(path, b"[log]\nlevel = \"\xff\"\n").expect("a file")),
    ];
    for (number, (expected, put)) in (1..).zip(table) {
        if fs::symlink_metadata(&path).is_ok() {
            if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) }.expect("the old file");
        }
        put(&path);
        daemon.signal(Signal::HUP);
        eventually(expected, || (failed_reloads() == number).then_some(()));
        assert_eq!(metric(address, "refwatch_config_last_reload_successful", &[]), Some(0.0));
        let page = get(address, "/").1;
        assert!(page.contains(expected) && page.contains("the previous configuration is still used"), "{page}");
        assert_eq!(metric(address, "refwatch_watches", &["live"]), Some(2.0));
        assert_eq!(get(address, "/-/ready").0, 200);
    }
    fs::remove_file(&path).expect("the old file");
    fs::write(&path, config).expect("a file");
    daemon.signal(Signal::HUP);
    let reload = || metric(address, "refwatch_config_last_reload_successful", &[]);
    eventually("the corrected file", || (reload() == Some(1.0)).then_some(()));
}

#[test]
fn fault_116_an_emptied_main_file_keeps_the_running_configuration() {
    let workspace = Workspace::new();
    let (_simulator, _, config) = workspace.simulate(&["--jobs", "2", "--mean-seconds", "600"]);
    let path = workspace.write("refwatch.toml", &config);
    let (daemon, address) = workspace.daemon(&path);
    for (number, text) in (1..).zip(["", "\n \n", "# Jobs follow.\n"]) {
        fs::write(&path, text).expect("a file");
        let failed_reloads = || daemon.stderr().matches("event=\"reload_failed\"").count();
        eventually("the failed reload", || (failed_reloads() == number).then_some(()));
        assert!(get(address, "/").1.contains("the main file is empty"), "{text:?}");
        assert_eq!(metric(address, "refwatch_watches", &["live"]), Some(2.0));
        fs::write(&path, &config).expect("a file");
        let reload = || metric(address, "refwatch_config_last_reload_successful", &[]);
        eventually("the restored file", || (reload() == Some(1.0)).then_some(()));
    }
}

#[test]
fn fault_086_a_configuration_replaced_during_a_read_is_read_as_one_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("refwatch.toml");
    let list = |digit: u32| -> String {
        let job = |n| format!("[[job]]\nreference_store_id = \"1234567890\"\nid = \"{digit}{n:09}\"\n");
        (0..200).map(job).collect()
    };
    let files = ["a", "b", "bad", "fifo"].map(|name| directory.path().join(name));
    let put = |file: &PathBuf| {
        // Replaces the file atomically.
        let next = directory.path().join("next");
        if file.ends_with("fifo") {
            assert!(Command::new("mkfifo").arg(&next).status().expect("mkfifo").success());
        } else {
            fs::copy(file, &next).expect("a copy");
        }
        fs::rename(&next, &path).expect("a replaced file");
    };
    fs::write(&files[0], list(1)).expect("a file");
    fs::write(&files[1], list(2)).expect("a file");
    fs::write(&files[2], list(1) + "[[jop]]\n").expect("a file");
    put(&files[0]);
    let done = AtomicBool::new(false);
    let mut loads = [0; 3];
    thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                files.iter().for_each(put);
            }
        });
        while loads.iter().any(|count| *count < 20) && !replacing.is_finished() {
            match load(&path) {
                Ok(loaded) => {
                    let jobs: Vec<String> =
                        loaded.config.watch_list.jobs.keys().map(|id| id.key.job.to_string()).collect();
                    let digit = jobs[0].as_bytes()[0];
                    assert!(jobs.len() == 200 && jobs.iter().all(|job| job.as_bytes()[0] == digit), "{jobs:?}");
                    loads[usize::from(digit - b'1')] += 1;
                }
                Err(problems) => {
                    let summary = problems.summary();
                    assert!(summary.contains("jop") || summary.contains("not a regular file"), "{summary}");
                    loads[2] += 1;
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(loads.iter().all(|count| *count >= 20), "{loads:?}");
}

#[test]
fn fault_089_an_invalid_configuration_at_start_exits_with_a_status_that_prevents_restarts() {
    let unit = include_str!("../../../../systemd/refwatch.service");
    assert!(unit.lines().any(|line| line == "RestartPreventExitStatus=64 78"), "{unit}");
    let workspace = Workspace::new();
    for text in [None, Some("nonsense = 1\n"), Some("[http]\nlisten = \"localhost\"\n"), Some("[[job]\n")] {
        let path = workspace.path("refwatch.toml");
        if let Some(text) = text {
            fs::write(&path, text).expect("a file");
        }
        let (status, _, error) = workspace.run(&["--config", path.to_str().expect("text"), "run"]);
        assert_eq!(status, 78, "{error}");
        assert!(error.contains("refwatch.toml"), "{error}");
        assert!(!workspace.path("refwatch.db").exists());
    }
}
