//! Hashes, compression, and texts in other forms.

use super::dynamic::{read, write};
use super::{Cell, RowFunction, convert};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::Value;
use std::io::{Read, Write};
use vigie_kql::types::Type;

/// Most bytes that a compressed text may become.
const LARGEST_TEXT: u64 = 64 << 20;

pub fn find(name: &str) -> Option<RowFunction> {
    Some(match name {
        "hash" | "hash_xxhash64" => |call, cells| {
            let Some(hash) = xxhash(call.arguments[0], &cells[0]) else { return Cell::Null };
            match cells.get(1).map(Cell::as_long) {
                None => Cell::Long(hash as i64),
                Some(Some(modulus @ 1..)) => Cell::Long((hash as i64).rem_euclid(modulus)),
                Some(_) => Cell::Null,
            }
        },
        "base64_decode_toarray" => |_, cells| match decoded(cells[0].as_text()) {
            Some(bytes) => write(bytes.into_iter().map(Value::from).collect()),
            None => Cell::Null,
        },
        "base64_encode_fromarray" => |_, cells| {
            let bytes = match read(&cells[0]) {
                Some(Value::Array(array)) => array
                    .iter()
                    .map(|value| value.as_u64().and_then(|byte| u8::try_from(byte).ok()))
                    .collect::<Option<Vec<u8>>>(),
                _ => None,
            };
            Cell::text(bytes.map(|bytes| STANDARD.encode(bytes)).unwrap_or_default())
        },
        // The first three groups of a guid's bytes are little-endian, as .NET writes them.
        "base64_decode_toguid" => |_, cells| {
            let bytes = decoded(cells[0].as_text()).and_then(|bytes| bytes.try_into().ok());
            Cell::from_text(bytes.map(|bytes| uuid::Uuid::from_bytes_le(bytes).to_string()))
        },
        "base64_encode_fromguid" => |_, cells| {
            let guid = uuid::Uuid::parse_str(cells[0].as_text()).ok();
            Cell::text(guid.map(|guid| STANDARD.encode(guid.to_bytes_le())).unwrap_or_default())
        },
        "gzip_compress_to_base64_string" => |_, cells| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            let written = encoder.write_all(cells[0].as_text().as_bytes());
            let bytes = written.and_then(|()| encoder.finish());
            Cell::text(bytes.map(|bytes| STANDARD.encode(bytes)).unwrap_or_default())
        },
        "zlib_compress_to_base64_string" => |_, cells| {
            let text = cells[0].as_text().as_bytes();
            let compressed = |level| {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(text)?;
                encoder.finish()
            };
            // What does not get smaller is stored.
            let smaller = compressed(Compression::default())
                .ok()
                .filter(|bytes| bytes.len() < text.len() + 6);
            let bytes = match smaller {
                Some(bytes) => Some(bytes),
                None => compressed(Compression::none()).ok(),
            };
            Cell::text(bytes.map(|bytes| STANDARD.encode(bytes)).unwrap_or_default())
        },
        "gzip_decompress_from_base64_string" => |_, cells| {
            let bytes = decoded(cells[0].as_text()).unwrap_or_default();
            Cell::text(unpacked(GzDecoder::new(bytes.as_slice())))
        },
        "zlib_decompress_from_base64_string" => |_, cells| {
            let bytes = decoded(cells[0].as_text()).unwrap_or_default();
            Cell::text(unpacked(ZlibDecoder::new(bytes.as_slice())))
        },
        "punycode_from_string" => |_, cells| {
            Cell::text(idna::punycode::encode_str(cells[0].as_text()).unwrap_or_default())
        },
        "punycode_to_string" => |_, cells| {
            Cell::text(idna::punycode::decode_to_string(cells[0].as_text()).unwrap_or_default())
        },
        "punycode_domain_from_string" => {
            |_, cells| Cell::text(idna::domain_to_ascii(cells[0].as_text()).unwrap_or_default())
        }
        "punycode_domain_to_string" => |_, cells| {
            let (text, result) = idna::domain_to_unicode(cells[0].as_text());
            Cell::text(if result.is_ok() { text } else { String::new() })
        },
        "url_encode" => |_, cells| Cell::text(url_encoded(cells[0].as_text(), "+")),
        "url_encode_component" => |_, cells| Cell::text(url_encoded(cells[0].as_text(), "%20")),
        "isascii" => |_, cells| Cell::Bool(cells[0].as_text().is_ascii()),
        // A text here is always valid UTF-8.
        "isutf8" => |_, _| Cell::Bool(true),
        "regex_quote" => {
            |call, cells| Cell::text(regex::escape(&convert::text(call.arguments[0], &cells[0])))
        }
        "translate" => |_, cells| {
            let from: Vec<char> = cells[0].as_text().chars().collect();
            let to: Vec<char> = cells[1].as_text().chars().collect();
            // A list that is too short repeats its last character; an empty one deletes.
            let other = |c: char| match from.iter().position(|known| *known == c) {
                None => Some(c),
                Some(at) => to.get(at).or(to.last()).copied(),
            };
            Cell::text(cells[2].as_text().chars().filter_map(other).collect::<String>())
        },
        "format_bytes" => |_, cells| {
            let precision = cells.get(1).and_then(Cell::as_long).unwrap_or(0).clamp(0, 15);
            match cells[0].as_real() {
                Some(size) => Cell::text(bytes_text(
                    size,
                    precision as usize,
                    cells.get(2).map(Cell::as_text),
                )),
                None => Cell::text(""),
            }
        },
        "estimate_data_size" => |call, cells| {
            let size = |(ty, cell): (&Type, &Cell<'_>)| match (ty, cell) {
                (_, Cell::Null) => 0,
                (Type::Bool, _) => 1,
                (Type::Int, _) => 4,
                (Type::Guid | Type::Decimal, _) => 16,
                (_, Cell::Text(text)) => text.len() as i64,
                _ => 8,
            };
            Cell::Long(call.arguments.iter().zip(cells).map(size).sum())
        },
        _ => return None,
    })
}

