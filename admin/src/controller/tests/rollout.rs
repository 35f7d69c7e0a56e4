//! Rollouts: every way forward, every way out.

use std::time::Duration;

use switchback_config::model::{Bake, Step};
use switchback_config::units::{Percent, TimeSpan};

use super::*;
use crate::command::StartRollout;
use crate::state::{Hold, Holdback, Outcome, Stage, Wait};

fn step(percent: u32, seconds: u64) -> Step {
    Step {
        weight: Percent::from_millionths(percent * 10_000),
        span: Some(TimeSpan(Duration::from_secs(seconds))),
        requests: None,
        approve: false,
    }
}

fn bake() -> Bake {
    Bake {
        holdback: Percent::from_millionths(20_000),
        span: TimeSpan(Duration::from_secs(100)),
    }
}

fn start_with(change: impl FnOnce(&mut StartRollout)) -> Command {
    let mut start = StartRollout {
        service: shop(),
        canary: Some("green".into()),
        steps: Some(vec![step(1, 10), step(50, 10)]),
        bake: Some(Some(bake())),
        ..StartRollout::default()
    };
    change(&mut start);
    Command::StartRollout(Box::new(start))
}

fn start() -> Command {
    start_with(|_| {})
}

fn promote(full: bool) -> Command {
    Command::Promote {
        service: shop(),
        full,
        force: false,
    }
}

fn pause() -> Command {
    Command::Pause { service: shop() }
}

fn resume() -> Command {
    Command::Resume { service: shop() }
}

fn progress() -> Command {
    Command::Progress { service: shop() }
}

/// A service whose canaries have nothing yet.
pub(super) fn quiet() -> Play {
    let mut play = Play::new();
    play.must(weights([100, 0, 0]));
    play
}

impl Play {
    fn rollout(&self) -> RolloutState {
        let state = &self.world.state.services["shop"];
        state.rollout.clone().expect("there was a rollout")
    }

    fn outcome(&self) -> Option<Outcome> {
        self.rollout().ended.map(|ended| ended.outcome)
    }

    fn waits(&self) -> Option<Wait> {
        self.rollout().waits_for(self.now, &self.standing)
    }

    pub(super) fn pass(&mut self, seconds: i64) -> bool {
        self.now += SignedDuration::from_secs(seconds);
        self.must(progress())
    }
}

#[test]
fn rollout_takes_its_steps_bakes_and_makes_the_canary_stable() {
    let mut play = quiet();
    play.must(start());
    assert_eq!(play.weights(), [9_900, 100, 0]);
    assert!(!play.pass(5), "the step is not over");
    assert!(play.pass(5));
    assert_eq!(play.weights(), [5_000, 5_000, 0]);
    assert!(play.pass(10));
    assert_eq!(
        play.weights(),
        [200, 9_800, 0],
        "the holdback is the control group"
    );
    assert_eq!(play.effective().stable, "blue", "roles stay until the end");
    assert!(!play.pass(50));
    assert!(play.pass(50));
    let effective = play.effective();
    assert_eq!(
        (&*effective.stable, effective.previous.as_deref()),
        ("green", Some("blue"))
    );
    assert_eq!(play.weights(), [0, 10_000, 0]);
    assert!(effective.trial_at(play.now).is_some());
    assert_eq!(play.outcome(), Some(Outcome::Promoted));
    assert!(!play.pass(1_000), "it is over");
    play.must(rollback());
    assert_eq!(play.weights(), [10_000, 0, 0], "one swap, no steps");
    assert_eq!(play.effective().stable, "blue");
    assert_eq!(
        play.act(start()),
        Err(Refusal::Blocked {
            backend: "green".into(),
            version: "2".into(),
            since: play.world.state.services["shop"].blocked["2"]
                .at
                .to_string(),
            reason: "by switchback".into(),
        })
    );
}

#[test]
fn silence_and_doubt_advance_nothing() {
    let mut play = quiet();
    play.standing.requests = 19;
    play.must(start());
    assert!(!play.pass(1_000));
    assert_eq!(
        play.waits(),
        Some(Wait::Traffic {
            requests: 19,
            needed: 20
        })
    );
    play.standing.requests = 20;
    play.standing.hold = Some(Hold::canary("it fails more than usual".into()));
    assert!(!play.pass(1));
    assert!(matches!(play.waits(), Some(Wait::Hold { .. })));
    assert!(matches!(
        play.act(promote(false)),
        Err(Refusal::JudgeHolds { .. })
    ));
    play.standing.hold = Some(Hold {
        reason: "stable is the broken one".into(),
        stable_fails: true,
    });
    assert!(!play.pass(1), "that is for a person to decide");
    play.must(promote(false));
    play.must(weights([100, 0, 0]));
    play.must(start());
    play.pass(20);
    play.standing.hold = None;
    play.unhealthy = vec!["green"];
    assert!(!play.pass(1), "nobody is there to take more");
    play.unhealthy.clear();
    assert!(play.pass(1));
    assert_eq!(play.weights(), [5_000, 5_000, 0]);
}

