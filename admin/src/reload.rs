//! Reading the file again, and making it the truth in one step or not at all.
//!
//! The whole file is read and checked, certificates are loaded and new addresses bound before the
//! controller hears of it. If anything is wrong, nothing has changed, and the fault is logged, shown
//! in the API and in a metric. Sockets of listeners that stay are never touched.

mod watch;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::diagnostic::{Diagnostic, render_all};
use switchback_config::diff::{Change, restart_only};
use switchback_config::model::{Config, Limits, ListenerTls, Name, TlsVersion};
use switchback_proxy::data_plane::{Bound, DataPlane};
use switchback_proxy::server::{ConnectionLimits, Listener};
use switchback_proxy::tls::{Certificate, ServerTls};
use utoipa::ToSchema;

use crate::api::views::schema;
use crate::auth::Auth;
use crate::builder::Material;
use crate::command::{Asked, Command, Refusal};
use crate::control::{AskError, Controls, Extent};
use crate::events::Events;
use crate::files::{self, FileError};
use crate::resolver::Resolver;
use crate::store::Store;

/// A file could not be taken over. The last good one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The process was started without a file.
    #[error("there is no config file to read")]
    NoFile,
    /// It cannot be read.
    #[error("read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        cause: io::Error,
    },
    /// It has faults.
    #[error("{rendered}")]
    Invalid {
        /// The faults.
        diagnostics: Vec<Diagnostic>,
        /// The faults under the lines they are about.
        rendered: String,
    },
    /// A file that it names cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// It changes what only a restart can change.
    #[error("only a restart can change {}", paths(.0))]
    RestartOnly(Vec<Change>),
    /// A listener's address cannot be bound.
    #[error("listeners.{name}: bind {address}: {cause}")]
    Bind {
        /// The listener.
        name: Name,
        /// Its address.
        address: std::net::SocketAddr,
        /// What went wrong.
        #[source]
        cause: io::Error,
    },
    /// The controller refused it.
    #[error(transparent)]
    Refused(#[from] AskError),
}

fn paths(changes: &[Change]) -> String {
    let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    paths.join(", ")
}

impl ReloadError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoFile => "no_config_file",
            Self::Read { .. } => "config_unreadable",
            Self::Invalid { .. } => "config_invalid",
            Self::File(_) => "config_file_refused",
            Self::RestartOnly(_) => "restart_only",
            Self::Bind { .. } => "cannot_bind",
            Self::Refused(AskError::Refused(refusal)) => refusal.code(),
            Self::Refused(AskError::Unconfirmed(_)) => "apply_unconfirmed",
        }
    }

    /// The faults of the file, if that is what is wrong.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Invalid { diagnostics, .. } => diagnostics,
            _ => &[],
        }
    }
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Report {
    /// Whether the file differs from the one before.
    pub changed: bool,
    /// The state after it.
    pub revision: u64,
    /// What differs.
    #[schema(value_type = Vec<schema::Change>)]
    pub changes: Vec<Change>,
}

