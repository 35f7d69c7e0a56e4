//! The database behind a service: who may get traffic, and how a change of its schema goes.

use super::*;
use crate::command::{DatabaseChange, Declared};
use crate::state::{Phase, Unfit};

/// Blue lives with schema 3 and 4, green with 4 and 5, and red never said.
fn file() -> String {
    let blue = "\"http://127.0.0.1:1\"], schema: {reads: [3, 4], writes: 3}";
    let green = "\"http://127.0.0.1:2\"], schema: {reads: [4, 5], writes: 4}";
    FILE.replace("\"http://127.0.0.1:1\"]", blue)
        .replace("\"http://127.0.0.1:2\"]", green)
}

/// All traffic is on blue, the database has this schema.
fn play(schema: u32) -> Play {
    let mut play = Play::new();
    play.world.config = config(&file());
    play.must(weights([100, 0, 0]));
    play.must(set_schema(schema));
    play
}

fn set_schema(version: u32) -> Command {
    change(DatabaseChange::Schema(version))
}

fn change(change: DatabaseChange) -> Command {
    Command::Database {
        service: shop(),
        change,
    }
}

fn phase(to: Option<Phase>, against: &[&str], force: bool) -> Command {
    change(DatabaseChange::Phase {
        to,
        leaves: None,
        against: against.iter().map(|reason| (*reason).to_owned()).collect(),
        force,
    })
}

fn code(result: Result<bool, Refusal>) -> &'static str {
    result.expect_err("it should be refused").code()
}

fn notes(play: &mut Play, command: &Command) -> Vec<String> {
    let decision = play.decide(command).expect("carried out");
    let notes = decision.notes.iter();
    notes.map(|note| note.message.clone()).collect()
}

#[test]
fn nothing_gives_traffic_to_a_version_that_cannot_live_with_the_schema() {
    let mut play = play(3);
    assert_eq!(code(play.act(switch("green"))), "schema_incompatible");
    assert_eq!(code(play.act(weights([90, 10, 0]))), "schema_incompatible");
    let start = |force: bool| {
        Command::StartRollout(Box::new(crate::command::StartRollout {
            service: shop(),
            canary: Some("green".into()),
            force,
            ..crate::command::StartRollout::default()
        }))
    };
    assert_eq!(code(play.act(start(false))), "schema_incompatible");
    assert_eq!(play.weights(), [100, 0, 0]);
    // Who says nothing is asked nothing.
    assert!(play.must(weights([90, 0, 10])));
    assert!(play.must(weights([100, 0, 0])));
    assert!(play.must(set_schema(4)));
    assert!(play.must(weights([90, 10, 0])));
}

#[test]
fn weight_that_is_there_may_shrink_but_not_grow() {
    let mut play = play(4);
    assert!(play.must(weights([50, 50, 0])));
    let said = notes(&mut play, &set_schema(3));
    assert!(
        said.iter()
            .any(|note| note.starts_with("green has weight, but")),
        "{said:?}"
    );
    assert!(
        play.must(set_schema(3)),
        "a fact is recorded whatever it means"
    );
    assert_eq!(play.weights(), [50, 50, 0], "nothing is moved by it");
    assert!(play.must(weights([90, 10, 0])));
    assert_eq!(code(play.act(weights([80, 20, 0]))), "schema_incompatible");
    // The same share, written otherwise.
    assert!(play.must(weights([900, 100, 0])));
}

#[test]
fn database_rollback_onto_a_version_that_cannot_read_the_schema_is_refused_and_can_be_forced() {
    let mut play = play(4);
    assert!(play.must(switch("green")));
    assert!(play.must(set_schema(5)));
    let refused = play.act(rollback()).expect_err("blue reads 3 and 4");
    assert_eq!(refused.code(), "schema_incompatible");
    assert!(
        refused.to_string().contains("reads schema 3, 4 only"),
        "{refused}"
    );
    assert_eq!(play.weights(), [0, 100, 0]);
    let forced = Command::Rollback {
        service: shop(),
        force: true,
        cut: false,
    };
    assert!(play.must(forced));
    assert_eq!(play.weights(), [100, 0, 0]);
}

