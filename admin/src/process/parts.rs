//! The parts of a process as it starts: what it reads, and what it begins with.
//!
//! [`Parts::prepare`] does everything that can be done without the state, since that may still be
//! another process's.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use switchback_config::model::{Config, Workers};
use switchback_proxy::access_log::AccessLog;
use switchback_proxy::data_plane::DataPlane;
use switchback_proxy::snapshot::Snapshot;
use switchback_proxy::trace::Traces;

use super::{Options, StartError};
use crate::api::Entrance;
use crate::auth::{Auth, generated_token};
use crate::builder::{Addresses, Material};
use crate::cluster::{self, About, Joining, Link, NotBuilt, Running};
use crate::control::Controls;
use crate::events::Events;
use crate::files;
use crate::handover::{Predecessor, Succession};
use crate::inherit::{ADMIN, Inherited, OFREP};
use crate::ofrep;
use crate::otel::{self, Exporting};
use crate::reload::{
    Listeners, Prepared, Reloader, Source, base_of, raise_descriptor_limit, set_connection_limit,
};
use crate::resolver::Resolver;
use crate::signals;
use crate::state::State;
use crate::store::{Found, Store};

/// What a process begins with.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) text: String,
    pub(super) config: Arc<Config>,
    pub(super) path: Option<PathBuf>,
    pub(super) base: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) file_refused: Option<String>,
    pub(super) events: Events,
    pub(super) material: Arc<Material>,
    pub(super) entrance: Entrance,
    /// The admin API's address, and its socket once more.
    pub(super) admin: (SocketAddr, TcpListener),
    /// Where applications ask for flags, and its socket once more.
    pub(super) ofrep: Option<(ofrep::Opened, TcpListener)>,
    pub(super) plane: Arc<DataPlane>,
    /// The thread that exports traces, if they are wanted.
    pub(super) exporting: Option<Exporting>,
    pub(super) listeners: Listeners,
    pub(super) resolver: Resolver,
    pub(super) addresses: Addresses,
    /// Sockets that do not accept yet.
    prepared: Option<Prepared>,
    /// The state, unless it is another process's.
    opened: Option<(Store, Found)>,
    predecessor: Option<Predecessor>,
}

impl Parts {
    pub(super) async fn prepare(options: Options) -> Result<Self, StartError> {
        let Options {
            source: Source {
                text, mut config, ..
            },
            path,
            state_dir,
            file_refused,
            mut predecessor,
            mut inherited,
        } = options;
        raise_descriptor_limit();
        let base = path
            .as_deref()
            .map_or_else(|| PathBuf::from("."), |path| base_of(path).to_path_buf());
        files::runbooks(&mut config, &base)?;
        let opened = match &mut predecessor {
            Some(predecessor) => {
                inherited = predecessor.sockets();
                None
            }
            None => Some(Store::open(&state_dir)?),
        };
        let material = read_files(&config, &base)?;
        let entrance = open_entrance(&config, &base, &state_dir, &mut inherited)?;
        let address = entrance.socket.local_addr();
        let again = entrance.socket.try_clone();
        let admin = address.and_then(|address| Ok((address, again?)));
        let admin = admin.map_err(|cause| StartError::AdminAddress {
            address: config.admin.address,
            cause,
        })?;
        let ofrep = open_ofrep(&config, &base, &mut inherited)?;
        let events = Events::new(Timestamp::now());
        let (traces, exporting) = otel::start(&events)?.unzip();
        let plane = start_plane(&config, traces)?;
        let listeners = Listeners::default();
        let prepared = listeners.prepare(&plane, &config, &base, &mut inherited)?;
        let flags = ofrep.as_ref().and_then(|(ofrep, _)| ofrep.locks.address);
        prepared.require_no_circle(&config, [admin.0].into_iter().chain(flags))?;
        if predecessor.is_none() {
            inherited.require_claimed()?;
        }
        let resolver = Resolver::new();
        let addresses = resolver.look_up_file(&config, None).await;
        Ok(Self {
            text,
            config: Arc::new(config),
            path,
            base,
            state_dir,
            file_refused,
            events,
            material,
            entrance,
            admin,
            ofrep,
            plane,
            exporting,
            listeners,
            resolver,
            addresses,
            prepared: Some(prepared),
            opened,
            predecessor,
        })
    }

    /// The recorded state: opened already, or taken over now.
    pub(super) async fn open_state(
        &mut self,
    ) -> Result<(Store, Found, Option<Succession>), StartError> {
        if let Some(predecessor) = self.predecessor.take() {
            let taken = predecessor.take().await?;
            let (store, found) = Store::take_over(&self.state_dir, taken.lock)?;
            let revision = found.revision();
            let succession = Succession::new(taken.stream, taken.isolated, store.clone(), revision);
            return Ok((store, found, Some(succession)));
        }
        let (store, found) = match self.opened.take() {
            Some(opened) => opened,
            None => Store::open(&self.state_dir)?,
        };
        Ok((store, found, None))
    }

    /// What to share with other instances, if there are to be any.
    pub(super) fn join(
        &self,
        state: &State,
        fresh: bool,
    ) -> Result<Option<(Joining, Link)>, NotBuilt> {
        let cluster = self.config.cluster.as_ref();
        cluster
            .map(|cluster| {
                cluster::prepare(cluster, self.base.clone(), state.shared.clone(), fresh)
            })
            .transpose()
    }

