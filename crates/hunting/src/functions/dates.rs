//! Points and spans of time, in ticks of 100 ns.

use super::{Cell, RowFunction};
use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime, TimeDelta, Timelike};
use vigie_kql::types::{MAX_DATETIME_TICKS, TICKS_PER_DAY, TICKS_PER_SECOND, UNIX_EPOCH_TICKS};

const HOUR: i64 = 3600 * TICKS_PER_SECOND;
const MINUTE: i64 = 60 * TICKS_PER_SECOND;

pub fn find(name: &str) -> Option<RowFunction> {
    Some(match name {
        "startofday" => |_, cells| {
            start(cells, |time, by| {
                time.date().and_hms_opt(0, 0, 0)?.checked_add_signed(TimeDelta::days(by))
            })
        },
        "startofweek" => |_, cells| start(cells, start_of_week),
        "startofmonth" => |_, cells| start(cells, start_of_month),
        "startofyear" => |_, cells| start(cells, start_of_year),
        "endofday" => |_, cells| {
            end(cells, |time, by| {
                time.date().and_hms_opt(0, 0, 0)?.checked_add_signed(TimeDelta::days(by))
            })
        },
        "endofweek" => |_, cells| end(cells, start_of_week),
        "endofmonth" => |_, cells| end(cells, start_of_month),
        "endofyear" => |_, cells| end(cells, start_of_year),
        "dayofweek" => |_, cells| {
            part(cells, |time| i64::from(time.weekday().num_days_from_sunday()) * TICKS_PER_DAY)
        },
        "dayofmonth" => |_, cells| part(cells, |time| time.day().into()),
        "dayofyear" => |_, cells| part(cells, |time| time.ordinal().into()),
        "hourofday" => |_, cells| part(cells, |time| time.hour().into()),
        "getmonth" | "monthofyear" => |_, cells| part(cells, |time| time.month().into()),
        "getyear" => |_, cells| part(cells, |time| time.year().into()),
        "week_of_year" | "weekofyear" => {
            |_, cells| part(cells, |time| time.iso_week().week().into())
        }
        "datetime_part" => |_, cells| match (cells[0].as_text(), &cells[1]) {
            (unit, Cell::Long(ticks)) => Cell::from_long(named_part(unit, *ticks)),
            _ => Cell::Null,
        },
        "datetime_add" => |_, cells| match (&cells[1], &cells[2]) {
            (Cell::Long(amount), Cell::Long(ticks)) => {
                Cell::from_long(add(cells[0].as_text(), *amount, *ticks))
            }
            _ => Cell::Null,
        },
        "datetime_diff" => |_, cells| match (&cells[1], &cells[2]) {
            (Cell::Long(a), Cell::Long(b)) => {
                Cell::from_long(difference(cells[0].as_text(), *a, *b))
            }
            _ => Cell::Null,
        },
        "make_datetime" => |_, cells| {
            let at = |index: usize| cells.get(index).map_or(Some(0), Cell::as_long);
            let made = || {
                let year = i32::try_from(at(0)?).ok()?;
                let (month, day) = (u32::try_from(at(1)?).ok()?, u32::try_from(at(2)?).ok()?);
                let date = NaiveDate::from_ymd_opt(year, month, day)?;
                let seconds = cells.get(5).map_or(Some(0.0), Cell::as_real)?;
                let time =
                    at(3)? * HOUR + at(4)? * MINUTE + (seconds * TICKS_PER_SECOND as f64) as i64;
                Some(ticks_of(date.and_hms_opt(0, 0, 0)?)? + time)
            };
            Cell::from_long(made())
        },
        "make_timespan" => |_, cells| {
            let numbers: Option<Vec<f64>> = cells.iter().map(Cell::as_real).collect();
            Cell::from_long(numbers.map(|n| {
                let ticks = |value: f64, unit: i64| (value * unit as f64) as i64;
                match n[..] {
                    [hours, minutes] => ticks(hours, HOUR) + ticks(minutes, MINUTE),
                    [hours, minutes, seconds] => {
                        ticks(hours, HOUR)
                            + ticks(minutes, MINUTE)
                            + ticks(seconds, TICKS_PER_SECOND)
                    }
                    [days, hours, minutes, seconds] => {
                        ticks(days, TICKS_PER_DAY)
                            + ticks(hours, HOUR)
                            + ticks(minutes, MINUTE)
                            + ticks(seconds, TICKS_PER_SECOND)
                    }
                    _ => 0,
                }
            }))
        },
        "unixtime_seconds_todatetime" => |_, cells| unix(cells, TICKS_PER_SECOND),
        "unixtime_milliseconds_todatetime" => |_, cells| unix(cells, 10_000),
        "unixtime_microseconds_todatetime" => |_, cells| unix(cells, 10),
        "unixtime_nanoseconds_todatetime" => |_, cells| {
            Cell::from_long(cells[0].as_long().map(|nanos| nanos / 100 + UNIX_EPOCH_TICKS))
        },
        "format_datetime" => |_, cells| match &cells[0] {
            Cell::Long(ticks) => Cell::from_text(format_datetime(*ticks, cells[1].as_text())),
            _ => Cell::text(""),
        },
        "format_timespan" => |_, cells| match &cells[0] {
            Cell::Long(ticks) => Cell::text(format_timespan(*ticks, cells[1].as_text())),
            _ => Cell::text(""),
        },
        _ => return None,
    })
}

