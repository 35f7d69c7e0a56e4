//! Reading the file again, and making it the truth in one step or not at all.
//!
//! The whole file is read and checked, certificates are loaded and new addresses bound before the
//! controller hears of it. If anything is wrong, nothing has changed, and the fault is logged, shown
//! in the API and in a metric. Sockets of listeners that stay are never touched.

mod error;
mod listeners;
mod report;
mod watch;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use switchback_config::diagnostic::{Diagnostic, render_all};
use switchback_config::diff::{Change, restart_only};
use switchback_config::model::{Config, Name};
use switchback_proxy::data_plane::DataPlane;
use tokio::sync::watch::{Receiver, Sender};

use crate::api::views::Followed;
use crate::auth::{Auth, Token};
use crate::builder::Material;
use crate::certificates::{CertificateView, beside_listeners};
use crate::command::{Asked, Command, Refusal};
use crate::control::{AskError, Brought, Controls};
use crate::drill::shadow::without;
use crate::events::Events;
use crate::files::{self, FileError};
use crate::inherit::Inherited;
use crate::ofrep::Locks;
use crate::resolver::Resolver;
use crate::signals;
use crate::store::Store;
pub use error::ReloadError;
use listeners::Place;
pub use listeners::{Listeners, Prepared, raise_descriptor_limit, set_connection_limit};
pub use report::{Last, Report};

/// How long a reload waits until the copy of its file is on disk. The file is in force by then, and the copy
/// is written all the same.
const COPY_TIME: Duration = Duration::from_secs(2);

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

/// Reads the file again when asked, and when it changes.
#[derive(Debug)]
pub struct Reloader {
    path: Option<PathBuf>,
    plane: Arc<DataPlane>,
    controls: Controls,
    store: Store,
    events: Events,
    auth: Arc<Auth>,
    /// Held for as long as a reload takes, however long the disk does.
    listeners: tokio::sync::Mutex<Listeners>,
    /// Where they are, for whoever only asks.
    places: Sender<Vec<Place>>,
    material: Mutex<Arc<Material>>,
    resolver: Resolver,
    last: Mutex<Last>,
    certificates: Sender<Vec<CertificateView>>,
    /// Where the admin API listens.
    admin: SocketAddr,
    /// TLS of the admin API, as new connections use it.
    admin_tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    /// Who gets in where flags are asked for.
    ofrep: Locks,
}

