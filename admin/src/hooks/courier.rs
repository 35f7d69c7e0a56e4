//! Takes messages from the outbox to their hooks.
//!
//! Messages of one hook go one after the other, in the order of the outbox; hooks do not wait for each
//! other beyond the bound on how many are busy at a time. What comes of each attempt is written down
//! before the next one, so that a restart goes on where it stopped. A message is delivered at least
//! once: a kill between an answer and its record repeats it, with the same id.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use switchback_config::defaults::{
    HOOK_BACKOFF, HOOK_BACKOFF_MAX, HOOK_PROGRAMS_MAX, HOOK_REQUESTS_MAX,
};
use switchback_config::model::{CarriedOut, Hook, HookAction, HookEvent, Name};
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinSet};

use super::delivery::{Attempt, Delivery};
use super::{Hooks, Outcome, Verdict, attempt};
use crate::drill::shadow::is_shadow;
use crate::evidence::Action;
use crate::state::later;
use crate::store::Settlement;
use crate::timings::{Timing, Way};

/// Service and hook.
type Key = (Name, Name);

/// How soon the outbox is asked again after it could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// The outbox is looked at so often even if nobody says that there is something new.
const LOOK: Duration = Duration::from_secs(60);

/// Takes messages to hooks, for as long as the process runs.
pub(super) async fn run(hooks: Hooks) {
    let mut courier = Courier {
        hooks,
        queues: BTreeMap::new(),
        busy: HashMap::new(),
        attempts: JoinSet::new(),
        seen: 0,
        lost: 0,
        requests: Arc::new(Semaphore::new(HOOK_REQUESTS_MAX)),
        programs: Arc::new(Semaphore::new(HOOK_PROGRAMS_MAX)),
    };
    loop {
        let news = courier.hooks.store.outbox_news();
        let read = courier.take_new().await;
        courier.start_due().await;
        courier.count();
        let look = if read { courier.next_due() } else { READ_AGAIN };
        tokio::select! {
            () = news => {}
            () = tokio::time::sleep(look) => {}
            Some(done) = courier.attempts.join_next_with_id() => courier.finish(done).await,
        }
    }
}

struct Courier {
    hooks: Hooks,
    /// What waits, by hook. The first of each is the one that is tried.
    queues: BTreeMap<Key, VecDeque<Delivery>>,
    /// The hooks whose first message is being tried, by task.
    busy: HashMap<Id, Key>,
    attempts: JoinSet<(Attempt, Verdict)>,
    /// The newest message that was taken from the outbox.
    seen: u64,
    /// How much is lost, as far as it was told.
    lost: u64,
    requests: Arc<Semaphore>,
    programs: Arc<Semaphore>,
}

