//! Damage to texts, bytes and JSON.

use serde_json::{Value as Json, json};

/// What decides: the same for the same seed.
pub struct Random(pub fastrand::Rng);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0.usize(..limit.max(1))
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// Pieces that parsers have stumbled over.
pub const PIECES: &[&str] = &[
    "",
    "&",
    "=",
    "==",
    "%",
    "%00",
    "%0d%0aSet-Cookie: a=b",
    "%C0%AF",
    "%ff",
    "%u0041",
    "+",
    " ",
    "\0",
    "\r\nLocation: https://evil.example/",
    "\t",
    "\u{202e}",
    "\u{1F980}",
    "\u{feff}",
    "//evil.example",
    "\\evil.example",
    "@evil.example",
    "/../",
    "/%2e%2e/",
    "#",
    "?",
    ";",
    ":",
    ".",
    "..",
    "https://evil.example/",
    "javascript:alert(1)",
    "data:text/html,x",
    "\"><img src=x>",
    "'><script>alert(1)</script>",
    "-1",
    "0",
    "1e999",
    "99999999999999999999999999",
    "null",
    "[]",
    "{}",
    "{\"a\":",
    "true",
    "common",
    "organizations",
    ".default",
    "openid",
    "offline_access",
    "00000000-0000-0000-0000-000000000000",
    "grant_type=password",
    "client_secret=",
    "code_verifier=",
    "RS256",
    "none",
    "a.b.c",
    "....",
];

/// Bytes left out, doubled, exchanged, put elsewhere, or pieces put in between.
pub fn damaged(random: &mut Random, text: &[u8]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len());
        let end = (at + 1 + random.below(8)).min(bytes.len());
        match random.below(6) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let (copy, to) = (bytes[at..end].to_vec(), random.below(bytes.len()));
                bytes.splice(to..to, copy);
            }
            2 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            3 if !bytes.is_empty() => bytes[at] = random.0.u64(..) as u8,
            4 => bytes.extend_from_slice(random.of(PIECES).as_bytes()),
            _ => drop(bytes.splice(at..at, random.of(PIECES).bytes())),
        }
    }
    if random.one_in(200) {
        let piece = random.of(PIECES).repeat(1 + random.below(9000));
        bytes.extend_from_slice(piece.as_bytes());
    }
    bytes
}

/// The same of a text, which stays one.
pub fn damaged_text(random: &mut Random, text: &str) -> String {
    String::from_utf8_lossy(&damaged(random, text.as_bytes())).into_owned()
}

pub fn odd_json(random: &mut Random) -> Json {
    match random.below(9) {
        0 => Json::Null,
        1 => json!(random.0.u64(..) as i64),
        2 => json!(random.0.u64(..) as f64 / 3.0),
        3 => json!(-1),
        4 => json!(random.of(PIECES)),
        5 => json!([random.of(PIECES), 1, null, {}]),
        6 => json!({"a": {"b": [random.of(PIECES)]}}),
        7 => json!(true),
        _ => json!(random.of(PIECES).repeat(1 + random.below(500))),
    }
}
