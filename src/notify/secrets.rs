//! Reads the files of a sink: `url_file`, `secret_file` and `bearer_token_file`.
//!
//! An error of a file names the sink, the key and the file, and never quotes the content. A file system can hang, so the daemon calls this
//! module on a blocking thread.

use std::io::ErrorKind;
use std::path::Path;

use http::Uri;

use super::signature::SigningSecret;
use crate::config::{SinkConfig, SinkUrl, parse_sink_url};
use crate::core::secret::Secret;
use crate::files;

/// Servers accept about 8 kB of headers. The file of `secret_file` may have as many secrets as fit in that.
const FILE_BYTES_MAX: u64 = 4096;

const HOW_TO_MAKE_A_SECRET: &str = "to make one, run `echo whsec_$(openssl rand -base64 32)`";

/// The contents of a sink's files.
pub struct SinkSecrets {
    /// Its path and query may contain a token.
    pub url: Uri,
    /// Empty: requests are not signed.
    pub signing: Vec<SigningSecret>,
    /// Printable ASCII without spaces.
    pub bearer: Option<Secret>,
}

/// # Errors
/// A file cannot be read, or has no valid URL, secret or token.
pub fn read(config: &SinkConfig) -> Result<SinkSecrets, String> {
    let context = |key: &str, file: &Path, error: &str| {
        format!("the sink \"{}\": the file of `{key}`, {}, {error}", config.name, file.display())
    };
    let url = match &config.url {
        SinkUrl::Text(text) => parse_sink_url(text.expose()).map_err(|rule| format!("the URL {rule}"))?,
        SinkUrl::File(file) => read_url(file).map_err(|error| context("url_file", file, &error))?,
    };
    let signing = config.secret_file.as_ref().map_or(Ok(Vec::new()), |file| {
        read_signing_secrets(file).map_err(|error| context("secret_file", file, &error))
    })?;
    let bearer = config
        .bearer_token_file
        .as_ref()
        .map(|file| read_token(file).map_err(|error| context("bearer_token_file", file, &error)));
    Ok(SinkSecrets { url, signing, bearer: bearer.transpose()? })
}

fn read_url(file: &Path) -> Result<Uri, String> {
    parse_sink_url(&read_text(file)?).map_err(|rule| format!("has an invalid URL: it {rule}"))
}

/// The secrets in a file, one per line.
///
/// # Errors
/// The text begins with a verb, such as "is empty". The caller puts the name of the file before the text.
pub fn read_signing_secrets(file: &Path) -> Result<Vec<SigningSecret>, String> {
    let text = read_text(file).map_err(|error| format!("{error}; {HOW_TO_MAKE_A_SECRET}"))?;
    let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty());
    let parse = |(number, line)| {
        SigningSecret::parse(line)
            .map_err(|error| format!("has an invalid secret on line {number}: {error}; {HOW_TO_MAKE_A_SECRET}"))
    };
    lines.map(parse).collect()
}

fn read_token(file: &Path) -> Result<Secret, String> {
    let text = read_text(file)?;
    let is_token = text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_token {
        Ok(Secret::new(&text))
    } else {
        Err("must have one token of printable ASCII without spaces".to_owned())
    }
}

/// The text without white space at its beginning and end.
fn read_text(file: &Path) -> Result<String, String> {
    let bytes = files::read(file, FILE_BYTES_MAX).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => format!("is larger than {FILE_BYTES_MAX} bytes"),
        _ => format!("cannot be read: {error}"),
    })?;
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    let text = text.trim();
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}
