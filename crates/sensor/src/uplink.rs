//! Sends the spool's batches to the server in order, until acknowledged.

use crate::client::CallError;
use crate::link::{Backoff, Link};
use crate::lost::Lost;
use crate::spool::Spool;
use crate::state::State;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub struct Uplink {
    pub link: Arc<Link>,
    pub spool: Arc<Mutex<Spool>>,
    /// Told after every append.
    pub appended: Arc<Notify>,
    pub lost: Arc<Lost>,
    pub state: Arc<State>,
    pub stop: CancellationToken,
}

impl Uplink {
    pub async fn run(self) {
        let mut backoff = Backoff::new(&self.link.public_key());
        loop {
            let front = self.spool.lock().front();
            let wait = match front {
                None => {
                    tokio::select! {
                        () = self.appended.notified() => continue,
                        () = self.stop.cancelled() => return,
                    }
                }
                Some(batch) => {
                    let sequence = self.spool.lock().wire_sequence(batch.number);
                    match self.send(sequence, &batch).await {
                        Ok(()) => {
                            backoff.reset();
                            self.state.reached();
                            continue;
                        }
                        Err(error) => {
                            self.state.failed(&error);
                            backoff.next_wait()
                        }
                    }
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn send(&self, sequence: u64, batch: &crate::spool::Batch) -> Result<(), CallError> {
        let token = self.link.token().await?;
        match self.link.client.telemetry(&token, sequence, batch.body.clone()).await {
            Ok(acknowledged) => {
                let mut spool = self.spool.lock();
                let kept = if acknowledged.sequence > spool.last_wire_sequence() {
                    // The server knows numbers that this spool never gave out, so this batch was
                    // taken for an old one: it is sent again under a new number.
                    spool.shift_beyond(acknowledged.sequence)
                } else if acknowledged.sequence >= sequence {
                    spool.acknowledge(batch.number)
                } else {
                    return Err(CallError::Unreadable(format!(
                        "batch {sequence} was answered with {}",
                        acknowledged.sequence
                    )));
                };
                kept.map_err(|error| CallError::Unreadable(format!("{error:#}")))
            }
            Err(error) if error.is_session() => {
                self.link.forget(&token).await;
                Err(error)
            }
            Err(error) if error.is_bad_content() => {
                // Sending it again could never help and would hold up all that follows.
                tracing::error!(sequence, events = batch.events, %error, "batch refused, dropped");
                self.lost.add("refused", u64::from(batch.events));
                let _ = self.spool.lock().acknowledge(batch.number);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
