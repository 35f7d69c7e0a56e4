//! The shadow of a service: the same judge, rules and rescue, with backends of its own and a host that nobody
//! knows.
//!
//! It is a service like any other in what is in force, so that a drill rehearses what would happen, and
//! never part of the file: its name cannot be written there. Its counters, judges and blocks are its
//! own. Requests reach it by a host of 128 random bits, which is made for one drill and gone after it; a client
//! that guesses wrong is routed as if there were no drill.

use std::borrow::Cow;
use std::net::SocketAddr;

use indexmap::IndexMap;
use switchback_config::model::{
    Action, Backend, Config, HeaderChanges, Hook, HookAction, HookEvent, HostPattern, HttpHook,
    LimitOverrides, Migration, Name, OnFailure, Preset, Rewrite, Route, Rule, Service, UpstreamTls,
};
use switchback_config::units::{Endpoint, TimeSpan};

/// What the name of a shadow ends with; no name in a file can.
pub(crate) const MARK: &str = "~drill";

/// How long a dry hook may take.
const HOOK_TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// The shadow's name.
pub(crate) fn name_of(service: &str) -> Name {
    format!("{service}{MARK}")
}

/// Whether a service is a shadow.
pub(crate) fn is_shadow(service: &str) -> bool {
    service.ends_with(MARK)
}

/// The service that this is or is the shadow of.
pub(crate) fn original(service: &str) -> &str {
    service.strip_suffix(MARK).unwrap_or(service)
}

/// A configuration as the file says it.
pub(crate) fn without(config: &Config) -> Cow<'_, Config> {
    if !config.services.keys().any(|name| is_shadow(name)) {
        return Cow::Borrowed(config);
    }
    let mut config = config.clone();
    config.services.retain(|name, _| !is_shadow(name));
    config.routes.retain(|route| !leads_to_shadow(route));
    Cow::Owned(config)
}

/// A new file with the shadows that there are now: a reload does not end a drill.
pub(crate) fn kept(before: &Config, mut next: Config) -> Config {
    let shadows = before.services.iter();
    let shadows =
        shadows.filter(|(name, _)| is_shadow(name) && next.services.contains_key(original(name)));
    let shadows: Vec<(Name, Service)> = shadows
        .map(|(name, shadow)| (name.clone(), shadow.clone()))
        .collect();
    let leads = |route: &&Route| match &route.action {
        Action::Service(name) => shadows.iter().any(|(shadow, _)| shadow == name),
        Action::Redirect(_) => false,
    };
    next.routes
        .extend(before.routes.iter().filter(leads).cloned());
    next.services.extend(shadows);
    next
}

fn leads_to_shadow(route: &Route) -> bool {
    matches!(&route.action, Action::Service(name) if is_shadow(name))
}

/// Where a drill takes place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    /// What its requests ask for.
    pub host: String,
    /// Where the healthy one answers.
    pub stable: SocketAddr,
    /// Where the other one does.
    pub canary: SocketAddr,
    /// Who is told in place of every hook.
    pub hooks: SocketAddr,
}

/// Half of the traffic is the canary's: what fails there is noticed soon.
const HALF: u32 = 50;

/// The shadow of a service, with the names of its backends.
pub(crate) fn shadow(file: &Service, stable: &Name, canary: &Name, set: &Set) -> Service {
    let backend = |name: &Name, address: SocketAddr| Backend {
        version: format!("drill of {name}"),
        endpoints: endpoint(address).into_iter().collect(),
        tls: UpstreamTls::default(),
        off_on_rollback: Vec::new(),
        schema: None,
        migration: Migration::None,
    };
    let mut rollback = file.rollback.clone();
    rollback.on_failure = OnFailure::Rollback;
    // What is measured elsewhere knows nothing of this.
    rollback.rules.retain(|rule| matches!(rule, Rule::Rate(_)));
    let backends: IndexMap<Name, Backend> = [
        (stable.clone(), backend(stable, set.stable)),
        (canary.clone(), backend(canary, set.canary)),
    ]
    .into();
    Service {
        stable: stable.clone(),
        weights: backends.keys().map(|name| (name.clone(), HALF)).collect(),
        backends,
        rollback,
        hooks: file
            .hooks
            .iter()
            .filter_map(|hook| dry(hook, set))
            .collect(),
        affinity: None,
        // All of a drill's requests are one client's.
        pin: None,
        preview: None,
        health: None,
        mirror: None,
        upstream_host: None,
        flags: None,
        drill: None,
        version_header: None,
        expose: true,
        ..file.clone()
    }
}

