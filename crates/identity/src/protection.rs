//! Against guessing: accounts lock for a while after failures, applications' failures are slowed
//! down per address. Counters of addresses live in this process; locks are in the database.

use crate::directory::Directory;
use crate::{DirectoryError, micros};
use parking_lot::Mutex;
use std::collections::HashMap;

/// Failures after which an account locks.
const FAILURES: i64 = 10;
/// Seconds of the first lock; each further failure doubles them.
const FIRST_LOCK: i64 = 60;
const LONGEST_LOCK: i64 = 3600;
/// Failures are forgotten after this many seconds without one.
const FORGOTTEN: i64 = 86_400;
/// Failures of an address that are free of waiting, and how fast they are forgotten.
const FREE: f64 = 20.0;
const PER_SECOND: f64 = 0.5;
/// Addresses remembered at most.
const MOST_REMEMBERED: usize = 50_000;

/// Counters of this process.
#[derive(Default)]
pub struct Protection {
    /// Failures by subject and address: level and when it was current, in seconds.
    failures: Mutex<HashMap<String, (f64, i64)>>,
}

impl Protection {
    /// Seconds to wait before the subject may try again from the address; 0: at once.
    pub fn wait(&self, subject: &str, now: i64) -> u64 {
        let failures = self.failures.lock();
        let Some((level, at)) = failures.get(subject) else { return 0 };
        let level = level - (now - at).max(0) as f64 * PER_SECOND;
        if level <= FREE { 0 } else { ((level - FREE) / PER_SECOND).ceil() as u64 }
    }

    pub fn failed(&self, subject: &str, now: i64) {
        let mut failures = self.failures.lock();
        if failures.len() >= MOST_REMEMBERED {
            failures.retain(|_, (level, at)| *level > (now - *at).max(0) as f64 * PER_SECOND);
            if failures.len() >= MOST_REMEMBERED {
                failures.clear();
            }
        }
        let (level, at) = failures.entry(subject.to_owned()).or_insert((0.0, now));
        *level = (*level - (now - *at).max(0) as f64 * PER_SECOND).max(0.0) + 1.0;
        *at = now;
        // A long burst must not keep the right holder out for long after it ends.
        *level = level.min(FREE + 30.0 * PER_SECOND);
    }
}

/// What a sign-in by password is counted under: the account seen from an address that it has used
/// before has a count of its own, so that strangers' guesses do not lock the right holder out.
pub(crate) struct LockKey(Vec<u8>);

impl Directory {
    pub(crate) async fn lock_key(
        &self,
        account: &str,
        address: &str,
    ) -> Result<LockKey, DirectoryError> {
        let account = account.to_lowercase();
        let familiar = self.master().hash(&format!("familiar {account} {address}"));
        let select = "SELECT 1 FROM familiar_addresses WHERE subject = $1";
        let known = !self.database().read(select, &[familiar.clone().into()]).await?.is_empty();
        Ok(LockKey(match known {
            true => familiar,
            false => self.master().hash(&format!("strangers {account}")),
        }))
    }

    /// Whether sign-in is refused now, whatever the password.
    pub(crate) async fn is_locked(&self, key: &LockKey) -> Result<bool, DirectoryError> {
        let select = "SELECT until FROM locks WHERE subject = $1";
        let rows = self.database().read(select, &[key.0.clone().into()]).await?;
        let now = micros(self.clock().now());
        Ok(rows.first().map_or(Ok(0), |row| row.integer(0))? > now)
    }

    pub(crate) async fn count_failure(&self, key: &LockKey) -> Result<(), DirectoryError> {
        let now = micros(self.clock().now());
        let mut transaction = self.database().begin().await?;
        let count = "INSERT INTO locks (subject, failures, until, last_failure) \
                     VALUES ($1, 1, 0, $2) ON CONFLICT (subject) DO UPDATE SET \
                     failures = CASE WHEN locks.last_failure < $3 THEN 1 ELSE locks.failures + 1 END, \
                     last_failure = $2";
        let forgotten = now - FORGOTTEN * 1_000_000;
        let values = [key.0.clone().into(), now.into(), forgotten.into()];
        transaction.execute(count, &values).await?;
        let select = "SELECT failures FROM locks WHERE subject = $1";
        let rows = transaction.read(select, &[key.0.clone().into()]).await?;
        let failures = rows.first().map_or(Ok(0), |row| row.integer(0))?;
        if failures >= FAILURES {
            let doubled = FIRST_LOCK << (failures - FAILURES).min(6);
            let until = now + doubled.min(LONGEST_LOCK) * 1_000_000;
            let set = "UPDATE locks SET until = $1 WHERE subject = $2";
            transaction.execute(set, &[until.into(), key.0.clone().into()]).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// After a sign-in that succeeded: the count starts again, and the address is familiar.
    pub(crate) async fn forget_failures(
        &self,
        key: &LockKey,
        account: &str,
        address: &str,
    ) -> Result<(), DirectoryError> {
        let account = account.to_lowercase();
        let familiar = self.master().hash(&format!("familiar {account} {address}"));
        let mut transaction = self.database().begin().await?;
        let delete = "DELETE FROM locks WHERE subject = $1";
        transaction.execute(delete, &[key.0.clone().into()]).await?;
        let insert = "INSERT INTO familiar_addresses (subject, seen) VALUES ($1, $2) \
                      ON CONFLICT (subject) DO UPDATE SET seen = $2";
        let values = [familiar.into(), micros(self.clock().now()).into()];
        transaction.execute(insert, &values).await?;
        transaction.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_slowed_down_and_forgotten() {
        let protection = Protection::default();
        for _ in 0..20 {
            protection.failed("a", 1000);
        }
        assert_eq!(protection.wait("a", 1000), 0);
        protection.failed("a", 1000);
        assert_eq!(protection.wait("a", 1000), 2);
        assert_eq!(protection.wait("b", 1000), 0, "another subject");
        for _ in 0..10_000 {
            protection.failed("a", 1000);
        }
        assert!(protection.wait("a", 1000) <= 30);
        assert_eq!(protection.wait("a", 1031), 0);
    }
}
