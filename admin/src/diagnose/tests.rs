//! What is recommended first in each kind of trouble.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use jiff::SignedDuration;

use super::*;
use crate::command::{Asked, Command, Refusal};
use crate::controller::{Health, Outlook, World, apply};
use crate::effective::Effective;
use crate::evidence::{Summary, tests::record};
use crate::explain::{Facts, follow, press};
use crate::history::{Change, FlagTurn};
use crate::methods::Measured;
use crate::state::{FlagState, RunbookRun, ServiceState, Standing, State};
use crate::testing;
use crate::timings::Timing;
use crate::trend::{Point, Stretch};

const FILE: &str = r#"
version: 1
listeners: {web: {address: "127.0.0.1:0"}}
routes: [{service: shop}]
services:
  shop:
    stable: blue
    weights: {blue: 100, green: 0}
    backends:
      blue: {version: "41", endpoints: ["http://127.0.0.1:1"], schema: {reads: [3, 4], writes: 3}}
      green: {version: "42", endpoints: ["http://127.0.0.1:2"], schema: {reads: [4, 5], writes: 4}}
"#;

struct Play {
    world: World,
    now: Timestamp,
    changes: Vec<Changed>,
    erring: Vec<(&'static str, i64)>,
    measured: Measured,
    flags_on: Vec<Name>,
}

fn shop() -> Name {
    "shop".into()
}

fn turn() -> FlagTurn {
    FlagTurn {
        before: FlagState::default(),
        after: FlagState::default(),
        in_force_before: None,
        in_force_after: None,
    }
}

fn schema(version: u32) -> Command {
    Command::Database {
        service: shop(),
        change: crate::command::DatabaseChange::Schema(version),
    }
}

impl Play {
    /// The database is at a version, and a backend becomes stable.
    fn switch_beside_schema(&mut self, version: u32, to: &str) {
        self.act(schema(version)).act(Command::Switch {
            service: shop(),
            to: to.into(),
            force: false,
        });
    }

    fn new() -> Self {
        Self {
            world: World {
                config: Arc::new(testing::config(FILE)),
                state: State::default(),
            },
            now: "2026-01-01T12:00:00Z".parse().expect("a time"),
            changes: Vec::new(),
            erring: Vec::new(),
            measured: Measured::default(),
            flags_on: Vec::new(),
        }
    }

    fn outlook() -> Outlook<'static> {
        Outlook {
            health: &|_, _| Health {
                healthy: true,
                known: true,
            },
            standing: &|_, _| Standing::default(),
        }
    }

    fn act(&mut self, command: Command) -> &mut Self {
        let asked = Asked::by_itself("api", None);
        let decision = apply(&self.world, self.now, Self::outlook(), &command, &asked);
        let decision = decision.unwrap_or_else(|refusal: Refusal| panic!("{refusal}"));
        self.world = decision.follow(&self.world, self.world.state.revision + 1);
        self
    }

    /// A change that was recorded so many minutes ago.
    fn changed(&mut self, action: &str, minutes: i64, flags: &[&str]) -> &mut Self {
        let state = self.world.state.services.get("shop");
        let (before, after) = (ServiceState::default(), state.cloned().unwrap_or_default());
        let revision = Revision {
            revision: self.world.state.revision,
            at: self.now - SignedDuration::from_mins(minutes),
            by: "ann".into(),
            via: "api".into(),
            how: None,
            action: action.into(),
            reason: None,
            notes: Vec::new(),
            changes: [(shop(), self.change(before, after))].into(),
            flags: flags
                .iter()
                .map(|flag| ((*flag).to_owned(), turn()))
                .collect(),
        };
        let changed = changed(&revision, &shop()).expect("it changes something");
        self.changes.insert(0, changed);
        self
    }

    /// From one recorded state to another.
    fn change(&self, before: ServiceState, after: ServiceState) -> Change {
        let file = &self.world.config.services["shop"];
        let in_force = |state| Some(Settled::from(&Effective::new(file, state, false)));
        Change {
            in_force_before: in_force(&before),
            in_force_after: in_force(&after),
            before,
            after,
        }
    }

    fn canary(&mut self) -> &mut Self {
        self.act(Command::SetWeights {
            service: shop(),
            weights: IndexMap::from([("blue".into(), 90), ("green".into(), 10)]),
            lease: None,
        })
    }

    fn diagnose(&self) -> Diagnosis {
        let unrecorded = ServiceState::default();
        let (file, name) = (&self.world.config.services["shop"], shop());
        let state = self.world.state.services.get("shop").unwrap_or(&unrecorded);
        let effective = Effective::new(file, state, false);
        let facts = Facts {
            service: &name,
            revision: self.world.state.revision,
            at: self.now,
            file,
            state,
            effective: &effective,
            stable_only: false,
            seen: BTreeMap::new(),
            judges: BTreeMap::new(),
            standing: Standing::default(),
            button: press(&self.world, &name, Self::outlook(), self.now),
        };
        let errors = self.erring.iter().map(|(backend, minutes)| Errors {
            backend: (*backend).into(),
            version: effective.version(backend).into(),
            since: self.now - SignedDuration::from_mins(*minutes),
            since_before: false,
            requests: 100,
            failures: 20,
        });
        diagnose(Known {
            facts: &facts,
            within_min: 60,
            changes: self.changes.clone(),
            errors: errors.collect(),
            measured: &self.measured,
            flags_on: self.flags_on.clone(),
            plan: &|command| follow(&self.world, &name, Self::outlook(), self.now, command),
        })
    }

