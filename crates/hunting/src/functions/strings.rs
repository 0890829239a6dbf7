//! Functions over text.

use super::{Cell, RowFunction, convert, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use regex::Regex;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::HashMap;
use vigie_kql::literals::json_string;
use vigie_kql::types::Type;

/// Compiled expressions that a thread keeps.
const KEPT_REGEXES: usize = 64;

pub fn find(name: &str) -> Option<RowFunction> {
    Some(match name {
        "strcat" => |call, cells| {
            let mut out = String::new();
            for (cell, ty) in cells.iter().zip(&call.arguments) {
                match (ty, cell) {
                    (Type::String, Cell::Text(text)) => out.push_str(text),
                    _ => out.push_str(&convert::text(*ty, cell)),
                }
            }
            Cell::text(out)
        },
        "strcat_delim" => |call, cells| {
            let texts =
                cells.iter().zip(&call.arguments).skip(1).map(|(c, t)| convert::text(*t, c));
            Cell::text(texts.collect::<Vec<_>>().join(cells[0].as_text()))
        },
        "tolower" => {
            |call, cells| Cell::text(convert::text(call.arguments[0], &cells[0]).to_lowercase())
        }
        "toupper" => {
            |call, cells| Cell::text(convert::text(call.arguments[0], &cells[0]).to_uppercase())
        }
        "strlen" => |call, cells| {
            Cell::Long(convert::text(call.arguments[0], &cells[0]).chars().count() as i64)
        },
        "string_size" => |_, cells| Cell::Long(cells[0].as_text().len() as i64),
        "reverse" => |call, cells| {
            Cell::text(
                convert::text(call.arguments[0], &cells[0]).chars().rev().collect::<String>(),
            )
        },
        "strrep" => |call, cells| {
            let part = convert::text(call.arguments[0], &cells[0]);
            let count = cells[1].as_long().unwrap_or(0).clamp(0, 1024) as usize;
            let delimiter = cells.get(2).map_or("", Cell::as_text);
            Cell::text(vec![part; count].join(delimiter))
        },
        "strcmp" => |_, cells| Cell::Long(cells[0].as_text().cmp(cells[1].as_text()) as i64),
        "substring" => |call, cells| {
            let source = convert::text(call.arguments[0], &cells[0]);
            let length = source.chars().count() as i64;
            let start = cells[1].as_long().unwrap_or(0);
            let start = if start < 0 { (length + start).max(0) } else { start.min(length) };
            let count = cells.get(2).and_then(Cell::as_long).unwrap_or(i64::MAX).max(0);
            Cell::text(source.chars().skip(start as usize).take(count as usize).collect::<String>())
        },
        "split" => |call, cells| {
            let source = convert::text(call.arguments[0], &cells[0]);
            let delimiter = cells[1].as_text();
            let parts: Vec<&str> = match delimiter {
                "" => vec![&source],
                delimiter => source.split(delimiter).collect(),
            };
            match cells.get(2).and_then(Cell::as_long) {
                Some(at) => match usize::try_from(at).ok().and_then(|at| parts.get(at)) {
                    Some(part) => Cell::text(array(&[part])),
                    None => Cell::text("[\"\"]"),
                },
                None => Cell::text(array(&parts)),
            }
        },
        "indexof" => |call, cells| {
            let wanted = convert::text(call.arguments[1], &cells[1]);
            place(call, cells, |text, from| {
                text[from..].find(&wanted).map(|at| (from + at, from + at + wanted.len().max(1)))
            })
        },
        "indexof_regex" => |call, cells| {
            let mut at = Cell::Null;
            with_regex(&convert::text(call.arguments[1], &cells[1]), |regex| {
                at = place(call, cells, |text, from| {
                    regex.find_at(text, from).map(|found| (found.start(), found.end()))
                });
                Cell::Null
            });
            at.into_owned()
        },
        "has_any_index" => |call, cells| {
            let text = convert::text(call.arguments[0], &cells[0]);
            let Some(wanted) = super::dynamic::element_texts(cells[1].as_text()) else {
                return Cell::Long(-1);
            };
            let found = wanted.iter().position(|wanted| text::has(&text, wanted));
            Cell::Long(found.map_or(-1, |at| at as i64))
        },
        "countof" => |_, cells| {
            let (source, wanted) = (cells[0].as_text(), cells[1].as_text());
            if cells.get(2).is_some_and(|kind| kind.as_text() == "regex") {
                return with_regex(wanted, |regex| {
                    Cell::Long(regex.find_iter(source).count() as i64)
                });
            }
            if wanted.is_empty() {
                return Cell::Long(0);
            }
            let places = source.char_indices().filter(|(at, _)| source[*at..].starts_with(wanted));
            Cell::Long(places.count() as i64)
        },
        "replace_strings" => |_, cells| {
            let list = |cell: &Cell<'_>| -> Option<Vec<serde_json::Value>> {
                serde_json::from_str(cell.as_text()).ok()
            };
            let Some((wanted, new)) = list(&cells[1]).zip(list(&cells[2])) else {
                return cells[0].clone();
            };
            // All at once, from the left: what was put in is not looked at again, and a text with
            // no text to put in stays as it is.
            let source = cells[0].as_text();
            let mut text = String::with_capacity(source.len());
            let mut at = 0;
            while let Some(next) = source[at..].chars().next() {
                let found = wanted.iter().zip(&new).find_map(|(wanted, new)| {
                    let wanted = wanted.as_str().filter(|w| !w.is_empty())?;
                    source[at..].starts_with(wanted).then_some((wanted, new.as_str()))
                });
                let (taken, put) = match found {
                    Some((wanted, new)) => (wanted.len(), new.unwrap_or(wanted)),
                    None => (next.len_utf8(), &source[at..at + next.len_utf8()]),
                };
                text.push_str(put);
                at += taken;
            }
            Cell::text(text)
        },
        "replace_string" => |_, cells| {
            let (source, wanted, new) =
                (cells[0].as_text(), cells[1].as_text(), cells[2].as_text());
            Cell::text(if wanted.is_empty() {
                source.to_owned()
            } else {
                source.replace(wanted, new)
            })
        },
        "replace_regex" => |_, cells| replaced(&cells[0], &cells[1], &cells[2]),
        // The older function has another order: what to find, what to put, where.
        "replace" => |_, cells| replaced(&cells[2], &cells[0], &cells[1]),
        "trim" => |_, cells| trimmed(cells, true, true),
        "trim_start" => |_, cells| trimmed(cells, true, false),
        "trim_end" => |_, cells| trimmed(cells, false, true),
        "extract" => |_, cells| {
            let group = cells[1].as_long().and_then(|group| usize::try_from(group).ok());
            with_regex(cells[0].as_text(), |regex| {
                let found = regex.captures(cells[2].as_text());
                let found = found
                    .zip(group)
                    .and_then(|(found, group)| found.get(group).map(|m| m.as_str().to_owned()));
                Cell::text(found.unwrap_or_default())
            })
        },
        "extract_all" => |_, cells| {
            with_regex(cells[0].as_text(), |regex| {
                let source = cells[cells.len() - 1].as_text();
                let groups = regex.captures_len();
                let texts: Vec<String> = (regex.captures_iter(source))
                    .map(|found| {
                        let group = |at: usize| found.get(at).map_or("", |m| m.as_str());
                        match groups {
                            1 => quoted(group(0)),
                            2 => quoted(group(1)),
                            _ => array(&(1..groups).map(group).collect::<Vec<_>>()),
                        }
                    })
                    .collect();
                if texts.is_empty() {
                    Cell::Null
                } else {
                    Cell::text(format!("[{}]", texts.join(",")))
                }
            })
        },
        "isempty" => |_, cells| Cell::Bool(is_empty(&cells[0])),
        "isnotempty" => |_, cells| Cell::Bool(!is_empty(&cells[0])),
        "coalesce" => |call, cells| {
            let filled = |cell: &&Cell<'_>| match cell {
                Cell::Null => false,
                Cell::Text(text) => call.result != Type::String || !text.is_empty(),
                _ => true,
            };
            cells.iter().find(filled).cloned().unwrap_or(Cell::Null)
        },
        "base64_encode_tostring" => |_, cells| Cell::text(STANDARD.encode(cells[0].as_text())),
        "base64_decode_tostring" => |_, cells| {
            let decoded = STANDARD.decode(cells[0].as_text().trim()).ok();
            Cell::text(decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default())
        },
        "hash_md5" => |call, cells| hash::<Md5>(call.arguments[0], &cells[0]),
        "hash_sha1" => |call, cells| hash::<Sha1>(call.arguments[0], &cells[0]),
        "hash_sha256" => |call, cells| hash::<Sha256>(call.arguments[0], &cells[0]),
        "url_decode" => |_, cells| {
            let plain = cells[0].as_text().replace('+', " ");
            Cell::text(
                percent_encoding::percent_decode_str(&plain).decode_utf8_lossy().into_owned(),
            )
        },
        "tohex" => |_, cells| match cells[0].as_long() {
            Some(value) => {
                let width = cells.get(1).and_then(Cell::as_long).unwrap_or(0).clamp(0, 64) as usize;
                Cell::text(format!("{value:0>width$x}"))
            }
            None => Cell::text(""),
        },
        "new_guid" => |_, _| Cell::text(uuid::Uuid::new_v4().to_string()),
        _ => return None,
    })
}

