//! Texts with a structure of their own: paths, command lines, CSV, XML, versions, user agents.

use super::dynamic::write;
use super::{Cell, RowFunction, convert};
use serde_json::{Map, Value, json};

pub fn find(name: &str) -> Option<RowFunction> {
    Some(match name {
        "parse_path" => |_, cells| write(path_parts(cells[0].as_text())),
        "parse_command_line" => |call, cells| {
            let line = convert::text(call.arguments[0], &cells[0]);
            match cells[1].as_text() {
                "windows" | "Windows" => write(windows_arguments(&line).into()),
                _ => Cell::Null,
            }
        },
        "parse_csv" => |call, cells| {
            let text = convert::text(call.arguments[0], &cells[0]);
            let mut reader = csv::ReaderBuilder::new()
                .has_headers(false)
                .flexible(true)
                .from_reader(text.as_bytes());
            let record = reader.records().next().and_then(Result::ok);
            let fields = record.iter().flat_map(|record| record.iter().map(Value::from));
            let fields: Vec<Value> = fields.collect();
            write(if fields.is_empty() { vec![Value::from("")] } else { fields }.into())
        },
        "parse_xml" => |call, cells| match xml::value(&convert::text(call.arguments[0], &cells[0]))
        {
            Some(value) => write(value),
            None => Cell::Null,
        },
        "parse_urlquery" => |_, cells| {
            let parameters = super::network::query_parameters(cells[0].as_text());
            write(json!({ "Query Parameters": parameters }))
        },
        "parse_user_agent" => |call, cells| {
            let wanted = match cells.get(1) {
                Some(cell) => match super::dynamic::value_of(call.arguments[1], cell) {
                    Value::Array(list) => {
                        list.iter().filter_map(Value::as_str).map(String::from).collect()
                    }
                    Value::String(one) => vec![one],
                    _ => Vec::new(),
                },
                None => ["browser", "os", "device"].map(String::from).to_vec(),
            };
            write(user_agent(cells[0].as_text(), &wanted))
        },
        "format_ipv4" => |call, cells| {
            let formatted = super::network::formatted(call, cells);
            Cell::text(formatted.map(|(address, _)| address.to_string()).unwrap_or_default())
        },
        "format_ipv4_mask" => |call, cells| {
            let formatted = super::network::formatted(call, cells);
            Cell::text(formatted.map(|(a, bits)| format!("{a}/{bits}")).unwrap_or_default())
        },
        _ => return None,
    })
}

/// `C:\a\b.txt:stream` and `/a/b.txt` taken apart.
fn path_parts(path: &str) -> Value {
    let (scheme, rest) = path.split_once("://").unwrap_or(("", path));
    let start = rest.rfind(['\\', '/']).map_or(0, |at| at + 1);
    let (rest, stream) = match rest[start..].find(':').filter(|at| start + at > 1) {
        Some(at) => (&rest[..start + at], &rest[start + at + 1..]),
        None => (rest, ""),
    };
    let (directory, file) = match rest.rfind(['\\', '/']) {
        Some(0) => ("", &rest[1..]),
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => ("", rest),
    };
    let root = match rest.as_bytes() {
        [drive, b':', ..] if drive.is_ascii_alphabetic() => &rest[..2],
        _ => "",
    };
    let name = directory.rsplit(['\\', '/']).next().unwrap_or_default();
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    json!({
        "Scheme": scheme, "RootPath": root, "DirectoryPath": directory, "DirectoryName": name,
        "Filename": file, "Extension": extension, "AlternateDataStreamName": stream,
    })
}