impl Courier {
    /// Reads what is new in the outbox, and forgets what was pushed out of it.
    async fn take_new(&mut self) -> bool {
        let waiting = match self.hooks.store.waiting(self.seen).await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::debug!(%error, "read the outbox");
                return false;
            }
        };
        self.hooks.counts.set_dead(waiting.dead);
        for (key, queue) in &mut self.queues {
            let kept = usize::from(self.busy.values().any(|busy| busy == key));
            while queue
                .get(kept)
                .is_some_and(|delivery| delivery.id < waiting.oldest)
            {
                queue.remove(kept);
            }
        }
        for delivery in waiting.fresh {
            self.seen = delivery.id;
            let key = (delivery.event.data.service.clone(), delivery.hook.clone());
            self.queues.entry(key).or_default().push_back(delivery);
        }
        true
    }

    /// Begins the attempts that are due.
    async fn start_due(&mut self) {
        let now = Timestamp::now();
        let published = self.hooks.controls.published();
        let is_due = |queue: &VecDeque<Delivery>| {
            let first = queue.front();
            first.is_some_and(|first| first.next.is_none_or(|next| next <= now))
        };
        let due = self.queues.iter().filter(|(_, queue)| is_due(queue));
        let due: Vec<Key> = due
            .map(|(key, _)| key.clone())
            .filter(|key| !self.busy.values().any(|busy| busy == key))
            .collect();
        for key in due {
            let hooks = published.file(&key.0).map(|file| &file.hooks);
            let hook = hooks.and_then(|hooks| hooks.iter().find(|hook| hook.name == key.1));
            match hook.cloned() {
                Some(hook) => self.start(key, hook),
                None => {
                    self.give_up(&key, "the file has no such hook any more")
                        .await
                }
            }
        }
        self.queues.retain(|_, queue| !queue.is_empty());
    }

    fn start(&mut self, key: Key, hook: Hook) {
        let Some(delivery) = self.queues.get(&key).and_then(VecDeque::front).cloned() else {
            return;
        };
        let places = match hook.action {
            Some(HookAction::Run(_)) => self.programs.clone(),
            _ => self.requests.clone(),
        };
        let base = self.hooks.base.clone();
        let task = self.attempts.spawn(async move {
            let place = places.acquire().await;
            let done = attempt(&hook, &base, &delivery.event).await;
            drop(place);
            done
        });
        self.busy.insert(task.id(), key);
    }

    async fn give_up(&mut self, key: &Key, reason: &str) {
        let Some(mut delivery) = self.queues.get_mut(key).and_then(VecDeque::pop_front) else {
            return;
        };
        delivery.last = Some(Attempt {
            at: Timestamp::now(),
            took_ms: 0,
            delivered: false,
            result: reason.into(),
            output: String::new(),
        });
        self.settle(key, Settlement::Dead(delivery)).await;
    }

    /// Writes down what came of an attempt, and decides how to go on.
    async fn finish(&mut self, done: Result<(Id, (Attempt, Verdict)), JoinError>) {
        let (id, attempt, verdict) = match done {
            Ok((id, (attempt, verdict))) => (id, attempt, verdict),
            Err(error) => {
                let outcome = Outcome::failed(format!("the attempt broke off: {error}"));
                (
                    error.id(),
                    outcome.into_attempt(Duration::ZERO),
                    Verdict::Refused,
                )
            }
        };
        let Some(key) = self.busy.remove(&id) else {
            return;
        };
        let Some(mut delivery) = self.queues.get_mut(&key).and_then(VecDeque::pop_front) else {
            return;
        };
        delivery.attempts += 1;
        delivery.next = None;
        delivery.last = Some(attempt);
        let retries = self.retries(&key);
        let settlement = match verdict {
            Verdict::Delivered => Settlement::Delivered(delivery),
            Verdict::Failed { retry_after } if delivery.attempts <= retries => {
                let wait = wait_before(delivery.attempts + 1, fastrand::f64());
                let wait = wait.max(retry_after.unwrap_or_default().min(HOOK_BACKOFF_MAX));
                delivery.next = Some(later(Timestamp::now(), wait));
                if let Some(queue) = self.queues.get_mut(&key) {
                    queue.push_front(delivery.clone());
                }
                Settlement::Again(delivery)
            }
            Verdict::Failed { .. } | Verdict::Refused => Settlement::Dead(delivery),
        };
        self.settle(&key, settlement).await;
    }

    fn retries(&self, (service, name): &Key) -> u32 {
        let published = self.hooks.controls.published();
        let hooks = published.file(service).map(|file| &file.hooks);
        let hook = hooks.and_then(|hooks| hooks.iter().find(|hook| hook.name == *name));
        hook.map_or(0, |hook| hook.retries)
    }

    async fn settle(&mut self, (service, hook): &Key, settlement: Settlement) {
        // What a drill tells is told to itself.
        if !is_shadow(service) {
            self.note(service, hook, &settlement);
        }
        match self.hooks.store.settle(settlement).await {
            Ok(dead) => self.hooks.counts.set_dead(dead),
            // It is in the outbox still, and tried again after a restart.
            Err(error) => tracing::warn!(%error, service, hook, "note what came of a hook"),
        }
    }

    /// Counts what became of a message, and says so.
    fn note(&self, service: &Name, hook: &Name, settlement: &Settlement) {
        let result = match settlement {
            Settlement::Delivered(_) => "delivered",
            Settlement::Again(_) => "failed",
            Settlement::Dead(_) => "dead",
        };
        self.hooks.counts.note(service, hook, result);
        let (Settlement::Delivered(delivery)
        | Settlement::Again(delivery)
        | Settlement::Dead(delivery)) = settlement;
        let why = delivery
            .last
            .as_ref()
            .map_or("", |last| last.result.as_str());
        if result == "dead" {
            tracing::warn!(
                service,
                hook,
                id = delivery.event.id,
                why,
                "a hook could not be reached, its message is a dead letter"
            );
        } else {
            tracing::debug!(
                service,
                hook,
                id = delivery.event.id,
                why,
                result,
                "tried a hook"
            );
        }
        self.note_action(settlement);
        self.note_time(settlement);
    }

    /// How long a program took that has gone a way back. What it was told of other backends took no time.
    fn note_time(&self, settlement: &Settlement) {
        let Settlement::Delivered(delivery) = settlement else {
            return;
        };
        let about = &delivery.event.data;
        let published = self.hooks.controls.published();
        let hooks = published.file(&about.service).map(|file| &file.hooks);
        let hook = hooks.and_then(|hooks| hooks.iter().find(|hook| hook.name == delivery.hook));
        let carried = hook.and_then(|hook| hook.carries_out.as_ref());
        let is_meant = |carried: &&CarriedOut| {
            about.event == HookEvent::Rollback && about.backend.as_ref() == Some(&carried.backend)
        };
        let (Some(carried), Some(last)) = (carried.filter(is_meant), &delivery.last) else {
            return;
        };
        let timing = Timing {
            at: last.at,
            us: last.took_ms.saturating_mul(1_000),
            drill: false,
        };
        let way = Way::of_carried(carried.way);
        self.hooks.store.add_timing(&about.service, way, timing);
    }

    /// The record of a rollback or block names who was told of it.
    fn note_action(&self, settlement: &Settlement) {
        let (delivery, what) = match settlement {
            Settlement::Delivered(delivery) => (delivery, "was told of it"),
            Settlement::Dead(delivery) => (delivery, "could not be told of it"),
            Settlement::Again(_) => return,
        };
        let about = &delivery.event.data;
        let is_recorded = matches!(about.event, HookEvent::Rollback | HookEvent::Block);
        let (Some(id), Some(last)) = (about.revision.filter(|_| is_recorded), &delivery.last)
        else {
            return;
        };
        let action = Action {
            at: last.at,
            what: format!("hook {} {what}: {}", delivery.hook, last.result),
        };
        self.hooks.store.note_action(id, action);
    }

    fn count(&mut self) {
        let queues = self.queues.iter();
        let of_users = queues.filter(|((service, _), _)| !is_shadow(service));
        let waiting = of_users.map(|(_, queue)| queue.len()).sum();
        self.hooks.counts.set_waiting(waiting);
        let lost = self.hooks.store.lost_errands();
        let more = lost - std::mem::replace(&mut self.lost, lost);
        if more > 0 {
            let message =
                format!("hooks do not hear of {more} things that could not be written down");
            self.hooks
                .events
                .emit("hook_message_lost", None, "switchback", message, None);
        }
    }

    /// Until the next attempt is due.
    fn next_due(&self) -> Duration {
        let now = Timestamp::now();
        let idle = self.queues.iter();
        let idle = idle.filter(|(key, _)| !self.busy.values().any(|busy| busy == *key));
        let firsts = idle.filter_map(|(_, queue)| queue.front()?.next);
        let until = |next: Timestamp| next.duration_since(now).try_into().unwrap_or_default();
        firsts.map(until).min().unwrap_or(LOOK).min(LOOK)
    }
}

/// How long to wait before an attempt, counted from 1. Waits are spread, so that hooks that failed
/// together are not tried together. `random`: 0 to 1.
pub(super) fn wait_before(attempt: u32, random: f64) -> Duration {
    let growth = 4_u32.saturating_pow(attempt.saturating_sub(2));
    let whole = HOOK_BACKOFF.saturating_mul(growth).min(HOOK_BACKOFF_MAX);
    whole.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_are_spread() {
        let longest: Vec<u64> = (2..9).map(|n| wait_before(n, 1.0).as_secs()).collect();
        assert_eq!(longest, [1, 4, 16, 64, 256, 900, 900]);
        assert_eq!(wait_before(2, 0.0), Duration::from_millis(500));
        assert_eq!(wait_before(u32::MAX, 1.0), HOOK_BACKOFF_MAX);
    }
}
