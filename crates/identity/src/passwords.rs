//! Passwords: Argon2id (RFC 9106), a few at a time so that a flood cannot eat the memory.

use crate::DirectoryError;
use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;

/// Hashes at once, of 19 MiB each.
const AT_ONCE: usize = 8;
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Hashed in place of a missing user's password, so that time tells nothing.
static NOBODY: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
    let hash = Argon2::default().hash_password(b"nobody has this password");
    hash.map(|hash| hash.to_string()).unwrap_or_default()
});

/// A password's hash as a PHC text: Argon2id, 19 MiB, two passes.
pub async fn hash(password: &str) -> Result<String, DirectoryError> {
    let password = password.to_owned();
    slowly(move || {
        let hash = Argon2::default().hash_password(password.as_bytes());
        hash.map(|hash| hash.to_string()).map_err(|e| DirectoryError::Damaged(e.to_string()))
    })
    .await?
}

/// Whether the password belongs to the hash; without a hash the same work is done for nothing.
pub async fn verify(password: &str, hash: Option<&str>) -> Result<bool, DirectoryError> {
    let (password, hash) = (password.to_owned(), hash.map(str::to_owned));
    slowly(move || {
        let stored = hash.as_deref().unwrap_or(&NOBODY);
        let matches = Argon2::default().verify_password(password.as_bytes(), stored).is_ok();
        matches && hash.is_some()
    })
    .await
}

/// Whether a hash was made with other parameters than today's.
pub fn is_outdated(hash: &str) -> bool {
    let params = argon2::Params::default();
    let wanted = format!("m={},t={},p={}", params.m_cost(), params.t_cost(), params.p_cost());
    !(hash.starts_with("$argon2id$") && hash.contains(&wanted))
}

/// On a thread that serves no requests, when it is its turn.
async fn slowly<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DirectoryError> {
    let damaged = |error: &dyn std::fmt::Display| DirectoryError::Damaged(error.to_string());
    let _turn = TURNS.acquire().await.map_err(|error| damaged(&error))?;
    tokio::task::spawn_blocking(work).await.map_err(|error| damaged(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_matches_and_old_hashes_are_known() {
        let hash = hash("correct horse").await.expect("hashed");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(verify("correct horse", Some(&hash)).await.expect("done"));
        assert!(!verify("wrong horse", Some(&hash)).await.expect("done"));
        assert!(!verify("nobody has this password", None).await.expect("done"));
        assert!(!is_outdated(&hash));
        assert!(is_outdated(&hash.replace("t=2", "t=1")));
    }
}
