//! Which messages a change makes, and for whom.
//!
//! Pure. The control thread hands the result to the store together with the change itself, so that
//! both are on disk or neither is: no kill between the two loses a message or invents one.

use jiff::Timestamp;
use switchback_config::model::{Hook, HookEvent, Name, Service};

use super::delivery::{CloudEvent, Delivery, Happening};
use crate::command::{Asked, Command};
use crate::control::Published;
use crate::controller::{Decision, World};
use crate::effective::Effective;
use crate::events::Event;
use crate::state::{Block, ServiceState};

/// The messages of a change, one for each hook that wants to hear of it.
pub(crate) fn of_change(
    before: &World,
    command: &Command,
    asked: &Asked,
    decision: &Decision,
    revision: u64,
    at: Timestamp,
) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for note in &decision.notes {
        let Some(event) = HookEvent::of_kind(note.kind) else {
            continue;
        };
        let Some((name, file)) = note
            .service
            .as_ref()
            .and_then(|name| decision.config.services.get_key_value(name))
        else {
            continue;
        };
        if file.hooks.is_empty() {
            continue;
        }
        let unrecorded = ServiceState::default();
        let recorded = before.state.services.get(name).unwrap_or(&unrecorded);
        let after = decision.services.get(name).unwrap_or(recorded);
        let effective = Effective::new(file, after, decision.stable_only);
        let subject = subject(event, command, recorded, after, &effective);
        let data = Happening {
            service: name.clone(),
            event,
            kind: note.kind.into(),
            message: note.message.clone(),
            backend: subject.backend,
            version: subject.version,
            revision: Some(revision),
            by: asked.by.clone(),
            reason: subject.reason.or_else(|| asked.reason.clone()),
            cause: subject.cause,
            weights: effective.weights,
            stable: effective.stable,
        };
        deliveries.extend(to_hooks(file, CloudEvent::new(at, data)));
    }
    deliveries
}

/// The messages of something that happened without a change.
pub(crate) fn of_event(published: &Published, event: &Event) -> Vec<Delivery> {
    let Some(what) = HookEvent::of_kind(event.kind) else {
        return Vec::new();
    };
    let Some(name) = event.service.as_ref() else {
        return Vec::new();
    };
    let (Some(file), Some(status)) = (published.file(name), published.services.get(name)) else {
        return Vec::new();
    };
    let effective = &status.effective;
    let backend = first_word(&event.message).filter(|word| effective.backends.contains_key(*word));
    let data = Happening {
        service: name.clone(),
        event: what,
        kind: event.kind.into(),
        message: event.message.clone(),
        backend: backend.map(str::to_owned),
        version: event
            .version
            .clone()
            .or_else(|| backend.map(|backend| effective.version(backend).to_owned())),
        revision: None,
        by: event.by.clone(),
        reason: None,
        cause: None,
        weights: effective.weights.clone(),
        stable: effective.stable.clone(),
    };
    to_hooks(file, CloudEvent::new(event.at, data))
}

/// What the judge has to say begins with the backend it is about.
fn first_word(message: &str) -> Option<&str> {
    message.split([':', ' ']).next()
}

fn to_hooks(file: &Service, event: CloudEvent) -> Vec<Delivery> {
    let wants = |hook: &&Hook| hook.on.contains(&event.data.event);
    let hooks = file.hooks.iter().filter(wants);
    hooks
        .map(|hook| Delivery::new(hook.name.clone(), event.clone()))
        .collect()
}

/// Whom an event is about.
#[derive(Debug, Default)]
struct Subject {
    backend: Option<Name>,
    version: Option<String>,
    cause: Option<String>,
    reason: Option<String>,
}

fn subject(
    event: HookEvent,
    command: &Command,
    before: &ServiceState,
    after: &ServiceState,
    effective: &Effective,
) -> Subject {
    let deployed = |backend: &Name| Subject {
        backend: Some(backend.clone()),
        version: Some(effective.version(backend).to_owned()),
        ..Subject::default()
    };
    match event {
        HookEvent::Rollback => {
            let mut blocked = after.blocked.iter();
            let fresh = blocked.find(|(version, _)| !before.blocked.contains_key(*version));
            fresh.map_or_else(Subject::default, |(version, block)| lost(version, block))
        }
        HookEvent::Switch | HookEvent::Promote => deployed(&effective.stable),
        HookEvent::RolloutStart
        | HookEvent::RolloutAdvance
        | HookEvent::RolloutPause
        | HookEvent::RolloutResume
        | HookEvent::RolloutEnd => {
            let rollout = after.rollout.as_ref();
            rollout.map_or_else(Subject::default, |rollout| Subject {
                backend: Some(rollout.canary.clone()),
                version: Some(rollout.version.clone()),
                ..Subject::default()
            })
        }
        HookEvent::Block | HookEvent::Unblock | HookEvent::BackendSet => match command {
            Command::Block { backend, .. }
            | Command::Unblock { backend, .. }
            | Command::SetBackend { backend, .. } => deployed(backend),
            _ => Subject::default(),
        },
        _ => Subject::default(),
    }
}

fn lost(version: &str, block: &Block) -> Subject {
    Subject {
        backend: Some(block.backend.clone()),
        version: Some(version.to_owned()),
        cause: Some(block.cause.clone()),
        reason: block.reason.clone(),
    }
}
