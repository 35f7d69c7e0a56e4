//! Who is at the other end of a client connection.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::server::Listener;

/// A connected client. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Its address: the TCP peer's, or the one the PROXY protocol header names.
    pub(crate) peer: SocketAddr,
    /// The same as it is written into headers.
    pub(crate) peer_text: Arc<str>,
    /// Whether it came over TLS.
    pub(crate) secure: bool,
    /// Where it connected to.
    pub(crate) listener: Arc<Listener>,
}

impl Client {
    pub(crate) fn new(peer: SocketAddr, secure: bool, listener: Arc<Listener>) -> Self {
        let peer_text = peer.ip().to_canonical().to_string().into();
        Self {
            peer,
            peer_text,
            secure,
            listener,
        }
    }
}