fn time_of(ticks: i64) -> Option<NaiveDateTime> {
    let since = ticks.checked_sub(UNIX_EPOCH_TICKS)?;
    let seconds = since.div_euclid(TICKS_PER_SECOND);
    let nanos = since.rem_euclid(TICKS_PER_SECOND) * 100;
    Some(DateTime::from_timestamp(seconds, nanos as u32)?.naive_utc())
}

fn ticks_of(time: NaiveDateTime) -> Option<i64> {
    let utc = time.and_utc();
    let ticks = utc.timestamp() * TICKS_PER_SECOND + i64::from(utc.nanosecond()) / 100;
    let ticks = ticks + UNIX_EPOCH_TICKS;
    (0..=MAX_DATETIME_TICKS).contains(&ticks).then_some(ticks)
}

type Boundary = fn(NaiveDateTime, i64) -> Option<NaiveDateTime>;

fn boundary(cells: &[Cell<'_>], of: Boundary, more: i64) -> Option<i64> {
    let Cell::Long(ticks) = cells[0] else { return None };
    let by = cells.get(1).map_or(Some(0), Cell::as_long)?;
    ticks_of(of(time_of(ticks)?, by + more)?)
}

fn start<'a>(cells: &[Cell<'a>], of: Boundary) -> Cell<'a> {
    Cell::from_long(boundary(cells, of, 0))
}

/// The last tick before the next start.
fn end<'a>(cells: &[Cell<'a>], of: Boundary) -> Cell<'a> {
    Cell::from_long(boundary(cells, of, 1).map(|ticks| ticks - 1))
}

fn start_of_week(time: NaiveDateTime, by: i64) -> Option<NaiveDateTime> {
    let back = i64::from(time.weekday().num_days_from_sunday());
    time.date().and_hms_opt(0, 0, 0)?.checked_add_signed(TimeDelta::days(by * 7 - back))
}

fn start_of_month(time: NaiveDateTime, by: i64) -> Option<NaiveDateTime> {
    add_months(time.date().with_day(1)?.and_hms_opt(0, 0, 0)?, by)
}

fn start_of_year(time: NaiveDateTime, by: i64) -> Option<NaiveDateTime> {
    add_months(NaiveDate::from_ymd_opt(time.year(), 1, 1)?.and_hms_opt(0, 0, 0)?, by * 12)
}

fn add_months(time: NaiveDateTime, months: i64) -> Option<NaiveDateTime> {
    let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    if months < 0 { time.checked_sub_months(count) } else { time.checked_add_months(count) }
}

fn part<'a>(cells: &[Cell<'a>], of: fn(NaiveDateTime) -> i64) -> Cell<'a> {
    match cells[0] {
        Cell::Long(ticks) => Cell::from_long(time_of(ticks).map(of)),
        _ => Cell::Null,
    }
}

fn named_part(unit: &str, ticks: i64) -> Option<i64> {
    let time = time_of(ticks)?;
    let below_second = ticks.rem_euclid(TICKS_PER_SECOND);
    Some(match unit.to_ascii_lowercase().as_str() {
        "year" => time.year().into(),
        "quarter" => i64::from(time.month0() / 3 + 1),
        "month" => time.month().into(),
        "week_of_year" | "weekofyear" => time.iso_week().week().into(),
        "day" => time.day().into(),
        "dayofyear" => time.ordinal().into(),
        "hour" => time.hour().into(),
        "minute" => time.minute().into(),
        "second" => time.second().into(),
        "millisecond" => below_second / 10_000,
        "microsecond" => below_second / 10,
        "nanosecond" => below_second * 100,
        _ => return None,
    })
}

fn unit_ticks(unit: &str) -> Option<i64> {
    Some(match unit {
        "week" => 7 * TICKS_PER_DAY,
        "day" => TICKS_PER_DAY,
        "hour" => HOUR,
        "minute" => MINUTE,
        "second" => TICKS_PER_SECOND,
        "millisecond" => 10_000,
        "microsecond" => 10,
        _ => return None,
    })
}