#[test]
fn judge_does_not_roll_back_onto_a_version_that_cannot_read_the_schema() {
    let mut play = play(4);
    assert!(play.must(switch("green")));
    assert!(play.must(set_schema(5)));
    assert_eq!(code(play.act(condemn("green", "2"))), "schema_incompatible");
    // Nor does it move a canary's share onto such a stable.
    let mut play = self::play(4);
    assert!(play.must(weights([90, 10, 0])));
    assert!(play.must(set_schema(5)));
    assert_eq!(code(play.act(condemn("green", "2"))), "schema_incompatible");
    assert_eq!(play.weights(), [90, 10, 0]);
}

#[test]
fn writing_a_schema_that_is_not_there_yet_is_no_living_with_it() {
    let mut play = play(4);
    let text = file().replace("reads: [4, 5], writes: 4", "reads: [4, 5], writes: 5");
    play.reload(&text);
    let refused = play.act(switch("green")).expect_err("it writes 5");
    assert!(
        refused.to_string().contains("it writes schema 5"),
        "{refused}"
    );
    assert!(play.must(set_schema(5)));
    assert!(play.must(switch("green")));
}

#[test]
fn expand_contract_goes_step_by_step_and_back_to_any_step_before_the_contract() {
    let mut play = play(4);
    let order = [
        Phase::Expand,
        Phase::Migrate,
        Phase::SwitchReads,
        Phase::Contract,
    ];
    assert_eq!(
        code(play.act(phase(Some(Phase::Migrate), &[], false))),
        "invalid_phase"
    );
    for to in order {
        assert!(play.must(phase(Some(to), &[], false)), "{to:?}");
        assert!(!play.must(phase(Some(to), &[], false)), "idempotent");
        if to == Phase::SwitchReads {
            assert!(play.must(phase(Some(Phase::Expand), &[], false)), "back");
            assert!(play.must(phase(Some(Phase::Migrate), &[], false)));
            assert!(play.must(phase(Some(Phase::SwitchReads), &[], false)));
        }
    }
    assert_eq!(
        code(play.act(phase(Some(Phase::SwitchReads), &[], false))),
        "invalid_phase",
        "what is removed does not come back"
    );
    assert!(play.must(phase(None, &[], false)));
    assert_eq!(play.world.state.services["shop"].database.phase(), None);
}

#[test]
fn expand_contract_rollback_is_free_before_the_contract_and_bound_afterwards() {
    let mut play = play(4);
    assert!(play.must(switch("green")));
    for to in [Phase::Expand, Phase::Migrate, Phase::SwitchReads] {
        assert!(play.must(phase(Some(to), &[], false)));
        let decision = play.decide(&rollback()).expect("free");
        assert!(decision.changes(&play.world), "{to:?}");
    }
    assert!(play.must(phase(Some(Phase::Contract), &[], false)));
    let refused = play.act(rollback()).expect_err("blue needs what goes");
    assert_eq!(refused.code(), "contract_begun");
    assert_eq!(refused.status(), 409);
    assert_eq!(code(play.act(condemn("green", "2"))), "contract_begun");
    // Who never said what it needs cannot be trusted now.
    assert_eq!(code(play.act(switch("red"))), "contract_begun");
    let database = &play.world.state.services["shop"].database;
    let support = play.effective().backends["green"].schema.clone();
    assert_eq!(database.unfit(support.as_ref()), None, "green lives on");
    assert!(matches!(
        database.unfit(None),
        Some(Unfit::ContractBegun { leaves: 5, .. })
    ));
}