/// A file that was read and found good.
#[derive(Debug)]
pub struct Source {
    /// Its text.
    pub text: String,
    /// What it means.
    pub config: Config,
    /// What it warns about.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a config file.
///
/// # Errors
/// When it cannot be read or has faults.
pub fn read(path: &Path) -> Result<Source, ReloadError> {
    let text = fs::read_to_string(path).map_err(|cause| ReloadError::Read {
        path: path.into(),
        cause,
    })?;
    parse(text, &path.display().to_string())
}

/// The same for a text.
///
/// # Errors
/// When it has faults.
pub fn parse(text: String, name: &str) -> Result<Source, ReloadError> {
    let parsed = switchback_config::parse(&text);
    match parsed.config {
        Some(config) => Ok(Source {
            text,
            config,
            warnings: parsed.diagnostics,
        }),
        None => {
            let rendered = render_all(&parsed.diagnostics, &text, name, false);
            Err(ReloadError::Invalid {
                diagnostics: parsed.diagnostics,
                rendered,
            })
        }
    }
}

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

/// The last attempt to read the file.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = LastReload)]
pub struct Last {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Whether it is in force.
    pub successful: bool,
    /// What was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Reads the file again when asked, and when it changes.
#[derive(Debug)]
pub struct Reloader {
    path: Option<PathBuf>,
    plane: Arc<DataPlane>,
    controls: Controls,
    store: Store,
    events: Events,
    auth: Arc<Auth>,
    listeners: tokio::sync::Mutex<Listeners>,
    material: Mutex<Arc<Material>>,
    resolver: Resolver,
    last: Mutex<Last>,
}

impl Reloader {
    /// A reloader for a file that is in force now. Without a path it never reads anything.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts it connects, named one by one"
    )]
    #[must_use]
    pub fn new(
        path: Option<PathBuf>,
        plane: Arc<DataPlane>,
        controls: Controls,
        store: Store,
        events: Events,
        auth: Arc<Auth>,
        listeners: Listeners,
        material: Arc<Material>,
        resolver: Resolver,
    ) -> Arc<Self> {
        Arc::new(Self {
            path,
            plane,
            controls,
            store,
            events,
            auth,
            listeners: tokio::sync::Mutex::new(listeners),
            material: Mutex::new(material),
            resolver,
            last: Mutex::new(Last {
                at: Timestamp::now(),
                successful: true,
                error: None,
            }),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The last attempt.
    #[must_use]
    pub fn last(&self) -> Last {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes an attempt that was made elsewhere.
    pub fn note(&self, error: Option<String>) {
        let last = Last {
            at: Timestamp::now(),
            successful: error.is_none(),
            error,
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// Reads the file and makes it the truth.
    ///
    /// # Errors
    /// When anything is wrong with it; nothing has changed then.
    ///
    /// # Cancel safety
    /// Not safe: run it in a task of its own.
    pub async fn reload(self: &Arc<Self>) -> Result<Report, ReloadError> {
        let this = self.clone();
        let task = tokio::spawn(async move {
            let result = this.try_reload().await;
            this.note(result.as_ref().err().map(ToString::to_string));
            match &result {
                Ok(report) if report.changed => {
                    let paths: Vec<&str> = report
                        .changes
                        .iter()
                        .map(|change| change.path.as_str())
                        .collect();
                    let message =
                        format!("the file was taken over; changed: {}", shortened(&paths));
                    this.events
                        .emit("reloaded", None, "file", message, Some(report.revision));
                }
                Ok(_) => {}
                Err(error) => {
                    let message =
                        format!("the file was refused, the last good one stays in force: {error}");
                    this.events
                        .emit("reload_failed", None, "file", message, None);
                }
            }
            result
        });
        task.await
            .unwrap_or(Err(ReloadError::Refused(AskError::Refused(
                Refusal::Stopping,
            ))))
    }

    async fn try_reload(&self) -> Result<Report, ReloadError> {
        let path = self.path.as_deref().ok_or(ReloadError::NoFile)?;
        let base = base_of(path);
        // One reload at a time.
        let mut listeners = self.listeners.lock().await;
        let Source {
            text,
            config,
            warnings,
        } = read(path)?;
        for warning in &warnings {
            tracing::warn!(
                "{}",
                warning.render(&text, &path.display().to_string(), false)
            );
        }
        let before = self.controls.published().config.clone();
        let needs_restart = restart_only(&before, &config);
        if !needs_restart.is_empty() {
            return Err(ReloadError::RestartOnly(needs_restart));
        }
        let old_material = self
            .material
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let material = Arc::new(files::upstream_tls(&config, base, &old_material)?);
        let tokens = config
            .admin
            .tokens_file
            .as_deref()
            .map(|path| files::tokens(path, base))
            .transpose()?;
        files::check_hooks(&config, base)?;
        let prepared = listeners.prepare(&self.plane, &config, base)?;
        let changes = switchback_config::diff::changes(&before, &config);
        let limits = config.limits.clone();
        // New names have addresses before anybody is sent to them.
        let found = self.resolver.look_up_file(&config, Some(&before)).await;
        if !found.is_empty() {
            self.controls.set_addresses(found, Extent::Some);
        }
        let command = Command::Reload {
            config: Arc::new(config),
        };
        let asked = Asked::by_itself("file", None);
        let new_material = (!material.is_same(&old_material)).then(|| material.clone());
        let confirmed = self.controls.ask_with(command, asked, new_material).await?;
        listeners.open(&self.plane, prepared);
        set_connection_limit(&self.plane, &limits);
        if let Some(tokens) = tokens {
            self.auth.set_tokens(tokens);
        }
        *self.material.lock().unwrap_or_else(PoisonError::into_inner) = material;
        self.store.save_config(text);
        let revision = confirmed.applied.published.state.revision;
        Ok(Report {
            changed: !changes.is_empty(),
            revision,
            changes,
        })
    }
}

/// The directory that paths in a config file are relative to.
#[must_use]
pub fn base_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn shortened(paths: &[&str]) -> String {
    const SHOWN: usize = 8;
    match paths.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{} and {more} more", paths[..SHOWN].join(", ")),
        _ => paths.join(", "),
    }
}
