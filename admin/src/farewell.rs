//! Tells when a version gets no more requests, and when it has finished those it had.
//!
//! Jobs that a version has put into a queue are nothing a proxy sees. Its workers can follow the stream of
//! events instead: `version_closed` says that they should take no new jobs, `version_drained` that no
//! request of theirs is under way any more. Nothing is decided here, and nothing waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use switchback_config::model::Name;
use tokio::sync::watch::Receiver;

use crate::builder::find;
use crate::control::{Controls, Published};
use crate::drill::shadow::is_shadow;
use crate::events::Events;

/// How often requests under way are counted while a version drains.
const LOOK: Duration = Duration::from_millis(100);

/// A version of a backend of a service.
type Version = (Name, Name, String);

/// Follows all versions for as long as the process runs.
pub(crate) async fn run(controls: Controls, events: Events) {
    let mut following = controls.follow();
    let mut open = weights(&following.borrow_and_update());
    // What had no weight at the start was told by the process before.
    let mut draining: Vec<Version> = Vec::new();
    loop {
        if !changed(&mut following, draining.is_empty()).await {
            return;
        }
        let published = following.borrow_and_update().clone();
        let now = weights(&published);
        for (version, weight) in &now {
            let before = open.get(version).copied().unwrap_or(0);
            if before > 0 && *weight == 0 {
                tell(&events, version, CLOSED);
                draining.push(version.clone());
            }
        }
        // Another version in its place: it is gone all the same.
        for version in open.iter().filter(|(_, weight)| **weight > 0) {
            if !now.contains_key(version.0) && published.services.contains_key(&version.0.0) {
                tell(&events, version.0, CLOSED);
                draining.push(version.0.clone());
            }
        }
        open = now;
        draining.retain(|version| {
            if open.get(version).is_some_and(|weight| *weight > 0) {
                return false;
            }
            let is_busy = in_flight(&published, version) > 0;
            if !is_busy {
                tell(&events, version, DRAINED);
            }
            is_busy
        });
    }
}

/// Waits until something has changed, or it is time to look again; nothing ever will: false.
async fn changed<T>(following: &mut Receiver<T>, only_changes: bool) -> bool {
    let change = following.changed();
    if only_changes {
        return change.await.is_ok();
    }
    match tokio::time::timeout(LOOK, change).await {
        Ok(changed) => changed.is_ok(),
        Err(_) => true,
    }
}

/// Weight of every version.
fn weights(published: &Published) -> BTreeMap<Version, u32> {
    let services = published.services.iter();
    let services = services.filter(|(name, _)| !is_shadow(name));
    let all = services.flat_map(|(service, status)| {
        let effective = &status.effective;
        let backends = effective.backends.iter();
        backends.map(move |(name, backend)| {
            let version = (service.clone(), name.clone(), backend.version.clone());
            (version, effective.weight(name))
        })
    });
    all.collect()
}

/// Requests that are under way there, also if another version has its place.
fn in_flight(published: &Published, (service, backend, version): &Version) -> u64 {
    let live = find(&published.snapshot, service);
    let backends = live.iter().flat_map(|live| &live.backends);
    let is_it = |name: &str, label: &str| name == backend && label == version;
    let here = backends.filter(|live| is_it(&live.name, &live.version));
    let here = here.map(|live| live.stats.in_flight());
    let gone = published.retired.iter();
    let gone =
        gone.filter(|gone| *gone.service == **service && is_it(&gone.backend, &gone.version));
    here.chain(gone.map(|gone| gone.stats.in_flight())).sum()
}

/// Kind and words.
const CLOSED: (&str, &str) = (
    "version_closed",
    "gets no more requests: its workers should take no new jobs",
);
const DRAINED: (&str, &str) = ("version_drained", "has finished all requests");

fn tell(events: &Events, (service, backend, version): &Version, what: (&'static str, &str)) {
    let (kind, words) = what;
    let message = format!("{backend} ({version}) {words}");
    events.emit_about(kind, service, (backend, version), message);
}