#[test]
fn end_of_a_contract_leaves_the_way_back_closed() {
    let database = |play: &Play| play.world.state.services["shop"].database.clone();
    let contract = |leaves: Option<u32>| {
        change(DatabaseChange::Phase {
            to: Some(Phase::Contract),
            leaves,
            against: Vec::new(),
            force: false,
        })
    };
    let mut play = play(4);
    assert!(play.must(switch("green")));
    for to in [Phase::Expand, Phase::Migrate, Phase::SwitchReads] {
        assert!(play.must(phase(Some(to), &[], false)));
    }
    assert!(play.must(contract(Some(5))));
    let done = phase(None, &[], false);
    let said = notes(&mut play, &done);
    assert!(said[0].contains("leaves schema 5"), "{said:?}");
    assert!(
        said.iter()
            .any(|note| note.starts_with("blue is the rollback target, but")),
        "{said:?}"
    );
    assert!(play.must(done.clone()));
    assert_eq!(code(play.act(rollback())), "schema_incompatible");
    let left = database(&play);
    assert_eq!((left.version(), left.phase()), (Some(5), None));
    assert_eq!(left.schema.expect("noted").mark.by, "switchback");
    // Before a contract nothing was removed, and who has said more is right.
    assert!(play.must(phase(Some(Phase::Expand), &[], false)));
    assert!(play.must(done.clone()));
    assert_eq!(database(&play).version(), Some(5));
    for to in [Phase::Expand, Phase::Migrate, Phase::SwitchReads] {
        assert!(play.must(phase(Some(to), &[], false)));
    }
    assert!(play.must(contract(None)));
    assert!(play.must(set_schema(7)));
    assert!(play.must(done));
    assert_eq!(database(&play).version(), Some(7));
}

#[test]
fn contract_begins_only_if_its_gate_is_open_or_it_is_forced() {
    let mut play = play(4);
    for to in [Phase::Expand, Phase::Migrate, Phase::SwitchReads] {
        assert!(play.must(phase(Some(to), &["of no matter yet"], false)));
    }
    let contract = |force: bool| phase(Some(Phase::Contract), &["version 1 got a request"], force);
    let refused = play.act(contract(false)).expect_err("closed");
    assert_eq!(refused.code(), "contract_gate_closed");
    assert!(
        refused.to_string().contains("version 1 got a request"),
        "{refused}"
    );
    assert!(play.must(contract(true)));
}

#[test]
fn file_cannot_give_traffic_to_a_version_that_cannot_live_with_the_schema() {
    let mut play = play(3);
    play.world
        .state
        .services
        .get_mut("shop")
        .expect("known")
        .weights = None;
    play.reload(&file().replace("blue: 80, green: 20", "blue: 100, green: 0"));
    assert_eq!(play.weights(), [100, 0, 0]);
    let reload = Command::Reload {
        config: config(&file().replace("stable: blue", "stable: green")),
    };
    let said = notes(&mut play, &reload);
    assert!(
        said.iter()
            .any(|note| note.contains("the weights of the file are held back")),
        "{said:?}"
    );
    play.must(reload);
    assert_eq!(play.weights(), [100, 0, 0]);
    assert_eq!(play.effective().stable, "blue");
    let held = play.world.state.services["shop"].weights.clone();
    let held = held.expect("shown as a conflict");
    assert!(
        held.reason
            .expect("why")
            .contains("cannot live with schema 3")
    );
    // The next file that asks for something possible wins, as always.
    let possible = "blue: 70, green: 0, red: 30";
    play.reload(&file().replace("blue: 80, green: 20, red: 0", possible));
    assert_eq!(play.weights(), [70, 0, 30]);
}

