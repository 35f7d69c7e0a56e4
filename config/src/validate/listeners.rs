//! Listeners: addresses that do not collide, and their TLS.

use std::net::SocketAddr;

use indexmap::IndexMap;

use super::limits::{self, Level};
use super::{require, texts};
use crate::decode::{Context, Place, Spanned, Table};
use crate::diagnostic::{Code, Span};
use crate::model::{CertificateFiles, Listener, ListenerTls, Name, TlsVersion};
use crate::raw;

/// Reads the listeners.
pub(super) fn listeners(
    written: Option<&Spanned<Table<raw::Listener>>>,
    admin: SocketAddr,
    cx: &Context<'_>,
) -> IndexMap<Name, Listener> {
    let mut listeners = IndexMap::new();
    let Some(written) = written else {
        return listeners;
    };
    if written.value.0.is_empty() {
        cx.error(
            Code::MissingKey,
            written,
            "there are no listeners",
            "add web: {address: 0.0.0.0:8080}",
        );
    }
    let mut bound: Vec<(SocketAddr, Span, String)> = Vec::new();
    for (key, listener) in &written.value.0 {
        let at = Place {
            span: key.span,
            path: listener.path.clone(),
        };
        texts::check_name(&key.text, at, "listener", cx);
        let Some(address) = require(listener, listener.value.address.as_ref(), "address", cx)
        else {
            continue;
        };
        if let Some((_, span, name)) = bound
            .iter()
            .find(|(other, ..)| collide(*other, address.value))
        {
            let reason = format!("listener {name} already has this address");
            cx.conflict(
                Code::ListenerConflict,
                address,
                reason,
                "use another port",
                (*span, "first here".into()),
            );
        } else if collide(admin, address.value) {
            let reason = format!("the admin API has this address: {admin}");
            cx.error(
                Code::ListenerConflict,
                address,
                reason,
                "use another port, or another admin.address",
            );
        }
        bound.push((address.value, address.span, key.text.clone()));
        let proxy_protocol = listener.value.proxy_protocol.as_ref();
        listeners.insert(
            key.text.clone(),
            Listener {
                address: address.value,
                tls: listener.value.tls.as_ref().and_then(|tls| tls_of(tls, cx)),
                proxy_protocol: proxy_protocol.is_some_and(|written| written.value),
                limits: limits::overrides(listener.value.limits.as_ref(), Level::Listener, cx),
            },
        );
    }
    listeners
}

/// Whether two addresses cannot be bound at the same time. Port 0 always finds a free one.
pub(super) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let overlap =
        one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_family && overlap
}

fn tls_of(written: &Spanned<raw::ListenerTls>, cx: &Context<'_>) -> Option<ListenerTls> {
    let certificates = require(
        written,
        written.value.certificates.as_ref(),
        "certificates",
        cx,
    )?;
    if certificates.value.is_empty() {
        let repair = "add {certificate: shop.crt, key: shop.key}";
        cx.error(
            Code::MissingKey,
            certificates,
            "TLS needs at least one certificate",
            repair,
        );
    }
    let files = certificates.value.iter().filter_map(|pair| {
        let certificate = require(pair, pair.value.certificate.as_ref(), "certificate", cx);
        let key = require(pair, pair.value.key.as_ref(), "key", cx);
        Some(CertificateFiles {
            certificate: certificate?.value.clone().into(),
            key: key?.value.clone().into(),
        })
    });
    Some(ListenerTls {
        certificates: files.collect(),
        min_version: written
            .value
            .min_version
            .as_ref()
            .map_or(TlsVersion::Tls12, |version| version.value),
        client_ca: written
            .value
            .client_ca
            .as_ref()
            .map(|path| path.value.clone().into()),
    })
}
