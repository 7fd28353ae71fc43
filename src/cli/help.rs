//! The examples and exit statuses that `--help` and the manual pages show, and the files and variables of the manual pages.

const EXAMPLES: [&str; 30] = [
    "refwatch run",
    "refwatch run --config /etc/refwatch/second/refwatch.toml",
    "refwatch demo",
    "refwatch demo --jobs 20 --seconds 60 --listen 127.0.0.1:0",
    "refwatch simulate --config-out simulated.toml",
    "refwatch simulate --fault throttling=0.2 --fault internal=0.05",
    "refwatch check",
    "sudo -u refwatch refwatch check --online",
    "refwatch check --json | jq .problems",
    "refwatch schema >refwatch.schema.json",
    "refwatch status",
    "refwatch status --status FAILED",
    "refwatch status --kind read_set_import --search project=atlas",
    "refwatch status --follow --sort -duration",
    "refwatch add 1234567890/9876543210 --name GRCh38",
    "refwatch add read_set_import/1234567890/9876543210",
    "refwatch remove 1234567890/9876543210",
    "sudo refwatch reload",
    "refwatch notify status",
    "sudo refwatch notify test pipeline",
    "sudo refwatch notify replay pipeline --failed",
    "refwatch history 1234567890/9876543210",
    "refwatch history --since 2026-01-30 --status FAILED,CANCELLED",
    "refwatch history --follow --json --cursor /var/lib/hook/cursor",
    "refwatch wait 1234567890/9876543210 --region us-west-2 --timeout 2h",
    "refwatch wait --any --json 1234567890/9876543210 1234567890/9876543211",
    "refwatch rules --set listing_seconds=1800 >/etc/prometheus/refwatch.yml",
    "refwatch completions bash >~/.local/share/bash-completion/completions/refwatch",
    "refwatch man | man -l -",
    "refwatch man --directory manuals",
];

/// The examples that contain a command such as "refwatch notify test".
pub(super) fn examples(command: &str) -> impl Iterator<Item = &'static str> {
    EXAMPLES.into_iter().filter(move |line| line.contains(command))
}

const EXIT_STATUS: &str = "0 done; 1 failed while running; 64 wrong use; 70 internal error; 78 wrong configuration.";

/// The exit statuses of a command, if it has others than [`EXIT_STATUS`].
pub(super) fn exit_status(command: &str) -> &'static str {
    match command {
        "check" => {
            "0 no problems, and with --online every needed request succeeded and every sink is reachable; 1 with --online, a permission \
             is missing, a request failed or a sink is unreachable; 64 wrong use; 78 the configuration has a problem."
        }
        "wait" => {
            "0 every job is COMPLETED; 1 a job cannot be polled; 3 a job ended with another status; 64 wrong use; 78 AWS's \
             configuration cannot be used; 124 timed out. With --any, that of the first job that ended."
        }
        _ => EXIT_STATUS,
    }
}

/// The examples that `refwatch --help` shows.
const FIRST_EXAMPLES: [&str; 3] =
    ["refwatch demo", "sudo -u refwatch refwatch check --online", "refwatch status --follow --sort -duration"];

/// The text after the options in `--help` of a command such as "refwatch notify test".
pub(super) fn after_help(command: &str) -> String {
    let (name, examples) = match command.strip_prefix("refwatch ") {
        Some(name) => (name, examples(command).collect()),
        None => (command, FIRST_EXAMPLES.to_vec()),
    };
    let lines: String = examples.into_iter().flat_map(|line| ["  ", line, "\n"]).collect();
    format!("Examples:\n{lines}\nExit status: {}", exit_status(name))
}

/// Sections of each manual page: names and meanings.
pub(super) const FILES: [(&str, &str); 4] = [
    ("/etc/refwatch/refwatch.toml", "The configuration, see refwatch.toml(5)."),
    (
        "/etc/refwatch/conf.d/*.toml",
        "More jobs, stores and targets. refwatch add and refwatch remove edit these files.",
    ),
    ("/var/lib/refwatch/refwatch.db", "The database of the service."),
    ("/var/lib/refwatch/refwatch.db.sock", "The control socket of the service."),
];

pub(super) const ENVIRONMENT: [(&str, &str); 5] = [
    ("REFWATCH_CONFIG", "The configuration file, if --config is not given."),
    ("STATE_DIRECTORY", "The directory of the database, if the configuration names none. systemd sets it."),
    ("NO_COLOR", "If it is set and not empty, output has no colours, unless --color is always."),
    (
        "AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_CONFIG_FILE and other variables of the AWS SDK",
        "Region and credentials, if the target or the option does not set them.",
    ),
    ("HTTPS_PROXY, NO_PROXY", "The proxy for requests to AWS and to sinks."),
];
