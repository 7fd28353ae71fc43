//! Finds the source of a profile's credentials in the profiles of AWS's configuration files, followed along `source_profile`.
//!
//! refwatch runs credential processes itself (`process`), also as the source of a role. To find them, refwatch follows the profiles by the
//! SDK's rules.

use std::path::PathBuf;

use aws_config::profile::{Profile, ProfileSet};
use aws_credential_types::Credentials;
use aws_types::os_shim_internal::{Env, Fs};

use super::classify::SourceInfo;
use super::process::CredentialProcess;
use crate::core::secret::Secret;
use crate::healthomics::aws::errors::chain_text;

#[derive(Debug)]
pub(super) struct ProfileSource {
    /// The source at the end of the chain of profiles.
    pub(super) base: Base,
    /// The first role is assumed with the credentials of `base`, every later role with those of the role before it.
    pub(super) roles: Vec<Role>,
}

#[derive(Debug)]
pub(super) enum Base {
    Process(CredentialProcess),
    /// The access keys of a profile that a `source_profile` names. Those of the selected profile itself are `Sdk`.
    SourceProfileKeys {
        profile: String,
        keys: Credentials,
    },
    /// Any other source: the SDK handles this profile.
    Sdk {
        profile: String,
        info: SourceInfo,
        token_file: Option<PathBuf>,
    },
}

#[derive(Debug)]
pub(super) struct Role {
    pub(super) arn: String,
    pub(super) external_id: Option<Secret>,
    pub(super) session_name: Option<String>,
}

/// Finds the source of `profile`, or of the profile that the environment selects. Returns `Ok(None)` if the profile does
/// not exist, or if it or the last one along `source_profile` contains no credentials. A missing `source_profile` is an error.
#[expect(clippy::default_trait_access, reason = "the type is in a crate that is not a direct dependency")]
pub(super) async fn resolve(profile: Option<&str>) -> Result<Option<ProfileSource>, String> {
    let selected = profile.map(|profile| profile.to_owned().into());
    let profiles = aws_config::profile::load(&Fs::real(), &Env::real(), &Default::default(), selected).await;
    let profiles = profiles.map_err(|error| chain_text(&error))?;
    follow(&profiles)
}

fn follow(profiles: &ProfileSet) -> Result<Option<ProfileSource>, String> {
    let Some(mut profile) = profiles.get_profile(profiles.selected_profile()) else { return Ok(None) };
    let (mut roles, mut visited) = (Vec::new(), Vec::new());
    loop {
        if visited.contains(&profile.name()) {
            return Err(format!("the `source_profile` of profile \"{}\" leads back to it", profile.name()));
        }
        visited.push(profile.name());
        // The access keys of a source profile override its role.
        let is_source_profile = visited.len() > 1;
        if let (true, Some(keys)) = (is_source_profile, access_keys_of(profile)) {
            return Ok(Some(ProfileSource {
                base: Base::SourceProfileKeys { profile: profile.name().to_owned(), keys },
                roles,
            }));
        }
        // The SDK rejects a role with both `credential_source` and `source_profile`, so this profile is left to it.
        let source_profile = profile.get("source_profile").filter(|_| profile.get("credential_source").is_none());
        let Some((role, source_profile)) = role_of(profile).zip(source_profile) else {
            return Ok(own_source(profile).map(|base| ProfileSource { base, roles }));
        };
        // A profile may be its own `source_profile`: its other settings are then the source of the role.
        if source_profile == profile.name() {
            let base = own_source(profile);
            // With `Base::Sdk`, the SDK gets the profile and assumes its role. With `Base::Process`, refwatch runs the process, so refwatch
            // must assume the role.
            if let Some(Base::Process(_)) = base {
                roles.insert(0, role);
            }
            return Ok(base.map(|base| ProfileSource { base, roles }));
        }
        roles.insert(0, role);
        profile = profiles.get_profile(source_profile).ok_or_else(|| {
            format!("profile \"{source_profile}\" does not exist; it is the `source_profile` of \"{}\"", profile.name())
        })?;
    }
}

