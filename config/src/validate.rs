//! From the file as written to the file as meant: defaults are filled in, names are looked up, and
//! everything that cannot work together is reported.
//!
//! Each part returns the model's value as far as it can; where it cannot, it has reported why, and a
//! stand-in keeps the rest of the checks going. The result is used only if nothing was an error.

mod cluster;
mod flags;
mod limits;
mod listeners;
mod routes;
mod runbooks;
mod services;
mod texts;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::decode::{Context, Place, Spanned};
use crate::defaults;
use crate::diagnostic::{Code, Span};
use crate::model::{AccessLog, Admin, AdminTls, Config, LogFormat, LogPath, Underscores, Workers};
use crate::raw;
pub(crate) use flags::flag;
pub(crate) use runbooks::runbook;
pub use services::check_endpoint_address;
pub use texts::is_name;

/// Builds the model, reporting everything that is wrong to `cx`.
pub(crate) fn validate(file: &raw::File, cx: &Context<'_>) -> Config {
    check_version(file, cx);
    let whole = |path: &str| Place {
        span: Span::default(),
        path: path.into(),
    };
    let limits = limits::global(file.limits.as_ref(), cx);
    let admin = admin(file.admin.as_ref(), cx);
    let listeners = listeners::listeners(file.listeners.as_ref(), admin.address, cx);
    if file.listeners.is_none() {
        let repair = "add listeners: {web: {address: 0.0.0.0:8080}}";
        cx.error(
            Code::MissingKey,
            whole("listeners"),
            "there are no listeners",
            repair,
        );
    }
    if file.services.is_none() {
        let repair =
            "add services: {site: {backends: {blue: {endpoints: [\"http://127.0.0.1:9001\"]}}}}";
        cx.error(
            Code::MissingKey,
            whole("services"),
            "there are no services",
            repair,
        );
    }
    if file.routes.is_none() {
        let repair = "add routes: [{service: site}]";
        cx.error(
            Code::MissingKey,
            whole("routes"),
            "there are no routes",
            repair,
        );
    }
    let flags = flags::flags(file.flags.as_ref(), cx);
    let ofrep = file.ofrep.as_ref();
    let ofrep = ofrep.and_then(|ofrep| flags::ofrep(ofrep, admin.address, cx));
    let own = listeners
        .values()
        .map(|listener| listener.address)
        .chain([admin.address])
        .chain(ofrep.as_ref().map(|ofrep| ofrep.address));
    let own: Vec<SocketAddr> = own.collect();
    let mut services = services::services(file.services.as_ref(), &own, &flags, cx);
    let runbooks = runbooks::runbooks(file.runbooks.as_ref(), &mut services, cx);
    let routes = routes::routes(file, &listeners, &services, cx);
    Config {
        workers: workers(file.workers.as_ref(), cx),
        admin,
        listeners,
        trusted_proxies: values(file.trusted_proxies.as_ref()),
        underscores: file
            .underscores
            .as_ref()
            .map_or(Underscores::Drop, |written| written.value),
        access_log: access_log(file.access_log.as_ref()),
        limits,
        routes,
        services,
        flags,
        ofrep,
        cluster: file
            .cluster
            .as_ref()
            .and_then(|cluster| cluster::cluster(cluster, cx)),
        runbooks,
        runbook_files: Vec::new(),
    }
}

fn check_version(file: &raw::File, cx: &Context<'_>) {
    match &file.version {
        None => {
            let at = Place {
                span: Span::default(),
                path: "version".into(),
            };
            cx.error(
                Code::MissingKey,
                at,
                "the version of the format is missing",
                "start with: version: 1",
            );
        }
        Some(version) if version.value != 1 => {
            let reason = format!("format version {} is not known", version.value);
            cx.error(
                Code::OutOfRange,
                version,
                reason,
                "this switchback reads version: 1",
            );
        }
        Some(_) => {}
    }
}

/// Most workers that make sense.
const WORKERS_MAX: usize = 1_024;

fn workers(written: Option<&Spanned<String>>, cx: &Context<'_>) -> Workers {
    let Some(written) = written.filter(|written| written.value != "auto") else {
        return Workers::Auto;
    };
    let count = written.value.parse().ok().and_then(NonZeroUsize::new);
    match count.filter(|count| count.get() <= WORKERS_MAX) {
        Some(count) => Workers::Count(count),
        None => {
            let reason = "this is not a number of threads";
            cx.error(
                Code::OutOfRange,
                written,
                reason,
                format!("write auto, or 1 to {WORKERS_MAX}"),
            );
            Workers::Auto
        }
    }
}

