//! How the sensor stands with its server, for `status` and the log.

use crate::client::CallError;
use parking_lot::Mutex;

#[derive(Default)]
pub struct State(Mutex<Connection>);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connection {
    pub connected: bool,
    pub last_error: Option<String>,
}

impl State {
    pub fn connection(&self) -> Connection {
        self.0.lock().clone()
    }

    pub fn reached(&self) {
        let mut connection = self.0.lock();
        if !connection.connected {
            tracing::info!("server reached");
        }
        *connection = Connection { connected: true, last_error: None };
    }

    /// Logs an error once, not at every attempt.
    pub fn failed(&self, error: &CallError) {
        let text = error.to_string();
        let mut connection = self.0.lock();
        if connection.last_error.as_ref() != Some(&text) {
            tracing::warn!(error = text, "server call failed, trying again");
        }
        *connection = Connection { connected: false, last_error: Some(text) };
    }
}
