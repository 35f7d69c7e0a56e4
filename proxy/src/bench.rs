//! Steps of a request, one by one, and a whole one: what benchmarks count the instructions of.
//!
//! Compiled only for tests and under the feature `bench`. It runs the same code as a worker does, on
//! one thread and without a clock that ticks, so that the same build takes the same instructions
//! every time.

mod round_trip;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use switchback_config::defaults;
use switchback_config::model::{LogPath, Underscores};

use crate::access_log::AccessLog;
use crate::choice::choose;
use crate::client::Client;
use crate::flag::Told;
use crate::h1::encode::LineSink;
use crate::h1::facts::HeadLimits;
use crate::h1::{request_head, response_head};
use crate::head::{RequestHead, ResponseHead};
use crate::headers::{self, Ids, ResponsePolicy};
use crate::outcome::Finding;
use crate::request::Request;
use crate::server::{ConnectionLimits, Connections, Listener};
use crate::snapshot::{Route, RouteAction, Routing, Snapshot};
use crate::stats::{JudgeCells, WorkerStats};
use crate::stopwatch::Stopwatch;
use crate::view::{ServiceView, View};
use crate::worker::{Shared, Worker};

pub use round_trip::RoundTrip;

/// The HTTP/1 parsers of both sides, which use the memory of the head before.
#[derive(Debug)]
pub struct Parser {
    request_limits: HeadLimits,
    response_limits: HeadLimits,
    request: RequestHead,
    response: ResponseHead,
}

impl Default for Parser {
    fn default() -> Self {
        let limits = defaults::limits();
        Self {
            request_limits: HeadLimits::of_requests(&limits),
            response_limits: HeadLimits::of_responses(
                limits.response_header_bytes,
                limits.response_header_count,
            ),
            request: RequestHead::default(),
            response: ResponseHead::default(),
        }
    }
}

impl Parser {
    /// Reads a request head; its length, if it is whole and nothing is wrong with it.
    pub fn request(&mut self, input: &[u8]) -> Option<usize> {
        let parsed = request_head::parse(input, &mut 0, &self.request_limits, &mut self.request);
        parsed.ok().flatten()
    }

    /// Reads the head of a response to a GET.
    pub fn response(&mut self, input: &[u8]) -> Option<usize> {
        let (limits, head) = (&self.response_limits, &mut self.response);
        let parsed = response_head::parse(input, &mut 0, limits, false, head);
        parsed.ok().flatten()
    }
}

/// A request on a worker, between its steps.
#[derive(Debug)]
pub struct Steps {
    worker: Rc<Worker>,
    client: Client,
    view: Rc<View>,
    head: RequestHead,
    answer: ResponseHead,
    route: usize,
    ids: Ids,
    stopwatch: Stopwatch,
    told: Told,
    lines: Vec<u8>,
}

impl Steps {
    /// A request that a snapshot has a route for, and the head of its answer.
    ///
    /// # Errors
    /// When a head is not whole and in order, no route takes the request, or no thread can be
    /// started.
    pub fn new(snapshot: &Arc<Snapshot>, request: &[u8], answer: &[u8]) -> io::Result<Self> {
        let worker = worker(snapshot)?;
        let view = worker.view();
        let client = client();
        let mut parser = Parser::default();
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
        parser
            .request(request)
            .ok_or_else(|| wrong("not a request head"))?;
        parser
            .response(answer)
            .ok_or_else(|| wrong("not a response head"))?;
        let (head, answer) = (parser.request, parser.response);
        let found = view.snapshot.router.find(&head, &client.listener.name);
        Ok(Self {
            route: found.ok_or_else(|| wrong("no route takes the request"))?,
            ids: new_ids(&worker, &head),
            worker,
            client,
            view,
            head,
            answer,
            stopwatch: Stopwatch::default(),
            told: Told::default(),
            lines: Vec::with_capacity(4096),
        })
    }

    /// Looks the route up.
    #[must_use]
    pub fn find_route(&self) -> Option<usize> {
        let router = &self.view.snapshot.router;
        router.find(&self.head, &self.client.listener.name)
    }

    /// Chooses a backend: by the client's key if the service has affinity, by shares otherwise.
    #[must_use]
    pub fn choose(&self) -> Option<usize> {
        let choice = choose(&self.request(), self.service()?);
        choice.ok().map(|choice| choice.backend)
    }