#[test]
fn version_that_the_file_puts_in_the_place_of_another_is_told_of_if_it_cannot_live_with_the_schema()
{
    let mut play = play(3);
    // It has traffic, and another version is there already: nothing can be held back.
    let replaced = |reads: &str| {
        let blue = format!("blue: {{version: \"0.{reads}\"");
        let schema = format!("schema: {{reads: [{reads}], writes: {reads}}}");
        file()
            .replace("blue: {version: \"1\"", &blue)
            .replace("schema: {reads: [3, 4], writes: 3}", &schema)
    };
    let reload = |reads: &str| Command::Reload {
        config: config(&replaced(reads)),
    };
    let conflicts = |play: &mut Play, command: &Command| {
        let decision = play.decide(command).expect("carried out");
        let notes = decision.notes.into_iter();
        let conflicts = notes.filter(|note| note.kind == "schema_conflict");
        conflicts.map(|note| note.message).collect::<Vec<_>>()
    };
    assert_eq!(conflicts(&mut play, &reload("3")), Vec::<String>::new());
    let told = conflicts(&mut play, &reload("4"));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("cannot live with schema 3"), "{told:?}");
    play.must(reload("4"));
    assert_eq!(play.weights(), [100, 0, 0], "it cannot be undone");
    let shown = |play: &Play| {
        let (file, state) = (
            &play.world.config.services["shop"],
            &play.world.state.services["shop"],
        );
        let found = crate::conflict::conflicts("shop", file, state, &play.effective(), false);
        let found = found.into_iter();
        found
            .filter(|found| found.kind == crate::conflict::Kind::Refused)
            .map(|found| found.sentence)
            .collect::<Vec<_>>()
    };
    let found = shown(&play);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("blue has weight 100, but"),
        "{found:?}"
    );
    assert_eq!(
        conflicts(&mut play, &reload("4")),
        Vec::<String>::new(),
        "told once"
    );
    play.must(reload("3"));
    assert_eq!(shown(&play), Vec::<String>::new());
}

#[test]
fn forward_only_fix_may_be_deployed_while_the_way_back_is_closed() {
    let mut play = play(4);
    assert!(play.must(switch("green")));
    assert!(play.must(set_schema(5)));
    assert_eq!(code(play.act(rollback())), "schema_incompatible");
    let fix = |reads: Vec<u32>, writes: u32| Command::SetBackend {
        service: shop(),
        backend: "blue".into(),
        version: "3.1".into(),
        endpoints: vec!["http://127.0.0.1:9".parse().expect("endpoint")],
        declared: Declared {
            schema: Some(switchback_config::model::SchemaSupport { reads, writes }),
            migration: None,
        },
        force: false,
    };
    assert_eq!(code(play.act(fix(vec![5], 4))), "invalid_schema");
    assert!(play.must(fix(vec![5], 5)));
    assert!(play.must(switch("blue")));
    assert_eq!(play.weights(), [100, 0, 0]);
}

#[test]
fn version_that_is_registered_again_keeps_what_it_said_and_a_new_one_does_not() {
    let mut play = play(4);
    let set = |version: &str, port: u16| Command::SetBackend {
        service: shop(),
        backend: "green".into(),
        version: version.into(),
        endpoints: vec![
            format!("http://127.0.0.1:{port}")
                .parse()
                .expect("endpoint"),
        ],
        declared: Declared::default(),
        force: false,
    };
    let said = |play: &Play| play.effective().backends["green"].schema.is_some();
    assert!(play.must(set("2", 7)));
    assert!(said(&play), "the same version elsewhere");
    assert!(play.must(set("4", 7)));
    assert!(!said(&play), "another one");
    assert!(play.must(set("2", 7)));
    assert!(said(&play), "the file knows it");
}

#[test]
fn reversible_migrations_are_confirmed_by_somebody_and_never_run() {
    let mut play = play(4);
    assert!(play.must(change(DatabaseChange::Rehearsed { took_s: Some(720) })));
    assert!(play.must(change(DatabaseChange::Confirmed)));
    let database = play.world.state.services["shop"].database.clone();
    assert_eq!(
        database.rehearsed.and_then(|rehearsal| rehearsal.took_s),
        Some(720)
    );
    assert_eq!(database.confirmed.expect("recorded").by, "switchback");
    assert_eq!(
        database.schema.map(|schema| schema.version),
        Some(4),
        "nothing was run"
    );
    assert_eq!(play.weights(), [100, 0, 0]);
}

#[test]
fn stable_versions_are_remembered_as_they_were_deployed() {
    let mut play = play(4);
    let kept = |play: &Play| {
        let kept = play.world.state.services["shop"].retained.iter();
        kept.map(|kept| kept.deployed.version.clone())
            .collect::<Vec<_>>()
    };
    assert!(play.must(switch("green")));
    assert_eq!(kept(&play), ["1"]);
    assert!(play.must(switch("red")));
    assert_eq!(kept(&play), ["2", "1"]);
    assert!(play.must(rollback()));
    assert_eq!(kept(&play), ["1"], "green is stable again, red was bad");
}
