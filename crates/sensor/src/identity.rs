//! Who this sensor is: its Ed25519 key, the installation's stable id and what the server answered
//! at enrolment. Everything secret lies in the state folder with mode 0600.

use crate::disk;
use anyhow::{Context, Result, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};
use std::path::Path;
use vigie_contract::sensor::{Enrolled, SessionRequest, session_text};

const KEY_FILE: &str = "key.pkcs8";
const ENROLMENT_FILE: &str = "enrolment.json";
const OFFBOARDED_FILE: &str = "offboarded";

/// A sensor's signing key.
pub struct Key(Ed25519KeyPair);

impl Key {
    /// A new random key, as PKCS #8 and ready to use.
    pub fn generate() -> Result<(Key, Vec<u8>)> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| anyhow!("the system gave no randomness for the sensor's key"))?;
        let bytes = document.as_ref().to_vec();
        Ok((Key::from_pkcs8(&bytes)?, bytes))
    }

    fn from_pkcs8(bytes: &[u8]) -> Result<Key> {
        Ed25519KeyPair::from_pkcs8(bytes)
            .map(Key)
            .map_err(|error| anyhow!("not an Ed25519 key in PKCS #8: {error}"))
    }

    /// The key that follows from a seed; for simulated machines, which must be reproducible.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Key> {
        Ed25519KeyPair::from_seed_unchecked(seed)
            .map(Key)
            .map_err(|error| anyhow!("the seed makes no key: {error}"))
    }

    /// The public key as [`vigie_contract::sensor::EnrolRequest::public_key`] wants it.
    pub fn public_key(&self) -> String {
        BASE64.encode(self.0.public_key().as_ref())
    }

    /// A signed request for a session at this time.
    pub fn session_request(&self, machine_id: &str, unix_seconds: i64) -> SessionRequest {
        let signature = self.0.sign(session_text(machine_id, unix_seconds).as_bytes());
        SessionRequest {
            machine_id: machine_id.to_owned(),
            unix_seconds,
            signature: BASE64.encode(signature.as_ref()),
        }
    }
}

/// Reads the key of the state folder, or makes one.
pub fn load_or_create_key(state_dir: &Path) -> Result<Key> {
    let path = state_dir.join(KEY_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => Key::from_pkcs8(&bytes).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let (key, bytes) = Key::generate()?;
            disk::write_durably(&path, &bytes)?;
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// What the server answered at enrolment, if this sensor has enrolled.
pub fn load_enrolment(state_dir: &Path) -> Result<Option<Enrolled>> {
    disk::read_json(&state_dir.join(ENROLMENT_FILE))
}

pub fn save_enrolment(state_dir: &Path, enrolled: &Enrolled) -> Result<()> {
    disk::write_json(&state_dir.join(ENROLMENT_FILE), enrolled)
}

/// Forgets server and key. The mark that is left keeps a later start from enrolling by itself.
pub fn forget(state_dir: &Path) -> Result<()> {
    disk::write_durably(&state_dir.join(OFFBOARDED_FILE), b"offboarded by the server\n")?;
    for name in [ENROLMENT_FILE, KEY_FILE] {
        match std::fs::remove_file(state_dir.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {name}"));
            }
            _ => {}
        }
    }
    disk::sync_folder_of(&state_dir.join(ENROLMENT_FILE))?;
    Ok(())
}

pub fn is_offboarded(state_dir: &Path) -> bool {
    state_dir.join(OFFBOARDED_FILE).exists()
}

/// An administrator of the machine wants it enrolled again.
pub fn forget_offboarding(state_dir: &Path) -> Result<()> {
    match std::fs::remove_file(state_dir.join(OFFBOARDED_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Stable id of this installation: SHA-1 of `/etc/machine-id` under a prefix of ours, because the
/// machine id itself should not leave the machine (machine-id(5)).
pub fn installation_id() -> Result<String> {
    let text = std::fs::read_to_string("/etc/machine-id")
        .or_else(|_| std::fs::read_to_string("/var/lib/dbus/machine-id"))
        .context("this machine has no /etc/machine-id; give an installation id")?;
    let digest = Sha1::digest(format!("vigie-installation\n{}", text.trim()));
    Ok(hex(&digest))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}
