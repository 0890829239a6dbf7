//! Scenarios: what simulated machines do, as YAML. The format is described in
//! `crates/lab/scenarios/README.md`; the files beside it are part of the program.

use crate::machine::Machine;
use crate::names::Random;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use sha1::{Digest, Sha1};
use std::collections::{BTreeMap, HashMap};
use thiserror::Error;
use vigie_sensor::identity::hex;
use vigie_sensor::rows::Row;

const EMBEDDED: [&str; 4] = [
    include_str!("../scenarios/office-day.yaml"),
    include_str!("../scenarios/server-day.yaml"),
    include_str!("../scenarios/ransomware.yaml"),
    include_str!("../scenarios/web-server-takeover.yaml"),
];

#[derive(Debug, Error)]
pub enum ScenarioError {
    #[error("the scenario cannot be read: {0}")]
    Syntax(String),
    #[error("scenario {scenario}: {problem}")]
    Content { scenario: String, problem: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    Windows,
    Linux,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    pub summary: String,
    pub platform: Platform,
    /// Part of the fitting machines that play it, 0 to 1; all when not given.
    pub share: Option<f64>,
    /// Begins again after this time; without it the scenario is played once.
    pub repeat: Option<Span>,
    /// Programs by the name that steps and other programs use.
    pub programs: BTreeMap<String, Program>,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    pub path: String,
    /// The path when not given.
    pub command: Option<String>,
    /// The program that starts it; one without a parent runs since the machine's start.
    pub parent: Option<String>,
    /// The machine's user when not given.
    pub account: Option<String>,
}

/// One thing that happens: a program starts, or a program does something.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub at: Span,
    /// Up to this much later, by chance.
    pub spread: Option<Span>,
    /// How often it happens, one after the other within `spread`; once when not given.
    pub times: Option<u32>,
    pub start: Option<String>,
    pub by: Option<String>,
    pub table: Option<String>,
    pub action: Option<String>,
    #[serde(default)]
    pub row: BTreeMap<String, serde_json::Value>,
}

/// A time like `90s`, `15m`, `8h`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub f64);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Span, String> {
        let wrong = || format!("{text:?} is no time like 90s, 15m or 8h");
        let unit = text.chars().last().ok_or_else(wrong)?;
        let factor = match unit {
            's' => 1.0,
            'm' => 60.0,
            'h' => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
        if number < 0.0 { Err(wrong()) } else { Ok(Span(number * factor)) }
    }
}

/// The scenarios that are part of the program.
pub fn embedded_scenarios() -> Vec<Scenario> {
    let parse =
        |text: &&str| Scenario::parse(text).expect("the tests parse every embedded scenario");
    EMBEDDED.iter().map(parse).collect()
}

impl Scenario {
    /// Reads and checks a scenario.
    pub fn parse(yaml: &str) -> Result<Scenario, ScenarioError> {
        let scenario: Scenario = serde_saphyr::from_str(yaml)
            .map_err(|error| ScenarioError::Syntax(error.to_string()))?;
        scenario.check().map_err(|problem| ScenarioError::Content {
            scenario: scenario.name.clone(),
            problem,
        })?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        let program = |name: &String| match self.programs.contains_key(name) {
            true => Ok(()),
            false => Err(format!("no program is called {name}")),
        };
        for (name, description) in &self.programs {
            description.parent.iter().try_for_each(program)?;
            let mut at = description.parent.as_ref();
            for _ in 0..=self.programs.len() {
                at = at.and_then(|parent| self.programs[parent].parent.as_ref());
            }
            if at.is_some() {
                return Err(format!("program {name} is its own ancestor"));
            }
        }
        for (index, step) in self.steps.iter().enumerate() {
            let number = index + 1;
            step.start.iter().chain(&step.by).try_for_each(program)?;
            let table = match (&step.start, &step.table) {
                (Some(_), None) => "DeviceProcessEvents",
                (None, Some(table)) => table,
                _ => return Err(format!("step {number} needs either start or table")),
            };
            let table = vigie_contract::tables::table(table)
                .ok_or_else(|| format!("step {number}: no table is called {table}"))?;
            for column in step.row.keys() {
                if !table.columns.iter().any(|known| known.name == *column) {
                    return Err(format!("step {number}: {} has no column {column}", table.name));
                }
            }
        }
        Ok(())
    }
}

/// A scenario being played by one machine.
pub struct Play {
    scenario: Scenario,
    /// When each running program began, and its number.
    running: HashMap<String, (u32, DateTime<Utc>)>,
    random: Random,
}

/// What happens when, in seconds after the scenario's begin.
pub struct Happening {
    pub at: f64,
    pub step: usize,
}

impl Play {
    pub fn new(scenario: Scenario, seed: u64, machine: &Machine) -> Play {
        let random = Random::new(seed, machine.index, &scenario.name);
        Play { scenario, running: HashMap::new(), random }
    }

    pub fn repeat(&self) -> Option<f64> {
        self.scenario.repeat.map(|span| span.0)
    }

    /// All happenings of one run, in order of time.
    pub fn timetable(&mut self) -> Vec<Happening> {
        let mut table = Vec::new();
        for (step, description) in self.scenario.steps.iter().enumerate() {
            let times = description.times.unwrap_or(1);
            let spread = description.spread.map_or(0.0, |span| span.0);
            for time in 0..times {
                // Each has its own part of the spread, and its place therein by chance.
                let part = spread / f64::from(times);
                let chance = self.random.below(1000) as f64 / 1000.0;
                let at = description.at.0 + part * (f64::from(time) + chance);
                table.push(Happening { at, step });
            }
        }
        table.sort_by(|a, b| a.at.total_cmp(&b.at));
        table
    }