/// The place, in characters, of an occurrence between `start` and `length`: arguments 2, 3 and 4.
fn place<'a>(
    call: &super::Call,
    cells: &[Cell<'_>],
    find: impl Fn(&str, usize) -> Option<(usize, usize)>,
) -> Cell<'a> {
    let source = convert::text(call.arguments[0], &cells[0]);
    let number = |at: usize, default: i64| cells.get(at).and_then(Cell::as_long).unwrap_or(default);
    let (start, length, occurrence) = (number(2, 0), number(3, -1), number(4, 1));
    if start < 0 || length < -1 || occurrence < 1 {
        return Cell::Null;
    }
    let byte = |character: i64| {
        let at = source.char_indices().nth(usize::try_from(character).unwrap_or(usize::MAX));
        at.map_or(source.len(), |(at, _)| at)
    };
    let end = if length < 0 { source.len() } else { byte(start.saturating_add(length)) };
    let mut from = byte(start);
    for remaining in (0..occurrence).rev() {
        let Some((at, next)) = find(&source[..end], from) else { return Cell::Long(-1) };
        if remaining == 0 {
            return Cell::Long(source[..at].chars().count() as i64);
        }
        from = next.max(at + 1);
        while from < end && !source.is_char_boundary(from) {
            from += 1;
        }
        if from > end {
            return Cell::Long(-1);
        }
    }
    Cell::Long(-1)
}

