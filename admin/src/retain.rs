//! Whether versions that were stable before are still there: each is connected to again and again.
//!
//! A version that nobody keeps running cannot be gone back to, whatever the record says. Addresses that
//! another version has taken over do not count: whoever answers there is not the one that is meant.

use std::net::SocketAddr;

use futures_util::stream::{self, StreamExt as _};
use switchback_config::defaults::{HEALTH_TIMEOUT, RETAINED_AT_ONCE, RETAINED_INTERVAL};
use switchback_config::model::Name;
use switchback_config::units::{Endpoint, EndpointHost};
use switchback_proxy::health::is_own_want;
use tokio::net::TcpStream;

use crate::control::{Controls, Published};
use crate::ready::Readiness;
use crate::state::Retained;

/// What became of a look at a version: nothing, or why it cannot be reached.
pub(crate) type Reached = Result<(), String>;

/// Looks until the process ends.
pub(crate) async fn run(controls: Controls, readiness: Readiness) {
    let mut ticks = tokio::time::interval(RETAINED_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let published = controls.published();
        let wanted = wanted(&published).map(|(service, kept)| {
            let by = taken_over(&published, service, kept);
            let key = (service.clone(), kept.deployed.version.clone());
            (key, by, kept.deployed.endpoints.clone())
        });
        let wanted: Vec<_> = wanted.collect();
        let looks = stream::iter(wanted).map(|(key, by, endpoints)| async move {
            let reached = match by {
                Some(by) => Some(Err(by)),
                None => reach(&endpoints).await,
            };
            (key, reached)
        });
        let looks: Vec<_> = looks.buffer_unordered(RETAINED_AT_ONCE).collect().await;
        // Who could not look says nothing new.
        let found = looks.into_iter().filter_map(|(key, reached)| {
            let reached = reached.or_else(|| readiness.reached(&key.0, &key.1));
            Some((key, reached?))
        });
        readiness.set_reached(found.collect());
    }
}

/// The versions that have to be reachable.
fn wanted(published: &Published) -> impl Iterator<Item = (&Name, &Retained)> {
    published.state.services.iter().flat_map(|(name, state)| {
        let file = published.file(name);
        let many = file.map_or(0, |file| usize::try_from(file.retain).unwrap_or(usize::MAX));
        state
            .retained
            .iter()
            .take(many)
            .map(move |kept| (name, kept))
    })
}

/// Which other version has its endpoints now.
fn taken_over(published: &Published, service: &Name, kept: &Retained) -> Option<String> {
    let effective = &published.services.get(service)?.effective;
    let mut others = effective.backends.values();
    let endpoints = &kept.deployed.endpoints;
    let by = others.find(|other| {
        let shares = other
            .endpoints
            .iter()
            .any(|endpoint| endpoints.contains(endpoint));
        other.version != kept.deployed.version && shares
    })?;
    Some(format!("its endpoints serve version {} now", by.version))
}

/// Connects to each endpoint until one answers. None: this process could not.
async fn reach(endpoints: &[Endpoint]) -> Option<Reached> {
    let mut last = Some(Err("it has no endpoint".to_owned()));
    for endpoint in endpoints {
        let attempt = tokio::time::timeout(HEALTH_TIMEOUT, connect(endpoint)).await;
        last = match attempt {
            Ok(Ok(_)) => return Some(Ok(())),
            Ok(Err(error)) if is_own_want(&error) => None,
            Ok(Err(error)) => Some(Err(format!("connect to {endpoint}: {error}"))),
            Err(_) => Some(Err(format!("connect to {endpoint}: timed out"))),
        };
    }
    last
}

async fn connect(endpoint: &Endpoint) -> std::io::Result<TcpStream> {
    match &endpoint.host {
        EndpointHost::Address(address) => {
            TcpStream::connect(SocketAddr::from((*address, endpoint.port))).await
        }
        EndpointHost::Name(name) => TcpStream::connect((name.as_str(), endpoint.port)).await,
    }
}
