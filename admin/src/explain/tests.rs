//! What is said in each state: the texts are in `cases`, one file for each, written anew with
//! `UPDATE_EXPECT=1`. Read them as somebody on call would.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use jiff::{SignedDuration, Timestamp};
use switchback_config::model::{Config, Name};

use super::facts::{Judged, Seen, condemn, follow, press};
use super::*;
use crate::command::{Asked, Cause, Command, Failing, Refusal, StartRollout};
use crate::controller::{Health, Outlook, World, apply};
use crate::effective::Effective;
use crate::state::{Hold, ServiceState, Standing, State};
use crate::testing;

const FILE: &str = r#"
version: 1
listeners: {web: {address: "127.0.0.1:0"}}
routes: [{service: shop}]
services:
  shop:
    stable: blue
    weights: {blue: 100, green: 0}
    backends:
      blue: {version: "41", endpoints: ["http://127.0.0.1:1"]}
      green: {version: "42", endpoints: ["http://127.0.0.1:2"]}
    rollout:
      steps: [{weight: 1%, for: 5m}, {weight: 10%, requests: 500}, {weight: 50%, for: 10m, approve: true}]
      bake: {holdback: 2%, for: 30m}
"#;

fn config(text: &str) -> Arc<Config> {
    Arc::new(testing::config(text))
}

/// A service through which somebody leads us.
struct Play {
    world: World,
    now: Timestamp,
    by: &'static str,
    reason: Option<&'static str>,
    standing: Standing,
    down: Vec<&'static str>,
}

impl Play {
    fn new(text: &str) -> Self {
        Self {
            world: World {
                config: config(text),
                state: State::default(),
            },
            now: "2026-01-01T12:00:00Z".parse().expect("a time"),
            by: "ann",
            reason: None,
            standing: Standing {
                requests: 1_000,
                ..Standing::default()
            },
            down: Vec::new(),
        }
    }