#[test]
fn steps_may_count_requests_and_ask_for_approval() {
    let mut play = quiet();
    let counted = Step {
        span: None,
        requests: Some(500),
        ..step(1, 0)
    };
    let approved = Step {
        span: None,
        approve: true,
        ..step(10, 0)
    };
    play.must(start_with(|start| {
        start.steps = Some(vec![counted, approved]);
        start.bake = Some(None);
    }));
    play.standing.requests = 499;
    assert!(!play.pass(1_000));
    play.standing.requests = 500;
    assert!(play.pass(0));
    assert!(!play.pass(80_000));
    assert_eq!(play.waits(), Some(Wait::Approval));
    play.must(promote(false));
    assert_eq!(play.effective().stable, "green", "there is no bake");
}

#[test]
fn rollback_hits_the_canary_in_every_stage_whoever_asks() {
    let stages: [&dyn Fn(&mut Play); 5] = [
        &|_| {},
        &|play| assert!(play.pass(10)),
        &|play| assert!(play.pass(10) && play.pass(10)),
        &|play| assert!(play.must(pause())),
        &|play| play.standing.hold = Some(Hold::canary("held".into())),
    ];
    for reach in stages {
        for command in [rollback(), condemn("green", "2"), block("green")] {
            let mut play = quiet();
            play.must(start());
            reach(&mut play);
            assert!(play.must(command));
            assert_eq!(play.weights(), [10_000, 0, 0]);
            assert!(play.effective().blocked.contains("green"));
            assert_eq!(play.effective().stable, "blue");
            assert_eq!(play.outcome(), Some(Outcome::RolledBack));
            assert!(!play.pass(1_000), "nothing brings it back");
            assert!(matches!(play.act(start()), Err(Refusal::Blocked { .. })));
        }
    }
}

#[test]
fn paused_rollout_goes_on_where_it_stopped() {
    let mut play = quiet();
    play.must(start());
    play.pass(4);
    play.must(pause());
    assert!(!play.pass(500));
    assert_eq!(play.waits(), Some(Wait::Resume));
    play.must(resume());
    assert!(!play.pass(1), "some seconds of the step are left");
    assert!(play.pass(3));
}

#[test]
fn rollout_that_nobody_advances_expires_and_gives_everything_back() {
    let mut play = quiet();
    play.must(start());
    play.must(pause());
    assert!(!play.pass(24 * 3_600));
    assert!(play.pass(20));
    assert_eq!(play.outcome(), Some(Outcome::Expired));
    assert_eq!(play.weights(), [10_000, 0, 0]);
    assert!(
        play.effective().blocked.is_empty(),
        "it has done nothing wrong"
    );
    play.must(start());
}

#[test]
fn whoever_changes_weights_or_roles_ends_the_rollout() {
    for command in [weights([50, 50, 0]), switch("red"), switch("green")] {
        let mut play = quiet();
        play.must(start());
        play.must(command);
        assert_eq!(play.outcome(), Some(Outcome::Superseded));
        let before = play.weights();
        assert!(!play.pass(1_000));
        assert_eq!(play.weights(), before);
    }
    for (from, to) in [
        ("blue: 80, green: 20", "blue: 70, green: 30"),
        ("version: \"2\"", "version: \"9\""),
        ("stable: blue", "stable: red"),
    ] {
        let mut play = quiet();
        play.must(start());
        play.reload(&FILE.replace(from, to));
        assert_eq!(play.outcome(), Some(Outcome::Superseded), "{to}");
    }
    let mut play = quiet();
    play.must(start());
    play.reload(&FILE.replace("routes:", "limits: {keep_alive_timeout: 9s}\nroutes:"));
    assert_eq!(
        play.outcome(),
        None,
        "other changes of the file do not matter"
    );
}

#[test]
fn second_rollout_is_refused_and_the_same_key_is_no_second_one() {
    let mut play = quiet();
    let with_key = || start_with(|start| start.key = Some("build 7".into()));
    play.must(with_key());
    assert!(!play.must(with_key()));
    assert!(matches!(
        play.act(start()),
        Err(Refusal::RolloutRunning { .. })
    ));
    play.must(rollback());
    assert!(!play.must(with_key()), "its answer is how that went");
    assert_eq!(play.outcome(), Some(Outcome::RolledBack));
}

