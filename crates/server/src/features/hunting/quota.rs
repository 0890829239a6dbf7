//! How much a tenant may hunt: 45 calls a minute and 1,500 an hour, 10 minutes of running time an
//! hour and 3 hours a day (limits of the advanced hunting API).

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use uuid::Uuid;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A window in microseconds, its name as `hh:mm:ss`, and the calls that it allows.
const CALLS: [(i64, &str, usize); 2] = [(MINUTE, "00:01:00", 45), (HOUR, "01:00:00", 1500)];
/// A window and the running time that it allows, in microseconds.
const RUNNING: [(i64, i64); 2] = [(HOUR, 10 * MINUTE), (DAY, 3 * HOUR)];

/// Why a query must wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub message: String,
    /// Seconds, 1 or more.
    pub retry_after: u64,
}

/// A query of a tenant: when it began, and how long it ran (microseconds).
#[derive(Clone, Copy)]
struct Run {
    began: i64,
    took: i64,
}

/// What each tenant used of late. In memory: a server that starts again begins anew.
#[derive(Default)]
pub struct Quotas {
    tenants: Mutex<HashMap<Uuid, VecDeque<Run>>>,
}

impl Quotas {
    /// Counts a call that begins now, or says when one may begin.
    pub fn begin(&self, tenant: Uuid, now: i64) -> Result<(), Exceeded> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = tenants.entry(tenant).or_default();
        while runs.front().is_some_and(|run| run.began <= now - DAY) {
            runs.pop_front();
        }
        for (window, name, most) in CALLS {
            // The call that has to leave the window before another fits.
            let oldest = runs.len().checked_sub(most).map(|at| runs[at].began);
            if let Some(oldest) = oldest.filter(|began| *began > now - window) {
                let wait = seconds(oldest + window - now);
                let message = format!(
                    "API calls quota exceeded! Maximum allowed {most} per {name} for the key \
                     Destination+TenantID. You can send requests again in {wait} seconds."
                );
                return Err(Exceeded { message, retry_after: wait });
            }
        }
        for (window, most) in RUNNING {
            let mut used: i64 =
                runs.iter().filter(|run| run.began > now - window).map(|run| run.took).sum();
            if used < most {
                continue;
            }
            let mut free = now;
            for run in runs.iter().filter(|run| run.began > now - window) {
                used -= run.took;
                free = run.began + window;
                if used < most {
                    break;
                }
            }
            let wait = seconds(free - now);
            let message = format!(
                "You have exceeded processing resources allocated to this tenant. You can run \
                 queries again in {:02}:{:02}:{:02}.",
                wait / 3600,
                wait / 60 % 60,
                wait % 60
            );
            return Err(Exceeded { message, retry_after: wait });
        }
        runs.push_back(Run { began: now, took: 0 });
        Ok(())
    }

    /// Books the running time of a call that began at `began`.
    pub fn end(&self, tenant: Uuid, began: i64, took: i64) {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = tenants.entry(tenant).or_default();
        if let Some(run) = runs.iter_mut().rev().find(|run| run.began == began) {
            run.took = run.took.saturating_add(took);
        }
    }
}

fn seconds(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or(0).div_ceil(SECOND as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_minute_are_counted_for_each_tenant() {
        let (quotas, tenant, other) = (Quotas::default(), Uuid::from_u128(1), Uuid::from_u128(2));
        for call in 0..45 {
            assert_eq!(quotas.begin(tenant, call * SECOND), Ok(()));
        }
        let refused = quotas.begin(tenant, 50 * SECOND).unwrap_err();
        assert_eq!(refused.retry_after, 10);
        assert!(refused.message.contains("45 per 00:01:00"), "{}", refused.message);
        assert_eq!(quotas.begin(other, 50 * SECOND), Ok(()));
        assert_eq!(quotas.begin(tenant, 61 * SECOND), Ok(()));
    }

    #[test]
    fn running_time_of_an_hour_is_bounded() {
        let (quotas, tenant) = (Quotas::default(), Uuid::from_u128(1));
        for call in 0..4 {
            let began = call * 2 * MINUTE;
            assert_eq!(quotas.begin(tenant, began), Ok(()));
            quotas.end(tenant, began, 3 * MINUTE);
        }
        let refused = quotas.begin(tenant, 10 * MINUTE).unwrap_err();
        assert_eq!(refused.retry_after, 50 * 60);
        assert!(refused.message.ends_with("again in 00:50:00."), "{}", refused.message);
        assert_eq!(quotas.begin(tenant, HOUR + SECOND), Ok(()));
    }
}
