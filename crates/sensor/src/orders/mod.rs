//! Orders of the server: fetched by long poll, checked, carried out once, answered until heard.
//!
//! An order counts only with a valid signature of the tenant's order key, for this machine, before
//! its end and once per id; the ids are on disk. What a sensor may do at all is bounded by its own
//! configuration ([`Executor::allow_response`]), not by the server.

pub mod isolation;
mod journal;

pub use journal::{Journal, Standing};

use crate::client::{CallError, LONGEST_POLL_SECONDS};
use crate::link::{Backoff, Link};
use crate::state::State;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use isolation::Isolation;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use vigie_contract::clock::Clock;
use vigie_contract::sensor::*;

/// A poll that brings nothing to do takes at least this long.
const SHORTEST_TURN: Duration = Duration::from_secs(1);

/// Why an order is not carried out, nor answered: an answer needs a true order.
#[derive(Debug, Error, PartialEq)]
pub enum BadOrder {
    #[error("the signature is not of this tenant's order key")]
    Signature,
    #[error("the order is for machine {0}")]
    OtherMachine(String),
    #[error("the order ended at {0}")]
    Expired(DateTime<Utc>),
    #[error("the order cannot be read: {0}")]
    Unreadable(String),
}

/// Checks an order's signature, machine and end, and parses it.
pub fn verify(
    signed: &SignedOrder,
    enrolled: &Enrolled,
    now: DateTime<Utc>,
) -> Result<Order, BadOrder> {
    let key = BASE64.decode(&enrolled.order_key).map_err(|_| BadOrder::Signature)?;
    let signature = BASE64.decode(&signed.signature).map_err(|_| BadOrder::Signature)?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(signed.order.as_bytes(), &signature)
        .map_err(|_| BadOrder::Signature)?;
    let order: Order = serde_json::from_str(&signed.order)
        .map_err(|error| BadOrder::Unreadable(error.to_string()))?;
    if order.machine_id != enrolled.machine_id {
        return Err(BadOrder::OtherMachine(order.machine_id));
    }
    if order.expires_at <= now {
        return Err(BadOrder::Expired(order.expires_at));
    }
    Ok(order)
}

pub fn succeeded() -> OrderResult {
    OrderResult { status: OrderStatus::Succeeded, error: None, error_code: 0 }
}

/// `E_FAIL` of the Windows error codes, for failures without a code of their own.
const FAILED_HRESULT: i32 = 0x8000_4005_u32 as i32;
/// `E_ACCESSDENIED`: this sensor is not allowed to respond.
const DENIED_HRESULT: i32 = 0x8007_0005_u32 as i32;

pub fn failed(error: impl Into<String>, error_code: i32) -> OrderResult {
    OrderResult { status: OrderStatus::Failed, error: Some(error.into()), error_code }
}

/// Carries orders out on this machine.
pub struct Executor {
    pub allow_response: bool,
    pub isolation: Arc<Isolation>,
}

impl Executor {
    /// Does what is ordered, or says why not. Blocks.
    pub fn execute(&self, command: &Command) -> OrderResult {
        if !self.allow_response {
            return failed(
                "this sensor was started without --allow-response and carries out no response \
                 actions",
                DENIED_HRESULT,
            );
        }
        let done = match command {
            Command::Isolate { isolation_type } => self.isolation.isolate(*isolation_type),
            Command::Unisolate {} => self.isolation.release(),
            Command::Cancel { action_id } => {
                // Orders run one after the other, so the one named has ended or was never received.
                Err(anyhow::anyhow!("action {action_id} can no longer be stopped"))
            }
        };
        match done {
            Ok(()) => succeeded(),
            Err(error) => failed(format!("{error:#}"), FAILED_HRESULT),
        }
    }
}

/// The loop that fetches, runs and answers orders.
pub struct Receiver {
    pub link: Arc<Link>,
    pub executor: Arc<Executor>,
    pub journal: Arc<Mutex<Journal>>,
    pub state: Arc<State>,
    pub clock: Clock,
    pub stop: CancellationToken,
    /// Told when an order changed the machine, so that a report follows.
    pub changed: Arc<tokio::sync::Notify>,
}

