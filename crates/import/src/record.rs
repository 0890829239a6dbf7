//! One file or archive member → events, whatever its form.

use crate::rows::Maker;
use crate::{FileReport, Options, Row, Sink, audit, columnar, event, exported};
use event::Event;
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::io::{BufRead, Read};

/// Longest line that is read; a longer one is reported and skipped.
const LONGEST_LINE: u64 = 32 << 20;
/// Largest EVTX or Parquet file; both are read from memory.
const LARGEST_BINARY: u64 = 4 << 30;
/// Name of the source in reports of unmapped audit events.
const AUDIT: &str = "audit";

/// Reads everything in `reader`; an `Err` is the sink's refusal.
pub fn read(
    reader: &mut dyn BufRead,
    options: &Options,
    maker: &mut Maker,
    report: &mut FileReport,
    sink: &mut Sink<'_>,
) -> Result<(), String> {
    let mut file = Reading { options, maker, report, sink };
    let start = match reader.fill_buf() {
        Ok(start) => start,
        Err(error) => {
            file.report.bad(0, error.to_string());
            return Ok(());
        }
    };
    if start.starts_with(b"ElfFile\0") {
        return file.evtx(reader);
    }
    if start.starts_with(columnar::MAGIC) {
        return file.parquet(reader);
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    if text.trim_ascii_start().starts_with(b"[") {
        return file.json_array(reader);
    }
    file.lines(reader)
}

/// A file being read.
struct Reading<'a, 'b, 's> {
    options: &'a Options,
    maker: &'a mut Maker,
    report: &'a mut FileReport,
    sink: &'b mut Sink<'s>,
}

