//! Warnings if every user can read a secret: the private key, a password hash, or a secret of a sink. A hash is a secret, because
//! passwords can be guessed from it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::Config;
use super::sinks::{SinkConfig, SinkUrl, parse_sink_url};

/// The permission of users who are neither the owner nor in the group.
const READABLE_BY_OTHERS: u32 = 0o004;

/// A run of this many letters and digits counts as a token. Tokens in URLs have 24 (Slack), 26 (Mattermost) or 32 (Teams).
const TOKEN_LENGTH_MIN: usize = 24;

impl Config {
    /// Returns a warning for each secret in a file that every user can read: the private key, the files of sinks, and `main_file` with
    /// its password hashes and tokens.
    #[must_use]
    pub fn readable_secret_warnings(&self, main_file: &Path) -> Vec<String> {
        let key = self.http.tls.as_ref().map(|tls| (&*tls.key, "the private key of http.tls".to_owned()));
        let hashes = (!self.http.users.is_empty()).then(|| (main_file, "the password hashes of http.users".to_owned()));
        let sinks = self.sinks.iter().flat_map(|sink| {
            let in_main_file = keys_with_token(sink).map(|key| (key, main_file));
            let describe = |(key, path)| (path, format!("a secret of the sink \"{}\" (`{key}`)", sink.name));
            sink.files().chain(in_main_file).map(describe)
        });
        // A file whose metadata cannot be read is left out: other checks report it.
        let every_user_can_read =
            |path: &Path| fs::metadata(path).is_ok_and(|file| file.mode() & READABLE_BY_OTHERS != 0);
        let readable = key.into_iter().chain(hashes).chain(sinks).filter(|(path, _)| every_user_can_read(path));
        let warning = |(path, secret): (&Path, _)| {
            let path = path.display();
            format!(
                "every user can read {path}, which has {secret}: make the daemon's group its group, and run `chmod o-rwx {path}`"
            )
        };
        readable.map(warning).collect()
    }
}

/// The keys of a `[[notify]]` table whose value may contain a token.
fn keys_with_token(sink: &SinkConfig) -> impl Iterator<Item = &'static str> {
    let in_url = match &sink.url {
        // Only path and query can contain a token: the host is public.
        SinkUrl::Text(url) => {
            parse_sink_url(url.expose()).is_ok_and(|url| has_token(url.path()) || url.query().is_some_and(has_token))
        }
        SinkUrl::File(_) => false,
    };
    let in_headers = sink.headers.values().any(|value| has_token(value.expose()));
    [("url", in_url), ("headers", in_headers)].into_iter().filter(|(_, found)| *found).map(|(key, _)| key)
}

fn has_token(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part.len() >= TOKEN_LENGTH_MIN)
}
