//! One running switchback: puts the data plane, the control thread and the admin side together.
//!
//! The order of the start is the order in which things can fail: the file, the state directory,
//! certificates, addresses. Only when nothing can fail any more does the first connection get accepted.

mod parts;
mod retire;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use switchback_config::model::Name;
use switchback_proxy::data_plane::DataPlane;
use switchback_proxy::flag::Trust;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use crate::api::{Api, Entrance, Life, serve};
use crate::auth::TokenError;
use crate::builder::Addresses;
use crate::certificates;
use crate::clock::SteadyClock;
use crate::cluster::{NotBuilt, Running};
use crate::control::{self, Controls, Start};
use crate::drill::Drills;
use crate::events::Events;
use crate::farewell;
use crate::files::FileError;
use crate::flags::look;
use crate::handover::{NOBODY, Predecessor, TakeoverError};
use crate::hooks::Hooks;
use crate::inherit::{InheritError, Inherited};
use crate::otel::{Exporting, SettingError};
use crate::prober;
use crate::quiet;
use crate::ready::{self, Readiness};
use crate::reload::{ReloadError, Reloader, Source};
use crate::resolver::Resolver;
use crate::retain;
use crate::rollout;
use crate::route_uses;
use crate::runbook::{self, Crew};
use crate::sightings::{self, Sightings};
use crate::signals;
use crate::store::{OpenError, Store};
use crate::trend::{self, Trends};
use parts::{Parts, last_config, recover, tell_refusal};

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
    /// The process to take over from.
    pub predecessor: Option<Predecessor>,
    /// Listening sockets that a service manager has opened.
    pub inherited: Inherited,
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
    /// The process that serves does not hand over.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// A service manager passes on sockets that cannot be used.
    #[error(transparent)]
    Inherited(#[from] InheritError),
    /// The admin address.
    #[error("bind the admin address {address}: {cause}")]
    AdminAddress {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        cause: io::Error,
    },
    /// The address where flags are asked for.
    #[error("bind the address of ofrep {address}: {cause}")]
    OfrepAddress {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        cause: io::Error,
    },
    /// There is no link to other instances.
    #[error(transparent)]
    Cluster(#[from] NotBuilt),
    /// What the environment says of traces.
    #[error(transparent)]
    Traces(#[from] SettingError),
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
            Self::State(_)
            | Self::AdminAddress { .. }
            | Self::OfrepAddress { .. }
            | Self::Config(ReloadError::Bind { .. })
            | Self::Inherited(InheritError::Unusable { .. }) => 73,
            Self::Takeover(_) => 75,
            Self::Traces(SettingError::Start(_)) | Self::Resources { .. } => 1,
            Self::Config(_)
            | Self::File(_)
            | Self::Inherited(_)
            | Self::Cluster(_)
            | Self::Traces(_) => 78,
            Self::Token(_) => 77,
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
    sightings: Sightings,
    life: Arc<Life>,
    state_dir: PathBuf,
    admin: SocketAddr,
    /// The admin API's socket once more, for a process that takes over.
    admin_socket: Option<TcpListener>,
    /// The same of where flags are asked for.
    ofrep_socket: Option<TcpListener>,
    listeners: Vec<(Name, SocketAddr)>,
    exporting: Option<Exporting>,
    /// The link to the other instances.
    link: Option<Running>,
    /// Heard of from before anybody is told that it runs.
    signals: Option<Signals>,
    /// What nobody waits for, and what ends when another process takes over.
    chores: Vec<AbortHandle>,
}

/// What a process is told by signals.
#[derive(Debug)]
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
}

impl Signals {
    /// From now on none of them ends the process by itself.
    fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
        })
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Connections that had to be cut.
    pub cut: usize,
}

/// How long the store may take to finish at the end.
const STORE_TIME: Duration = Duration::from_secs(5);

/// How long a process that takes over is told what only this one knows, when this one is to end. It reads
/// all the time.
const PART_TIME: Duration = Duration::from_secs(2);

