//! Whole requests through a connection of a worker, with client and origin on the same thread.
//!
//! Loopback delivers before a write returns, nothing else runs on the thread, and no deadline comes
//! up: who is woken when is the same each time. What the client and the origin take is in the count,
//! but they do next to nothing; [`RoundTrip::direct`] has them alone.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use super::{client, listener, worker};
use crate::connection;
use crate::snapshot::Snapshot;

/// The end of a head.
const END: &[u8] = b"\r\n\r\n";

/// Room for one message.
const BUFFER_BYTES: usize = 16 << 10;

/// A client connection that requests can be sent over.
pub struct RoundTrip {
    runtime: LocalRuntime,
    client: TcpStream,
    request: Vec<u8>,
    body: Vec<u8>,
    buffer: Vec<u8>,
}

impl fmt::Debug for RoundTrip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoundTrip")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl RoundTrip {
    /// A client of a worker that follows the snapshot `snapshot_for` makes for the origin's address.
    /// The origin gives `answer` to everything.
    ///
    /// # Errors
    /// When a socket, the runtime or a thread cannot be made.
    pub fn new(
        snapshot_for: impl FnOnce(SocketAddr) -> Arc<Snapshot>,
        request: &[u8],
        answer: &[u8],
    ) -> io::Result<Self> {
        Self::start(request, answer, async |origin| {
            let address = origin.local_addr()?;
            tokio::task::spawn_local(serve(origin, answer.to_vec()));
            let worker = worker(&snapshot_for(address))?;
            let (socket, stream) = pair().await?;
            tokio::task::spawn_local(async move {
                connection::serve(&worker, stream, client().peer, listener()).await;
            });
            Ok(socket)
        })
    }

    /// The same client straight at the same origin.
    ///
    /// # Errors
    /// When a socket or the runtime cannot be made.
    pub fn direct(request: &[u8], answer: &[u8]) -> io::Result<Self> {
        Self::start(request, answer, async |origin| {
            let client = TcpStream::connect(origin.local_addr()?).await?;
            tokio::task::spawn_local(serve(origin, answer.to_vec()));
            Ok(client)
        })
    }

    fn start(
        request: &[u8],
        answer: &[u8],
        connect: impl AsyncFnOnce(TcpListener) -> io::Result<TcpStream>,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build_local(LocalOptions::default())?;
        let client = runtime.block_on(async {
            let origin = TcpListener::bind("127.0.0.1:0").await?;
            let client = connect(origin).await?;
            client.set_nodelay(true)?;
            io::Result::Ok(client)
        })?;
        let head = memchr::memmem::find(answer, END).map_or(0, |at| at + END.len());
        Ok(Self {
            runtime,
            client,
            request: request.to_vec(),
            body: answer[head..].to_vec(),
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Sends so many requests, each when the one before has been answered; the bytes of all answers.
    ///
    /// # Errors
    /// When one is not answered with 200 and the origin's body.
    pub fn send(&mut self, requests: usize) -> io::Result<usize> {
        let Self {
            runtime,
            client,
            request,
            body,
            buffer,
        } = self;
        runtime.block_on(async {
            let mut bytes = 0;
            for _ in 0..requests {
                client.write_all(request).await?;
                bytes += receive(client, body, buffer).await?;
            }
            Ok(bytes)
        })
    }
}

/// Reads one answer, up to the end of its body.
async fn receive(client: &mut TcpStream, body: &[u8], buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while !buffer[..filled].ends_with(body) || filled == 0 {
        let read = client.read(&mut buffer[filled..]).await?;
        filled += read;
        if read == 0 || !buffer[..filled].starts_with(b"HTTP/1.1 200 ") {
            let answer = String::from_utf8_lossy(&buffer[..filled]).into_owned();
            return Err(io::Error::new(io::ErrorKind::InvalidData, answer));
        }
    }
    Ok(filled)
}

/// The two ends of a connection.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listening = TcpListener::bind("127.0.0.1:0").await?;
    let near = TcpStream::connect(listening.local_addr()?).await?;
    let (far, _) = listening.accept().await?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// An origin that answers every head the same.
async fn serve(origin: TcpListener, answer: Vec<u8>) {
    while let Ok((stream, _)) = origin.accept().await {
        tokio::task::spawn_local(answer_all(stream, answer.clone()));
    }
}

async fn answer_all(mut stream: TcpStream, answer: Vec<u8>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        filled += read;
        if read == 0 {
            return Ok(());
        }
        if buffer[..filled].ends_with(END) {
            stream.write_all(&answer).await?;
            filled = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    #[test]
    fn every_request_is_answered_over_one_connection() {
        let mut direct = RoundTrip::direct(REQUEST, ANSWER).expect("sockets");
        assert_eq!(direct.send(3).expect("answers"), 3 * ANSWER.len());
    }

    #[test]
    fn an_answer_that_is_not_the_origins_is_an_error() {
        let nothing = |_| Arc::new(Snapshot::empty());
        let mut refused = RoundTrip::new(nothing, REQUEST, ANSWER).expect("sockets");
        let error = refused.send(1).expect_err("there is no route").to_string();
        assert!(error.starts_with("HTTP/1.1 404 "), "{error}");
    }
}
