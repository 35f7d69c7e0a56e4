//! Bringing back earlier states: what comes back, what does not, and what is said about it.

use std::collections::BTreeMap;

use super::*;
use crate::history::Settled;

impl Play {
    fn settled(&self) -> Settled {
        Settled::from(&self.effective())
    }

    fn set_backend(&mut self, backend: &str, version: &str, port: u16) {
        self.must(Command::SetBackend {
            service: shop(),
            backend: backend.into(),
            version: version.into(),
            endpoints: vec![
                format!("http://127.0.0.1:{port}")
                    .parse()
                    .expect("endpoint"),
            ],
            declared: crate::command::Declared::default(),
            force: true,
        });
    }

    fn restore(&mut self, settled: &Settled, force: bool) -> Result<Vec<Note>, Refusal> {
        let command = Command::Restore {
            revision: 7,
            services: BTreeMap::from([(shop(), settled.clone())]),
            flags: BTreeMap::new(),
            force,
        };
        let decision = self.decide(&command)?;
        self.world = decision.follow(&self.world, self.world.state.revision + 1);
        Ok(decision.notes)
    }

    fn must_restore(&mut self, settled: &Settled) -> Vec<(&'static str, String)> {
        let notes = self.restore(settled, false);
        let notes = notes.unwrap_or_else(|refusal| panic!("{refusal}"));
        notes
            .into_iter()
            .map(|note| (note.kind, note.message))
            .collect()
    }
}

