//! Which routes may not be removed by a reload, because somebody used them not long ago.
//!
//! An API version is taken away when nobody asks for it any more, not when somebody thinks so. Routes with
//! `keep_while_used` are counted by the data plane; what was counted is written to disk twice a minute, so
//! that it survives restarts. Until it is known what earlier processes have seen, a route counts as used
//! now: whoever does not know, does not remove. A use of the last half minute before a power cut, or
//! by a connection that outlives an upgrade, may be lost, which is little against the hours that are asked for.
//!
//! A start with another file is never refused for it: there is nobody to ask, and a proxy that does not start
//! serves no route at all. What such a file takes away is told loudly instead, and shown until the route
//! is back or would have been allowed to go.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use switchback_config::defaults::{USES_REMEMBERED, USES_SAVED};
use switchback_config::model::{Action, Config, Route};
use switchback_config::units::TimeSpan;
use switchback_proxy::route_use::RouteUse;
use tokio::time::MissedTickBehavior;

use crate::control::Controls;
use crate::events::Events;
use crate::store::Store;

/// The uses of all routes that are counted, by what they match.
#[derive(Debug)]
pub struct RouteUses {
    workers: usize,
    kept: Mutex<BTreeMap<String, Arc<RouteUse>>>,
    /// Whether it is known what earlier processes have seen.
    known: AtomicBool,
    /// The file of the process before.
    before: OnceLock<Arc<Config>>,
}

/// A route that is still used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// What it matches, in words.
    pub route: String,
    /// When it was last used; none: that is not known yet.
    pub last: Option<Timestamp>,
    /// How long ago that must be.
    pub keep: TimeSpan,
}

impl std::fmt::Display for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { route, last, keep } = self;
        match last {
            Some(last) => write!(
                f,
                "{route} had a request at {last:.0}, less than {keep} ago"
            ),
            None => write!(f, "{route}: it is not known yet when it was last used"),
        }
    }
}

/// What tells routes apart: what they match, however it is written.
fn key(route: &Route) -> String {
    let (mut methods, mut listeners) = (route.methods.clone(), route.listeners.clone());
    methods.sort();
    listeners.sort();
    json!([route.host, route.path, methods, route.headers, listeners]).to_string()
}

/// A route as people call it.
fn words(route: &Route) -> String {
    let mut words = match route.host.is_any() {
        true => route.path.clone(),
        false => format!("{}{}", String::from(route.host.clone()), route.path),
    };
    for (name, value) in &route.headers {
        words.push_str(&format!(" with {name}: {value}"));
    }
    if !route.methods.is_empty() {
        words = format!("{} {words}", route.methods.join(","));
    }
    if let Action::Service(service) = &route.action {
        words.push_str(&format!(" -> {service}"));
    }
    words
}

impl RouteUses {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers,
            kept: Mutex::default(),
            known: AtomicBool::new(false),
            before: OnceLock::new(),
        })
    }

    /// Notes the file with which an earlier process ran.
    pub(crate) fn begin_after(&self, before: Arc<Config>) {
        let _ = self.before.set(before);
    }

    /// Routes that the start has taken away although they are still used, and that are not back.
    pub(crate) fn missing(&self, config: &Config, now: Timestamp) -> Vec<Used> {
        let before = self.before.get().filter(|_| self.known.load(Relaxed));
        before.map_or_else(Vec::new, |before| self.lost(before, config, now))
    }

    /// The uses of a route, if they are to be counted.
    pub(crate) fn of(&self, route: &Route) -> Option<Arc<RouteUse>> {
        route.keep_while_used?;
        Some(self.entry(key(route)))
    }

    fn entry(&self, key: String) -> Arc<RouteUse> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let used = kept
            .entry(key)
            .or_insert_with(|| RouteUse::new(self.workers));
        used.clone()
    }

    /// Takes over what earlier processes have seen.
    fn learn(&self, rows: Vec<(String, u64)>) {
        for (key, last_ms) in rows {
            self.entry(key).note_before(last_ms);
        }
        self.known.store(true, Relaxed);
    }

    /// What is to be written. What is in no file any more and was used before `oldest_ms` is forgotten.
    fn rows(&self, oldest_ms: u64) -> BTreeMap<String, u64> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, used| {
            Arc::strong_count(used) > 1 || used.last_ms().is_some_and(|last| last >= oldest_ms)
        });
        let used = kept.iter();
        used.filter_map(|(key, used)| Some((key.clone(), used.last_ms()?)))
            .collect()
    }

    /// Routes that `after` takes away although they are still used.
    #[must_use]
    pub fn lost(&self, before: &Config, after: &Config, now: Timestamp) -> Vec<Used> {
        let counted = |route: &&Route| route.keep_while_used.is_some();
        let counted: Vec<&Route> = before.routes.iter().filter(counted).collect();
        if counted.is_empty() {
            return Vec::new();
        }
        let stays: HashSet<String> = after.routes.iter().map(key).collect();
        let gone = counted
            .into_iter()
            .filter(|route| !stays.contains(&key(route)));
        gone.filter_map(|route| self.used(route, now)).collect()
    }

    fn used(&self, route: &Route, now: Timestamp) -> Option<Used> {
        let keep = route.keep_while_used?;
        let used = |last| Used {
            route: words(route),
            last,
            keep,
        };
        if !self.known.load(Relaxed) {
            return Some(used(None));
        }
        let last_ms = self.entry(key(route)).last_ms()?;
        let last = Timestamp::from_millisecond(i64::try_from(last_ms).ok()?).ok()?;
        let keep = SignedDuration::try_from(keep.0).unwrap_or(SignedDuration::MAX);
        (now.duration_since(last) < keep).then(|| used(Some(last)))
    }
}

