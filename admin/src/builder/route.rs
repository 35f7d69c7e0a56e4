//! Routes: where they lead, and within which limits.

use std::sync::Arc;

use switchback_config::model::{self, Action, Config, LimitOverrides};
use switchback_proxy::snapshot::{RequestLimits, Route, RouteAction, Service};

use super::deprecation;
use crate::drill::shadow::is_shadow;
use crate::route_uses::RouteUses;

/// A route, with the limits of everything that it passes.
pub(super) fn build(
    config: &Config,
    route: &model::Route,
    services: &[Arc<Service>],
    uses: &RouteUses,
) -> Route {
    let none = LimitOverrides::default();
    let (action, of_service) = match &route.action {
        Action::Service(name) => {
            // Validation made sure that the service exists.
            let index = services
                .binary_search_by(|s| (*s.name).cmp(name))
                .unwrap_or(0);
            let limits = config
                .services
                .get(name)
                .map_or(&none, |service| &service.limits);
            (RouteAction::Service(index), limits)
        }
        Action::Redirect(redirect) => (RouteAction::Redirect(redirect.clone()), &none),
    };
    let limits = |listener: &LimitOverrides| {
        RequestLimits::resolve(&config.limits, &[listener, of_service, &route.limits])
    };
    let by_listener = config
        .listeners
        .iter()
        .filter(|(_, listener)| !listener.limits.is_empty());
    Route {
        action,
        names_host: !route.host.is_any(),
        path: route.path.clone(),
        rewrite: route.rewrite.clone(),
        request_headers: route.request_headers.clone(),
        response_headers: deprecation::response_headers(route),
        used: uses.of(route),
        logged: !matches!(&route.action, Action::Service(name) if is_shadow(name)),
        limits: limits(&none),
        limits_by_listener: by_listener
            .map(|(name, listener)| (name.clone(), limits(&listener.limits)))
            .collect(),
    }
}
