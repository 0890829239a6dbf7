//! TLS connections → requests.

use crate::refusal::{Answers, Explained};
use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use vigie_identity::PeerAddress;

/// How long a handshake and a request's head may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of a request's head over HTTP/2: as much as HTTP/1.1 takes, since filters stand in it.
const LARGEST_HEAD: u32 = 128 * 1024;

/// Serves until cancelled; requests under way are finished by `connections`.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    stop: CancellationToken,
    connections: TaskTracker,
) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: others will be closed.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
        connections.spawn(async move {
            let stream = match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "no TLS connection");
                    return;
                }
                Err(_) => return,
            };
            // Who connects counts in sign-in's protection and audit log.
            let answers = Answers::default();
            let begun = answers.clone();
            let service = tower::service_fn(move |mut request: http::Request<Incoming>| {
                request.extensions_mut().insert(PeerAddress(peer.ip()));
                let answer = begun.begin(request.version());
                let response = router.clone().oneshot(request);
                async move { response.await.map(|ready| ready.map(|body| answer.with(body))) }
            });
            let service = TowerToHyperService::new(service);
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1000);
            builder.http2().max_header_list_size(LARGEST_HEAD);
            let stream = TokioIo::new(Explained::new(stream, answers));
            let connection = builder.serve_connection(stream, service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.as_mut().await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, error, "connection ended");
            }
        });
    }
}
