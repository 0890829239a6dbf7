//! Refusals of what is no HTTP/1.1 request, or is too long for one, in the API's one shape of errors:
//! the HTTP library gives them a status and nothing else, and asks nobody.

use axum::body::Body;
use bytes::Bytes;
use http::Version;
use hyper::body::{Frame, SizeHint};
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

/// What a connection's service answers at present: the library refuses by itself only while that is
/// nothing, and whatever an answer holds is not to be taken for a refusal.
#[derive(Clone, Default)]
pub struct Answers(Arc<UnderWay>);

#[derive(Default)]
struct UnderWay {
    requests: AtomicUsize,
    /// Answers have ended of which the library may still have bytes to write.
    unwritten: AtomicBool,
}

impl Answers {
    /// A request came in. Over HTTP/2, where no refusal is bare and ended answers may wait for their
    /// window, that is for good.
    pub fn begin(&self, version: Version) -> Answer {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        self.0.unwritten.store(true, Ordering::Relaxed);
        Answer((version != Version::HTTP_2).then(|| self.clone()))
    }

    fn are_none(&self) -> bool {
        self.0.requests.load(Ordering::Relaxed) == 0 && !self.0.unwritten.load(Ordering::Relaxed)
    }

    /// The library flushes once it has written what it has.
    fn flushed(&self) {
        if self.0.requests.load(Ordering::Relaxed) == 0 {
            self.0.unwritten.store(false, Ordering::Relaxed);
        }
    }
}

/// An answer that is being made; dropped when it has ended.
pub struct Answer(Option<Answers>);

impl Answer {
    pub fn with(self, body: Body) -> Answered {
        Answered { body, _answer: self }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(answers) = &self.0 {
            answers.0.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A response's body, under way until it is dropped.
pub struct Answered {
    body: Body,
    _answer: Answer,
}

impl hyper::body::Body for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection on which the library's bare refusals get a body.
pub struct Explained<S> {
    stream: S,
    answers: Answers,
    /// What is written instead of a refusal, and how far it is.
    text: Vec<u8>,
    written: usize,
}

impl<S> Explained<S> {
    pub fn new(stream: S, answers: Answers) -> Explained<S> {
        Explained { stream, answers, text: Vec::new(), written: 0 }
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
        if self.answers.are_none()
            && let Some(text) = explained(bytes)
        {
            (self.text, self.written) = (text, 0);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        // A refusal is a head alone.
        if let [bytes] = slices {
            return self.poll_write(context, bytes);
        }
        ready!(self.poll_text(context))?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        ready!(self.poll_text(context))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.answers.flushed();
        Poll::Ready(Ok(()))
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
    use super::{Answers, Explained, explained};
    use axum::body::Body;
    use http::Version;
    use std::io::IoSlice;
    use tokio::io::AsyncWriteExt as _;

    const BARE: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test]
    async fn what_an_answer_holds_is_no_refusal() {
        let answers = Answers::default();
        let mut stream = Explained::new(Vec::<u8>::new(), answers.clone());
        let body = answers.begin(Version::HTTP_11).with(Body::from(BARE));
        stream.write_all(BARE).await.expect("written");
        stream.flush().await.expect("flushed");
        stream.write_all(BARE).await.expect("written");
        drop(body);
        // The last of it is written when it has ended already.
        stream.write_all(BARE).await.expect("written");
        assert_eq!(stream.stream, BARE.repeat(3));
        stream.flush().await.expect("flushed");
        stream.stream.clear();
        stream.write_all(BARE).await.expect("written");
        stream.flush().await.expect("flushed");
        let text = String::from_utf8(stream.stream).expect("text");
        assert!(text.contains("BadRequest"), "{text}");

        let mut stream = Explained::new(Vec::<u8>::new(), answers.clone());
        drop(answers.begin(Version::HTTP_2).with(Body::empty()));
        stream.flush().await.expect("flushed");
        stream.write_all(BARE).await.expect("written");
        assert_eq!(stream.stream, BARE, "over HTTP/2");
    }

    #[tokio::test]
    async fn slices_are_written_together_and_behind_what_waits() {
        let mut stream = Explained::new(Vec::<u8>::new(), Answers::default());
        assert!(tokio::io::AsyncWrite::is_write_vectored(&stream));
        let written = stream.write_vectored(&[IoSlice::new(BARE)]).await.expect("written");
        assert_eq!(written, BARE.len());
        assert!(stream.stream.is_empty(), "the text waits");
        let slices = [IoSlice::new(b"one "), IoSlice::new(b"two")];
        assert_eq!(stream.write_vectored(&slices).await.expect("written"), 7);
        let text = String::from_utf8(stream.stream).expect("text");
        assert!(text.contains("BadRequest") && text.ends_with("}one two"), "{text}");
    }

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
