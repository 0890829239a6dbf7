//! A sensor's standing with its server: enrolled or not, and the session token in use.

use crate::client::{CallError, Client};
use crate::identity::Key;
use parking_lot::RwLock;
use std::time::Duration;
use tokio::sync::Mutex;
use vigie_contract::clock::Clock;
use vigie_contract::sensor::Enrolled;

/// Sessions are renewed this long before they end.
const RENEW_BEFORE_SECONDS: i64 = 60;

/// Client, key and session of one enrolled machine; all loops of a sensor share it.
pub struct Link {
    pub client: Client,
    key: Key,
    clock: Clock,
    enrolled: RwLock<Option<Enrolled>>,
    token: Mutex<Option<Token>>,
}

struct Token {
    text: String,
    renew_at: i64,
}

impl Link {
    pub fn new(client: Client, key: Key, clock: Clock, enrolled: Option<Enrolled>) -> Link {
        Link { client, key, clock, enrolled: RwLock::new(enrolled), token: Mutex::new(None) }
    }

    pub fn enrolled(&self) -> Option<Enrolled> {
        self.enrolled.read().clone()
    }

    pub fn set_enrolled(&self, enrolled: Enrolled) {
        *self.enrolled.write() = Some(enrolled);
    }

    /// This sensor's public key, base64.
    pub fn public_key(&self) -> String {
        self.key.public_key()
    }

    /// A valid session token, from the server if need be. One session is shared by all callers.
    pub async fn token(&self) -> Result<String, CallError> {
        let mut token = self.token.lock().await;
        let now = self.clock.now().timestamp();
        if let Some(token) = token.as_ref().filter(|token| now < token.renew_at) {
            return Ok(token.text.clone());
        }
        let machine_id =
            self.enrolled.read().as_ref().map(|enrolled| enrolled.machine_id.clone()).ok_or_else(
                || CallError::Unreadable("this sensor has not enrolled yet".to_owned()),
            )?;
        let session = self.client.session(&self.key.session_request(&machine_id, now)).await?;
        let lifetime = i64::try_from(session.expires_in_seconds).unwrap_or(i64::MAX / 2);
        let renew_at = now + (lifetime - RENEW_BEFORE_SECONDS).max(lifetime / 2);
        *token = Some(Token { text: session.token.clone(), renew_at });
        Ok(session.token)
    }

    /// Drops a token that the server no longer takes, unless it was replaced meanwhile.
    pub async fn forget(&self, refused: &str) {
        let mut token = self.token.lock().await;
        if token.as_ref().is_some_and(|token| token.text == refused) {
            *token = None;
        }
    }
}

/// Waiting times between attempts: doubling from half a second to a minute, spread by up to half so
/// that a fleet does not come back at one instant. The spread follows from `seed`, not from chance.
pub struct Backoff {
    seed: u64,
    attempts: u32,
}

impl Backoff {
    pub fn new(seed: &str) -> Backoff {
        // FNV-1a: any spread over machines will do.
        let seed = seed.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Backoff { seed, attempts: 0 }
    }

    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    pub fn next_wait(&mut self) -> Duration {
        let full = (500u64 << self.attempts.min(7)).min(60_000);
        self.attempts += 1;
        let mixed = (self.seed ^ u64::from(self.attempts)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Duration::from_millis(full / 2 + (mixed >> 32) % (full / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_differ_between_machines() {
        let mut first = Backoff::new("a");
        let mut second = Backoff::new("b");
        let waits: Vec<Duration> = (0..12).map(|_| first.next_wait()).collect();
        assert!(waits[0] < Duration::from_millis(500));
        assert!(waits[11] >= Duration::from_secs(30) && waits[11] < Duration::from_secs(60));
        assert_ne!(waits[11], (0..12).map(|_| second.next_wait()).last().unwrap());
        first.reset();
        assert_eq!(first.next_wait(), waits[0]);
    }
}