impl Reloader {
    /// A reloader for a file that is in force now. Without a path it never reads anything.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts it connects, named one by one"
    )]
    #[must_use]
    pub(crate) fn new(
        path: Option<PathBuf>,
        plane: Arc<DataPlane>,
        controls: Controls,
        store: Store,
        events: Events,
        auth: Arc<Auth>,
        listeners: Listeners,
        material: Arc<Material>,
        resolver: Resolver,
        admin: SocketAddr,
        admin_tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
        ofrep: Locks,
    ) -> Arc<Self> {
        let base = path.as_deref().map_or(Path::new("."), base_of);
        // They were good a moment ago, when they were taken into use.
        let others = beside_listeners(&controls.published().config, base);
        let others = others.inspect_err(|error| tracing::warn!(%error, "look at a certificate"));
        let certificates = Sender::new(together(&listeners, others.unwrap_or_default()));
        let places = Sender::new(listeners.places());
        Arc::new(Self {
            certificates,
            places,
            admin,
            admin_tls,
            ofrep,
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

    /// Where each listener accepts.
    pub(crate) fn listening(&self) -> Vec<(Name, SocketAddr)> {
        let places = self.places.borrow();
        let places = places.iter();
        places
            .map(|place| (place.name.clone(), place.bound))
            .collect()
    }

    /// Where listeners accept, and where flags are asked for.
    pub(crate) fn bound(&self) -> Vec<SocketAddr> {
        let listeners = self.listening().into_iter().map(|(_, address)| address);
        listeners.chain(self.ofrep.address).collect()
    }

    /// The address that each open listener is configured with.
    pub(crate) fn configured(&self) -> Vec<(Name, SocketAddr)> {
        let places = self.places.borrow();
        let places = places.iter();
        places
            .map(|place| (place.name.clone(), place.configured))
            .collect()
    }

    /// The certificates in use, and when that changes.
    pub(crate) fn certificates(&self) -> Receiver<Vec<CertificateView>> {
        self.certificates.subscribe()
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

    /// Reads the file and makes it the truth; with `if_revision` only if the state is still that one.
    ///
    /// # Errors
    /// When anything is wrong with it; nothing has changed then. Also when it is in force, and a worker or the
    /// process that served before has not confirmed that in time.
    ///
    /// # Cancel safety
    /// Not safe: run it in a task of its own.
    pub async fn reload(self: &Arc<Self>, if_revision: Option<u64>) -> Result<Report, ReloadError> {
        self.reload_as(if_revision, false).await
    }

    /// The same; `force`: routes that are still used may go.
    ///
    /// # Errors
    /// As [`Reloader::reload`], except for [`ReloadError::RouteInUse`].
    pub async fn reload_as(
        self: &Arc<Self>,
        if_revision: Option<u64>,
        force: bool,
    ) -> Result<Report, ReloadError> {
        let this = self.clone();
        let task = tokio::spawn(async move {
            let result = this.try_reload(if_revision, force).await;
            let before = this.last().error;
            this.note(result.as_ref().err().map(ToString::to_string));
            match &result {
                Ok((report, confirmed)) if report.changed => {
                    let paths: Vec<&str> = report
                        .changes
                        .iter()
                        .map(|change| change.path.as_str())
                        .collect();
                    let doubt = confirmed.as_ref().err().map(|error| format!("; {error}"));
                    let message = format!(
                        "the file was taken over; changed: {}{}",
                        shortened(&paths),
                        doubt.unwrap_or_default()
                    );
                    this.events
                        .emit("reloaded", None, "file", message, Some(report.revision));
                }
                // Whoever has asked for it, by a signal for instance, learns that it was done.
                Ok(_) => {
                    tracing::info!("the file was read again: it says what is in force already")
                }
                // It is tried again every second for as long as it takes, which is told once.
                Err(error) if error.is_for_now() && before == Some(error.to_string()) => {}
                Err(error) => {
                    let message =
                        format!("the file was refused, the last good one stays in force: {error}");
                    this.events
                        .emit("reload_failed", None, "file", message, None);
                }
            }
            let (report, confirmed) = result?;
            confirmed?;
            Ok::<_, ReloadError>(report)
        });
        task.await
            .unwrap_or(Err(ReloadError::Refused(AskError::Refused(
                Refusal::Stopping,
            ))))
    }

    /// Reads the file as a reload would, and tells what would change.
    ///
    /// # Errors
    /// When the reload would be refused.
    pub async fn plan(&self, force: bool) -> Result<Report, ReloadError> {
        let listeners = self.listeners.lock().await;
        let changes = self.check(&listeners, force)?.changes;
        Ok(Report {
            changed: !changes.is_empty(),
            revision: self.controls.published().state.revision,
            changes,
            dry_run: true,
            followed: Followed::default(),
        })
    }

    /// Reads the file, and all it names. Changes nothing.
    fn check(&self, listeners: &Listeners, force: bool) -> Result<Checked, ReloadError> {
        let path = self.path.as_deref().ok_or(ReloadError::NoFile)?;
        let base = base_of(path);
        let mut source = read(path)?;
        files::runbooks(&mut source.config, base)?;
        for warning in &source.warnings {
            tracing::warn!(
                "{}",
                warning.render(&source.text, &path.display().to_string(), false)
            );
        }
        let config = &source.config;
        let published = self.controls.published().clone();
        let before = Arc::new(without(&published.config).into_owned());
        let used = published.uses.lost(&before, config, Timestamp::now());
        if !used.is_empty() && !force {
            return Err(ReloadError::RouteInUse(used));
        }
        let needs_restart = restart_only(&before, config);
        if !needs_restart.is_empty() {
            return Err(ReloadError::RestartOnly(needs_restart));
        }
        let old_material = self
            .material
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let material = Arc::new(files::upstream_tls(config, base, &old_material)?);
        signals::check_files(config, base)?;
        let tokens = config.admin.tokens_file.as_deref();
        let tokens = tokens.map(|path| files::tokens(path, base)).transpose()?;
        files::check_hooks(config, base)?;
        let admin_tls = config.admin.tls.as_ref();
        let admin_tls = admin_tls
            .map(|tls| files::admin_tls(tls, base))
            .transpose()?;
        let flag_locks = check_ofrep(config, base)?;
        let certificates = beside_listeners(config, base)?;
        let nothing = &mut Inherited::default();
        let prepared = listeners.prepare(&self.plane, config, base, nothing)?;
        let others = [self.admin].into_iter().chain(self.ofrep.address);
        prepared.require_no_circle(config, others)?;
        Ok(Checked {
            changes: switchback_config::diff::changes(&before, config),
            has_new_material: !material.is_same(&old_material),
            source,
            before,
            material,
            tokens,
            admin_tls,
            flag_locks,
            certificates,
            prepared,
        })
    }

    /// What was done, and whether everybody has confirmed it.
    async fn try_reload(
        &self,
        if_revision: Option<u64>,
        force: bool,
    ) -> Result<(Report, Result<(), AskError>), ReloadError> {
        // One reload at a time.
        let mut listeners = self.listeners.lock().await;
        let checked = self.check(&listeners, force)?;
        let Source { text, config, .. } = checked.source;
        let limits = config.limits.clone();
        // New names have addresses before anybody is sent to them.
        let addresses = self
            .resolver
            .look_up_file(&config, Some(&checked.before))
            .await;
        let command = Command::Reload {
            config: Arc::new(config),
        };
        let asked = Asked {
            if_revision,
            how: self.path.as_ref().map(|path| path.display().to_string()),
            ..Asked::by_itself("file", None)
        };
        let material = checked.material;
        let brought = Brought {
            material: checked.has_new_material.then(|| material.clone()),
            addresses,
        };
        let answer = self.controls.ask_with(command, asked, brought).await;
        let mut acknowledged = None;
        let (revision, confirmed) = match answer {
            Ok(confirmed) => {
                acknowledged = confirmed.acknowledged;
                (confirmed.applied.published.state.revision, Ok(()))
            }
            Err(refused @ AskError::Refused(_)) => return Err(refused.into()),
            // Requests go by it already, so all else that it says comes into force too.
            Err(error) => (self.controls.published().state.revision, Err(error)),
        };
        listeners.open(&self.plane, checked.prepared);
        self.places.send_replace(listeners.places());
        self.certificates
            .send_replace(together(&listeners, checked.certificates));
        if let (Some(current), Some(next)) = (&self.admin_tls, checked.admin_tls) {
            current.store(next);
        }
        self.ofrep.replace(checked.flag_locks);
        set_connection_limit(&self.plane, &limits);
        if let Some(tokens) = checked.tokens {
            self.auth.set_tokens(tokens);
        }
        *self.material.lock().unwrap_or_else(PoisonError::into_inner) = material;
        let mut saved = pin!(self.store.save_config(text));
        // Copies are handed over in the order of the files. Nobody else waits for the disk.
        let is_saved = tokio::select! {
            biased;
            () = &mut saved => true,
            () = std::future::ready(()) => false,
        };
        drop(listeners);
        if !is_saved && tokio::time::timeout(COPY_TIME, saved).await.is_err() {
            tracing::warn!("the copy of the file is not on disk yet");
        }
        let report = Report {
            changed: !checked.changes.is_empty(),
            revision,
            changes: checked.changes,
            dry_run: false,
            followed: acknowledged.into(),
        };
        Ok((report, confirmed))
    }
}

/// All certificates in use, in order.
fn together(listeners: &Listeners, mut others: Vec<CertificateView>) -> Vec<CertificateView> {
    others.extend(listeners.certificates());
    others.sort();
    others
}

/// What the file now names for those who ask for flags.
pub(crate) type FlagLocks = (Option<Arc<rustls::ServerConfig>>, Option<Vec<Token>>);

fn check_ofrep(config: &Config, base: &Path) -> Result<FlagLocks, FileError> {
    let Some(ofrep) = &config.ofrep else {
        return Ok((None, None));
    };
    let tls = ofrep.tls.as_ref();
    let tls = tls.map(|tls| files::ofrep_tls(tls, base)).transpose()?;
    let tokens = ofrep.tokens_file.as_deref();
    let tokens = tokens
        .map(|path| files::flag_tokens(path, base))
        .transpose()?;
    Ok((tls, tokens))
}

/// A file that can be taken over, with all it names.
struct Checked {
    source: Source,
    /// What is in force.
    before: Arc<Config>,
    material: Arc<Material>,
    has_new_material: bool,
    tokens: Option<Vec<Token>>,
    admin_tls: Option<Arc<rustls::ServerConfig>>,
    flag_locks: FlagLocks,
    /// Certificates beside those of listeners.
    certificates: Vec<CertificateView>,
    prepared: Prepared,
    changes: Vec<Change>,
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
