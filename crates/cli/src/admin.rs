//! What the administration commands share.

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vigie_client::Client;
use vigie_contract::administration::List;

/// The rows of a list.
pub async fn list(client: &Client, path: &str) -> Result<Vec<Value>> {
    let list: List<Value> = serde_json::from_value(client.get(path, &[]).await?)?;
    Ok(list.value)
}

/// Sends a body and reads the answer.
pub async fn send<T: DeserializeOwned>(
    client: &Client,
    method: reqwest::Method,
    path: &str,
    body: &impl Serialize,
) -> Result<T> {
    let answer = client.send(method, path, Some(&serde_json::to_value(body)?)).await?;
    Ok(serde_json::from_value(answer)?)
}
