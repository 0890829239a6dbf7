//! Second factor: time-based one-time passwords (RFC 6238) of six digits over HMAC-SHA-1, which every
//! authenticator application knows.

use crate::seal::fill;
use aws_lc_rs::constant_time;
use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, sign};

/// Seconds of a step.
const STEP: i64 = 30;
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A new secret of 160 bits.
pub fn new_secret() -> Vec<u8> {
    let mut secret = vec![0; 20];
    fill(&mut secret);
    secret
}

/// RFC 4648, section 6, without padding.
pub fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(5) {
        let mut bits = [0; 8];
        bits[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(bits);
        for at in 0..(chunk.len() * 8).div_ceil(5) {
            text.push(char::from(ALPHABET[(bits >> (35 - 5 * at)) as usize & 31]));
        }
    }
    text
}

fn code(secret: &[u8], step: i64) -> String {
    let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[tag.len() - 1] & 15);
    let number = u32::from_be_bytes([tag[at], tag[at + 1], tag[at + 2], tag[at + 3]]);
    format!("{:06}", (number & 0x7fff_ffff) % 1_000_000)
}

/// The step that a code belongs to: now, the one before or the one after, but none up to `last`,
/// which was used already.
pub fn step_of(secret: &[u8], entered: &str, unix_seconds: i64, last: i64) -> Option<i64> {
    let entered: String = entered.chars().filter(|c| !c.is_whitespace()).collect();
    let now = unix_seconds / STEP;
    let mut found = None;
    for step in now - 1..=now + 1 {
        let matches = constant_time::verify_slices_are_equal(
            code(secret, step).as_bytes(),
            entered.as_bytes(),
        );
        if matches.is_ok() && step > last {
            found = Some(step);
        }
    }
    found
}

/// The code of a moment, for tests and the command line's own check.
#[cfg(test)]
pub fn now(secret: &[u8], unix_seconds: i64) -> String {
    code(secret, unix_seconds / STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_rfc_and_work_once() {
        // RFC 6238, appendix B, cut to six digits.
        let secret = b"12345678901234567890";
        for (time, expected) in
            [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")]
        {
            assert_eq!(now(secret, time), expected);
        }
        let step = step_of(secret, "287 082", 59 + 29, 0).expect("the step before is accepted");
        assert_eq!(step_of(secret, "287082", 59, step), None, "used already");
        assert_eq!(step_of(secret, "287082", 59 + 61, 0), None, "too old");
        assert_eq!(step_of(secret, "", 59, 0), None);
        // RFC 4648, section 10.
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
        assert_eq!(base32(b"f"), "MY");
    }
}
