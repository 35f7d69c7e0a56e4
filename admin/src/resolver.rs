//! Looks up endpoints that are given by name, again and again.
//!
//! All addresses of a name are endpoints. A name is looked up again when its answer expires, but not
//! more often than every five seconds; while a lookup fails, the last good answer stays. Answers for
//! names that were set over the API must lie inside `admin.endpoint_allow`.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use hickory_resolver::TokioResolver;
use switchback_config::check_endpoint_address;
use switchback_config::defaults::RESOLVE_MIN;
use switchback_config::model::{Backend, Config};
use switchback_config::units::EndpointHost;
use tokio::time::Instant;

use crate::builder::Addresses;
use crate::control::{Controls, Found};
use crate::controller::{allowed, own_addresses};
use crate::own::leads_here;
use crate::state::State;

/// How long one lookup may take.
const LOOKUP_TIME: Duration = Duration::from_secs(3);

/// Lookups under way when many names are looked up at once.
const LOOKUPS_AT_ONCE: usize = 16;

/// A name and port to look up.
type Wanted = (String, u16);

/// Looks up names.
#[derive(Clone, Debug)]
pub struct Resolver {
    resolver: Option<Arc<TokioResolver>>,
}

impl Resolver {
    /// A resolver with the system's settings.
    #[must_use]
    pub fn new() -> Self {
        let built = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        let resolver = built
            .inspect_err(|error| tracing::error!(%error, "read the system's resolver settings; names cannot be looked up"))
            .ok()
            .map(Arc::new);
        Self { resolver }
    }

    /// The addresses of all names in a file that are not in `known`; those that cannot be found are
    /// left out.
    pub async fn look_up_file(&self, config: &Config, known: Option<&Config>) -> Addresses {
        let known = known.map(names_of_file).unwrap_or_default();
        let wanted = names_of_file(config);
        let wanted: Vec<Wanted> = wanted.difference(&known).cloned().collect();
        self.look_up_all(config, wanted, true).collect().await
    }

    /// The addresses of all names that were set over the API and are not in `known`, as far as they are
    /// found in the time of one lookup: whoever waits for them has taken the state already.
    pub(crate) async fn look_up_set(
        &self,
        config: &Config,
        state: &State,
        known: &Addresses,
    ) -> Addresses {
        let wanted = names_set(state).into_iter();
        let wanted: Vec<Wanted> = wanted.filter(|name| !known.contains_key(name)).collect();
        let found = self.look_up_all(config, wanted, false);
        let late = tokio::time::sleep(LOOKUP_TIME);
        found.take_until(late).collect().await
    }

    /// The addresses of names that a state has and another one does not, as far as they are found in the time
    /// of one lookup.
    #[cfg(feature = "etcd")]
    pub(crate) async fn look_up_new(
        &self,
        config: &Config,
        known: &State,
        state: &State,
    ) -> Addresses {
        let known = names_set(known);
        let wanted = names_set(state).into_iter();
        let wanted: Vec<Wanted> = wanted.filter(|name| !known.contains(name)).collect();
        let found = self.look_up_all(config, wanted, false);
        let late = tokio::time::sleep(LOOKUP_TIME);
        found.take_until(late).collect().await
    }