/// The 64-bit xxHash of a value's bytes: of a text its UTF-8, of a number its eight bytes.
fn xxhash(ty: Type, cell: &Cell<'_>) -> Option<u64> {
    use twox_hash::XxHash64;
    let bytes = match (ty, cell) {
        (_, Cell::Null) => return None,
        (Type::Int, Cell::Long(value)) => (*value as i32).to_le_bytes().to_vec(),
        (_, Cell::Long(value)) => value.to_le_bytes().to_vec(),
        (_, Cell::Real(value)) => value.to_le_bytes().to_vec(),
        (_, Cell::Bool(value)) => vec![u8::from(*value)],
        (_, Cell::Decimal(value)) => value.to_le_bytes().to_vec(),
        (Type::Guid, Cell::Text(text)) => uuid::Uuid::parse_str(text).ok()?.to_bytes_le().to_vec(),
        (_, Cell::Text(text)) => text.as_bytes().to_vec(),
    };
    Some(XxHash64::oneshot(0, &bytes))
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.trim()).ok()
}

/// "" where the bytes are no such text.
fn unpacked(reader: impl Read) -> String {
    let mut text = String::new();
    match reader.take(LARGEST_TEXT).read_to_string(&mut text) {
        Ok(_) => text,
        Err(_) => String::new(),
    }
}

/// Lower-case percent codes.
fn url_encoded(text: &str, space: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'!'
            | b'*'
            | b'('
            | b')' => {
                out.push(byte.into());
            }
            b' ' => out.push_str(space),
            byte => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

/// `19.08 MB`: units of 1024, no zeros at the end.
fn bytes_text(size: f64, precision: usize, unit: Option<&str>) -> String {
    const UNITS: &[&str] = &["Bytes", "KB", "MB", "GB", "TB", "PB", "EB"];
    let at = match unit.filter(|unit| !unit.is_empty()) {
        Some(unit) => match UNITS.iter().position(|known| *known == unit) {
            Some(at) => at,
            None => return String::new(),
        },
        None => {
            let size = size.abs();
            (0..UNITS.len()).rev().find(|at| size >= 1024f64.powi(*at as i32)).unwrap_or(0)
        }
    };
    let number = format!("{:.precision$}", size / 1024f64.powi(at as i32));
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => &number,
    };
    format!("{number} {}", UNITS[at])
}
