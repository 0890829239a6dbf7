//! Orders on disk: each runs once, and its result is kept until the server has it.

use crate::disk;
use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use vigie_contract::sensor::{Command, Order, OrderResult, OrderStatus};

/// Ended orders are remembered this long after their end of validity.
const REMEMBERED_DAYS: i64 = 1;

#[derive(Serialize, Deserialize)]
struct Entry {
    order: Order,
    result: Option<OrderResult>,
    answered: bool,
}

/// How an order id stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    New,
    Running,
    Done,
    /// The id belongs to another order.
    Taken,
}

pub struct Journal {
    path: PathBuf,
    entries: BTreeMap<Uuid, Entry>,
}

impl Journal {
    pub fn open(state_dir: &Path) -> Result<Journal> {
        let path = state_dir.join("orders.json");
        let entries = disk::read_json(&path)?.unwrap_or_default();
        Ok(Journal { path, entries })
    }

    pub fn standing(&self, order: &Order) -> Standing {
        match self.entries.get(&order.id) {
            None => Standing::New,
            Some(known) if known.order.command != order.command => Standing::Taken,
            Some(Entry { result: None, .. }) => Standing::Running,
            Some(_) => Standing::Done,
        }
    }

    /// An offboarding that was carried out here, and whether the server has heard of it.
    pub fn offboarding(&self) -> Option<(Uuid, bool)> {
        let is_done = |entry: &Entry| {
            let status = entry.result.as_ref().map(|result| result.status);
            entry.order.command == Command::Offboard {} && status == Some(OrderStatus::Succeeded)
        };
        let found = self.entries.iter().find(|(_, entry)| is_done(entry));
        found.map(|(id, entry)| (*id, entry.answered))
    }

    /// The machine belongs to a server again: what made it leave is over.
    pub fn forget_offboarding(&mut self) -> Result<()> {
        let Some((id, _)) = self.offboarding() else { return Ok(()) };
        self.entries.remove(&id);
        disk::write_json(&self.path, &self.entries)
    }

    /// Writes a new order down; it must not run unless this succeeded.
    pub fn received(&mut self, order: &Order) -> Result<()> {
        let entry = Entry { order: order.clone(), result: None, answered: false };
        self.entries.insert(order.id, entry);
        disk::write_json(&self.path, &self.entries).inspect_err(|_| {
            self.entries.remove(&order.id);
        })
    }

    pub fn finished(&mut self, id: Uuid, result: OrderResult, now: DateTime<Utc>) -> Result<()> {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.result = Some(result);
        }
        let forget_before = now - TimeDelta::days(REMEMBERED_DAYS);
        self.entries.retain(|_, entry| !entry.answered || entry.order.expires_at > forget_before);
        disk::write_json(&self.path, &self.entries)
    }

    pub fn answered(&mut self, id: Uuid) -> Result<()> {
        self.set_answered(id, true)
    }

    /// The server asks for this order again, so it never heard the result.
    pub fn answer_again(&mut self, id: Uuid) -> Result<()> {
        self.set_answered(id, false)
    }

    fn set_answered(&mut self, id: Uuid, answered: bool) -> Result<()> {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.answered = answered;
        }
        disk::write_json(&self.path, &self.entries)
    }

    /// Orders that were begun and not ended, oldest first.
    pub fn unfinished(&self) -> Vec<Order> {
        let mut orders: Vec<Order> = self
            .entries
            .values()
            .filter(|entry| entry.result.is_none())
            .map(|entry| entry.order.clone())
            .collect();
        orders.sort_by_key(|order| order.issued_at);
        orders
    }

    /// Results that the server has not acknowledged.
    pub fn unanswered(&self) -> Vec<(Uuid, OrderResult)> {
        self.entries
            .iter()
            .filter(|(_, entry)| !entry.answered)
            .filter_map(|(id, entry)| Some((*id, entry.result.clone()?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{order_for_tests, succeeded};
    use super::*;
    use vigie_contract::clock::Clock;

    #[test]
    fn an_order_is_new_once_and_its_result_survives_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let now = Clock::default().now();
        let order = order_for_tests("m", now, Command::Unisolate {});
        let open = || Journal::open(folder.path()).unwrap();

        assert_eq!(open().standing(&order), Standing::New);
        open().received(&order).unwrap();
        assert_eq!(open().standing(&order), Standing::Running);
        assert_eq!(open().unfinished(), std::slice::from_ref(&order));
        open().finished(order.id, succeeded(), now).unwrap();
        assert_eq!(open().standing(&order), Standing::Done);
        assert_eq!(open().unanswered(), [(order.id, succeeded())]);
        open().answered(order.id).unwrap();
        assert!(open().unanswered().is_empty());
        assert_eq!(open().standing(&order), Standing::Done);
        open().answer_again(order.id).unwrap();
        assert_eq!(open().unanswered().len(), 1);
        let other = Order { command: Command::UnrestrictCodeExecution {}, ..order.clone() };
        assert_eq!(open().standing(&other), Standing::Taken);

        // Long after its end the id is forgotten: the order could no longer be taken anyway.
        open().answered(order.id).unwrap();
        let second = order_for_tests("m", now, Command::Unisolate {});
        let mut journal = open();
        journal.received(&second).unwrap();
        journal.finished(second.id, succeeded(), now + TimeDelta::days(3)).unwrap();
        assert_eq!(journal.standing(&order), Standing::New);
    }

    #[test]
    fn an_offboarding_is_known_until_the_machine_is_enrolled_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let now = Clock::default().now();
        let order = order_for_tests("m", now, Command::Offboard {});
        let open = || Journal::open(folder.path()).unwrap();
        open().received(&order).unwrap();
        assert_eq!(open().offboarding(), None);
        open().finished(order.id, succeeded(), now).unwrap();
        assert_eq!(open().offboarding(), Some((order.id, false)));
        open().answered(order.id).unwrap();
        assert_eq!(open().offboarding(), Some((order.id, true)));
        open().forget_offboarding().unwrap();
        assert_eq!(open().offboarding(), None);
    }
}