impl Reading<'_, '_, '_> {
    fn lines(&mut self, reader: &mut dyn BufRead) -> Result<(), String> {
        let mut group = audit::Group::default();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            match reader.take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    self.report.bad(number, error.to_string());
                    break;
                }
            }
            if line.len() as u64 == LONGEST_LINE && line.last() != Some(&b'\n') {
                self.report.bad(number, format!("longer than {} MB", LONGEST_LINE >> 20));
                if let Err(error) = reader.skip_until(b'\n') {
                    self.report.bad(number, error.to_string());
                    break;
                }
                continue;
            }
            self.line(&line, number, &mut group)?;
        }
        match group.rest() {
            Some(last) => self.audit_event(&last, 0),
            None => Ok(()),
        }
    }

    fn line(&mut self, line: &[u8], number: u64, group: &mut audit::Group) -> Result<(), String> {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() {
            return Ok(());
        }
        if line.starts_with('{') {
            return match serde_json::from_str(line) {
                Ok(object) => self.object(object, number),
                Err(error) => self.bad(number, format!("bad JSON: {error}")),
            };
        }
        if let Some(start) = line.find("<Event>").or_else(|| line.find("<Event ")) {
            return self.event(event::from_xml(&line[start..]), number);
        }
        if audit::is_record(line) {
            return match group.take(line) {
                Ok(Some(finished)) => self.audit_event(&finished, number),
                Ok(None) => Ok(()),
                Err(reason) => self.bad(number, reason),
            };
        }
        self.bad(number, "neither JSON, an event in XML nor an audit record".to_owned())
    }

    /// Streams the array's objects; an error inside ends the file, for JSON has no way to go on.
    fn json_array(&mut self, reader: &mut dyn BufRead) -> Result<(), String> {
        let mut refused = None;
        let mut deserializer = serde_json::Deserializer::from_reader(reader);
        let outcome = deserializer.deserialize_seq(Objects { file: self, refused: &mut refused });
        if let Some(reason) = refused {
            return Err(reason);
        }
        match outcome {
            Ok(()) => Ok(()),
            Err(error) => self.bad(error.line() as u64, format!("bad JSON: {error}")),
        }
    }

    fn evtx(&mut self, reader: &mut dyn BufRead) -> Result<(), String> {
        let mut bytes = Vec::new();
        if let Err(error) = reader.take(LARGEST_BINARY).read_to_end(&mut bytes) {
            return self.bad(0, error.to_string());
        }
        let mut parser = match evtx::EvtxParser::from_buffer(bytes) {
            Ok(parser) => parser,
            Err(error) => return self.bad(0, format!("bad EVTX: {error}")),
        };
        for (record, number) in parser.records_json_value().zip(1..) {
            match record.map(|record| record.data) {
                Ok(Value::Object(object)) => self.object(object, number)?,
                Ok(_) => self.bad(number, "bad EVTX: a record is no object".to_owned())?,
                Err(error) => self.bad(number, format!("bad EVTX: {error}"))?,
            }
        }
        Ok(())
    }

    fn parquet(&mut self, reader: &mut dyn BufRead) -> Result<(), String> {
        let mut bytes = Vec::new();
        if let Err(error) = reader.take(LARGEST_BINARY).read_to_end(&mut bytes) {
            return self.bad(0, error.to_string());
        }
        let batches = match columnar::rows(bytes) {
            Ok(batches) => batches,
            Err(error) => return self.bad(0, format!("bad Parquet: {error}")),
        };
        let mut number = 0;
        for batch in batches {
            match batch {
                Ok(objects) => {
                    for object in objects {
                        number += 1;
                        self.exported(&object, number)?;
                    }
                }
                Err(error) => self.bad(number, format!("bad Parquet: {error}"))?,
            }
        }
        Ok(())
    }

    fn exported(&mut self, object: &Map<String, Value>, number: u64) -> Result<(), String> {
        match exported::row(object, &self.report.name, self.maker) {
            Ok(row) => {
                self.report.events += 1;
                self.row(row)
            }
            Err(reason) => self.bad(number, reason),
        }
    }

    fn object(&mut self, mut object: Map<String, Value>, number: u64) -> Result<(), String> {
        // Syslog rows of a log workspace, with Sysmon's XML as the message.
        if let Some(Value::String(message)) = object.get("SyslogMessage")
            && let Some(start) = message.find("<Event")
        {
            return self.event(event::from_xml(&message[start..]), number);
        }
        if exported::is_row(&object) {
            return self.exported(&object, number);
        }
        // Collections of samples put the event in a field of its own.
        if let Some(Value::Object(inner)) = object.get_mut("event") {
            object = std::mem::take(inner);
        }
        let event = event::from_json(object);
        self.event(event.ok_or_else(|| "no event: EventID, Channel or time missing".into()), number)
    }

    fn event(&mut self, event: Result<Event, String>, number: u64) -> Result<(), String> {
        let mut event = match event {
            Ok(event) => event,
            Err(reason) => return self.bad(number, reason),
        };
        if let Some(name) = self.options.device_name.as_ref().filter(|_| event.device.is_empty()) {
            event.device.clone_from(name);
        }
        match self.maker.event(&event) {
            Ok(Some(row)) => {
                self.report.events += 1;
                self.row(row)
            }
            Ok(None) => {
                self.report.events += 1;
                *self.report.unmapped.entry((event.source, event.id)).or_default() += 1;
                Ok(())
            }
            Err(reason) => self.bad(number, reason),
        }
    }

    fn audit_event(&mut self, group: &audit::Group, number: u64) -> Result<(), String> {
        let device = self.options.device_name.as_deref().unwrap_or("localhost");
        match group.rows(device, self.maker) {
            Ok(rows) => {
                self.report.events += 1;
                if rows.is_empty() {
                    let key = (AUDIT.to_owned(), group.id());
                    *self.report.unmapped.entry(key).or_default() += 1;
                }
                rows.into_iter().try_for_each(|row| self.row(row))
            }
            Err(reason) => self.bad(number, reason),
        }
    }

    fn row(&mut self, row: Row) -> Result<(), String> {
        *self.report.rows.entry(row.table).or_default() += 1;
        (self.sink)(row)
    }

    fn bad(&mut self, number: u64, reason: String) -> Result<(), String> {
        self.report.bad(number, reason);
        Ok(())
    }
}

/// Hands the elements of a JSON array on as they are read.
struct Objects<'f, 'a, 'b, 's> {
    file: &'f mut Reading<'a, 'b, 's>,
    refused: &'f mut Option<String>,
}

impl<'de> Visitor<'de> for Objects<'_, '_, '_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        for number in 1.. {
            match elements.next_element_seed(Element)? {
                Some(Value::Object(object)) => {
                    if let Err(reason) = self.file.object(object, number) {
                        *self.refused = Some(reason);
                        return Err(serde::de::Error::custom("the receiver refused"));
                    }
                }
                Some(_) => self.file.report.bad(number, "no object".to_owned()),
                None => break,
            }
        }
        Ok(())
    }
}

struct Element;

impl<'de> DeserializeSeed<'de> for Element {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        serde::Deserialize::deserialize(deserializer)
    }
}
