//! Secrets at rest: sealed with AES-256-GCM, or hashed with HMAC-SHA256, under the master key.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{constant_time, hmac};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use zeroize::Zeroizing;

/// 32 random bytes that everything secret depends on. Never printed.
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey")
    }
}

impl MasterKey {
    /// From a file of 64 hexadecimal digits; made with mode 0600 if missing.
    pub fn from_file(path: &Path) -> std::io::Result<MasterKey> {
        match std::fs::read_to_string(path) {
            Ok(text) => MasterKey::from_hex(text.trim()).ok_or_else(|| {
                let message = format!("{} does not hold 64 hexadecimal digits", path.display());
                std::io::Error::new(std::io::ErrorKind::InvalidData, message)
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut key = Zeroizing::new([0; 32]);
                fill(key.as_mut());
                let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
                let mut options = std::fs::OpenOptions::new();
                let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
                writeln!(file, "{text}")?;
                file.sync_all()?;
                Ok(MasterKey(key))
            }
            Err(error) => Err(error),
        }
    }

    pub fn from_hex(text: &str) -> Option<MasterKey> {
        let mut key = Zeroizing::new([0; 32]);
        if text.len() != 64 {
            return None;
        }
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
        }
        Some(MasterKey(key))
    }

    /// Encrypts; `purpose` must be the same when opening.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Vec<u8> {
        let mut data = plain.to_vec();
        let sealed = self.cipher().seal_in_place_append_tag(Aad::from(purpose), &mut data);
        let nonce = sealed.expect("AES-GCM seals any short text");
        [nonce.as_ref().as_slice(), &data].concat()
    }

    /// Decrypts what [`MasterKey::seal`] made; `None` under another key or purpose.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, data) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut data = Zeroizing::new(data.to_vec());
        let length = self.cipher().open_in_place(nonce, Aad::from(purpose), &mut data).ok()?.len();
        data.truncate(length);
        Some(data)
    }

    fn cipher(&self) -> RandomizedNonceKey {
        RandomizedNonceKey::new(&AES_256_GCM, self.0.as_ref()).expect("32 bytes are a key")
    }

    /// Hash of a secret of high entropy, which needs no slow function.
    pub fn hash(&self, secret: &str) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_ref());
        hmac::sign(&key, secret.as_bytes()).as_ref().to_vec()
    }

    /// Compares in constant time.
    pub fn is_hash_of(&self, hash: &[u8], secret: &str) -> bool {
        constant_time::verify_slices_are_equal(hash, &self.hash(secret)).is_ok()
    }
}

/// Random bytes of the operating system's quality.
pub fn fill(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the random source works");
}

/// A new secret: 40 characters of 62, about 238 bits.
pub fn new_secret() -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut secret = String::with_capacity(40);
    while secret.len() < 40 {
        let mut byte = [0];
        fill(&mut byte);
        // Bytes from 248 on would make some characters more likely.
        if byte[0] < 248 {
            secret.push(char::from(ALPHABET[usize::from(byte[0]) % 62]));
        }
    }
    secret
}