/// The source in the profile itself; `None` if the profile contains no credentials. SSO and `SETTINGS_OVER_PROCESS` override
/// `credential_process`, and a process overrides access keys.
fn own_source(profile: &Profile) -> Option<Base> {
    const SSO_SESSION: [&str; 2] = ["sso_session", "sso_start_url"];
    const SSO_ACCOUNT_OR_ROLE: [&str; 2] = ["sso_account_id", "sso_role_name"];
    const SETTINGS_OVER_PROCESS: [&str; 3] = ["credential_source", "web_identity_token_file", "login_session"];
    const ACCESS_KEYS: [&str; 3] = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
    let has_any = |names: &[&str]| names.iter().any(|name| profile.get(name).is_some());
    let (has_sso_settings, has_role_arn) =
        (has_any(&SSO_SESSION) || has_any(&SSO_ACCOUNT_OR_ROLE), has_any(&["role_arn"]));
    // A profile with an SSO session, but neither `sso_account_id` nor `sso_role_name`, gives no credentials: the SDK ignores even its
    // process and access keys. But if one of `SETTINGS_OVER_PROCESS` is set, the SDK uses that setting or reports an error, so this
    // function goes on and returns `Base::Sdk` at its end.
    if has_any(&SSO_SESSION) && !has_any(&SSO_ACCOUNT_OR_ROLE) && !has_any(&SETTINGS_OVER_PROCESS) {
        return None;
    }
    // For a role without `source_profile`, the SDK uses a setting of `SETTINGS_OVER_PROCESS`, or reports an error.
    let is_role_without_source_profile = has_role_arn && !has_any(&["source_profile"]);
    let sdk_ignores_process = has_sso_settings || is_role_without_source_profile || has_any(&SETTINGS_OVER_PROCESS);
    if let Some(command) = profile.get("credential_process").filter(|_| !sdk_ignores_process) {
        return Some(Base::Process(CredentialProcess::new(profile.name(), command, profile.get("aws_account_id"))));
    }
    // `credential_source` and `web_identity_token_file` override SSO, `login_session` does not.
    let sdk_fetches_from_sso =
        has_any(&SSO_ACCOUNT_OR_ROLE) && !has_any(&["credential_source", "web_identity_token_file"]);
    let info = SourceInfo {
        name: format!("profile \"{}\"", profile.name()),
        role_arn: profile.get("role_arn").map(str::to_owned),
        sso_profile: sdk_fetches_from_sso.then(|| profile.name().to_owned()),
    };
    let has_credentials = has_sso_settings || has_role_arn || has_any(&SETTINGS_OVER_PROCESS) || has_any(&ACCESS_KEYS);
    let token_file = profile.get("web_identity_token_file").map(PathBuf::from);
    has_credentials.then(|| Base::Sdk { profile: profile.name().to_owned(), info, token_file })
}

/// `None` if the profile has no role, or the SDK assumes the role itself, with a web identity token.
fn role_of(profile: &Profile) -> Option<Role> {
    let text = |key| profile.get(key).map(str::to_owned);
    let arn = text("role_arn").filter(|_| profile.get("web_identity_token_file").is_none())?;
    Some(Role {
        arn,
        external_id: text("external_id").map(|id| Secret::new(&id)),
        session_name: text("role_session_name"),
    })
}

fn access_keys_of(profile: &Profile) -> Option<Credentials> {
    let mut keys = Credentials::builder()
        .access_key_id(profile.get("aws_access_key_id")?)
        .secret_access_key(profile.get("aws_secret_access_key")?)
        .provider_name("ProfileFile");
    keys.set_session_token(profile.get("aws_session_token").map(str::to_owned));
    keys.set_account_id(profile.get("aws_account_id").map(Into::into));
    Some(keys.build())
}
