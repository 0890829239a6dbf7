//! How often an application may call an operation: the documented number a minute and an hour, in
//! sliding windows, for each tenant and application. Refused calls do not count.

use super::ApiError;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use uuid::Uuid;
use vigie_contract::operations::{Operation, RateLimit};
use vigie_contract::service::{Fault, ServiceSettings};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Where no page states a number (API terms of use).
const DEFAULT: RateLimit = RateLimit { per_minute: Some(100), per_hour: Some(1500) };
/// Applications and operations remembered at most; beyond it, those that were quiet are forgotten.
const MOST_REMEMBERED: usize = 50_000;

/// Tenant, application and operation.
type Key = (Uuid, Uuid, &'static str);

/// Calls of late, and calls counted for faults. In memory: each node counts for itself.
#[derive(Default)]
pub struct Counters {
    calls: Mutex<HashMap<Key, VecDeque<i64>>>,
    faults: Mutex<HashMap<(Uuid, usize), u32>>,
}

impl Counters {
    /// Counts a call at `now` (microseconds), or says when one may come.
    pub fn count(
        &self,
        tenant: Uuid,
        app: Uuid,
        operation: &'static Operation,
        settings: &ServiceSettings,
        now: i64,
    ) -> Result<(), ApiError> {
        let limit = limit(operation, settings);
        let mut calls = self.calls.lock();
        if calls.len() >= MOST_REMEMBERED {
            calls.retain(|_, times| times.back().is_some_and(|last| *last > now - HOUR));
        }
        let times = calls.entry((tenant, app, operation.id.as_str())).or_default();
        while times.front().is_some_and(|time| *time <= now - HOUR) {
            times.pop_front();
        }
        let windows = [(MINUTE, "00:01:00", limit.per_minute), (HOUR, "01:00:00", limit.per_hour)];
        for (window, name, most) in windows {
            let Some(most) = most else { continue };
            // The call that has to leave the window before another fits.
            let oldest = match most {
                0 => Some(now),
                most => times.len().checked_sub(most as usize).map(|at| times[at]),
            };
            if let Some(oldest) = oldest.filter(|time| *time > now - window) {
                let micros = u64::try_from(oldest + window - now).unwrap_or(0);
                let wait = micros.div_ceil(SECOND as u64).max(1);
                let message = format!(
                    "API calls quota exceeded! Maximum allowed {most} per {name} for the key \
                     Destination+TenantID+AppID. You can send requests again in {wait} seconds."
                );
                return Err(ApiError::too_many_requests(message, wait));
            }
        }
        times.push_back(now);
        Ok(())
    }

    /// The fault that this call is to meet.
    pub fn fault(&self, tenant: Uuid, operation: &Operation, faults: &[Fault]) -> Option<ApiError> {
        let mut met = None;
        for (at, fault) in faults.iter().enumerate() {
            if fault.operation.as_ref().is_some_and(|id| *id != operation.id) {
                continue;
            }
            let mut counts = self.faults.lock();
            let count = counts.entry((tenant, at)).or_default();
            *count = count.wrapping_add(1);
            if fault.every > 0 && count.is_multiple_of(fault.every) {
                met = met.or(Some(error(fault)));
            }
        }
        met
    }
}

fn limit(operation: &Operation, settings: &ServiceSettings) -> RateLimit {
    let documented = operation.rate_limit.unwrap_or(DEFAULT);
    RateLimit {
        per_minute: settings.throttling.per_minute.or(documented.per_minute),
        per_hour: settings.throttling.per_hour.or(documented.per_hour),
    }
}

fn error(fault: &Fault) -> ApiError {
    let error = match fault.status {
        401 => ApiError::unauthorized("the token has expired (injected fault)"),
        429 => {
            let wait = fault.retry_after.unwrap_or(1);
            let message = format!(
                "API calls quota exceeded! You can send requests again in {wait} seconds. (injected \
                 fault)"
            );
            ApiError::too_many_requests(message, wait)
        }
        502 => ApiError::new(502, "BadGateway", "Injected fault"),
        503 => ApiError::new(503, "ServiceUnavailable", "Injected fault"),
        504 => ApiError::new(504, "GatewayTimeout", "Injected fault"),
        _ => ApiError::new(500, "InternalServerError", "Injected fault"),
    };
    ApiError { retry_after: fault.retry_after.or(error.retry_after), ..error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigie_contract::operations::operation;

    #[test]
    fn calls_are_counted_by_application_and_operation() {
        let (counters, settings) = (Counters::default(), ServiceSettings::default());
        let create = operation("alerts.createByReference").expect("an operation");
        let list = operation("alerts.list").expect("an operation");
        let (tenant, app, other) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let count = |app, operation, now| counters.count(tenant, app, operation, &settings, now);
        for second in 0..15 {
            assert_eq!(count(app, create, second * SECOND), Ok(()));
        }
        let refused = count(app, create, 20 * SECOND).expect_err("refused");
        assert_eq!((refused.status, refused.retry_after), (429, Some(40)));
        assert!(refused.message.contains("15 per 00:01:00"), "{}", refused.message);
        assert_eq!(count(other, create, 20 * SECOND), Ok(()));
        assert_eq!(count(app, list, 20 * SECOND), Ok(()));
        assert_eq!(count(app, create, 61 * SECOND), Ok(()));
    }

    #[test]
    fn every_third_call_meets_the_fault() {
        let counters = Counters::default();
        let list = operation("alerts.list").expect("an operation");
        let fault = Fault { status: 503, every: 3, operation: None, retry_after: Some(7) };
        let met: Vec<bool> = (0..6)
            .map(|_| counters.fault(Uuid::nil(), list, std::slice::from_ref(&fault)).is_some())
            .collect();
        assert_eq!(met, [false, false, true, false, false, true]);
    }
}
