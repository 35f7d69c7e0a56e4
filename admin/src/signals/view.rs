//! The signals of a service, as they are shown.

use jiff::Timestamp;
use switchback_config::model::{Rule, Service, Signal};

use super::feed::{SignalCondition, SignalView, bad_in_words};
use super::watched;
use crate::control::Published;

/// The signals of all versions that are watched now; what is configured while none is.
pub(crate) fn signals(published: &Published, service: &str) -> Vec<SignalView> {
    let (Some(status), Some(file)) = (published.services.get(service), published.file(service))
    else {
        return Vec::new();
    };
    let at = Timestamp::now();
    let mut views = Vec::new();
    for (backend, gauge) in &status.gauges {
        if watched(published, service, backend, at).is_none() {
            continue;
        }
        for feed in &*gauge.signals() {
            let view = match feed.view() {
                Some(view) => SignalView::clone(&view),
                None => unlooked(feed.signal(), SignalCondition::Missing),
            };
            views.push(SignalView {
                backend: Some(backend.clone()),
                ..view
            });
        }
    }
    if views.is_empty() {
        views.extend(configured(file).map(|signal| unlooked(signal, SignalCondition::Idle)));
    }
    views
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
