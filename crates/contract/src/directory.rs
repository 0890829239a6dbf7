//! What the administration API says of a tenant's directory besides its names: applications'
//! registrations, service principals and consent, groups, roles, device groups, the audit log.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How a tenant signs in. Missing values are the defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TenantSettings {
    /// Serve the password grant (RFC 6749, section 4.3), which RFC 9700 forbids.
    pub allow_password_grant: bool,
    /// Tell a missing user apart from a wrong password.
    pub disclose_missing_users: bool,
    /// Let users consent for themselves to scopes that need no administrator.
    pub allow_user_consent: bool,
    /// Refuse a client assertion's `jti` the second time (RFC 7523, section 3, item 7).
    pub refuse_repeated_assertions: bool,
    /// Seconds that an access token lives; 600 to 86,400.
    pub access_token_seconds: i64,
    /// Seconds that an id token lives.
    pub id_token_seconds: i64,
    /// Days after which an unused refresh token ends; 24 hours for browser applications.
    pub refresh_token_days: i64,
    /// Hours that a browser session lives.
    pub session_hours: i64,
}

impl Default for TenantSettings {
    fn default() -> TenantSettings {
        TenantSettings {
            allow_password_grant: false,
            disclose_missing_users: false,
            allow_user_consent: true,
            refuse_repeated_assertions: false,
            access_token_seconds: 3599,
            id_token_seconds: 3600,
            refresh_token_days: 90,
            session_hours: 12,
        }
    }
}

/// Redirect URIs by platform.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RedirectUris {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub web: Vec<String>,
    /// Single-page applications: codes are redeemed across origins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spa: Vec<String>,
    /// Native applications; loopback addresses match with any port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub public_client: Vec<String>,
}

impl RedirectUris {
    pub fn is_empty(&self) -> bool {
        self.web.is_empty() && self.spa.is_empty() && self.public_client.is_empty()
    }
}

/// What an application is, as far as its owner decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Registration {
    /// `false`: sign-in is refused everywhere.
    pub enabled: bool,
    /// Accounts of any tenant may use it, once consented there.
    pub multi_tenant: bool,
    /// Device code and password grants, and codes without a credential.
    pub allow_public_client: bool,
    #[serde(skip_serializing_if = "RedirectUris::is_empty")]
    pub redirect_uris: RedirectUris,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logout_uris: Vec<String>,
    /// Delegated scopes of the Defender resource that it asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delegated_permissions: Vec<String>,
    /// Application permissions that it asks for in other tenants; those of its own are granted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub application_permissions: Vec<String>,
    /// Scopes that it offers as `api://{appId}/{scope}`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub offered_scopes: Vec<String>,
    /// Version of the access tokens that it takes: 1 or 2.
    pub accepted_token_version: u8,
    /// Answer `response_type=token`, which RFC 9700 forbids.
    pub allow_implicit_access_token: bool,
    /// Answer `response_type=id_token`.
    pub allow_implicit_id_token: bool,
    /// Old public clients: a code without a challenge (RFC 7636).
    pub allow_missing_challenge: bool,
    /// `code_challenge_method=plain`.
    pub allow_plain_challenge: bool,
}

impl Default for Registration {
    fn default() -> Registration {
        Registration {
            enabled: true,
            multi_tenant: false,
            allow_public_client: false,
            redirect_uris: RedirectUris::default(),
            logout_uris: Vec::new(),
            delegated_permissions: Vec::new(),
            application_permissions: Vec::new(),
            offered_scopes: Vec::new(),
            accepted_token_version: 1,
            allow_implicit_access_token: false,
            allow_implicit_id_token: false,
            allow_missing_challenge: false,
            allow_plain_challenge: false,
        }
    }
}

/// A certificate whose key signs client assertions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    pub key_id: Uuid,
    pub display_name: Option<String>,
    /// SHA-1 of the DER form in upper-case hexadecimal, as portals show it.
    pub thumbprint: String,
    pub starts: DateTime<Utc>,
    pub expires: DateTime<Utc>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewCertificate {
    pub display_name: Option<String>,
    /// An X.509 certificate with an RSA key in PEM form.
    pub certificate: String,
}

/// Tokens of another issuer that stand for a client assertion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FederatedCredential {
    pub id: Uuid,
    #[serde(flatten)]
    pub content: NewFederatedCredential,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewFederatedCredential {
    pub name: String,
    pub issuer: String,
    pub subject: String,
    /// `api://AzureADTokenExchange` if missing.
    #[serde(default = "exchange_audience")]
    pub audience: String,
    /// The issuer's key set (RFC 7517). Missing where the issuer is a tenant of this server; nothing
    /// is fetched from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<serde_json::Value>,
}

fn exchange_audience() -> String {
    "api://AzureADTokenExchange".to_owned()
}

/// An application in one tenant, with what was consented to there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePrincipal {
    pub object_id: Uuid,
    pub app_id: Uuid,
    pub display_name: String,
    /// The tenant that registered the application.
    pub owner_tenant: Uuid,
    pub enabled: bool,
    /// Only assigned users may sign in.
    pub assignment_required: bool,
    /// Users, by id, who may sign in where assignment is required.
    pub assigned_users: Vec<Uuid>,
    /// Application permissions of the Defender resource.
    pub permissions: Vec<String>,
    /// Delegated scopes, for everybody or for one user.
    pub delegated: Vec<DelegatedGrant>,
}

/// Consent to delegated scopes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DelegatedGrant {
    /// Everybody in the tenant if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Uuid>,
    /// `WindowsDefenderATP` if missing, or the application id of a resource.
    #[serde(default = "defender")]
    pub resource: String,
    pub scopes: Vec<String>,
}

fn defender() -> String {
    "WindowsDefenderATP".to_owned()
}

