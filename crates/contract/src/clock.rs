//! Time as an argument, so that tests move it.

use chrono::{DateTime, TimeDelta, Utc};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Where the program takes the time from. Cloning shares the clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Microseconds added to the operating system's time; moved by tests and by the testers' switch.
    offset: Arc<AtomicI64>,
}

impl Clock {
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::microseconds(self.offset.load(Ordering::Relaxed))
    }

    /// Moves this clock and all its clones.
    pub fn advance(&self, by: TimeDelta) {
        let microseconds = by.num_microseconds().unwrap_or(i64::MAX);
        self.offset.fetch_add(microseconds, Ordering::Relaxed);
    }
}
