//! Literals: text → values.

use crate::plan_text;
use crate::types::{TICKS_PER_DAY, TICKS_PER_SECOND, Type, Value};

/// Deepest nesting of a dynamic literal.
const MAX_DEPTH: usize = 100;

/// Reads a string literal at the start of `text`: its value and length. `None` where it does not end.
pub fn string(text: &str, verbatim: bool) -> Option<(String, usize)> {
    for fence in ["```", "~~~"] {
        if let Some(inner) = text.strip_prefix(fence) {
            let end = inner.find(fence)?;
            return Some((inner[..end].to_owned(), end + 6));
        }
    }
    let quote = text.chars().next()?;
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            c if c == quote => {
                if verbatim && characters.peek().is_some_and(|(_, next)| *next == quote) {
                    characters.next();
                    value.push(quote);
                    continue;
                }
                return Some((value, at + 1));
            }
            '\\' if !verbatim => {
                let (_, escaped) = characters.next()?;
                match escaped {
                    'n' => value.push('\n'),
                    'r' => value.push('\r'),
                    't' => value.push('\t'),
                    'a' => value.push('\u{7}'),
                    'b' => value.push('\u{8}'),
                    'f' => value.push('\u{c}'),
                    'v' => value.push('\u{b}'),
                    '0'..='7' => {
                        let mut code = escaped.to_digit(8)?;
                        while let Some(digit) = characters.peek().and_then(|(_, c)| c.to_digit(8)) {
                            if code * 8 + digit > 0xff {
                                break;
                            }
                            code = code * 8 + digit;
                            characters.next();
                        }
                        value.push(char::from_u32(code)?);
                    }
                    'x' | 'u' | 'U' => {
                        let digits = match escaped {
                            'x' => 2,
                            'u' => 4,
                            _ => 8,
                        };
                        let mut code = 0;
                        for _ in 0..digits {
                            code = code * 16 + characters.next()?.1.to_digit(16)?;
                        }
                        value.push(char::from_u32(code).unwrap_or('\u{fffd}'));
                    }
                    other => value.push(other),
                }
            }
            '\n' if !verbatim => return None,
            other => value.push(other),
        }
    }
    None
}

/// Reads a number or timespan literal: length and value, or the length of what is none.
pub fn number(text: &str) -> Result<(usize, Value), usize> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let digits = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let value = u64::from_str_radix(&hex[..digits], 16).map_err(|_| digits + 2)?;
        return Ok((digits + 2, Value::Long(value as i64)));
    }
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut length = digits(0);
    let mut real = false;
    // `1..5` is a range, `1.5` a number, `1.` too.
    if bytes.get(length) == Some(&b'.') && bytes.get(length + 1).is_some_and(u8::is_ascii_digit) {
        length += 1 + digits(length + 1);
        real = true;
    } else if bytes.get(length) == Some(&b'.')
        && bytes.get(length + 1).is_none_or(|next| next.is_ascii_whitespace() || *next == b')')
    {
        length += 1;
        real = true;
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
            real = true;
        }
    }
    let number = &text[..length];
    let word = text[length..].find(|c: char| !c.is_alphanumeric() && c != '_');
    let word = &text[length..][..word.unwrap_or(text.len() - length)];
    if let Some(ticks) = unit(word) {
        let value = number.parse::<f64>().map_err(|_| length)? * ticks as f64;
        let exact = number.parse::<i64>().ok().and_then(|count| count.checked_mul(ticks));
        let ticks = exact.unwrap_or(value.round() as i64);
        return Ok((length + word.len(), Value::TimeSpan(ticks)));
    }
    if !word.is_empty() {
        return Err(length + word.len());
    }
    if real {
        return number.parse().map(|value| (length, Value::Real(value))).map_err(|_| length);
    }
    number.parse().map(|value| (length, Value::Long(value))).map_err(|_| length)
}

/// Ticks of a timespan's unit.
fn unit(word: &str) -> Option<i64> {
    Some(match word {
        "d" | "day" | "days" => TICKS_PER_DAY,
        "h" | "hr" | "hrs" | "hour" | "hours" => TICKS_PER_DAY / 24,
        "m" | "min" | "minute" | "minutes" => 60 * TICKS_PER_SECOND,
        "s" | "sec" | "second" | "seconds" => TICKS_PER_SECOND,
        "ms" | "milli" | "millis" | "millisec" | "millisecond" | "milliseconds" => 10_000,
        "micro" | "micros" | "microsec" | "microsecond" | "microseconds" => 10,
        "nano" | "nanos" | "nanosec" | "nanosecond" | "nanoseconds" => 0,
        "tick" | "ticks" => 1,
        _ => return None,
    })
}

/// The type of a literal `word(…)`, where the word begins one.
pub fn typed(word: &str) -> Option<Type> {
    match word {
        "string" => None,
        _ => Type::parse(word),
    }
}

