//! Orders of the server: fetched by long poll, checked, carried out once, answered until heard.
//!
//! An order counts only with a valid signature of the tenant's order key, for this machine, before
//! its end and once per id; the ids are on disk. What a sensor may do at all is bounded by its own
//! configuration and [`policy::Policy`], not by the server.
//!
//! | module | holds |
//! |---|---|
//! | [`receiver`] | the loop that fetches, begins and answers orders |
//! | [`executor`] | which order is carried out by what |
//! | [`journal`] | orders on disk |
//! | [`transfer`] | files from and to the server |
//! | [`isolation`], [`restriction`], [`quarantine`], [`scan`], [`package`], [`live`], [`investigate`] | the actions |
//! | [`installed`] | files of installed packages |

pub mod executor;
pub mod installed;
pub mod investigate;
pub mod isolation;
mod journal;
pub mod live;
pub mod package;
pub mod policy;
pub mod quarantine;
pub mod receiver;
pub mod restriction;
pub mod scan;
pub mod transfer;

pub use journal::{Journal, Standing};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use thiserror::Error;
use uuid::Uuid;
use vigie_contract::sensor::*;

/// Why an order is not carried out.
#[derive(Debug, Error, PartialEq)]
pub enum BadOrder {
    #[error("the signature is not of this tenant's order key")]
    Signature,
    #[error("the order is for machine {0}")]
    OtherMachine(String),
    #[error("the order ended at {0}")]
    Expired(DateTime<Utc>),
    #[error("another order had the id {0} before")]
    Repeated(Uuid),
    /// Of this server and for this machine, but nothing that this sensor knows; it is answered.
    #[error("this sensor does not know such an order: {reason}")]
    Unknown { id: Uuid, reason: String },
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
        .map_err(|error| unknown(&signed.order, &enrolled.machine_id, &error))?;
    if order.machine_id != enrolled.machine_id {
        return Err(BadOrder::OtherMachine(order.machine_id));
    }
    if order.expires_at <= now {
        return Err(BadOrder::Expired(order.expires_at));
    }
    Ok(order)
}

/// What all orders have, also those of a newer server.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    id: Uuid,
    machine_id: String,
}

/// The id that an order claims to have; believes nobody.
pub fn claimed_id(signed: &SignedOrder) -> Option<Uuid> {
    serde_json::from_str(&signed.order).ok().map(|head: Head| head.id)
}

/// What a text is that is no [`Order`]: one of a newer server, or nothing.
fn unknown(text: &str, machine_id: &str, error: &serde_json::Error) -> BadOrder {
    let reason = error.to_string();
    match serde_json::from_str::<Head>(text) {
        Ok(head) if head.machine_id == machine_id => BadOrder::Unknown { id: head.id, reason },
        _ => BadOrder::Unreadable(reason),
    }
}

/// `E_FAIL` of the Windows error codes, for failures without a code of their own.
pub const FAILED_HRESULT: i32 = 0x8000_4005_u32 as i32;
/// `E_ACCESSDENIED`: this sensor is not allowed to do it.
pub const DENIED_HRESULT: i32 = 0x8007_0005_u32 as i32;
/// `E_NOTIMPL`: this sensor cannot do it.
pub const UNKNOWN_HRESULT: i32 = 0x8000_4001_u32 as i32;
/// `HRESULT_FROM_WIN32(ERROR_FILE_NOT_FOUND)`.
pub const NOT_FOUND_HRESULT: i32 = 0x8007_0002_u32 as i32;

pub fn succeeded() -> OrderResult {
    OrderResult::of(OrderStatus::Succeeded)
}

pub fn failed(error: impl Into<String>, error_code: i32) -> OrderResult {
    OrderResult::failed(error, error_code)
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
        id: Uuid::new_v4(),
        machine_id: machine_id.to_owned(),
        issued_at: now,
        expires_at: now + chrono::TimeDelta::hours(1),
        requestor: "tester".to_owned(),
        command,
    }
}

#[cfg(test)]
mod tests;