#[test]
fn same_key_tells_of_a_rollout_that_ended_in_a_promotion() {
    let named = |canary: Option<&str>| {
        let canary = canary.map(str::to_owned);
        start_with(|start| {
            start.key = Some("build 7".into());
            start.canary = canary;
        })
    };
    for canary in [Some("green"), None] {
        let mut play = quiet();
        play.must(named(Some("green")));
        play.must(promote(true));
        assert_eq!(play.effective().stable, "green");
        assert!(
            !play.must(named(canary)),
            "a retried job is no second rollout"
        );
        assert_eq!(play.outcome(), Some(Outcome::Promoted));
        let other = play.act(named(Some("red"))).expect_err("refused");
        assert_eq!(other.code(), "idempotency_key_reused");
    }
}

#[test]
fn only_a_version_that_was_stable_may_skip_the_steps() {
    let fast = |canary: &str| {
        let canary = Some(canary.to_owned());
        start_with(|start| {
            start.canary = canary;
            start.fast = true;
        })
    };
    let mut play = quiet();
    assert_eq!(
        play.act(fast("green")),
        Err(Refusal::NotProven {
            version: "2".into()
        })
    );
    play.must(switch("green"));
    play.must(switch("red"));
    // Blue and green were stable; red is.
    play.must(fast("green"));
    assert_eq!(play.rollout().stage, Stage::Bake);
    assert_eq!(
        play.effective().weight("green") * 50,
        play.effective().weight("red") * 2_450
    );
    play.must(rollback());
    assert!(matches!(
        play.act(fast("green")),
        Err(Refusal::Blocked { .. })
    ));
    play.must(unblock("green"));
    assert_eq!(
        play.act(fast("green")),
        Err(Refusal::NotProven {
            version: "2".into()
        }),
        "it has failed since"
    );
}

#[test]
fn rollout_back_onto_the_rollback_target_ends_its_window() {
    let mut play = quiet();
    play.must(switch("green"));
    play.must(start_with(|start| start.canary = Some("blue".into())));
    assert_eq!(play.effective().previous, None);
    play.must(rollback());
    let effective = play.effective();
    assert_eq!((&*effective.stable, effective.weight("blue")), ("green", 0));
}

#[test]
fn other_canaries_keep_their_share_and_limit_the_steps() {
    let mut play = Play::new();
    play.must(weights([60, 0, 40]));
    play.must(start());
    assert_eq!(play.weights(), [5_900, 100, 4_000]);
    assert!(play.pass(10), "ten percent are left for stable");
    assert_eq!(play.weights(), [1_000, 5_000, 4_000]);
    assert!(play.pass(10), "98 % and 40 % do not fit: it stands");
    assert_eq!(play.weights(), [1_000, 5_000, 4_000]);
    assert!(play.rollout().paused.expect("paused").reason.is_some());
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let mut play = quiet();
    for (change, code) in [
        (
            Box::new(|start: &mut StartRollout| start.canary = Some("blue".into()))
                as Box<dyn FnOnce(&mut StartRollout)>,
            "invalid_rollout",
        ),
        (
            Box::new(|start: &mut StartRollout| start.canary = Some("pink".into())),
            "unknown_backend",
        ),
        (
            Box::new(|start: &mut StartRollout| start.canary = None),
            "invalid_rollout",
        ),
        (
            Box::new(|start: &mut StartRollout| start.steps = Some(vec![step(0, 1)])),
            "invalid_rollout",
        ),
        (
            Box::new(|start: &mut StartRollout| {
                start.steps = Some(vec![]);
                start.bake = Some(None);
            }),
            "invalid_rollout",
        ),
    ] {
        let refused = play.act(start_with(change)).expect_err("refused");
        assert_eq!(refused.code(), code);
    }
    for command in [promote(true), pause(), resume()] {
        assert_eq!(play.act(command), Err(Refusal::NoRollout(shop())));
    }
    assert!(!play.must(progress()));
    play.unhealthy = vec!["green"];
    assert!(matches!(
        play.act(start()),
        Err(Refusal::TargetUnhealthy { .. })
    ));
    play.must(start_with(|start| start.force = true));
}

#[test]
fn rollout_does_not_expire_onto_a_stable_that_does_not_work() {
    let fails = Hold {
        reason: "stable is the broken one".into(),
        stable_fails: true,
    };
    for (unhealthy, hold) in [(vec!["blue"], None), (vec![], Some(fails))] {
        let mut play = quiet();
        play.must(start());
        play.standing.requests = 0;
        play.standing.hold = hold;
        play.unhealthy = unhealthy;
        assert!(play.pass(25 * 3_600));
        assert_eq!(play.weights(), [9_900, 100, 0]);
        assert!(
            play.rollout().paused.is_some(),
            "it stands for somebody to look at"
        );
    }
}

#[test]
fn trial_ends_with_its_window_and_people_may_still_go_back() {
    let mut play = quiet();
    play.must(switch("green"));
    assert!(!play.pass(47 * 3_600));
    assert!(play.pass(2 * 3_600));
    assert_eq!(play.effective().on_trial, None);
    assert!(!play.pass(1));
    assert!(!play.must(condemn("green", "2")));
    assert!(play.must(rollback()));
    assert_eq!(play.effective().stable, "blue");
}

