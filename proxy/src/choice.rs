//! Which backend a request is meant for, before an endpoint is chosen.
//!
//! In this order: a tester's explicit wish, the version that the client's page came from, its affinity
//! key, the shares of the split. If
//! the backend so found has no healthy endpoint, its share goes to stable; stable's own share goes
//! to canaries only where the operator said so, because a canary is by definition less trusted.
//! When probes say that no endpoint of any weighted backend works, they are not believed: a broken
//! health check must not be an outage.

use std::rc::Rc;

use switchback_config::model::{AffinityKey, Preview};

use crate::balance::{Pick, is_available};
use crate::error::RequestError;
use crate::head::RequestHead;
use crate::headers;
use crate::health::Probed;
use crate::pin;
use crate::request::Request;
use crate::split::key_hash;
use crate::view::ServiceView;

/// A backend for a request.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) backend: usize,
    pub(crate) pick: Pick,
    /// Probes are not believed.
    pub(crate) despite_probes: bool,
    /// The hash of the client's affinity key.
    pub(crate) key: Option<u64>,
    /// The same for the judge, who must tell clients apart that stay on a version.
    pub(crate) judged_as: Option<u64>,
    /// A cookie to set, for a client that had none.
    pub(crate) set_cookie: Option<String>,
}

/// Chooses a backend.
///
/// # Errors
/// [`RequestError::NoHealthyEndpoint`].
pub(crate) fn choose(
    request: &Request<'_>,
    service: &Rc<ServiceView>,
) -> Result<Choice, RequestError> {
    if let Some(backend) = previewed(request, service) {
        return Ok(Choice {
            backend,
            pick: Pick::Preview,
            despite_probes: true,
            key: None,
            judged_as: None,
            set_cookie: None,
        });
    }
    let (key, set_cookie) = affinity(request, service);
    let judged_as = pin::judged_as(request, service, key);
    if let Some(backend) = pin::pinned(request, service) {
        return Ok(Choice {
            backend,
            pick: Pick::Split,
            despite_probes: false,
            key,
            judged_as,
            set_cookie,
        });
    }
    let by_key = key
        .map(|key| service.service.split.by_key(key))
        .filter(|backend| service.service.is_open(*backend));
    let backend = by_key
        .or_else(|| service.next_by_share(&mut |bound| request.worker.random(bound)))
        .ok_or_else(|| no_healthy(service, service.service.stable))?;
    let choice = Choice {
        backend,
        pick: Pick::Split,
        despite_probes: false,
        key,
        judged_as,
        set_cookie,
    };
    if is_available(request.worker, &service.backends[backend]) {
        return Ok(choice);
    }
    match divert(request, service, backend) {
        Some(other) => Ok(Choice {
            backend: other,
            pick: Pick::Diverted,
            ..choice
        }),
        None if probes_say_nothing_works(service) => Ok(Choice {
            despite_probes: true,
            ..choice
        }),
        None => Err(no_healthy(service, backend)),
    }
}

fn no_healthy(service: &ServiceView, backend: usize) -> RequestError {
    RequestError::NoHealthyEndpoint(service.backends[backend].backend.name.to_string())
}

/// The backend that a tester asks for by name. Blocked ones are not to be had.
fn previewed(request: &Request<'_>, service: &ServiceView) -> Option<usize> {
    let Preview { header, from } = service.service.preview.as_ref()?;
    let wanted = request.head.fields.values(header.as_bytes()).next()?;
    if !is_tester(request, from) {
        return None;
    }
    let wanted = std::str::from_utf8(wanted).ok()?;
    let (backend, _) = service.backend_named(wanted)?;
    (!service.service.blocked[backend]).then_some(backend)
}

/// Whether the client itself, not a proxy in front of it, is one of the testers.
pub(crate) fn is_tester(request: &Request<'_>, from: &[ipnet::IpNet]) -> bool {
    let trusted = &request.view.snapshot.trusted_proxies;
    headers::contains(
        from,
        headers::client_address(request.head, request.client.peer.ip(), trusted),
    )
}

/// The hash of the client's key, and the cookie to set if it has none yet.
fn affinity(request: &Request<'_>, service: &ServiceView) -> (Option<u64>, Option<String>) {
    let Some(affinity) = &service.service.affinity else {
        return (None, None);
    };
    if let Some(key) = affinity_key(request.head, &affinity.key) {
        return (Some(key_hash(key)), None);
    }
    match &affinity.key {
        AffinityKey::Cookie(name) if affinity.issue => {
            let key = headers::new_affinity_key(request.worker.random_id());
            let cookie = headers::affinity_cookie(name, &key, request.client.secure);
            (Some(key_hash(key.as_bytes())), Some(cookie))
        }
        _ => (None, None),
    }
}

fn affinity_key<'a>(head: &'a RequestHead, key: &'a AffinityKey) -> Option<&'a [u8]> {
    match key {
        AffinityKey::Cookie(name) => headers::cookie(head, name),
        AffinityKey::Header(name) => head
            .fields
            .values(name.as_bytes())
            .next()
            .filter(|value| !value.is_empty()),
    }
}

/// Who takes the share of a backend without healthy endpoints.
fn divert(request: &Request<'_>, service: &ServiceView, backend: usize) -> Option<usize> {
    let stable = service.service.stable;
    let can_take = |other: usize| {
        other != backend
            && service.service.is_open(other)
            && is_available(request.worker, &service.backends[other])
    };
    if can_take(stable) {
        return Some(stable);
    }
    let canaries = (0..service.backends.len()).filter(|other| *other != stable && can_take(*other));
    if backend == stable && service.service.spill_to_canary {
        canaries.max_by_key(|c| service.service.split.weight(*c))
    } else {
        None
    }
}

/// Whether probes report every endpoint of every weighted backend as down.
fn probes_say_nothing_works(service: &ServiceView) -> bool {
    let weighted = (0..service.backends.len()).filter(|backend| service.service.is_open(*backend));
    weighted
        .flat_map(|backend| &service.backends[backend].endpoints)
        .all(|e| e.endpoint.health.probed() == Probed::Down)
}
