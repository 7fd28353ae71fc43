//! Included files: errors, the default pattern, and patterns that match the main file.

use refwatch::config::{Loaded, Problems, current_stamps};

use super::{directory, load_in};

#[test]
fn an_included_file_with_an_error_is_skipped_and_others_are_loaded() {
    let job = |id: u32, target: &str| {
        format!(
            "[[job]]\nreference_store_id = \"1234567890\"\nid = \"{}\"\ntarget = \"{target}\"\n",
            1_000_000_000 + id
        )
    };
    let directory = directory(&[
        ("refwatch.toml", &format!("include = [\"conf.d/*.toml\", \"conf.d/*\"]\n{}", job(1, "default"))),
        ("conf.d/a.toml", &format!("[target.eu]\nregion = \"nowhere\"\n{}", job(2, "eu"))),
        ("conf.d/b.toml", &job(3, "eu")),
        ("conf.d/c.toml", &job(4, "default")),
        ("conf.d/d.toml", &format!("{}{}", job(5, "default"), job(4, "default"))),
        ("conf.d/.e.toml", "not read"),
    ]);
    let Loaded { config, problems, .. } = load_in(&directory).expect("the main file is good");
    let jobs: Vec<String> = config.watch_list.jobs.keys().map(|id| id.key.job.to_string()).collect();
    assert_eq!(jobs, ["1000000001", "1000000004"]);
    let output: Vec<String> = problems
        .0
        .iter()
        .map(|problem| problem.summary().split_once("conf.d/").expect("a path").1.to_owned())
        .collect();
    assert_eq!(
        output,
        [
            "a.toml:2:10: `region` must be a region such as us-west-2",
            "b.toml:4:10: there is no target \"eu\"",
            "d.toml:7:6: this job is in the watch list twice",
        ]
    );
}

#[test]
fn a_pattern_may_lead_to_the_main_file_by_another_path() {
    let directory =
        directory(&[("refwatch.toml", "include = [\"conf.d/../*.toml\"]\n[poll]\n"), ("conf.d/a.toml", "")]);
    let Loaded { problems, files, .. } = load_in(&directory).expect("a good file");
    assert_eq!(problems, Problems::default());
    assert_eq!(files.stamps, current_stamps(&files.patterns), "the file would be loaded again and again");
}

#[test]
fn conf_d_is_included_by_default() {
    let job = "[[job]]\nreference_store_id = \"1234567890\"\nid = \"1000000001\"\n";
    for (main, jobs) in [("", 1), ("include = []\n", 0)] {
        let directory = directory(&[("refwatch.toml", main), ("conf.d/a.toml", job)]);
        let loaded = load_in(&directory).expect("a good file");
        assert_eq!(loaded.config.watch_list.jobs.len(), jobs, "{main:?}");
    }
}
