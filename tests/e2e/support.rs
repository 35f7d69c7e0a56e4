//! Origins, the proxy under test, and clients.

mod authority;
mod client;
#[cfg(feature = "etcd")]
pub(crate) mod etcd;
mod faulty;
pub(crate) mod frames;
mod load;
mod origin;
mod process;
mod prometheus;
mod proxy;
mod receiver;
mod relay;
mod tmux;
pub(crate) mod wire;

pub(crate) use authority::Authority;
pub(crate) use client::{Answer, Http, RawClient};
pub(crate) use faulty::{BODY as FAULTY_BODY, Fault, Faulty};
pub(crate) use load::{Load, Protocol};
pub(crate) use origin::{Behaviour, Named, Origin};
pub(crate) use process::{Process, client};
pub(crate) use prometheus::Prometheus;
pub(crate) use proxy::{HEAD, Proxy, blue_green, log_in, run};
pub(crate) use receiver::{Mood, Receiver};
#[cfg(feature = "etcd")]
pub(crate) use relay::Passage;
pub(crate) use relay::Relay;
pub(crate) use tmux::Terminal;

use std::time::{Duration, Instant};

/// How long anything may take that should take no time at all. Generous: a loaded machine is no bug.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Looks until something holds. Panics with `what` if it does not within [`DEADLINE`].
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The same for things that have to be asked for.
pub(crate) async fn eventually_async<F: Future<Output = bool>>(
    what: &str,
    mut holds: impl FnMut() -> F,
) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        ticks.tick().await;
    }
}

/// The interpreter with the packages of `tests/clients/requirements.txt`, in an environment that
/// `tests/run` makes.
pub(crate) fn python() -> String {
    let made = format!("{}/target/test-venv/bin/python", env!("CARGO_MANIFEST_DIR"));
    std::env::var("SWITCHBACK_TEST_PYTHON").unwrap_or(made)
}
