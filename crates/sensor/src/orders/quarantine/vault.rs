//! The vault: files out of the way, encrypted so that nobody starts or scans them by accident, with
//! all that is needed to put them back.
//!
//! `vault/{id}.json` tells what a file was, `vault/{id}.sealed` holds it: pieces of 1 MiB, each under
//! AES-256-GCM with its number as nonce. Every file has a key of its own, derived from the vault's
//! key and the id, so numbers never repeat under one key.

use super::search::Found;
use crate::disk;
use crate::identity::hex;
use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use uuid::Uuid;
use vigie_contract::sensor::Order;

const PIECE: usize = 1 << 20;
/// Bytes that AES-GCM adds to a piece.
const TAG: usize = 16;

/// What is known of a quarantined file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sealed {
    pub id: Uuid,
    pub path: PathBuf,
    pub sha1: String,
    pub sha256: String,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since the Unix epoch.
    pub modified: (i64, i64),
    pub accessed: (i64, i64),
    pub quarantined: DateTime<Utc>,
    pub requestor: String,
    /// The machine action.
    pub order: Option<Uuid>,
    /// What a scan took it for.
    #[serde(default)]
    pub threat: Option<String>,
    /// Which of a scan's engines did.
    #[serde(default)]
    pub engine: Option<String>,
}

/// What a scan takes a file for, and by which engine.
#[derive(Clone, Copy, Debug)]
pub struct Threat<'a> {
    pub name: &'a str,
    pub engine: &'a str,
}

pub struct Vault {
    folder: PathBuf,
    key: hmac::Key,
}

