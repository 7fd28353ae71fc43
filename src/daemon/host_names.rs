//! The host names that HTTP requests may use, besides IP addresses and `localhost`, and the path of `http.external_url`.
//!
//! The names of this machine are read from files: a resolver could block the start, and could return a name of somebody else.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::HttpConfig;

/// `allowed_hosts` and the host of `external_url`. Unless the listener is on loopback, also the name of this machine with and without its
/// domain. In lower case.
pub(super) fn allowed(http: &HttpConfig, listen: SocketAddr) -> Arc<[String]> {
    let external = http.external_url.as_ref().and_then(|url| url.host());
    let configured = http.allowed_hosts.iter().map(String::as_str).chain(external).map(str::to_ascii_lowercase);
    let own = if listen.ip().is_loopback() { Vec::new() } else { own_names() };
    configured.chain(own).collect()
}

/// Without the final slash; empty without `external_url`.
pub(super) fn external_path(http: &HttpConfig) -> Arc<str> {
    http.external_url.as_ref().map_or("", |url| url.path().trim_end_matches('/')).into()
}

fn own_names() -> Vec<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // Without the files, the domain is unknown.
    let [hosts, resolv] = ["/etc/hosts", "/etc/resolv.conf"].map(|path| fs::read_to_string(path).unwrap_or_default());
    names_of(&name, &hosts, &resolv)
}

/// The names of the machine that `hostname` calls `name`: the first part, and the name with its domain. The domain is in `name`, or in the
/// first name of its line in `/etc/hosts` (hosts(5)), or it is the `domain` or first `search` domain in `resolv.conf` (resolv.conf(5)).
fn names_of(name: &str, hosts: &str, resolv: &str) -> Vec<String> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let bare = name.split('.').next().unwrap_or_default().to_owned();
    if bare != name || name.is_empty() {
        return [name, bare].into_iter().filter(|name| !name.is_empty()).collect();
    }
    let in_hosts = hosts.lines().find_map(|line| {
        let line = line.split('#').next()?.to_ascii_lowercase();
        let mut names = line.split_whitespace().skip(1);
        let first = names.next()?.to_owned();
        let is_full = first.strip_prefix(&bare).is_some_and(|domain| domain.starts_with('.'));
        (is_full && names.any(|alias| alias == bare)).then_some(first)
    });
    let full = in_hosts.or_else(|| {
        // The last of these lines counts.
        let domain = resolv.lines().rev().find_map(|line| {
            let mut words = line.split_whitespace();
            words.next().filter(|word| ["domain", "search"].contains(word)).and_then(|_| words.next())
        })?;
        let domain = domain.trim_end_matches('.').to_ascii_lowercase();
        (!domain.is_empty()).then(|| format!("{bare}.{domain}"))
    });
    [bare].into_iter().chain(full).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_144_the_domain_is_in_the_name_in_hosts_or_in_resolv_conf() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1\tWorm.lab.example worm # worm.evil.example worm\n10.0.0.9 other.evil.example worm\n";
        let search = "nameserver 10.0.0.1\nsearch lab2.example. evil.example\n";
        for (name, hosts, resolv, expected) in [
            ("worm", "", "", vec!["worm"]),
            ("worm", hosts, search, vec!["worm", "worm.lab.example"]),
            ("other", hosts, "", vec!["other"]),
            ("worm", "::1 localhost worm", search, vec!["worm", "worm.lab2.example"]),
            ("worm", "", "search evil.example\ndomain lab3.example", vec!["worm", "worm.lab3.example"]),
            ("worm", "", "search .", vec!["worm"]),
            ("Worm.lab4.example", hosts, search, vec!["worm.lab4.example", "worm"]),
            ("", hosts, search, vec![]),
        ] {
            assert_eq!(names_of(name, hosts, resolv), expected, "{name} {hosts:?} {resolv:?}");
        }
    }
}
