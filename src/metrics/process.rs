//! Writes the `process_*` metrics of Prometheus's client libraries, read from /proc at each scrape.
//!
//! The collector of the `prometheus` crate is not used: it counts CPU time in whole seconds, too coarse for an idle daemon.
//! Values that cannot be read are omitted.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::exposition::Exposition;
use super::number;
use crate::core::time::Timestamp;

/// Fields of /proc/self/stat, in the kernel's units (proc(5)).
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

/// `started_at` is an argument: the unit's `ProcSubset=pid` hides the files in /proc that have it.
pub(super) fn write(started_at: Timestamp, exposition: &mut Exposition) {
    let stat = Stat::read();
    let from_stat = |value: fn(&Stat) -> f64| stat.as_ref().map(value);
    exposition.single(
        "process_cpu_seconds_total",
        "User and system CPU time spent in seconds.",
        from_stat(|stat| cpu_seconds(stat.cpu_ticks)),
    );
    exposition.single("process_open_fds", "Open file descriptors.", open_fds());
    let max_fds = getrlimit(Resource::Nofile).current.map(number);
    exposition.single("process_max_fds", "Limit of open file descriptors.", max_fds);
    let resident_bytes = from_stat(|stat| number(stat.resident_pages) * number(page_size() as u64));
    exposition.single("process_resident_memory_bytes", "Resident memory size in bytes.", resident_bytes);
    let virtual_bytes = from_stat(|stat| number(stat.virtual_bytes));
    exposition.single("process_virtual_memory_bytes", "Virtual memory size in bytes.", virtual_bytes);
    exposition.single(
        "process_start_time_seconds",
        "When the process started, in seconds since the Unix epoch.",
        super::seconds(started_at),
    );
    exposition.single("process_threads", "Threads of the process.", from_stat(|stat| number(stat.threads)));
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Field 2 is the program's name in parentheses, which may contain any character. Field 3 follows the last parenthesis.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn cpu_seconds(ticks: u64) -> f64 {
    number(ticks) / number(clock_ticks_per_second())
}

/// Does not count the descriptor that reads the directory.
fn open_fds() -> Option<f64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(number(entries.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_may_contain_spaces_and_parentheses() {
        let line = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 12 34 0 0 20 0 5 0 678 900 11 18446744073709551615 1\n";
        let stat = Stat::parse(line).expect("a whole line");
        assert_eq!((stat.cpu_ticks, stat.threads, stat.virtual_bytes, stat.resident_pages), (46, 5, 900, 11));
        assert!(Stat::parse("7 (cut short) S 1").is_none());
    }

    #[test]
    fn cpu_time_has_fractions_of_a_second() {
        assert!((cpu_seconds(clock_ticks_per_second() / 4) - 0.25).abs() < 0.01);
    }
}
