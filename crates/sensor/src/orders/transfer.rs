//! Files that orders bring from and to the server. Calls block; every one is repeated until the
//! server is reached, the order is over or the order is to stop.

use crate::client::CallError;
use crate::identity::hex;
use crate::link::{Backoff, Link};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::future::Future;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vigie_contract::sensor::{
    FileReference, MAX_UPLOAD_BYTES, OrderResult, UPLOAD_PIECE_BYTES, UploadEnd,
};

/// The way to the server of one order.
pub struct Transfer {
    pub link: Arc<Link>,
    pub runtime: Handle,
    pub order: Uuid,
    /// Cancelled when the order is to stop or the sensor ends.
    pub stop: CancellationToken,
}

impl Transfer {
    /// A library file, checked against the hash that stands in the signed order.
    pub fn download(&self, file: &FileReference) -> Result<Bytes> {
        let bytes = self.repeat(|link, token| async move {
            link.client.order_file(&token, self.order, &file.sha256).await
        })?;
        let found = hex(&Sha256::digest(&bytes));
        ensure!(
            found == file.sha256 && bytes.len() as u64 == file.size,
            "the library file {} is not the one that was ordered",
            file.name
        );
        Ok(bytes)
    }

    /// Sends a file as the order's upload of this number; goes on where an earlier attempt ended.
    pub fn upload(&self, position: usize, path: &Path, name: &str) -> Result<()> {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        let size = file.metadata()?.len();
        ensure!(size <= MAX_UPLOAD_BYTES, "{size} bytes are more than the server takes");
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        while let read @ 1.. = file.read(&mut buffer)? {
            hash.update(&buffer[..read]);
        }
        let upload = (self.order, position);
        let end = UploadEnd { name: name.to_owned(), size, sha256: hex(&hash.finalize()) };
        let mut received = self.piece(upload, 0, Bytes::new())?;
        while received < size {
            file.seek(SeekFrom::Start(received))?;
            let mut piece = vec![0; UPLOAD_PIECE_BYTES.min((size - received) as usize)];
            file.read_exact(&mut piece).context("the file was cut while it was sent")?;
            let now = self.piece(upload, received, piece.into())?;
            ensure!(now != received, "the server takes no more of the upload");
            received = now;
        }
        self.repeat(|link, token| {
            let end = end.clone();
            async move { link.client.upload_end(&token, upload, &end).await }
        })
    }

    fn piece(&self, upload: (Uuid, usize), offset: u64, bytes: Bytes) -> Result<u64> {
        let state = self.repeat(|link, token| {
            let bytes = bytes.clone();
            async move { link.client.upload_piece(&token, upload, offset, bytes).await }
        })?;
        Ok(state.received)
    }

    /// Tells the server how the order goes on, once. False when it is over and has to stop.
    pub fn progress(&self, result: &OrderResult) -> bool {
        let told = self.runtime.block_on(async {
            let token = self.link.token().await?;
            self.link.client.order_result(&token, self.order, result).await
        });
        !told.is_err_and(|error| error.is_order_over())
    }

    fn repeat<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        call: impl Fn(Arc<Link>, String) -> F,
    ) -> Result<T> {
        let mut backoff = Backoff::new(&self.order.to_string());
        self.runtime.block_on(async {
            loop {
                let attempt = async {
                    let token = self.link.token().await?;
                    let outcome = call(self.link.clone(), token.clone()).await;
                    if outcome.as_ref().is_err_and(CallError::is_session) {
                        self.link.forget(&token).await;
                    }
                    outcome
                };
                let error = tokio::select! {
                    () = self.stop.cancelled() => bail!("the order was stopped"),
                    outcome = attempt => match outcome {
                        Ok(answer) => return Ok(answer),
                        Err(error) => error,
                    },
                };
                let passing = match &error {
                    CallError::Unreachable(_) => true,
                    CallError::Refused { status, .. } => {
                        matches!(status, 401 | 408 | 429 | 500 | 502..=504)
                    }
                    CallError::Unreadable(_) => false,
                };
                if !passing {
                    return Err(error.into());
                }
                tracing::warn!(%error, "transfer is tried again");
                tokio::select! {
                    () = self.stop.cancelled() => bail!("the order was stopped"),
                    () = tokio::time::sleep(backoff.next_wait()) => {}
                }
            }
        })
    }
}
