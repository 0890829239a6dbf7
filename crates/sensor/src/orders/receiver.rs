//! The loop that fetches, begins and answers orders.
//!
//! Orders that exclude one another run one after the other in a lane; the lanes run side by side, so
//! that a long scan holds up no isolation.

use super::executor::{Executor, Run, lane};
use super::{
    BadOrder, FAILED_HRESULT, Journal, Standing, UNKNOWN_HRESULT, claimed_id, failed, verify,
};
use crate::client::{CallError, LONGEST_POLL_SECONDS};
use crate::link::{Backoff, Link};
use crate::state::State;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use vigie_contract::clock::Clock;
use vigie_contract::sensor::*;

/// A poll that brings nothing to do takes at least this long.
const SHORTEST_TURN: Duration = Duration::from_secs(1);
/// Refused orders that are remembered, so that each is reported once; and of which the server is yet to
/// hear.
const MOST_REFUSED: usize = 1000;
/// While isolated and out of reach of the server, its address is looked up this often.
const LOOK_UP_EVERY: Duration = Duration::from_secs(60);

pub struct Receiver {
    pub link: Arc<Link>,
    pub executor: Arc<Executor>,
    pub journal: Mutex<Journal>,
    pub state: Arc<State>,
    pub clock: Clock,
    pub stop: CancellationToken,
    /// Told when an order changed the machine, so that a report follows.
    pub changed: Arc<Notify>,
    /// Told when a result is to be sent.
    pub ended: Notify,
    /// Orders that have begun here, with what stops them.
    pub running: Mutex<HashMap<Uuid, CancellationToken>>,
    pub lanes: Mutex<HashMap<&'static str, mpsc::UnboundedSender<Order>>>,
    pub tasks: TaskTracker,
    pub refused: Mutex<HashSet<String>>,
    /// Refusals that the server has not heard of.
    pub untold: Mutex<Vec<Refusal>>,
}

impl Receiver {
    /// Runs until the sensor stops; orders under way are cut off and go on after the next start.
    pub async fn run(self) {
        let receiver = Arc::new(self);
        tokio::join!(receiver.fetch_loop(), receiver.answer_loop());
        // The lanes hold the receiver; without their senders they end.
        receiver.lanes.lock().clear();
        receiver.tasks.close();
        receiver.tasks.wait().await;
    }

