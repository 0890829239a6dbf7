//! What sensors send besides results: packages, transcripts, files. It arrives in pieces, which are
//! kept in the database so that every node can take and hand out each of them.

use super::store;
use crate::edge::ApiError;
use crate::state::State;
use axum::body::Body;
use futures::stream;
use sha2::{Digest as _, Sha256};
use vigie_contract::sensor::{
    Command, FileReference, LiveCommand, MAX_UPLOAD_BYTES, UPLOAD_PIECE_BYTES, UploadEnd,
    UploadState, is_file_name,
};

/// Uploads are kept this long after their order, in microseconds.
const KEPT: i64 = 30 * 86_400_000_000;

/// An upload that arrived whole.
pub struct Complete {
    pub name: String,
    pub size: i64,
}

/// The tenant of an order and the library files that it names.
pub async fn files_of_order(
    state: &State,
    machine: &str,
    id: &str,
) -> Result<(String, Vec<FileReference>), ApiError> {
    let select = "SELECT tenant, command FROM machine_actions WHERE id = $1 AND machine = $2";
    let rows = state.database.read(select, &[id.into(), machine.into()]).await?;
    let row = rows.first().ok_or_else(|| ApiError::not_found("Order", id))?;
    let command: Command = serde_json::from_str(row.text(1)?).map_err(ApiError::internal)?;
    let files = match command {
        Command::RunAntiVirusScan { rules, .. } => rules,
        Command::LiveResponse { commands } => (commands.into_iter())
            .filter_map(|command| match command {
                LiveCommand::PutFile { file } => Some(file),
                LiveCommand::RunScript { script, .. } => Some(script),
                LiveCommand::GetFile { .. } => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    Ok((row.text(0)?.to_owned(), files))
}

/// Stores a piece if it is the next one; how much there is now.
pub async fn piece(
    state: &State,
    machine: &str,
    (id, position): (&str, i64),
    offset: u64,
    bytes: &[u8],
) -> Result<UploadState, ApiError> {
    if bytes.len() > UPLOAD_PIECE_BYTES {
        return Err(ApiError::too_large(UPLOAD_PIECE_BYTES));
    }
    let mut transaction = state.database.begin().await?;
    let known = store::known(&mut transaction, machine, id).await?;
    let sends = matches!(known.kind.as_str(), "CollectInvestigationPackage" | "LiveResponse");
    if known.status != "InProgress" || !sends {
        return Err(ApiError::new(409, "OrderEnded", "this order takes no upload"));
    }
    let select = "SELECT received, sha256 FROM uploads WHERE action = $1 AND position = $2";
    let rows = transaction.read(select, &[id.into(), position.into()]).await?;
    let (received, ended) = match rows.first() {
        Some(row) => (row.integer(0)?.unsigned_abs(), row.optional_text(1)?.is_some()),
        None => (0, false),
    };
    let length = bytes.len() as u64;
    if offset != received || ended || length == 0 {
        return Ok(UploadState { received });
    }
    if received + length > MAX_UPLOAD_BYTES {
        return Err(ApiError::too_large(MAX_UPLOAD_BYTES as usize));
    }
    let insert =
        "INSERT INTO upload_pieces (action, position, start, bytes) VALUES ($1, $2, $3, $4)";
    let start = received as i64;
    let values = [id.into(), position.into(), start.into(), bytes.to_vec().into()];
    transaction.execute(insert, &values).await?;
    let received = received + length;
    let set = "INSERT INTO uploads (action, position, received) VALUES ($1, $2, $3) \
               ON CONFLICT (action, position) DO UPDATE SET received = excluded.received";
    transaction.execute(set, &[id.into(), position.into(), (received as i64).into()]).await?;
    transaction.commit().await?;
    Ok(UploadState { received })
}

/// Ends an upload whose size and hash are right; one that is wrong is dropped and may begin anew.
pub async fn end(
    state: &State,
    machine: &str,
    (id, position): (&str, i64),
    end: &UploadEnd,
) -> Result<(), ApiError> {
    if !is_file_name(&end.name) {
        return Err(ApiError::body("name: the name of a file without a folder is expected"));
    }
    let mut transaction = state.database.begin().await?;
    store::known(&mut transaction, machine, id).await?;
    drop(transaction);
    let mut hash = Sha256::new();
    let mut size = 0;
    while let Some(bytes) = read_piece(state, id, position, size).await? {
        hash.update(&bytes);
        size += bytes.len() as i64;
    }
    let sha256: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if size.unsigned_abs() != end.size || sha256 != end.sha256 {
        let key = [id.into(), position.into()];
        let mut transaction = state.database.begin().await?;
        let pieces = "DELETE FROM upload_pieces WHERE action = $1 AND position = $2";
        transaction.execute(pieces, &key).await?;
        let upload = "DELETE FROM uploads WHERE action = $1 AND position = $2";
        transaction.execute(upload, &key).await?;
        transaction.commit().await?;
        let message = format!(
            "the upload has {size} bytes and the SHA-256 {sha256}, not {} and {}",
            end.size, end.sha256
        );
        return Err(ApiError::new(422, "UploadDiffers", message));
    }
    let set = "INSERT INTO uploads (action, position, received, name, sha256) \
               VALUES ($1, $2, $3, $4, $5) ON CONFLICT (action, position) \
               DO UPDATE SET name = excluded.name, sha256 = excluded.sha256";
    let values =
        [id.into(), position.into(), size.into(), end.name.as_str().into(), sha256.as_str().into()];
    state.database.execute(set, &values).await?;
    Ok(())
}

async fn read_piece(
    state: &State,
    id: &str,
    position: i64,
    start: i64,
) -> Result<Option<Vec<u8>>, ApiError> {
    let select =
        "SELECT bytes FROM upload_pieces WHERE action = $1 AND position = $2 AND start = $3";
    let rows = state.database.read(select, &[id.into(), position.into(), start.into()]).await?;
    rows.first().map(|row| Ok(row.bytes(0)?.to_vec())).transpose()
}

/// An upload that arrived whole; `None` before that.
pub async fn complete(
    state: &State,
    id: &str,
    position: i64,
) -> Result<Option<Complete>, ApiError> {
    let select = "SELECT name, received FROM uploads \
                  WHERE action = $1 AND position = $2 AND sha256 IS NOT NULL";
    let rows = state.database.read(select, &[id.into(), position.into()]).await?;
    let complete = |row: &vigie_database::Row| {
        Ok(Complete { name: row.text(0)?.to_owned(), size: row.integer(1)? })
    };
    rows.first().map(complete).transpose()
}

/// The bytes, piece by piece.
pub fn body(state: State, id: String, position: i64) -> Body {
    let pieces = stream::try_unfold((state, id, 0), move |(state, id, start)| async move {
        let piece = read_piece(&state, &id, position, start).await;
        let piece = piece.map_err(|error| std::io::Error::other(error.message))?;
        Ok::<_, std::io::Error>(piece.map(|bytes| {
            let next = start + bytes.len() as i64;
            (axum::body::Bytes::from(bytes), (state, id, next))
        }))
    });
    Body::from_stream(pieces)
}

/// Drops what is too old.
pub async fn sweep(state: &State) -> Result<(), ApiError> {
    let before = state.now() - KEPT;
    for table in ["upload_pieces", "uploads"] {
        let delete = format!(
            "DELETE FROM {table} WHERE action IN \
             (SELECT id FROM machine_actions WHERE created < $1)"
        );
        state.database.execute(&delete, &[before.into()]).await?;
    }
    Ok(())
}
