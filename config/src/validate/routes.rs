//! Routes: what they match, that no two match the same, and where they lead.

mod deprecation;

use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::IndexMap;

use super::limits::{self, Level};
use super::{check_unique, texts, values};
use crate::decode::{Context, Place, Spanned};
use crate::defaults::{ROUTE_HEADERS_MAX, ROUTES_MAX};
use crate::diagnostic::{Code, Span};
use crate::model::{
    Action, HeaderChanges, HostPattern, Listener, Name, Redirect, Rewrite, Route, Service,
};
use crate::raw;
use crate::suggest;

/// What a route matches, for finding two that match the same.
type Match = (
    HostPattern,
    String,
    Vec<String>,
    BTreeMap<String, String>,
    Vec<Name>,
);

/// Reads the routes.
pub(super) fn routes(
    file: &raw::File,
    listeners: &IndexMap<Name, Listener>,
    services: &IndexMap<Name, Service>,
    cx: &Context<'_>,
) -> Vec<Route> {
    let Some(written) = &file.routes else {
        return Vec::new();
    };
    if written.value.is_empty() {
        cx.error(
            Code::MissingKey,
            written,
            "there are no routes",
            "add {service: NAME}",
        );
    }
    if written.value.len() > ROUTES_MAX {
        let reason = format!("{} routes are more than {ROUTES_MAX}", written.value.len());
        cx.error(
            Code::TooLarge,
            written,
            reason,
            "use wildcards and shorter prefixes",
        );
        return Vec::new();
    }
    let mut seen: HashMap<Match, Span> = HashMap::new();
    let mut routes = Vec::with_capacity(written.value.len());
    for item in &written.value {
        let Some(route) = route(item, listeners, services, file, cx) else {
            continue;
        };
        let mut key: Match = (
            route.host.clone(),
            route.path.clone(),
            route.methods.clone(),
            route.headers.clone(),
            route.listeners.clone(),
        );
        key.2.sort();
        key.4.sort();
        if let Some(first) = seen.get(&key) {
            let reason = "an earlier route matches exactly the same requests";
            let other = (*first, "this one".into());
            cx.conflict(
                Code::DuplicateRoute,
                item,
                reason,
                "remove one, or tell them apart by host, path, methods or headers",
                other,
            );
        } else {
            seen.insert(key, item.span);
        }
        routes.push(route);
    }
    warn_unused(file, &routes, cx);
    routes
}

fn warn_unused(file: &raw::File, routes: &[Route], cx: &Context<'_>) {
    let used: HashSet<&str> = routes
        .iter()
        .filter_map(|route| match &route.action {
            Action::Service(name) => Some(name.as_str()),
            Action::Redirect(_) => None,
        })
        .collect();
    for (key, service) in file.services.iter().flat_map(|services| &services.value.0) {
        if !used.contains(&*key.text) && !cx.has_errors() {
            let at = Place {
                span: key.span,
                path: service.path.clone(),
            };
            cx.warning(
                Code::UnusedService,
                at,
                "no route leads to this service",
                "add a route, or remove the service",
            );
        }
    }
}

fn route(
    item: &Spanned<raw::Route>,
    listeners: &IndexMap<Name, Listener>,
    services: &IndexMap<Name, Service>,
    file: &raw::File,
    cx: &Context<'_>,
) -> Option<Route> {
    let raw = &item.value;
    let host = raw
        .host
        .as_ref()
        .map_or(Some(HostPattern::Any), |host| host_pattern(host, cx));
    let path = raw
        .path
        .as_ref()
        .map_or(Some("/".into()), |path| texts::path_prefix(path, cx));
    for method in raw.methods.iter().flat_map(|methods| &methods.value) {
        if !texts::is_method(&method.value) {
            let repair = format!("write {}", method.value.to_ascii_uppercase());
            cx.error(
                Code::InvalidValue,
                method,
                format!("{:?} is not a method", method.value),
                repair,
            );
        }
    }
    if let Some(methods) = &raw.methods {
        check_unique(&methods.value, "method", cx);
    }
    for listener in raw.listeners.iter().flat_map(|listeners| &listeners.value) {
        if !listeners.contains_key(&listener.value) {
            let known: Vec<&str> = listeners.keys().map(String::as_str).collect();
            let repair = suggest::repair(&listener.value, &known, "listener");
            cx.error(
                Code::DanglingName,
                listener,
                format!("there is no listener {:?}", listener.value),
                repair,
            );
        }
    }
    let action = action(item, services, file, cx);
    let changes = |written: &Option<Spanned<raw::HeaderChanges>>| {
        written
            .as_ref()
            .map(|written| header_changes(written, cx))
            .unwrap_or_default()
    };
    let headers = headers(raw, cx);
    let rewrite = raw
        .rewrite
        .as_ref()
        .map(|rewrite| self::rewrite(rewrite, cx))
        .unwrap_or_default();
    let (request_headers, response_headers) = (
        changes(&raw.request_headers),
        changes(&raw.response_headers),
    );
    let deprecation = raw.deprecation.as_ref();
    let deprecation = deprecation.and_then(|written| deprecation::deprecation(written, cx));
    let limits = limits::overrides(raw.limits.as_ref(), Level::Route, cx);
    Some(Route {
        host: host?,
        path: path?,
        methods: values(raw.methods.as_ref()),
        headers,
        listeners: values(raw.listeners.as_ref()),
        action: action?,
        rewrite,
        request_headers,
        response_headers,
        deprecation,
        keep_while_used: raw.keep_while_used.as_ref().map(|span| span.value),
        limits,
    })
}