/// Changes of a service principal; what is missing stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePrincipalChange {
    pub enabled: Option<bool>,
    pub assignment_required: Option<bool>,
    pub assigned_users: Option<Vec<Uuid>>,
    pub permissions: Option<Vec<String>>,
    /// Replaces all of them.
    pub delegated: Option<Vec<DelegatedGrant>>,
}

/// Changes of a user; what is missing stays.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserChange {
    pub display_name: Option<String>,
    pub given_name: Option<String>,
    pub surname: Option<String>,
    pub enabled: Option<bool>,
    pub roles: Option<Vec<String>>,
    /// Ends all refresh tokens and sessions of the user.
    pub password: Option<String>,
    /// The password has to be changed before the next sign-in.
    pub password_expired: Option<bool>,
    /// Refused by policy.
    pub blocked: Option<bool>,
}

/// A new second factor; shown once.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuedTotp {
    /// In base32, for an authenticator application.
    pub secret: String,
    /// `otpauth://totp/…`
    pub uri: String,
}

/// Users who share roles and device groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    pub id: Uuid,
    #[serde(flatten)]
    pub content: NewGroup,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewGroup {
    pub display_name: String,
    /// User principal names.
    #[serde(default)]
    pub members: Vec<String>,
}

/// What members of groups may do in the security portal and the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RbacRole {
    pub id: Uuid,
    #[serde(flatten)]
    pub content: NewRbacRole,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewRbacRole {
    pub display_name: String,
    /// Names of `catalogue/rbac.json`, for example `ViewData`.
    pub permissions: Vec<String>,
    /// Display names of groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// Machines that groups of users see and act on. A machine belongs to the first device group, by
/// rank, all of whose rules match it, else to none (`UnassignedGroup`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceGroup {
    /// `rbacGroupId` of its machines.
    pub id: i64,
    #[serde(flatten)]
    pub content: NewDeviceGroup,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewDeviceGroup {
    /// `rbacGroupName` of its machines.
    pub name: String,
    pub rank: i64,
    /// All of them have to match; a group without rules takes no machine.
    #[serde(default)]
    pub rules: Vec<DeviceRule>,
    /// Display names of groups of users; nobody named: everybody with a role.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// A condition on a machine, compared without regard to case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceRule {
    pub property: DeviceProperty,
    pub operator: DeviceOperator,
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceProperty {
    /// `computerDnsName`
    Name,
    /// What stands behind the first dot of `computerDnsName`.
    Domain,
    /// Any one of the machine's tags.
    Tag,
    /// `osPlatform`
    Os,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceOperator {
    Equals,
    StartsWith,
    EndsWith,
    Contains,
}

/// Name of the device group of machines that no group takes; its id is 0.
pub const UNASSIGNED: &str = "UnassignedGroup";

impl DeviceGroup {
    /// The group of a machine among all groups of its tenant, which are sorted by rank; none where
    /// the machine is unassigned.
    pub fn of<'a>(
        groups: &'a [DeviceGroup],
        name: &str,
        tags: &[String],
        os: &str,
    ) -> Option<&'a DeviceGroup> {
        groups.iter().find(|group| {
            let rules = &group.content.rules;
            !rules.is_empty() && rules.iter().all(|rule| rule.matches(name, tags, os))
        })
    }
}

impl DeviceRule {
    fn matches(&self, name: &str, tags: &[String], os: &str) -> bool {
        match self.property {
            DeviceProperty::Name => self.compare(name),
            DeviceProperty::Domain => {
                self.compare(name.split_once('.').map_or("", |(_, domain)| domain))
            }
            DeviceProperty::Tag => tags.iter().any(|tag| self.compare(tag)),
            DeviceProperty::Os => self.compare(os),
        }
    }

    fn compare(&self, found: &str) -> bool {
        let (found, value) = (found.to_lowercase(), self.value.to_lowercase());
        match self.operator {
            DeviceOperator::Equals => found == value,
            DeviceOperator::StartsWith => found.starts_with(&value),
            DeviceOperator::EndsWith => found.ends_with(&value),
            DeviceOperator::Contains => found.contains(&value),
        }
    }
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    pub id: Uuid,
    pub at: DateTime<Utc>,
    pub tenant: Option<Uuid>,
    /// An application id, a user principal name, or `first start`.
    pub actor: String,
    /// For example `signIn` or `application.create`.
    pub action: String,
    pub target: String,
    /// `success`, or the AADSTS number of the refusal.
    pub outcome: String,
    /// Where the request came from.
    pub address: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_belongs_to_the_first_group_whose_rules_all_match() {
        let group = |id: i64, rules: &[(DeviceProperty, DeviceOperator, &str)]| DeviceGroup {
            id,
            content: NewDeviceGroup {
                rules: (rules.iter())
                    .map(|&(property, operator, value)| DeviceRule {
                        property,
                        operator,
                        value: value.to_owned(),
                    })
                    .collect(),
                ..NewDeviceGroup::default()
            },
        };
        use DeviceOperator::*;
        use DeviceProperty::*;
        let groups = [
            group(1, &[(Name, StartsWith, "WEB"), (Os, Equals, "linux")]),
            group(2, &[]),
            group(3, &[(Domain, Equals, "plant.example")]),
            group(4, &[(Tag, Contains, "lab")]),
        ];
        let of = |name: &str, tags: &[&str], os: &str| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            DeviceGroup::of(&groups, name, &tags, os).map(|group| group.id)
        };
        assert_eq!(of("web1.plant.example", &[], "Linux"), Some(1));
        assert_eq!(of("web1.plant.example", &[], "Windows11"), Some(3));
        assert_eq!(of("db.other.example", &["x", "My Lab"], "Linux"), Some(4));
        assert_eq!(of("db", &[], "Linux"), None);
    }
}