    fn outlook<T>(&self, with: impl FnOnce(Outlook<'_>) -> T) -> T {
        let health = |_: &str, backend: &str| {
            let works = !self.down.contains(&backend);
            Health {
                healthy: works,
                known: works,
            }
        };
        let standing = |_: &str, _: &str| self.standing.clone();
        with(Outlook {
            health: &health,
            standing: &standing,
        })
    }

    fn act(&mut self, command: Command) -> &mut Self {
        let asked = Asked {
            by: self.by.into(),
            reason: self.reason.map(Into::into),
            ..Asked::by_itself("api", None)
        };
        let decision =
            self.outlook(|outlook| apply(&self.world, self.now, outlook, &command, &asked));
        let decision = decision.unwrap_or_else(|refusal| panic!("{refusal}"));
        self.world = decision.follow(&self.world, self.world.state.revision + 1);
        self
    }

    fn later(&mut self, minutes: i64) -> &mut Self {
        self.now += SignedDuration::from_mins(minutes);
        self
    }

    fn weights(&mut self, blue: u32, green: u32) -> &mut Self {
        self.act(Command::SetWeights {
            service: shop(),
            weights: IndexMap::from([("blue".into(), blue), ("green".into(), green)]),
            lease: None,
        })
    }

    fn condemn(&mut self) -> &mut Self {
        (self.by, self.reason) = ("judge", Some("canary failed 3 of 9"));
        self.act(Command::Condemn {
            failing: Failing {
                service: shop(),
                backend: "green".into(),
                version: "42".into(),
                sentence: "canary failed 3 of 9".into(),
            },
            cause: Cause::Judge,
            force: false,
        })
    }

    fn rollout(&mut self) -> &mut Self {
        self.by = "ci";
        self.act(Command::StartRollout(Box::new(StartRollout {
            service: shop(),
            ..StartRollout::default()
        })))
    }

    fn promote(&mut self) -> &mut Self {
        self.act(Command::Promote {
            service: shop(),
            full: false,
            force: false,
        })
    }

    fn reload(&mut self, from: &str, to: &str) -> &mut Self {
        assert!(FILE.contains(from), "{from}");
        self.act(Command::Reload {
            config: config(&FILE.replace(from, to)),
        })
    }

    fn explain(&self) -> Explanation {
        let service = shop();
        let file = &self.world.config.services["shop"];
        let unrecorded = ServiceState::default();
        let state = self.world.state.services.get("shop").unwrap_or(&unrecorded);
        let stable_only = self.world.state.stable_only;
        let effective = Effective::new(file, state, stable_only);
        let seen = effective.backends.keys().map(|name| {
            let down = self.down.contains(&name.as_str());
            let seen = Seen {
                usable: !down,
                all_down: down,
            };
            (name.clone(), seen)
        });
        let judges = effective.backends.keys().map(|name| {
            let verdict = condemn(&service, name, effective.version(name));
            let refused =
                self.outlook(|outlook| follow(&self.world, &service, outlook, self.now, &verdict));
            let judged = Judged {
                evidence: 0.125,
                reading: None,
                requests: self.standing.requests,
                refused: refused.err(),
            };
            (name.clone(), judged)
        });
        let facts = Facts {
            service: &service,
            revision: self.world.state.revision,
            at: self.now,
            file,
            state,
            effective: &effective,
            stable_only,
            seen: seen.collect(),
            judges: judges.collect::<BTreeMap<_, _>>(),
            standing: self.standing.clone(),
            button: self.outlook(|outlook| press(&self.world, &service, outlook, self.now)),
        };
        explain(&facts)
    }
}

fn shop() -> Name {
    "shop".into()
}

fn block() -> Command {
    Command::Block {
        service: shop(),
        backend: "green".into(),
        force: false,
    }
}

fn text(explanation: &Explanation) -> String {
    let mut text = explanation.now.join("\n");
    for (head, sentences) in [("why", &explanation.why), ("next", &explanation.next)] {
        let _ = write!(text, "\n\n{head}:\n{}", sentences.join("\n"));
    }
    text.push_str("\n\nyou can:\n");
    for Advice { command, does } in &explanation.commands {
        let _ = writeln!(text, "{command}\n    {does}");
    }
    text
}

/// Compares what is said with what is kept.
#[track_caller]
fn assert_says(case: &str, play: &Play) {
    let path = format!(
        "{}/src/explain/cases/{case}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    let (path, said) = (Path::new(&path), text(&play.explain()));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &said).expect("written");
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(said, expected, "{case}");
}

#[test]
fn untouched_service_and_weights_of_the_file() {
    assert_says("untouched", &Play::new(FILE));
    let canary = FILE.replace("blue: 100, green: 0", "blue: 95, green: 5");
    assert_says("canary_of_the_file", &Play::new(&canary));
    let keyed = canary.replace(
        "    rollout:",
        "    affinity: {cookie: sb_user}\n    preview: {header: x-backend, from: [127.0.0.0/8]}\n    rollout:",
    );
    assert_says("affinity_and_preview", &Play::new(&keyed));
}

#[test]
fn weights_somebody_set_for_good_or_for_a_while() {
    let mut play = Play::new(FILE);
    play.reason = Some("try 42");
    play.weights(95, 5).later(12);
    assert_says("weights_set", &play);
    let lease = "10m".parse().expect("a time");
    play.act(Command::SetWeights {
        service: shop(),
        weights: IndexMap::from([("blue".into(), 70), ("green".into(), 30)]),
        lease: Some(lease),
    });
    assert_says("weights_leased", play.later(3));
}

#[test]
fn switch_and_its_trial() {
    let mut play = Play::new(FILE);
    play.act(Command::Switch {
        service: shop(),
        to: "green".into(),
        force: false,
    });
    assert_says("switched", play.later(10));
    assert_says("switched_without_control_group_for_long", play.later(60));
    play.later(60 * 48);
    assert_says("trial_is_over", &play);
}

#[test]
fn rollback_and_what_is_blocked() {
    let mut play = Play::new(FILE);
    play.weights(50, 50).later(5).condemn().later(3);
    assert_says("rolled_back", &play);
    play.reload("blue: 100, green: 0", "blue: 40, green: 60");
    assert_says("file_gives_a_blocked_version_weight", play.later(1));
    play.reload("stable: blue", "stable: green");
    assert_says("file_makes_a_blocked_version_stable", play.later(1));
}

#[test]
fn block_by_hand_and_another_version_set_over_the_api() {
    let mut play = Play::new(FILE);
    play.reason = Some("leaks memory");
    play.act(block()).later(90);
    assert_says("blocked", &play);
    play.reason = None;
    play.act(Command::SetBackend {
        service: shop(),
        backend: "green".into(),
        version: "43".into(),
        endpoints: vec!["http://127.0.0.1:3".parse().expect("endpoint")],
        declared: crate::command::Declared::default(),
        force: false,
    });
    assert_says("backend_set", play.later(2));
}

#[test]
fn rollout_in_each_kind_of_wait() {
    let mut play = Play::new(FILE);
    play.rollout().later(2);
    assert_says("rollout_waits_for_time", &play);
    play.promote().later(1);
    play.standing.requests = 12;
    assert_says("rollout_waits_for_traffic", &play);
    play.standing = Standing {
        requests: 12,
        hold: Some(Hold::canary("too little traffic for a judgement".into())),
        ..Standing::default()
    };
    assert_says("rollout_holds", &play);
    play.standing = Standing {
        requests: 600,
        ..Standing::default()
    };
    play.promote().later(11);
    assert_says("rollout_waits_for_approval", &play);
    (play.by, play.reason) = ("ann", Some("lunch"));
    play.act(Command::Pause { service: shop() });
    assert_says("rollout_is_paused", play.later(4));
    play.act(Command::Resume { service: shop() });
    play.promote();
    assert_says("rollout_bakes", play.later(1));
    play.promote();
    assert_says("rollout_promoted", play.later(5));
}

#[test]
fn rollout_that_was_rolled_back() {
    let mut play = Play::new(FILE);
    play.rollout().later(2).condemn();
    assert_says("rollout_rolled_back", play.later(30));
}

#[test]
fn backends_without_an_endpoint_that_works() {
    let canary = FILE.replace("blue: 100, green: 0", "blue: 95, green: 5");
    let mut play = Play::new(&canary);
    play.down = vec!["green"];
    assert_says("canary_is_down", &play);
    play.down = vec!["blue"];
    assert_says("stable_is_down", &play);
    play.down = vec!["blue", "green"];
    assert_says("everything_is_down", &play);
    let mut play =
        Play::new(&canary.replace("    rollout:", "    spill_to_canary: true\n    rollout:"));
    play.down = vec!["blue"];
    assert_says("stable_is_down_and_spills", &play);
    let mut play = Play::new(FILE);
    play.down = vec!["blue"];
    assert_says("only_stable_has_weight_and_is_down", &play);
}

#[test]
fn failures_that_do_not_roll_back() {
    let canary = FILE.replace("blue: 100, green: 0", "blue: 95, green: 5");
    let hold = canary.replace(
        "    rollout:",
        "    rollback: {on_failure: hold}\n    rollout:",
    );
    assert_says("failure_holds", &Play::new(&hold));
    let mut play = Play::new(FILE);
    play.weights(0, 100);
    assert_says("no_control_group", play.later(5));
}

#[test]
fn state_that_was_lost() {
    let mut play = Play::new(&FILE.replace("blue: 100, green: 0", "blue: 95, green: 5"));
    play.world.state.stable_only = true;
    assert_says("state_lost", &play);
}

/// What the first command is said to do is what it does.
#[test]
fn red_button_does_what_is_said() {
    let mut play = Play::new(FILE);
    play.weights(50, 50);
    let said = play.explain().commands[0].clone();
    assert_eq!(said.command, "switchback rollback shop");
    assert_eq!(
        said.does,
        "leaves all traffic on blue, and blocks version 42 of green"
    );
    play.down = vec!["blue"];
    let said = &play.explain().commands[0].does;
    let refusal = Refusal::TargetUnhealthy {
        backend: "blue".into(),
    };
    assert_eq!(*said, format!("is refused now: {refusal}"));
}
