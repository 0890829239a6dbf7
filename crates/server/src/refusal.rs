//! Refusals of what is no HTTP/1.1 request, or is too long for one, in the API's one shape of errors:
//! the HTTP library gives them a status and nothing else, and asks nobody.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

/// A connection on which the library's bare refusals get a body.
pub struct Explained<S> {
    stream: S,
    /// What is written instead of a refusal, and how far it is.
    text: Vec<u8>,
    written: usize,
}

impl<S> Explained<S> {
    pub fn new(stream: S) -> Explained<S> {
        Explained { stream, text: Vec::new(), written: 0 }
    }
}

impl<S: AsyncWrite + Unpin> Explained<S> {
    fn poll_text(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while self.written < self.text.len() {
            let rest = &self.text[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Explained<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        ready!(self.poll_text(context))?;
        if let Some(text) = explained(bytes) {
            (self.text, self.written) = (text, 0);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        ready!(self.poll_text(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        ready!(self.poll_text(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What to write instead of a refusal without a body; `None` for everything else.
fn explained(head: &[u8]) -> Option<Vec<u8>> {
    let status = head.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
    if !head.ends_with(b"\r\n\r\n") {
        return None;
    }
    let (line, code, message) = match status {
        b"00" => ("400 Bad Request", "BadRequest", "The request is not a valid HTTP/1.1 request."),
        b"14" => (
            "414 URI Too Long",
            "RequestUriTooLong",
            "The address of the request is longer than 65534 bytes. Send a shorter $filter.",
        ),
        b"31" => (
            "431 Request Header Fields Too Large",
            "RequestHeaderFieldsTooLarge",
            "The address and the headers of the request are too long.",
        ),
        _ => return None,
    };
    if !std::str::from_utf8(head).ok()?.to_ascii_lowercase().contains("\r\ncontent-length: 0\r\n") {
        return None;
    }
    let target = Uuid::new_v4().to_string();
    let error = serde_json::json!({"code": code, "message": message, "target": target});
    let body = serde_json::json!({ "error": error }).to_string();
    let text = format!(
        "HTTP/1.1 {line}\r\ncontent-type: application/json; charset=utf-8\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    Some(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::explained;

    #[test]
    fn only_bare_refusals_are_explained() {
        let bare = b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let text = String::from_utf8(explained(bare).expect("explained")).expect("text");
        assert!(text.starts_with("HTTP/1.1 414 URI Too Long\r\n"), "{text}");
        assert!(text.contains("RequestUriTooLong"), "{text}");
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 4",
            "{}",
        ] {
            assert_eq!(explained(other.as_bytes()), None, "{other}");
        }
    }
}
