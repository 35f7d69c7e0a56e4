//! What keeps the gate closed, one thing after the other.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use switchback_config::model::Config;

use super::*;
use crate::state::{Block, CurrentSchema, Mark, Release, ServiceState};
use crate::testing;

const FILE: &str = r#"
version: 1
listeners: {web: {address: "127.0.0.1:0"}}
routes: [{service: shop}]
services:
  shop:
    stable: green
    weights: {green: 100, blue: 0, red: 0}
    backends:
      green: {version: "43", endpoints: ["http://127.0.0.1:2"], schema: {reads: [4, 5], writes: 4}}
      blue: {version: "42", endpoints: ["http://127.0.0.1:1"], schema: {reads: [4, 5], writes: 4}}
      red: {version: "41", endpoints: ["http://127.0.0.1:3"], schema: {reads: [3, 4], writes: 4}}
"#;

/// Day and hour of a made-up month.
fn at(day: i64, hour: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(day * 24 + hour)
}

fn mark() -> Mark {
    Mark {
        by: "ann".into(),
        at: at(0, 0),
        reason: None,
    }
}

struct Play {
    config: Config,
    state: ServiceState,
    seen: Seen,
    incidents: Vec<String>,
    leaves: Option<u32>,
    now: Timestamp,
}

impl Play {
    /// Nothing is against the contract of schema 4 to 5.
    fn open() -> Self {
        let database = DatabaseState {
            schema: Some(CurrentSchema {
                version: 4,
                mark: mark(),
            }),
            release: Some(Release {
                phase: Phase::SwitchReads,
                leaves: None,
                mark: mark(),
            }),
            ..DatabaseState::default()
        };
        let state = ServiceState {
            previous: Some("blue".into()),
            database,
            ..ServiceState::default()
        };
        Self {
            config: testing::config(FILE),
            state,
            seen: Seen {
                since: Some(at(0, 0)),
                versions: BTreeMap::new(),
            },
            incidents: Vec::new(),
            leaves: None,
            now: at(10, 0),
        }
    }

    fn reasons(&self) -> Vec<String> {
        let file = &self.config.services["shop"];
        let gate = gate(&Facts {
            service: &"shop".into(),
            file,
            database: &self.state.database,
            effective: &Effective::new(file, &self.state, false),
            seen: &self.seen,
            incidents: self.incidents.clone(),
            leaves: self.leaves,
            at: self.now,
        });
        assert_eq!(gate.open, gate.reasons.is_empty());
        gate.reasons
    }

    fn see(&mut self, version: &str, at: Timestamp) {
        let sighting = Sighting { at, schema: None };
        self.seen.versions.insert(version.into(), sighting);
    }

    #[track_caller]
    fn is_closed_by(&self, needle: &str) {
        let reasons = self.reasons();
        assert!(
            matches!(&reasons[..], [one] if one.contains(needle)),
            "{needle}: {reasons:#?}"
        );
    }
}

#[test]
fn destructive_migration_pitfall_contract_waits_until_no_request_needs_the_old_schema() {
    let mut play = Play::open();
    assert_eq!(play.reasons(), [""; 0]);
    play.see("43", play.now);
    assert_eq!(play.reasons(), [""; 0], "it lives with schema 5");
    play.see("41", at(8, 1));
    play.is_closed_by("version 41 got a request 47 h ago");
    play.now = at(10, 1) - SignedDuration::from_secs(1);
    play.is_closed_by("version 41");
    play.now = at(10, 1);
    assert_eq!(play.reasons(), [""; 0], "48 h are over");
}

#[test]
fn gate_is_closed_while_a_version_that_is_gone_never_said_what_it_needs() {
    let mut play = Play::open();
    play.see("40", at(9, 0));
    play.is_closed_by("it does not say which schemas");
}

#[test]
fn gate_is_closed_while_nobody_knows_who_got_requests_before() {
    let mut play = Play::open();
    play.seen.since = Some(at(9, 0));
    play.is_closed_by("requests are counted for 24 h only");
    play.seen.since = None;
    play.is_closed_by("it is not known yet");
}

#[test]
fn gate_is_closed_while_the_rollback_target_could_not_live_after_it() {
    let mut play = Play::open();
    play.state.previous = Some("red".into());
    play.is_closed_by("red (version 41) is the rollback target");
    play.state.previous = None;
    assert_eq!(play.reasons(), [""; 0]);
    play.leaves = Some(6);
    play.is_closed_by("green (version 43) is stable");
}

#[test]
fn gate_is_closed_while_a_backend_does_not_say_what_it_can_live_with_however_idle_it_is() {
    let silent = FILE.replace(", schema: {reads: [3, 4], writes: 4}", "");
    let mut play = Play::open();
    play.config = testing::config(&silent);
    play.is_closed_by("red (version 41) may get traffic, and it is unknown");
    play.state.previous = Some("red".into());
    play.is_closed_by("red (version 41) is the rollback target, and it is unknown");
    // Neither is it passed over while nobody has said which schema there is.
    play.state.database.schema = None;
    let reasons = play.reasons();
    assert!(
        matches!(&reasons[..], [schema, red] if schema.contains("nobody has said") && red.contains("unknown")),
        "{reasons:#?}"
    );
    // Without either there is nothing to say about it.
    play.state.database = DatabaseState::default();
    play.is_closed_by("nobody has said which schema");
}

#[test]
fn gate_is_closed_by_incidents_blocks_and_early_phases() {
    let mut play = Play::open();
    play.incidents = vec!["a rule fires: errors".into()];
    play.is_closed_by("a rule fires");
    play.incidents.clear();
    let block = Block {
        backend: "red".into(),
        by: "judge".into(),
        at: at(9, 0),
        cause: "judge".into(),
        reason: None,
    };
    play.state.blocked.insert("41".into(), block);
    play.is_closed_by("red (version 41) is blocked");
    play.state.blocked.clear();
    for phase in [Phase::Expand, Phase::Migrate] {
        play.state.database.release = Some(Release {
            phase,
            leaves: None,
            mark: mark(),
        });
        play.is_closed_by(phase.as_str());
    }
    play.state.database = DatabaseState::default();
    play.is_closed_by("nobody has said which schema");
}
