//! What was likely meant by a value that breaks its rule: the help under the rule.
//!
//! A hint that proposes a value has tried it against the rule. It quotes no URL that may hold a password.

use std::str::FromStr;

use super::PasswordHash;
use super::value::{
    BackoffInitial, BackoffMax, EndpointUrl, ExternalId, ForgetAfter, IncludePattern, Interval, Keep, Listen,
    MinInterval, Profile, Region, RoleArn, Since, TargetName, Timeout, UserName, WatchName, Written, WrittenPath,
};
use crate::core::job::{ImportJobId, ReferenceStoreId};
use crate::core::time::parse_duration;

/// A kind of value that knows how people miswrite it.
pub(super) trait Hint: FromStr {
    /// Help for whoever wrote `text`, which breaks the rule.
    fn hint(_text: &str) -> Option<String> {
        None
    }
}

/// Proposes the first of `candidates` that keeps the rule.
fn did_you_mean<T: FromStr>(candidates: impl IntoIterator<Item = String>) -> Option<String> {
    let good = candidates.into_iter().find(|candidate| candidate.parse::<T>().is_ok())?;
    Some(format!("did you mean \"{good}\"?"))
}

macro_rules! durations {
    ($($name:ident),*) => {
        $(impl Hint for $name {
            fn hint(text: &str) -> Option<String> {
                duration::<Self>(text)
            }
        })*
    };
}

durations!(BackoffInitial, BackoffMax, ForgetAfter, Interval, Keep, MinInterval, Since, Timeout);

/// A number without a unit is seconds to most; then other ways to write a duration: `5M`, `PT5M`, `00:05:00`.
fn duration<T: FromStr>(text: &str) -> Option<String> {
    let lower = text.trim().to_lowercase();
    let clock = || {
        let parts: Option<Vec<u32>> = lower.split(':').map(|part| part.parse().ok()).collect();
        let &[hours, minutes, seconds] = parts?.as_slice() else { return None };
        let length = parse_duration(&format!("{hours}h {minutes}m {seconds}s")).ok()?;
        Some(Written(length).to_string())
    };
    let iso = lower.strip_prefix('p').map(|iso| iso.replace('t', ""));
    let with_unit =
        |unit: &str| Some(format!("{lower}{unit}")).filter(|_| lower.ends_with(|c: char| c.is_ascii_digit()));
    let candidates = [Some(lower.clone()), with_unit("s"), with_unit("d"), iso, clock()];
    let meant = did_you_mean::<T>(candidates.into_iter().flatten())?;
    // The one unit whose case counts, and it looks like minutes.
    let month = text.ends_with('M') && !lower.starts_with('p');
    Some(if month { format!("`M` is a month, `m` a minute: {meant}") } else { meant })
}

/// What an id is asked for with: an ARN, a URL of the console, or STORE/JOB.
fn ids(text: &str) -> Vec<&str> {
    let digits = |part: &&str| part.len() >= 10 && part.bytes().all(|byte| byte.is_ascii_digit());
    // The number between two colons is the account.
    let path = if text.starts_with("arn:") { text.rsplit(':').next().unwrap_or_default() } else { text };
    path.split(|c: char| !c.is_ascii_digit()).filter(digits).collect()
}

impl Hint for ReferenceStoreId {
    fn hint(text: &str) -> Option<String> {
        let store = ids(text).first().map(ToString::to_string);
        let advice = "it is in the console, and in the answer of ListReferenceStores";
        did_you_mean::<Self>(store).or_else(|| Some(advice.to_owned()))
    }
}

impl Hint for ImportJobId {
    fn hint(text: &str) -> Option<String> {
        let ids = ids(text);
        let of_store = text.contains("eferenceStore/") || text.contains("eference-store/");
        if let ([_], true) = (ids.as_slice(), of_store) {
            return Some(
                "this names a reference store; the job's id is in the answer of StartReferenceImportJob".to_owned(),
            );
        }
        let job = ids.last().map(ToString::to_string);
        let advice = "it is in the console, and in the answer of StartReferenceImportJob";
        did_you_mean::<Self>(job).or_else(|| Some(advice.to_owned()))
    }
}

