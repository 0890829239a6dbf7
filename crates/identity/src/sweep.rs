//! Removes what has ended long ago, so that tables do not grow for ever.

use crate::{Directory, DirectoryError, micros};
use chrono::TimeDelta;

impl Directory {
    /// Ended codes are kept a day longer, so that a second use is still recognised; ended refresh
    /// tokens a month, so that clients are told why they ended.
    pub(crate) async fn sweep(&self) -> Result<(), DirectoryError> {
        let now = self.clock().now();
        let before = |days: i64| micros(now - TimeDelta::days(days));
        for (delete, time) in [
            ("DELETE FROM codes WHERE expires < $1", before(1)),
            ("DELETE FROM device_codes WHERE expires < $1", before(1)),
            ("DELETE FROM sessions WHERE expires < $1", before(0)),
            ("DELETE FROM assertion_ids WHERE expires < $1", before(1)),
            ("DELETE FROM refresh_tokens WHERE expires < $1", before(30)),
            ("DELETE FROM locks WHERE last_failure < $1", before(2)),
            ("DELETE FROM familiar_addresses WHERE seen < $1", before(90)),
        ] {
            self.database().execute(delete, &[time.into()]).await?;
        }
        Ok(())
    }
}