fn is_empty(cell: &Cell<'_>) -> bool {
    match cell {
        Cell::Null => true,
        Cell::Text(text) => text.is_empty() || text == "\"\"",
        _ => false,
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::new();
    json_string(&mut out, text);
    out
}

fn array(parts: &[&str]) -> String {
    format!("[{}]", parts.iter().map(|part| quoted(part)).collect::<Vec<_>>().join(","))
}

fn hash<'a, D: Digest>(ty: Type, cell: &Cell<'_>) -> Cell<'a> {
    let text = convert::text(ty, cell);
    if text.is_empty() {
        return Cell::text("");
    }
    Cell::text(D::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn replaced<'a>(source: &Cell<'a>, pattern: &Cell, new: &Cell) -> Cell<'a> {
    let new = rewrite(new.as_text());
    with_regex(pattern.as_text(), |regex| {
        Cell::text(regex.replace_all(source.as_text(), new.as_str()).into_owned())
    })
}

/// RE2's `\1` in the crate's `${1}`.
fn rewrite(new: &str) -> String {
    let mut out = String::new();
    let mut characters = new.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some(digit)) if digit.is_ascii_digit() => {
                out.push_str(&format!("${{{digit}}}"));
                characters.next();
            }
            ('\\', Some('\\')) => {
                out.push('\\');
                characters.next();
            }
            ('$', _) => out.push_str("$$"),
            (other, _) => out.push(other),
        }
    }
    out
}

fn trimmed<'a>(cells: &[Cell<'a>], start: bool, end: bool) -> Cell<'a> {
    let source = cells[1].as_text();
    let pattern = cells[0].as_text();
    let mut from = 0;
    let mut to = source.len();
    if start {
        with_regex(&format!("^(?:{pattern})"), |regex| {
            from = regex.find(source).map_or(0, |found| found.end());
            Cell::Null
        });
    }
    if end {
        with_regex(&format!("(?:{pattern})$"), |regex| {
            to = regex.find_at(source, from).map_or(to, |found| found.start());
            Cell::Null
        });
    }
    Cell::text(source[from..to.max(from)].to_owned())
}

thread_local! {
    static REGEXES: RefCell<HashMap<String, Option<Regex>>> = RefCell::new(HashMap::new());
}

/// Null where the pattern is no expression.
fn with_regex<'a>(pattern: &str, work: impl FnOnce(&Regex) -> Cell<'a>) -> Cell<'a> {
    let regex = REGEXES.with_borrow_mut(|kept| {
        if kept.len() >= KEPT_REGEXES && !kept.contains_key(pattern) {
            kept.clear();
        }
        kept.entry(pattern.to_owned()).or_insert_with(|| text::regex(pattern).ok()).clone()
    });
    regex.map_or(Cell::Null, |regex| work(&regex))
}
