//! Which route a request takes: exact host before wildcard before any, then the longest path prefix,
//! then the most header conditions, then the order of the file.
//!
//! Built once for each snapshot, read by all workers. A look-up hashes the host, and the path once
//! for each of its segments, up to the deepest prefix configured for that host; the number of
//! routes does not matter. No allocation, except that a host written in capitals is lowered on the
//! stack.
//!
//! Paths are compared as bytes, as received: `%2f` is not `/`, and dot segments are not resolved,
//! since the origin gets the same bytes and must come to the same conclusion.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use switchback_config::model::{HostPattern, Route};

use crate::head::RequestHead;

type Bytes = Box<[u8]>;

type Map<V> = HashMap<Bytes, V, FixedState>;

/// A route's place in the list it was built from.
pub type RouteIndex = usize;

/// All routes of a snapshot, ready to be looked up.
#[derive(Debug, Default)]
pub struct Router {
    exact: Map<Paths>,
    /// By suffix with its leading dot.
    suffixes: Map<Paths>,
    any: Paths,
    conditions: Vec<Conditions>,
}

/// The path prefixes of one host.
#[derive(Debug, Default)]
struct Paths {
    /// Routes for `/`.
    root: Vec<RouteIndex>,
    /// Routes by prefix, without a trailing slash.
    prefixes: Map<Vec<RouteIndex>>,
    /// Segments of the deepest prefix.
    depth: usize,
}

/// What a route asks for beyond host and path.
#[derive(Debug)]
struct Conditions {
    methods: Vec<Bytes>,
    /// Names and values.
    headers: Vec<(Bytes, Bytes)>,
    listeners: Vec<Arc<str>>,
}

/// Longest host that can match: DNS names have at most 253 bytes.
const HOST_BYTES_MAX: usize = 256;

impl Router {
    /// Builds the tables. Indices are positions in `routes`.
    #[must_use]
    pub fn new(routes: &[Route]) -> Self {
        let mut router = Self {
            conditions: routes.iter().map(Conditions::of).collect(),
            ..Self::default()
        };
        // Candidates of one prefix stand in the order in which they are tried.
        let mut order: Vec<RouteIndex> = (0..routes.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(routes[*index].headers.len()));
        for index in order {
            let route = &routes[index];
            let paths = match &route.host {
                HostPattern::Any => &mut router.any,
                HostPattern::Exact(host) => router.exact.entry(host.as_bytes().into()).or_default(),
                HostPattern::Suffix(suffix) => {
                    router.suffixes.entry(suffix.as_bytes().into()).or_default()
                }
            };
            paths.add(route.path.as_bytes(), index);
        }
        router
    }

    /// The route of a request that arrived on `listener`.
    pub(crate) fn find(&self, head: &RequestHead, listener: &str) -> Option<RouteIndex> {
        let path = head.path();
        let matches = |index: &&RouteIndex| self.conditions[**index].hold(head, listener);
        let mut lowered = [0_u8; HOST_BYTES_MAX];
        let host = head
            .authority()
            .and_then(|authority| host_of(authority, &mut lowered))
            .unwrap_or_default();
        if let Some(found) = self
            .exact
            .get(host)
            .and_then(|paths| paths.find(path, matches))
        {
            return Some(found);
        }
        if !self.suffixes.is_empty() {
            // From the longest suffix to the shortest; the first label is never part of one.
            for dot in memchr::memchr_iter(b'.', host).filter(|dot| *dot > 0) {
                if let Some(found) = self
                    .suffixes
                    .get(&host[dot..])
                    .and_then(|paths| paths.find(path, matches))
                {
                    return Some(found);
                }
            }
        }
        self.any.find(path, matches)
    }
}

impl Paths {
    fn add(&mut self, prefix: &[u8], index: RouteIndex) {
        if prefix == b"/" {
            self.root.push(index);
            return;
        }
        self.depth = self.depth.max(memchr::memchr_iter(b'/', prefix).count());
        self.prefixes.entry(prefix.into()).or_default().push(index);
    }

    fn find<'a>(
        &'a self,
        path: &[u8],
        matches: impl Fn(&&'a RouteIndex) -> bool,
    ) -> Option<RouteIndex> {
        if self.depth > 0 {
            // The ends of the first segments, `/a` `/a/b` `/a/b/c`, tried from the longest.
            let mut ends = [0_usize; DEPTH_MAX];
            let mut segments = 0;
            let slashes = memchr::memchr_iter(b'/', path).skip(1).chain([path.len()]);
            for (end, slot) in slashes.zip(&mut ends).take(self.depth) {
                *slot = end;
                segments += 1;
            }
            for end in ends[..segments].iter().rev() {
                let candidates = self.prefixes.get(&path[..*end]);
                if let Some(found) = candidates.and_then(|routes| routes.iter().find(&matches)) {
                    return Some(*found);
                }
            }
        }
        self.root.iter().find(matches).copied()
    }
}

/// Deepest prefix that can be found; deeper ones are cut to it when the configuration is read.
pub const DEPTH_MAX: usize = 64;

impl Conditions {
    fn of(route: &Route) -> Self {
        let bytes = |text: &String| text.as_bytes().into();
        Self {
            methods: route.methods.iter().map(bytes).collect(),
            headers: route
                .headers
                .iter()
                .map(|(name, value)| (bytes(name), bytes(value)))
                .collect(),
            listeners: route
                .listeners
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
        }
    }

    fn hold(&self, head: &RequestHead, listener: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|method| **method == *head.method()))
            && (self.listeners.is_empty() || self.listeners.iter().any(|name| **name == *listener))
            && self
                .headers
                .iter()
                .all(|(name, value)| head.fields.values(name).any(|v| *v == **value))
    }
}

/// The host of an authority in lower case, without port, brackets kept, without a final dot.
fn host_of<'a>(authority: &'a [u8], lowered: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a [u8]> {
    let end = match authority.first() {
        Some(b'[') => memchr::memchr(b']', authority).map(|at| at + 1),
        _ => memchr::memchr(b':', authority),
    };
    let host = &authority[..end.unwrap_or(authority.len())];
    let host = host.strip_suffix(b".").unwrap_or(host);
    if !host.iter().any(u8::is_ascii_uppercase) {
        return Some(host);
    }
    let lowered = lowered.get_mut(..host.len())?;
    lowered.copy_from_slice(host);
    lowered.make_ascii_lowercase();
    Some(lowered)
}

#[cfg(test)]
mod tests;