/// Several of them, in words.
pub(crate) fn in_words(routes: &[Used]) -> String {
    let routes: Vec<String> = routes.iter().map(Used::to_string).collect();
    routes.join("; ")
}

/// Says what the start has taken away. Nobody was asked, so everybody is told.
fn tell_missing(controls: &Controls, events: &Events) {
    let published = controls.published();
    let missing = published.uses.missing(&published.config, Timestamp::now());
    if !missing.is_empty() {
        let message = format!(
            "the file of this start has no longer what is used: {}; put it back and reload, or answer for it",
            in_words(&missing)
        );
        events.emit("route_removed", None, "start", message, None);
    }
}

/// Reads what earlier processes have seen, then writes what this one sees, until it ends.
pub(crate) async fn run(controls: Controls, store: Store, events: Events) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let uses = controls.published().uses.clone();
    loop {
        ticks.tick().await;
        match store.route_uses().await {
            Ok(rows) => break uses.learn(rows),
            Err(error) => tracing::debug!(%error, "read when routes were last used"),
        }
    }
    tell_missing(&controls, &events);
    let mut ticks = tokio::time::interval(USES_SAVED);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written = BTreeMap::new();
    loop {
        ticks.tick().await;
        save(&uses, &store, &mut written).await;
    }
}

async fn save(uses: &RouteUses, store: &Store, written: &mut BTreeMap<String, u64>) {
    let oldest = Timestamp::now().saturating_sub(USES_REMEMBERED);
    let oldest_ms = oldest.map_or(0, |oldest| {
        u64::try_from(oldest.as_millisecond()).unwrap_or(0)
    });
    let rows = uses.rows(oldest_ms);
    if rows == *written {
        return;
    }
    match store.note_route_uses(rows.clone(), oldest_ms).await {
        Ok(()) => *written = rows,
        Err(error) => tracing::debug!(%error, "write when routes were last used"),
    }
}

/// Writes what was seen last, before the process ends.
pub(crate) async fn finish(controls: &Controls, store: &Store) {
    let uses = controls.published().uses.clone();
    save_last(&uses, store).await;
}

