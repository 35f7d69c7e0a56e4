//! One running switchback: puts the data plane, the control thread and the admin side together.
//!
//! The order of the start is the order in which things can fail: the file, the state directory,
//! certificates, addresses. Only when nothing can fail any more does the first connection get accepted.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use switchback_config::model::{Config, Name, Workers};
use switchback_proxy::access_log::AccessLog;
use switchback_proxy::data_plane::DataPlane;
use switchback_proxy::snapshot::Snapshot;

use crate::api::{Api, Entrance, Life, serve};
use crate::auth::{Auth, TokenError, generated_token};
use crate::builder::Material;
use crate::control::{self, Controls, Start};
use crate::events::Events;
use crate::files::{self, FileError};
use crate::hooks::Hooks;
use crate::prober;
use crate::reload::{Listeners, ReloadError, Reloader, Source, base_of, set_connection_limit};
use crate::resolver::Resolver;
use crate::rollout;
use crate::signals;
use crate::state::State;
use crate::store::{Found, OpenError, Store};

/// What to run.
#[derive(Debug)]
pub struct Options {
    /// The file, read and found good.
    pub source: Source,
    /// Where it came from; none for a configuration that was made up.
    pub path: Option<PathBuf>,
    /// Where state is kept.
    pub state_dir: PathBuf,
    /// Why the last good copy runs instead of the file.
    pub file_refused: Option<String>,
}

/// It could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] OpenError),
    /// A file or an address of the configuration.
    #[error(transparent)]
    Config(#[from] ReloadError),
    /// A file that the configuration names.
    #[error(transparent)]
    File(#[from] FileError),
    /// The admin token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The admin address.
    #[error("bind the admin address {address}: {cause}")]
    AdminAddress {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        cause: io::Error,
    },
    /// Threads, or the access log.
    #[error("{what}: {cause}")]
    Resources {
        /// What was attempted.
        what: &'static str,
        /// What went wrong.
        #[source]
        cause: io::Error,
    },
}

impl StartError {
    /// Exit status.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::State(_) | Self::AdminAddress { .. } | Self::Config(ReloadError::Bind { .. }) => {
                73
            }
            Self::Config(_) | Self::File(_) => 78,
            Self::Token(_) => 77,
            Self::Resources { .. } => 1,
        }
    }
}

/// A switchback that serves.
#[derive(Debug)]
pub struct Process {
    plane: Arc<DataPlane>,
    controls: Controls,
    store: Store,
    events: Events,
    reloader: Arc<Reloader>,
    hooks: Hooks,
    life: Arc<Life>,
    state_dir: PathBuf,
    admin: SocketAddr,
    listeners: Vec<(Name, SocketAddr)>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Connections that had to be cut.
    pub cut: usize,
}

/// How long the store may take to finish at the end.
const STORE_TIME: Duration = Duration::from_secs(5);

