//! Endpoints: one for each address.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use switchback_config::model;
use switchback_config::units::{self, EndpointHost, Scheme};
use switchback_proxy::health::{EndpointHealth, Probed};
use switchback_proxy::snapshot::Endpoint;
use switchback_proxy::tls::ClientTls;

use super::Addresses;

/// The addresses that it has now.
pub(super) fn addresses(
    endpoint: &units::Endpoint,
    addresses: &Addresses,
) -> impl Iterator<Item = SocketAddr> {
    let found: Vec<SocketAddr> = match &endpoint.host {
        EndpointHost::Address(address) => vec![SocketAddr::new(*address, endpoint.port)],
        EndpointHost::Name(name) => addresses
            .get(&(name.clone(), endpoint.port))
            .cloned()
            .unwrap_or_default(),
    };
    found.into_iter()
}

/// An endpoint at one address.
pub(super) fn build(
    endpoint: &units::Endpoint,
    address: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    settings: &model::UpstreamTls,
    probed: Probed,
) -> Endpoint {
    let tls = tls
        .filter(|_| endpoint.scheme == Scheme::Https)
        .and_then(|config| {
            let host = endpoint.host.to_string();
            let name = settings.server_name.as_deref().unwrap_or(&host);
            // Names were checked with the file or the API call that brought them.
            ClientTls::new(config.clone(), name).ok()
        });
    Endpoint {
        address,
        scheme: endpoint.scheme,
        authority: endpoint.authority(),
        tls,
        health: EndpointHealth::new(probed),
    }
}

/// Whether connections of one are good for the other.
pub(super) fn same(one: &Endpoint, other: &Endpoint) -> bool {
    let same_tls = match (&one.tls, &other.tls) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(&a.config, &b.config) && a.server_name == b.server_name,
        _ => false,
    };
    same_tls
        && (one.address, one.scheme, &one.authority)
            == (other.address, other.scheme, &other.authority)
}
