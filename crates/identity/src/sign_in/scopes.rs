//! What a request asks for: one resource, its scopes, and those of OpenID Connect.

use super::request::{Ask, Form, Version};
use crate::directory::Client;
use crate::resource::{DIRECTORY_RESOURCES, DIRECTORY_SCOPES, delegated_permission};
use crate::{Resource, SignInError};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What stands behind the resource for all that was granted.
pub const DEFAULT: &str = ".default";

/// Scopes of OpenID Connect (Core, sections 3.1.2.1, 5.4 and 11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenId {
    pub openid: bool,
    pub profile: bool,
    pub email: bool,
    pub offline_access: bool,
}

/// What is asked for a signed-in user.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub resource: Resource,
    /// The resource as the request names it: the audience of tokens of version 1.
    pub audience: String,
    /// Names of scopes; `.default` among them for all that was granted.
    pub scopes: Vec<String>,
    pub openid: OpenId,
}

impl Asked {
    pub fn all(&self) -> bool {
        self.scopes.iter().any(|scope| scope == DEFAULT)
    }
}

impl Ask {
    /// Reads `scope` (v2) or `resource` (v1). `None`: the request names neither.
    pub fn asked(&self, form: &Form) -> Result<Option<Asked>, SignInError> {
        match self.version {
            Version::V1 => self.asked_v1(form).map(Some),
            Version::V2 => self.asked_v2(form),
        }
    }

    fn asked_v1(&self, form: &Form) -> Result<Asked, SignInError> {
        let openid = form.get("scope").map(open_id).unwrap_or_default();
        // Clients of the older endpoint get an id token and a refresh token without asking.
        let openid = OpenId { openid: true, profile: true, offline_access: true, ..openid };
        let named = form.get("resource").unwrap_or(DIRECTORY_RESOURCES[2]);
        let resource = self.find_resource(named);
        let missing = || SignInError::resource_not_found(named, &self.tenant_name);
        let resource = resource.ok_or_else(missing)?;
        let scopes = vec![DEFAULT.to_owned()];
        Ok(Asked { resource, audience: named.to_owned(), scopes, openid })
    }

    fn asked_v2(&self, form: &Form) -> Result<Option<Asked>, SignInError> {
        if form.get("resource").is_some() {
            return Err(SignInError::resource_on_v2());
        }
        let Some(text) = form.get("scope") else { return Ok(None) };
        let mut asked: Option<Asked> = None;
        for scope in text.split_whitespace() {
            if is_open_id(scope) {
                continue;
            }
            let (audience, name) = match scope.rsplit_once('/') {
                Some((audience, name)) if !name.is_empty() => (audience, name),
                Some(_) => return Err(SignInError::scope_invalid(scope)),
                // A client id alone is a resource, any other bare name a scope of the directory.
                None if Uuid::try_parse(scope).is_ok() => (scope, DEFAULT),
                None => (DIRECTORY_RESOURCES[0], scope),
            };
            let resource = self.find_resource(audience);
            let missing = || SignInError::scope_invalid(scope);
            let resource = resource.ok_or_else(missing)?;
            match &mut asked {
                None => {
                    asked = Some(Asked {
                        resource,
                        audience: audience.to_owned(),
                        scopes: vec![name.to_owned()],
                        openid: OpenId::default(),
                    });
                }
                Some(asked) if asked.resource != resource => {
                    return Err(SignInError::several_resources());
                }
                Some(asked) => asked.scopes.push(name.to_owned()),
            }
        }
        // Only OpenID Connect's own scopes: a token for the user's profile.
        let mut asked = asked.unwrap_or_else(|| Asked {
            resource: Resource::Directory,
            audience: DIRECTORY_RESOURCES[0].to_owned(),
            scopes: vec!["User.Read".to_owned()],
            openid: OpenId::default(),
        });
        asked.openid = open_id(text);
        Ok(Some(asked))
    }

    /// The resource of an identifier, by this server's own addresses too.
    pub fn find_resource(&self, identifier: &str) -> Option<Resource> {
        Resource::find(identifier, &self.directory.authority().identifiers)
    }