    /// The row of a step that happens now.
    pub fn row(&mut self, step: usize, machine: &Machine, now: DateTime<Utc>) -> (String, Row) {
        let step = self.scenario.steps[step].clone();
        let (table, mut row) = match &step.start {
            Some(name) => {
                let mut row = Row::new(now, step.action.as_deref().unwrap_or("ProcessCreated"));
                self.start(name, now);
                self.describe(&mut row, name, "", machine);
                let parent =
                    step.by.clone().or_else(|| self.scenario.programs[name].parent.clone());
                if let Some(parent) = parent {
                    self.describe(&mut row, &parent, "Initiating", machine);
                }
                ("DeviceProcessEvents".to_owned(), row)
            }
            None => {
                let mut row = Row::new(now, step.action.as_deref().unwrap_or_default());
                if let Some(program) = &step.by {
                    self.describe(&mut row, program, "Initiating", machine);
                }
                (step.table.clone().unwrap_or_default(), row)
            }
        };
        for (column, value) in &step.row {
            match value {
                serde_json::Value::String(text) => row.text(column, self.fill(text, machine)),
                other => {
                    row.0.insert(column.clone(), other.clone());
                }
            }
        }
        (table, row)
    }

    fn start(&mut self, name: &str, now: DateTime<Utc>) {
        // Windows numbers are multiples of four; any plausible number will do on Linux.
        let pid = 2000 + self.random.below(15_000) as u32 * 4;
        self.running.insert(name.to_owned(), (pid, now));
    }

    /// Number and start of a program; one never started runs since an hour before.
    fn instance(&mut self, name: &str, now: DateTime<Utc>) -> (u32, DateTime<Utc>) {
        if !self.running.contains_key(name) {
            let ago = 3600 + self.random.below(3600) as i64;
            self.start(name, now - TimeDelta::seconds(ago));
        }
        self.running[name]
    }

    /// Process columns of a program; with the prefix `Initiating`, as the one that acts.
    fn describe(&mut self, row: &mut Row, name: &str, prefix: &str, machine: &Machine) {
        let now = row.0.get("Timestamp").and_then(|value| value.as_str()?.parse().ok());
        let (pid, started) = self.instance(name, now.unwrap_or_default());
        let program = self.scenario.programs[name].clone();
        let path = self.fill(&program.path, machine);
        let command = program.command.as_deref().map_or(path.clone(), |c| self.fill(c, machine));
        let account = program.account.clone().unwrap_or_else(|| machine.user.clone());
        let sid = if program.account.is_none() { machine.account_sid() } else { String::new() };
        let hash = |kind: &str| hex(&Sha1::digest(format!("{kind}\n{path}")));
        let file_name = path.rsplit(['\\', '/']).next().unwrap_or_default().to_owned();
        // `ProcessId` but `InitiatingProcessId`; `FileName` but `InitiatingProcessFileName`.
        let initiating = !prefix.is_empty();
        let own = |column: &str| match initiating {
            true => format!("InitiatingProcess{column}"),
            false => column.to_owned(),
        };
        let process = |column: &str| match initiating {
            true => format!("InitiatingProcess{column}"),
            false => format!("Process{column}"),
        };
        row.text(&own("FileName"), file_name);
        row.text(&own("FolderPath"), path.clone());
        row.text(&own("SHA1"), hash("sha1"));
        row.text(&own("MD5"), hash("md5")[..32].to_owned());
        row.text(&own("AccountName"), account);
        row.text(&own("AccountDomain"), machine.account_domain());
        row.text(&own("AccountSid"), sid);
        row.number(&process("Id"), pid);
        row.text(&process("CommandLine"), command);
        row.time(&process("CreationTime"), started);
        if let (true, Some(parent)) = (initiating, program.parent) {
            let (parent_pid, parent_started) = self.instance(&parent, started);
            let parent_path = self.scenario.programs[&parent].path.clone();
            let parent_name = parent_path.rsplit(['\\', '/']).next().unwrap_or_default();
            row.number("InitiatingProcessParentId", parent_pid);
            row.text("InitiatingProcessParentFileName", parent_name);
            row.time("InitiatingProcessParentCreationTime", parent_started);
        }
    }

    /// Replaces `{user}`, `{host}`, `{ip}`, `{domain}`, `{number}` and `{one|of|these}`; other
    /// braces stay.
    fn fill(&mut self, text: &str, machine: &Machine) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            filled.push_str(&rest[..open]);
            let Some(close) = rest[open..].find('}').map(|close| open + close) else { break };
            match &rest[open + 1..close] {
                "user" => filled.push_str(&machine.user),
                "host" => filled.push_str(&machine.host),
                "ip" => filled.push_str(&machine.ip),
                "domain" => filled.push_str(&machine.account_domain()),
                "number" => filled.push_str(&self.random.below(10_000).to_string()),
                choice if choice.contains('|') => {
                    let of: Vec<&str> = choice.split('|').collect();
                    filled.push_str(self.random.pick::<&str>(&of));
                }
                _ => filled.push_str(&rest[open..=close]),
            }
            rest = &rest[close + 1..];
        }
        filled.push_str(rest);
        filled
    }
}

#[cfg(test)]
#[path = "scenario_tests.rs"]
mod tests;
