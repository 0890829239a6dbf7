//! A tenant's service settings, under the administration API: its plan and trial, and the testers'
//! switches, with which the retry code of clients can be tried.
//!
//! | request | body → answer |
//! |---|---|
//! | `GET`, `PUT /admin/v1/tenants/{tenant}/service` | → [`ServiceSettings`], `ServiceSettings` → `ServiceSettings` |
//! | `GET /admin/v1/tenants/{tenant}/writes?top=N` | → `List<`[`Write`]`>`, newest first |
//! | `GET`, `POST /admin/v1/clock` | → [`ClockState`], [`ClockChange`] → `ClockState`: the clock of the whole server |

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;
use uuid::Uuid;

/// What the tenant has subscribed to, and how the service is to misbehave. What is missing in a
/// `PUT` is as usual.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceSettings {
    pub plan: Plan,
    /// After this time nothing answers.
    pub trial_ends: Option<DateTime<Utc>>,
    pub throttling: Throttling,
    pub faults: Vec<Fault>,
    /// Every answer waits for so many milliseconds, at most a minute.
    pub latency_milliseconds: u64,
    pub automation: Automation,
}

/// How far investigations go by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Automation {
    pub level: AutomationLevel,
    /// Whether alerts are resolved whose investigation found nothing, or removed what it found.
    pub resolve_alerts: bool,
}

impl Default for Automation {
    fn default() -> Automation {
        Automation { level: AutomationLevel::default(), resolve_alerts: true }
    }
}

/// The automation levels of device groups, here of the tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AutomationLevel {
    /// Investigations are started by hand alone.
    #[default]
    NoAutomatedResponse,
    /// New alerts are investigated; whatever is to be removed waits for a person.
    SemiRequireApprovalForAllFolders,
    /// What is malicious is removed, but for files in folders of the operating system.
    SemiRequireApprovalForCoreFolders,
    /// What is malicious is removed from folders for temporary files alone.
    SemiRequireApprovalForNonTempFolders,
    /// What is malicious is removed.
    Full,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plan {
    DefenderForEndpointPlan1,
    #[default]
    DefenderForEndpointPlan2,
    DefenderForBusiness,
    DefenderXdr,
}

/// How many calls an application may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Throttling {
    pub enabled: bool,
    /// Instead of what is documented for the operation.
    pub per_minute: Option<u32>,
    pub per_hour: Option<u32>,
}

impl Default for Throttling {
    fn default() -> Throttling {
        Throttling { enabled: true, per_minute: None, per_hour: None }
    }
}

/// Every so many calls one fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// 401 (as for an expired token), 429, 500, 502, 503 or 504.
    pub status: u16,
    /// 1: every call, 3: every third.
    pub every: u32,
    /// Of this operation alone, by its id in the catalogue.
    #[serde(default)]
    pub operation: Option<String>,
    /// Seconds of `Retry-After`.
    #[serde(default)]
    pub retry_after: Option<u64>,
}

/// One call that changed something, or tried to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Write {
    pub at: DateTime<Utc>,
    pub app_id: String,
    pub actor: String,
    pub operation: String,
    pub path: String,
    pub status: i64,
    pub request_id: Uuid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockState {
    pub now: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClockChange {
    /// Forward, or back if negative.
    pub advance_seconds: i64,
}

/// What a plan leaves out, of `catalogue/plans.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanFacts {
    pub plan: Plan,
    /// As people call it.
    pub name: String,
    /// Groups of operations that are not part of it.
    pub excluded_groups: Vec<String>,
    pub excluded_operations: Vec<String>,
}

/// All plans.
pub static PLANS: LazyLock<Vec<PlanFacts>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../catalogue/plans.json"))
        .expect("catalogue/plans.json is part of the program")
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::OPERATIONS;

    #[test]
    fn plans_name_groups_and_operations_that_there_are() {
        for plan in PLANS.iter() {
            for group in &plan.excluded_groups {
                assert!(OPERATIONS.iter().any(|operation| operation.group == *group), "{group}");
            }
            for id in &plan.excluded_operations {
                assert!(OPERATIONS.iter().any(|operation| operation.id == *id), "{id}");
            }
        }
        let settings: ServiceSettings = serde_json::from_str("{}").expect("settings");
        assert_eq!(settings, ServiceSettings::default());
        assert!(PLANS.iter().any(|plan| plan.plan == settings.plan));
    }
}