/// The rules of `CommandLineToArgvW`.
fn windows_arguments(line: &str) -> Vec<Value> {
    let mut arguments = Vec::new();
    let mut current = String::new();
    let (mut quoted, mut began) = (false, false);
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' => {
                let mut count = 1;
                while characters.next_if_eq(&'\\').is_some() {
                    count += 1;
                }
                began = true;
                if characters.peek() == Some(&'"') {
                    current.extend(std::iter::repeat_n('\\', count / 2));
                    if count % 2 == 1 {
                        current.push('"');
                        characters.next();
                    }
                } else {
                    current.extend(std::iter::repeat_n('\\', count));
                }
            }
            '"' if quoted && characters.peek() == Some(&'"') => {
                current.push('"');
                characters.next();
            }
            '"' => {
                quoted = !quoted;
                began = true;
            }
            c if c.is_whitespace() && !quoted => {
                if began {
                    arguments.push(Value::from(std::mem::take(&mut current)));
                    began = false;
                }
            }
            c => {
                current.push(c);
                began = true;
            }
        }
    }
    if began {
        arguments.push(Value::from(current));
    }
    arguments
}

mod xml {
    use super::{Map, Value};
    use quick_xml::Reader;
    use quick_xml::events::{BytesStart, Event};

    /// Deepest nesting that is read.
    const DEEPEST: usize = 128;

    /// Elements as bags: attributes as `@name`, text as `#text`, repeated elements as arrays.
    pub fn value(text: &str) -> Option<Value> {
        let mut reader = Reader::from_str(text.trim());
        let mut open: Vec<(String, Map<String, Value>, String)> = Vec::new();
        let mut root = Map::new();
        loop {
            match reader.read_event().ok()? {
                Event::Start(start) => {
                    if open.len() >= DEEPEST {
                        return None;
                    }
                    open.push((name(&start), attributes(&start)?, String::new()));
                }
                Event::Empty(start) => {
                    let element = finished(attributes(&start)?, "");
                    add(
                        open.last_mut().map_or(&mut root, |(_, bag, _)| bag),
                        name(&start),
                        element,
                    );
                }
                Event::Text(part) => {
                    if let Some((.., text)) = open.last_mut() {
                        text.push_str(&part.xml10_content());
                    }
                }
                Event::GeneralRef(reference) => {
                    let character = match reference.resolve_char_ref().ok()? {
                        Some(character) => character.to_string(),
                        None => {
                            quick_xml::escape::resolve_predefined_entity(&reference)?.to_owned()
                        }
                    };
                    if let Some((.., text)) = open.last_mut() {
                        text.push_str(&character);
                    }
                }
                Event::CData(part) => {
                    if let Some((.., text)) = open.last_mut() {
                        text.push_str(&part);
                    }
                }
                Event::End(_) => {
                    let (name, bag, text) = open.pop()?;
                    let element = finished(bag, text.trim());
                    add(open.last_mut().map_or(&mut root, |(_, bag, _)| bag), name, element);
                }
                Event::Eof => break,
                _ => {}
            }
        }
        (open.is_empty() && !root.is_empty()).then_some(Value::Object(root))
    }

    fn name(start: &BytesStart<'_>) -> String {
        start.name().0.to_owned()
    }

    fn attributes(start: &BytesStart<'_>) -> Option<Map<String, Value>> {
        let mut bag = Map::new();
        for attribute in start.attributes() {
            let attribute = attribute.ok()?;
            let name = format!("@{}", attribute.key.0);
            let value = quick_xml::escape::unescape(&attribute.value).ok()?.into_owned();
            bag.insert(name, value.into());
        }
        Some(bag)
    }

    fn finished(mut bag: Map<String, Value>, text: &str) -> Value {
        if bag.is_empty() {
            return text.into();
        }
        if !text.is_empty() {
            bag.insert("#text".to_owned(), text.into());
        }
        Value::Object(bag)
    }

    fn add(bag: &mut Map<String, Value>, name: String, element: Value) {
        match bag.get_mut(&name) {
            Some(Value::Array(array)) => array.push(element),
            Some(other) => *other = Value::Array(vec![other.take(), element]),
            None => drop(bag.insert(name, element)),
        }
    }
}

