//! STUB
use super::signature::SigningSecret;
use crate::config::{SinkConfig, SinkUrl, parse_sink_url};
use crate::core::secret::Secret;
use http::Uri;
pub struct SinkSecrets {
    pub url: Uri,
    pub signing: Vec<SigningSecret>,
    pub bearer: Option<Secret>,
}
pub fn read(config: &SinkConfig) -> Result<SinkSecrets, String> {
    let url = match &config.url {
        SinkUrl::Text(t) => parse_sink_url(t.expose())?,
        SinkUrl::File(f) => parse_sink_url(std::fs::read_to_string(f).unwrap_or_default().trim())?,
    };
    let signing = match &config.secret_file {
        None => vec![],
        Some(f) => std::fs::read_to_string(f)
            .map_err(|e| e.to_string())?
            .lines()
            .map(SigningSecret::parse)
            .collect::<Result<_, _>>()?,
    };
    Ok(SinkSecrets { url, signing, bearer: None })
}
