//! What is asked of the API: looks, one after the other, and what somebody wants done.
//!
//! Looks and orders are tasks of their own, so that a server that is slow with one does not keep the other
//! waiting, and neither keeps the keyboard waiting. However large the server is, looking takes it a tenth
//! of the time at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use super::pace::{self, Times};
use crate::cli::args::WriteArgs;
use crate::cli::client::{Client, ClientError};
use crate::cli::verbs::segment;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// The same at a server that takes long to answer.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How much longer the pause is than what the server had to do.
const PAUSE_FACTOR: u32 = 9;

/// A look that takes longer is a lost connection: numbers that are older are not shown.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// For the record.
const REASON: &str = "by switchback top";

/// What comes from the API.
#[derive(Debug)]
pub(super) enum News {
    /// What is so now.
    Look(Box<Look>),
    /// The last rollback of a service, if there was one.
    Incident(String, Value),
    /// It does not answer, or says no.
    Lost(String),
    /// What a dry run says.
    Planned(Order, Result<Value, String>),
    /// What came of an order.
    Done(Order, Result<Value, String>),
}

/// All services at one time.
#[derive(Debug)]
pub(super) struct Look {
    /// When it was asked for.
    pub(super) at: Instant,
    /// The same by the clock on the wall.
    pub(super) when: Timestamp,
    /// The answer of `/v1/services`.
    pub(super) answer: Value,
    /// How long requests took; empty where `/metrics` is not to be had.
    pub(super) times: Times,
}

/// Something to do about a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) service: String,
    pub(super) act: Act,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Rollback,
    Pause,
    Resume,
}

impl Act {
    /// Below the service.
    const fn path(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Pause => "rollout/pause",
            Self::Resume => "rollout/resume",
        }
    }

    /// The verb that does the same.
    pub(super) const fn verb(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Pause => "rollout pause",
            Self::Resume => "rollout resume",
        }
    }
}

/// Looks once.
pub(super) async fn look(client: &Client) -> Result<Look, ClientError> {
    let (at, when) = (Instant::now(), Timestamp::now());
    let answer = client.get("/v1/services").await?;
    let metrics = client.open_text("/metrics").await.unwrap_or_default();
    Ok(Look {
        at,
        when,
        answer,
        times: pace::times(&metrics),
    })
}

/// Looks again and again, sooner when somebody is woken or another service comes into focus.
pub(super) async fn watch(
    client: Arc<Client>,
    wake: Arc<Notify>,
    mut focus: watch::Receiver<Option<String>>,
    news: mpsc::Sender<News>,
) {
    loop {
        let began = Instant::now();
        let seen = match timeout(PATIENCE, look(&client)).await {
            Ok(Ok(look)) => News::Look(Box::new(look)),
            Ok(Err(error)) => News::Lost(error.to_string()),
            Err(_) => News::Lost(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        let pause = match &seen {
            News::Look(_) => (began.elapsed() * PAUSE_FACTOR).clamp(PAUSE, PAUSE_MAX),
            // A server that does not answer has nothing to do, and is missed.
            _ => PAUSE,
        };
        if news.send(seen).await.is_err() {
            return;
        }
        let until = tokio::time::Instant::now() + pause;
        loop {
            let focused = focus.borrow_and_update().clone();
            if let Some(service) = focused
                && let Ok(Some(incident)) = timeout(PATIENCE, incident(&client, &service)).await
                && news.send(News::Incident(service, incident)).await.is_err()
            {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => break,
                () = wake.notified() => break,
                changed = focus.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// The last rollback of a service, `null` if there was none; nothing if that cannot be learnt, which the
/// next look will tell.
async fn incident(client: &Client, service: &str) -> Option<Value> {
    let service = segment(service).ok()?;
    let path = format!("/v1/rollbacks?limit=1&service={service}");
    let answer = client.get(&path).await.ok()?;
    Some(answer["rollbacks"][0].clone())
}

/// Carries out an order, or asks what would come of it.
pub(super) async fn send(client: Arc<Client>, order: Order, dry_run: bool) -> News {
    let options = WriteArgs {
        reason: Some(REASON.into()),
        dry_run,
        ..WriteArgs::default()
    };
    let result = match segment(&order.service) {
        Ok(service) => {
            let path = format!("/v1/services/{service}/{}", order.act.path());
            let answer = client.write(Method::POST, &path, json!({}), &options).await;
            answer.map_err(|error| error.to_string())
        }
        Err(failed) => Err(failed.message),
    };
    match dry_run {
        true => News::Planned(order, result),
        false => News::Done(order, result),
    }
}
