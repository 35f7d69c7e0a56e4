//! An origin that breaks in every way an origin can, and counts what it was given.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// As it should.
    None,
    /// Not until this changes.
    Hang,
    /// Byte by byte.
    Slow,
    /// With half of the body, then a reset.
    ResetInBody,
    /// With something that is no HTTP.
    Garbage,
    /// As it should, but it closes the connection when the next request begins to arrive.
    CloseOnReuse,
    /// It reads the request and closes the connection.
    CloseUnanswered,
}

/// What is answered where the whole answer comes.
pub(crate) const BODY: &str = "whole body";

/// An origin over HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) address: SocketAddr,
    fault: watch::Sender<Fault>,
    seen: Arc<Mutex<HashMap<String, u32>>>,
    accepting: JoinHandle<()>,
}

impl Faulty {
    pub(crate) async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let socket = TcpListener::bind(address).await.unwrap();
        let address = socket.local_addr().unwrap();
        let fault = watch::Sender::new(Fault::None);
        let seen: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
        let (watched, counted) = (fault.clone(), seen.clone());
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = socket.accept().await {
                connections.spawn(serve(stream, watched.subscribe(), counted.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            fault,
            seen,
            accepting,
        }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// How often each `x-test-id` was read here.
    pub(crate) fn deliveries(&self) -> HashMap<String, u32> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends at once, with all its connections; nobody listens at its address any more.
    pub(crate) async fn kill(mut self) -> SocketAddr {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
        self.address
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    mut fault: watch::Receiver<Fault>,
    seen: Arc<Mutex<HashMap<String, u32>>>,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut buffer = Vec::new();
    let mut served = 0;
    loop {
        if served > 0 && *fault.borrow() == Fault::CloseOnReuse {
            // Nothing of the request is looked at: its bytes meet a closed socket.
            stream.readable().await.ok()?;
            return None;
        }
        let id = read_request(&mut stream, &mut buffer).await?;
        *seen.lock().unwrap().entry(id).or_default() += 1;
        let current = *fault.borrow();
        answer(&mut stream, current, &mut fault).await?;
        served += 1;
    }
}

/// Reads a request with its body; what it is called.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(buffer).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            let field = |name: &str| {
                let mut lines = text[..end].lines();
                lines.find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name)
                        .then(|| value.trim().to_owned())
                })
            };
            let length = field("content-length").map_or(0, |length| length.parse().unwrap());
            if buffer.len() >= end + 4 + length {
                buffer.drain(..end + 4 + length);
                return Some(field("x-test-id").unwrap_or_default());
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

async fn answer(
    stream: &mut TcpStream,
    current: Fault,
    fault: &mut watch::Receiver<Fault>,
) -> Option<()> {
    let whole = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    match current {
        Fault::None | Fault::CloseOnReuse => stream.write_all(whole.as_bytes()).await.ok(),
        Fault::Hang => {
            fault.wait_for(|fault| *fault != Fault::Hang).await.ok()?;
            stream.write_all(whole.as_bytes()).await.ok()
        }
        Fault::Slow => {
            let mut ticks = tokio::time::interval(Duration::from_millis(2));
            for byte in whole.as_bytes() {
                ticks.tick().await;
                stream.write_all(&[*byte]).await.ok()?;
            }
            Some(())
        }
        Fault::ResetInBody => {
            let half = whole.len() - BODY.len() / 2;
            stream.write_all(&whole.as_bytes()[..half]).await.ok()?;
            stream.set_zero_linger().ok()?;
            None
        }
        Fault::Garbage => {
            stream.write_all(b"\0\xffHTTP no more\r\n\r\n").await.ok()?;
            None
        }
        Fault::CloseUnanswered => None,
    }
}
