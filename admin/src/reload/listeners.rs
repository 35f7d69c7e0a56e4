//! The listeners that are open, and those that the next file wants.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use switchback_config::model::{Config, Limits, ListenerTls, Name, TlsVersion};
use switchback_proxy::data_plane::{Bound, DataPlane};
use switchback_proxy::server::{ConnectionLimits, Listener};
use switchback_proxy::tls::{Certificate, ServerTls};

use super::ReloadError;
use crate::certificates::CertificateView;
use crate::files::{self, FileError};
use crate::inherit::Inherited;
use crate::own;

/// TLS that is in use, and what it was made for: all that sessions depend on.
#[derive(Clone, Debug)]
struct OpenTls {
    tls: ServerTls,
    min_version: TlsVersion,
    /// Authorities of clients, as read.
    client_ca: Option<Vec<u8>>,
}

/// A listener that is open.
#[derive(Debug)]
struct Open {
    /// As configured; port 0 stays 0.
    configured: std::net::SocketAddr,
    bound: std::net::SocketAddr,
    listener: Arc<Listener>,
    tls: Option<OpenTls>,
}

/// Where an open listener is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) name: Name,
    /// As configured; port 0 stays 0.
    pub(super) configured: std::net::SocketAddr,
    /// Where it accepts.
    pub(super) bound: std::net::SocketAddr,
}

/// Listeners by name.
#[derive(Debug, Default)]
pub struct Listeners(HashMap<Name, Open>);

/// Listeners ready to be opened, changed and closed.
#[derive(Debug)]
pub struct Prepared {
    fresh: Vec<(Name, Bound, Open)>,
    /// With new certificates for TLS that stays, so that sessions resume.
    kept: Vec<(Name, Open, Vec<Certificate>)>,
}

impl Prepared {
    /// Where they will accept.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = std::net::SocketAddr> {
        let fresh = self.fresh.iter().map(|(_, _, open)| open.bound);
        fresh.chain(self.kept.iter().map(|(_, open, _)| open.bound))
    }

    /// Requires that no endpoint of the file leads here or to where else this process listens: `others`.
    pub(crate) fn require_no_circle(
        &self,
        config: &Config,
        others: impl IntoIterator<Item = std::net::SocketAddr>,
    ) -> Result<(), ReloadError> {
        let own: Vec<_> = self.addresses().chain(others).collect();
        match own::find(config, &own) {
            None => Ok(()),
            Some((place, endpoint)) => Err(ReloadError::OwnEndpoint { place, endpoint }),
        }
    }
}

impl Listeners {
    /// Loads certificates and binds new addresses, unless sockets for them are inherited. Changes nothing yet, except that the certificates
    /// of listeners that stay are replaced by [`Listeners::open`].
    ///
    /// # Errors
    /// When a file is no good or an address cannot be bound.
    pub fn prepare(
        &self,
        plane: &DataPlane,
        config: &Config,
        base: &Path,
        inherited: &mut Inherited,
    ) -> Result<Prepared, ReloadError> {
        let mut prepared = Prepared {
            fresh: Vec::new(),
            kept: Vec::new(),
        };
        for (name, wanted) in &config.listeners {
            let before = self.0.get(name);
            let before = before.filter(|before| before.configured == wanted.address);
            let (tls, certificates) = prepare_tls(name, wanted.tls.as_ref(), before, base)?;
            let limits = config.limits.overridden_by(&wanted.limits);
            let listener = Arc::new(Listener {
                name: name.as_str().into(),
                tls: tls.as_ref().map(|open| open.tls.clone()),
                proxy_protocol: wanted.proxy_protocol,
                limits: ConnectionLimits::resolve(&limits),
                trusted_proxies: config.trusted_proxies.clone(),
                underscores: config.underscores,
            });
            let configured = wanted.address;
            match before {
                Some(before) => {
                    let open = Open {
                        configured,
                        bound: before.bound,
                        listener,
                        tls,
                    };
                    prepared.kept.push((name.clone(), open, certificates));
                }
                None => {
                    let sockets = inherited.claim(name, configured);
                    let bound = match sockets.is_empty() {
                        true => plane.bind(configured),
                        false => Bound::inherited(sockets),
                    };
                    let bound = bound.map_err(|cause| ReloadError::Bind {
                        name: name.clone(),
                        address: configured,
                        cause,
                    })?;
                    let open = Open {
                        configured,
                        bound: bound.address,
                        listener,
                        tls,
                    };
                    prepared.fresh.push((name.clone(), bound, open));
                }
            }
        }
        Ok(prepared)
    }

