//! Services: backends, weights, roles, and everything that hangs on them.

mod carried_out;
mod database;
mod hooks;
mod judge;
mod mirror;
mod pin;
mod rollout;
mod rules;
mod split;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;

use super::flags::{check_names, header};
use super::limits::{self, Level};
use super::{check_unique, require, texts, values};
use crate::decode::{Context, Place, Spanned, Table};
use crate::defaults::{self, BACKENDS_MAX, DRILL_EVERY_MIN, ENDPOINTS_MAX, SERVICES_MAX};
use crate::diagnostic::Code;
use crate::model::{
    Affinity, AffinityKey, Backend, Balance, Drain, Drill, Flag, HealthCheck, Migration, Name,
    Preview, Rescue, Service, UpstreamTls,
};
use crate::raw;
use crate::units::{EndpointHost, Scheme, TimeSpan};

/// Reads the services. `own`: addresses that switchback itself listens on.
pub(super) fn services(
    written: Option<&Spanned<Table<raw::Service>>>,
    own: &[SocketAddr],
    flags: &IndexMap<Name, Flag>,
    cx: &Context<'_>,
) -> IndexMap<Name, Service> {
    let mut services = IndexMap::new();
    let Some(written) = written else {
        return services;
    };
    let count = written.value.0.len();
    if count == 0 {
        let repair = "add site: {backends: {blue: {endpoints: [\"http://127.0.0.1:9001\"]}}}";
        cx.error(Code::MissingKey, written, "there are no services", repair);
    }
    if count > SERVICES_MAX {
        let reason = format!("{count} services are more than {SERVICES_MAX}");
        cx.error(Code::TooLarge, written, reason, "run several instances");
        return services;
    }
    for (key, service) in &written.value.0 {
        let at = Place {
            span: key.span,
            path: service.path.clone(),
        };
        texts::check_name(&key.text, at, "service", cx);
        if let Some(service) = self::service(service, own, flags, cx) {
            services.insert(key.text.clone(), service);
        }
    }
    services
}

fn service(
    written: &Spanned<raw::Service>,
    own: &[SocketAddr],
    flags: &IndexMap<Name, Flag>,
    cx: &Context<'_>,
) -> Option<Service> {
    let raw = &written.value;
    let table = require(written, raw.backends.as_ref(), "backends", cx);
    let backends = table.map(|table| backends(table, own, flags, cx));
    let affinity = raw.affinity.as_ref();
    let affinity = affinity.and_then(|affinity| self::affinity(affinity, cx));
    let preview = raw.preview.as_ref();
    let preview = preview.and_then(|preview| self::preview(preview, cx));
    let health = raw.health.as_ref();
    let health = health.and_then(|health| health_check(health, cx));
    let rescue = rescue(raw.rescue.as_ref(), cx);
    let rollback = judge::rollback(raw.rollback.as_ref(), cx);
    let rollout = rollout::rollout(raw.rollout.as_ref(), cx);
    let hooks = hooks::hooks(raw.hooks.as_ref(), backends.as_ref(), cx);
    let limits = limits::overrides(raw.limits.as_ref(), Level::Service, cx);
    if let Some(host) = &raw.upstream_host {
        texts::check_authority(host, cx);
    }
    let (table, backends) = (table?, backends?);
    let stable = split::stable(written, table, &backends, cx)?;
    let weights = split::weights(raw, table, &stable, cx)?;
    split::check_versions(table, &weights, cx);
    split::check_affinity(raw, &weights, &stable, cx);
    let pin = raw.pin.as_ref();
    let pin = pin.and_then(|pin| pin::pin(pin, affinity.as_ref(), cx));
    let mirror = raw
        .mirror
        .as_ref()
        .and_then(|mirror| mirror::mirror(mirror, &backends, &stable, cx));
    let header = raw
        .flags
        .as_ref()
        .and_then(|written| header(written, flags, cx));
    Some(Service {
        stable,
        weights,
        backends,
        balance: raw
            .balance
            .as_ref()
            .map_or(Balance::P2c, |balance| balance.value),
        affinity,
        pin,
        preview,
        health,
        rescue,
        mirror,
        rollback,
        rollout,
        hooks,
        spill_to_canary: raw
            .spill_to_canary
            .as_ref()
            .is_some_and(|spill| spill.value),
        expose: raw.expose.as_ref().is_some_and(|expose| expose.value),
        upstream_host: raw.upstream_host.as_ref().map(|host| host.value.clone()),
        drain: drain(raw.drain.as_ref().map(|drain| &drain.value)),
        limits,
        flags: header,
        version_header: raw
            .version_header
            .as_ref()
            .and_then(|name| texts::header_name(&name.value, name.into(), cx)),
        no_store_on_trial: raw.no_store_on_trial.as_ref().is_some_and(|on| on.value),
        drill: raw.drill.as_ref().and_then(|written| drill(written, cx)),
        database: database::database(raw.database.as_ref(), cx),
        retain: database::retain(raw.retain.as_ref(), cx),
    })
}

