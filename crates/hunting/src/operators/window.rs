//! Window functions over rows in their order.

use crate::error::QueryError;
use crate::expressions::unsupported;
use crate::functions::{Cell, Cells, array_of};
use arrow::array::ArrayRef;
use vigie_kql::types::Type;

/// The results of a window function; `starts` tells where groups begin, in which nothing of other
/// groups is seen.
pub fn window(
    function: &str,
    arguments: &[ArrayRef],
    result: Type,
    starts: &[bool],
) -> Result<ArrayRef, QueryError> {
    let cells = arguments.iter().map(|array| Cells::of(array)).collect::<Result<Vec<_>, _>>()?;
    let argument = |at: usize, row: usize| cells.get(at).map_or(Cell::Null, |c| c.get(row));
    let restarts = |at: usize, row: usize| starts[row] || argument(at, row) == Cell::Bool(true);
    let rows = starts.len();
    let blank = || if result == Type::String { Cell::text("") } else { Cell::Null };
    let mut out: Vec<Cell<'_>> = Vec::with_capacity(rows);
    match function {
        "prev" | "next" => {
            // The bounds of each row's group.
            let mut first = vec![0; rows];
            for row in 1..rows {
                first[row] = if starts[row] { row } else { first[row - 1] };
            }
            let mut last = vec![rows.saturating_sub(1); rows];
            for row in (0..rows.saturating_sub(1)).rev() {
                last[row] = if starts[row + 1] { row } else { last[row + 1] };
            }
            for row in 0..rows {
                let offset = if cells.len() > 1 { argument(1, row).as_long() } else { Some(1) };
                let offset = offset.unwrap_or(1);
                let offset = if function == "prev" { -offset } else { offset };
                let place = row as i64 + offset;
                let within = (first[row] as i64..=last[row] as i64).contains(&place);
                out.push(match (within, cells.len() > 2) {
                    (true, _) => argument(0, place as usize),
                    (false, true) => argument(2, row),
                    (false, false) => blank(),
                });
            }
        }
        "row_number" => {
            let mut number = 0;
            for row in 0..rows {
                let start =
                    if cells.is_empty() { 1 } else { argument(0, row).as_long().unwrap_or(1) };
                number = if restarts(1, row) { start } else { number + 1 };
                out.push(Cell::Long(number));
            }
        }
        "row_cumsum" => {
            let mut sum = Cell::Null;
            for row in 0..rows {
                if restarts(1, row) {
                    sum = if result == Type::Real { Cell::Real(0.0) } else { Cell::Long(0) };
                }
                sum = match (&sum, argument(0, row)) {
                    (Cell::Long(sum), Cell::Long(value)) => Cell::Long(sum.wrapping_add(value)),
                    (Cell::Real(sum), value) => Cell::Real(sum + value.as_real().unwrap_or(0.0)),
                    (_, Cell::Null) => sum,
                    (Cell::Long(sum), value) => {
                        Cell::Real(*sum as f64 + value.as_real().unwrap_or(0.0))
                    }
                    _ => sum,
                };
                out.push(sum.clone());
            }
        }
        "row_rank_dense" | "row_rank_min" | "row_rank" => {
            let (mut rank, mut place) = (0, 0);
            for (row, start) in starts.iter().enumerate() {
                // The second argument of `row_rank` is whether it is dense.
                let fresh = if function == "row_rank" { *start } else { restarts(1, row) };
                let dense = match function {
                    "row_rank_dense" => true,
                    "row_rank_min" => false,
                    _ => argument(1, row) != Cell::Bool(false),
                };
                if fresh {
                    (rank, place) = (1, 1);
                } else {
                    place += 1;
                    if argument(0, row) != argument(0, row - 1) {
                        rank = if dense { rank + 1 } else { place };
                    }
                }
                out.push(Cell::Long(rank));
            }
        }
        "row_window_session" => {
            let (mut session, mut before) = (None, None);
            for row in 0..rows {
                let at = argument(0, row).as_long();
                let (longest, gap) = (argument(1, row).as_long(), argument(2, row).as_long());
                let fits = |from: Option<i64>, limit: Option<i64>| match (at, from, limit) {
                    (Some(at), Some(from), Some(limit)) => at.saturating_sub(from) <= limit,
                    _ => false,
                };
                if restarts(3, row) || !fits(session, longest) || !fits(before, gap) {
                    session = at;
                }
                before = at;
                out.push(Cell::from_long(session));
            }
        }
        other => return Err(unsupported(&format!("function '{other}'"))),
    }
    Ok(array_of(result, out.into_iter()))
}