#[test]
fn key_of_another_rollout_is_refused() {
    let mut play = quiet();
    play.must(start_with(|start| start.key = Some("7".into())));
    let other = start_with(|start| {
        start.key = Some("7".into());
        start.canary = Some("red".into());
    });
    let refused = play.act(other).expect_err("refused");
    assert_eq!(refused.code(), "idempotency_key_reused");
}

fn any_command() -> impl Strategy<Value = (Command, u32, bool, bool)> {
    let backend = || prop::sample::select(vec!["green", "red", "blue"]);
    let command = prop_oneof![
        4 => Just(progress()),
        3 => (backend(), any::<bool>(), any::<bool>()).prop_map(|(canary, fast, baked)| {
            start_with(|start| {
                start.canary = Some(canary.into());
                start.fast = fast;
                start.bake = Some(baked.then(bake));
            })
        }),
        1 => Just(pause()),
        1 => Just(resume()),
        2 => any::<bool>().prop_map(promote),
        4 => commands(),
    ];
    (command, 0..40_u32, any::<bool>(), prop::bool::weighted(0.1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// From every state that any interleaving reaches, each kind of rollback of the canary ends with
    /// its weight at 0, its version blocked, and the rollout over; and nothing brings it back.
    #[test]
    fn rollback_always_ends_with_weight_zero_and_the_version_blocked(
        script in prop::collection::vec(any_command(), 1..40),
        which in 0..3_usize,
        after in prop::collection::vec(any_command(), 0..10),
    ) {
        let mut play = Play::new();
        let mut changes = 0;
        for (command, seconds, holds, dead) in script {
            play.now += SignedDuration::from_secs(seconds.into());
            play.standing.hold = holds.then(|| Hold::canary("held".to_owned()));
            play.unhealthy = if dead { vec!["green"] } else { Vec::new() };
            changes += u32::from(play.act(command).unwrap_or(false));
        }
        play.unhealthy.clear();
        let effective = play.effective();
        let Some(rollout) = play.world.state.services.get("shop").and_then(|s| s.rollout.clone()) else {
            return Ok(());
        };
        // Invariant of every state: a running rollout's canary has weight, and is not stable.
        if !rollout.is_running() {
            return Ok(());
        }
        prop_assert!(changes > 0);
        prop_assert!(effective.weight(&rollout.canary) > 0, "{:?}", rollout);
        prop_assert_ne!(&effective.stable, &rollout.canary);
        prop_assert_eq!(effective.version(&rollout.canary), &*rollout.version);
        let stable = effective.stable.clone();
        let command = [
            Command::Rollback { service: shop(), force: false, cut: false },
            condemn(&rollout.canary, &rollout.version),
            block(&rollout.canary),
        ][which].clone();
        prop_assert!(play.must(command));
        let effective = play.effective();
        prop_assert_eq!(effective.weight(&rollout.canary), 0);
        prop_assert!(effective.blocked.contains(&rollout.canary));
        prop_assert_eq!(&effective.stable, &stable);
        prop_assert_eq!(play.outcome(), Some(Outcome::RolledBack));
        for (command, seconds, _, _) in after {
            play.now += SignedDuration::from_secs(seconds.into());
            if !matches!(&command, Command::Unblock { .. }) {
                let _ = play.act(command);
                prop_assert_eq!(play.effective().weight(&rollout.canary), 0);
            }
        }
    }
}

#[test]
fn version_compatibility_is_proven_by_the_version_held_back() {
    let mut play = quiet();
    play.must(start());
    let held = |play: &Play| {
        let stable = play.effective().stable;
        let held = play.rollout().held_back(&stable, "1", &play.standing);
        held.map(|held| held.works)
    };
    assert_eq!(held(&play), None, "nothing is held back yet");
    play.pass(10);
    play.pass(10);
    for (requests, works) in [(0, None), (19, None), (20, Some(true))] {
        play.standing.stable_requests = requests;
        assert_eq!(held(&play), Some(works), "{requests}");
    }
    play.standing.hold = Some(Hold {
        reason: "stable is the broken one".into(),
        stable_fails: true,
    });
    assert_eq!(held(&play), Some(Some(false)));
    assert!(!play.pass(100), "nothing goes on meanwhile");
    play.standing.hold = None;
    (play.standing.stable_requests, play.standing.stable_failures) = (500, 1);
    assert!(play.pass(1));
    let proof = Holdback {
        backend: "blue".into(),
        version: "1".into(),
        requests: 500,
        failures: 1,
        works: Some(true),
    };
    assert_eq!(play.rollout().holdback, Some(proof));
}
