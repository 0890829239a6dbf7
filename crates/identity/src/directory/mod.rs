//! Tenants, applications, their credentials and consent, users, groups, roles.

mod access;
mod applications;
mod credentials;
mod document;
mod groups;
mod lookup;
mod principals;
mod tenants;
mod users;

pub use access::{Scope, UserAccess, role_permissions};
pub(crate) use lookup::Client;
pub(crate) use users::{Account, ROLES};

use crate::authority::Authority;
use crate::keys::{self, SigningKey};
use crate::protection::Protection;
use crate::schema::IDENTITY;
use crate::seal::MasterKey;
use crate::verify::Verified;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use uuid::Uuid;
use vigie_contract::administration::{DeviceGroup, TenantSettings};
use vigie_contract::clock::Clock;
use vigie_database::{Database, DatabaseError, Transaction};

/// How long a change that another node made may stay unseen.
const UNSEEN: Duration = Duration::from_secs(2);
/// Entries of one kind that are remembered at most.
const MOST_REMEMBERED: usize = 20_000;

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
    pub authority: OnceLock<Authority>,
    pub keys: RwLock<Arc<Vec<SigningKey>>>,
    /// When the keys were read, by the clock: seconds.
    pub keys_read: Mutex<i64>,
    /// What sign-in needs of an application, by tenant and application; emptied by every change.
    pub clients: RwLock<HashMap<(Uuid, Uuid), Arc<Client>>>,
    /// Tenants by id or domain in lower case; emptied by every change.
    pub tenants: RwLock<HashMap<String, Uuid>>,
    pub settings: RwLock<HashMap<Uuid, Arc<TenantSettings>>>,
    pub access: RwLock<HashMap<Uuid, Arc<UserAccess>>>,
    pub device_groups: RwLock<HashMap<Uuid, Arc<Vec<DeviceGroup>>>>,
    /// Grows whenever the above are emptied.
    generation: AtomicU64,
    /// The directory's version in the database when it was last looked at, and when the last look
    /// that succeeded began.
    version: AtomicI64,
    looked: Mutex<Instant>,
    /// Tokens that were verified and have not expired.
    pub verified: RwLock<HashMap<[u8; 32], Arc<Verified>>>,
    pub protection: Protection,
    /// Entries of the audit log that are written soon.
    pub pending: Mutex<Vec<crate::audit::Row>>,
    /// Held while such entries are written.
    pub writing: tokio::sync::Mutex<()>,
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
        let looked = Instant::now();
        let version = version(&database).await?;
        let shared = Shared {
            database,
            master,
            keys: RwLock::new(Arc::new(keys)),
            keys_read: Mutex::new(clock.now().timestamp()),
            clock,
            authority: OnceLock::new(),
            clients: RwLock::default(),
            tenants: RwLock::default(),
            settings: RwLock::default(),
            access: RwLock::default(),
            device_groups: RwLock::default(),
            generation: AtomicU64::new(0),
            version: AtomicI64::new(version),
            looked: Mutex::new(looked),
            verified: RwLock::default(),
            protection: Protection::default(),
            pending: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        };
        Ok(Directory { shared: Arc::new(shared) })
    }

    /// Says under which addresses the server is known; the first time counts.
    pub fn set_authority(&self, authority: Authority) {
        let _ = self.shared.authority.set(authority);
    }

    pub(crate) fn authority(&self) -> &Authority {
        self.shared.authority.get_or_init(|| Authority::new("https://127.0.0.1:8443", &[]))
    }

    /// The address to write into answers to this request.
    pub fn base_url(&self, parts: &http::request::Parts) -> String {
        self.authority().base(parts)
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

    pub(crate) fn master(&self) -> &MasterKey {
        &self.shared.master
    }

    /// After every change: what was remembered may be wrong.
    pub(crate) fn forget(&self) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        self.shared.clients.write().clear();
        self.shared.tenants.write().clear();
        self.shared.settings.write().clear();
        self.shared.access.write().clear();
        self.shared.device_groups.write().clear();
    }

    /// Before every look at what is remembered: another node may have changed it. What is read from
    /// the database now may be remembered as of the generation that is returned. While the database
    /// cannot be looked at, nothing that is remembered is trusted.
    pub(crate) async fn generation(&self) -> Result<u64, DirectoryError> {
        let began = Instant::now();
        let due = began.duration_since(*self.shared.looked.lock()) >= UNSEEN;
        // Requests that come meanwhile look too: none of them may go by what is not known to hold.
        if due {
            let version = version(&self.shared.database).await?;
            // Held while forgetting: who finds the new version must not find the old memory.
            let mut looked = self.shared.looked.lock();
            if self.shared.version.swap(version, Ordering::SeqCst) != version {
                self.forget();
            }
            *looked = (*looked).max(began);
        }
        Ok(self.shared.generation.load(Ordering::SeqCst))
    }

    /// Remembers what was read, unless something has changed since.
    pub(crate) fn remember<K: Eq + Hash, V>(
        &self,
        all: &RwLock<HashMap<K, V>>,
        generation: u64,
        key: K,
        value: V,
    ) {
        let mut all = all.write();
        if self.shared.generation.load(Ordering::SeqCst) != generation {
            return;
        }
        if all.len() >= MOST_REMEMBERED {
            all.clear();
        }
        all.insert(key, value);
    }

    /// Part of every transaction that changes the directory: other nodes notice it.
    pub(crate) async fn changed(
        &self,
        transaction: &mut Transaction,
    ) -> Result<(), DirectoryError> {
        transaction.execute("UPDATE directory_version SET version = version + 1", &[]).await?;
        Ok(())
    }
}

async fn version(database: &Database) -> Result<i64, DirectoryError> {
    let rows = database.read("SELECT version FROM directory_version", &[]).await?;
    Ok(rows.first().map_or(Ok(0), |row| row.integer(0))?)
}

pub(crate) fn parse_uuid(text: &str) -> Result<Uuid, DirectoryError> {
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
