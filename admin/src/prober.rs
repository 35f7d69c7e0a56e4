//! Active health checks: asks every endpoint whether it works.
//!
//! One task for each endpoint of the current snapshot. With `health:` it sends GET requests on fresh
//! connections and needs `rise` good or `fall` bad answers in a row to change its mind. Without, an
//! endpoint that was set over the API is only connected to until that works once; after that passive
//! checks are enough.
//!
//! What passive checks have found to fail is connected to now and then, whatever else is checked: no
//! request goes to a backend without weight, so nothing else would ever tell that it works again, and a
//! rollback to it would be refused for good.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use switchback_config::defaults::{EJECT_TIME, HEALTH_INTERVAL, HEALTH_TIMEOUT};
use switchback_config::model::HealthCheck;
use switchback_config::units::Scheme;
use switchback_proxy::health::{Probed, is_own_want};
use switchback_proxy::snapshot::Endpoint;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;

use crate::control::{Controls, Published};
use crate::events::Events;

/// Largest part of a health answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Failing endpoints that are connected to at a time.
const RECONNECTS_MAX: usize = 64;

/// Checks all endpoints. Never ends.
pub async fn run(controls: Controls, events: Events) {
    tokio::select! {
        () = watch(controls.clone(), events) => {}
        () = reconnect(controls) => {}
    }
}

/// Connects to endpoints that did not accept connections when they were last asked.
async fn reconnect(controls: Controls) {
    let mut ticks = tokio::time::interval(EJECT_TIME);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let snapshot = controls.published().snapshot.clone();
        let backends = snapshot.services.iter().flat_map(|one| &one.backends);
        let endpoints = backends.flat_map(|backend| &backend.endpoints);
        let failing = endpoints.filter(|endpoint| endpoint.health.is_failing());
        let failing: Vec<Arc<Endpoint>> = failing.cloned().collect();
        for some in failing.chunks(RECONNECTS_MAX) {
            let mut tries = JoinSet::new();
            for endpoint in some.iter().cloned() {
                tries.spawn(async move {
                    let connected = tokio::time::timeout(HEALTH_TIMEOUT, connect(&endpoint)).await;
                    if matches!(connected, Ok(Ok(_))) {
                        endpoint.health.connect_succeeded();
                    }
                });
            }
            while tries.join_next().await.is_some() {}
        }
    }
}

