//! Secrets, certificates and federated credentials of applications.

use super::{Directory, DirectoryError, conflict, parse_uuid};
use crate::audit::Entry;
use crate::seal::new_secret;
use crate::{micros, time};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::TimeDelta;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use vigie_contract::administration::{
    Certificate, FederatedCredential, IssuedSecret, NewCertificate, NewFederatedCredential,
    NewSecret, Secret,
};
use x509_parser::prelude::{FromDer as _, X509Certificate, parse_x509_pem};
use x509_parser::public_key::PublicKey;

/// A secret of a test environment must have this many characters.
const SHORTEST_SECRET: usize = 16;

impl Directory {
    pub(super) async fn secrets(&self, app_id: &str) -> Result<Vec<Secret>, DirectoryError> {
        let select = "SELECT key_id, display_name, hint, created, expires FROM secrets \
                      WHERE app_id = $1 ORDER BY created, key_id";
        let rows = self.database().read(select, &[app_id.into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(Secret {
                    key_id: parse_uuid(row.text(0)?)?,
                    display_name: row.optional_text(1)?.map(str::to_owned),
                    hint: row.text(2)?.to_owned(),
                    created: time(row.integer(3)?),
                    expires: time(row.integer(4)?),
                })
            })
            .collect()
    }

    /// Issues a secret; it is nowhere stored in clear and cannot be shown again.
    pub async fn add_secret(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        new: &NewSecret,
    ) -> Result<IssuedSecret, DirectoryError> {
        self.application(tenant, app_id).await?;
        let secret = match &new.secret {
            Some(secret) => {
                check_secret(secret)?;
                secret.clone()
            }
            None => new_secret(),
        };
        let now = self.clock().now();
        let expires = new.expires.unwrap_or(now + TimeDelta::days(365));
        let key_id = Uuid::new_v4();
        let hint: String = secret.chars().take(3).collect();
        let mut transaction = self.database().begin().await?;
        let insert = "INSERT INTO secrets (key_id, app_id, display_name, hint, hash, created, expires) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let values = [
            key_id.to_string().into(),
            app_id.to_string().into(),
            new.display_name.clone().into(),
            hint.into(),
            self.master().hash(&secret).into(),
            micros(now).into(),
            micros(expires).into(),
        ];
        transaction.execute(insert, &values).await?;
        let target = app_id.to_string();
        let entry = Entry::change(tenant, actor, "application.secret.add", &target);
        self.commit(transaction, entry).await?;
        Ok(IssuedSecret { key_id, secret, expires })
    }

    pub async fn remove_secret(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        key_id: Uuid,
    ) -> Result<(), DirectoryError> {
        let delete = "DELETE FROM secrets WHERE key_id = $1 AND app_id = $2";
        self.remove_credential(actor, tenant, app_id, "secret", key_id, delete).await
    }

    async fn remove_credential(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        what: &'static str,
        id: Uuid,
        delete: &str,
    ) -> Result<(), DirectoryError> {
        self.application(tenant, app_id).await?;
        let mut transaction = self.database().begin().await?;
        let values = [id.to_string().into(), app_id.to_string().into()];
        if transaction.execute(delete, &values).await? == 0 {
            return Err(DirectoryError::NotFound { what, name: id.to_string() });
        }
        let (target, action) = (app_id.to_string(), format!("application.{what}.remove"));
        self.commit(transaction, Entry::change(tenant, actor, &action, &target)).await?;
        Ok(())
    }

    /// Whether one of the application's secrets is this one.
    pub(super) async fn has_secret(
        &self,
        app_id: Uuid,
        secret: &str,
    ) -> Result<bool, DirectoryError> {
        let select = "SELECT hash FROM secrets WHERE app_id = $1";
        let rows = self.database().read(select, &[app_id.to_string().into()]).await?;
        for row in rows {
            if self.master().is_hash_of(row.bytes(0)?, secret) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) async fn certificates(
        &self,
        app_id: &str,
    ) -> Result<Vec<Certificate>, DirectoryError> {
        let select = "SELECT key_id, display_name, thumbprint, starts, expires FROM certificates \
                      WHERE app_id = $1 ORDER BY created, key_id";
        let rows = self.database().read(select, &[app_id.into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(Certificate {
                    key_id: parse_uuid(row.text(0)?)?,
                    display_name: row.optional_text(1)?.map(str::to_owned),
                    thumbprint: hexadecimal(row.text(2)?),
                    starts: time(row.integer(3)?),
                    expires: time(row.integer(4)?),
                })
            })
            .collect()
    }

    /// Registers a certificate; its private key stays where it is.
    pub async fn add_certificate(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        new: &NewCertificate,
    ) -> Result<Certificate, DirectoryError> {
        self.application(tenant, app_id).await?;
        let read = ReadCertificate::parse(&new.certificate)?;
        let target = app_id.to_string();
        let key_id = Uuid::new_v4();
        let mut transaction = self.database().begin().await?;
        let delete = "DELETE FROM certificates WHERE app_id = $1 AND thumbprint_sha256 = $2";
        let values = [target.as_str().into(), read.thumbprint_sha256.as_str().into()];
        transaction.execute(delete, &values).await?;
        let insert = "INSERT INTO certificates (key_id, app_id, display_name, thumbprint, \
                      thumbprint_sha256, public_key, starts, expires, created) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let values = [
            key_id.to_string().into(),
            target.as_str().into(),
            new.display_name.clone().into(),
            read.thumbprint.as_str().into(),
            read.thumbprint_sha256.as_str().into(),
            read.public_key.into(),
            (read.starts * 1_000_000).into(),
            (read.expires * 1_000_000).into(),
            micros(self.clock().now()).into(),
        ];
        transaction.execute(insert, &values).await?;
        let entry = Entry::change(tenant, actor, "application.certificate.add", &target);
        self.commit(transaction, entry).await?;
        Ok(Certificate {
            key_id,
            display_name: new.display_name.clone(),
            thumbprint: hexadecimal(&read.thumbprint),
            starts: time(read.starts * 1_000_000),
            expires: time(read.expires * 1_000_000),
        })
    }

    pub async fn remove_certificate(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        key_id: Uuid,
    ) -> Result<(), DirectoryError> {
        let delete = "DELETE FROM certificates WHERE key_id = $1 AND app_id = $2";
        self.remove_credential(actor, tenant, app_id, "certificate", key_id, delete).await
    }

    pub(super) async fn federated_credentials(
        &self,
        app_id: &str,
    ) -> Result<Vec<FederatedCredential>, DirectoryError> {
        let select = "SELECT id, name, issuer, subject, audience, keys FROM federated_credentials \
                      WHERE app_id = $1 ORDER BY name";
        let rows = self.database().read(select, &[app_id.into()]).await?;
        rows.iter()
            .map(|row| {
                let content = NewFederatedCredential {
                    name: row.text(1)?.to_owned(),
                    issuer: row.text(2)?.to_owned(),
                    subject: row.text(3)?.to_owned(),
                    audience: row.text(4)?.to_owned(),
                    keys: row.optional_text(5)?.and_then(|keys| serde_json::from_str(keys).ok()),
                };
                Ok(FederatedCredential { id: parse_uuid(row.text(0)?)?, content })
            })
            .collect()
    }

    pub async fn add_federated_credential(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        new: &NewFederatedCredential,
    ) -> Result<FederatedCredential, DirectoryError> {
        self.application(tenant, app_id).await?;
        check_federated(new)?;
        let (id, target) = (Uuid::new_v4(), app_id.to_string());
        let mut transaction = self.database().begin().await?;
        let insert = "INSERT INTO federated_credentials (id, app_id, name, issuer, subject, \
                      audience, keys, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let values = [
            id.to_string().into(),
            target.as_str().into(),
            new.name.as_str().into(),
            new.issuer.as_str().into(),
            new.subject.as_str().into(),
            new.audience.as_str().into(),
            new.keys.as_ref().map(ToString::to_string).into(),
            micros(self.clock().now()).into(),
        ];
        let inserted = transaction.execute(insert, &values).await;
        inserted.map_err(conflict("federated credential", &new.name))?;
        let entry = Entry::change(tenant, actor, "application.federated.add", &target);
        self.commit(transaction, entry).await?;
        Ok(FederatedCredential { id, content: new.clone() })
    }

    pub async fn remove_federated_credential(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        id: Uuid,
    ) -> Result<(), DirectoryError> {
        let delete = "DELETE FROM federated_credentials WHERE id = $1 AND app_id = $2";
        self.remove_credential(actor, tenant, app_id, "federated", id, delete).await
    }
}