    /// Makes prepared listeners the ones that accept.
    pub fn open(&mut self, plane: &DataPlane, prepared: Prepared) {
        let mut open = HashMap::new();
        for (name, next, certificates) in prepared.kept {
            if let Some(open) = next.tls.as_ref().filter(|_| !certificates.is_empty()) {
                open.tls.set_certificates(certificates);
            }
            plane.update_listener(&next.listener);
            self.0.remove(&name);
            open.insert(name, next);
        }
        for (name, bound, next) in prepared.fresh {
            plane.listen(bound, &next.listener);
            self.0.remove(&name);
            open.insert(name, next);
        }
        for gone in self.0.values() {
            plane.unlisten(&gone.listener.name);
        }
        self.0 = open;
    }

    /// The certificates of each listener.
    pub(super) fn certificates(&self) -> Vec<CertificateView> {
        let of = |(name, open): (&Name, &Open)| {
            let open = open.tls.as_ref();
            let expiries = open.map(|open| open.tls.expiries()).unwrap_or_default();
            let view = |(names, expires): (Vec<String>, _)| {
                let first = names.into_iter().next().unwrap_or_default();
                CertificateView::new(format!("listeners.{name}.tls"), first, expires)
            };
            expiries.into_iter().map(view).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// Where each listener is.
    pub(super) fn places(&self) -> Vec<Place> {
        let open = self.0.iter().map(|(name, open)| Place {
            name: name.clone(),
            configured: open.configured,
            bound: open.bound,
        });
        let mut places: Vec<_> = open.collect();
        places.sort();
        places
    }

    /// Where each listener accepts.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Name, std::net::SocketAddr)> {
        let places = self.places().into_iter();
        places.map(|place| (place.name, place.bound)).collect()
    }
}

/// TLS of a listener. If it stays as it is but for its certificates, those are returned beside it.
fn prepare_tls(
    name: &str,
    settings: Option<&ListenerTls>,
    before: Option<&Open>,
    base: &Path,
) -> Result<(Option<OpenTls>, Vec<Certificate>), FileError> {
    let Some(settings) = settings else {
        return Ok((None, Vec::new()));
    };
    let certificates = files::certificates(name, settings, base)?;
    let client_ca = files::client_ca(name, settings, base)?;
    let min_version = settings.min_version;
    let same = before.and_then(|before| before.tls.clone());
    let same = same.filter(|open| open.min_version == min_version && open.client_ca == client_ca);
    if let Some(same) = same {
        return Ok((Some(same), certificates));
    }
    let made = ServerTls::new(certificates, min_version, client_ca.as_deref());
    let tls = made.map_err(|cause| FileError::Tls {
        key: format!("listeners.{name}.tls"),
        path: base.join(settings.client_ca.as_deref().unwrap_or(Path::new(""))),
        cause,
    })?;
    let open = OpenTls {
        tls,
        min_version,
        client_ca,
    };
    Ok((Some(open), Vec::new()))
}

/// Descriptors that are not for connections of clients and backends: the state, logs, workers, the
/// connections of the admin API.
const OTHER_DESCRIPTORS: u64 = 100;

/// The limit on client connections: what is configured, and never more than there are file
/// descriptors for. Each client may need a connection to a backend too: one that is let in and cannot be served is
/// worse off than one that waits.
pub fn set_connection_limit(plane: &DataPlane, limits: &Limits) {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let allowed = descriptors.map_or(usize::MAX, |max| {
        let pairs = max.saturating_sub(OTHER_DESCRIPTORS) / 2;
        usize::try_from(pairs.max(1)).unwrap_or(usize::MAX)
    });
    let configured = limits.connections.map_or(usize::MAX, |max| {
        usize::try_from(max.get()).unwrap_or(usize::MAX)
    });
    plane.set_connections_max(configured.min(allowed));
}

/// Raises the soft limit on file descriptors to the hard one: the soft one is low for the sake of programs
/// that cannot deal with many.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, ?maximum, "raise the limit on file descriptors");
    }
}
