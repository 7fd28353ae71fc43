//! Fault 148: terminals without a type or a width, and another program at the daemon's address. Provides a terminal for tests.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::{Value, json};

use super::service::{self, JOB, STORE, Service, response};
use crate::process::{Process, Workspace, eventually, get};

/// A terminal of script(1). Standard output of the process is everything that the terminal receives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// The value of `TERM`.
    pub(crate) kind: Option<&'static str>,
    pub(crate) columns: u16,
}

impl Default for Terminal {
    fn default() -> Self {
        Self { kind: Some("xterm"), columns: 80 }
    }
}

impl Terminal {
    /// Dropping the process closes the terminal.
    pub(crate) fn start(self, workspace: &Workspace, command: &Command) -> Process {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let line = format!("stty cols {} rows 24; exec {}", self.columns, words.join(" "));
        let mut script = Command::new("script");
        script.args(["-qefc", &line, "/dev/null"]).env_clear();
        script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(kind) = self.kind {
            script.env("TERM", kind);
        }
        script.stdin(std::process::Stdio::piped());
        workspace.spawn(script)
    }

    /// Runs the command to its end. Returns its exit status and what the terminal received.
    pub(crate) fn run(self, workspace: &Workspace, command: &Command) -> (Option<i32>, String) {
        let mut process = self.start(workspace, command);
        let status = process.end().code();
        (status, process.rest().join("\n"))
    }
}

const ESCAPE: char = '\u{1b}';
const WITHOUT_TYPE: [Option<&str>; 3] = [None, Some(""), Some("dumb")];

/// HealthOmics with one job, which has failed with this message.
fn failed_job(message: &'static str) -> Service {
    Service::new(move |request| service::job(request, &json!({"status": "FAILED", "statusMessage": message})))
}

fn wait(workspace: &Workspace, service: &Service) -> Command {
    let (endpoint, job) = (format!("http://{}", service.address), format!("{STORE}/{JOB}"));
    workspace.refwatch(&["wait", "--region", "us-west-2", "--endpoint-url", &endpoint, &job])
}

/// `refwatch check` of a file with an error.
fn check(workspace: &Workspace) -> Command {
    let file = workspace.write("wrong.toml", "[poll]\nintervall = \"5s\"\n");
    workspace.refwatch(&["--config", file.to_str().expect("text"), "check"])
}

#[test]
fn fault_148_a_terminal_without_a_type_gets_no_escape_sequences() {
    let (workspace, service) = (Workspace::new(), failed_job("no such file"));
    let commands = [
        wait(&workspace, &service),
        check(&workspace),
        workspace.refwatch(&["help"]),
        workspace.refwatch(&["nothing"]),
    ];
    for command in &commands {
        let (status, shown) = Terminal::default().run(&workspace, command);
        assert!(shown.contains(ESCAPE), "{command:?}: {shown}");
        for kind in WITHOUT_TYPE {
            let (dumb_status, shown) = Terminal { kind, ..Terminal::default() }.run(&workspace, command);
            assert!(!shown.contains(ESCAPE) && !shown.is_empty(), "{kind:?} {command:?}: {shown:?}");
            assert_eq!(status, dumb_status);
        }
    }
}

