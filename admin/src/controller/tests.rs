//! Decisions on a service with three versions, without threads or sockets.

mod database;
mod flags;
mod lease;
mod reload;
mod restore;
mod rollout;
mod runbook;

use std::sync::Arc;

use indexmap::IndexMap;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::command::Urgent;
use crate::command::{Cause, Failing};
use crate::testing;

const FILE: &str = r#"
version: 1
listeners: {web: {address: "127.0.0.1:0"}}
routes: [{service: shop}]
services:
  shop:
    stable: blue
    weights: {blue: 80, green: 20, red: 0}
    backends:
      blue: {version: "1", endpoints: ["http://127.0.0.1:1"]}
      green: {version: "2", endpoints: ["http://127.0.0.1:2"]}
      red: {version: "3", endpoints: ["http://127.0.0.1:3"]}
"#;

fn config(text: &str) -> Arc<Config> {
    Arc::new(testing::config(text))
}

/// A world that follows every decision, as the control thread does.
struct Play {
    world: World,
    now: Timestamp,
    unhealthy: Vec<&'static str>,
    /// What is known of every canary.
    standing: Standing,
}

impl Play {
    fn new() -> Self {
        let world = World {
            config: config(FILE),
            state: State::default(),
        };
        Self {
            world,
            now: Timestamp::UNIX_EPOCH,
            unhealthy: Vec::new(),
            standing: Standing {
                requests: 1_000_000,
                ..Standing::default()
            },
        }
    }

    fn act(&mut self, command: Command) -> Result<bool, Refusal> {
        let decision = self.decide(&command)?;
        let changed = decision.changes(&self.world);
        if changed {
            let revision = self.world.state.revision + 1;
            self.world = decision.follow(&self.world, revision);
        }
        Ok(changed)
    }

    fn decide(&mut self, command: &Command) -> Result<Decision, Refusal> {
        self.now += SignedDuration::from_secs(1);
        let health = |_: &str, backend: &str| {
            let works = !self.unhealthy.contains(&backend);
            Health {
                healthy: works,
                known: works,
            }
        };
        let asked = Asked::by_itself("api", None);
        let standing = |_: &str, _: &str| self.standing.clone();
        let outlook = Outlook {
            health: &health,
            standing: &standing,
        };
        apply(&self.world, self.now, outlook, command, &asked)
    }

