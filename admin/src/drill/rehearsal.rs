//! One drill from beginning to end.

use std::path::Path;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use switchback_config::defaults::FENCE_TIME;
use switchback_config::model::{HookAction, HookEvent, Name, Service};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::live::{lendable, move_a_hundredth};
use super::shadow::{self, name_of};
use super::stage::Stage;
use super::walk::Walker;
use super::{Drills, last_drill};
use crate::auth::{Role, new_token};
use crate::builder::find;
use crate::command::{Asked, Command, DrillAct, DrillCommand, Refusal};
use crate::control::Published;
use crate::events::Event;
use crate::state::{Block, DrillCheck, DrillRecord};
use crate::timings::Way;

/// Requests while all is well, and after the rollback.
const CALM: u32 = 60;

/// Requests until the judge must have noticed.
const NOTICED_BY: u32 = 20_000;

/// How long that may take. Rules need their own time beside the judge.
const NOTICED_IN: Duration = Duration::from_secs(60);

/// How long the disk, hooks and events may take.
const TOLD_IN: Duration = Duration::from_secs(10);

/// A drill that could not be ended is ended again after this.
const END_AGAIN: Duration = Duration::from_secs(1);

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(10);

/// Hexadecimal digits of a drill's host that are random.
const SECRET_CHARS: usize = 32;

/// Carries out a drill, and puts what was found on record.
pub(super) async fn run(
    drills: &Drills,
    service: &Name,
    live: bool,
    asked: &Asked,
) -> Result<DrillRecord, Refusal> {
    let began = Instant::now();
    let published = drills.controls.published();
    let Some(file) = published.config.services.get(service) else {
        return Err(Refusal::UnknownService(service.clone()));
    };
    if live {
        lendable(&published, service)?;
    }
    let impossible = |reason: String| Refusal::DrillImpossible { reason };
    let host = secret_host().map_err(&impossible)?;
    let listening = drills.reloader.listening();
    let listeners = listening
        .iter()
        .filter_map(|(name, address)| Some((published.config.listeners.get(name)?, *address)));
    let Some(walker) = Walker::new(listeners, &host) else {
        let reason =
            "every listener asks clients for a certificate; add one on 127.0.0.1 that does not";
        return Err(impossible(reason.into()));
    };
    let stage = Stage::open(host).await;
    let stage = stage.map_err(|error| impossible(format!("open backends: {error}")))?;
    let (stable, canary) = actors(&published, service);
    let command = DrillAct::Begin {
        shadow: Box::new(shadow::shadow(file, &stable, &canary, &stage.set)),
        host: stage.set.host.clone(),
    };
    let coming = drills.events.follow(None).coming;
    ask(drills, service, command, asked).await?;
    let mut play = Play {
        drills,
        service,
        shadow: name_of(service),
        canary,
        stable,
        stage,
        walker,
        checks: Vec::new(),
        rolled_back_in: None,
    };
    play.act(coming, file).await;
    if live && play.checks.iter().all(|check| check.passed) {
        play.lend(asked).await;
    }
    let passed = play.checks.iter().all(|check| check.passed);
    let record = DrillRecord {
        at: drills.controls.published().clock.now(),
        by: asked.by.clone(),
        passed,
        live,
        took_ms: ms(began.elapsed()),
        rolled_back_in_ms: play.rolled_back_in.map(ms),
        checks: play.checks,
    };
    // Of any drill: what one that failed has left is not taken for the next one's.
    let swap = drills.controls.rehearsed.take();
    if let Some(swap) = swap.filter(|_| passed)
        && let Ok(took) = swap.wait(FENCE_TIME).await
    {
        let way = (service.clone(), Way::CanaryToZero);
        drills.controls.timings.note_drill(way, took);
    }
    end(drills, service, &record, asked).await?;
    let published = drills.controls.published();
    Ok(last_drill(&published, service).cloned().unwrap_or(record))
}

/// Takes the shadow away, however long the disk has no room for that.
async fn end(
    drills: &Drills,
    service: &Name,
    record: &DrillRecord,
    asked: &Asked,
) -> Result<(), Refusal> {
    loop {
        match ask(drills, service, DrillAct::End(record.clone()), asked).await {
            Err(refusal @ (Refusal::NotDurable(_) | Refusal::Busy | Refusal::Overtaken)) => {
                tracing::warn!(%refusal, service, "end a drill");
                tokio::time::sleep(END_AGAIN).await;
            }
            ended => return ended,
        }
    }
}