impl Process {
    /// Starts everything. Must be called inside the admin runtime.
    ///
    /// # Errors
    /// When something is wrong; nothing has been accepted then.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let Options {
            source: Source { text, config, .. },
            path,
            state_dir,
            file_refused,
        } = options;
        let base = path
            .as_deref()
            .map_or_else(|| PathBuf::from("."), |path| base_of(path).to_path_buf());
        let events = Events::new(Timestamp::now());
        let (store, found) = Store::open(&state_dir)?;
        let state = recover(found, &events);
        let config_before = last_config(&state_dir);
        let material = read_files(&config, &base)?;
        let entrance = open_entrance(&config, &base, &state_dir)?;
        let auth = entrance.auth.clone();
        let plane = start_plane(&config)?;
        let mut listeners = Listeners::default();
        let prepared = listeners.prepare(&plane, &config, &base)?;
        let resolver = Resolver::new();
        let addresses = resolver.look_up_file(&config, None).await;
        let config = Arc::new(config);
        let start = Start {
            plane: plane.clone(),
            config: config.clone(),
            config_before,
            material: material.clone(),
            addresses: addresses.clone(),
            state,
            store: store.clone(),
            events: events.clone(),
        };
        let controls = control::start(start).map_err(|cause| {
            let what = "start the control thread";
            StartError::Resources { what, cause }
        })?;
        set_connection_limit(&plane, &config.limits);
        listeners.open(&plane, prepared);
        let bound = listeners.addresses();
        if file_refused.is_none() {
            store.save_config(text).await;
        }
        let reloader = Reloader::new(
            path,
            plane.clone(),
            controls.clone(),
            store.clone(),
            events.clone(),
            auth,
            listeners,
            material,
            resolver.clone(),
        );
        tell_refusal(file_refused, &reloader, &events);
        let admin = entrance.socket.local_addr();
        let admin = admin.map_err(|cause| StartError::AdminAddress {
            address: config.admin.address,
            cause,
        })?;
        let (listeners, life) = (bound, Arc::default());
        #[rustfmt::skip]
        let hooks = Hooks::new(store.clone(), controls.clone(), events.clone(), base.clone());
        #[rustfmt::skip]
        let process = Self { plane, controls, store, events, reloader, hooks, life, state_dir, admin, listeners };
        process.spawn_tasks(entrance, resolver, addresses);
        tokio::spawn(signals::run(process.controls.clone(), base));
        process.announce();
        Ok(process)
    }

    fn spawn_tasks(
        &self,
        entrance: Entrance,
        resolver: Resolver,
        addresses: crate::builder::Addresses,
    ) {
        let api = Api {
            controls: self.controls.clone(),
            events: self.events.clone(),
            store: self.store.clone(),
            reloader: self.reloader.clone(),
            plane: self.plane.clone(),
            life: self.life.clone(),
            hooks: self.hooks.clone(),
        };
        tokio::spawn(async move {
            if let Err(error) = serve(entrance, api).await {
                tracing::error!(%error, "serve the admin API");
            }
        });
        tokio::spawn(self.reloader.clone().watch());
        tokio::spawn(prober::run(self.controls.clone(), self.events.clone()));
        tokio::spawn(resolver.run(self.controls.clone(), addresses));
        tokio::spawn(rollout::run(self.controls.clone(), self.hooks.clone()));
        tokio::spawn(self.hooks.clone().run());
    }

    /// Says where it listens: in the log, to the service manager, and in a file beside the state.
    fn announce(&self) {
        self.life.set_ready(true);
        for (name, address) in &self.listeners {
            tracing::info!(listener = name, %address, "accepting connections");
        }
        tracing::info!(address = %self.admin, token = %self.state_dir.join(crate::auth::TOKEN_FILE).display(), "admin API");
        let listeners: serde_json::Map<String, serde_json::Value> = self
            .listeners
            .iter()
            .map(|(name, address)| (name.clone(), address.to_string().into()))
            .collect();
        let run = json!({"pid": std::process::id(), "admin": self.admin, "listeners": listeners});
        // Written elsewhere and moved, so that nobody reads half of it.
        let (whole, partial) = (
            self.state_dir.join("run.json"),
            self.state_dir.join("run.json.new"),
        );
        let written = std::fs::write(&partial, run.to_string())
            .and_then(|()| std::fs::rename(partial, whole));
        if let Err(error) = written {
            tracing::warn!(%error, "write run.json");
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }

    /// Where the admin API listens.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where each listener accepts.
    #[must_use]
    pub fn listeners(&self) -> &[(Name, SocketAddr)] {
        &self.listeners
    }

    /// The way to the control thread.
    #[must_use]
    pub const fn controls(&self) -> &Controls {
        &self.controls
    }

    /// What happens.
    #[must_use]
    pub const fn events(&self) -> &Events {
        &self.events
    }

    /// Reads the file again.
    #[must_use]
    pub const fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// Reopens log files that were moved away.
    pub fn reopen_logs(&self) {
        self.plane.reopen_log();
    }

    /// Stops accepting, lets requests finish, and ends. `hurry` cuts the wait short when it is set.
    pub async fn stop(self, hurry: Arc<AtomicBool>) -> Ended {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.life.set_ready(false);
        let patience = self
            .controls
            .published()
            .config
            .limits
            .shutdown_timeout
            .map(|span| span.0);
        let plane = self.plane.clone();
        let drained = tokio::task::spawn_blocking(move || plane.drain(patience, &hurry)).await;
        self.controls.stop();
        let store = self.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.stop(STORE_TIME)).await;
        let _ = std::fs::remove_file(self.state_dir.join("run.json"));
        Ended {
            cut: drained.map_or(0, |drained| drained.cut),
        }
    }

    /// Serves until a signal says to end: TERM or INT once to drain, twice to end now. HUP reads the
    /// file again, USR1 reopens logs.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub async fn serve_until_signal(self) -> io::Result<Ended> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hup = signal(SignalKind::hangup())?;
        let mut usr1 = signal(SignalKind::user_defined1())?;
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hup.recv() => {
                    // The outcome is told by an event.
                    let _ = self.reloader.reload(None).await;
                }
                _ = usr1.recv() => self.reopen_logs(),
            }
        }
        tracing::info!("stopping: requests in flight may finish; a second signal ends now");
        let hurry = Arc::new(AtomicBool::new(false));
        let in_a_hurry = hurry.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            in_a_hurry.store(true, Ordering::Release);
        });
        Ok(self.stop(hurry).await)
    }
}

