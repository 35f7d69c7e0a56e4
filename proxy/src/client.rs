//! Who is at the other end of a client connection.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::head::RequestHead;
use crate::server::Listener;
use crate::snapshot::Route;
use crate::tls::Addressed;

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
    /// What it asked for in the TLS handshake, if it named something.
    addressed: Option<Addressed>,
}

impl Client {
    pub(crate) fn new(
        peer: SocketAddr,
        secure: bool,
        listener: Arc<Listener>,
        addressed: Option<Addressed>,
    ) -> Self {
        let peer_text = peer.ip().to_canonical().to_string().into();
        Self {
            peer,
            peer_text,
            secure,
            listener,
            addressed,
        }
    }

    /// Whether a request does not belong on this connection: it is for a host that routes know by name, or
    /// whose clients have to show a certificate, and the connection was opened for another one. A host
    /// that only routes for every host serve is as good as any other. Once a request over TLS, no
    /// allocation.
    pub(crate) fn is_misdirected(&self, head: &RequestHead, route: &Route) -> bool {
        match (&self.addressed, head.authority()) {
            (Some(addressed), Some(authority)) if route.names_host || addressed.is_strict() => {
                !addressed.is_for(authority)
            }
            _ => false,
        }
    }
}
