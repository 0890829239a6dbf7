//! Decimals: 76 digits, 20 of them behind the point.

use super::cells::{DECIMAL_SCALE, decimal_one};
use super::{Cell, RowFunction};
use arrow::datatypes::i256;

/// `-12.5` or `1.25E3`; `None` where the text is no number or too long.
pub fn parse(text: &str) -> Option<i256> {
    let text = text.trim();
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits.strip_prefix('+').unwrap_or(digits)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let all = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + part.len() == 0 || !all(whole) || !all(part) {
        return None;
    }
    // How many digits of `whole` and `part` together stand before the end of what is kept.
    let kept = whole.len() as i32 + exponent + i32::from(DECIMAL_SCALE);
    let mut unscaled: String = format!("{whole}{part}");
    if kept <= 0 {
        return Some(i256::ZERO);
    }
    let kept = usize::try_from(kept).ok().filter(|kept| *kept <= 100)?;
    while unscaled.len() < kept {
        unscaled.push('0');
    }
    unscaled.truncate(kept);
    let unscaled = unscaled.trim_start_matches('0');
    let unscaled = if unscaled.is_empty() { "0" } else { unscaled };
    i256::from_string(&format!("{sign}{unscaled}"))
}

/// No zeros behind the last digit that counts.
pub fn text(value: i256) -> String {
    let digits = value.to_string();
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits.as_str()),
    };
    let scale = DECIMAL_SCALE as usize;
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let part = part.trim_end_matches('0');
    match part {
        "" => format!("{sign}{whole}"),
        part => format!("{sign}{whole}.{part}"),
    }
}

/// Functions whose exact result matters.
pub fn find(name: &str) -> Option<RowFunction> {
    Some(match name {
        // Four numbers of eight digits each.
        "parse_version" => |_, cells| {
            let mut parts = cells[0].as_text().trim().split('.');
            let mut version = String::new();
            for _ in 0..4 {
                match parts.next().unwrap_or("0") {
                    part if part.len() <= 8
                        && !part.is_empty()
                        && part.bytes().all(|byte| byte.is_ascii_digit()) =>
                    {
                        version.push_str(&format!("{part:0>8}"));
                    }
                    _ => return Cell::Null,
                }
            }
            match parts.next() {
                Some(_) => Cell::Null,
                None => parse(&version).map_or(Cell::Null, Cell::Decimal),
            }
        },
        _ => return None,
    })
}

/// Product and quotient; null where they do not fit.
pub fn multiply(a: i256, b: i256) -> Option<i256> {
    match a.checked_mul(b) {
        Some(product) => product.checked_div(decimal_one()),
        // The larger one loses its last digits first.
        None => a.checked_div(decimal_one())?.checked_mul(b),
    }
}

pub fn divide(a: i256, b: i256) -> Option<i256> {
    a.checked_mul(decimal_one())?.checked_div(b)
}