    fn must(&mut self, command: Command) -> bool {
        self.act(command)
            .unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    fn reload(&mut self, text: &str) {
        self.must(Command::Reload {
            config: config(text),
        });
    }

    fn effective(&self) -> Effective {
        let state = self
            .world
            .state
            .services
            .get("shop")
            .cloned()
            .unwrap_or_default();
        Effective::new(&self.world.config.services["shop"], &state, false)
    }

    fn weights(&self) -> [u32; 3] {
        let effective = self.effective();
        ["blue", "green", "red"].map(|name| effective.weight(name))
    }
}

fn shop() -> Name {
    "shop".into()
}

fn rollback() -> Command {
    Command::Rollback {
        service: shop(),
        force: false,
        cut: false,
    }
}

fn switch(to: &str) -> Command {
    Command::Switch {
        service: shop(),
        to: to.into(),
        force: false,
    }
}

fn weights(table: [u32; 3]) -> Command {
    let names = ["blue", "green", "red"].map(str::to_owned);
    Command::SetWeights {
        service: shop(),
        weights: IndexMap::from_iter(names.into_iter().zip(table)),
        lease: None,
    }
}

fn condemn(backend: &str, version: &str) -> Command {
    Command::Condemn {
        failing: failing(backend, version, "it fails"),
        cause: Cause::Judge,
        force: false,
    }
}

fn reject(backend: &str, version: &str) -> Command {
    Command::Reject {
        failing: failing(backend, version, "of mirrored requests, it fails"),
    }
}

fn failing(backend: &str, version: &str, sentence: &str) -> Failing {
    Failing {
        service: shop(),
        backend: backend.into(),
        version: version.into(),
        sentence: sentence.into(),
    }
}

fn block(backend: &str) -> Command {
    Command::Block {
        service: shop(),
        backend: backend.into(),
        force: false,
    }
}

fn unblock(backend: &str) -> Command {
    Command::Unblock {
        service: shop(),
        backend: backend.into(),
    }
}

#[test]
fn rollback_takes_canaries_first_and_is_a_no_op_the_second_time() {
    let mut play = Play::new();
    assert!(play.must(rollback()));
    assert_eq!(play.weights(), [100, 0, 0]);
    assert!(play.effective().blocked.contains("green"));
    assert!(!play.must(rollback()));
}

#[test]
fn rollback_after_a_switch_goes_back_once_and_never_toggles() {
    let mut play = Play::new();
    play.must(switch("green"));
    let effective = play.effective();
    assert_eq!(
        (effective.stable.as_str(), effective.previous.as_deref()),
        ("green", Some("blue"))
    );
    assert!(effective.trial_at(play.now).is_some());
    assert!(play.must(rollback()));
    let effective = play.effective();
    assert_eq!(
        (effective.stable.as_str(), effective.previous),
        ("blue", None)
    );
    assert_eq!(play.weights(), [100, 0, 0]);
    assert!(!play.must(rollback()));
}

#[test]
fn canary_beside_a_stable_on_trial_is_rolled_back_before_the_stable_is() {
    let mut play = Play::new();
    play.must(switch("green"));
    play.must(weights([10, 70, 20]));
    play.must(rollback());
    assert_eq!(play.weights(), [0, 100, 0], "previous keeps none either");
    assert_eq!(play.effective().stable, "green");
    play.must(rollback());
    assert_eq!(play.weights(), [100, 0, 0]);
}

#[test]
fn judge_takes_only_the_failing_canary() {
    let mut play = Play::new();
    play.must(weights([60, 20, 20]));
    assert!(play.must(condemn("green", "2")));
    assert_eq!(play.weights(), [80, 0, 20]);
    assert!(
        !play.must(condemn("red", "old label")),
        "judged under another label"
    );
    assert!(
        !play.must(condemn("blue", "1")),
        "stable that is not on trial"
    );
}

#[test]
fn judge_blocks_a_mirrored_version_only_while_no_user_meets_it() {
    let mut play = Play::new();
    for (command, why) in [
        (reject("green", "2"), "it has weight"),
        (reject("red", "old label"), "judged under another label"),
        (reject("blue", "1"), "it is stable"),
    ] {
        assert!(!play.must(command), "{why}");
    }
    let before = play.weights();
    assert!(play.must(reject("red", "3")));
    assert!(!play.must(reject("red", "3")), "once is enough");
    assert_eq!(play.weights(), before, "there is nothing to take");
    let block = &play.world.state.services["shop"].blocked["3"];
    let reason = block.reason.as_deref();
    assert_eq!(
        (block.cause.as_str(), reason),
        ("judge", Some("of mirrored requests, it fails"))
    );
    assert!(matches!(
        play.act(weights([80, 10, 10])),
        Err(Refusal::Blocked { .. })
    ));
    let mut play = Play::new();
    play.must(switch("green"));
    assert!(!play.must(reject("blue", "1")), "rollback goes there");
}

#[test]
fn judge_returns_from_a_stable_on_trial_until_the_window_ends() {
    let mut play = Play::new();
    play.must(switch("green"));
    play.now += SignedDuration::from_hours(49);
    assert!(
        !play.must(condemn("green", "2")),
        "the automatic rollback ends with the window"
    );
    assert!(play.must(rollback()), "the manual one does not");
    assert_eq!(play.effective().stable, "blue");
}

#[test]
fn traffic_is_never_taken_from_the_last_backend_that_works() {
    let mut play = Play::new();
    play.unhealthy = vec!["blue"];
    let before = play.weights();
    for command in [
        rollback(),
        condemn("green", "2"),
        block("green"),
        switch("blue"),
    ] {
        assert_eq!(
            play.act(command),
            Err(Refusal::TargetUnhealthy {
                backend: "blue".into()
            })
        );
    }
    assert_eq!(play.weights(), before);
    assert!(play.must(Command::Rollback {
        service: shop(),
        force: true,
        cut: false
    }));
    let mut play = Play::new();
    play.unhealthy = vec!["blue", "green"];
    assert!(
        play.must(rollback()),
        "nothing works: there is nothing to lose"
    );
}

#[test]
fn what_another_process_has_decided_is_carried_out_whatever_is_healthy_here() {
    for command in [rollback(), condemn("green", "2"), block("green")] {
        let mut play = Play::new();
        play.unhealthy = vec!["blue"];
        let carried = Urgent::of(&command).map(Urgent::into_command);
        assert!(play.must(carried.unwrap_or(command)));
        assert_eq!(play.weights(), [100, 0, 0]);
    }
    // So is the return from a stable on trial.
    let mut play = Play::new();
    assert!(play.must(switch("green")));
    play.unhealthy = vec!["blue"];
    let command = condemn("green", "2");
    assert!(play.act(command.clone()).is_err());
    let carried = Urgent::of(&command).map(Urgent::into_command);
    assert!(play.must(carried.unwrap_or(command)));
    assert_eq!(play.effective().stable, "blue");
}

#[test]
fn blocked_version_gets_no_weight_by_any_way() {
    let mut play = Play::new();
    play.must(block("green"));
    assert_eq!(play.weights(), [100, 0, 0]);
    for command in [
        weights([50, 50, 0]),
        Command::Switch {
            service: shop(),
            to: "green".into(),
            force: true,
        },
    ] {
        assert!(matches!(play.act(command), Err(Refusal::Blocked { .. })));
    }
    let again = Command::SetBackend {
        service: shop(),
        backend: "red".into(),
        version: "2".into(),
        endpoints: vec!["http://127.0.0.1:9".parse().expect("endpoint")],
        declared: crate::command::Declared::default(),
        force: true,
    };
    assert!(
        matches!(play.act(again), Err(Refusal::Blocked { .. })),
        "the label is blocked, wherever it runs"
    );
    play.reload(&FILE.replace("blue: 80, green: 20", "blue: 1, green: 99"));
    assert_eq!(play.weights(), [100, 0, 0]);
    assert!(play.must(unblock("green")));
    assert_eq!(play.weights(), [100, 0, 0], "unblock moves no traffic");
    play.must(weights([50, 50, 0]));
}

#[test]
fn file_that_makes_a_blocked_version_stable_is_a_conflict() {
    let mut play = Play::new();
    play.must(block("green"));
    play.reload(&FILE.replace("stable: blue", "stable: green"));
    let effective = play.effective();
    assert_eq!(effective.stable, "blue");
    assert_eq!(effective.conflicts.len(), 1, "{:?}", effective.conflicts);
}

#[test]
fn block_on_stable_is_a_rollback_or_refused() {
    let mut play = Play::new();
    assert!(matches!(
        play.act(block("blue")),
        Err(Refusal::NoTarget { .. })
    ));
    play.must(switch("green"));
    assert!(play.must(block("green")));
    assert_eq!(play.effective().stable, "blue");
}

#[test]
fn version_that_stable_runs_too_is_blocked_by_a_rollback_of_stable_or_not_at_all() {
    let set = |backend: &str, version: &str| Command::SetBackend {
        service: shop(),
        backend: backend.into(),
        version: version.into(),
        endpoints: vec!["http://127.0.0.1:9".parse().expect("endpoint")],
        declared: crate::command::Declared::default(),
        force: false,
    };
    let mut play = Play::new();
    play.must(set("red", "1"));
    let before = play.effective();
    let no_target = Refusal::NoTarget {
        backend: "blue".into(),
    };
    assert_eq!(play.act(block("red")), Err(no_target));
    assert!(!play.must(reject("red", "1")));
    assert_eq!(play.effective(), before);
    play.must(switch("green"));
    play.must(set("red", "2"));
    assert!(play.must(block("red")));
    assert_eq!(play.weights(), [100, 0, 0], "as if stable had been blocked");
    let mut play = Play::new();
    play.must(weights([100, 0, 0]));
    play.must(set("green", "1"));
    play.must(switch("green"));
    assert!(!play.must(rollback()), "to the same version");
    let mut play = Play::new();
    play.must(weights([100, 0, 0]));
    play.must(set("green", "1"));
    play.must(weights([0, 100, 0]));
    assert!(play.must(rollback()), "of a canary that stable runs too");
    assert_eq!(play.weights(), [100, 0, 0]);
}

#[test]
fn override_ends_when_the_file_changes_that_field_only() {
    let mut play = Play::new();
    play.must(weights([50, 50, 0]));
    play.reload(&FILE.replace("routes:", "limits: {keep_alive_timeout: 9s}\nroutes:"));
    assert_eq!(play.weights(), [50, 50, 0]);
    play.reload(&FILE.replace("blue: 80, green: 20", "blue: 70, green: 30"));
    assert_eq!(play.weights(), [70, 30, 0]);
}

#[test]
fn rollback_lapses_when_the_file_brings_another_version() {
    let mut play = Play::new();
    play.must(rollback());
    play.reload(&FILE.replace("version: \"2\"", "version: \"4\""));
    assert_eq!(play.weights(), [80, 20, 0]);
    assert!(play.effective().blocked.is_empty());
}

#[test]
fn file_that_names_another_stable_switches_and_starts_a_trial() {
    let mut play = Play::new();
    play.reload(&FILE.replace("stable: blue", "stable: green"));
    let effective = play.effective();
    assert_eq!(
        (effective.stable.as_str(), effective.previous.as_deref()),
        ("green", Some("blue"))
    );
    assert!(effective.trial_at(play.now).is_some());
}

#[test]
fn new_version_on_the_rollback_target_ends_the_window() {
    let mut play = Play::new();
    play.must(switch("green"));
    let next = Command::SetBackend {
        service: shop(),
        backend: "blue".into(),
        version: "5".into(),
        endpoints: vec!["http://127.0.0.1:9".parse().expect("endpoint")],
        declared: crate::command::Declared::default(),
        force: false,
    };
    assert!(play.must(next));
    let effective = play.effective();
    assert_eq!((effective.previous, effective.on_trial), (None, None));
}

#[test]
fn revision_that_is_not_the_current_one_is_refused_but_not_for_a_rollback() {
    let play = Play::new();
    let health = |_: &str, _: &str| Health {
        healthy: true,
        known: true,
    };
    let asked = Asked {
        if_revision: Some(9),
        ..Asked::by_itself("api", None)
    };
    let outlook = Outlook {
        health: &health,
        standing: &|_, _| Standing::default(),
    };
    let refused = apply(&play.world, play.now, outlook, &weights([1, 1, 1]), &asked);
    assert_eq!(
        refused,
        Err(Refusal::RevisionMismatch {
            expected: 9,
            current: 0
        })
    );
    assert!(apply(&play.world, play.now, outlook, &rollback(), &asked).is_ok());
}

fn commands() -> impl Strategy<Value = Command> {
    let backend = || prop::sample::select(vec!["blue", "green", "red"]);
    prop_oneof![
        (0..3_u32, 0..3_u32, 0..3_u32).prop_map(|(a, b, c)| weights([a, b, c])),
        backend().prop_map(switch),
        backend().prop_map(block),
        backend().prop_map(unblock),
        (backend(), prop::sample::select(vec!["1", "2", "3"])).prop_map(|(b, v)| condemn(b, v)),
        any::<bool>().prop_map(|force| Command::Rollback {
            service: shop(),
            force,
            cut: false
        }),
        prop::sample::select(vec!["stable: blue", "stable: green", "stable: red"]).prop_map(
            |stable| Command::Reload {
                config: config(&FILE.replace("stable: blue", stable))
            }
        ),
    ]
}

proptest! {
    /// Whatever happens, in whatever order: somebody serves, no blocked version does, a rollback is
    /// idempotent, and refusals change nothing.
    #[test]
    fn invariants_hold_after_any_commands(script in prop::collection::vec(commands(), 1..40)) {
        let mut play = Play::new();
        for command in script {
            let before = play.effective();
            if play.act(command).is_err() {
                prop_assert_eq!(&before, &play.effective());
            }
            let after = play.effective();
            prop_assert!(after.weights.values().any(|weight| *weight > 0));
            let all_blocked = after.blocked.len() + 1 == after.backends.len()
                && play.world.state.services.get("shop").is_some_and(|s| s.blocked.contains_key(after.version(&after.stable)));
            for (name, weight) in &after.weights {
                let label = after.version(name);
                let blocked = play.world.state.services.get("shop").is_some_and(|s| s.blocked.contains_key(label));
                prop_assert!(!blocked || *weight == 0 || (all_blocked && *name == after.stable), "{} serves", name);
            }
            prop_assert!(after.previous.as_ref() != Some(&after.stable));
        }
        // Canaries first, then one step back; after that nothing, however often it is pressed.
        let press = || Command::Rollback { service: shop(), force: true, cut: false };
        play.must(press());
        play.must(press());
        let changed = play.must(press());
        prop_assert!(!changed);
    }
}

#[test]
fn stable_changes_only_after_hooks_have_agreed_but_rollback_and_block_ask_nobody() {
    let file = format!("{FILE}    hooks: [{{on: [before_switch], run: [\"true\"]}}]\n");
    let mut play = Play::new();
    play.world.config = config(&file);
    let due = Refusal::BeforeSwitchDue(shop());
    assert_eq!(play.act(switch("red")), Err(due));
    let health = |_: &str, _: &str| Health {
        healthy: true,
        known: true,
    };
    let standing = |_: &str, _: &str| Standing::default();
    for (heard, dry_run) in [(true, false), (false, true)] {
        let asked = Asked {
            heard,
            dry_run,
            ..Asked::by_itself("api", None)
        };
        let outlook = Outlook {
            health: &health,
            standing: &standing,
        };
        let decision = apply(&play.world, play.now, outlook, &switch("red"), &asked);
        assert!(decision.is_ok_and(|decision| decision.changes(&play.world)));
    }
    assert_eq!(play.act(weights([70, 30, 0])), Ok(true));
    assert_eq!(play.act(block("green")), Ok(true));
    let forced = Command::Switch {
        service: shop(),
        to: "red".into(),
        force: true,
    };
    assert_eq!(play.act(forced), Ok(true));
    assert_eq!(play.act(rollback()), Ok(true));
}
