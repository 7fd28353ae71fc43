//! Passwords on invalid lines of the configuration must not appear on pages, in logs or in command output.

use std::fs;

use crate::process::{Workspace, eventually, get, json, metric};

const GOOD: &str = "[database]\npath = \"refwatch.db\"\n[http]\nlisten = \"127.0.0.1:0\"\n";

const BROKEN: [&str; 6] = [
    "[http.users]\nada = \"hunter2\"\n",
    "[http.users]\n\"ada:hunter2\" = \"hunter2\"\n",
    "[http.users]\nada = hunter2\n",
    "[http]\nusers = \"ada:hunter2\"\n",
    "[target.eu]\nendpoint_url = \"https://ada:hunter2@example.org\"\n",
    "[target.eu]\nexternal_id = \"hunter2 hunter2\"\nendpointurl = \"https://ada:hunter2@example.org\"\n",
];

#[test]
fn a_password_on_an_invalid_line_is_shown_nowhere() {
    let workspace = Workspace::new();
    let file = workspace.write("refwatch.toml", GOOD);
    let (daemon, address) = workspace.daemon(&file);
    let reload = || metric(address, "refwatch_config_last_reload_successful", &[]);
    for broken in BROKEN {
        let (database, http) = GOOD.split_once("[http]\n").expect("two tables");
        let text = match broken.strip_prefix("[http]\n") {
            Some(rest) => format!("{database}[http]\n{rest}{http}"),
            None => format!("{GOOD}{broken}"),
        };
        fs::write(&file, text).expect("a file");
        let (status, _, output) = workspace.run(&["--config", file.to_str().expect("text"), "reload"]);
        assert!(status == 78 && output.contains("refwatch.toml:"), "{output}");
        eventually("the metric", || (reload() == Some(0.0)).then_some(()));
        let api = json(address, "/api/v1/daemon").to_string();
        for (place, shown) in
            [("page", get(address, "/").1), ("API", api), ("log", daemon.stderr()), ("output", output)]
        {
            assert!(shown.contains("refwatch.toml:"), "{place}: {shown}");
            assert!(!shown.contains("hunter2"), "{place} of {broken}: {shown}");
        }
        let (status, _, error) = workspace.run(&["--config", file.to_str().expect("text"), "run"]);
        assert!(status == 78 && !error.contains("hunter2"), "{error}");
    }
}
