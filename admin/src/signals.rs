//! Signals from outside: asks metrics stores and checks what they say about watched versions.
//!
//! One task for each signal of each version that is watched and has weight; of stable, while there is
//! no other. What it hears it puts into
//! the [`Feed`] that it shares with the version's watch; whether that is reason for a rollback is
//! decided there, by the control thread, which never waits for an answer. Nothing is retried: the next
//! look is the retry. Looks are spread in time, and few are under way at once.

mod credentials;
mod feed;
mod http;
mod prometheus;
mod view;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use switchback_config::defaults::SIGNALS_AT_ONCE;
use switchback_config::model::{Config, Rule, SignalSource};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::builder::find;
use crate::control::{Controls, Published};
use crate::files::FileError;
use credentials::Credentials;
pub use feed::{Feed, Measured, SignalCondition, SignalView};
pub(crate) use feed::{bad_in_words, in_words};
pub(crate) use view::signals;

/// The first looks are spread over at most so long.
const SPREAD: Duration = Duration::from_secs(1);

/// Looks at all signals. Never ends. `base`: what file names are relative to.
pub(crate) async fn run(controls: Controls, base: PathBuf) {
    let mut published = controls.follow();
    let permits = Arc::new(Semaphore::new(SIGNALS_AT_ONCE));
    let mut lookouts: HashMap<Key, JoinHandle<()>> = HashMap::new();
    loop {
        let wanted = wanted(&published.borrow_and_update());
        lookouts.retain(|key, task| {
            let stays = wanted.contains_key(key);
            if !stays {
                task.abort();
            }
            stays
        });
        for (key, feed) in wanted {
            lookouts.entry(key).or_insert_with(|| {
                tokio::spawn(look_out(feed, key.until, base.clone(), permits.clone()))
            });
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}

/// The address of a feed in memory, which stays while its version does, and when its trial ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    feed_at: usize,
    until: Until,
}

/// The feeds of watched versions that have weight.
fn wanted(published: &Published) -> HashMap<Key, Arc<Feed>> {
    let mut wanted = HashMap::new();
    let at = published.clock.now();
    for (name, status) in &published.services {
        for (backend, gauge) in &status.gauges {
            let Some(until) = watched(published, name, backend, at) else {
                continue;
            };
            for feed in &*gauge.signals() {
                let feed_at = Arc::as_ptr(feed).addr();
                wanted.insert(Key { feed_at, until }, feed.clone());
            }
        }
        for feed in status.stable_gauge.iter().flat_map(|gauge| gauge.signals()) {
            let (feed_at, until) = (Arc::as_ptr(feed).addr(), Until(None));
            wanted.insert(Key { feed_at, until }, feed.clone());
        }
    }
    wanted
}

/// The end of a watch: that of a trial, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Until(Option<Timestamp>);

/// Whether a backend has weight and is a canary or on trial, and for how long.
fn watched(published: &Published, service: &str, backend: &str, at: Timestamp) -> Option<Until> {
    let effective = &published.services.get(service)?.effective;
    let live = find(&published.snapshot, service)?;
    let index = live.backends.iter().position(|b| *b.name == *backend)?;
    if live.split.weight(index) == 0 {
        return None;
    }
    if effective.stable != backend {
        return Some(Until(None));
    }
    let trial = effective.trial_at(at)?;
    Some(Until(Some(trial.until)))
}

/// Looks at one signal again and again, until the end of a trial.
async fn look_out(feed: Arc<Feed>, until: Until, base: PathBuf, permits: Arc<Semaphore>) {
    let every = feed.signal().every.0;
    let mut lookout = Lookout {
        feed: &feed,
        base: &base,
        credentials: None,
    };
    tokio::time::sleep(every.min(SPREAD).mul_f64(fastrand::f64() / 10.0)).await;
    while until.0.is_none_or(|until| Timestamp::now() < until) {
        let next = Instant::now() + every.mul_f64(fastrand::f64().mul_add(0.2, 0.9));
        let outcome = match permits.acquire().await {
            Ok(_permit) => lookout.look().await,
            Err(_) => return,
        };
        feed.put(outcome);
        tokio::time::sleep_until(next).await;
    }
}

struct Lookout<'a> {
    feed: &'a Feed,
    base: &'a Path,
    /// What was read from files last, and the client made with it.
    credentials: Option<Credentials>,
}

impl Lookout<'_> {
    /// One look.
    async fn look(&mut self) -> Result<Measured, String> {
        let signal = self.feed.signal();
        // Tokens are replaced by whoever issues them, also without a reload.
        let (reading, base) = (signal.clone(), self.base.to_path_buf());
        let read = move || Credentials::read(&reading, &base);
        let files = tokio::task::spawn_blocking(read).await;
        let files = files.map_err(|error| error.to_string())??;
        let credentials = match self.credentials.take() {
            Some(same) if same.is_made_of(&files) => same,
            _ => Credentials::new(files, signal)?,
        };
        let credentials = self.credentials.insert(credentials);
        let (asks, patience) = (self.feed.asks(), signal.timeout.0);
        match &signal.source {
            SignalSource::Prometheus {
                prometheus: server,
                threshold,
                ..
            } => prometheus::look(server, asks, credentials, *threshold, patience).await,
            SignalSource::Http { expect, .. } => {
                http::look(asks, credentials, *expect, patience).await
            }
        }
    }
}

/// Checks the files that signals name.
///
/// # Errors
/// When one cannot be read or is no good.
pub(crate) fn check_files(config: &Config, base: &Path) -> Result<(), FileError> {
    for (name, service) in &config.services {
        for rule in &service.rollback.rules {
            let Rule::Signal(signal) = rule else {
                continue;
            };
            let made =
                Credentials::read(signal, base).and_then(|files| Credentials::new(files, signal));
            made.map_err(|reason| FileError::Signal {
                key: format!("services.{name}.rollback.rules ({})", signal.name),
                reason,
            })?;
        }
    }
    Ok(())
}