    #[track_caller]
    fn first(&self) -> Recommended {
        self.diagnose().methods.first().expect("something").clone()
    }
}

#[test]
fn decision_framework_sends_a_failing_canary_to_zero_first() {
    let mut play = Play::new();
    play.canary().changed("weights", 5, &[]);
    play.erring = vec![("green", 4)];
    let first = play.first();
    assert_eq!(first.method, Way::CanaryToZero);
    assert_eq!(first.command, "switchback rollback shop");
    assert!(first.possible);
    let code = &play.diagnose().tree[2];
    assert_eq!(
        (code.question, code.answer),
        ("is it application code?", true)
    );
}

#[test]
fn decision_framework_switches_back_when_the_new_stable_errs() {
    let mut play = Play::new();
    play.act(Command::Switch {
        service: shop(),
        to: "green".into(),
        force: false,
    });
    play.changed("switch", 5, &[]);
    play.erring = vec![("green", 4)];
    let first = play.first();
    assert_eq!(first.method, Way::BlueGreenSwitch);
    assert!(
        first.because.contains("blue takes over"),
        "{}",
        first.because
    );
}

#[test]
fn decision_framework_turns_a_flag_off_first_when_errors_began_with_it() {
    let mut play = Play::new();
    play.canary().changed("weights", 50, &[]);
    play.changed("flag_shares", 5, &["new-checkout"]);
    play.flags_on = vec!["new-checkout".into()];
    play.erring = vec![("blue", 4)];
    let first = play.first();
    assert_eq!(first.command, "switchback flag off new-checkout");
    play.flags_on.clear();
    assert_ne!(play.first().method, Way::FlagToggle, "it is off already");
}

#[test]
fn decision_framework_reverts_the_configuration_when_errors_began_with_it() {
    let mut play = Play::new();
    play.canary();
    play.world.state.revision = 12;
    play.changed("reload", 5, &[]);
    play.erring = vec![("blue", 4), ("green", 4)];
    let first = play.first();
    assert_eq!(first.method, Way::ConfigRevert, "both err: {first:?}");
    assert_eq!(first.command, "switchback restore 11 shop");
}

#[test]
fn bookkeeping_of_runbooks_and_drills_is_no_change_that_could_be_the_cause() {
    let mut play = Play::new();
    play.canary();
    play.world.state.revision = 12;
    play.changed("reload", 5, &[]);
    play.erring = vec![("blue", 4), ("green", 4)];
    let state = play.world.state.services["shop"].clone();
    let booked = |after: ServiceState, flags: &[&str]| Revision {
        revision: 13,
        at: play.now,
        by: "switchback".into(),
        via: "runbook".into(),
        how: None,
        action: "runbook_step".into(),
        reason: None,
        notes: Vec::new(),
        changes: [(shop(), play.change(state.clone(), after))].into(),
        flags: flags
            .iter()
            .map(|flag| ((*flag).to_owned(), turn()))
            .collect(),
    };
    let run: RunbookRun = serde_json::from_value(serde_json::json!({
        "runbook": "rollback", "plan": [], "by": "ann", "may_restore": true, "step": 0, "steps": [],
        "began": "2026-01-01T11:00:00Z", "since": "2026-01-01T11:00:00Z",
    }))
    .expect("a run");
    let of_run = ServiceState {
        runbook: Some(run),
        ..state.clone()
    };
    assert_eq!(changed(&booked(of_run.clone(), &[]), &shop()), None);
    let of_flag = changed(&booked(of_run, &["new-checkout"]), &shop());
    assert_eq!(of_flag.map(|change| change.kind), Some(Kind::Flag));
    assert_eq!(changed(&booked(state.clone(), &[]), &"cart".into()), None);
    assert_eq!(play.first().command, "switchback restore 11 shop");
}

