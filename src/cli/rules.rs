//! `refwatch rules`: prints config/prometheus/rules.yml with the user's settings, as a file for Prometheus or for its operator.
//!
//! The shipped file is valid as it is and defines the settings: a comment names the number before it, as in `> 3600 # submitted_seconds`.

use std::path::Path;

use http::Uri;
use regex_lite::{Captures, Regex};

use super::exit::{Exit, Failure, load, print};
use crate::config::parse_external_url;

const RULES: &str = include_str!("../../config/prometheus/rules.yml");
const SHIPPED_URL: &str = "http://127.0.0.1:10210/";
const SHIPPED_JOB: &str = "job=\"refwatch\"";

/// The metadata and the beginning of `spec`, which has the rules two columns further right.
const PROMETHEUS_RULE: &str = "\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: refwatch
  labels:
    app.kubernetes.io/name: refwatch
spec:
";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The URL of the status page for people [default: that of the configuration]
    #[arg(long, value_name = "URL", value_parser = parse_external_url)]
    external_url: Option<Uri>,
    /// The job name of the scrape configuration
    #[arg(long, value_name = "NAME", default_value = "refwatch", value_parser = parse_job)]
    job: String,
    /// A threshold. The comments of the rules have the names and the defaults
    #[arg(long = "set", value_name = "NAME=NUMBER", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Print an object for the Prometheus operator on Kubernetes
    #[arg(long)]
    kubernetes: bool,
}

/// # Errors
/// Returns an error if the URL is not known, or a setting does not exist.
pub fn run(config: &Path, args: &Args) -> Result<(), Failure> {
    let url = match &args.external_url {
        Some(url) => url.clone(),
        None => load(config)?.config.http.external_url.ok_or_else(|| no_url(config))?,
    };
    let url = url.to_string();
    let mut rules = RULES
        .replace(SHIPPED_URL, &format!("{}/", url.trim_end_matches('/')))
        .replace(SHIPPED_JOB, &format!("job=\"{}\"", args.job));
    for (name, number) in &args.settings {
        rules = with_setting(&rules, name, number)?;
    }
    print(if args.kubernetes { prometheus_rule(&rules) } else { rules })
}

fn no_url(config: &Path) -> Failure {
    let file = config.display();
    Failure::config(format_args!("{file}: http.external_url is not set: set it, or use --external-url"))
}

fn with_setting(rules: &str, name: &str, number: &str) -> Result<String, Failure> {
    let setting = Regex::new(r"[0-9.]+ # ([a-z_]+)\n").map_err(|error| Failure::new(Exit::InternalError, error))?;
    let names = setting.captures_iter(rules).filter_map(|found| found.get(1)).map(|name| name.as_str());
    let names: Vec<&str> = names.collect();
    if !names.contains(&name) {
        let names = names.join(", ");
        return Err(Failure::usage(format_args!("--set {name}: there is no such threshold; use one of: {names}")));
    }
    let replaced = setting.replace_all(rules, |found: &Captures<'_>| {
        if &found[1] == name { format!("{number} # {name}\n") } else { found[0].to_owned() }
    });
    Ok(replaced.into_owned())
}

/// Comments before the groups stay at the top.
fn prometheus_rule(rules: &str) -> String {
    let (comments, groups) = rules.split_at(rules.find("groups:").unwrap_or_default());
    let mut manifest = format!("{comments}{PROMETHEUS_RULE}");
    for line in groups.lines() {
        let indent = if line.is_empty() { "" } else { "  " };
        manifest.extend([indent, line, "\n"]);
    }
    manifest
}

/// A job name of Prometheus, or of its operator: `NAMESPACE/NAME`.
fn parse_job(text: &str) -> Result<String, String> {
    let is_valid = |character: char| character.is_ascii_alphanumeric() || "_-./:".contains(character);
    let valid = !text.is_empty() && text.chars().all(is_valid);
    valid.then(|| text.to_owned()).ok_or_else(|| "must consist of letters, digits and _ - . / :".to_owned())
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (name, number) = text.split_once('=').ok_or("must be NAME=NUMBER")?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && number.parse::<f64>().is_ok();
    let pair = (name.to_owned(), number.to_owned());
    is_number
        .then_some(pair)
        .ok_or_else(|| "must be NAME=NUMBER, with a number in the base unit such as 3600 or 0.1".to_owned())
}
