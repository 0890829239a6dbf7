//! Arithmetic that differs from SQL's, and mathematics.

use super::{Cell, RowFunction, decimals};
use vigie_kql::types::Type;

pub fn find(name: &str) -> Option<RowFunction> {
    Some(match name {
        "/" => |call, cells| match (&cells[0], &cells[1]) {
            (Cell::Long(a), Cell::Long(b)) if call.result == Type::Real => {
                Cell::Real(*a as f64 / *b as f64)
            }
            (Cell::Long(a), Cell::Long(b)) => Cell::from_long(a.checked_div(*b)),
            (Cell::Long(a), Cell::Real(b)) if call.result == Type::TimeSpan => {
                Cell::Long((*a as f64 / b).round() as i64)
            }
            (Cell::Decimal(a), Cell::Decimal(b)) => {
                decimals::divide(*a, *b).map_or(Cell::Null, Cell::Decimal)
            }
            (a, b) => Cell::from_real(a.as_real().zip(b.as_real()).map(|(a, b)| a / b)),
        },
        "%" => |_, cells| match (&cells[0], &cells[1]) {
            // The sign follows the divisor's absolute value: never negative.
            (Cell::Long(a), Cell::Long(b)) => {
                Cell::from_long(b.checked_abs().and_then(|b| a.checked_rem_euclid(b)))
            }
            (a, b) => {
                Cell::from_real(a.as_real().zip(b.as_real()).map(|(a, b)| a.rem_euclid(b.abs())))
            }
        },
        "*" => |call, cells| match (&cells[0], &cells[1]) {
            (Cell::Long(a), Cell::Long(b)) => Cell::Long(a.wrapping_mul(*b)),
            (Cell::Decimal(a), Cell::Decimal(b)) => {
                decimals::multiply(*a, *b).map_or(Cell::Null, Cell::Decimal)
            }
            (a, b) => match a.as_real().zip(b.as_real()) {
                Some((a, b)) if call.result == Type::TimeSpan => Cell::Long((a * b).round() as i64),
                product => Cell::from_real(product.map(|(a, b)| a * b)),
            },
        },
        "bin" => |call, cells| match (&cells[0], &cells[1], call.result) {
            (_, Cell::Long(size), _) if *size <= 0 => Cell::Null,
            (Cell::Long(value), Cell::Long(size), _) => Cell::Long(value.div_euclid(*size) * size),
            (value, size, _) => match value.as_real().zip(size.as_real()) {
                Some((value, size)) if size > 0.0 => Cell::Real((value / size).floor() * size),
                _ => Cell::Null,
            },
        },
        "bin_at" => |_, cells| match (&cells[0], &cells[1], &cells[2]) {
            (Cell::Long(value), Cell::Long(size), Cell::Long(at)) if *size > 0 => {
                Cell::Long((value - at).div_euclid(*size) * size + at)
            }
            (value, size, at) => match (value.as_real(), size.as_real(), at.as_real()) {
                (Some(value), Some(size), Some(at)) if size > 0.0 => {
                    Cell::Real(((value - at) / size).floor() * size + at)
                }
                _ => Cell::Null,
            },
        },
        "abs" => |_, cells| match &cells[0] {
            Cell::Long(value) => Cell::Long(value.wrapping_abs()),
            cell => Cell::from_real(cell.as_real().map(f64::abs)),
        },
        "round" => |call, cells| {
            let digits = cells.get(1).and_then(Cell::as_long).unwrap_or(0).clamp(-15, 15) as i32;
            let factor = 10f64.powi(digits);
            let rounded =
                cells[0].as_real().map(|value| (value * factor).round_ties_even() / factor);
            match call.result {
                Type::Long | Type::Int => Cell::from_long(rounded.map(|value| value as i64)),
                _ => Cell::from_real(rounded),
            }
        },
        "ceiling" => |call, cells| whole(call.result, cells[0].as_real().map(f64::ceil)),
        "sign" => |_, cells| {
            Cell::from_real(cells[0].as_real().map(|v| if v == 0.0 { 0.0 } else { v.signum() }))
        },
        "sqrt" => |_, cells| Cell::from_real(cells[0].as_real().map(f64::sqrt)),
        "exp" => |_, cells| Cell::from_real(cells[0].as_real().map(f64::exp)),
        "exp2" => |_, cells| Cell::from_real(cells[0].as_real().map(f64::exp2)),
        "log" => |_, cells| Cell::from_real(cells[0].as_real().map(f64::ln)),
        "log2" => |_, cells| Cell::from_real(cells[0].as_real().map(f64::log2)),
        "log10" => |_, cells| Cell::from_real(cells[0].as_real().map(f64::log10)),
        "sin" => |_, cells| Cell::from_real(cells[0].as_real().map(f64::sin)),
        "cos" => |_, cells| Cell::from_real(cells[0].as_real().map(f64::cos)),
        "tan" => |_, cells| Cell::from_real(cells[0].as_real().map(f64::tan)),
        "pi" => |_, _| Cell::Real(std::f64::consts::PI),
        "pow" => |_, cells| {
            Cell::from_real(cells[0].as_real().zip(cells[1].as_real()).map(|(a, b)| a.powf(b)))
        },
        "isnan" => |_, cells| Cell::Bool(cells[0].as_real().is_some_and(f64::is_nan)),
        "isinf" => |_, cells| Cell::Bool(cells[0].as_real().is_some_and(f64::is_infinite)),
        "isfinite" => |_, cells| Cell::Bool(cells[0].as_real().is_some_and(f64::is_finite)),
        "min_of" => |_, cells| extreme(cells, std::cmp::Ordering::Less),
        "max_of" => |_, cells| extreme(cells, std::cmp::Ordering::Greater),
        "binary_and" => |_, cells| both(cells, |a, b| a & b),
        "binary_or" => |_, cells| both(cells, |a, b| a | b),
        "binary_xor" => |_, cells| both(cells, |a, b| a ^ b),
        "binary_shift_left" => |_, cells| both(cells, |a, b| a.checked_shl(b as u32).unwrap_or(0)),
        "binary_shift_right" => |_, cells| both(cells, |a, b| a.checked_shr(b as u32).unwrap_or(0)),
        "binary_not" => |_, cells| Cell::from_long(cells[0].as_long().map(|value| !value)),
        "rand" => |_, cells| {
            let unit = (uuid::Uuid::new_v4().as_u128() >> 75) as f64 / (1u64 << 53) as f64;
            match cells.first().and_then(Cell::as_long) {
                Some(count) if count > 1 => Cell::Real((unit * count as f64).floor()),
                _ => Cell::Real(unit),
            }
        },
        _ => return None,
    })
}

fn whole<'a>(ty: Type, value: Option<f64>) -> Cell<'a> {
    match ty {
        Type::Long | Type::Int => Cell::from_long(value.map(|value| value as i64)),
        _ => Cell::from_real(value),
    }
}

fn both<'a>(cells: &[Cell<'a>], work: fn(i64, i64) -> i64) -> Cell<'a> {
    Cell::from_long(cells[0].as_long().zip(cells[1].as_long()).map(|(a, b)| work(a, b)))
}

/// The least or greatest argument, nulls left out.
fn extreme<'a>(cells: &[Cell<'a>], wanted: std::cmp::Ordering) -> Cell<'a> {
    let mut found = Cell::Null;
    for cell in cells {
        let order = match (cell, &found) {
            (Cell::Null, _) => continue,
            (_, Cell::Null) => Some(wanted),
            (Cell::Text(a), Cell::Text(b)) => Some(a.cmp(b)),
            (Cell::Long(a), Cell::Long(b)) => Some(a.cmp(b)),
            (Cell::Bool(a), Cell::Bool(b)) => Some(a.cmp(b)),
            (a, b) => a.as_real().partial_cmp(&b.as_real()),
        };
        if order == Some(wanted) {
            found = cell.clone();
        }
    }
    found
}