/// The parenthesised text that follows, blanks before it aside, parentheses included.
pub fn parenthesised(text: &str) -> Option<&str> {
    let text = text.trim_start();
    if !text.starts_with('(') {
        return None;
    }
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let character = rest.chars().next()?;
        match character {
            '"' | '\'' => {
                let verbatim = at > 0 && text.as_bytes()[at - 1] == b'@';
                at += string(rest, verbatim)?.1;
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(&text[..at + 1]);
                }
            }
            '/' if rest.starts_with("//") => {
                at += rest.find('\n')?;
                continue;
            }
            _ => {}
        }
        at += character.len_utf8();
    }
    None
}

/// The value of `type(content)`; `None` where the content is no literal of the type.
pub fn value(ty: Type, content: &str) -> Option<Value> {
    if content == "null" || content.is_empty() {
        return (ty != Type::Dynamic || content == "null").then_some(Value::Null(ty));
    }
    let unquoted = match content.chars().next()? {
        '"' | '\'' => {
            let (text, length) = string(content, false)?;
            (length == content.len()).then_some(text)
        }
        _ => None,
    };
    let text = unquoted.as_deref().unwrap_or(content).trim();
    Some(match ty {
        Type::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Value::Bool(true),
            "false" | "0" => Value::Bool(false),
            _ => return None,
        },
        Type::Int => Value::Int(i32::try_from(integer(text)?).ok()?),
        Type::Long => Value::Long(integer(text)?),
        Type::Real => Value::Real(real(text)?),
        Type::Decimal => decimal(text)?,
        Type::DateTime => Value::DateTime(datetime(text)?),
        Type::TimeSpan => Value::TimeSpan(timespan(text)?),
        Type::Guid => Value::Guid(guid(text)?),
        Type::String => Value::String(text.into()),
        Type::Dynamic => match dynamic(content)? {
            json if json == "null" => Value::Null(Type::Dynamic),
            json => Value::Dynamic(json.into()),
        },
    })
}

fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits.trim_start()),
        None => (1, text),
    };
    match number(digits) {
        Ok((length, Value::Long(value))) if length == digits.len() => value.checked_mul(sign),
        _ => None,
    }
}

fn real(text: &str) -> Option<f64> {
    match text.to_ascii_lowercase().as_str() {
        "nan" => Some(f64::NAN),
        "+inf" | "inf" => Some(f64::INFINITY),
        "-inf" => Some(f64::NEG_INFINITY),
        number if number.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
            number.parse().ok()
        }
        _ => None,
    }
}

fn decimal(text: &str) -> Option<Value> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut unscaled: i128 = format!("{whole}{fraction}").parse().ok()?;
    let mut scale = i32::try_from(fraction.len()).ok()? - exponent;
    while scale < 0 {
        unscaled = unscaled.checked_mul(10)?;
        scale += 1;
    }
    Some(Value::Decimal(unscaled, u8::try_from(scale).ok().filter(|scale| *scale <= 34)?))
}

fn guid(text: &str) -> Option<u128> {
    let text = text.trim_start_matches('{').trim_end_matches('}');
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let dashes = text.len() - digits.len();
    (digits.len() == 32 && matches!(dashes, 0 | 4))
        .then(|| u128::from_str_radix(&digits, 16).ok())
        .flatten()
}

/// `[-][d.]hh:mm[:ss[.fffffff]]`, `1.5h`, or a number of days.
pub fn timespan(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('-') {
        return timespan(rest)?.checked_neg();
    }
    if !text.contains(':') {
        return match number(text) {
            Ok((length, value)) if length == text.len() => match value {
                Value::TimeSpan(ticks) => Some(ticks),
                Value::Long(days) => days.checked_mul(TICKS_PER_DAY),
                Value::Real(days) => Some((days * TICKS_PER_DAY as f64).round() as i64),
                _ => None,
            },
            _ => None,
        };
    }
    let mut parts = text.split(':');
    let (first, minutes, seconds) = (parts.next()?, parts.next()?, parts.next());
    if parts.next().is_some() {
        return None;
    }
    let (days, hours) = match first.split_once('.') {
        Some((days, hours)) => (days.parse::<i64>().ok()?, hours),
        None => (0, first),
    };
    let (hours, minutes) = (hours.parse::<i64>().ok()?, minutes.parse::<i64>().ok()?);
    let (seconds, fraction) = match seconds {
        Some(seconds) => {
            let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
            (seconds.parse::<i64>().ok()?, ticks_of_fraction(fraction)?)
        }
        None => (0, 0),
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let seconds = (hours * 60 + minutes) * 60 + seconds;
    days.checked_mul(TICKS_PER_DAY)?.checked_add(seconds * TICKS_PER_SECOND + fraction)
}

/// Up to seven digits behind a second's point; more are cut.
fn ticks_of_fraction(digits: &str) -> Option<i64> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seven: String = digits.chars().chain("0000000".chars()).take(7).collect();
    seven.parse().ok()
}