#[test]
fn fault_148_status_follow_on_a_terminal_without_a_type_appends_tables() {
    let (workspace, service) = (Workspace::new(), failed_job("no such file"));
    let config = service::config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let (_daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    let command = workspace.refwatch(&["status", "--follow", "--address", &address.to_string()]);
    for kind in WITHOUT_TYPE {
        let terminal = Terminal { kind, ..Terminal::default() }.start(&workspace, &command);
        let mut tables = 0;
        while tables < 2 {
            let line = terminal.line();
            assert!(!line.contains(ESCAPE), "{kind:?}: {line:?}");
            tables += usize::from(line.starts_with("WATCH"));
        }
    }
    assert!(Terminal::default().start(&workspace, &command).line().contains(ESCAPE));
}

#[test]
fn fault_148_no_line_vanishes_on_a_terminal_with_zero_columns() {
    const MESSAGE: &str = "The file s3://inbox/GRCh38.fa is not readable with this role";
    let (workspace, service) = (Workspace::new(), failed_job(MESSAGE));
    let config = service::config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let file = workspace.write("refwatch.toml", &config);
    let (_daemon, address) = workspace.daemon(&file);
    eventually("the end", || get(address, "/api/v1/jobs").1.contains(MESSAGE).then_some(()));
    let status = workspace.refwatch(&["status", "--address", &address.to_string()]);
    let history = workspace.refwatch(&["--config", file.to_str().expect("text"), "history"]);
    for columns in [0, 3] {
        for command in [&status, &history, &wait(&workspace, &service)] {
            let (_, shown) = Terminal { columns, ..Terminal::default() }.run(&workspace, command);
            assert!(shown.contains(MESSAGE), "{columns} {command:?}: {shown:?}");
        }
        let (_, shown) = Terminal { columns, ..Terminal::default() }.run(&workspace, &workspace.refwatch(&["help"]));
        assert!(shown.contains("completions"), "{columns}: {shown:?}");
    }
}

#[test]
fn fault_148_status_prints_only_what_refwatch_responds() {
    let workspace = Workspace::new();
    let reply = |body: String| Service::new(move |_| response("200 OK", "", &body));
    let strangers =
        ["\u{1b}]0;title\u{7}hello", "<html>", "[]", "{}", "null", r#"{"version":"1","jobs":[]}"#, "[{\"watch\":1}]"];
    for stranger in strangers {
        let address = reply(stranger.to_owned()).address.to_string();
        for arguments in [&["status", "--address", &address][..], &["status", "--json", "--address", &address]] {
            let (status, shown, error) = workspace.run(arguments);
            assert_eq!((status, shown.as_str()), (1, ""), "{stranger:?}: {error}");
            assert!(error.contains("not a response of refwatch") && !error.contains(ESCAPE), "{stranger:?}: {error}");
        }
    }
}

#[test]
fn fault_148_reload_prints_no_control_characters() {
    let workspace = Workspace::new();
    let file = workspace.write("refwatch.toml", "[database]\npath = \"refwatch.db\"\n");
    let socket = UnixListener::bind(workspace.path("refwatch.db.sock")).expect("a socket");
    let daemon = serde_json::json!({"version": "", "config_file": file, "database": "", "pid": 1}).to_string();
    std::thread::spawn(move || {
        let mut statuses = ["200 OK", "422 No", "500 No"].into_iter();
        for mut stream in socket.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            // The test fails below if nothing is read or written.
            drop(stream.read(&mut request));
            // Each reload first asks whose daemon responds.
            let response = if request.starts_with(b"GET") {
                response("200 OK", "", &daemon)
            } else {
                response(statuses.next().expect("three reloads"), "", "one\u{1b}[2J\ntwo\n")
            };
            drop(stream.write_all(response.as_bytes()));
        }
    });
    for expected in [0, 78, 1] {
        let (status, shown, error) = workspace.run(&["--config", file.to_str().expect("text"), "reload"]);
        let printed = shown + &error;
        assert_eq!(status, expected, "{printed}");
        assert!(printed.contains(r"one\u001b[2J") && !printed.contains(ESCAPE), "{printed:?}");
    }
}

#[test]
fn fault_148_the_json_of_status_has_no_control_characters_and_follows_with_errors_on_standard_error() {
    let (workspace, service) = (Workspace::new(), failed_job("\u{1b}[2Jno such\nfile\u{202e}"));
    let config = service::config(&[("default", service.address, "")], &[("default", STORE, JOB)]);
    let (daemon, address) = workspace.daemon(&workspace.write("refwatch.toml", &config));
    let jobs = eventually("the end", || Some(get(address, "/api/v1/jobs").1).filter(|jobs| jobs.contains("FAILED")));
    let jobs: Value = serde_json::from_str(&jobs).expect("JSON");
    // A proxy between daemon and command that undoes the escapes of the daemon.
    let proxy = Service::new(move |request| {
        let path = request.head.split(' ').nth(1).expect("a path");
        response("200 OK", "", &get(address, path).1.replace("\\u202e", "\u{202e}"))
    });
    let status = workspace.start(&["status", "--json", "--follow", "--address", &proxy.address.to_string()]);
    let line = status.line();
    assert!(line.contains("\\u001b") && !line.contains(['\u{1b}', '\u{202e}']), "{line}");
    let shown: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(shown[0]["status_message"], jobs[0]["status_message"]);
    drop(daemon);
    eventually("an error", || status.stderr().contains("cannot read the status").then_some(()));
    drop(status);
}
