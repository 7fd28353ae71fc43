//! What refwatch costs the machine, beside a plain loop of the same SDK and boto3: CPU, memory, connections, time to start.
//!
//! Everything runs as a process of its own: the daemon with record, metrics and log, the simulated HealthOmics, and each peer.
//! `docs/footprint.md` has a result, which a whole run writes there, and says how to get one.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result and what comes with it")]

mod contestant;
mod figures;
mod plain_loop;
mod process;
mod simulated;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use contestant::{Contestant, PYTHON};

/// The document, and what in it stands before and behind the result.
const DOCUMENT: &str = "docs/footprint.md";
const BEGIN: &str = "<!-- the result: a whole run writes it -->\n";
const END: &str = "<!-- the end of the result -->\n";

/// What refwatch costs the machine, beside a plain loop of the same SDK and boto3
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench footprint --", args_conflicts_with_subcommands = true)]
struct Args {
    /// Only these
    measures: Vec<Measure>,
    /// Fewer rounds, shorter ones, and nothing with 100,000 watches
    #[arg(long)]
    quick: bool,
    /// Without boto3, which `tests/e2e/run simulator` installs
    #[arg(long)]
    without_boto3: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when it runs itself.
#[derive(Subcommand)]
enum Role {
    /// The plain loop, until it is ended
    #[command(hide = true)]
    PlainLoop { endpoint: String, jobs: PathBuf, interval_seconds: f64 },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    Polls,
    Memory,
    Connections,
    Idle,
    Start,
    Scrapes,
    Binary,
}

/// How much of everything there is.
#[derive(Clone, Copy)]
struct Extent {
    rounds: usize,
    window: Duration,
    idle_window: Duration,
    starts: usize,
    scrapes: usize,
    watches: &'static [usize],
    /// Jobs whose transitions are in a record, and how soon it is to be taken up, in milliseconds.
    recorded: &'static [(usize, &'static str)],
}

const WHOLE: Extent = Extent {
    rounds: 5,
    window: Duration::from_secs(8),
    idle_window: Duration::from_mins(1),
    starts: 21,
    scrapes: 200,
    watches: &[1, 1_000, 10_000, 100_000],
    // The simulator's have 3.6 sources on average: a hundred thousand transitions, then more than a stop seals.
    recorded: &[(21_900, "≤ 60"), (100_000, "–")],
};
const QUICK: Extent = Extent {
    rounds: 2,
    window: Duration::from_secs(4),
    idle_window: Duration::from_secs(30),
    starts: 7,
    scrapes: 40,
    watches: &[1, 1_000, 10_000],
    recorded: &[(21_900, "≤ 60")],
};

/// What stands in the way of a measurement.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One line of the table: what, then a cell for each contestant, then what is to be reached.
type Row = [String; 5];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    if let Some(Role::PlainLoop { endpoint, jobs, interval_seconds }) = args.role {
        return plain_loop::run(&endpoint, &jobs, Duration::from_secs_f64(interval_seconds)).await;
    }
    let extent = if args.quick { QUICK } else { WHOLE };
    let boto3 = if args.without_boto3 { None } else { contestant::boto3_version() };
    if boto3.is_none() && !args.without_boto3 {
        eprintln!("{PYTHON} has no boto3, so it is left out: `tests/e2e/run simulator` installs it");
    }
    let takes_part = |contestant: &Contestant| *contestant != Contestant::Boto3 || boto3.is_some();
    let contestants: Vec<Contestant> = Contestant::ALL.into_iter().filter(takes_part).collect();

    let mut table = Table::new();
    let header = ["", "refwatch", "plain loop", "boto3", "to reach"];
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for measure in
        Measure::value_variants().iter().filter(|one| args.measures.is_empty() || args.measures.contains(one))
    {
        for row in measure.rows(&contestants, &extent).await? {
            eprintln!("{}", row.join(" | "));
            table.add_row(row);
        }
    }
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let separator = if arguments.is_empty() { "" } else { " -- " };
    let command = format!("cargo bench --bench footprint{separator}{}", arguments.join(" "));
    let sdk = aws_sdk_omics::meta::PKG_VERSION;
    let boto3 = boto3.unwrap_or_else(|| "left out".to_owned());
    let result = format!("```text\n{command}\n```\n\n{table}\n\naws-sdk-omics {sdk}, boto3 {boto3}; {}.\n", machine());
    println!("{result}");
    if arguments.is_empty() {
        write_down(&result)?;
    }
    Ok(())
}

impl Measure {
    async fn rows(self, contestants: &[Contestant], extent: &Extent) -> Result<Vec<Row>, Failure> {
        match self {
            Self::Polls => figures::polls(contestants, extent).await,
            Self::Memory => figures::memory(contestants, extent).await,
            Self::Connections => figures::connections(contestants).await,
            Self::Idle => figures::idle(contestants, extent).await,
            Self::Start => figures::start(contestants, extent).await,
            Self::Scrapes => figures::scrapes(extent).await,
            Self::Binary => figures::binary(),
        }
    }
}

/// "2 × Intel(R) Xeon(R) Processor"
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = || info.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!("{} × {}", models().count(), models().next().map_or("an unknown processor", |(_, model)| model))
}

/// Puts the result where the document has its last one.
fn write_down(result: &str) -> Result<(), Failure> {
    let text = fs::read_to_string(DOCUMENT)?;
    let (before, rest) = text.split_once(BEGIN).ok_or("the document has no place for the result")?;
    let (_, after) = rest.split_once(END).ok_or("the result in the document has no end")?;
    Ok(fs::write(DOCUMENT, [before, BEGIN, "\n", result, "\n", END, after].concat())?)
}