fn drain(raw: Option<&raw::Drain>) -> Drain {
    let streams = raw.and_then(|drain| drain.streams.as_ref());
    let after = raw.and_then(|drain| drain.safe_to_stop_after.as_ref());
    Drain {
        streams: streams.and_then(|streams| streams.value.0),
        safe_to_stop_after: after
            .map_or(TimeSpan(defaults::SAFE_TO_STOP_AFTER), |after| after.value),
    }
}

/// Reads when a rollback is rehearsed.
fn drill(written: &Spanned<raw::Drill>, cx: &Context<'_>) -> Option<Drill> {
    let every = require(written, written.value.every.as_ref(), "every", cx)?;
    if every.value.0 < DRILL_EVERY_MIN {
        let reason = "a drill takes some seconds: so often is load, not practice";
        let repair = format!("use {} or more", TimeSpan(DRILL_EVERY_MIN));
        cx.error(Code::OutOfRange, every, reason, repair);
    }
    Some(Drill { every: every.value })
}

fn backends(
    table: &Spanned<Table<raw::Backend>>,
    own: &[SocketAddr],
    flags: &IndexMap<Name, Flag>,
    cx: &Context<'_>,
) -> IndexMap<Name, Backend> {
    let count = table.value.0.len();
    if count == 0 {
        cx.error(
            Code::MissingKey,
            table,
            "a service needs a backend",
            "add blue: {endpoints: […]}",
        );
    }
    if count > BACKENDS_MAX {
        let reason = format!("{count} backends are more than {BACKENDS_MAX}");
        cx.error(
            Code::TooLarge,
            table,
            reason,
            "remove versions that are gone",
        );
    }
    let mut backends = IndexMap::new();
    for (key, backend) in &table.value.0 {
        let at = Place {
            span: key.span,
            path: backend.path.clone(),
        };
        texts::check_name(&key.text, at.clone(), "backend", cx);
        let version = &backend.value.version;
        match version {
            None if count > 1 => {
                let reason = "its version cannot be told apart from the other backends'";
                cx.error(
                    Code::MissingVersion,
                    at,
                    reason,
                    "add version: with the label of what is deployed",
                );
            }
            Some(version)
                if version.value.is_empty() || version.value.len() > VERSION_BYTES_MAX =>
            {
                let reason = "a version is a label such as a tag, digest or build number";
                cx.error(
                    Code::InvalidValue,
                    version,
                    reason,
                    format!("use 1 to {VERSION_BYTES_MAX} characters"),
                );
            }
            _ => {}
        }
        check_endpoints(backend, own, cx);
        if let Some(names) = &backend.value.off_on_rollback {
            check_names(&names.value, flags, cx);
            check_unique(&names.value, "flag", cx);
        }
        backends.insert(key.text.clone(), deployed(backend, cx));
    }
    backends
}

/// One version, as far as it can be read.
fn deployed(written: &Spanned<raw::Backend>, cx: &Context<'_>) -> Backend {
    let raw = &written.value;
    let schema = raw.schema.as_ref();
    Backend {
        version: raw
            .version
            .as_ref()
            .map(|version| version.value.clone())
            .unwrap_or_default(),
        endpoints: values(raw.endpoints.as_ref()),
        tls: upstream_tls(written, cx),
        off_on_rollback: values(raw.off_on_rollback.as_ref()),
        schema: schema.and_then(|schema| database::schema(schema, cx)),
        migration: raw
            .migration
            .as_ref()
            .map_or(Migration::None, |written| written.value),
    }
}

/// Longest label: image digests have 71 characters.
const VERSION_BYTES_MAX: usize = 128;

