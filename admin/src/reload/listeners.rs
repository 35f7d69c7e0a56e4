//! The listeners that are open, and those that the next file wants.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use switchback_config::model::{Config, Limits, ListenerTls, Name, TlsVersion};
use switchback_proxy::data_plane::{Bound, DataPlane};
use switchback_proxy::server::{ConnectionLimits, Listener};
use switchback_proxy::tls::{Certificate, ServerTls};

use super::ReloadError;
use crate::files::{self, FileError};

/// TLS that is in use, and the version it was made for.
type OpenTls = (ServerTls, TlsVersion);

/// A listener that is open.
#[derive(Debug)]
struct Open {
    /// As configured; port 0 stays 0.
    configured: std::net::SocketAddr,
    bound: std::net::SocketAddr,
    listener: Arc<Listener>,
    tls: Option<OpenTls>,
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

impl Listeners {
    /// Loads certificates and binds new addresses. Changes nothing yet, except that the certificates
    /// of listeners that stay are replaced by [`Listeners::open`].
    ///
    /// # Errors
    /// When a file is no good or an address cannot be bound.
    pub fn prepare(
        &self,
        plane: &DataPlane,
        config: &Config,
        base: &Path,
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
                tls: tls.as_ref().map(|(tls, _)| tls.clone()),
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
                    let bound = plane.bind(configured).map_err(|cause| ReloadError::Bind {
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
            if let Some((tls, _)) = next.tls.as_ref().filter(|_| !certificates.is_empty()) {
                tls.set_certificates(certificates);
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

    /// Where each listener accepts.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Name, std::net::SocketAddr)> {
        let mut addresses: Vec<_> = self
            .0
            .iter()
            .map(|(name, open)| (name.clone(), open.bound))
            .collect();
        addresses.sort();
        addresses
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
    let same = before
        .and_then(|before| before.tls.clone())
        .filter(|(_, version)| *version == settings.min_version);
    if let Some(same) = same {
        return Ok((Some(same), certificates));
    }
    let made =
        ServerTls::new(certificates, settings.min_version).map_err(|cause| FileError::Tls {
            key: format!("listeners.{name}.tls"),
            path: PathBuf::new(),
            cause,
        })?;
    Ok((Some((made, settings.min_version)), Vec::new()))
}

/// The limit on client connections: what is configured, and never more than file descriptors allow.
pub fn set_connection_limit(plane: &DataPlane, limits: &Limits) {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // A fifth is left for upstream connections and files.
    let allowed = descriptors.map_or(usize::MAX, |max| {
        usize::try_from(max / 5 * 4).unwrap_or(usize::MAX)
    });
    let configured = limits.connections.map_or(usize::MAX, |max| {
        usize::try_from(max.get()).unwrap_or(usize::MAX)
    });
    plane.set_connections_max(configured.min(allowed));
}
