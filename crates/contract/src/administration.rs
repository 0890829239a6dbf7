//! The administration API, version 1: JSON under `/admin/v1`, with a bearer token of the resource
//! [`RESOURCE`] that carries the application role [`ROLE`].
//!
//! | request | body → answer |
//! |---|---|
//! | `GET /admin/v1/tenants` | → [`List`]`<`[`Tenant`]`>` |
//! | `POST /admin/v1/tenants` | [`NewTenant`] → [`Tenant`] |
//! | `GET`, `DELETE /admin/v1/tenants/{tenant}` | → [`Tenant`], → 204 |
//! | `GET`, `POST …/{tenant}/applications` | → `List<`[`Application`]`>`, [`NewApplication`] → [`Application`] |
//! | `GET`, `DELETE …/applications/{appId}` | → [`Application`], → 204 |
//! | `PUT …/applications/{appId}/permissions` | [`Permissions`] → [`Application`]; required and consented |
//! | `POST …/applications/{appId}/secrets` | [`NewSecret`] → [`IssuedSecret`], the only time it is shown |
//! | `DELETE …/applications/{appId}/secrets/{keyId}` | → 204 |
//! | `GET`, `POST …/{tenant}/users` | → `List<`[`User`]`>`, [`NewUser`] → [`User`] |
//! | `GET`, `PATCH`, `DELETE …/users/{id or user principal name}` | → `User`, [`UserChange`] → `User`, → 204 |
//! | `POST`, `DELETE …/users/{…}/totp` | → [`IssuedTotp`], the only time it is shown, → 204 |
//! | `GET`, `PUT …/{tenant}/settings` | → [`TenantSettings`], `TenantSettings` → `TenantSettings` |
//! | `PUT …/applications/{appId}/registration` | [`Registration`] → [`Application`] |
//! | `POST …/applications/{appId}/certificates` | [`NewCertificate`] → [`Certificate`] |
//! | `POST …/applications/{appId}/federatedcredentials` | [`NewFederatedCredential`] → [`FederatedCredential`] |
//! | `DELETE …/applications/{appId}/{certificates,federatedcredentials}/{id}` | → 204 |
//! | `GET …/{tenant}/serviceprincipals` | → `List<`[`ServicePrincipal`]`>` |
//! | `GET`, `PATCH`, `DELETE …/serviceprincipals/{appId}` | → `ServicePrincipal`, [`ServicePrincipalChange`] → `ServicePrincipal`, → 204 |
//! | `GET`, `PUT …/{tenant}/groups` | → `List<`[`Group`]`>`, [`NewGroup`] → `Group`, by its name |
//! | `GET`, `PUT …/{tenant}/roles` | → `List<`[`RbacRole`]`>`, [`NewRbacRole`] → `RbacRole`, by its name |
//! | `GET`, `PUT …/{tenant}/devicegroups` | → `List<`[`DeviceGroup`]`>`, [`NewDeviceGroup`] → `DeviceGroup`, by its name |
//! | `DELETE …/{groups,roles,devicegroups}/{id or name}` | → 204 |
//! | `GET …/{tenant}/audit?since=&until=&actor=&action=&outcome=&top=` | → `List<`[`AuditEntry`]`>`, newest first |
//! | `POST …/{tenant}/enrolmentkeys` | [`NewEnrolmentKey`] → [`EnrolmentKey`], the only time it is shown |
//! | `GET`, `PUT /admin/v1/document` | → [`Document`], [`Document`] → [`Applied`] |
//! | `POST …/{tenant}/telemetry?source=NAME&sequence=N` | [`crate::sensor::TelemetryBatch`] → [`crate::sensor::Acknowledgement`] |
//! | `GET …/{tenant}/tables` | → `List<`[`StoredTable`]`>` |
//!
//! `{tenant}` is a tenant id or a verified domain. Errors have the API's shape,
//! `{"error":{"code","message","target"}}`.