/// What the name `localhost` stands for everywhere.
const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn check_endpoints(backend: &Spanned<raw::Backend>, own: &[SocketAddr], cx: &Context<'_>) {
    let Some(endpoints) = require(backend, backend.value.endpoints.as_ref(), "endpoints", cx)
    else {
        return;
    };
    if endpoints.value.is_empty() {
        cx.error(
            Code::MissingKey,
            endpoints,
            "a backend needs an endpoint",
            "add \"http://127.0.0.1:9001\"",
        );
    }
    if endpoints.value.len() > ENDPOINTS_MAX {
        let reason = format!(
            "{} endpoints are more than {ENDPOINTS_MAX}",
            endpoints.value.len()
        );
        cx.error(
            Code::TooLarge,
            endpoints,
            reason,
            "put a load balancer between",
        );
        return;
    }
    check_unique(&endpoints.value, "endpoint", cx);
    for endpoint in &endpoints.value {
        let address = match &endpoint.value.host {
            EndpointHost::Address(address) => Some(*address),
            EndpointHost::Name(name) => (name == "localhost").then_some(LOCALHOST),
        };
        if let Some(address) = address
            && let Err(reason) = check_endpoint_address(address, endpoint.value.port, own)
        {
            cx.error(
                Code::EndpointRefused,
                endpoint,
                reason,
                "use the address of a backend",
            );
        }
    }
}

/// Whether an address can be an endpoint at all. `own`: what switchback itself listens on.
///
/// # Errors
/// The reason why not.
pub fn check_endpoint_address(
    address: IpAddr,
    port: u16,
    own: &[SocketAddr],
) -> Result<(), &'static str> {
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_unspecified() || address.is_multicast() || link_local {
        return Err("unspecified, multicast and link-local addresses cannot be endpoints");
    }
    let is_own = own.iter().any(|own| {
        let everywhere = own.ip().is_unspecified() && address.is_loopback();
        own.port() == port && (own.ip().to_canonical() == address || everywhere)
    });
    if is_own {
        return Err(
            "switchback itself listens on this address: requests would go round in circles",
        );
    }
    Ok(())
}

fn upstream_tls(backend: &Spanned<raw::Backend>, cx: &Context<'_>) -> UpstreamTls {
    let Some(written) = &backend.value.tls else {
        return UpstreamTls::default();
    };
    let tls = &written.value;
    let endpoints = backend
        .value
        .endpoints
        .iter()
        .flat_map(|endpoints| &endpoints.value);
    if !endpoints
        .clone()
        .any(|endpoint| endpoint.value.scheme == Scheme::Https)
        && endpoints.count() > 0
    {
        cx.warning(
            Code::UnusedTls,
            written,
            "no endpoint of this backend is https",
            "write https:// endpoints, or remove tls",
        );
    }
    if tls.client_certificate.is_some() != tls.client_key.is_some() {
        let reason = "client_certificate and client_key belong together";
        cx.error(Code::IncompletePair, written, reason, "give both or none");
    }
    if let Some(name) = tls
        .server_name
        .as_ref()
        .filter(|name| !texts::is_host(&name.value))
    {
        let reason = format!("{:?} is not a host name", name.value);
        cx.error(
            Code::InvalidValue,
            name,
            reason,
            "write a name such as shop.internal",
        );
    }
    let path =
        |path: &Option<Spanned<String>>| path.as_ref().map(|path| PathBuf::from(&path.value));
    UpstreamTls {
        ca: path(&tls.ca),
        server_name: tls.server_name.as_ref().map(|name| name.value.clone()),
        client_certificate: path(&tls.client_certificate),
        client_key: path(&tls.client_key),
    }
}

fn affinity(written: &Spanned<raw::Affinity>, cx: &Context<'_>) -> Option<Affinity> {
    let raw = &written.value;
    let issue = raw.issue.as_ref().map(|issue| issue.value);
    match (&raw.cookie, &raw.header) {
        (Some(cookie), None) => {
            if !texts::is_token(&cookie.value) {
                let reason = format!("{:?} is not a cookie name", cookie.value);
                cx.error(
                    Code::InvalidValue,
                    cookie,
                    reason,
                    "use letters, digits, - and _",
                );
            }
            let key = AffinityKey::Cookie(cookie.value.clone());
            Some(Affinity {
                key,
                issue: issue.unwrap_or(true),
            })
        }
        (None, Some(header)) => {
            if let Some(issue) = raw.issue.as_ref().filter(|issue| issue.value) {
                let reason = "only a cookie can be issued, not a header";
                cx.error(
                    Code::Contradiction,
                    issue,
                    reason,
                    "remove issue, or use cookie",
                );
            }
            let name = texts::header_name(&header.value, header.into(), cx)?;
            Some(Affinity {
                key: AffinityKey::Header(name),
                issue: false,
            })
        }
        _ => {
            let reason = "affinity needs exactly one of cookie and header";
            cx.error(
                Code::Contradiction,
                written,
                reason,
                "write affinity: {cookie: sb_user}",
            );
            None
        }
    }
}