async fn ask(drills: &Drills, service: &Name, act: DrillAct, asked: &Asked) -> Result<(), Refusal> {
    let command = Command::Drill(Box::new(DrillCommand {
        service: service.clone(),
        act,
    }));
    let asked = Asked {
        if_revision: None,
        ..asked.clone()
    };
    match drills.controls.ask(command, asked).await {
        Ok(_) => Ok(()),
        Err(crate::control::AskError::Refused(refusal)) => Err(refusal),
        // In force, and somebody has not said so in time.
        Err(error) => {
            tracing::warn!(%error, service, "a drill");
            Ok(())
        }
    }
}

/// A host that nobody can guess.
fn secret_host() -> Result<String, String> {
    let (secret, _) = new_token("drill", Role::Viewer).map_err(|error| error.to_string())?;
    let secret: String = secret.chars().take(SECRET_CHARS).collect();
    Ok(format!("{secret}.drill.invalid"))
}

/// The names that play stable and canary: those of the service, as far as it has them.
fn actors(published: &Published, service: &str) -> (Name, Name) {
    let effective = published
        .services
        .get(service)
        .map(|status| &status.effective);
    let stable = effective.map_or_else(|| "stable".into(), |e| e.stable.clone());
    let others = effective.into_iter().flat_map(|e| e.backends.keys());
    let other = others.into_iter().find(|name| **name != stable);
    let canary = other.cloned().unwrap_or_else(|| format!("{stable}-canary"));
    (stable, canary)
}

struct Play<'a> {
    drills: &'a Drills,
    service: &'a Name,
    shadow: Name,
    stable: Name,
    canary: Name,
    stage: Stage,
    walker: Walker,
    checks: Vec<DrillCheck>,
    rolled_back_in: Option<Duration>,
}

