//! Orders on their way to sensors, and what sensors send back about them.
//!
//! A sensor's long poll costs one query when it comes and one when it is woken. What is ordered at
//! this server wakes it at once; what another node took is seen by one query a second for all of them.

use super::{store, uploads};
use crate::edge::{ApiError, json};
use crate::features::{library, sensors};
use crate::state::State;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use uuid::Uuid;
use vigie_contract::sensor::{Command, Order, OrderResult, Orders, SignedOrder};

/// How often the orders that other nodes took are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many looks pass between two sweeps of what is too old.
const LOOKS_PER_SWEEP: u32 = 60;

/// Sensors that wait for orders here, by machine, with the number of their polls.
#[derive(Default)]
pub struct Waiting(Mutex<HashMap<String, (usize, Arc<Notify>)>>);

struct Wait<'a> {
    waiting: &'a Waiting,
    machine: &'a str,
    notify: Arc<Notify>,
}

impl Waiting {
    fn enter<'a>(&'a self, machine: &'a str) -> Wait<'a> {
        let mut all = self.0.lock();
        let (count, notify) = all.entry(machine.to_owned()).or_default();
        *count += 1;
        Wait { waiting: self, machine, notify: notify.clone() }
    }

    /// Wakes a machine's sensor, if it waits here.
    pub fn wake(&self, machine: &str) {
        if let Some((_, notify)) = self.0.lock().get(machine) {
            notify.notify_waiters();
        }
    }

    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut all = self.waiting.0.lock();
        if let Some((count, _)) = all.get_mut(self.machine) {
            *count -= 1;
            if *count == 0 {
                all.remove(self.machine);
            }
        }
    }
}

/// Wakes sensors whose orders came in elsewhere, and ends what is too old, until the server stops.
pub async fn run(state: State) {
    let mut looks = 0;
    loop {
        tokio::select! {
            () = state.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        looks += 1;
        let outcome = async {
            if !state.waiting.is_empty() {
                for machine in store::machines_with_orders(&state).await? {
                    state.waiting.wake(&machine);
                }
            }
            if looks % LOOKS_PER_SWEEP == 1 {
                store::expire(&state).await?;
                uploads::sweep(&state).await?;
            }
            Ok::<_, ApiError>(())
        };
        if let Err(error) = outcome.await {
            tracing::error!(error = error.message, "orders are looked at later");
        }
    }
}

/// Orders for a machine; waits up to `wait` seconds for one if there is none.
pub async fn fetch(
    state: &State,
    tenant: Uuid,
    machine: &str,
    wait: u64,
) -> Result<Orders, ApiError> {
    let until = tokio::time::Instant::now() + Duration::from_secs(wait);
    let entered = state.waiting.enter(machine);
    loop {
        // Listened to before the look, so that no order falls in between.
        let notified = entered.notify.notified();
        let open = store::open(state, machine).await?;
        let ended = tokio::time::Instant::now() >= until || state.stop.is_cancelled();
        if !open.is_empty() || ended {
            return signed(state, tenant, machine, open).await;
        }
        tokio::select! {
            () = state.stop.cancelled() => {}
            () = notified => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

async fn signed(
    state: &State,
    tenant: Uuid,
    machine: &str,
    open: Vec<store::Open>,
) -> Result<Orders, ApiError> {
    if open.is_empty() {
        return Ok(Orders { orders: Vec::new() });
    }
    let key = sensors::order_key(state, tenant).await?;
    let time = |micros| chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    let orders = open.into_iter().map(|open| {
        let (id, command, requestor) = match open.cancel_requestor {
            // One id for all deliveries of the same wish to stop.
            Some(requestor) => {
                let id = Uuid::new_v5(&open.id, b"cancel");
                (id, Command::Cancel { action_id: open.id }, requestor)
            }
            None => {
                let command = serde_json::from_str(&open.command).map_err(ApiError::internal)?;
                (open.id, command, open.requestor)
            }
        };
        let order = Order {
            id,
            machine_id: machine.to_owned(),
            issued_at: time(open.created),
            expires_at: time(open.expires),
            requestor,
            command,
        };
        let order = serde_json::json!(order).to_string();
        let signature = STANDARD.encode(key.sign(order.as_bytes()).as_ref());
        Ok(SignedOrder { order, signature })
    });
    Ok(Orders { orders: orders.collect::<Result<_, ApiError>>()? })
}

/// Serves a sensor's requests below `/sensor/v1/orders/`.
pub async fn serve(
    state: &State,
    tenant: Uuid,
    machine: &str,
    method: &Method,
    uri: &http::Uri,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let path = uri.path().trim_start_matches("/sensor/v1/orders/");
    let segments: Vec<&str> = path.split('/').collect();
    let number = |text: &str| {
        text.parse::<i64>().map_err(|_| ApiError::bad_request("uploads are numbered from 0"))
    };
    match (method, segments.as_slice()) {
        (&Method::POST, ["refused"]) => {
            let refusal = sensors::parse(headers, body)?;
            store::refused(state, tenant, machine, &refusal).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        (&Method::POST, [id, "result"]) => {
            let reported: OrderResult = sensors::parse(headers, body)?;
            result(state, machine, id, &reported).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        (&Method::GET, [id, "files", sha256]) => {
            let (tenant, named) = uploads::files_of_order(state, machine, id).await?;
            if !named.iter().any(|file| file.sha256 == *sha256) {
                return Err(ApiError::not_found("File of this order", sha256));
            }
            Ok(library::content(state, &tenant, sha256).await?.into_response())
        }
        (&Method::POST, [id, "uploads", position]) => {
            let offset = sensors::parameter(uri, "offset");
            let offset = offset.ok_or_else(|| ApiError::bad_request("offset is missing"))?;
            let body = sensors::unfold(headers, body)?;
            let stored =
                uploads::piece(state, machine, (id, number(position)?), offset, &body).await?;
            Ok(json(200, &serde_json::json!(stored)))
        }
        (&Method::POST, [id, "uploads", position, "end"]) => {
            let end = sensors::parse(headers, body)?;
            uploads::end(state, machine, (id, number(position)?), &end).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(ApiError::not_found("Path", path)),
    }
}

async fn result(
    state: &State,
    machine: &str,
    id: &str,
    result: &OrderResult,
) -> Result<(), ApiError> {
    store::report(state, machine, &id.to_lowercase(), result).await
}