    /// Writes what the backend gets to see of the fields, with new ids; how many bytes that is.
    pub fn write_request(&mut self) -> usize {
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        self.ids = new_ids(&self.worker, &self.head);
        self.request()
            .write_headers(&mut LineSink(&mut lines), true);
        self.lines = lines;
        self.lines.len()
    }

    /// Writes what the client gets to see of the fields; how many bytes that is.
    pub fn write_response(&mut self) -> usize {
        self.lines.clear();
        let changes = &self.view.snapshot.routes[self.route].response_headers;
        let policy = ResponsePolicy {
            changes: (!changes.is_empty()).then_some(changes),
            ..ResponsePolicy::default()
        };
        headers::write_response(&mut LineSink(&mut self.lines), &self.answer, &policy);
        self.lines.len()
    }

    fn route(&self) -> &Route {
        &self.view.snapshot.routes[self.route]
    }

    fn service(&self) -> Option<&Rc<ServiceView>> {
        match &self.route().action {
            RouteAction::Service(index) => self.view.services.get(*index),
            RouteAction::Redirect(_) => None,
        }
    }

    fn request(&self) -> Request<'_> {
        let route = self.route();
        Request {
            worker: &self.worker,
            client: &self.client,
            head: &self.head,
            view: &self.view,
            route_index: self.route,
            route,
            limits: route.limits_on(&self.client.listener.name),
            ids: &self.ids,
            told: &self.told,
            mirrored: false,
            deadline: None,
            stopwatch: &self.stopwatch,
        }
    }
}

/// Counts finished requests for the judge, the failures last.
pub fn count(cells: &JudgeCells, requests: u64, failures: u64) {
    for number in 0..requests {
        let finding = if number < requests.saturating_sub(failures) {
            Finding::Success
        } else {
            Finding::Failure
        };
        cells.record(0, finding, None, Duration::ZERO);
    }
}

/// Ids of a request from a stranger.
fn new_ids(worker: &Worker, head: &RequestHead) -> Ids {
    let unix_ms = u64::try_from(worker.unix_time(worker.now()).as_millis());
    Ids::new(head, false, unix_ms.unwrap_or(0), None, || {
        worker.random_id()
    })
}

/// A worker of its own, which follows a snapshot.
fn worker(snapshot: &Arc<Snapshot>) -> io::Result<Rc<Worker>> {
    let routing = Routing::new(Snapshot::empty());
    routing.swap(snapshot.clone());
    let shared = Shared {
        routing,
        start: Instant::now(),
        workers: 1,
        connections: Connections::new(usize::MAX, 1),
        draining: AtomicBool::new(false),
        waits_for_idle: AtomicBool::new(false),
        stats: vec![WorkerStats::default()],
    };
    let log = AccessLog::start(LogPath::File("/dev/null".into()))?;
    Ok(Worker::new(0, Arc::new(shared), log.buffer(), None))
}

fn listener() -> Arc<Listener> {
    Arc::new(Listener {
        name: "web".into(),
        tls: None,
        proxy_protocol: false,
        limits: ConnectionLimits::resolve(&defaults::limits()),
        trusted_proxies: Vec::new(),
        underscores: Underscores::Drop,
    })
}

fn client() -> Client {
    Client::new(
        SocketAddr::from(([192, 0, 2, 7], 40_000)),
        false,
        listener(),
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn heads_are_read_in_full_and_broken_ones_not_at_all() {
        let mut parser = Parser::default();
        assert_eq!(parser.request(REQUEST), Some(REQUEST.len()));
        assert_eq!(parser.response(ANSWER), Some(ANSWER.len()));
        assert_eq!(parser.request(b"GET / HTTP/1.1\r\n\r\n"), None);
        assert_eq!(parser.response(&ANSWER[..20]), None);
    }

    #[test]
    fn a_request_without_a_route_is_not_measured() {
        let refused = Steps::new(&Arc::new(Snapshot::empty()), REQUEST, ANSWER);
        assert_eq!(
            refused.expect_err("no route").to_string(),
            "no route takes the request"
        );
    }

    #[test]
    fn counted_requests_and_failures_are_what_the_judge_reads() {
        let cells = JudgeCells::new(1, None, None);
        count(&cells, 95, 2);
        assert_eq!(cells.errors().read().collect::<Vec<_>>(), [95 << 32 | 2, 0]);
    }
}
