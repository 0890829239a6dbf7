//! Counts of events that did not reach the server, by source.

use parking_lot::Mutex;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Lost(Mutex<BTreeMap<String, u64>>);

impl Lost {
    pub fn add(&self, source: &str, events: u64) {
        if events == 0 {
            return;
        }
        let mut counts = self.0.lock();
        match counts.get_mut(source) {
            Some(count) => *count += events,
            None => {
                counts.insert(source.to_owned(), events);
            }
        }
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }
}