    /// Scopes as the resource spells them; refuses those that it does not have.
    pub async fn known_scopes(&self, asked: &Asked) -> Result<Vec<String>, SignInError> {
        let mut known = Vec::new();
        let offered = match asked.resource {
            Resource::Application(app_id) => self.offered_scopes(app_id, &asked.audience).await?,
            _ => Vec::new(),
        };
        for name in &asked.scopes {
            let found = match asked.resource {
                _ if name == DEFAULT => Some(DEFAULT.to_owned()),
                Resource::Defender => delegated_permission(name).map(|scope| scope.name.clone()),
                Resource::Directory => {
                    let found = DIRECTORY_SCOPES.iter().find(|s| s.eq_ignore_ascii_case(name));
                    found.map(|scope| (*scope).to_owned())
                }
                Resource::Administration => None,
                Resource::Application(_) => offered.iter().find(|s| *s == name).cloned(),
            };
            let invalid = || SignInError::scope_invalid(&format!("{}/{name}", asked.audience));
            known.push(found.ok_or_else(invalid)?);
        }
        known.sort();
        known.dedup();
        Ok(known)
    }

    /// Scopes that an application of the directory offers.
    async fn offered_scopes(
        &self,
        app_id: Uuid,
        audience: &str,
    ) -> Result<Vec<String>, SignInError> {
        let missing = || SignInError::resource_not_found(audience, &self.tenant_name);
        let owner = self.directory.owner(app_id).await?.ok_or_else(missing)?;
        let client = self.directory.client(owner, app_id).await?.ok_or_else(missing)?;
        Ok(client.registration.offered_scopes.clone())
    }

    /// Scopes of a token for the user: those asked for that were granted. Errors: one of them was
    /// not.
    pub async fn consented(
        &self,
        client: &Client,
        tenant: Uuid,
        user: Uuid,
        asked: &Asked,
    ) -> Result<Vec<String>, SignInError> {
        let known = self.known_scopes(asked).await?;
        let missing = self.missing_consent(client, tenant, user, asked).await?;
        if !missing.is_empty() {
            return Err(SignInError::consent_missing(&client.app_id.to_string()));
        }
        if asked.resource == Resource::Directory {
            let named = known.into_iter().filter(|scope| scope != DEFAULT);
            let mut scopes: Vec<String> = named.collect();
            scopes.extend(["openid", "profile", "User.Read"].map(str::to_owned));
            scopes.extend(asked.openid.email.then(|| "email".to_owned()));
            scopes.sort();
            scopes.dedup();
            return Ok(scopes);
        }
        let granted =
            self.directory.granted_scopes(tenant, client.app_id, user, asked.resource).await?;
        Ok(match asked.all() {
            true => granted,
            false => known,
        })
    }

    /// Scopes that nobody consented to yet. For all that was granted, those that the application
    /// declares where nothing was granted at all.
    pub async fn missing_consent(
        &self,
        client: &Client,
        tenant: Uuid,
        user: Uuid,
        asked: &Asked,
    ) -> Result<Vec<String>, SignInError> {
        // A user's own profile, and an application's token for itself, need no consent.
        if matches!(asked.resource, Resource::Directory)
            || asked.resource == Resource::Application(client.app_id)
        {
            return Ok(Vec::new());
        }
        let granted =
            self.directory.granted_scopes(tenant, client.app_id, user, asked.resource).await?;
        let known = self.known_scopes(asked).await?;
        let wanted: Vec<String> = match asked.all() {
            true if !granted.is_empty() => Vec::new(),
            true => self.declared(client, asked).await?,
            false => known,
        };
        let missing = wanted.into_iter().filter(|scope| !granted.contains(scope));
        let missing: Vec<String> = missing.collect();
        if missing.is_empty() && granted.is_empty() && asked.all() {
            // Nothing granted and nothing declared: there is nothing that a token could allow.
            return Ok(vec![DEFAULT.to_owned()]);
        }
        Ok(missing)
    }

    /// Scopes of the resource that the application declares it needs.
    pub async fn declared(
        &self,
        client: &Client,
        asked: &Asked,
    ) -> Result<Vec<String>, SignInError> {
        Ok(match asked.resource {
            Resource::Defender => client.registration.delegated_permissions.clone(),
            Resource::Application(app_id) => self.offered_scopes(app_id, &asked.audience).await?,
            _ => Vec::new(),
        })
    }
}

/// Whether a scope needs an administrator's consent: whatever changes something.
pub fn needs_administrator(resource: Resource, scope: &str) -> bool {
    let reads = scope.contains(".Read") && !scope.contains("ReadWrite");
    resource == Resource::Defender && !reads
}

fn is_open_id(scope: &str) -> bool {
    ["openid", "profile", "email", "offline_access"].iter().any(|s| s.eq_ignore_ascii_case(scope))
}

fn open_id(text: &str) -> OpenId {
    let has = |name: &str| text.split_whitespace().any(|scope| scope.eq_ignore_ascii_case(name));
    OpenId {
        openid: has("openid"),
        profile: has("profile"),
        email: has("email"),
        offline_access: has("offline_access"),
    }
}
