//! The warnings of `refwatch check`: the daemon starts or is restarted despite them, or only this user or this machine is affected.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::path::Path;

use rustix::fs::{Access, access};

use crate::config::watch_list::WatchList;
use crate::config::{Config, wildcard_matches};

pub(super) fn warnings(config: &Config) -> impl Iterator<Item = String> {
    let settings = [config.http.exposure_warning(), listen_warning(config), log_warning(config)].into_iter().flatten();
    settings.chain(unmatched_patterns(config))
}

/// A pattern may be written before its job is, so this is no error.
fn unmatched_patterns(config: &Config) -> impl Iterator<Item = String> {
    let WatchList { jobs, stores } = &config.watch_list;
    let names: BTreeSet<&str> =
        jobs.values().chain(stores.values().map(|store| &store.job_settings)).map(|entry| &*entry.name).collect();
    let patterns = config.sinks.iter().flat_map(|sink| sink.events.watches.iter().map(|pattern| (&sink.name, pattern)));
    let unmatched = patterns.filter(move |(_, pattern)| !names.iter().any(|name| wildcard_matches(pattern, name)));
    unmatched.map(|(sink, pattern)| {
        format!("the sink \"{sink}\": \"{pattern}\" in `watches` matches no name of a job or store")
    })
}

/// With any port, because the daemon may use the configured one already.
fn listen_warning(config: &Config) -> Option<String> {
    let ip = config.http.listen.ip();
    let error = TcpListener::bind((ip, 0)).err().filter(|error| error.kind() == ErrorKind::AddrNotAvailable)?;
    Some(format!("http.listen: {ip} is no address of this machine, so the daemon cannot start: {error}"))
}

fn log_warning(config: &Config) -> Option<String> {
    let directory = config.log.directory.as_deref()?;
    let error = writable(directory).err()?;
    Some(format!(
        "log.directory: {} cannot be written by this user, so its lines would be dropped: {error}",
        directory.display()
    ))
}

/// Creates nothing. The daemon creates a missing directory, in the nearest one that exists.
fn writable(directory: &Path) -> io::Result<()> {
    let existing = directory.ancestors().find(|path| fs::symlink_metadata(path).is_ok()).unwrap_or(directory);
    if !fs::metadata(existing)?.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    Ok(access(existing, Access::WRITE_OK | Access::EXEC_OK)?)
}