/// Products that tell their version behind a slash, the more particular ones first.
const BROWSERS: &[(&str, &str)] = &[
    ("AdobeAIR/", "AdobeAIR"),
    ("Edg/", "Edge"),
    ("Edge/", "Edge"),
    ("OPR/", "Opera"),
    ("Opera/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("CriOS/", "Chrome Mobile iOS"),
    ("FxiOS/", "Firefox iOS"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("MSIE ", "IE"),
    ("curl/", "curl"),
    ("Wget/", "Wget"),
    ("python-requests/", "Python Requests"),
    ("PowerShell/", "PowerShell"),
];

/// Family and version of browser and system, as far as the text names them.
fn user_agent(text: &str, wanted: &[String]) -> Value {
    let version = |at: usize| -> Vec<String> {
        let end = text[at..].find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_');
        let number = &text[at..end.map_or(text.len(), |end| at + end)];
        number.split(['.', '_']).filter(|part| !part.is_empty()).map(String::from).collect()
    };
    let behind = |mark: &str| text.find(mark).map(|at| version(at + mark.len()));
    let mut result = Map::new();
    for part in wanted {
        match part.as_str() {
            "browser" => {
                let found = BROWSERS.iter().find_map(|(mark, name)| Some((*name, behind(mark)?)));
                let found = found.or_else(|| match text.contains("Trident/") {
                    true => Some(("IE", behind("rv:")?)),
                    false => None,
                });
                let found = found.or_else(|| match text.contains("Safari/") {
                    true => Some(("Safari", behind("Version/")?)),
                    false => None,
                });
                let (name, version) = found.unwrap_or(("Other", Vec::new()));
                let number = |at: usize| version.get(at).cloned().unwrap_or_default();
                result.insert(
                    "Browser".to_owned(),
                    json!({
                        "Family": name, "MajorVersion": number(0), "MinorVersion": number(1),
                        "Patch": number(2),
                    }),
                );
            }
            "os" => {
                let (name, version) = system(text, &behind);
                let number = |at: usize| version.get(at).cloned().unwrap_or_default();
                result.insert(
                    "OperatingSystem".to_owned(),
                    json!({
                        "Family": name, "MajorVersion": number(0), "MinorVersion": number(1),
                        "Patch": number(2), "PatchMinor": number(3),
                    }),
                );
            }
            "device" => {
                let (family, brand, model) = if text.contains("iPhone") {
                    ("iPhone", "Apple", "iPhone")
                } else if text.contains("iPad") {
                    ("iPad", "Apple", "iPad")
                } else if text.contains("Macintosh") {
                    ("Mac", "Apple", "Mac")
                } else {
                    ("Other", "", "")
                };
                let device = json!({ "Family": family, "Brand": brand, "Model": model });
                result.insert("Device".to_owned(), device);
            }
            _ => {}
        }
    }
    Value::Object(result)
}

fn system<'t>(
    text: &'t str,
    behind: &impl Fn(&str) -> Option<Vec<String>>,
) -> (&'t str, Vec<String>) {
    if let Some(version) = behind("Windows NT ") {
        let name = match version.join(".").as_str() {
            "10.0" => vec!["10".to_owned()],
            "6.3" => vec!["8".to_owned(), "1".to_owned()],
            "6.2" => vec!["8".to_owned()],
            "6.1" => vec!["7".to_owned()],
            _ => version,
        };
        return ("Windows", name);
    }
    let known = [
        ("iPhone OS ", "iOS"),
        ("CPU OS ", "iOS"),
        ("Android ", "Android"),
        ("Mac OS X ", "Mac OS X"),
        ("CrOS ", "Chrome OS"),
    ];
    for (mark, name) in known {
        if let Some(version) = behind(mark) {
            return (name, version);
        }
    }
    match text {
        text if text.contains("Windows") => ("Windows", Vec::new()),
        text if text.contains("Linux") => ("Linux", Vec::new()),
        _ => ("Other", Vec::new()),
    }
}
