//! A Windows or Sysmon event, whatever form it was written in.

use quick_xml::Reader;
use quick_xml::events::Event as Xml;
use serde_json::{Map, Value};

/// The mapping's names of logs that several channels carry.
const SYSMON: &str = "sysmon";
const SECURITY: &str = "security";

/// One event with its fields by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// `sysmon`, `security` or the channel's name.
    pub source: String,
    pub id: String,
    /// Name of the device.
    pub device: String,
    /// As written, from the most exact field that the form has.
    pub time: String,
    pub fields: Map<String, Value>,
}

impl Event {
    /// A field as text; numbers as written; "" where absent or `-`.
    pub fn text(&self, name: &str) -> &str {
        match self.fields.get(name) {
            Some(Value::String(text)) if text != "-" => text,
            _ => "",
        }
    }
}

/// From a flat object (`EventID`, `Channel`, `Hostname` and the event's data side by side).
fn from_flat(mut object: Map<String, Value>) -> Option<Event> {
    let id = scalar(object.get("EventID")?)?;
    let channel = text(&object, "Channel").or_else(|| text(&object, "SourceName"))?;
    let device = ["Hostname", "Computer", "ComputerName", "host"]
        .iter()
        .find_map(|name| text(&object, name))
        .unwrap_or_default();
    let source = source(&channel);
    // Sysmon's own time is when the event happened; the others are when it was logged or received.
    let own = if source == SYSMON { text(&object, "UtcTime") } else { None };
    let time = own.or_else(|| {
        ["TimeCreated", "@timestamp", "EventTime"].iter().find_map(|n| text(&object, n))
    });
    // Shipper's words for severity hide Sysmon's field of the same name, which `Message` still has.
    if source == SYSMON {
        restore_event_type(&mut object);
    }
    for value in object.values_mut() {
        normalise(value);
    }
    Some(Event { source, id, device, time: time?, fields: object })
}

/// Some shippers overwrite `EventType` (`INFO`); the message text keeps the original.
fn restore_event_type(object: &mut Map<String, Value>) {
    let message = object.get("Message").and_then(Value::as_str).unwrap_or_default();
    let line = message.lines().find_map(|line| line.strip_prefix("EventType: "));
    if let Some(event_type) = line.map(str::trim).map(str::to_owned) {
        object.insert("EventType".to_owned(), event_type.into());
    }
}

/// From `{"Event":{"System":{…},"EventData":{…}}}`, the form that EVTX parsers give.
fn from_nested(event: &Map<String, Value>) -> Option<Event> {
    let system = event.get("System")?.as_object()?;
    let id = match system.get("EventID")? {
        Value::Object(with_attributes) => scalar(with_attributes.get("#text")?)?,
        id => scalar(id)?,
    };
    let channel = text(system, "Channel").unwrap_or_default();
    let created = system.get("TimeCreated").map(|time| match time {
        Value::Object(time) => match time.get("#attributes").and_then(Value::as_object) {
            Some(attributes) => text(attributes, "SystemTime"),
            None => text(time, "SystemTime"),
        },
        time => time.as_str().map(str::to_owned),
    });
    let mut fields = Map::new();
    for name in ["EventData", "UserData"] {
        if let Some(Value::Object(data)) = event.get(name) {
            flatten(data, &mut fields);
        }
    }
    let source = source(&channel);
    let own = if source == SYSMON { text(&fields, "UtcTime") } else { None };
    Some(Event {
        source,
        id,
        device: text(system, "Computer").unwrap_or_default(),
        time: own.or(created.flatten())?,
        fields,
    })
}

/// `UserData` has one more level; names of the inner level are the fields.
fn flatten(data: &Map<String, Value>, fields: &mut Map<String, Value>) {
    for (name, value) in data {
        match value {
            Value::Object(inner) if !name.starts_with('#') => flatten(inner, fields),
            _ => {
                let mut value = value.clone();
                normalise(&mut value);
                fields.insert(name.clone(), value);
            }
        }
    }
}

/// From a JSON object of either form, `None` where it is no event.
pub fn from_json(mut object: Map<String, Value>) -> Option<Event> {
    match object.remove("Event") {
        Some(Value::Object(event)) => from_nested(&event),
        Some(other) => {
            object.insert("Event".to_owned(), other);
            from_flat(object)
        }
        None => from_flat(object),
    }
}

/// From the XML form, as Sysmon for Linux writes it to syslog.
pub fn from_xml(xml: &str) -> Result<Event, String> {
    let mut event = Event::default();
    let mut reader = Reader::from_str(xml);
    // Sysmon for Linux writes command lines without escaping `&`.
    reader.config_mut().allow_dangling_amp = true;
    let mut channel = String::new();
    let mut system_time = String::new();
    // Name of the element or of the `Data` whose text comes next.
    let mut current = String::new();
    let mut content = String::new();
    loop {
        match reader.read_event().map_err(|error| format!("bad XML: {error}"))? {
            Xml::Start(start) => {
                current = start.local_name().as_ref().to_owned();
                if let Some(name) = attribute(&start, "Name").filter(|_| current == "Data") {
                    current = format!("Data {name}");
                }
                content.clear();
            }
            Xml::Empty(start) if start.local_name().as_ref() == "TimeCreated" => {
                system_time = attribute(&start, "SystemTime").unwrap_or_default();
            }
            Xml::Text(text) => content.push_str(&text),
            Xml::CData(text) => content.push_str(&text),
            Xml::GeneralRef(reference) => {
                match quick_xml::escape::unescape(&format!("&{};", &*reference)) {
                    Ok(text) => content.push_str(&text),
                    // No entity of XML: text that was not escaped.
                    Err(_) => content.push_str(&format!("&{};", &*reference)),
                }
            }
            Xml::End(_) => {
                let text = std::mem::take(&mut content);
                match current.as_str() {
                    "EventID" => event.id = text,
                    "Channel" => channel = text,
                    "Computer" => event.device = text,
                    name => {
                        if let Some(name) = name.strip_prefix("Data ") {
                            event.fields.insert(name.to_owned(), text.into());
                        }
                    }
                }
                current.clear();
            }
            Xml::Eof => break,
            _ => {}
        }
    }
    if event.id.is_empty() {
        return Err("no EventID in the XML event".to_owned());
    }
    event.source = source(&channel);
    event.time = text(&event.fields, "UtcTime").unwrap_or(system_time);
    Ok(event)
}

fn attribute(start: &quick_xml::events::BytesStart<'_>, name: &str) -> Option<String> {
    let value = start.try_get_attribute(name).ok()??;
    quick_xml::escape::unescape(&value.value).ok().map(|v| v.into_owned())
}

fn source(channel: &str) -> String {
    if channel.to_ascii_lowercase().contains("sysmon") {
        SYSMON.to_owned()
    } else if channel.eq_ignore_ascii_case("security") {
        SECURITY.to_owned()
    } else {
        channel.to_owned()
    }
}

/// Numbers and booleans become text, so that every form gives the same fields.
fn normalise(value: &mut Value) {
    match value {
        Value::Number(number) => *value = Value::String(number.to_string()),
        Value::Bool(flag) => *value = Value::String(flag.to_string()),
        _ => {}
    }
}

fn text(object: &Map<String, Value>, name: &str) -> Option<String> {
    match object.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}
