//! Addresses that lead back to this process: no endpoint may have one.
//!
//! What the configuration says is checked where endpoints are read and set. That leaves what only the
//! running process knows: ports that the kernel chose, and which addresses are this machine's, where a
//! listener accepts on all of them.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use switchback_config::model::Config;
use switchback_config::units::{Endpoint, EndpointHost};

use crate::command::Refusal;

/// The first endpoint of a file at which this process listens itself, with its place.
pub(crate) fn find(config: &Config, own: &[SocketAddr]) -> Option<(String, Endpoint)> {
    let services = config.services.iter();
    let mut backends = services.flat_map(|(service, file)| {
        file.backends
            .iter()
            .map(move |(name, b)| (service, name, b))
    });
    backends.find_map(|(service, name, backend)| {
        let mut endpoints = backend.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| is_own(endpoint, own))?;
        let place = format!("services.{service}.backends.{name}.endpoints");
        Some((place, endpoint.clone()))
    })
}

fn is_own(endpoint: &Endpoint, own: &[SocketAddr]) -> bool {
    match endpoint.host {
        EndpointHost::Address(address) => leads_here(own, SocketAddr::new(address, endpoint.port)),
        EndpointHost::Name(_) => false,
    }
}

/// Refuses endpoints at which this process listens itself.
pub(crate) fn refuse(endpoints: &[Endpoint], own: &[SocketAddr]) -> Result<(), Refusal> {
    for endpoint in endpoints {
        if is_own(endpoint, own) {
            return Err(Refusal::EndpointRefused {
                endpoint: endpoint.to_string(),
                reason: "switchback itself listens there: requests would go round in circles"
                    .into(),
            });
        }
    }
    Ok(())
}

/// Whether one of these sockets accepts connections to an address.
pub(crate) fn leads_here(own: &[SocketAddr], address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    own.iter().any(|own| {
        let everywhere = own.ip().is_unspecified();
        own.port() == address.port()
            && (own.ip().to_canonical() == ip || (everywhere && is_of_this_machine(ip)))
    })
}

/// Only own addresses can be bound.
fn is_of_this_machine(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_lead_here_by_address_or_by_any_address_of_the_machine() {
        let own: Vec<SocketAddr> = ["0.0.0.0:80", "127.0.0.2:81", "[::1]:82"]
            .map(|address| address.parse().expect("an address"))
            .into();
        for (address, expected) in [
            ("127.0.0.1:80", true),
            ("127.9.9.9:80", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("127.0.0.1:79", false),
            // Documentation addresses are nobody's.
            ("192.0.2.1:80", false),
            ("127.0.0.2:81", true),
            ("127.0.0.1:81", false),
            ("[::1]:82", true),
            ("[::ffff:127.0.0.2]:81", true),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(leads_here(&own, address), expected, "{address}");
        }
    }
}
