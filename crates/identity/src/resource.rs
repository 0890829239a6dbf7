//! Resources that tokens can be asked for, and their permissions.

use serde::Deserialize;
use std::sync::LazyLock;
use uuid::Uuid;

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

/// Identifiers of the directory itself: where scopes without a resource and requests without one go.
pub const DIRECTORY_RESOURCES: &[&str] = &[
    "00000003-0000-0000-c000-000000000000",
    "https://graph.microsoft.com",
    "00000002-0000-0000-c000-000000000000",
    "https://graph.windows.net",
];

/// Delegated scopes of the directory: its own user's profile, and those of OpenID Connect.
pub const DIRECTORY_SCOPES: &[&str] =
    &["User.Read", "openid", "profile", "email", "offline_access"];

/// A resource that tokens can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    Defender,
    Administration,
    /// The directory: user info.
    Directory,
    /// An application of the directory that offers scopes of its own.
    Application(Uuid),
}

impl Resource {
    /// The resource of an identifier URI or application id; a slash at the end does not count.
    /// `own` are further identifiers of the Defender resource: this server's addresses.
    pub fn find(identifier: &str, own: &[String]) -> Option<Resource> {
        let identifier = identifier.strip_suffix('/').unwrap_or(identifier);
        let is = |known: &str| known.eq_ignore_ascii_case(identifier);
        if identifier == vigie_contract::administration::RESOURCE {
            return Some(Resource::Administration);
        }
        if is(DEFENDER_APP_ID)
            || DEFENDER_RESOURCES.iter().any(|uri| is(uri))
            || own.iter().any(|uri| is(uri))
        {
            return Some(Resource::Defender);
        }
        if DIRECTORY_RESOURCES.iter().any(|uri| is(uri)) {
            return Some(Resource::Directory);
        }
        let id = identifier.strip_prefix("api://").unwrap_or(identifier);
        Uuid::try_parse(id).ok().map(Resource::Application)
    }

    /// The name under which grants are stored.
    pub fn name(self) -> String {
        match self {
            Resource::Defender => "WindowsDefenderATP".to_owned(),
            Resource::Administration => "Vigie.Administration".to_owned(),
            Resource::Directory => "Directory".to_owned(),
            Resource::Application(id) => id.to_string(),
        }
    }

    /// The application id, which is the audience of tokens of version 2.
    pub fn app_id(self) -> String {
        match self {
            Resource::Defender => DEFENDER_APP_ID.to_owned(),
            Resource::Administration => vigie_contract::administration::RESOURCE.to_owned(),
            Resource::Directory => DIRECTORY_RESOURCES[0].to_owned(),
            Resource::Application(id) => id.to_string(),
        }
    }
}

/// A permission of the Defender resource.
#[derive(Debug, Deserialize)]
pub struct Permission {
    pub name: String,
    /// Can be granted to an application itself, as a role.
    pub application: bool,
    /// Can be granted for a signed-in user, as a scope.
    pub delegated: bool,
    /// What a consent page says.
    #[serde(default, rename = "displayName")]
    pub display_name: String,
}

/// All permissions of the Defender resource, by the catalogue.
pub static PERMISSIONS: LazyLock<Vec<Permission>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../catalogue/permissions.json"))
        .expect("catalogue/permissions.json is part of the program")
});

/// A delegated scope of the Defender resource in the catalogue's spelling.
pub fn delegated_permission(name: &str) -> Option<&'static Permission> {
    PERMISSIONS.iter().find(|p| p.delegated && p.name.eq_ignore_ascii_case(name))
}