impl Hint for Region {
    fn hint(text: &str) -> Option<String> {
        let lower = text.trim().to_lowercase().replace(['_', ' '], "-");
        // An availability zone is a region and a letter.
        let zone = lower.trim_end_matches(|c: char| c.is_ascii_lowercase()).to_owned();
        let hyphen = lower.trim_end_matches(|c: char| c.is_ascii_digit());
        let hyphen = format!("{hyphen}-{}", &lower[hyphen.len()..]);
        did_you_mean::<Self>([lower, zone, hyphen])
    }
}

impl Hint for RoleArn {
    fn hint(text: &str) -> Option<String> {
        let parts: Vec<&str> = text.split(':').collect();
        let ["arn", partition, _, _, account, resource] = parts.as_slice() else {
            return Some("a role is named by its whole ARN; `aws iam get-role` shows it".to_owned());
        };
        if let Some((_, kind)) = [
            ("user/", "a user"),
            ("group/", "a group"),
            ("policy/", "a policy"),
            ("instance-profile/", "an instance profile"),
        ]
        .into_iter()
        .find(|(prefix, _)| resource.starts_with(prefix))
        {
            return Some(format!("this is {kind}: only a role can be assumed"));
        }
        // A session's ARN, as GetCallerIdentity answers it, has the role's name without its path.
        let session = resource.strip_prefix("assumed-role/").and_then(|rest| rest.split('/').next());
        let role = session.map_or_else(|| (*resource).to_owned(), |name| format!("role/{name}"));
        did_you_mean::<Self>([format!("arn:{partition}:iam::{}:{role}", account.replace('-', ""))])
    }
}

impl Hint for Listen {
    fn hint(text: &str) -> Option<String> {
        let bare = text.trim().trim_start_matches("http://").trim_end_matches('/');
        let (host, port) = bare.rsplit_once(':').unwrap_or(("", bare));
        if port.parse::<u64>().is_ok_and(|port| port > u64::from(u16::MAX)) {
            return Some("a port is at most 65535".to_owned());
        }
        let here = |host| matches!(host, "" | "localhost");
        let named = if here(host) {
            "127.0.0.1"
        } else if host == "*" {
            "0.0.0.0"
        } else {
            host
        };
        let alone = if here(bare) { "127.0.0.1" } else { bare };
        did_you_mean::<Self>([
            format!("{named}:{port}"),
            format!("{alone}:10210"),
            format!("[{alone}]:10210"),
            format!("[{host}]:{port}"),
        ])
    }
}

impl Hint for EndpointUrl {
    fn hint(text: &str) -> Option<String> {
        let bare = text.trim();
        if bare.contains(['@', '?', '#']) {
            return None;
        }
        let with_scheme = |scheme: &str| Some(format!("{scheme}://{bare}")).filter(|_| !bare.contains("//"));
        let here = ["localhost", "127.", "[::1]"].into_iter().any(|host| bare.starts_with(host));
        let candidates = [Some(bare.to_owned()), with_scheme(if here { "http" } else { "https" })];
        did_you_mean::<Self>(candidates.into_iter().flatten())
    }
}

impl Hint for TargetName {
    fn hint(text: &str) -> Option<String> {
        let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' };
        let candidate: String = text.trim().chars().map(allowed).collect();
        did_you_mean::<Self>(candidate.contains(|c: char| c.is_ascii_alphanumeric()).then_some(candidate))
    }
}

impl Hint for UserName {}
impl Hint for PasswordHash {}

impl Hint for WrittenPath {
    fn hint(text: &str) -> Option<String> {
        let windows = text.contains(|c: char| c.is_control());
        windows.then(|| "a backslash begins an escape: write `/`, or the path in single quotes".to_owned())
    }
}

impl Hint for ExternalId {}
impl Hint for IncludePattern {}
impl Hint for Profile {}
impl Hint for WatchName {}