fn admin(written: Option<&Spanned<raw::Admin>>, cx: &Context<'_>) -> Admin {
    let admin = written.map(|written| &written.value);
    let address = admin.and_then(|admin| admin.address.as_ref());
    let tls = admin.and_then(|admin| admin.tls.as_ref());
    if let Some(address) =
        address.filter(|address| !address.value.ip().is_loopback() && tls.is_none())
    {
        let reason =
            "the admin API can take a site down and would be reachable from elsewhere without TLS";
        cx.error(
            Code::AdminExposed,
            address,
            reason,
            "use 127.0.0.1, or add admin.tls with certificate and key",
        );
    }
    let default = SocketAddr::from(([127, 0, 0, 1], defaults::ADMIN_PORT));
    let hosts = admin.and_then(|admin| admin.allowed_hosts.as_ref());
    for host in hosts.into_iter().flat_map(|hosts| &hosts.value) {
        texts::check_authority(host, cx);
    }
    let revisions = admin.and_then(|admin| admin.revisions.as_ref());
    let (fewest, most) = defaults::REVISIONS_BOUNDS;
    if let Some(revisions) =
        revisions.filter(|revisions| !(fewest..=most).contains(&revisions.value.get()))
    {
        let reason = "a history of this length is of no use";
        let repair = format!("use {fewest} to {most}");
        cx.error(Code::OutOfRange, revisions, reason, repair);
    }
    Admin {
        address: address.map_or(default, |address| address.value),
        tls: tls.and_then(|tls| admin_tls(tls, cx)),
        allowed_hosts: values(hosts),
        tokens_file: admin.and_then(|admin| path(admin.tokens_file.as_ref())),
        endpoint_allow: values(admin.and_then(|admin| admin.endpoint_allow.as_ref())),
        revisions: revisions.map_or(defaults::REVISIONS_KEPT, |revisions| revisions.value),
    }
}

fn admin_tls(written: &Spanned<raw::AdminTls>, cx: &Context<'_>) -> Option<AdminTls> {
    let certificate = require(
        written,
        written.value.certificate.as_ref(),
        "certificate",
        cx,
    );
    let key = require(written, written.value.key.as_ref(), "key", cx);
    Some(AdminTls {
        certificate: certificate?.value.clone().into(),
        key: key?.value.clone().into(),
        client_ca: path(written.value.client_ca.as_ref()),
    })
}

fn access_log(written: Option<&Spanned<raw::AccessLog>>) -> AccessLog {
    let log = written.map(|written| &written.value);
    let path = log
        .and_then(|log| log.path.as_ref())
        .map(|path| path.value.as_str());
    AccessLog {
        path: match path {
            None | Some("stdout") => LogPath::Stdout,
            Some(path) => LogPath::File(path.into()),
        },
        format: log
            .and_then(|log| log.format.as_ref())
            .map_or(LogFormat::Json, |format| format.value),
    }
}

/// The value of a key that must be there.
fn require<'a, S, T>(
    section: &Spanned<S>,
    value: Option<&'a Spanned<T>>,
    key: &str,
    cx: &Context<'_>,
) -> Option<&'a Spanned<T>> {
    if value.is_none() {
        let at = Place {
            span: section.span,
            path: crate::decode::join(&section.path, key),
        };
        cx.error(
            Code::MissingKey,
            at,
            format!("{key} is missing"),
            format!("add {key}: here"),
        );
    }
    value
}

/// The values of a list without their places.
fn values<T: Clone>(list: Option<&Spanned<Vec<Spanned<T>>>>) -> Vec<T> {
    list.into_iter()
        .flat_map(|list| &list.value)
        .map(|item| item.value.clone())
        .collect()
}

fn path(written: Option<&Spanned<String>>) -> Option<PathBuf> {
    written.map(|written| PathBuf::from(&written.value))
}

/// Reports items that occur twice in a list.
fn check_unique<T: PartialEq>(items: &[Spanned<T>], what: &str, cx: &Context<'_>) {
    for (index, item) in items.iter().enumerate() {
        if let Some(first) = items[..index]
            .iter()
            .find(|first| first.value == item.value)
        {
            let reason = format!("this {what} is listed twice");
            cx.conflict(
                Code::DuplicateItem,
                item,
                reason,
                "remove one of the two",
                (first.span, "first here".into()),
            );
        }
    }
}