/// Days from 0001-01-01 to a date of the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month - 1).ok()?)?;
    if !(1..=9999).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    let before = year - 1;
    let whole = before * 365 + before / 4 - before / 100 + before / 400;
    Some(whole + lengths[..(month - 1) as usize].iter().sum::<i64>() + day - 1)
}

/// ISO 8601 and the forms that Kusto reads besides: `yyyy-MM-dd`, `yyyy-MM-dd HH:mm[:ss[.fffffff]]`,
/// with `T` or a blank, `Z` or an offset; `MM/dd/yyyy`; a year alone; `min`, `max`.
pub fn datetime(text: &str) -> Option<i64> {
    let text = text.trim();
    match text {
        "min" => return Some(0),
        "max" => return Some(crate::types::MAX_DATETIME_TICKS),
        _ => {}
    }
    let split = text.find(['T', 't', ' ']).unwrap_or(text.len());
    let (date, time) = text.split_at(split);
    if let [year, month, day] = *text.split(',').map(str::trim).collect::<Vec<_>>() {
        let date = days(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
        return date.checked_mul(TICKS_PER_DAY);
    }
    let date = if let Some((month, rest)) = date.split_once('/') {
        let (day, year) = rest.split_once('/')?;
        days(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?
    } else {
        let mut parts = date.split('-');
        let year = parts.next()?;
        // `01-31-2022`: the month stands first.
        if let (1..=2, [day, last]) = (year.len(), &parts.clone().collect::<Vec<_>>()[..])
            && last.len() == 4
        {
            let date = days(last.parse().ok()?, year.parse().ok()?, day.parse().ok()?)?;
            let time = time_of_day(time.trim_start_matches(['T', 't', ' ']))?;
            return date.checked_mul(TICKS_PER_DAY)?.checked_add(time);
        }
        if year.len() != 4 && !(year.len() == 8 && date.len() == 8) {
            return None;
        }
        if year.len() == 8 {
            let part = |range: std::ops::Range<usize>| year.get(range)?.parse::<i64>().ok();
            days(part(0..4)?, part(4..6)?, part(6..8)?)?
        } else {
            let month = parts.next().map_or(Some(1), |month| month.parse().ok())?;
            let day = parts.next().map_or(Some(1), |day| day.parse().ok())?;
            if parts.next().is_some() {
                return None;
            }
            days(year.parse().ok()?, month, day)?
        }
    };
    let ticks =
        date.checked_mul(TICKS_PER_DAY)? + time_of_day(time.trim_start_matches(['T', 't', ' ']))?;
    (0..=crate::types::MAX_DATETIME_TICKS).contains(&ticks).then_some(ticks)
}

/// `HH:mm[:ss[.f]]` with AM or PM, `Z` or an offset, as ticks from midnight UTC.
fn time_of_day(text: &str) -> Option<i64> {
    let text = text.trim();
    if text.is_empty() {
        return Some(0);
    }
    let text = text.strip_suffix(['Z', 'z']).unwrap_or(text).trim_end();
    let text =
        text.strip_suffix("UTC").or_else(|| text.strip_suffix("GMT")).unwrap_or(text).trim_end();
    let (text, offset) = match text.rfind(['+', '-']) {
        Some(at) if at > 0 => {
            let sign = if text.as_bytes()[at] == b'-' { -1 } else { 1 };
            let digits: String = text[at + 1..].chars().filter(|c| *c != ':').collect();
            let hours = digits.get(..2)?.parse::<i64>().ok()?;
            let minutes =
                digits.get(2..).filter(|m| !m.is_empty()).map_or(Some(0), |m| m.parse().ok())?;
            (text[..at].trim_end(), sign * (hours * 60 + minutes))
        }
        _ => (text, 0),
    };
    let upper = text.to_ascii_uppercase();
    let (text, half) = match (upper.strip_suffix("AM"), upper.strip_suffix("PM")) {
        (Some(text), _) => (text.trim_end().to_owned(), Some(0)),
        (_, Some(text)) => (text.trim_end().to_owned(), Some(12)),
        _ => (upper, None),
    };
    let mut parts = text.split(':');
    let mut hour = parts.next()?.parse::<i64>().ok()?;
    if let Some(half) = half {
        hour = hour % 12 + half;
    }
    let minute = parts.next().map_or(Some(0), |minute| minute.parse::<i64>().ok())?;
    let (second, fraction) = match parts.next() {
        Some(second) => {
            let (second, fraction) = second.split_once('.').unwrap_or((second, ""));
            (second.parse::<i64>().ok()?, ticks_of_fraction(fraction)?)
        }
        None => (0, 0),
    };
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(((hour * 60 + minute - offset) * 60 + second) * TICKS_PER_SECOND + fraction)
}

/// A dynamic literal as compact JSON text: JSON, and besides it single quotes, and literals of
/// other types, which become strings or numbers.
pub fn dynamic(text: &str) -> Option<String> {
    let mut reader = Dynamic { text, at: 0, out: String::new() };
    reader.value(0)?;
    reader.blank();
    (reader.at == text.len()).then_some(reader.out)
}

struct Dynamic<'t> {
    text: &'t str,
    at: usize,
    out: String,
}

impl Dynamic<'_> {
    fn blank(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn next(&mut self) -> Option<char> {
        self.blank();
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, wanted: char) -> Option<()> {
        (self.next()? == wanted).then(|| self.at += wanted.len_utf8())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.next()? {
            '[' => self.list(']', depth, false),
            '{' => self.list('}', depth, true),
            '"' | '\'' | '@' | 'h' if self.string() => Some(()),
            _ => self.scalar(),
        }
    }

    fn list(&mut self, close: char, depth: usize, keys: bool) -> Option<()> {
        let open = self.next()?;
        self.out.push(open);
        self.at += 1;
        let mut first = true;
        while self.next()? != close {
            if !first {
                self.take(',')?;
                // Kusto forgives a comma before the bracket.
                if self.next()? == close {
                    break;
                }
                self.out.push(',');
            }
            first = false;
            if keys {
                if !self.string() {
                    let rest = &self.text[self.at..];
                    let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
                    json_string(&mut self.out, (length > 0).then(|| &rest[..length])?);
                    self.at += length;
                }
                self.take(':')?;
                self.out.push(':');
            }
            self.value(depth + 1)?;
        }
        self.take(close)?;
        self.out.push(close);
        Some(())
    }

    fn string(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let after = rest.strip_prefix('h').unwrap_or(rest);
        let verbatim = after.starts_with('@');
        let after = after.strip_prefix('@').unwrap_or(after);
        if !after.starts_with(['"', '\'']) {
            return false;
        }
        let Some((mut value, length)) = string(after, verbatim) else { return false };
        self.at += rest.len() - after.len() + length;
        // Adjacent literals join, as everywhere.
        while let Some('"' | '\'') = self.next() {
            let Some((more, length)) = string(&self.text[self.at..], false) else { return false };
            value.push_str(&more);
            self.at += length;
        }
        json_string(&mut self.out, &value);
        true
    }

    fn scalar(&mut self) -> Option<()> {
        let rest = &self.text[self.at..];
        let end = rest.find([',', ']', '}', ' ', '\n', '\r', '\t', '(']).unwrap_or(rest.len());
        let word = &rest[..end];
        if rest[end..].trim_start().starts_with('(') {
            let inner = parenthesised(&rest[end..])?;
            let skipped = rest[end..].len() - rest[end..].trim_start().len();
            let ty = Type::parse(word)?;
            let value = value(ty, inner[1..inner.len() - 1].trim()).unwrap_or(Value::Null(ty));
            self.at += end + skipped + inner.len();
            self.out.push_str(&json(&value));
            return Some(());
        }
        self.at += end;
        match word {
            "true" | "false" | "null" => self.out.push_str(word),
            _ => {
                let (sign, digits) = match word.strip_prefix('-') {
                    Some(digits) => ("-", digits),
                    None => ("", word.strip_prefix('+').unwrap_or(word)),
                };
                let (length, value) = number(digits).ok()?;
                if length != digits.len() {
                    return None;
                }
                match value {
                    Value::TimeSpan(_) => self.out.push_str(&json(&value)),
                    Value::Long(number) if digits.starts_with("0x") => {
                        self.out.push_str(&format!("{sign}{number}"));
                    }
                    _ => {
                        self.out.push_str(sign);
                        self.out.push_str(digits);
                    }
                }
            }
        }
        Some(())
    }
}

/// A value inside JSON.
pub fn json(value: &Value) -> String {
    match value {
        Value::Null(_) => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Long(value) => value.to_string(),
        Value::Real(value) if value.is_finite() => format!("{value:?}"),
        Value::Dynamic(json) => json.to_string(),
        other => {
            let mut out = String::new();
            json_string(&mut out, &plain(other));
            out
        }
    }
}

/// Writes a JSON string with its quotes.
pub fn json_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The text of a value that JSON has no form of its own for.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        Value::DateTime(ticks) => plan_text::datetime_text(*ticks),
        Value::TimeSpan(ticks) => plan_text::timespan_text(*ticks),
        Value::Guid(guid) => plan_text::guid_text(*guid),
        Value::Decimal(unscaled, scale) => plan_text::decimal_text(*unscaled, *scale),
        other => other.to_string(),
    }
}
