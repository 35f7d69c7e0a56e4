//! A way to somewhere else, whose connections can be cut, slowed down, or held up.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a relay does with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Lets it through.
    Open,
    /// Lets it through, each piece after this time.
    Slow(Duration),
    /// Keeps it, as a network that has come apart: nothing arrives, and nobody is told.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    cuts: watch::Sender<()>,
    passage: watch::Sender<Passage>,
}

impl Relay {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (cuts, cut) = watch::channel(());
        let (passage, passes) = watch::channel(Passage::Open);
        tokio::spawn(async move {
            while let Ok((near, _)) = socket.accept().await {
                let (mut cut, passes) = (cut.clone(), passes.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    // Whoever is not there yet refuses, as it would without the relay.
                    let Ok(far) = TcpStream::connect(to).await else {
                        return;
                    };
                    tokio::select! {
                        () = carry(near, far, passes) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            cuts,
            passage,
        }
    }

    /// Cuts all connections there are; new ones are let through.
    pub(crate) fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// From now on.
    pub(crate) fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream, passes: watch::Receiver<Passage>) {
    let was_open = *passes.borrow() == Passage::Open;
    let mut changes = passes.clone();
    if was_open {
        tokio::select! {
            _ = copy_bidirectional(&mut near, &mut far) => return,
            _ = changes.wait_for(|passage| *passage != Passage::Open) => {}
        }
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::join!(
        pump(near_in, far_out, passes.clone()),
        pump(far_in, near_out, passes)
    );
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut passes: watch::Receiver<Passage>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let passage = passes.wait_for(|passage| *passage != Passage::Closed).await;
        let Ok(passage) = passage.map(|passage| *passage) else {
            return;
        };
        if let Passage::Slow(delay) = passage {
            let nothing = std::future::pending::<()>();
            tokio::time::timeout(delay, nothing).await.unwrap_err();
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
