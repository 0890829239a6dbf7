//! Rows of a file → what they tell of things, hour by hour.

use super::super::LakeError;
use super::super::shape::Shape;
use super::source::{self, Source};
use super::summary::{Entry, Texts, put_number, write};
use super::{HOUR, Thing, column};
use arrow::array::{Array as _, AsArray as _, RecordBatch, StringArray};
use arrow::datatypes::TimestampMicrosecondType;
use hashbrown::HashMap;
use std::path::Path;

/// Spellings of things that are remembered; hosts come in endlessly many addresses of pages.
const SPELLINGS: usize = 100_000;

/// Rows are added in the order of their time. All of it is in memory until it is written: the texts
/// of each thing, device and name, the sightings of the present hour, and the others as they will be
/// written, some ten bytes for each thing, device, name and hour. A file whose rows name ever new
/// things therefore takes some hundred bytes for each of them.
pub struct Gathering {
    shape: &'static Shape,
    sources: Vec<Source>,
    devices: Texts,
    names: Texts,
    things: HashMap<(u8, String), u32>,
    entries: Vec<Entry>,
    /// By source: the thing that a text names.
    spellings: Vec<HashMap<String, Option<u32>>>,
    hour: i64,
    /// By thing, device and name: first, last and number.
    present: HashMap<(u32, u32, u32), (i64, i64, u64)>,
}

impl Gathering {
    pub fn new(shape: &'static Shape) -> Gathering {
        let sources = source::of(shape);
        Gathering {
            shape,
            spellings: vec![HashMap::new(); sources.len()],
            sources,
            devices: Texts::default(),
            names: Texts::default(),
            things: HashMap::new(),
            entries: Vec::new(),
            hour: i64::MIN,
            present: HashMap::new(),
        }
    }

    pub fn add(&mut self, batch: &RecordBatch) {
        let times = self.shape.timestamp.and_then(|time| {
            let times = batch.column_by_name(self.shape.stored_name(time))?;
            times.as_primitive_opt::<TimestampMicrosecondType>()
        });
        let Some(times) = times else { return };
        let mut row = 0;
        while row < batch.num_rows() {
            // Rows of one hour together.
            let hour = times.value(row).div_euclid(HOUR);
            let rest = &times.values()[row..];
            let rows = rest.iter().take_while(|time| time.div_euclid(HOUR) == hour).count();
            if hour != self.hour {
                self.end_hour();
                self.hour = hour;
            }
            self.add_hour(&batch.slice(row, rows), &rest[..rows]);
            row += rows;
        }
    }

    fn add_hour(&mut self, batch: &RecordBatch, times: &[i64]) {
        let shape = self.shape;
        let at = |index: Option<usize>| index.and_then(|index| column(shape, batch, index));
        let ids = |texts: &mut Texts, column: Option<&StringArray>| -> Option<Vec<u32>> {
            let column = column?;
            let mut before = ("", texts.number(""));
            let number = |row| {
                let text = column.value(row);
                if text != before.0 {
                    before = (text, texts.number(text));
                }
                before.1
            };
            Some((0..column.len()).map(number).collect())
        };
        let nothing = (self.devices.number(""), self.names.number(""));
        let devices = ids(&mut self.devices, at(shape.device_id));
        for place in 0..self.sources.len() {
            let source = self.sources[place].clone();
            let Some(values) = at(Some(source.column)) else { continue };
            let names = ids(&mut self.names, at(source.name));
            let others = at(source.other);
            let mut before: (&str, Option<u32>) = ("", None);
            for (row, time) in times.iter().enumerate() {
                let text = values.value(row);
                if text.is_empty() {
                    continue;
                }
                if text != before.0 {
                    before = (text, self.thing(place, text));
                }
                let Some(thing) = before.1 else { continue };
                if let Some(others) = others
                    && self.entries[thing as usize].other.is_empty()
                {
                    self.entries[thing as usize].other = others.value(row).to_lowercase();
                }
                let device = devices.as_ref().map_or(nothing.0, |devices| devices[row]);
                let name = names.as_ref().map_or(nothing.1, |names| names[row]);
                let seen = self.present.entry((thing, device, name)).or_insert((*time, *time, 0));
                *seen = (seen.0.min(*time), seen.1.max(*time), seen.2 + 1);
            }
        }
    }

    /// The number of the thing that a text names.
    fn thing(&mut self, source: usize, text: &str) -> Option<u32> {
        if let Some(known) = self.spellings[source].get(text) {
            return *known;
        }
        let thing = self.sources[source].thing(text).map(|thing| self.number(&thing));
        let spellings = &mut self.spellings[source];
        if spellings.len() >= SPELLINGS {
            spellings.clear();
        }
        spellings.insert(text.to_owned(), thing);
        thing
    }

    fn number(&mut self, thing: &Thing) -> u32 {
        let next = self.entries.len() as u32;
        let key = thing.key();
        let number = *self.things.entry(key.clone()).or_insert(next);
        if number == next {
            self.entries.push(Entry::new(key));
        }
        number
    }

    fn end_hour(&mut self) {
        let begin = self.hour.saturating_mul(HOUR);
        for ((thing, device, name), (first, last, times)) in self.present.drain() {
            let entry = &mut self.entries[thing as usize];
            let hours = self.hour.wrapping_sub(entry.hour);
            entry.hour = self.hour;
            let numbers = [
                hours.cast_unsigned(),
                u64::from(device),
                u64::from(name),
                first.wrapping_sub(begin).cast_unsigned(),
                last.wrapping_sub(first).cast_unsigned(),
                times,
            ];
            numbers.iter().for_each(|number| put_number(&mut entry.sightings, *number));
        }
    }

    /// Writes the summary, durable under its name when this returns.
    pub fn write(mut self, path: &Path) -> Result<(), LakeError> {
        self.end_hour();
        write(path, self.entries, &self.devices, &self.names)
    }
}