    async fn fetch_loop(self: &Arc<Self>) {
        let mut backoff = Backoff::new(&self.link.public_key());
        let mut looked_up = Instant::now();
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
                    let unreachable = matches!(error, CallError::Unreachable(_));
                    if unreachable && looked_up.elapsed() >= LOOK_UP_EVERY {
                        looked_up = Instant::now();
                        let executor = self.executor.clone();
                        let looked =
                            tokio::task::spawn_blocking(move || executor.isolation.look_up());
                        let _ = looked.await;
                    }
                    backoff.next_wait()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Goes on with what a restart cut off, then waits for orders.
    async fn turn(self: &Arc<Self>) -> Result<(), CallError> {
        let token = self.link.token().await?;
        let outcome = self.exchange(&token).await;
        if outcome.as_ref().is_err_and(CallError::is_session) {
            self.link.forget(&token).await;
        }
        outcome
    }

    async fn exchange(self: &Arc<Self>, token: &str) -> Result<(), CallError> {
        let unfinished = self.journal.lock().unfinished();
        for order in unfinished {
            if !self.running.lock().contains_key(&order.id) {
                tracing::info!(id = %order.id, "continuing an order from before the restart");
                self.begin(token, order).await?;
            }
        }
        let asked = Instant::now();
        let Orders { orders } = self.link.client.orders(token, LONGEST_POLL_SECONDS).await?;
        let mut accepted = false;
        for signed in &orders {
            accepted |= self.take(token, signed).await?;
        }
        if !accepted && asked.elapsed() < SHORTEST_TURN {
            // A server that stops, or goes on offering what this sensor refuses: no reason to run hot.
            tokio::time::sleep(SHORTEST_TURN).await;
        }
        Ok(())
    }

    /// Checks an order, writes it down before anything happens, and begins it. True if it is new.
    async fn take(self: &Arc<Self>, token: &str, signed: &SignedOrder) -> Result<bool, CallError> {
        let Some(enrolled) = self.link.enrolled() else { return Ok(false) };
        let order = match verify(signed, &enrolled, self.clock.now()) {
            Ok(order) => order,
            Err(BadOrder::Unknown { id, reason }) => {
                let message = format!("this sensor does not know such an order: {reason}");
                let result = failed(message, UNKNOWN_HRESULT);
                self.link.client.order_result(token, id, &result).await?;
                return Ok(true);
            }
            Err(reason) => {
                self.refuse(signed, &reason);
                return Ok(false);
            }
        };
        if let Command::Cancel { action_id } = order.command {
            let running = self.running.lock().get(&action_id).cloned();
            if let Some(running) = running.filter(|running| !running.is_cancelled()) {
                tracing::warn!(id = %action_id, requestor = order.requestor, "order is stopped");
                running.cancel();
                return Ok(true);
            }
            return Ok(false);
        }
        let standing = self.journal.lock().standing(&order);
        match standing {
            Standing::New => {
                let written = self.journal.lock().received(&order);
                if let Err(error) = written {
                    tracing::error!(error = format!("{error:#}"), "order not taken");
                    return Ok(false);
                }
                self.begin(token, order).await?;
                Ok(true)
            }
            Standing::Running if self.running.lock().contains_key(&order.id) => Ok(false),
            Standing::Running => {
                self.begin(token, order).await?;
                Ok(true)
            }
            Standing::Taken => {
                self.refuse(signed, &BadOrder::Repeated(order.id));
                Ok(false)
            }
            // The server sends it again because it did not hear the result.
            Standing::Done => {
                self.keep(self.journal.lock().answer_again(order.id));
                self.ended.notify_one();
                Ok(false)
            }
        }
    }

    /// Records an order that is none of this machine's server, once.
    fn refuse(&self, signed: &SignedOrder, reason: &BadOrder) {
        let mut refused = self.refused.lock();
        if refused.len() >= MOST_REFUSED {
            refused.clear();
        }
        if refused.insert(signed.signature.clone()) {
            tracing::error!(%reason, "order refused");
            self.executor.report_refusal(&reason.to_string());
            let refusal = Refusal { claimed_id: claimed_id(signed), reason: reason.to_string() };
            let mut untold = self.untold.lock();
            if untold.len() < MOST_REFUSED {
                untold.push(refusal);
            }
            drop(untold);
            self.ended.notify_one();
        }
    }

    /// Asks the server whether the order still stands, and puts it into its lane.
    async fn begin(self: &Arc<Self>, token: &str, order: Order) -> Result<(), CallError> {
        let begun = OrderResult::of(OrderStatus::InProgress);
        match self.link.client.order_result(token, order.id, &begun).await {
            Ok(()) => {}
            Err(error) if error.is_order_over() => {
                tracing::warn!(id = %order.id, %error, "the order is over before it began");
                let result = OrderResult::of(OrderStatus::Cancelled);
                let mut journal = self.journal.lock();
                self.keep(journal.finished(order.id, result, self.clock.now()));
                self.keep(journal.answered(order.id));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.running.lock().insert(order.id, self.stop.child_token());
        let lane = lane(&order.command);
        let mut lanes = self.lanes.lock();
        let sender = lanes.entry(lane).or_insert_with(|| {
            let (sender, mut orders) = mpsc::unbounded_channel();
            let receiver = self.clone();
            self.tasks.spawn(async move {
                while let Some(order) = orders.recv().await {
                    receiver.carry_out(order).await;
                }
            });
            sender
        });
        // The lane lives as long as its sender.
        let _ = sender.send(order);
        Ok(())
    }

    async fn carry_out(self: &Arc<Self>, order: Order) {
        let id = order.id;
        let stop = self.running.lock().get(&id).cloned().unwrap_or_default();
        let command = super::policy::kind(&order.command);
        tracing::warn!(%id, command, requestor = order.requestor, "carrying out an order");
        let (executor, run) = (self.executor.clone(), Run::new(&self.link, order, stop));
        let result = tokio::task::spawn_blocking(move || executor.execute(&run)).await;
        let result =
            result.unwrap_or_else(|_| failed("the sensor failed internally", FAILED_HRESULT));
        if self.stop.is_cancelled() && result.status != OrderStatus::Succeeded {
            // Cut off by the sensor's own end: it goes on after the next start.
            return;
        }
        tracing::warn!(%id, status = ?result.status, error = result.error, "order ended");
        self.keep(self.journal.lock().finished(id, result, self.clock.now()));
        // Its own folder alone: meanwhile other orders may have begun, and use theirs.
        let executor = self.executor.clone();
        let _ = tokio::task::spawn_blocking(move || executor.remove_work(id)).await;
        self.running.lock().remove(&id);
        self.ended.notify_one();
        self.changed.notify_one();
    }

    /// Sends results until each was taken.
    async fn answer_loop(&self) {
        let mut backoff = Backoff::new(&self.link.public_key());
        loop {
            let wait = match self.answer().await {
                Ok(()) => {
                    backoff.reset();
                    None
                }
                Err(error) => {
                    self.state.failed(&error);
                    Some(backoff.next_wait())
                }
            };
            let again = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => self.ended.notified().await,
                }
            };
            tokio::select! {
                () = again => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn answer(&self) -> Result<(), CallError> {
        let open = self.journal.lock().unanswered();
        if open.is_empty() && self.untold.lock().is_empty() {
            return Ok(());
        }
        let token = match self.link.token().await {
            Ok(token) => token,
            Err(error) => {
                self.left(&error);
                return Err(error);
            }
        };
        // Results first: whoever makes this sensor refuse much holds up no answer.
        for (id, result) in open {
            match self.link.client.order_result(&token, id, &result).await {
                Ok(()) => {}
                Err(error) if error.is_order_over() || error.is_bad_content() => {
                    tracing::warn!(%id, %error, "the server does not take this order's result");
                }
                Err(error) => {
                    if error.is_session() {
                        self.link.forget(&token).await;
                    }
                    return Err(error);
                }
            }
            self.keep(self.journal.lock().answered(id));
            self.executor.answered(id);
        }
        self.tell_refusals(&token).await
    }

    async fn tell_refusals(&self, token: &str) -> Result<(), CallError> {
        loop {
            let Some(refusal) = self.untold.lock().first().cloned() else { return Ok(()) };
            match self.link.client.order_refused(token, &refusal).await {
                Ok(()) => {}
                Err(error) if error.is_order_over() || error.is_bad_content() => {
                    tracing::warn!(%error, "the server takes no word of refused orders");
                }
                Err(error) => {
                    if error.is_session() {
                        self.link.forget(token).await;
                    }
                    return Err(error);
                }
            }
            self.untold.lock().remove(0);
        }
    }

    /// A server that no longer takes this machine's key has heard of its offboarding, though a sensor
    /// that was killed does not know.
    fn left(&self, error: &CallError) {
        let offboarding = self.journal.lock().offboarding();
        if let (Some((id, _)), true) = (offboarding, error.is_session()) {
            self.keep(self.journal.lock().answered(id));
            self.executor.answered(id);
        }
    }

    /// A journal that cannot be written is no reason to stop; the order may then run once more
    /// after a restart, which every command bears.
    fn keep(&self, written: anyhow::Result<()>) {
        if let Err(error) = written {
            tracing::error!(error = format!("{error:#}"), "cannot keep the journal of orders");
        }
    }
}
