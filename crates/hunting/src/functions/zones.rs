//! Time zones, by the names of the tz database.

use super::dynamic::write;
use super::{Cell, RowFunction};
use chrono::{DateTime, LocalResult, Offset as _, TimeZone as _};
use chrono_tz::Tz;
use vigie_kql::types::{TICKS_PER_SECOND, UNIX_EPOCH_TICKS};

pub fn find(name: &str) -> Option<RowFunction> {
    Some(match name {
        "datetime_list_timezones" => {
            |_, _| write(chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).collect())
        }
        "datetime_utc_to_local" => |_, cells| {
            let moved = cells[0].as_long().zip(zone(&cells[1])).and_then(|(ticks, zone)| {
                let (seconds, _) = split(ticks);
                let at = DateTime::from_timestamp(seconds, 0)?;
                let offset = zone.offset_from_utc_datetime(&at.naive_utc()).fix();
                Some(ticks + i64::from(offset.local_minus_utc()) * TICKS_PER_SECOND)
            });
            Cell::from_long(moved)
        },
        "datetime_local_to_utc" => |_, cells| {
            let moved = cells[0].as_long().zip(zone(&cells[1])).and_then(|(ticks, zone)| {
                let (seconds, _) = split(ticks);
                let local = DateTime::from_timestamp(seconds, 0)?.naive_utc();
                // An hour that occurs twice is taken as the first one; one that does not, as if
                // the clock had not been put forward.
                let offset = match zone.offset_from_local_datetime(&local) {
                    LocalResult::Single(offset) => offset.fix(),
                    LocalResult::Ambiguous(first, _) => first.fix(),
                    LocalResult::None => zone.offset_from_utc_datetime(&local).fix(),
                };
                Some(ticks - i64::from(offset.local_minus_utc()) * TICKS_PER_SECOND)
            });
            Cell::from_long(moved)
        },
        _ => return None,
    })
}

fn zone(cell: &Cell<'_>) -> Option<Tz> {
    cell.as_text().parse().ok()
}

/// Seconds since 1970 and ticks within the second.
fn split(ticks: i64) -> (i64, i64) {
    let since = ticks - UNIX_EPOCH_TICKS;
    (since.div_euclid(TICKS_PER_SECOND), since.rem_euclid(TICKS_PER_SECOND))
}
