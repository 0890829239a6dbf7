//! Custom detections of a tenant, under the administration API: rules in KQL that run at a
//! frequency and raise alerts.
//!
//! | request | body → answer |
//! |---|---|
//! | `GET`, `POST …/{tenant}/detections` | → `List<`[`Detection`]`>`, [`NewDetection`] → [`Detection`] |
//! | `GET`, `PUT`, `DELETE …/detections/{id}` | → `Detection`, `NewDetection` → `Detection`, → 204 |
//! | `POST …/detections/{id}/run` | → `Detection`, when it has run |
//!
//! The rules that come with the server are listed with `builtIn`; they cannot be changed.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewDetection {
    /// No two rules of a tenant have the same.
    pub display_name: String,
    #[serde(default = "yes")]
    pub enabled: bool,
    #[serde(default)]
    pub frequency: Frequency,
    /// Its rows are events: it returns `Timestamp`, `DeviceId` and `ReportId` of the same event.
    pub query: String,
    pub title: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub recommended_action: String,
    /// `Informational`, `Low`, `Medium` or `High`.
    pub severity: String,
    pub category: String,
    /// MITRE ATT&CK technique ids.
    #[serde(default)]
    pub techniques: Vec<String>,
    #[serde(default)]
    pub impacted_entities: Vec<ImpactedEntity>,
}

fn yes() -> bool {
    true
}

/// A column of the query that tells who is hit; one for each kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImpactedEntity {
    pub r#type: EntityType,
    pub column: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EntityType {
    Device,
    User,
    Mailbox,
}

/// How often a rule runs, as the service writes periods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frequency {
    /// On events as they arrive.
    #[serde(rename = "0")]
    Continuous,
    #[serde(rename = "1H")]
    Hour,
    #[serde(rename = "3H")]
    ThreeHours,
    #[serde(rename = "12H")]
    TwelveHours,
    #[default]
    #[serde(rename = "24H")]
    Day,
}

impl Frequency {
    /// Time between two runs; a continuous rule runs within a minute of new events.
    pub fn period(self) -> TimeDelta {
        match self {
            Frequency::Continuous => TimeDelta::minutes(1),
            Frequency::Hour => TimeDelta::hours(1),
            Frequency::ThreeHours => TimeDelta::hours(3),
            Frequency::TwelveHours => TimeDelta::hours(12),
            Frequency::Day => TimeDelta::hours(24),
        }
    }

    /// How old an event may be that a run finds; the first run finds those of 30 days.
    pub fn look_back(self) -> TimeDelta {
        match self {
            Frequency::Continuous => TimeDelta::hours(1),
            Frequency::Hour => TimeDelta::hours(4),
            Frequency::ThreeHours => TimeDelta::hours(12),
            Frequency::TwelveHours => TimeDelta::hours(48),
            Frequency::Day => TimeDelta::days(30),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Detection {
    pub id: Uuid,
    #[serde(flatten)]
    pub rule: NewDetection,
    /// Comes with the server.
    pub built_in: bool,
    pub last_run: Option<DateTime<Utc>>,
    /// `Completed`, or why it failed.
    pub last_run_status: Option<String>,
    pub next_run: Option<DateTime<Utc>>,
}