/// What sign-in needs of a certificate; times in seconds since the Unix epoch.
struct ReadCertificate {
    thumbprint: String,
    thumbprint_sha256: String,
    public_key: Vec<u8>,
    starts: i64,
    expires: i64,
}

impl ReadCertificate {
    fn parse(pem: &str) -> Result<ReadCertificate, DirectoryError> {
        let invalid = |reason: &str| DirectoryError::Invalid {
            property: "certificate",
            reason: reason.to_owned(),
        };
        let (_, pem) =
            parse_x509_pem(pem.trim_start().as_bytes()).map_err(|_| invalid("PEM is expected"))?;
        let (_, certificate) = X509Certificate::from_der(&pem.contents)
            .map_err(|_| invalid("an X.509 certificate is expected"))?;
        let key = certificate.public_key();
        let Ok(PublicKey::RSA(rsa)) = key.parsed() else {
            return Err(invalid("an RSA key is expected"));
        };
        if rsa.key_size() < 2048 {
            return Err(invalid("an RSA key of at least 2048 bits is expected"));
        }
        let validity = certificate.validity();
        Ok(ReadCertificate {
            thumbprint: BASE64.encode(Sha1::digest(&pem.contents)),
            thumbprint_sha256: BASE64.encode(Sha256::digest(&pem.contents)),
            public_key: key.subject_public_key.data.to_vec(),
            starts: validity.not_before.timestamp(),
            expires: validity.not_after.timestamp(),
        })
    }
}