pub use crate::directory::*;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Identifier URI of the administration resource: the audience of its tokens; with `/.default` the
/// scope to ask for.
pub const RESOURCE: &str = "api://vigie-administration";
/// Application role that every administration request needs.
pub const ROLE: &str = "Administration.ReadWrite.All";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List<T> {
    pub value: Vec<T>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    pub id: Uuid,
    pub display_name: String,
    /// The first is the initial one.
    pub domains: Vec<String>,
    /// `Trial` or `Paid`.
    pub plan: String,
    pub created: DateTime<Utc>,
    pub settings: TenantSettings,
    /// Simulated machines that `vigie up` starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lab: Option<LabDocument>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewTenant {
    /// Chosen by the server if missing.
    pub id: Option<Uuid>,
    pub display_name: String,
    /// `NAME.onmicrosoft.com` made of the display name if empty.
    #[serde(default)]
    pub domains: Vec<String>,
    pub plan: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    pub app_id: Uuid,
    /// Id of the service principal in this tenant; the `oid` of its tokens.
    pub object_id: Uuid,
    pub display_name: String,
    /// Application permissions of the Defender resource with admin consent.
    pub permissions: Vec<String>,
    pub registration: Registration,
    pub secrets: Vec<Secret>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Certificate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub federated_credentials: Vec<FederatedCredential>,
    pub created: DateTime<Utc>,
}

/// A secret as it can be shown after its issue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    pub key_id: Uuid,
    pub display_name: Option<String>,
    /// The first three characters.
    pub hint: String,
    pub created: DateTime<Utc>,
    pub expires: DateTime<Utc>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewApplication {
    pub app_id: Option<Uuid>,
    pub display_name: String,
    #[serde(default)]
    pub permissions: Vec<String>,
    #[serde(default)]
    pub registration: Registration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Permissions {
    /// Replaces the earlier ones, with admin consent.
    pub permissions: Vec<String>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewSecret {
    pub display_name: Option<String>,
    /// A year from now if missing.
    pub expires: Option<DateTime<Utc>>,
    /// Given by test environments that need a constant; at least 16 characters.
    pub secret: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuedSecret {
    pub key_id: Uuid,
    pub secret: String,
    pub expires: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub id: Uuid,
    pub user_principal_name: String,
    pub display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surname: Option<String>,
    pub enabled: bool,
    /// Refused by policy.
    pub blocked: bool,
    pub password_expired: bool,
    /// Has to enter a one-time password.
    pub second_factor: bool,
    /// Directory roles, for example `Security Reader`.
    pub roles: Vec<String>,
    pub created: DateTime<Utc>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewUser {
    pub id: Option<Uuid>,
    pub user_principal_name: String,
    pub display_name: Option<String>,
    #[serde(default)]
    pub given_name: Option<String>,
    #[serde(default)]
    pub surname: Option<String>,
    pub password: String,
    #[serde(default)]
    pub roles: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewEnrolmentKey {
    pub display_name: Option<String>,
    /// A year from now if missing.
    pub expires: Option<DateTime<Utc>>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolmentKey {
    pub enrolment_key: String,
    pub expires: DateTime<Utc>,
}

/// What the lake holds of one hunting table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredTable {
    pub table: String,
    pub rows: u64,
    pub bytes: u64,
    pub earliest: Option<DateTime<Utc>>,
    pub latest: Option<DateTime<Utc>>,
}

/// Tenants as a file: `vigie apply` reads it as YAML or JSON, `vigie export` writes it.
///
/// Applying brings what the document names to the state it describes, and leaves alone what it does
/// not name; applying the same document again changes nothing.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    pub tenants: Vec<TenantDocument>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantDocument {
    /// A tenant without id is found by its first domain, else by its display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    pub display_name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Unchanged if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<TenantSettings>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<ApplicationDocument>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserDocument>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<NewGroup>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<NewRbacRole>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_groups: Vec<NewDeviceGroup>,
    /// Consent in this tenant besides its own applications' permissions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consents: Vec<ConsentDocument>,
    /// Simulated machines that `vigie up` and `vigie lab` start for this tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lab: Option<LabDocument>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplicationDocument {
    /// An application without id is found by its display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<Uuid>,
    pub display_name: String,
    /// Application permissions of the Defender resource, consented.
    #[serde(default)]
    pub permissions: Vec<String>,
    /// Unchanged if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// Constants for test environments; never written by `export`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretDocument>,
    /// Certificates in PEM form, to add where they are missing; never written by `export`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub federated_credentials: Vec<NewFederatedCredential>,
}

/// What an application may do in a tenant.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsentDocument {
    pub app_id: Uuid,
    /// Application permissions of an application of another tenant; unchanged if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<String>>,
    /// Delegated scopes of the Defender resource for everybody in the tenant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delegated: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretDocument {
    pub secret: String,
    /// A year from the first application of the document if missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<DateTime<Utc>>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserDocument {
    pub user_principal_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Needed for a user that does not exist yet; never written by `export`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surname: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabDocument {
    pub machines: u32,
}

/// What applying a document changed; empty where everything was so already.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// One line a change, for people, for example `application ci: created`.
    pub changes: Vec<String>,
}
