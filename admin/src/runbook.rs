//! Carries out runbooks: begins those whose trigger fires, and does the step of each that is under way.
//!
//! Nothing is decided here. What a step does is done by the commands that everybody uses, and reported to the
//! controller, which records it; whatever this task knows is in that record, so that it can be
//! stopped at any moment and another process goes on. A trigger is a plain rule of the services that it
//! is for: whether the rule rolls back or only tells is `on_failure`'s business. If it rolled back, the runbook
//! goes on from there; if it only told, nothing is taken away before somebody agrees.

mod step;
mod way;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use switchback_config::defaults::{ROLLOUT_POLL, RUNBOOK_FRESH};
use switchback_config::model::{Name, Runbook};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::task::{AbortHandle, JoinSet};

use crate::command::{Asked, Command, RunbookAct, RunbookCommand, RunbookStart};
use crate::control::{Controls, Published};
use crate::drill::shadow::is_shadow;
use crate::events::{Event, Events};
use crate::hooks::Hooks;
use crate::state::{Block, RunbookRun, ServiceState, later};
use crate::store::Store;
use crate::trend::Trends;

/// Everything that steps need.
#[derive(Clone, Debug)]
pub(crate) struct Crew {
    pub(crate) controls: Controls,
    pub(crate) hooks: Hooks,
    pub(crate) store: Store,
    pub(crate) events: Events,
    pub(crate) trends: Trends,
}

/// After a refusal a run is left alone for so long.
const RETRY: Duration = Duration::from_secs(1);

/// Events that tell of a rule which fires, and after which nothing was rolled back.
const TOLD: [&str; 4] = ["judge_hold", "judge_notify", ABOUT_STABLE, "rollback_held"];

/// A rule fires about stable, while no other version has weight.
const ABOUT_STABLE: &str = "rule_fired";