pub(super) fn check_secret(secret: &str) -> Result<(), DirectoryError> {
    if secret.chars().count() >= SHORTEST_SECRET {
        return Ok(());
    }
    let reason = format!("at least {SHORTEST_SECRET} characters are expected");
    Err(DirectoryError::Invalid { property: "secret", reason })
}

/// The thumbprint of a certificate, as portals show it.
pub(super) fn thumbprint(pem: &str) -> Result<String, DirectoryError> {
    Ok(hexadecimal(&ReadCertificate::parse(pem)?.thumbprint))
}

pub(super) fn check_federated(new: &NewFederatedCredential) -> Result<(), DirectoryError> {
    for (property, value) in [
        ("name", &new.name),
        ("issuer", &new.issuer),
        ("subject", &new.subject),
        ("audience", &new.audience),
    ] {
        if value.trim().is_empty() {
            let reason = "a text is expected".to_owned();
            return Err(DirectoryError::Invalid { property, reason });
        }
    }
    if let Some(keys) = &new.keys {
        let keys: Result<jsonwebtoken::jwk::JwkSet, _> = serde_json::from_value(keys.clone());
        if let Err(error) = keys {
            let reason = format!("a JWK set is expected: {error}");
            return Err(DirectoryError::Invalid { property: "keys", reason });
        }
    }
    Ok(())
}

/// A thumbprint as portals show it.
fn hexadecimal(thumbprint: &str) -> String {
    let bytes = BASE64.decode(thumbprint).unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