fn kinds(notes: &[(&'static str, String)]) -> Vec<&'static str> {
    notes.iter().map(|(kind, _)| *kind).collect()
}

#[test]
fn weights_and_roles_come_back_and_what_was_stable_is_the_rollback_target() {
    let mut play = Play::new();
    let then = play.settled();
    play.must(switch("green"));
    play.must(weights([0, 60, 40]));
    assert_eq!(kinds(&play.must_restore(&then)), ["restored"]);
    assert_eq!(play.weights(), [80, 20, 0]);
    let effective = play.effective();
    assert_eq!(
        (&*effective.stable, effective.previous.as_deref()),
        ("blue", Some("green"))
    );
    assert!(effective.trial_at(play.now).is_some());
    assert!(
        play.must_restore(&then).is_empty(),
        "the second time nothing changes"
    );
}

#[test]
fn share_of_a_version_that_was_blocked_since_goes_to_stable() {
    let mut play = Play::new();
    play.must(weights([50, 20, 30]));
    let then = play.settled();
    play.must(block("green"));
    play.must(weights([100, 0, 0]));
    let notes = play.must_restore(&then);
    assert_eq!(kinds(&notes), ["conflict", "restored"]);
    assert!(
        notes[0].1.starts_with(
            "green had weight 20 then, but its version \"2\" is blocked by switchback since"
        ),
        "{notes:?}"
    );
    assert!(notes[0].1.ends_with("blue gets it"), "{notes:?}");
    assert_eq!(play.weights(), [70, 0, 30]);
    assert!(
        play.effective().blocked.contains("green"),
        "no block is lifted"
    );
}

#[test]
fn blocked_stable_does_not_come_back() {
    let mut play = Play::new();
    play.must(switch("green"));
    let then = play.settled();
    play.must(rollback());
    let notes = play.must_restore(&then);
    assert_eq!(
        kinds(&notes),
        ["conflict"],
        "nothing is left to restore: {notes:?}"
    );
    assert!(
        notes[0]
            .1
            .starts_with("green was stable then, but its version \"2\" is blocked"),
        "{notes:?}"
    );
    assert_eq!(play.weights(), [100, 0, 0]);
    assert_eq!(play.effective().stable, "blue");
}

#[test]
fn version_that_is_blocked_is_not_registered_again() {
    let mut play = Play::new();
    play.must(weights([50, 50, 0]));
    let then = play.settled();
    play.must(condemn("green", "2"));
    play.set_backend("green", "9", 9);
    play.must_restore(&then);
    assert_eq!(play.effective().version("green"), "9");
    assert_eq!(
        play.weights(),
        [100, 0, 0],
        "the share was the old version's"
    );
}

#[test]
fn backends_come_back_and_what_the_file_says_is_no_override() {
    let mut play = Play::new();
    let original = play.settled();
    play.set_backend("red", "7", 7);
    let then = play.settled();
    play.set_backend("red", "8", 8);
    play.must_restore(&then);
    assert_eq!(play.effective().version("red"), "7");
    play.must_restore(&original);
    assert_eq!(play.effective().version("red"), "3");
    assert!(play.world.state.services["shop"].backends.is_empty());
}

#[test]
fn backend_that_is_not_configured_any_more_leaves_its_share_to_stable() {
    let mut play = Play::new();
    play.must(weights([40, 10, 50]));
    let then = play.settled();
    let without = FILE.replace(", red: 0", "").replace(
        "      red: {version: \"3\", endpoints: [\"http://127.0.0.1:3\"]}\n",
        "",
    );
    play.reload(&without);
    let notes = play.must_restore(&then);
    assert_eq!(kinds(&notes), ["conflict", "restored"]);
    assert_eq!(play.weights(), [90, 10, 0]);
}

#[test]
fn endpoints_that_may_not_be_set_any_more_are_refused() {
    let mut play = Play::new();
    play.set_backend("red", "7", 7);
    let then = play.settled();
    play.set_backend("red", "8", 8);
    let narrow = "admin: {endpoint_allow: [10.0.0.0/8]}\nroutes:";
    play.reload(&FILE.replace("routes:", narrow));
    let refused = play.restore(&then, true);
    assert!(
        matches!(refused, Err(Refusal::EndpointRefused { .. })),
        "{refused:?}"
    );
    assert_eq!(play.effective().version("red"), "8");
}

#[test]
fn stable_without_a_healthy_endpoint_is_restored_by_force_only() {
    let mut play = Play::new();
    let then = play.settled();
    play.must(switch("green"));
    play.unhealthy = vec!["blue"];
    let refused = Err(Refusal::TargetUnhealthy {
        backend: "blue".into(),
    });
    assert_eq!(play.restore(&then, false), refused);
    assert_eq!(play.effective().stable, "green");
    assert!(play.restore(&then, true).is_ok());
    assert_eq!(play.effective().stable, "blue");
}

/// Green has half of the traffic as version 2 on port 2; now it has none, and is something else.
fn after_a_deployment(version: &str, port: u16) -> (Play, Settled) {
    let mut play = Play::new();
    play.must(weights([50, 50, 0]));
    let then = play.settled();
    play.must(weights([100, 0, 0]));
    play.set_backend("green", version, port);
    (play, then)
}

#[test]
fn nobody_is_sent_to_endpoints_of_which_nothing_is_known_but_by_force() {
    for (version, port) in [("9", 9), ("2", 9), ("9", 2)] {
        let (mut play, then) = after_a_deployment(version, port);
        let before = play.world.state.clone();
        let refused = play.restore(&then, false).expect_err("nothing is known");
        let expected = Refusal::TargetUnknown {
            backend: "green".into(),
            version: "2".into(),
        };
        assert_eq!(refused, expected);
        assert_eq!(
            (refused.code(), refused.status()),
            ("target_unhealthy", 409)
        );
        assert!(refused.to_string().contains("switchback backend set"));
        assert_eq!(play.world.state, before);
        assert!(play.restore(&then, true).is_ok());
        assert_eq!(play.weights(), [50, 50, 0]);
        assert_eq!(play.effective().version("green"), "2");
    }
}

#[test]
fn endpoints_that_were_registered_and_probed_before_may_be_restored() {
    let (mut play, then) = after_a_deployment("9", 9);
    play.set_backend("green", "2", 2);
    play.unhealthy = vec!["green"];
    let refused = Err(Refusal::TargetUnhealthy {
        backend: "green".into(),
    });
    assert_eq!(play.restore(&then, false), refused);
    play.unhealthy.clear();
    assert_eq!(kinds(&play.must_restore(&then)), ["restored"]);
    assert_eq!(play.weights(), [50, 50, 0]);
}

#[test]
fn backend_without_weight_needs_no_health_to_be_restored() {
    let (mut play, _) = after_a_deployment("9", 9);
    let then = play.settled();
    play.set_backend("green", "10", 10);
    play.must_restore(&then);
    assert_eq!(play.effective().version("green"), "9");
}

#[test]
fn stable_and_weights_come_back_only_after_hooks_have_agreed() {
    let file = format!("{FILE}    hooks: [{{on: [before_switch], run: [\"true\"]}}]\n");
    let mut play = Play::new();
    play.world.config = config(&file);
    play.set_backend("red", "7", 7);
    let then = play.settled();
    play.set_backend("red", "8", 8);
    assert!(play.restore(&then, false).is_ok(), "nobody meets red");
    play.must(weights([50, 50, 0]));
    let due = Err(Refusal::BeforeSwitchDue(shop()));
    assert_eq!(play.restore(&then, false), due);
    assert!(play.restore(&then, true).is_ok());
}

#[test]
fn restore_of_several_services_is_all_or_nothing() {
    let (head, service) = FILE.split_once("  shop:").expect("a service");
    let mut play = Play::new();
    play.reload(&format!("{head}  shop:{service}  site:{service}"));
    let then = play.settled();
    play.must(weights([50, 50, 0]));
    play.must(switch("green"));
    play.unhealthy = vec!["blue"];
    let before = play.world.state.clone();
    let mut services = BTreeMap::from([("site".to_owned(), then.clone()), (shop(), then)]);
    services.insert("gone".to_owned(), services["shop"].clone());
    let mut restore = |force| {
        let services = services.clone();
        let command = Command::Restore {
            revision: 1,
            services,
            flags: BTreeMap::new(),
            force,
        };
        play.decide(&command)
    };
    assert!(restore(false).is_err());
    let decision = restore(true).expect("forced");
    assert!(
        decision
            .notes
            .iter()
            .any(|note| note.kind == "not_restored")
    );
    assert_eq!(decision.services.len(), 1, "site has not changed");
    assert_eq!(play.world.state, before);
}

#[test]
fn restore_ends_a_rollout_and_the_hold_of_a_rollback_on_the_weights() {
    let mut play = Play::new();
    play.must(weights([100, 0, 0]));
    let then = play.settled();
    play.must(weights([50, 50, 0]));
    play.must(condemn("green", "2"));
    assert!(!play.world.state.services["shop"].rolled_back.is_empty());
    play.must(weights([90, 0, 10]));
    play.must(Command::StartRollout(Box::new(
        crate::command::StartRollout {
            service: shop(),
            canary: Some("red".into()),
            ..Default::default()
        },
    )));
    let notes = play.must_restore(&then);
    assert_eq!(kinds(&notes), ["rollout_ended", "restored"]);
    assert_eq!(play.weights(), [100, 0, 0]);
    let state = &play.world.state.services["shop"];
    assert!(state.rolled_back.is_empty() && state.blocked.contains_key("2"));
}

proptest! {
    /// Whatever happened since: what comes back is what was, but for what is blocked.
    #[test]
    fn restored_state_is_the_earlier_one_but_for_blocks(
        before in prop::collection::vec(commands(), 0..12),
        since in prop::collection::vec(commands(), 0..12),
    ) {
        let mut play = Play::new();
        for command in before {
            let _ = play.act(command);
        }
        let then = play.settled();
        for command in since {
            let _ = play.act(command);
        }
        let blocked_before = play.world.state.services.get("shop").map(|s| s.blocked.clone()).unwrap_or_default();
        let notes = play.restore(&then, true).expect("forced");
        let conflicts = notes.iter().filter(|note| note.kind == "conflict").count();
        let after = play.effective();
        let blocked = play.world.state.services.get("shop").map(|s| s.blocked.clone()).unwrap_or_default();
        prop_assert_eq!(&blocked_before, &blocked);
        if conflicts == 0 {
            prop_assert_eq!(&after.weights, &then.weights);
            prop_assert_eq!(&after.stable, &then.stable);
            prop_assert_eq!(&after.backends, &then.backends);
        }
        let sum = |settled: &IndexMap<Name, u32>| settled.values().sum::<u32>();
        prop_assert_eq!(sum(&after.weights), sum(&then.weights), "no share is lost");
        for (name, weight) in &after.weights {
            prop_assert!(*weight == 0 || *name == after.stable || !blocked.contains_key(after.version(name)));
        }
    }
}