/// The file as it was when the process last ran: what it says differently now counts as a change.
fn last_config(state_dir: &Path) -> Option<Arc<Config>> {
    let text = crate::store::last_good_config(state_dir).ok()?;
    switchback_config::parse(&text).config.map(Arc::new)
}

/// Says that something else runs than what the file says.
fn tell_refusal(file_refused: Option<String>, reloader: &Reloader, events: &Events) {
    if let Some(reason) = file_refused {
        let message = format!("the file was refused, the last good one is in force: {reason}");
        events.emit("reload_failed", None, "start", message, None);
        reloader.note(Some(reason));
    }
}

/// The files that the configuration names, as far as they are not the admin API's or a listener's.
fn read_files(config: &Config, base: &Path) -> Result<Arc<Material>, StartError> {
    let material = files::upstream_tls(config, base, &Material::default())?;
    files::check_hooks(config, base)?;
    signals::check_files(config, base)?;
    Ok(Arc::new(material))
}

/// Binds the admin address and reads what guards it.
fn open_entrance(config: &Config, base: &Path, state_dir: &Path) -> Result<Entrance, StartError> {
    let auth = Auth::new(match &config.admin.tokens_file {
        Some(path) => files::tokens(path, base)?,
        None => vec![generated_token(state_dir)?],
    });
    let tls = config
        .admin
        .tls
        .as_ref()
        .map(|tls| files::admin_tls(tls, base))
        .transpose()?;
    let address = config.admin.address;
    let socket = std::net::TcpListener::bind(address)
        .map_err(|cause| StartError::AdminAddress { address, cause })?;
    let allowed_hosts = config.admin.allowed_hosts.clone();
    Ok(Entrance {
        socket,
        tls,
        allowed_hosts,
        auth,
    })
}

fn start_plane(config: &Config) -> Result<Arc<DataPlane>, StartError> {
    let log = AccessLog::start(config.access_log.path.clone()).map_err(|cause| {
        StartError::Resources {
            what: "open the access log",
            cause,
        }
    })?;
    let workers = match config.workers {
        Workers::Count(count) => count,
        Workers::Auto => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    DataPlane::start(workers.get(), Snapshot::empty(), log, Instant::now())
        .map(Arc::new)
        .map_err(|cause| StartError::Resources {
            what: "start the workers",
            cause,
        })
}

/// The state to start from. A loss is never silent.
fn recover(found: Found, events: &Events) -> State {
    match found {
        Found::Nothing => State::default(),
        Found::Database(state) => state,
        Found::Copy(state, why) => {
            let message = format!(
                "the state database was damaged ({why}); weights, roles and blocks come from its copy, history is lost"
            );
            events.emit("state_lost", None, "start", message, None);
            state
        }
        Found::Lost(why) => {
            let message = format!(
                "the recorded state was lost ({why}); every service serves stable only until switchback acknowledge"
            );
            events.emit("state_lost", None, "start", message, None);
            State {
                stable_only: true,
                ..State::default()
            }
        }
    }
}
