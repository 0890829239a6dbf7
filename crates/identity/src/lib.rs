//! The authorization server, compatible with Microsoft Entra ID as far as the API needs it: tenants,
//! applications, credentials, consent, users, sign-in, tokens, discovery; and the verifier of its
//! tokens.

mod audit;
mod authority;
mod directory;
mod discovery;
mod error;
mod keys;
mod passwords;
mod protection;
mod resource;
mod schema;
mod seal;
mod sign_in;
mod sweep;
mod totp;
mod verify;

pub use audit::AuditFilter;
pub use authority::Authority;
pub use directory::{Directory, DirectoryError, Scope, UserAccess, role_permissions};
pub use error::SignInError;
pub use resource::{DEFENDER_APP_ID, DEFENDER_RESOURCES, PERMISSIONS, Permission, Resource};
pub use seal::MasterKey;
pub use sign_in::{PeerAddress, router};
pub use verify::{Caller, SignedInUser, VerifyError};

use chrono::{DateTime, Utc};

fn micros(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros()
}

fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}
