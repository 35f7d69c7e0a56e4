//! One client connection, from accept to its protocol.
//!
//! PROXY protocol header if the listener expects one, then the TLS handshake if it has TLS, then
//! HTTP/2 or HTTP/1: by ALPN over TLS, by the connection preface without it.
//!
//! The future of a connection is as large as the largest thing it may ever do, and lives as long as the
//! connection; so what is rare or short is boxed here and below, and an idle connection costs little.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::client::Client;
use crate::h1::transport::{Filled, Transport};
use crate::limit::Limit;
use crate::server::Listener;
use crate::stream::Stream;
use crate::timer::Timer;
use crate::worker::Worker;
use crate::{h1, h2, proxy_protocol};

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves an accepted connection until it ends.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    mut socket: TcpStream,
    mut peer: SocketAddr,
    listener: Arc<Listener>,
) {
    let timer = worker.wheel.timer();
    worker.read_clock();
    if listener.proxy_protocol {
        match within(
            &timer,
            listener.limits.header_read,
            proxy_protocol::read(&mut socket),
        )
        .await
        {
            Some(Ok(named)) => peer = named.unwrap_or(peer),
            failed => {
                tracing::debug!(%peer, ?failed, "no valid PROXY protocol header");
                return;
            }
        }
    }
    // Counted only now: behind a balancer the client is known only from the header.
    let Some(_place) = worker.shared.connections.admit_client(peer.ip(), &listener) else {
        worker.stats().limits.hit(Limit::ConnectionsPerClient);
        tracing::debug!(%peer, "client has too many connections");
        return;
    };
    let (stream, negotiated, addressed) = match &listener.tls {
        None => (Stream::Plain(socket), None, None),
        Some(tls) => {
            let accepted = Box::pin(TlsAcceptor::from(tls.config().clone()).accept(socket));
            match within(&timer, listener.limits.tls_handshake, accepted).await {
                Some(Ok(stream)) => {
                    let session = stream.get_ref().1;
                    let h2 = session.alpn_protocol() == Some(b"h2");
                    let addressed = session.server_name().map(|name| tls.addressed(name));
                    (Stream::Tls(Box::new(stream.into())), Some(h2), addressed)
                }
                failed => {
                    worker.stats().handshake_failures.add(1);
                    worker
                        .stats()
                        .count_limit(failed.is_none().then_some(Limit::TlsHandshakeTimeout));
                    tracing::debug!(%peer, timed_out = failed.is_none(), "TLS handshake failed");
                    return;
                }
            }
        }
    };
    let client = Client::new(peer, listener.tls.is_some(), listener, addressed);
    let transport = Transport::new(stream, &worker.buffers);
    let speaks_h2 = match negotiated {
        Some(h2) => h2,
        None => speaks_h2(&transport, &timer, client.listener.limits.header_read).await,
    };
    drop(timer);
    if !speaks_h2 {
        h1::server::serve(worker.clone(), client, transport).await;
    } else if let Some((stream, prefix)) = transport.into_parts() {
        Box::pin(h2::server::serve(worker.clone(), client, stream, prefix)).await;
    }
}

/// The outcome of `future`, or `None` when it took too long.
async fn within<F: Future>(timer: &Timer, limit: Option<Duration>, future: F) -> Option<F::Output> {
    timer.set(limit);
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => timer.poll_expired(cx).map(|()| None),
    })
    .await
}

/// Whether the connection begins with the preface of HTTP/2. Anything else, an early end and a
/// timeout included, is left to HTTP/1 to answer.
async fn speaks_h2(transport: &Rc<Transport>, timer: &Timer, limit: Option<Duration>) -> bool {
    timer.set(limit);
    poll_fn(|cx| {
        loop {
            let input = transport.input();
            let arrived = input.len().min(PREFACE.len());
            if input[..arrived] != PREFACE[..arrived] {
                return Poll::Ready(false);
            }
            if arrived == PREFACE.len() {
                return Poll::Ready(true);
            }
            drop(input);
            match transport.poll_fill(cx, switchback_config::defaults::READ_BYTES) {
                Poll::Ready(Ok(Filled::Some)) => {}
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => return timer.poll_expired(cx).map(|()| false),
            }
        }
    })
    .await
}
