//! Tenants, applications, secrets, users.

mod applications;
mod document;
mod tenants;
mod users;

use crate::keys::{self, SigningKey};
use crate::schema::IDENTITY;
use crate::seal::MasterKey;
use crate::verify::Verified;
use chrono::{DateTime, Utc};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;
use vigie_contract::clock::Clock;
use vigie_database::{Database, DatabaseError};

#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("{what} '{name}' was not found")]
    NotFound { what: &'static str, name: String },
    #[error("{what} '{name}' exists already")]
    Conflict { what: &'static str, name: String },
    #[error("{property}: {reason}")]
    Invalid { property: &'static str, reason: String },
    #[error("{0}")]
    Damaged(String),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The directory. Clones share it.
#[derive(Clone)]
pub struct Directory {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub database: Database,
    pub master: MasterKey,
    pub clock: Clock,
    pub keys: Vec<SigningKey>,
    /// What sign-in needs of an application, by tenant and application; emptied by every change.
    pub clients: RwLock<HashMap<(Uuid, Uuid), Arc<Client>>>,
    /// Tenants by id or domain in lower case; emptied by every change.
    pub tenants: RwLock<HashMap<String, Uuid>>,
    /// Tokens that were verified and have not expired.
    pub verified: RwLock<HashMap<[u8; 32], Arc<Verified>>>,
}

/// What sign-in needs of an application.
pub(crate) struct Client {
    pub object_id: Uuid,
    pub display_name: String,
    /// Resource name and role.
    pub grants: Vec<(String, String)>,
    /// Hash and end of validity.
    pub secrets: Vec<(Vec<u8>, DateTime<Utc>)>,
}

impl Directory {
    /// Opens the directory in a database, makes its tables and the first signing key if missing.
    pub async fn open(
        database: Database,
        master: MasterKey,
        clock: Clock,
    ) -> Result<Directory, DirectoryError> {
        database.migrate(&IDENTITY).await?;
        let keys = keys::load(&database, &master, clock.now()).await?;
        let shared = Shared {
            database,
            master,
            clock,
            keys,
            clients: RwLock::default(),
            tenants: RwLock::default(),
            verified: RwLock::default(),
        };
        Ok(Directory { shared: Arc::new(shared) })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub(crate) fn database(&self) -> &Database {
        &self.shared.database
    }

    /// The key that signs now.
    pub(crate) fn signing_key(&self) -> &SigningKey {
        self.shared.keys.last().expect("there is a key since `open`")
    }

    /// After every change: what was remembered may be wrong.
    pub(crate) fn forget(&self) {
        self.shared.clients.write().clear();
        self.shared.tenants.write().clear();
    }
}

fn parse_uuid(text: &str) -> Result<Uuid, DirectoryError> {
    Uuid::try_parse(text).map_err(|_| DirectoryError::Damaged(format!("'{text}' is no id")))
}

/// A constraint that fails means that the thing exists.
fn conflict(what: &'static str, name: &str) -> impl FnOnce(DatabaseError) -> DirectoryError {
    let name = name.to_owned();
    move |error| match error {
        DatabaseError::Constraint(_) => DirectoryError::Conflict { what, name },
        error => DirectoryError::Database(error),
    }
}
