//! Several instances, one truth.
//!
//! What instances share is a list of changes in etcd, each an [`Entry`] with the number of its revision
//! and the hash of the one before it. A change is added by comparing and setting the [`Head`] of the list,
//! so there is one order, whoever writes. Everything else follows from that list:
//!
//! * An *ordinary* change is added first and applied then. Who was second decides again on what the first
//!   one has made of it.
//! * A *rollback or block* is applied first and added then. Until it is ([`Unshared`]), the state of the
//!   instance is the shared one with these on top; when others were first, they are decided again on top
//!   of that ([`crate::control`] does it), so that no block is ever forgotten on the way.
//! * Every instance tells, under a lease, which change it serves ([`Roster`]). A change is acknowledged when
//!   all whose lease lives serve it. An instance that has not renewed its lease for half of its time takes
//!   canaries to weight 0 by itself: nobody waits for it soon.
//! * One instance leads ([`Roster::leader`]). It moves rollouts, keeps leases of weights, and judges what all
//!   of them have counted ([`pool`]). The others judge what they see alone. The promise about false
//!   rollbacks is shared among all.
//!
//! Listeners, certificates, limits and the file are each instance's own; a file that is another one is
//! reported. Without etcd everything goes on serving: rollbacks work and are kept for later, other
//! changes are refused.
//!
//! [`link`] is the only part that talks to etcd, and the only one that the feature `etcd` adds.

#[cfg(not(feature = "etcd"))]
mod absent;
mod entry;
mod fleet;
mod home;
#[cfg(feature = "etcd")]
mod link;
pub(crate) mod list;
pub(crate) mod pool;
mod roster;
pub(crate) mod wire;

#[cfg(not(feature = "etcd"))]
pub(crate) use absent::{Link, Running, prepare};
pub use entry::Head;
pub(crate) use entry::Unshared;
pub(crate) use entry::{Entry, Recorded, Sealed};
pub(crate) use fleet::{Acknowledged, Order};
pub use fleet::{Fleet, NotAcknowledged};
pub(crate) use home::home;
#[cfg(feature = "etcd")]
pub(crate) use link::{Link, Running, prepare};
pub(crate) use roster::About;
pub use roster::{Contact, Instance, Roster};
pub use wire::Joining;

/// Whether instances can share state with this build.
pub(crate) const IS_BUILT: bool = cfg!(feature = "etcd");

/// The configuration has a `cluster`, and this build has no etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cluster: this switchback was built without etcd; use a release package, or build it with --features etcd"
)]
pub struct NotBuilt;
