//! Several instances that share one state: who belongs together, and where the state is kept.

use super::{path, require, texts};
use crate::decode::{Context, Place, Spanned};
use crate::defaults::{CLUSTER_LEASE, CLUSTER_LEASE_BOUNDS, CLUSTER_PREFIX};
use crate::diagnostic::Code;
use crate::model::{Cluster, Etcd};
use crate::raw;

/// Reads what the instance belongs to.
pub(super) fn cluster(written: &Spanned<raw::Cluster>, cx: &Context<'_>) -> Option<Cluster> {
    let raw = &written.value;
    let name = require(written, raw.name.as_ref(), "name", cx);
    let etcd = require(written, raw.etcd.as_ref(), "etcd", cx);
    for (item, what) in [(name, "cluster"), (raw.instance.as_ref(), "instance")] {
        if let Some(item) = item {
            texts::check_name(&item.value, item.into(), what, cx);
        }
    }
    let lease = raw.lease.as_ref();
    if let Some(lease) = lease {
        let (min, max) = CLUSTER_LEASE_BOUNDS;
        if !(min..=max).contains(&lease.value.0) || lease.value.0.subsec_nanos() != 0 {
            let reason = "a lease lasts 2s to 60s, in whole seconds";
            cx.error(Code::OutOfRange, lease, reason, "leave it out for 10s");
        }
    }
    let etcd = etcd.and_then(|etcd| self::etcd(etcd, cx));
    Some(Cluster {
        name: name?.value.clone(),
        instance: raw.instance.as_ref().map(|instance| instance.value.clone()),
        etcd: etcd?,
        lease: lease.map_or(CLUSTER_LEASE, |lease| lease.value),
    })
}

fn etcd(written: &Spanned<raw::Etcd>, cx: &Context<'_>) -> Option<Etcd> {
    let raw = &written.value;
    let endpoints = require(written, raw.endpoints.as_ref(), "endpoints", cx)?;
    if endpoints.value.is_empty() {
        let reason = "nowhere to keep the shared state";
        let repair = "name its members: [\"http://127.0.0.1:2379\"]";
        cx.error(Code::MissingKey, endpoints, reason, repair);
    }
    for endpoint in &endpoints.value {
        check_endpoint(endpoint, cx);
    }
    for (one, other, name) in [
        (&raw.certificate, &raw.key, "key"),
        (&raw.key, &raw.certificate, "certificate"),
        (&raw.user, &raw.password_file, "password_file"),
        (&raw.password_file, &raw.user, "user"),
    ] {
        if one.is_some() {
            require(written, other.as_ref(), name, cx);
        }
    }
    let prefix = raw.prefix.as_ref();
    let prefix = prefix.map_or(CLUSTER_PREFIX, |prefix| prefix.value.as_str());
    if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        let at = raw
            .prefix
            .as_ref()
            .map_or_else(|| Place::from(written), Place::from);
        let reason = "a prefix is visible ASCII text";
        cx.error(
            Code::InvalidValue,
            at,
            reason,
            "leave it out for /switchback",
        );
    }
    let texts = endpoints.value.iter();
    Some(Etcd {
        endpoints: texts.map(|endpoint| endpoint.value.clone()).collect(),
        prefix: prefix.trim_end_matches('/').to_owned(),
        ca: path(raw.ca.as_ref()),
        certificate: path(raw.certificate.as_ref()),
        key: path(raw.key.as_ref()),
        user: raw.user.as_ref().map(|user| user.value.clone()),
        password_file: path(raw.password_file.as_ref()),
    })
}

/// A URL with a scheme, a host and a port, and nothing else.
fn check_endpoint(endpoint: &Spanned<String>, cx: &Context<'_>) {
    let text = endpoint.value.as_str();
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let port = rest.and_then(|rest| rest.rsplit_once(':'));
    let is_right = port.is_some_and(|(host, port)| {
        let is_host = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
        is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !is_right {
        let reason = "this is not the URL of a member of etcd";
        let repair = "write http://HOST:PORT or https://HOST:PORT";
        cx.error(Code::InvalidValue, endpoint, reason, repair);
    }
}