fn preview(written: &Spanned<raw::Preview>, cx: &Context<'_>) -> Option<Preview> {
    let from = require(written, written.value.from.as_ref(), "from", cx)?;
    if from.value.is_empty() {
        let reason = "nobody could use this preview";
        cx.error(
            Code::MissingKey,
            from,
            reason,
            "list the testers' networks, such as 10.1.2.0/24",
        );
    }
    let header = match &written.value.header {
        Some(header) => texts::header_name(&header.value, header.into(), cx)?,
        None => defaults::PREVIEW_HEADER.into(),
    };
    Some(Preview {
        header,
        from: from.value.iter().map(|net| net.value).collect(),
    })
}

fn health_check(written: &Spanned<raw::HealthCheck>, cx: &Context<'_>) -> Option<HealthCheck> {
    let raw = &written.value;
    let path = require(written, raw.path.as_ref(), "path", cx)?;
    let is_target = |path: &str| {
        path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
    };
    if !is_target(&path.value) {
        let reason = "this is not the path of a request";
        cx.error(
            Code::InvalidValue,
            path,
            reason,
            "write a path such as /healthz",
        );
    }
    let span = |written: &Option<Spanned<TimeSpan>>, default: Duration| {
        written
            .as_ref()
            .map_or(TimeSpan(default), |span| span.value)
    };
    let interval = span(&raw.interval, defaults::HEALTH_INTERVAL);
    let timeout = span(&raw.timeout, defaults::HEALTH_TIMEOUT.min(interval.0));
    if let Some(interval) = raw
        .interval
        .as_ref()
        .filter(|interval| interval.value.0 < defaults::HEALTH_INTERVAL_MIN)
    {
        let repair = format!("use {} or more", TimeSpan(defaults::HEALTH_INTERVAL_MIN));
        cx.error(
            Code::OutOfRange,
            interval,
            "checks so often are load, not health",
            repair,
        );
    }
    if let Some(written) = raw
        .timeout
        .as_ref()
        .filter(|_| timeout > interval || timeout.0.is_zero())
    {
        let reason = "a check must end before the next one begins";
        cx.error(
            Code::OutOfRange,
            written,
            reason,
            format!("use more than 0s and at most {interval}"),
        );
    }
    let count = |written: &Option<Spanned<NonZeroU32>>, default: NonZeroU32| {
        written.as_ref().map_or(default, |count| count.value)
    };
    Some(HealthCheck {
        path: path.value.clone(),
        interval,
        timeout,
        rise: count(&raw.rise, defaults::HEALTH_RISE),
        fall: count(&raw.fall, defaults::HEALTH_FALL),
    })
}

/// Methods that may be sent twice without asking anybody.
const SAFE_METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

fn rescue(written: Option<&Spanned<raw::Rescue>>, cx: &Context<'_>) -> Rescue {
    let mut rescue = defaults::rescue();
    let Some(raw) = written.map(|written| &written.value) else {
        return rescue;
    };
    if let Some(methods) = &raw.methods {
        for method in &methods.value {
            if !SAFE_METHODS.contains(&&*method.value) {
                let reason = format!("sending {:?} twice may do something twice", method.value);
                cx.error(
                    Code::UnsafeMethod,
                    method,
                    reason,
                    "use GET, HEAD and OPTIONS only",
                );
            }
        }
        check_unique(&methods.value, "method", cx);
        rescue.methods = values(raw.methods.as_ref());
    }
    if let Some(max_body) = &raw.max_body {
        if max_body.value.0 > defaults::RESCUE_BODY_MAX {
            let reason = "bodies are kept in memory until the answer is there";
            cx.error(Code::OutOfRange, max_body, reason, "use 1MiB or less");
        }
        rescue.max_body = max_body.value;
    }
    rescue.enabled = raw
        .enabled
        .as_ref()
        .map_or(rescue.enabled, |enabled| enabled.value);
    rescue.budget = raw
        .budget
        .as_ref()
        .map_or(rescue.budget, |budget| budget.value);
    let idempotency_key = raw.idempotency_key.as_ref();
    rescue.idempotency_key = idempotency_key.is_some_and(|written| written.value);
    rescue
}