async fn watch(controls: Controls, events: Events) {
    let mut published = controls.follow();
    let mut probes: HashMap<Key, Probe> = HashMap::new();
    loop {
        let wanted = wanted(&published.borrow_and_update());
        probes.retain(|key, probe| {
            let stays = wanted
                .get(key)
                .is_some_and(|wanted| wanted.check == probe.check);
            if !stays {
                probe.task.abort();
            }
            stays
        });
        for (
            key,
            Wanted {
                endpoint,
                check,
                label,
            },
        ) in wanted
        {
            probes.entry(key).or_insert_with(|| {
                let watch = Watch {
                    endpoint,
                    label,
                    events: events.clone(),
                };
                let task = tokio::spawn(watch.run(check.clone()));
                Probe { check, task }
            });
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}

/// The address of an endpoint in memory: what stays the same while it does.
type Key = usize;

struct Probe {
    check: Option<HealthCheck>,
    task: JoinHandle<()>,
}

struct Wanted {
    endpoint: Arc<Endpoint>,
    check: Option<HealthCheck>,
    label: Label,
}

/// Whose endpoint it is, for events.
#[derive(Clone, Debug)]
struct Label {
    service: String,
    backend: String,
}

fn wanted(published: &Published) -> HashMap<Key, Wanted> {
    let mut wanted = HashMap::new();
    for service in &published.snapshot.services {
        let check = published
            .file(&service.name)
            .and_then(|file| file.health.clone());
        for backend in &service.backends {
            for endpoint in &backend.endpoints {
                if check.is_none() && endpoint.health.probed() == Probed::Up {
                    continue;
                }
                let label = Label {
                    service: service.name.to_string(),
                    backend: backend.name.to_string(),
                };
                let key = Arc::as_ptr(endpoint).addr();
                wanted.insert(
                    key,
                    Wanted {
                        endpoint: endpoint.clone(),
                        check: check.clone(),
                        label,
                    },
                );
            }
        }
    }
    wanted
}

struct Watch {
    endpoint: Arc<Endpoint>,
    label: Label,
    events: Events,
}

impl Watch {
    async fn run(self, check: Option<HealthCheck>) {
        let Some(check) = check else {
            return self.connect_once().await;
        };
        let mut ticks = tokio::time::interval(check.interval.0);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut good, mut bad) = (0_u32, 0_u32);
        loop {
            ticks.tick().await;
            let attempt = ask(&self.endpoint, &check.path);
            let result = match tokio::time::timeout(check.timeout.0, attempt).await {
                Ok(result) => result,
                Err(_) => Err(Failed::There(format!("no answer within {}", check.timeout))),
            };
            let known = self.endpoint.health.probed();
            match result {
                Ok(()) => {
                    (good, bad) = (good.saturating_add(1), 0);
                    // The first good answer is enough where nothing was known.
                    if known != Probed::Up && (good >= check.rise.get() || known == Probed::Unknown)
                    {
                        self.change(Probed::Up, "is healthy");
                    }
                }
                Err(Failed::Here(reason)) => {
                    tracing::warn!(reason, endpoint = %self.endpoint.address, "look at an endpoint");
                }
                Err(Failed::There(reason)) => {
                    (good, bad) = (0, bad.saturating_add(1));
                    if known != Probed::Down && bad >= check.fall.get() {
                        self.change(Probed::Down, &format!("is unhealthy: {reason}"));
                    }
                }
            }
        }
    }

    async fn connect_once(self) {
        let mut ticks = tokio::time::interval(HEALTH_INTERVAL.min(Duration::from_millis(500)));
        loop {
            ticks.tick().await;
            let connected = tokio::time::timeout(HEALTH_TIMEOUT, connect(&self.endpoint)).await;
            if matches!(connected, Ok(Ok(_))) {
                return self.change(Probed::Up, "accepts connections");
            }
        }
    }

    fn change(&self, probed: Probed, what: &str) {
        self.endpoint.health.set_probed(probed);
        let Label { service, backend } = &self.label;
        let kind = if probed == Probed::Up {
            "endpoint_up"
        } else {
            "endpoint_down"
        };
        let message = format!("{backend}: {} {what}", self.endpoint.address);
        self.events
            .emit(kind, Some(service), "switchback", message, None);
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why a look came to nothing.
enum Failed {
    /// The endpoint does not do as it should.
    There(String),
    /// It could not be asked, which says nothing about it.
    Here(String),
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self::There(reason)
    }
}

/// Connects; tells whether HTTP/2 was agreed on.
async fn connect(endpoint: &Endpoint) -> Result<(Box<dyn Stream>, bool), Failed> {
    let stream = TcpStream::connect(endpoint.address).await;
    let stream = stream.map_err(|error| match is_own_want(&error) {
        true => Failed::Here(error.to_string()),
        false => Failed::There(error.to_string()),
    })?;
    let Some(tls) = &endpoint.tls else {
        return Ok((Box::new(stream), endpoint.scheme == Scheme::H2c));
    };
    let connector = TlsConnector::from(tls.config.clone());
    let stream = connector
        .connect(tls.server_name.clone(), stream)
        .await
        .map_err(|error| error.to_string())?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Box::new(stream), h2))
}

async fn ask(endpoint: &Endpoint, path: &str) -> Result<(), Failed> {
    let text = |error: hyper::Error| error.to_string();
    let (stream, h2) = connect(endpoint).await?;
    let io = TokioIo::new(stream);
    let scheme = if endpoint.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let uri = if h2 {
        format!("{scheme}://{}{path}", endpoint.authority)
    } else {
        path.to_owned()
    };
    let request = Request::get(uri)
        .header(header::HOST, &endpoint.authority)
        .header(header::USER_AGENT, "switchback-health")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = if h2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(text)?;
        let _driver = Driver(tokio::spawn(async move {
            let _ = connection.await;
        }));
        finish(sender.send_request(request).await.map_err(text)?).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(text)?;
        let _driver = Driver(tokio::spawn(async move {
            let _ = connection.await;
        }));
        finish(sender.send_request(request).await.map_err(text)?).await
    }?;
    if (200..300).contains(&response) {
        Ok(())
    } else {
        Err(format!("status {response}").into())
    }
}

/// Reads the answer to its end, within bounds.
async fn finish(response: http::Response<Incoming>) -> Result<u16, String> {
    let status = response.status().as_u16();
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    body.collect().await.map_err(|error| error.to_string())?;
    Ok(status)
}

/// Ends a connection's task with the check.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