    /// The addresses that may be used, of each name that has any.
    fn look_up_all<'a>(
        &'a self,
        config: &'a Config,
        wanted: Vec<Wanted>,
        from_file: bool,
    ) -> impl Stream<Item = (Wanted, Vec<SocketAddr>)> + 'a {
        let lookups = stream::iter(wanted).map(move |wanted| async move {
            let found = self.look_up(&wanted).await;
            let (mut addresses, _) = found?;
            addresses.retain(|address| is_usable(config, &wanted, *address, from_file));
            Some((wanted, addresses)).filter(|(_, addresses)| !addresses.is_empty())
        });
        let found = lookups.buffer_unordered(LOOKUPS_AT_ONCE);
        found.filter_map(std::future::ready)
    }

    async fn look_up(&self, (name, port): &Wanted) -> Option<(Vec<SocketAddr>, Instant)> {
        let resolver = self.resolver.as_ref()?;
        match tokio::time::timeout(LOOKUP_TIME, resolver.lookup_ip(name.as_str())).await {
            Ok(Ok(answer)) => {
                let until = Instant::from_std(answer.valid_until());
                let mut found: Vec<SocketAddr> =
                    answer.iter().map(|ip| SocketAddr::new(ip, *port)).collect();
                found.sort();
                found.dedup();
                Some((found, until)).filter(|(found, _)| !found.is_empty())
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, name, "look up an endpoint");
                None
            }
            Err(_) => {
                tracing::warn!(name, "look up an endpoint: no answer");
                None
            }
        }
    }

    /// Keeps the addresses of all names current. Never ends.
    pub async fn run(self, controls: Controls, mut current: Addresses) {
        let mut published = controls.follow();
        let mut due: HashMap<Wanted, Instant> = current
            .keys()
            .map(|wanted| (wanted.clone(), Instant::now() + RESOLVE_MIN))
            .collect();
        loop {
            let now_in_force = published.borrow_and_update().clone();
            let (config, state) = (&now_in_force.config, &now_in_force.state);
            let wanted = names_in_use(config, state);
            due.retain(|name, _| wanted.contains(name));
            let gone = current.extract_if(|name, _| !wanted.contains(name));
            let gone = Found {
                gone: gone.map(|(name, _)| name).collect(),
                ..Found::default()
            };
            if !gone.is_empty() {
                controls.set_addresses(gone).await;
            }
            let now = Instant::now();
            let is_due = |name: &Wanted| due.get(name).is_none_or(|due| *due <= now);
            let is_due: Vec<Wanted> = wanted.into_iter().filter(is_due).collect();
            let from_file = names_of_file(config);
            let lookups = stream::iter(is_due).map(async |name| (self.look_up(&name).await, name));
            let lookups = lookups.buffer_unordered(LOOKUPS_AT_ONCE);
            // What is known goes on; a name that nobody answers for keeps the others no longer than itself.
            let mut lookups = pin!(lookups.ready_chunks(LOOKUPS_AT_ONCE));
            while let Some(answers) = lookups.next().await {
                let mut found = Found::default();
                for (answer, name) in answers {
                    let earliest = Instant::now() + RESOLVE_MIN;
                    let until = answer.as_ref().map(|(_, until)| *until);
                    due.insert(
                        name.clone(),
                        until.map_or(earliest, |until| until.max(earliest)),
                    );
                    let mut addresses = answer.map_or_else(Vec::new, |(addresses, _)| addresses);
                    let trusted = from_file.contains(&name);
                    addresses.retain(|address| is_usable(config, &name, *address, trusted));
                    if !addresses.is_empty() && current.get(&name) != Some(&addresses) {
                        current.insert(name.clone(), addresses.clone());
                        found.addresses.insert(name, addresses);
                    }
                }
                if !found.is_empty() {
                    controls.set_addresses(found).await;
                }
            }
            let next = due.values().min().copied();
            tokio::select! {
                changed = published.changed() => if changed.is_err() { return },
                () = sleep_until(next) => {}
            }
        }
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

async fn sleep_until(next: Option<Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next).await,
        None => std::future::pending().await,
    }
}

/// Whether an address may be an endpoint. Names in the file may point anywhere but to this process
/// and to what no endpoint can be.
fn is_usable(config: &Config, (name, _): &Wanted, address: SocketAddr, from_file: bool) -> bool {
    let own: Vec<SocketAddr> = own_addresses(config).collect();
    let verdict = match from_file {
        true => check_endpoint_address(address.ip(), address.port(), &own).map_err(str::to_owned),
        false => allowed(config, address.ip(), address.port()),
    };
    let verdict = match leads_here(&own, address) {
        true => Err("switchback itself listens there".to_owned()),
        false => verdict,
    };
    if let Err(reason) = &verdict {
        tracing::warn!(name, %address, reason, "an endpoint's name points where it may not");
    }
    verdict.is_ok()
}

fn names<'a>(backends: impl Iterator<Item = &'a Backend>) -> BTreeSet<Wanted> {
    let endpoints = backends.flat_map(|backend| &backend.endpoints);
    let named = endpoints.filter_map(|endpoint| match &endpoint.host {
        EndpointHost::Name(name) => Some((name.clone(), endpoint.port)),
        EndpointHost::Address(_) => None,
    });
    named.collect()
}

/// The names in the file, and those set over the API.
pub(crate) fn names_in_use(config: &Config, state: &State) -> BTreeSet<Wanted> {
    let mut names = names_of_file(config);
    names.append(&mut names_set(state));
    names
}

fn names_of_file(config: &Config) -> BTreeSet<Wanted> {
    let services = config.services.values();
    names(services.flat_map(|service| service.backends.values()))
}

fn names_set(state: &State) -> BTreeSet<Wanted> {
    let services = state.services.values();
    let set = services.flat_map(|state| state.backends.values());
    names(set.map(|set| &set.value))
}