impl Vault {
    /// Opens the vault of a state folder; makes one where there is none.
    pub fn open(state_dir: &Path) -> Result<Vault> {
        let folder = state_dir.join("vault");
        disk::make_private_folder(&folder)?;
        let path = folder.join("key");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut bytes = vec![0; 32];
                aws_lc_rs::rand::fill(&mut bytes).context("no random numbers")?;
                disk::write_durably(&path, &bytes)?;
                bytes
            }
            Err(error) => return Err(error).context(path.display().to_string()),
        };
        ensure!(bytes.len() == 32, "{} is not a key", path.display());
        Ok(Vault { folder, key: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
    }

    /// Removes what a sensor that was killed while it sealed left behind: files without the facts that
    /// would bring them back. Their originals are where they were.
    pub fn sweep(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.folder)?.flatten() {
            let path = entry.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            let left = match extension {
                Some("sealed") => !path.with_extension("json").exists(),
                Some("new") => true,
                _ => false,
            };
            if left {
                tracing::warn!(path = %path.display(), "removing what was not sealed to the end");
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Everything in the vault, oldest first.
    pub fn list(&self) -> Result<Vec<Sealed>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.folder)?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "json")
                && let Some(sealed) = disk::read_json(&entry.path())?
            {
                all.push(sealed);
            }
        }
        all.sort_by_key(|sealed: &Sealed| (sealed.quarantined, sealed.id));
        Ok(all)
    }

    /// Stores a file durably; the original is untouched.
    pub fn seal(
        &self,
        found: &mut Found,
        order: &Order,
        threat: Option<Threat<'_>>,
        now: DateTime<Utc>,
    ) -> Result<Sealed> {
        let id = Uuid::new_v4();
        let path = self.content(id);
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let (data, file_path) = (found.metadata.clone(), found.path.clone());
        let written = self.encrypt(id, found.rewound()?, &mut target).and_then(|hashes| {
            target.sync_all()?;
            Ok(hashes)
        });
        let (sha1, sha256, size) = match written {
            Ok(hashes) => hashes,
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                return Err(error.context("cannot write the vault"));
            }
        };
        let sealed = Sealed {
            id,
            path: file_path,
            sha1,
            sha256,
            size,
            mode: data.mode() & 0o7777,
            uid: data.uid(),
            gid: data.gid(),
            modified: (data.mtime(), data.mtime_nsec()),
            accessed: (data.atime(), data.atime_nsec()),
            quarantined: now,
            requestor: order.requestor.clone(),
            order: Some(order.id),
            threat: threat.map(|threat| threat.name.to_owned()),
            engine: threat.map(|threat| threat.engine.to_owned()),
        };
        disk::write_json(&self.folder.join(format!("{id}.json")), &sealed)?;
        Ok(sealed)
    }

    fn encrypt(
        &self,
        id: Uuid,
        source: &mut File,
        target: &mut File,
    ) -> Result<(String, String, u64)> {
        let cipher = self.cipher(id)?;
        let (mut sha1, mut sha256, mut size) = (Sha1::new(), Sha256::new(), 0u64);
        for number in 0.. {
            let mut piece = Vec::with_capacity(PIECE + TAG);
            Read::by_ref(source).take(PIECE as u64).read_to_end(&mut piece)?;
            let last = piece.len() < PIECE;
            sha1.update(&piece);
            sha256.update(&piece);
            size += piece.len() as u64;
            cipher
                .seal_in_place_append_tag(nonce(number), Aad::from([u8::from(last)]), &mut piece)
                .context("cannot encrypt")?;
            target.write_all(&piece)?;
            if last {
                break;
            }
        }
        Ok((hex(&sha1.finalize()), hex(&sha256.finalize()), size))
    }

    /// Writes the file's bytes as they were.
    fn decrypt(&self, sealed: &Sealed, target: &mut File) -> Result<()> {
        let cipher = self.cipher(sealed.id)?;
        let mut source = File::open(self.content(sealed.id))?;
        let mut sha256 = Sha256::new();
        for number in 0.. {
            let mut piece = Vec::with_capacity(PIECE + TAG);
            Read::by_ref(&mut source).take((PIECE + TAG) as u64).read_to_end(&mut piece)?;
            let last = piece.len() < PIECE + TAG;
            let plain = cipher
                .open_in_place(nonce(number), Aad::from([u8::from(last)]), &mut piece)
                .ok()
                .context("the vault's copy is damaged")?;
            sha256.update(&*plain);
            target.write_all(plain)?;
            if last {
                break;
            }
        }
        ensure!(hex(&sha256.finalize()) == sealed.sha256, "the vault's copy is damaged");
        Ok(())
    }

    fn cipher(&self, id: Uuid) -> Result<LessSafeKey> {
        let key = hmac::sign(&self.key, id.as_bytes());
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).ok().context("not a key")?;
        Ok(LessSafeKey::new(key))
    }

    fn content(&self, id: Uuid) -> PathBuf {
        self.folder.join(format!("{id}.sealed"))
    }

    /// One entry by its id, or by the beginning of it.
    pub fn find(&self, id: &str) -> Result<Sealed> {
        let mut found: Vec<Sealed> = self.list()?;
        found.retain(|sealed| sealed.id.to_string().starts_with(&id.to_lowercase()));
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => bail!("nothing in quarantine has the id {id}"),
            _ => bail!("several files in quarantine have ids that begin with {id}"),
        }
    }

    /// Puts a file back with its owner, mode and times, and takes it out of the vault. What stands
    /// at the place meanwhile is not replaced. Returns where it is now.
    pub fn restore(&self, sealed: &Sealed, to: Option<&Path>) -> Result<PathBuf> {
        let path = to.unwrap_or(&sealed.path).to_owned();
        let folder = path.parent().context("the path has no folder")?;
        let temporary = folder.join(format!(".{}.restored", sealed.id));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .with_context(|| format!("cannot write in {}", folder.display()))?;
        let placed = self.decrypt(sealed, &mut file).and_then(|()| {
            fchown(&file, Some(sealed.uid), Some(sealed.gid)).context("cannot give the owner")?;
            // After the owner: giving a file away takes its set-user-id bit.
            rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(sealed.mode))?;
            let time = |(seconds, nanoseconds)| rustix::fs::Timespec {
                tv_sec: seconds,
                tv_nsec: nanoseconds,
            };
            let times = rustix::fs::Timestamps {
                last_access: time(sealed.accessed),
                last_modification: time(sealed.modified),
            };
            rustix::fs::futimens(&file, &times)?;
            file.sync_all()?;
            let here = rustix::fs::CWD;
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(here, &temporary, here, &path, flags)
                .with_context(|| format!("{} cannot be placed", path.display()))
        });
        if let Err(error) = placed {
            let _ = std::fs::remove_file(&temporary);
            return Err(error);
        }
        std::fs::remove_file(self.folder.join(format!("{}.json", sealed.id)))?;
        std::fs::remove_file(self.content(sealed.id))?;
        Ok(path)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::order_for_tests;
    use std::os::unix::fs::PermissionsExt;
    use vigie_contract::clock::Clock;
    use vigie_contract::sensor::Command;

    /// Around the border of a piece the format has its special cases.
    #[test]
    fn a_file_comes_back_as_it_was() {
        let state = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(state.path()).unwrap();
        let now = Clock::default().now();
        let order = order_for_tests("m", now, Command::Unisolate {});
        for size in [0, 5, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE] {
            let path = folder.path().join(format!("file-{size}"));
            let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            std::fs::write(&path, &content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4751)).unwrap();
            let before = std::fs::metadata(&path).unwrap();
            let mut found = Found::open(&path, None).unwrap().unwrap();
            let sealed = vault.seal(&mut found, &order, None, now).unwrap();
            found.remove().unwrap();
            assert!(!path.exists());
            let stored = std::fs::read(vault.content(sealed.id)).unwrap();
            if size > 5 {
                let needle = &content[..32];
                assert!(!stored.windows(32).any(|window| window == needle), "not encrypted");
            }
            // Another opening of the vault finds it, too.
            let vault = Vault::open(state.path()).unwrap();
            let found = vault.find(&sealed.id.to_string()[..8]).unwrap();
            std::fs::write(&path, "in the way").unwrap();
            assert!(vault.restore(&found, None).is_err(), "another file was replaced");
            assert_eq!(std::fs::read(&path).unwrap(), b"in the way");
            std::fs::remove_file(&path).unwrap();
            vault.restore(&found, None).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), content);
            let after = std::fs::metadata(&path).unwrap();
            assert_eq!(after.mode(), before.mode());
            assert_eq!(after.modified().unwrap(), before.modified().unwrap());
            assert!(vault.list().unwrap().is_empty());
        }
    }

    #[test]
    fn what_was_not_sealed_to_the_end_is_swept_away_and_nothing_else() {
        let state = tempfile::tempdir().unwrap();
        let vault = Vault::open(state.path()).unwrap();
        let path = state.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let now = Clock::default().now();
        let order = order_for_tests("m", now, Command::Unisolate {});
        let mut found = Found::open(&path, None).unwrap().unwrap();
        let threat = Threat { name: "Eicar", engine: "ClamAV" };
        let sealed = vault.seal(&mut found, &order, Some(threat), now).unwrap();
        let left = vault.content(Uuid::new_v4());
        std::fs::write(&left, "half").unwrap();
        vault.sweep().unwrap();
        assert!(!left.exists() && vault.content(sealed.id).exists());
        let kept = vault.list().unwrap().remove(0);
        assert_eq!(
            (kept.threat.as_deref(), kept.engine.as_deref()),
            (Some("Eicar"), Some("ClamAV"))
        );
    }

    #[test]
    fn a_changed_copy_is_not_restored() {
        let state = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(state.path()).unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let now = Clock::default().now();
        let order = order_for_tests("m", now, Command::Unisolate {});
        let mut found = Found::open(&path, None).unwrap().unwrap();
        let sealed = vault.seal(&mut found, &order, None, now).unwrap();
        found.remove().unwrap();
        let stored = vault.content(sealed.id);
        let mut bytes = std::fs::read(&stored).unwrap();
        bytes[3] ^= 1;
        std::fs::write(&stored, bytes).unwrap();
        let error = vault.restore(&sealed, None).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
        assert!(!path.exists() && vault.list().unwrap().len() == 1);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a piece was left");
    }
}