fn endpoint(address: SocketAddr) -> Option<Endpoint> {
    format!("http://{address}").parse().ok()
}

/// In place of a hook that is told of rollbacks, one that nobody outside hears.
fn dry(hook: &Hook, set: &Set) -> Option<Hook> {
    let wanted = hook.on.contains(&HookEvent::Rollback) && hook.gate.is_none();
    wanted.then(|| Hook {
        name: hook.name.clone(),
        on: vec![HookEvent::Rollback],
        action: Some(HookAction::Http(HttpHook {
            url: format!("http://{}/{}", set.hooks, set.host),
            method: None,
            preset: Preset::Cloudevents,
            secret_file: None,
            headers: [].into(),
            ca: None,
        })),
        carries_out: None,
        timeout: TimeSpan(HOOK_TIME),
        retries: 1,
        gate: None,
    })
}

/// The configuration with a shadow in it, and the way there.
pub(crate) fn with(config: &Config, service: &str, shadow: Service, host: &str) -> Config {
    let mut config = config.clone();
    let name = name_of(service);
    config.routes.push(Route {
        host: HostPattern::Exact(host.to_owned()),
        path: "/".into(),
        methods: Vec::new(),
        headers: [].into(),
        listeners: Vec::new(),
        action: Action::Service(name.clone()),
        rewrite: Rewrite::default(),
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
        limits: LimitOverrides::default(),
        deprecation: None,
        keep_while_used: None,
    });
    config.services.insert(name, shadow);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "version: 1
listeners: {web: {address: \"127.0.0.1:0\"}}
routes: [{service: shop}]
services:
  shop:
    stable: blue
    backends:
      blue: {version: \"1\", endpoints: [\"http://127.0.0.1:1\"]}
      green: {version: \"2\", endpoints: [\"http://127.0.0.1:2\"]}
    rollback: {on_failure: notify, rules: [\"error_rate > 5% for 5m\"]}
    pin: {cookie: page}
    hooks: [{on: [rollback], run: [\"true\"]}, {on: [switch], run: [\"true\"]}]
";

    fn staged() -> (Config, Config) {
        let config = switchback_config::parse(FILE).config.expect("a file");
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let set = Set {
            host: "secret".into(),
            stable: address,
            canary: address,
            hooks: address,
        };
        let shop = &config.services["shop"];
        let shadow = shadow(shop, &"blue".into(), &"green".into(), &set);
        let staged = with(&config, "shop", shadow, &set.host);
        (config, staged)
    }

    #[test]
    fn shadow_judges_like_its_service_and_does_nothing_to_others() {
        let (config, staged) = staged();
        let shadow = &staged.services[&name_of("shop")];
        assert_eq!(
            shadow.rollback.rules,
            config.services["shop"].rollback.rules
        );
        assert_eq!(shadow.rollback.on_failure, OnFailure::Rollback);
        assert_eq!(shadow.pin, None, "one client is not limited");
        let [hook] = &shadow.hooks[..] else {
            panic!("only what is told of rollbacks: {:?}", shadow.hooks);
        };
        assert!(matches!(&hook.action, Some(HookAction::Http(_))), "and dry");
        assert!(!switchback_config::is_name(&name_of("shop")));
    }

    #[test]
    fn reload_keeps_a_shadow_and_the_file_never_has_one() {
        let (config, staged) = staged();
        assert_eq!(*without(&staged), config);
        assert_eq!(kept(&staged, config.clone()), staged);
        assert_eq!(kept(&config, config.clone()), config);
        let mut gone = config;
        gone.services.clear();
        assert!(kept(&staged, gone).services.is_empty());
    }
}
