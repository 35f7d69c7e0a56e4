//! The signals of a service, as they are shown.

use switchback_config::model::{Name, Rule, Service, Signal};

use super::feed::{Feed, SignalCondition, SignalView, bad_in_words};
use super::watched;
use crate::control::Published;

/// The signals of all versions that are watched now, or else of stable; what is configured while nobody
/// is asked.
pub(crate) fn signals(published: &Published, service: &str) -> Vec<SignalView> {
    let (Some(status), Some(file)) = (published.services.get(service), published.file(service))
    else {
        return Vec::new();
    };
    let at = published.clock.now();
    let mut views = Vec::new();
    for (backend, gauge) in &status.gauges {
        if watched(published, service, backend, at).is_none() {
            continue;
        }
        views.extend(gauge.signals().iter().map(|feed| shown(feed, backend)));
    }
    if let Some(gauge) = &status.stable_gauge {
        let feeds = gauge.signals().iter();
        views.extend(feeds.map(|feed| shown(feed, gauge.backend())));
    }
    if views.is_empty() {
        views.extend(configured(file).map(|signal| unlooked(signal, SignalCondition::Idle)));
    }
    views
}

fn shown(feed: &Feed, backend: &Name) -> SignalView {
    let view = match feed.view() {
        Some(view) => SignalView::clone(&view),
        None => unlooked(feed.signal(), SignalCondition::Missing),
    };
    SignalView {
        backend: Some(backend.clone()),
        ..view
    }
}

fn configured(file: &Service) -> impl Iterator<Item = &Signal> {
    file.rollback.rules.iter().filter_map(|rule| match rule {
        Rule::Signal(signal) => Some(&**signal),
        Rule::Rate(_) => None,
    })
}

fn unlooked(signal: &Signal, state: SignalCondition) -> SignalView {
    SignalView {
        name: signal.name.clone(),
        backend: None,
        source: signal.source.kind(),
        state,
        value: None,
        threshold: bad_in_words(signal),
        span: signal.span.to_string(),
        since: None,
        error: None,
    }
}