impl Play<'_> {
    /// Everything on the shadow. What comes after a check that does not hold is not looked at.
    async fn act(&mut self, coming: Receiver<Event>, file: &Service) {
        let began = Instant::now();
        let calm = self.calm().await;
        if !self.note("requests pass", began, calm) {
            return;
        }
        self.stage.inject();
        let began = Instant::now();
        let noticed = self.notice().await;
        if !self.note("the fault is noticed", began, noticed) {
            return;
        }
        let began = Instant::now();
        let closed = self.closed().await;
        if !self.note("nothing reaches the failing version", began, closed) {
            return;
        }
        let began = Instant::now();
        let blocked = self.blocked().await;
        self.note("the version is blocked", began, blocked);
        let began = Instant::now();
        let durable = self.durable().await;
        self.note("the rollback is on disk", began, durable);
        let began = Instant::now();
        let told = self.hooks(file).await;
        self.note("hooks are told (dry)", began, told);
        let began = Instant::now();
        let heard = heard(coming).await;
        self.note("the event is told", began, heard);
    }

    fn note(&mut self, name: &str, began: Instant, found: Result<String, String>) -> bool {
        let passed = found.is_ok();
        self.checks.push(DrillCheck {
            name: name.into(),
            passed,
            took_ms: ms(began.elapsed()),
            finding: found.unwrap_or_else(|why| why),
        });
        passed
    }

    /// Requests while nothing is wrong: both versions answer.
    async fn calm(&mut self) -> Result<String, String> {
        for _ in 0..CALM {
            let status = self.walker.step().await?;
            if !status.is_success() {
                return Err(format!(
                    "a request through the listener was answered {status}"
                ));
            }
        }
        match self.stage.reached() {
            (0, _) | (_, 0) => Err("one of the two versions got no request".into()),
            (stable, canary) => Ok(format!(
                "{CALM} requests through {}: {stable} to stable, {canary} to the canary",
                self.walker.address()
            )),
        }
    }

    /// Requests until the canary has no weight.
    async fn notice(&mut self) -> Result<String, String> {
        let began = Instant::now();
        let mut until = None;
        for _ in 0..NOTICED_BY {
            self.walker.step().await?;
            if self.weight() == Some(0) {
                until = Some(began.elapsed());
                break;
            }
            if began.elapsed() > NOTICED_IN {
                break;
            }
        }
        let (_, canary) = self.stage.reached();
        let Some(took) = until else {
            let seconds = began.elapsed().as_secs();
            return Err(format!(
                "{canary} requests reached a version that fails them all, and after {seconds} s it was not rolled back: look at rollback: of the service"
            ));
        };
        self.rolled_back_in = Some(took);
        let block = self.block();
        let sentence = block.and_then(|block| block.reason).unwrap_or_default();
        Ok(format!("after {} ms: {sentence}", ms(took)))
    }

    /// Requests after that: none of them goes there.
    async fn closed(&mut self) -> Result<String, String> {
        let published = self.drills.controls.published();
        let (_, before) = self.stage.reached();
        for _ in 0..CALM {
            let status = self.walker.step().await?;
            if !status.is_success() {
                return Err(format!(
                    "a request after the rollback was answered {status}"
                ));
            }
        }
        let (_, after) = self.stage.reached();
        let live = find(&published.snapshot, &self.shadow);
        let backends = live.iter().flat_map(|live| &live.backends);
        let mut canary = backends.filter(|backend| *backend.name == *self.canary);
        let begun = canary.next().map(|backend| backend.stats.begun());
        match (after == before, begun) {
            (true, Some(begun)) => Ok(format!(
                "{CALM} more requests, none to it; it had begun {begun}"
            )),
            (true, None) => Err("the shadow is gone".into()),
            (false, _) => Err(format!("{} requests reached it", after - before)),
        }
    }

    /// Somebody who would give it weight again is refused.
    async fn blocked(&self) -> Result<String, String> {
        let weights: IndexMap<Name, u32> =
            [(self.stable.clone(), 50), (self.canary.clone(), 50)].into();
        let command = Command::SetWeights {
            service: self.shadow.clone(),
            weights,
            lease: None,
        };
        let asked = Asked {
            dry_run: true,
            ..Asked::by_itself("drill", None)
        };
        match self.drills.controls.ask(command, asked).await {
            Err(crate::control::AskError::Refused(Refusal::Blocked { version, .. })) => {
                Ok(format!("weight for {version:?} is refused"))
            }
            Err(error) => Err(error.to_string()),
            Ok(_) => Err("it would get weight again".into()),
        }
    }

    /// The disk has it.
    async fn durable(&self) -> Result<String, String> {
        let until = Instant::now() + TOLD_IN;
        loop {
            let last = self.drills.store.audit_entries(1).await;
            let trouble = self.drills.store.trouble();
            match (last, trouble) {
                (Ok(_), None) => return Ok("the store has written everything".into()),
                (Err(error), _) if Instant::now() > until => return Err(error),
                (Ok(_), Some(trouble)) if Instant::now() > until => {
                    return Err(format!("the state cannot be written: {trouble}"));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// What hooks would be told has arrived; the programs that would be run are there.
    async fn hooks(&self, file: &Service) -> Result<String, String> {
        let of_rollback = file
            .hooks
            .iter()
            .filter(|hook| hook.on.contains(&HookEvent::Rollback) && hook.gate.is_none());
        let (mut count, mut programs) = (0, 0);
        for hook in of_rollback {
            count += 1;
            if let Some(HookAction::Run(run)) = &hook.action {
                let program = run.run.first().map_or("", String::as_str);
                if !is_program(program, &self.drills.base) {
                    return Err(format!(
                        "hook {}: there is no program {program:?}",
                        hook.name
                    ));
                }
                programs += 1;
            }
        }
        let until = Instant::now() + TOLD_IN;
        while self.stage.told() < count {
            if Instant::now() > until {
                let told = self.stage.told();
                return Err(format!("{told} of {count} messages have left the outbox"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(match count {
            0 => "no hook is told of rollbacks".into(),
            count => format!("{count} would be told; {programs} programs are there"),
        })
    }

    /// Moves a hundredth of the service's own traffic there and back.
    async fn lend(&mut self, asked: &Asked) {
        let began = Instant::now();
        let moved = move_a_hundredth(self.drills, self.service, asked).await;
        self.note(
            "a hundredth of the traffic is moved and back (live)",
            began,
            moved,
        );
    }

    /// The weight of the canary.
    fn weight(&self) -> Option<u32> {
        let published = self.drills.controls.published();
        let status = published.services.get(&self.shadow)?;
        Some(status.effective.weight(&self.canary))
    }

    fn block(&self) -> Option<Block> {
        let published = self.drills.controls.published();
        let state = published.state.services.get(&self.shadow)?;
        state.blocked.values().next().cloned()
    }
}

/// Whoever follows what happens hears of it.
async fn heard(mut coming: Receiver<Event>) -> Result<String, String> {
    let hear = async {
        loop {
            match coming.recv().await {
                Ok(event) if event.kind == "drill" && event.message.contains("rolled back to") => {
                    return Ok(event.message);
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err("nothing is told any more".to_owned()),
            }
        }
    };
    let heard = tokio::time::timeout(TOLD_IN, hear).await;
    heard.unwrap_or_else(|_| Err("no event told of the rollback".into()))
}

/// Whether there is a program of this name, as hooks would find it.
fn is_program(name: &str, base: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let is_one = |path: &Path| {
        let found = path.metadata();
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return is_one(&base.join(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| is_one(&directory.join(name)))
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