    /// Brings the link to them up, and waits for what they share, for a while.
    pub(super) async fn link(&self, link: Option<Link>, controls: &Controls) -> Option<Running> {
        let link = link?;
        let about = About {
            admin: self.admin.0.to_string(),
            started: Timestamp::now(),
            home: cluster::home(&self.state_dir),
        };
        let resolver = self.resolver.clone();
        Some(link.start(controls.clone(), resolver, about).await)
    }

    /// Looks up the names that were set over the API: they have addresses before anybody is sent to them.
    pub(super) async fn look_up_set(&mut self, state: &State) {
        let (config, known) = (&self.config, &self.addresses);
        let found = self.resolver.look_up_set(config, state, known).await;
        self.addresses.extend(found);
    }

    /// Accepts connections.
    pub(super) fn accept(&mut self) {
        set_connection_limit(&self.plane, &self.config.limits);
        if let Some(prepared) = self.prepared.take() {
            self.listeners.open(&self.plane, prepared);
        }
    }
}

/// The file as it was when the process last ran: what it says differently now counts as a change.
pub(super) fn last_config(state_dir: &Path) -> Option<Arc<Config>> {
    let text = crate::store::last_good_config(state_dir).ok()?;
    switchback_config::parse(&text).config.map(Arc::new)
}

/// Says that something else runs than what the file says.
pub(super) fn tell_refusal(file_refused: Option<String>, reloader: &Reloader, events: &Events) {
    if let Some(reason) = file_refused {
        let message = format!("the file was refused, the last good one is in force: {reason}");
        events.emit("reload_failed", None, "start", message, None);
        reloader.note(Some(reason));
    }
}

/// The files that the configuration names, as far as they are not the admin API's or a listener's.
pub(super) fn read_files(config: &Config, base: &Path) -> Result<Arc<Material>, StartError> {
    let material = files::upstream_tls(config, base, &Material::default())?;
    files::check_hooks(config, base)?;
    signals::check_files(config, base)?;
    Ok(Arc::new(material))
}

/// Binds the admin address, unless a socket is inherited, and reads what guards it.
pub(super) fn open_entrance(
    config: &Config,
    base: &Path,
    state_dir: &Path,
    inherited: &mut Inherited,
) -> Result<Entrance, StartError> {
    let auth = Auth::new(match &config.admin.tokens_file {
        Some(path) => files::tokens(path, base)?,
        None => vec![generated_token(state_dir)?],
    });
    let tls = config
        .admin
        .tls
        .as_ref()
        .map(|tls| files::admin_tls(tls, base))
        .transpose()?
        .map(|tls| Arc::new(ArcSwap::new(tls)));
    let address = config.admin.address;
    let socket = match inherited.claim(ADMIN, address).pop() {
        Some(socket) => Ok(socket),
        None => std::net::TcpListener::bind(address),
    };
    let socket = socket.map_err(|cause| StartError::AdminAddress { address, cause })?;
    let allowed_hosts = config.admin.allowed_hosts.clone();
    Ok(Entrance {
        socket,
        tls,
        allowed_hosts,
        auth,
    })
}

/// Binds the address where flags are asked for, unless a socket is inherited, and reads what guards it.
fn open_ofrep(
    config: &Config,
    base: &Path,
    inherited: &mut Inherited,
) -> Result<Option<(ofrep::Opened, TcpListener)>, StartError> {
    let Some(wanted) = &config.ofrep else {
        return Ok(None);
    };
    let tls = wanted.tls.as_ref();
    let tls = tls.map(|tls| files::ofrep_tls(tls, base)).transpose()?;
    let tokens = wanted.tokens_file.as_deref();
    let tokens = tokens
        .map(|path| files::flag_tokens(path, base))
        .transpose()?;
    let address = wanted.address;
    let socket = match inherited.claim(OFREP, address).pop() {
        Some(socket) => Ok(socket),
        None => TcpListener::bind(address),
    };
    let both = socket.and_then(|socket| Ok((socket.try_clone()?, socket)));
    let (again, socket) = both.map_err(|cause| StartError::OfrepAddress { address, cause })?;
    let locks = ofrep::Locks {
        address: socket.local_addr().ok(),
        tls: tls.map(|tls| Arc::new(ArcSwap::new(tls))),
        auth: tokens.map(Auth::new),
    };
    let opened = ofrep::open(ofrep::Entrance { socket, locks });
    let opened = opened.map_err(|cause| {
        let what = "serve flags";
        StartError::Resources { what, cause }
    })?;
    Ok(Some((opened, again)))
}

pub(super) fn start_plane(
    config: &Config,
    traces: Option<Traces>,
) -> Result<Arc<DataPlane>, StartError> {
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
    DataPlane::start(
        workers.get(),
        Snapshot::empty(),
        log,
        traces,
        Instant::now(),
    )
    .map(Arc::new)
    .map_err(|cause| StartError::Resources {
        what: "start the workers",
        cause,
    })
}

/// The state to start from. A loss is never silent.
pub(super) fn recover(found: Found, events: &Events) -> State {
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