#[test]
fn way_that_would_be_refused_or_change_nothing_is_not_called_possible() {
    let mut play = Play::new();
    play.switch_beside_schema(4, "green");
    play.changed("reload", 5, &[]);
    play.erring = vec![("green", 4)];
    let of = |play: &Play, way: Way| {
        let methods = play.diagnose().methods.into_iter();
        let mut found = methods.filter(|method| method.method == way);
        found.next().expect("listed")
    };
    assert!(of(&play, Way::ConfigRevert).possible);
    let redeploy = of(&play, Way::RollingRedeploy);
    assert!(redeploy.possible, "{redeploy:?}");
    assert_eq!(
        redeploy.command,
        "switchback deploy shop --backend blue --version 41 --endpoint http://127.0.0.1:1"
    );
    // Blue, which was stable, cannot live with that.
    play.act(schema(5));
    for way in [Way::ConfigRevert, Way::RollingRedeploy] {
        let refused = of(&play, way);
        assert!(!refused.possible, "{refused:?}");
        assert!(
            refused.because.contains("cannot live with schema 5"),
            "{refused:?}"
        );
    }
    // What is back already.
    play.switch_beside_schema(4, "blue");
    let back = of(&play, Way::ConfigRevert);
    assert!(!back.possible, "{back:?}");
    assert!(
        back.because.ends_with("it would change nothing"),
        "{back:?}"
    );
    // Nowhere to deploy to, and nothing to deploy.
    play.canary();
    let nowhere = of(&play, Way::RollingRedeploy);
    assert_eq!(nowhere.because, "every backend has traffic");
    let nothing = of(&Play::new(), Way::RollingRedeploy);
    assert_eq!(nothing.because, "no earlier version is remembered");
    assert!(!nothing.possible && !nowhere.possible);
}

#[test]
fn decision_framework_puts_what_is_refused_and_the_database_last() {
    let mut play = Play::new();
    play.switch_beside_schema(4, "green");
    play.act(schema(5)).changed("schema_set", 5, &[]);
    play.erring = vec![("green", 4)];
    let found = play.diagnose();
    let mut methods = found.methods.iter();
    let last = methods.rfind(|method| method.possible);
    assert_eq!(last.map(|last| last.method), Some(Way::DatabaseRollback));
    let switch = found
        .methods
        .iter()
        .find(|m| m.method == Way::BlueGreenSwitch);
    let switch = switch.expect("listed");
    assert!(!switch.possible);
    assert!(
        switch.because.contains("cannot live with schema 5"),
        "{}",
        switch.because
    );
    assert!(
        switch.data_risk.starts_with("refused"),
        "{}",
        switch.data_risk
    );
    assert!(found.tree[3].answer, "{:?}", found.tree[3]);
}

#[test]
fn nothing_is_said_to_be_wrong_when_nothing_is() {
    let found = Play::new().diagnose();
    assert_eq!(
        found.finding,
        "nobody errs, and nothing was changed in the last 60 min"
    );
    assert!(
        found.methods.iter().all(|method| !method.possible),
        "{:?}",
        found.methods
    );
}

#[test]
fn times_are_those_that_were_measured_here_and_none_otherwise() {
    let mut play = Play::new();
    play.canary().changed("weights", 5, &[]);
    play.erring = vec![("green", 4)];
    assert_eq!((play.first().measured, play.first().p50_us), (0, None));
    let rollback = |us: u64| Summary {
        applied_in_us: Some(us),
        ..record(1).summary()
    };
    play.measured.rollbacks = vec![rollback(80), rollback(120), rollback(90)];
    // Those of another way do not count.
    let timing = Timing {
        at: play.now,
        us: 7,
        drill: false,
    };
    play.measured.timings = vec![(Way::FlagToggle, timing)];
    let first = play.first();
    assert_eq!(
        (first.measured, first.p50_us, first.p99_us),
        (3, Some(90), Some(120))
    );
}

fn point(second: u32, requests: u32, failures: u32) -> Point {
    Point {
        second,
        requests,
        failures,
        p50_ms: 1.0,
        p99_ms: 2.0,
    }
}

fn stretch(points: Vec<Point>) -> Stretch {
    Stretch {
        from: 1_000,
        to: 1_600,
        points,
    }
}

#[test]
fn backend_errs_since_the_last_calm() {
    let name: Name = "green".into();
    let points = vec![
        point(1_100, 10, 5),
        point(1_500, 10, 0),
        point(1_550, 10, 2),
        point(1_579, 10, 2),
        point(1_600, 10, 1),
    ];
    let errors = errs(&name, "42", &stretch(points)).expect("it errs");
    assert_eq!(errors.since.as_second(), 1_550);
    assert!(!errors.since_before);
    assert_eq!((errors.requests, errors.failures), (30, 5));
    let before = stretch((1_000..=1_600).map(|second| point(second, 10, 1)).collect());
    assert!(errs(&name, "42", &before).expect("it errs").since_before);
}

#[test]
fn few_failures_and_old_ones_are_no_errors() {
    let name: Name = "green".into();
    let few = stretch(vec![point(1_590, 1_000, 2)]);
    assert_eq!(errs(&name, "42", &few), None);
    let rare = stretch(vec![point(1_590, 1_000, 9)]);
    assert_eq!(errs(&name, "42", &rare), None, "less than 1 %");
    let old = stretch(vec![point(1_500, 10, 10)]);
    assert_eq!(errs(&name, "42", &old), None);
    assert!(errs(&name, "42", &stretch(vec![point(1_541, 100, 3)])).is_some());
}
