//! Looks up endpoints that are given by name, again and again.
//!
//! All addresses of a name are endpoints. A name is looked up again when its answer expires, but not
//! more often than every five seconds; while a lookup fails, the last good answer stays. Answers for
//! names that were set over the API must lie inside `admin.endpoint_allow`.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
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
use crate::control::{Controls, Extent, Published};
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
        let names_of = |config: &Config| {
            let services = config.services.values();
            names(services.flat_map(|service| service.backends.values()))
        };
        let known = known.map(names_of).unwrap_or_default();
        let wanted: Vec<Wanted> = names_of(config).difference(&known).cloned().collect();
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
            let (from_file, from_api) = all_names(&published.borrow_and_update());
            let wanted: BTreeSet<&Wanted> = from_file.union(&from_api).collect();
            let mut changed = false;
            let before = current.len();
            current.retain(|name, _| wanted.contains(name));
            changed |= current.len() != before;
            due.retain(|name, _| wanted.contains(name));
            for name in wanted {
                if due.get(name).is_some_and(|due| *due > Instant::now()) {
                    continue;
                }
                let answer = self.look_up(name).await;
                let earliest = Instant::now() + RESOLVE_MIN;
                let next = answer
                    .as_ref()
                    .map_or(earliest, |(_, until)| (*until).max(earliest));
                due.insert(name.clone(), next);
                let Some((mut found, _)) = answer else {
                    continue;
                };
                let config = published.borrow().config.clone();
                let trusted = from_file.contains(name);
                found.retain(|address| is_usable(&config, name, *address, trusted));
                if !found.is_empty() && current.get(name) != Some(&found) {
                    current.insert(name.clone(), found);
                    changed = true;
                }
            }
            if changed {
                controls.set_addresses(current.clone(), Extent::All);
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
fn all_names(published: &Published) -> (BTreeSet<Wanted>, BTreeSet<Wanted>) {
    let from_file = published
        .config
        .services
        .values()
        .flat_map(|service| service.backends.values());
    (names(from_file), names_set(&published.state))
}

fn names_set(state: &State) -> BTreeSet<Wanted> {
    let services = state.services.values();
    let set = services.flat_map(|state| state.backends.values());
    names(set.map(|set| &set.value))
}