impl Receiver {
    pub async fn run(self) {
        let mut backoff = Backoff::new(&self.link.public_key());
        // Orders that a crash or restart cut off: every command can be repeated.
        let unfinished = self.journal.lock().unfinished();
        for order in unfinished {
            tracing::info!(id = %order.id, "continuing an order from before the restart");
            self.carry_out(order).await;
        }
        while !self.stop.is_cancelled() {
            let result = tokio::select! {
                result = self.turn() => result,
                () = self.stop.cancelled() => return,
            };
            let wait = match result {
                Ok(()) => {
                    backoff.reset();
                    self.state.reached();
                    continue;
                }
                Err(error) => {
                    self.state.failed(&error);
                    backoff.next_wait()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Answers what is open, then waits for orders.
    async fn turn(&self) -> Result<(), CallError> {
        let token = self.link.token().await?;
        let outcome = self.exchange(&token).await;
        if outcome.as_ref().is_err_and(CallError::is_session) {
            self.link.forget(&token).await;
        }
        outcome
    }

    async fn exchange(&self, token: &str) -> Result<(), CallError> {
        self.answer(token).await?;
        let asked = Instant::now();
        let Orders { orders } = self.link.client.orders(token, LONGEST_POLL_SECONDS).await?;
        let mut accepted = false;
        for signed in &orders {
            if let Some(order) = self.accept(signed) {
                accepted = true;
                let _ = self.link.client.order_result(token, order.id, &in_progress()).await;
                self.carry_out(order).await;
            }
        }
        if !accepted && asked.elapsed() < SHORTEST_TURN {
            // A server that stops, or goes on offering what this sensor refuses: no reason to run hot.
            tokio::time::sleep(SHORTEST_TURN).await;
        }
        self.answer(token).await
    }

    /// Sends results until each was taken. One that the server refuses for good is closed.
    async fn answer(&self, token: &str) -> Result<(), CallError> {
        let open = self.journal.lock().unanswered();
        for (id, result) in open {
            match self.link.client.order_result(token, id, &result).await {
                Ok(()) => {}
                Err(error @ CallError::Refused { status: 400 | 404 | 409 | 410, .. }) => {
                    tracing::warn!(%id, %error, "the server does not take this order's result");
                }
                Err(error) => return Err(error),
            }
            self.keep(self.journal.lock().answered(id));
        }
        Ok(())
    }

    /// Checks an order and writes it down before anything happens.
    fn accept(&self, signed: &SignedOrder) -> Option<Order> {
        let enrolled = self.link.enrolled()?;
        let order = match verify(signed, &enrolled, self.clock.now()) {
            Ok(order) => order,
            Err(reason) => {
                tracing::error!(%reason, "order refused");
                return None;
            }
        };
        let mut journal = self.journal.lock();
        match journal.standing(order.id) {
            Standing::New => match journal.received(&order) {
                Ok(()) => Some(order),
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "order not taken");
                    None
                }
            },
            Standing::Running => None,
            // The server sends it again because it did not hear the result.
            Standing::Done => {
                self.keep(journal.answer_again(order.id));
                None
            }
        }
    }

    async fn carry_out(&self, order: Order) {
        let Order { id, command, requestor, .. } = order;
        tracing::warn!(%id, ?command, requestor, "carrying out an order");
        let executor = self.executor.clone();
        let result = tokio::task::spawn_blocking(move || executor.execute(&command))
            .await
            .unwrap_or_else(|_| failed("the sensor failed internally", FAILED_HRESULT));
        tracing::warn!(%id, status = ?result.status, error = result.error, "order ended");
        self.keep(self.journal.lock().finished(id, result, self.clock.now()));
        self.changed.notify_one();
    }

    /// A journal that cannot be written is no reason to stop; the order may then run once more
    /// after a restart, which every command bears.
    fn keep(&self, written: anyhow::Result<()>) {
        if let Err(error) = written {
            tracing::error!(error = format!("{error:#}"), "cannot keep the journal of orders");
        }
    }
}

fn in_progress() -> OrderResult {
    OrderResult { status: OrderStatus::InProgress, error: None, error_code: 0 }
}

/// Makes signed orders, as the server does; for tests of sensors.
#[cfg(test)]
pub fn sign_for_tests(key: &aws_lc_rs::signature::Ed25519KeyPair, order: &Order) -> SignedOrder {
    let order = serde_json::to_string(order).unwrap();
    SignedOrder { signature: BASE64.encode(key.sign(order.as_bytes()).as_ref()), order }
}

/// A new order with a random id, for tests.
#[cfg(test)]
pub fn order_for_tests(machine_id: &str, now: DateTime<Utc>, command: Command) -> Order {
    Order {
        id: uuid::Uuid::new_v4(),
        machine_id: machine_id.to_owned(),
        issued_at: now,
        expires_at: now + chrono::TimeDelta::hours(1),
        requestor: "tester".to_owned(),
        command,
    }
}

#[cfg(test)]
mod tests;