/// Carries out all runs for as long as the process runs, on one instance of a cluster.
pub(crate) async fn run(crew: Crew) {
    let mut ticks = tokio::time::interval(ROLLOUT_POLL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut coming = crew.events.follow(None).coming;
    let mut works = JoinSet::new();
    let mut busy: BTreeMap<Name, AbortHandle> = BTreeMap::new();
    loop {
        ticks.tick().await;
        while works.try_join_next().is_some() {}
        busy.retain(|_, work| !work.is_finished());
        let published = crew.controls.published();
        let told = heard(&mut coming);
        if !crew.controls.leads() {
            // Whoever leads now goes on with what is recorded.
            works.abort_all();
            continue;
        }
        for start in triggered(&published, &told) {
            crew.begin(start).await;
        }
        for (service, state) in &published.state.services {
            let at_work = state.runbook.as_ref().and_then(RunbookRun::at_work);
            if at_work.is_some()
                && published.services.contains_key(service)
                && !busy.contains_key(service)
            {
                let work = works.spawn(step::advance(crew.clone(), service.clone()));
                busy.insert(service.clone(), work);
            }
        }
    }
}

impl Crew {
    async fn begin(&self, command: RunbookCommand) {
        let reason = match &command.act {
            RunbookAct::Start(start) => start.trigger.clone(),
            _ => None,
        };
        let asked = Asked::by_itself("runbook", reason);
        let command = Command::Runbook(Box::new(command));
        if let Err(error) = self.controls.ask(command, asked).await {
            tracing::warn!(%error, "begin a runbook by its trigger");
        }
    }

    /// Asks for something on behalf of whoever began a run.
    fn asked(run: &RunbookRun, reason: Option<String>) -> Asked {
        Asked {
            by: run.by.clone(),
            how: Some(how(run)),
            ..Asked::by_itself("runbook", reason)
        }
    }
}

/// What the step under way does is put on record with this.
fn how(run: &RunbookRun) -> String {
    format!("runbook {}, step {}", run.runbook, run.step + 1)
}

/// What has happened since the last look.
fn heard(coming: &mut Receiver<Event>) -> Vec<Event> {
    let mut told = Vec::new();
    loop {
        match coming.try_recv() {
            Ok(event) if TOLD.contains(&event.kind) => told.push(event),
            Ok(_) | Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return told,
        }
    }
}

/// The runs that triggers begin now.
fn triggered(published: &Published, told: &[Event]) -> Vec<RunbookCommand> {
    let now = published.clock.now();
    let config = &published.config;
    let mut starts = Vec::new();
    let services = published.services.keys();
    for service in services.filter(|name| !is_shadow(name)) {
        let state = published.state.services.get(service);
        let last = state.and_then(|state| state.runbook.as_ref());
        if last.is_some_and(RunbookRun::is_running) {
            continue;
        }
        let runbooks = config.runbooks.keys();
        let mut armed = runbooks.filter_map(|name| {
            let runbook = config.runbook(name).filter(|book| book.is_for(service))?;
            let trigger = runbook.trigger.as_ref()?;
            let rule = String::from(trigger.rule().clone());
            let is_it = |text: &str| text.contains(&rule);
            let is_told = |event: &Event| {
                let heeds = event.kind != ABOUT_STABLE || !trigger.is_after_deployment();
                heeds && event.service.as_ref() == Some(service) && is_it(&event.message)
            };
            let since = state.and_then(|state| fresh_block(state, now, is_it));
            let since = since.or_else(|| told.iter().any(is_told).then_some(now))?;
            Some((name, runbook, since))
        });
        let first = armed.next();
        starts.extend(first.map(|(name, runbook, since)| start(service, name, runbook, since)));
    }
    starts
}

fn start(service: &Name, name: &Name, runbook: &Runbook, since: Timestamp) -> RunbookCommand {
    RunbookCommand {
        service: service.clone(),
        act: RunbookAct::Start(RunbookStart {
            runbook: name.clone(),
            plan: runbook.steps.clone(),
            trigger: runbook.trigger.as_ref().map(|t| t.text().to_owned()),
            since: Some(since),
            method: None,
            // Nobody has asked for it: an operator's tick allows that.
            may_restore: false,
        }),
    }
}

/// When a rule that is meant has blocked a version a short while ago, and no run was about that.
fn fresh_block(
    state: &ServiceState,
    now: Timestamp,
    is_it: impl Fn(&str) -> bool,
) -> Option<Timestamp> {
    let meant =
        |block: &&Block| block.cause == "rule" && block.reason.as_deref().is_some_and(&is_it);
    let blocks = state.blocked.values().filter(meant);
    unattended(state, now, blocks)
}

/// The time of the last block that no run was about, if it is not long ago.
fn unattended<'a>(
    state: &ServiceState,
    now: Timestamp,
    blocks: impl Iterator<Item = &'a Block>,
) -> Option<Timestamp> {
    let last = blocks.map(|block| block.at).max()?;
    let seen = state.runbook.as_ref().map(|run| run.since.max(run.began));
    let is_news = seen.is_none_or(|seen| last > seen);
    (is_news && now < later(last, RUNBOOK_FRESH)).then_some(last)
}

/// What a run that somebody begins is about: the rollback of a short while ago, if there was one.
pub(crate) fn since(published: &Published, service: &str) -> Option<Timestamp> {
    let state = published.state.services.get(service)?;
    unattended(state, published.clock.now(), state.blocked.values())
}

/// The runbook of this name, or the only one, for a service.
pub(crate) fn choose<'a>(
    published: &'a Published,
    service: &str,
    wanted: Option<&str>,
) -> Result<(&'a Name, &'a Runbook), crate::command::Refusal> {
    let config = &published.config;
    let names = config.runbooks.keys();
    let fit = names.filter_map(|name| Some((name, config.runbook(name)?)));
    let fit: Vec<(&Name, &Runbook)> = fit.filter(|(_, book)| book.is_for(service)).collect();
    let known: Vec<&str> = fit.iter().map(|(name, _)| name.as_str()).collect();
    let unknown = |runbook: &str| crate::command::Refusal::UnknownRunbook {
        runbook: runbook.into(),
        known: match known.as_slice() {
            [] => "none; write runbooks: into the file".into(),
            known => known.join(", "),
        },
    };
    match (wanted, fit.as_slice()) {
        (Some(wanted), fit) => {
            let found = fit.iter().find(|(name, _)| *name == wanted);
            found.copied().ok_or_else(|| unknown(wanted))
        }
        (None, [only]) => Ok(*only),
        (None, []) => Err(unknown("")),
        (None, _) => {
            let reason = format!("say which runbook: {}", known.join(", "));
            Err(crate::command::Refusal::InvalidRunbook(reason))
        }
    }
}
