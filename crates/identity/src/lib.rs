//! The authorization server, compatible with Microsoft Entra ID as far as the API needs it: tenants,
//! applications, secrets, consent, tokens, discovery; and the verifier of its tokens.

mod audit;
mod directory;
mod discovery;
mod error;
mod keys;
mod schema;
mod seal;
mod sign_in;
mod verify;

pub use directory::{Directory, DirectoryError};
pub use error::SignInError;
pub use seal::MasterKey;
pub use sign_in::{is_sign_in_path, router};
pub use verify::{Caller, VerifyError};

use chrono::{DateTime, Utc};

/// Application id of the Defender resource ("WindowsDefenderATP") in every tenant.
pub const DEFENDER_APP_ID: &str = "fc780465-2017-40d4-a0c5-307022471b92";

/// Identifier URIs of the Defender resource: what `aud`, `resource` and scopes may name.
pub const DEFENDER_RESOURCES: &[&str] = &[
    "https://api.securitycenter.microsoft.com",
    "https://api.security.microsoft.com",
    "https://api.securitycenter.windows.com",
    "https://securitycenter.onmicrosoft.com/windowsatpservice",
    "https://api-gcc.securitycenter.microsoft.us",
    "https://api-gov.securitycenter.microsoft.us",
    "https://securitycenter.onmicrosoft.com",
];

/// A resource that tokens can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Defender,
    Administration,
}

impl Resource {
    /// The resource of an identifier URI or application id; a slash at the end does not count.
    pub fn find(identifier: &str) -> Option<Resource> {
        let identifier = identifier.strip_suffix('/').unwrap_or(identifier);
        if identifier == vigie_contract::administration::RESOURCE {
            return Some(Resource::Administration);
        }
        let known = identifier.eq_ignore_ascii_case(DEFENDER_APP_ID)
            || DEFENDER_RESOURCES.iter().any(|uri| uri.eq_ignore_ascii_case(identifier));
        known.then_some(Resource::Defender)
    }

    /// The name under which grants are stored.
    pub fn name(self) -> &'static str {
        match self {
            Resource::Defender => "WindowsDefenderATP",
            Resource::Administration => "Vigie.Administration",
        }
    }
}

fn micros(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros()
}

fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}