fn add(unit: &str, amount: i64, ticks: i64) -> Option<i64> {
    let unit = unit.to_ascii_lowercase();
    let months = match unit.as_str() {
        "year" => 12,
        "quarter" => 3,
        "month" => 1,
        unit => {
            let sum = ticks.checked_add(amount.checked_mul(unit_ticks(unit)?)?)?;
            return (0..=MAX_DATETIME_TICKS).contains(&sum).then_some(sum);
        }
    };
    ticks_of(add_months(time_of(ticks)?, amount.checked_mul(months)?)?)
}

/// Boundaries of the unit between the two, `a` minus `b`.
fn difference(unit: &str, a: i64, b: i64) -> Option<i64> {
    let unit = unit.to_ascii_lowercase();
    let (x, y) = (time_of(a)?, time_of(b)?);
    let months = |time: NaiveDateTime| i64::from(time.year()) * 12 + i64::from(time.month0());
    Some(match unit.as_str() {
        "year" => i64::from(x.year()) - i64::from(y.year()),
        "quarter" => months(x).div_euclid(3) - months(y).div_euclid(3),
        "month" => months(x) - months(y),
        // Weeks begin on Sundays; 0001-01-01 was a Monday.
        "week" => {
            let week = |ticks: i64| (ticks + TICKS_PER_DAY).div_euclid(7 * TICKS_PER_DAY);
            week(a) - week(b)
        }
        "nanosecond" => (a - b).checked_mul(100)?,
        unit => {
            let size = unit_ticks(unit)?;
            a.div_euclid(size) - b.div_euclid(size)
        }
    })
}

fn unix<'a>(cells: &[Cell<'a>], ticks: i64) -> Cell<'a> {
    Cell::from_long(match &cells[0] {
        Cell::Real(value) => Some((value * ticks as f64) as i64 + UNIX_EPOCH_TICKS),
        cell => cell.as_long().and_then(|v| v.checked_mul(ticks)?.checked_add(UNIX_EPOCH_TICKS)),
    })
}

/// A time in a pattern of `y M d H h m s f F t` runs; other characters stand for themselves.
pub fn format_datetime(ticks: i64, pattern: &str) -> Option<String> {
    let time = time_of(ticks)?;
    let fraction = format!("{:07}", ticks.rem_euclid(TICKS_PER_SECOND));
    let mut out = String::new();
    for (letter, count) in runs(pattern) {
        match letter {
            'y' if count <= 2 => out.push_str(&format!("{:0count$}", time.year() % 100)),
            'y' => out.push_str(&format!("{:0count$}", time.year())),
            'M' if count >= 3 => {
                out.push_str(&time.format(if count == 3 { "%b" } else { "%B" }).to_string())
            }
            'M' => out.push_str(&format!("{:0count$}", time.month())),
            'd' if count >= 3 => {
                out.push_str(&time.format(if count == 3 { "%a" } else { "%A" }).to_string())
            }
            'd' => out.push_str(&format!("{:0count$}", time.day())),
            'H' => out.push_str(&format!("{:0count$}", time.hour())),
            'h' => out.push_str(&format!("{:0count$}", (time.hour() + 11) % 12 + 1)),
            'm' => out.push_str(&format!("{:0count$}", time.minute())),
            's' => out.push_str(&format!("{:0count$}", time.second())),
            'f' => out.push_str(&fraction[..count.min(7)]),
            'F' => out.push_str(fraction[..count.min(7)].trim_end_matches('0')),
            't' => out.push_str(if time.hour() < 12 { "AM" } else { "PM" }),
            other => (0..count).for_each(|_| out.push(other)),
        }
    }
    Some(out)
}

fn format_timespan(ticks: i64, pattern: &str) -> String {
    let size = ticks.unsigned_abs();
    let fraction = format!("{:07}", size % TICKS_PER_SECOND as u64);
    let seconds = size / TICKS_PER_SECOND as u64;
    let mut out = String::from(if ticks < 0 { "-" } else { "" });
    for (letter, count) in runs(pattern) {
        match letter {
            'd' => out.push_str(&format!("{:0count$}", seconds / 86_400)),
            'H' | 'h' => out.push_str(&format!("{:0count$}", seconds / 3600 % 24)),
            'm' => out.push_str(&format!("{:0count$}", seconds / 60 % 60)),
            's' => out.push_str(&format!("{:0count$}", seconds % 60)),
            'f' => out.push_str(&fraction[..count.min(7)]),
            'F' => out.push_str(fraction[..count.min(7)].trim_end_matches('0')),
            other => (0..count).for_each(|_| out.push(other)),
        }
    }
    out
}

/// Runs of the same character.
fn runs(pattern: &str) -> Vec<(char, usize)> {
    let mut runs: Vec<(char, usize)> = Vec::new();
    for character in pattern.chars() {
        match runs.last_mut() {
            Some((last, count)) if *last == character => *count += 1,
            _ => runs.push((character, 1)),
        }
    }
    runs
}