/// Reads first what earlier processes have seen, where the process ends before it has come to that: a
/// clock that was set back since then makes no use older.
async fn save_last(uses: &RouteUses, store: &Store) {
    if !uses.known.load(Relaxed) {
        match store.route_uses().await {
            Ok(rows) => uses.learn(rows),
            Err(error) => return tracing::debug!(%error, "read when routes were last used"),
        }
    }
    save(uses, store, &mut BTreeMap::new()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(routes: &str) -> Config {
        let text = format!(
            "version: 1
listeners: {{web: {{address: \"127.0.0.1:8080\"}}}}
routes: [{routes}]
services:
  shop: {{backends: {{blue: {{endpoints: [\"http://127.0.0.1:9001\"]}}}}}}
"
        );
        crate::testing::config(&text)
    }

    const V1: &str = "{path: /v1, methods: [GET, PUT], service: shop, keep_while_used: 24h}";

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_000_000_000 + hours * 3_600).expect("a time")
    }

    fn uses(last: Option<Timestamp>) -> Arc<RouteUses> {
        let uses = RouteUses::new(1);
        let route = &config(V1).routes[0];
        let used = uses.of(route).expect("it is counted");
        uses.learn(Vec::new());
        if let Some(last) = last {
            used.note_before(last.as_millisecond().unsigned_abs());
        }
        uses
    }

    #[test]
    fn route_may_go_once_nobody_has_used_it_for_long_enough() {
        let (before, after) = (config(V1), config("{service: shop}"));
        let lost = |uses: &RouteUses, now| uses.lost(&before, &after, now).len();
        assert_eq!(lost(&uses(None), at(0)), 0, "it was never used");
        assert_eq!(lost(&uses(Some(at(0))), at(23)), 1);
        assert_eq!(lost(&uses(Some(at(0))), at(24)), 0);
        let told = uses(Some(at(0))).lost(&before, &after, at(1));
        assert_eq!(
            told[0].to_string(),
            "GET,PUT /v1 -> shop had a request at 2001-09-09T01:46:40Z, less than 24h ago"
        );
    }

    #[test]
    fn route_that_is_written_otherwise_stays_the_same() {
        let before = config(V1);
        for (after, lost) in [
            ("{path: /v1, methods: [PUT, GET], service: shop}", 0),
            (
                "{path: /v1, methods: [PUT], service: shop}, {service: shop}",
                1,
            ),
        ] {
            let found = uses(Some(at(0))).lost(&before, &config(after), at(1));
            assert_eq!(found.len(), lost, "{after}");
        }
    }

    #[test]
    fn nothing_is_removed_before_the_past_is_known() {
        let uses = RouteUses::new(1);
        let (before, after) = (config(V1), config("{service: shop}"));
        let lost = uses.lost(&before, &after, at(1));
        assert_eq!(lost[0].last, None);
        let rows = vec![(
            key(&before.routes[0]),
            at(-30).as_millisecond().unsigned_abs(),
        )];
        uses.learn(rows.clone());
        assert!(uses.lost(&before, &after, at(0)).is_empty());
        assert_eq!(uses.rows(0).into_iter().collect::<Vec<_>>(), rows);
    }

    #[test]
    fn start_without_a_route_shows_it_until_it_is_back_or_may_go() {
        let (before, after) = (config(V1), config("{service: shop}"));
        let began = uses(Some(at(0)));
        assert!(began.missing(&after, at(1)).is_empty(), "nobody ran before");
        began.begin_after(Arc::new(config(V1)));
        assert_eq!(began.missing(&after, at(1)).len(), 1);
        assert!(began.missing(&before, at(1)).is_empty(), "it is back");
        assert!(began.missing(&after, at(24)).is_empty(), "it might go now");
        let unknown = RouteUses::new(1);
        unknown.begin_after(Arc::new(config(V1)));
        assert!(
            unknown.missing(&after, at(1)).is_empty(),
            "nothing is known yet"
        );
    }

    #[tokio::test]
    async fn use_is_written_by_a_process_that_ends_before_it_knows_the_past() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, _) = Store::open(directory.path()).expect("opened");
        let config = config(
            "{path: /v1, service: shop, keep_while_used: 24h}, {path: /v2, service: shop, keep_while_used: 24h}",
        );
        let now_ms = Timestamp::now().as_millisecond().unsigned_abs();
        let [v1, v2] = [0, 1].map(|number: usize| key(&config.routes[number]));
        let earlier = BTreeMap::from([(v1.clone(), now_ms + 5), (v2.clone(), now_ms - 5)]);
        let uses = RouteUses::new(1);
        for route in &config.routes {
            uses.of(route).expect("it is counted").note_before(now_ms);
        }
        store.note_route_uses(earlier, 0).await.expect("written");
        save_last(&uses, &store).await;
        let kept = store.route_uses().await.map(BTreeMap::from_iter);
        assert_eq!(kept, Ok(BTreeMap::from([(v1, now_ms + 5), (v2, now_ms)])));
    }

    #[test]
    fn only_routes_that_ask_for_it_are_counted() {
        assert!(
            uses(None)
                .of(&config("{service: shop}").routes[0])
                .is_none()
        );
    }
}
