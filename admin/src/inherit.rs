//! Listening sockets that somebody else has opened: a service manager (systemd socket activation), or
//! the process that this one takes over from.
//!
//! A socket belongs to the listener whose address it has. Where a listener's port is 0, its name
//! decides, and the address without the port. What is not inherited is bound as usual.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use listenfd::ListenFd;

/// Names of the sockets that a service manager passes on, separated by colons.
const NAMES: &str = "LISTEN_FDNAMES";

/// What the socket of the admin API is called among those of listeners.
pub(crate) const ADMIN: &str = "admin";

/// What the socket of the flag evaluation API is called.
pub(crate) const OFREP: &str = "ofrep";

/// Sockets that nobody has claimed yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Socket>,
}

#[derive(Debug)]
struct Socket {
    name: String,
    bound: SocketAddr,
    socket: TcpListener,
}

/// A service manager has passed on what cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// It is no listening TCP socket.
    #[error("socket {number} of the service manager is no listening TCP socket: {cause}")]
    Unusable {
        /// Its place among the sockets, from 0.
        number: usize,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// No listener has its address.
    #[error(
        "the service manager passes on a socket {name:?} bound to {bound}, but neither a listener nor admin has this address; correct ListenStream= or the config file"
    )]
    Unclaimed {
        /// What it is called.
        name: String,
        /// Where it listens.
        bound: SocketAddr,
    },
}

impl Inherited {
    /// What the service manager that started this process passes on; nothing if there is none.
    ///
    /// # Errors
    /// When something is no listening socket.
    pub fn from_service_manager() -> Result<Self, InheritError> {
        // Read first: taking the sockets removes it.
        let names = std::env::var(NAMES).unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut passed_on = ListenFd::from_env();
        let mut inherited = Self::default();
        for number in 0..passed_on.len() {
            let unusable = |cause| InheritError::Unusable { number, cause };
            let socket = passed_on.take_tcp_listener(number).map_err(unusable)?;
            let none = || unusable(io::ErrorKind::NotFound.into());
            let socket = socket.ok_or_else(none)?;
            let name = names.get(number).copied().unwrap_or_default();
            inherited.add(name.into(), socket).map_err(unusable)?;
        }
        Ok(inherited)
    }

    /// Adds a socket of the listener with this name.
    ///
    /// # Errors
    /// When it has no address, so is no socket that listens.
    pub(crate) fn add(&mut self, name: String, socket: TcpListener) -> io::Result<()> {
        let bound = socket.local_addr()?;
        self.sockets.push(Socket {
            name,
            bound,
            socket,
        });
        Ok(())
    }

    /// The sockets of a listener; none if it has to be bound.
    pub(crate) fn claim(&mut self, name: &str, configured: SocketAddr) -> Vec<TcpListener> {
        let mut claim = |same_ip: fn(IpAddr, IpAddr) -> bool| -> Vec<TcpListener> {
            let is_claimed = |socket: &mut Socket| socket.is_of(name, configured, same_ip);
            let claimed = self.sockets.extract_if(.., is_claimed);
            claimed.map(|socket| socket.socket).collect()
        };
        let exact = claim(|bound, configured| bound == configured);
        if !exact.is_empty() {
            return exact;
        }
        // A socket for [::] serves IPv4 too unless it was told not to.
        claim(|bound, configured| bound.is_unspecified() && configured.is_unspecified())
    }

    /// Requires that every socket was claimed.
    ///
    /// # Errors
    /// Names the first one that was not.
    pub(crate) fn require_claimed(&self) -> Result<(), InheritError> {
        let Some(socket) = self.sockets.first() else {
            return Ok(());
        };
        Err(InheritError::Unclaimed {
            name: socket.name.clone(),
            bound: socket.bound,
        })
    }
}

impl Socket {
    fn is_of(
        &self,
        name: &str,
        configured: SocketAddr,
        same_ip: fn(IpAddr, IpAddr) -> bool,
    ) -> bool {
        let same_ip = same_ip(self.bound.ip(), configured.ip());
        match configured.port() {
            0 => same_ip && self.name == name,
            port => same_ip && self.bound.port() == port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_belong_to_the_listener_with_their_address_or_name() {
        let socket = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let (web, more) = (socket(), socket());
        let more_address = more.local_addr().expect("bound");
        let mut inherited = Inherited::default();
        inherited.add("web".into(), web).expect("bound");
        inherited.add("web".into(), socket()).expect("bound");
        inherited.add(String::new(), more).expect("bound");
        let any = "127.0.0.1:0".parse().expect("an address");
        assert_eq!(inherited.claim("other", any).len(), 0);
        assert_eq!(inherited.claim("web", any).len(), 2);
        assert!(matches!(
            inherited.require_claimed(),
            Err(InheritError::Unclaimed { bound, .. }) if bound == more_address
        ));
        assert_eq!(inherited.claim("named otherwise", more_address).len(), 1);
        assert!(inherited.require_claimed().is_ok());
    }

    #[test]
    fn sockets_of_both_families_are_not_mixed_up() {
        let v4 = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = v4.local_addr().expect("bound").port();
        let v6 = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None);
        let v6 = v6.expect("a socket");
        v6.set_only_v6(true).expect("set");
        let of_v6 = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
        v6.bind(&of_v6.into()).expect("bound");
        v6.listen(1).expect("listening");
        let of_v4 = v4.local_addr().expect("bound");
        let mut inherited = Inherited::default();
        inherited.add(String::new(), v4).expect("bound");
        inherited.add(String::new(), v6.into()).expect("bound");
        for address in [of_v6, of_v4] {
            let claimed = inherited.claim("web", address);
            assert_eq!(claimed.len(), 1);
            assert_eq!(claimed[0].local_addr().expect("bound"), address);
        }
    }
}