impl Process {
    /// Starts everything. Must be called inside the admin runtime.
    ///
    /// # Errors
    /// When something is wrong; nothing has been accepted then, and a process that was to be taken over
    /// from goes on.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let mut parts = Parts::prepare(options).await?;
        let (store, found, succession) = parts.open_state().await?;
        let (followed, follower) = watch::channel(NOBODY);
        let state = recover(found, &parts.events);
        parts.look_up_set(&state).await;
        let config_before = last_config(&parts.state_dir);
        // Nobody waits for an instance that begins; whether somebody does for one that goes on, it knows.
        let fresh = succession
            .as_ref()
            .is_none_or(|succession| succession.is_isolated());
        let (joining, link) = parts.join(&state, fresh)?.unzip();
        let start = Start {
            plane: parts.plane.clone(),
            config: parts.config.clone(),
            config_before: config_before.clone(),
            material: parts.material.clone(),
            addresses: parts.addresses.clone(),
            state,
            store: store.clone(),
            events: parts.events.clone(),
            clock: SteadyClock::start(),
            follower,
            joining,
            trust: Trust::new(Instant::now()),
        };
        let controls = control::start(start).map_err(|cause| {
            let what = "start the control thread";
            StartError::Resources { what, cause }
        })?;
        if let Some(before) = config_before {
            controls.published().uses.begin_after(before);
        }
        let link = match succession {
            None => {
                // What is shared is in force before anybody is served by less.
                let link = parts.link(link, &controls).await;
                parts.accept();
                link
            }
            Some(mut succession) => {
                succession.catch_up(&controls).await;
                parts.accept();
                succession.succeed(&controls).await;
                succession.close_checks().await;
                followed.send_replace(0);
                tokio::spawn(succession.lead(controls.clone(), followed));
                // Nobody is told that a change is served here before the old process follows, too.
                parts.link(link, &controls).await
            }
        };
        if parts.file_refused.is_none() {
            store.save_config(std::mem::take(&mut parts.text)).await;
        }
        Ok(Self::assemble(parts, store, controls, link))
    }

    /// Puts together what serves already, and begins what goes on beside it.
    fn assemble(parts: Parts, store: Store, controls: Controls, link: Option<Running>) -> Self {
        let Parts { plane, events, .. } = parts;
        let (ofrep, ofrep_socket) = parts.ofrep.unzip();
        let locks = ofrep.as_ref().map(|ofrep| ofrep.locks.clone());
        let listeners = parts.listeners.addresses();
        let reloader = Reloader::new(
            parts.path,
            plane.clone(),
            controls.clone(),
            store.clone(),
            events.clone(),
            parts.entrance.auth.clone(),
            parts.listeners,
            parts.material,
            parts.resolver.clone(),
            parts.admin.0,
            parts.entrance.tls.clone(),
            locks.unwrap_or_default(),
        );
        tell_refusal(parts.file_refused, &reloader, &events);
        let hooks = Hooks::new(
            store.clone(),
            controls.clone(),
            events.clone(),
            parts.base.clone(),
        );
        let mut process = Self {
            plane,
            controls,
            store,
            events,
            reloader,
            hooks,
            sightings: Sightings::default(),
            life: Arc::default(),
            state_dir: parts.state_dir,
            admin: parts.admin.0,
            admin_socket: Some(parts.admin.1),
            ofrep_socket,
            listeners,
            exporting: parts.exporting,
            link,
            signals: Signals::listen().ok(),
            chores: Vec::new(),
        };
        process.spawn_tasks(parts.entrance, parts.resolver, parts.addresses, parts.base);
        if let Some(ofrep) = ofrep {
            ofrep.begin(process.controls.clone(), process.life.clone());
        }
        process.announce();
        process
    }

    fn spawn_tasks(
        &mut self,
        entrance: Entrance,
        resolver: Resolver,
        addresses: Addresses,
        base: PathBuf,
    ) {
        let api = self.api(&base);
        let drills = api.drills.clone();
        let trends = api.trends.clone();
        let crew = Crew {
            controls: self.controls.clone(),
            hooks: self.hooks.clone(),
            store: self.store.clone(),
            events: self.events.clone(),
            trends: trends.clone(),
        };
        let readiness = api.readiness.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(entrance, api).await {
                tracing::error!(%error, "serve the admin API");
            }
        });
        tokio::spawn(resolver.run(self.controls.clone(), addresses));
        let chores = [
            tokio::spawn(self.reloader.clone().watch()),
            tokio::spawn(prober::run(self.controls.clone(), self.events.clone())),
            tokio::spawn(rollout::run(self.controls.clone(), self.hooks.clone())),
            tokio::spawn(runbook::run(crew)),
            tokio::spawn(drills.keep()),
            tokio::spawn(farewell::run(self.controls.clone(), self.events.clone())),
            tokio::spawn(self.hooks.clone().run()),
            tokio::spawn(signals::run(self.controls.clone(), base)),
            tokio::spawn(trend::run(self.controls.clone(), trends)),
            tokio::spawn(sightings::run(
                self.controls.clone(),
                self.store.clone(),
                self.sightings.clone(),
            )),
            tokio::spawn(retain::run(self.controls.clone(), readiness.clone())),
            tokio::spawn(ready::run(
                self.controls.clone(),
                self.store.clone(),
                readiness,
            )),
            tokio::spawn(quiet::run(self.controls.clone())),
            tokio::spawn(route_uses::run(
                self.controls.clone(),
                self.store.clone(),
                self.events.clone(),
            )),
            tokio::spawn(look::run(
                self.store.clone(),
                self.controls.clone(),
                self.events.clone(),
            )),
            tokio::spawn(certificates::watch(
                self.reloader.certificates(),
                self.events.clone(),
            )),
        ];
        self.chores = chores.iter().map(JoinHandle::abort_handle).collect();
    }

    /// What requests to the admin API are answered from.
    fn api(&self, base: &Path) -> Api {
        Api {
            controls: self.controls.clone(),
            events: self.events.clone(),
            store: self.store.clone(),
            reloader: self.reloader.clone(),
            plane: self.plane.clone(),
            life: self.life.clone(),
            hooks: self.hooks.clone(),
            trends: Trends::default(),
            drills: Drills::new(
                self.controls.clone(),
                self.store.clone(),
                self.events.clone(),
                self.reloader.clone(),
                base,
            ),
            sightings: self.sightings.clone(),
            readiness: Readiness::default(),
            address: self.admin,
        }
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
        let ofrep = self.ofrep_socket.as_ref();
        let ofrep = ofrep.and_then(|socket| socket.local_addr().ok());
        if let Some(address) = ofrep {
            tracing::info!(%address, "flags are asked for");
        }
        let mut run =
            json!({"pid": std::process::id(), "admin": self.admin, "listeners": listeners});
        if let Some(address) = ofrep {
            run["ofrep"] = json!(address);
        }
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
        // The main process may be another one than the service manager has started.
        let main = sd_notify::NotifyState::MainPid(std::process::id());
        let _ = sd_notify::notify(&[main, sd_notify::NotifyState::Ready]);
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
    pub async fn stop(mut self, hurry: Arc<AtomicBool>) -> Ended {
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
        if let Some(exporting) = self.exporting.take() {
            exporting.end().await;
        }
        if let Some(link) = self.link.take() {
            link.stop().await;
        }
        self.life.retire();
        self.life.is_quiet().await;
        let saved = self.sightings.save_last(&self.controls, &self.store);
        let _ = tokio::time::timeout(STORE_TIME, saved).await;
        route_uses::finish(&self.controls, &self.store).await;
        self.controls.stop();
        let store = self.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.stop(STORE_TIME)).await;
        self.forget_address();
        Ended {
            cut: drained.map_or(0, |drained| drained.cut),
        }
    }

    /// Serves until a signal says to end: TERM or INT once to drain, twice to end now. HUP reads the
    /// file again, USR1 reopens logs.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub async fn serve_until_signal(mut self) -> io::Result<Ended> {
        let Signals {
            mut term,
            mut int,
            mut hup,
            mut usr1,
        } = match self.signals.take() {
            Some(signals) => signals,
            None => Signals::listen()?,
        };
        let giver = self.giver()?;
        let mut reloads = JoinSet::new();
        let given = {
            let mut giving = pin!(giver.run());
            let given = loop {
                tokio::select! {
                    given = &mut giving => break given,
                    _ = term.recv() => break None,
                    _ = int.recv() => break None,
                    // One at a time. Other signals are heard however long it takes.
                    _ = hup.recv(), if reloads.is_empty() => {
                        let reloader = self.reloader.clone();
                        // The outcome is told by an event.
                        reloads.spawn(async move { drop(reloader.reload(None).await) });
                    }
                    Some(_) = reloads.join_next() => {}
                    _ = usr1.recv() => self.reopen_logs(),
                }
            };
            if given.is_none() && giver.lent.load(Ordering::Relaxed) {
                // The other process decides alone from now on: whoever asks here is told to ask there.
                self.life.retire();
                self.controls.retire().await;
                giver.ending.notify_one();
                let parted = tokio::time::timeout(PART_TIME, giving).await;
                parted.unwrap_or_default()
            } else {
                given
            }
        };
        drop(giver);
        let hurry = Arc::new(AtomicBool::new(false));
        let in_a_hurry = hurry.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            in_a_hurry.store(true, Ordering::Release);
        });
        match given {
            Some(given) => Ok(self.retire(given, hurry).await),
            None => {
                tracing::info!("stopping: requests in flight may finish; a second signal ends now");
                Ok(self.stop(hurry).await)
            }
        }
    }
}
