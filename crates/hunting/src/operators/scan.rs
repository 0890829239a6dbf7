//! The states of `scan`'s steps.
//!
//! Each step keeps the rows of the steps up to it that the sequence matched so far. A row is tried
//! from the last step to the first: it may carry a sequence one step on, or match again where the
//! sequence stands; the first step always begins a new sequence.

use crate::functions::Cell;
use vigie_kql::plan::ScanOutput;

/// A row of the result.
pub struct ScanRow {
    /// The input's row.
    pub origin: usize,
    pub match_id: i64,
    /// The input's columns, then the declared ones.
    pub cells: Vec<Cell<'static>>,
}

struct State {
    /// The last row of each step up to this one; optional steps may have none.
    rows: Vec<Option<Vec<Cell<'static>>>>,
    match_id: i64,
    /// `output=last`: what is given when the sequence moves on.
    pending: Option<ScanRow>,
}

pub struct ScanMachine {
    steps: Vec<(ScanOutput, bool)>,
    states: Vec<Option<State>>,
    /// What a step without a row seems to have.
    blank: Vec<Cell<'static>>,
    match_id: i64,
}

impl ScanMachine {
    /// `steps`: output and whether optional.
    pub fn new(steps: Vec<(ScanOutput, bool)>, blank: Vec<Cell<'static>>) -> ScanMachine {
        let states = steps.iter().map(|_| None).collect();
        ScanMachine { steps, states, blank, match_id: -1 }
    }

    pub fn is_active(&self, step: usize) -> bool {
        self.states[step].is_some()
    }

    /// The step whose sequence `step` may carry on: the one before, or further ones where those
    /// between are optional.
    pub fn previous(&self, step: usize) -> Option<usize> {
        for before in (0..step).rev() {
            if self.is_active(before) {
                return Some(before);
            }
            if !self.steps[before].1 {
                return None;
            }
        }
        None
    }

    /// The states of all steps, one behind the other, as a sequence at `step` sees them.
    pub fn seen(&self, step: Option<usize>) -> Vec<Cell<'static>> {
        let state = step.and_then(|step| self.states[step].as_ref());
        (0..self.steps.len())
            .flat_map(|at| {
                let row = state.and_then(|state| state.rows.get(at)).and_then(Option::as_ref);
                row.unwrap_or(&self.blank).iter().cloned()
            })
            .collect()
    }

    /// The sequence at `from` goes on to `step`.
    pub fn promote(
        &mut self,
        from: usize,
        step: usize,
        origin: usize,
        cells: Vec<Cell<'static>>,
        made: &mut Vec<ScanRow>,
    ) {
        if let Some(old) = self.states[step].take() {
            made.extend(old.pending);
        }
        let Some(mut state) = self.states[from].take() else { return };
        made.extend(state.pending.take());
        state.rows.resize(step, None);
        self.put(state, step, origin, cells, made);
    }

    /// The row matches where the sequence stands, or begins one.
    pub fn repeat(
        &mut self,
        step: usize,
        origin: usize,
        cells: Vec<Cell<'static>>,
        made: &mut Vec<ScanRow>,
    ) {
        let old = self.states[step].take();
        let mut state = old.unwrap_or(State { rows: Vec::new(), match_id: 0, pending: None });
        if step == 0 {
            self.match_id += 1;
            state.match_id = self.match_id;
        }
        state.pending = None;
        state.rows.truncate(step);
        self.put(state, step, origin, cells, made);
    }

    fn put(
        &mut self,
        mut state: State,
        step: usize,
        origin: usize,
        cells: Vec<Cell<'static>>,
        made: &mut Vec<ScanRow>,
    ) {
        let row = ScanRow { origin, match_id: state.match_id, cells: cells.clone() };
        match self.steps[step].0 {
            ScanOutput::All => made.push(row),
            ScanOutput::Last => state.pending = Some(row),
            ScanOutput::None => {}
        }
        state.rows.push(Some(cells));
        self.states[step] = Some(state);
    }

    /// The rows of a group have ended.
    pub fn end(&mut self, made: &mut Vec<ScanRow>) {
        for state in &mut self.states {
            made.extend(state.take().and_then(|state| state.pending));
        }
        // Numbers go on: they differ between groups.
    }
}
