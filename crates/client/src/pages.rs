//! Lists along `@odata.nextLink`.

use crate::{Client, Error};
use reqwest::Method;
use serde_json::Value;
use url::Url;

/// The pages of one list.
pub struct Pages {
    client: Client,
    next: Option<Url>,
}

impl Pages {
    pub(crate) fn new(client: Client, first: Url) -> Pages {
        Pages { client, next: Some(first) }
    }

    /// The rows of the next page, or `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<Value>>, Error> {
        let Some(url) = self.next.take() else { return Ok(None) };
        let origin = url.origin();
        let mut page = self.client.request(Method::GET, url, None).await?;
        if let Some(link) = page["@odata.nextLink"].as_str() {
            let link = Url::parse(link)
                .map_err(|error| Error::Unexpected(format!("bad @odata.nextLink: {error}")))?;
            // The token must not follow a link to another host.
            if link.origin() != origin {
                return Err(Error::Unexpected(format!("@odata.nextLink leaves the host: {link}")));
            }
            self.next = Some(link);
        }
        match page["value"].take() {
            Value::Array(rows) => Ok(Some(rows)),
            _ => Err(Error::Unexpected("the answer has no array `value`".to_owned())),
        }
    }

    /// All remaining rows, at most `limit`.
    pub async fn all(mut self, limit: usize) -> Result<Vec<Value>, Error> {
        let mut rows = Vec::new();
        while rows.len() < limit {
            let Some(page) = self.next().await? else { break };
            rows.extend(page);
        }
        rows.truncate(limit);
        Ok(rows)
    }
}