fn host_pattern(host: &Spanned<String>, cx: &Context<'_>) -> Option<HostPattern> {
    let text = host.value.to_ascii_lowercase();
    let name = text.strip_prefix("*.").unwrap_or(&text);
    if text == "*" {
        return Some(HostPattern::Any);
    }
    let wrong = if name.contains('*') {
        Some((
            "a wildcard stands for the first labels only",
            "write *.example.com, example.com or *".into(),
        ))
    } else if text.contains("://") {
        Some((
            "a host has no scheme",
            "write the name only, such as shop.example.com".into(),
        ))
    } else if let Some((without_port, port)) = name
        .rsplit_once(':')
        .filter(|(host, _)| texts::is_host(host))
    {
        let _ = port;
        Some((
            "routes match hosts on any port",
            format!("write {without_port}; use listeners: to tell ports apart"),
        ))
    } else if !texts::is_host(name) {
        Some((
            "this is not a host name",
            "write a name such as shop.example.com".into(),
        ))
    } else {
        None
    };
    if let Some((reason, repair)) = wrong {
        cx.error(Code::InvalidValue, host, reason, repair);
        return None;
    }
    Some(match text.strip_prefix('*') {
        Some(suffix) => HostPattern::Suffix(suffix.into()),
        None => HostPattern::Exact(text),
    })
}

fn action(
    item: &Spanned<raw::Route>,
    services: &IndexMap<Name, Service>,
    file: &raw::File,
    cx: &Context<'_>,
) -> Option<Action> {
    match (&item.value.service, &item.value.redirect) {
        (Some(service), None) => {
            let written = || file.services.iter().flat_map(|services| &services.value.0);
            let is_written = || written().any(|(key, _)| key.text == service.value);
            if !services.contains_key(&service.value) && !is_written() {
                let known: Vec<&str> = written().map(|(key, _)| key.text.as_str()).collect();
                let reason = format!("there is no service {:?}", service.value);
                let repair = suggest::repair(&service.value, &known, "service");
                cx.error(Code::DanglingName, service, reason, repair);
            }
            Some(Action::Service(service.value.clone()))
        }
        (None, Some(redirect)) => {
            if !redirect
                .value
                .https
                .as_ref()
                .is_some_and(|https| https.value)
            {
                let reason = "a redirect goes to https, nothing else is known";
                cx.error(
                    Code::Contradiction,
                    redirect,
                    reason,
                    "write redirect: {https: true}",
                );
            }
            if let Some(rewrite) = &item.value.rewrite {
                let reason = "a redirect keeps the URL; there is nothing to rewrite";
                cx.error(Code::Contradiction, rewrite, reason, "remove rewrite");
            }
            Some(Action::Redirect(Redirect { https: true }))
        }
        (Some(_), Some(redirect)) => {
            let reason = "a route forwards or redirects, not both";
            cx.error(
                Code::Contradiction,
                redirect,
                reason,
                "remove service or redirect",
            );
            None
        }
        (None, None) => {
            cx.error(
                Code::MissingKey,
                item,
                "this route leads nowhere",
                "add service: NAME",
            );
            None
        }
    }
}

fn headers(raw: &raw::Route, cx: &Context<'_>) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    let Some(written) = &raw.headers else {
        return headers;
    };
    if written.value.0.len() > ROUTE_HEADERS_MAX {
        let reason = format!("more than {ROUTE_HEADERS_MAX} header conditions");
        cx.error(Code::TooLarge, written, reason, "use fewer");
    }
    for (key, value) in &written.value.0 {
        let at = Place {
            span: key.span,
            path: value.path.clone(),
        };
        texts::check_header_value(value, cx);
        if let Some(name) = texts::header_name(&key.text, at, cx)
            && headers.insert(name, value.value.clone()).is_some()
        {
            let reason = "this header is listed twice, in different case";
            cx.error(Code::DuplicateItem, value, reason, "remove one of the two");
        }
    }
    headers
}

fn rewrite(written: &Spanned<raw::Rewrite>, cx: &Context<'_>) -> Rewrite {
    if let Some(host) = &written.value.host {
        texts::check_authority(host, cx);
    }
    let prefix = written
        .value
        .prefix
        .as_ref()
        .and_then(|prefix| texts::path_prefix(prefix, cx));
    Rewrite {
        prefix,
        host: written.value.host.as_ref().map(|host| host.value.clone()),
    }
}

/// Headers that frame messages or that switchback writes itself.
const PROTECTED: [&str; 12] = [
    "connection",
    "content-length",
    "transfer-encoding",
    "host",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "proxy-connection",
    "x-forwarded-for",
    "via",
    "x-request-id",
];

/// The name of a header that may be changed, in lower case.
pub(super) fn changed_header(name: &str, at: Place, cx: &Context<'_>) -> Option<String> {
    let lower = texts::header_name(name, at.clone(), cx)?;
    if PROTECTED.contains(&&*lower) {
        let reason = format!("switchback itself decides about {lower}");
        let repair = if lower == "host" {
            "use rewrite: {host: …} or upstream_host"
        } else {
            "leave it out"
        };
        cx.error(Code::ProtectedHeader, at, reason, repair);
        return None;
    }
    Some(lower)
}

fn header_changes(written: &Spanned<raw::HeaderChanges>, cx: &Context<'_>) -> HeaderChanges {
    let check = |name: &str, at: Place| changed_header(name, at, cx);
    let mut changes = HeaderChanges::default();
    for (key, value) in written.value.set.iter().flat_map(|set| &set.value.0) {
        texts::check_header_value(value, cx);
        let at = Place {
            span: key.span,
            path: value.path.clone(),
        };
        if let Some(name) = check(&key.text, at) {
            changes.set.insert(name, value.value.clone());
        }
    }
    for name in written.value.remove.iter().flat_map(|remove| &remove.value) {
        changes.remove.extend(check(&name.value, name.into()));
    }
    changes
}
