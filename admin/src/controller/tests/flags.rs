//! Flags: what beats what, and which go off with a version.

use std::collections::BTreeMap;

use switchback_config::parse_flag;

use super::*;
use crate::command::{Failing, FlagChange};
use crate::state::flag_in_force;

const FLAGS: &str =
    "flags: {plain: {default: true}, half: {share: 50%}, risky: {kill_switch: true}}\n";

fn file(flags: &str) -> String {
    let file = FILE.replace(
        "endpoints: [\"http://127.0.0.1:2\"]",
        "endpoints: [\"http://127.0.0.1:2\"], off_on_rollback: [plain, risky]",
    );
    file + flags
}

fn play() -> Play {
    let mut play = Play::new();
    play.world.config = config(&file(FLAGS));
    play
}

fn change(flag: &str, change: FlagChange) -> Command {
    Command::ChangeFlag {
        flag: flag.into(),
        change,
    }
}

fn flag(play: &Play, name: &str) -> Option<switchback_config::model::Flag> {
    let World { config, state } = &play.world;
    flag_in_force(config.flags.get(name), state.flags.get(name))
}

fn is_on(play: &Play, name: &str) -> bool {
    flag(play, name).expect("a flag").enabled
}

fn parsed(text: &str) -> Box<switchback_config::model::Flag> {
    Box::new(parse_flag(text).expect("a flag"))
}

#[test]
fn off_beats_the_file_and_what_is_set_until_it_is_turned_on() {
    let mut play = play();
    assert!(play.must(change("half", FlagChange::Off)));
    assert!(!play.must(change("half", FlagChange::Off)), "idempotent");
    assert!(!is_on(&play, "half"));
    let shares = parsed("share: 70%").shares;
    assert!(play.must(change("half", FlagChange::Shares(shares.clone()))));
    assert!(!is_on(&play, "half"));
    play.reload(&file(&FLAGS.replace("50%", "60%")));
    assert!(!is_on(&play, "half"), "the file wins over the share only");
    assert_eq!(
        flag(&play, "half"),
        Some(switchback_config::model::Flag {
            enabled: false,
            ..*parsed("share: 60%")
        })
    );
    play.reload(FILE);
    assert_eq!(flag(&play, "half"), None);
    play.reload(&file(FLAGS));
    assert!(
        !is_on(&play, "half"),
        "nor is it forgotten when it comes back"
    );
    assert!(play.must(change("half", FlagChange::On)));
    assert!(is_on(&play, "half"));
    assert!(
        play.world.state.flags.is_empty(),
        "as in the file: nothing to record"
    );
}

#[test]
fn flag_that_the_file_does_not_use_can_be_turned_on_at_run_time() {
    let mut play = play();
    play.reload(&file("flags: {plain: {enabled: false}, risky: {}}\n"));
    assert!(!is_on(&play, "plain"));
    assert!(play.must(change("plain", FlagChange::On)));
    assert!(is_on(&play, "plain"));
    assert!(play.must(change("plain", FlagChange::Off)));
    assert!(!is_on(&play, "plain"));
    assert!(play.must(change("plain", FlagChange::On)));
    assert!(play.must(change("plain", FlagChange::Unset)));
    assert!(!is_on(&play, "plain"), "as in the file");
}

#[test]
fn flag_that_was_made_at_run_time_is_gone_once_it_is_unset() {
    let mut play = play();
    let unknown = Refusal::UnknownFlag("new".into());
    for command in [FlagChange::Off, FlagChange::On, FlagChange::Unset] {
        assert_eq!(play.act(change("new", command)), Err(unknown.clone()));
    }
    assert!(play.must(change("new", FlagChange::Set(parsed("share: 5%")))));
    assert!(play.must(change("new", FlagChange::Off)));
    play.reload(&file(&FLAGS.replace("50%", "40%")));
    assert!(!is_on(&play, "new"), "the file has nothing to say about it");
    assert!(play.must(change("new", FlagChange::Unset)));
    assert_eq!(flag(&play, "new"), None);
    assert!(play.must(change("new", FlagChange::Set(parsed("{}")))));
    assert!(is_on(&play, "new"), "a new one of the same name is not off");
}

#[test]
fn value_of_the_file_is_no_override_and_a_changed_file_ends_one() {
    let mut play = play();
    assert!(!play.must(change("half", FlagChange::Set(parsed("share: 50%")))));
    assert!(play.must(change("half", FlagChange::Set(parsed("share: 10%")))));
    assert!(!play.must(change("half", FlagChange::Set(parsed("share: 10%")))));
    play.reload(&file(&format!("{FLAGS}# nothing else\n")));
    assert_eq!(
        flag(&play, "half").map(|flag| flag.shares),
        Some(parsed("share: 10%").shares)
    );
    assert!(play.must(change("half", FlagChange::Set(parsed("share: 50%")))));
    assert!(play.world.state.flags.is_empty());
    assert!(play.must(change("half", FlagChange::Set(parsed("share: 10%")))));
    play.reload(&file(&FLAGS.replace("50%", "51%")));
    assert_eq!(
        flag(&play, "half").map(|flag| flag.shares),
        Some(parsed("share: 51%").shares)
    );
    assert!(play.world.state.flags.is_empty());
}

#[test]
fn rollback_copies_no_flag_that_it_does_not_change() {
    let mut play = play();
    play.world.config = config(&(FILE.to_owned() + FLAGS));
    let shares = parsed("share: 70%").shares;
    assert!(play.must(change("half", FlagChange::Shares(shares))));
    let before = play.world.state.flags.clone();
    assert!(play.must(rollback()));
    assert!(Arc::ptr_eq(&before, &play.world.state.flags));
}

#[test]
fn flags_go_off_with_the_version_that_loses_its_weight_and_only_then() {
    let off = |play: &Play| ["plain", "half", "risky"].map(|name| !is_on(play, name));
    let mut rolled_back = play();
    assert!(rolled_back.must(rollback()));
    assert_eq!(off(&rolled_back), [true, false, true]);
    let why = &rolled_back.world.state.flags["plain"].off;
    let why = why.as_ref().and_then(|off| off.reason.as_deref());
    assert_eq!(why, Some("green (2) was rolled back"));
    assert!(rolled_back.must(Command::Unblock {
        service: shop(),
        backend: "green".into(),
    }));
    assert_eq!(
        off(&rolled_back),
        [true, false, true],
        "unblocking turns nothing on"
    );

    let mut condemned = play();
    assert!(condemned.must(Command::Condemn {
        failing: Failing {
            service: shop(),
            backend: "green".into(),
            version: "2".into(),
            sentence: "it fails".into(),
        },
        cause: Cause::Judge,
        force: false,
    }));
    assert_eq!(off(&condemned), [true, false, true]);

    let mut others = play();
    assert!(others.must(block("red")));
    assert!(others.must(weights([100, 0, 0])));
    assert_eq!(
        off(&others),
        [false; 3],
        "neither another version nor weights"
    );
    assert!(others.must(block("green")));
    assert_eq!(
        off(&others),
        [false; 3],
        "it had no weight: nobody used what is behind the flag"
    );

    let mut again = play();
    assert!(again.must(change("plain", FlagChange::Off)));
    assert!(again.must(rollback()));
    let by = again.world.state.flags["plain"].off.clone();
    assert_eq!(
        by.and_then(|off| off.reason),
        None,
        "whoever was first is on record"
    );
}

#[test]
fn off_of_the_process_before_holds_for_a_flag_that_comes_back() {
    let mut play = play();
    play.reload(FILE);
    assert!(play.must(change("plain", FlagChange::KeepOff)));
    assert!(
        !play.must(change("plain", FlagChange::KeepOff)),
        "idempotent"
    );
    assert_eq!(flag(&play, "plain"), None);
    play.reload(&file(FLAGS));
    assert!(!is_on(&play, "plain"));
    assert!(play.must(change("plain", FlagChange::On)));
    assert!(play.world.state.flags.is_empty());
}

/// The kinds of what a restore notes.
fn restore(
    play: &mut Play,
    flags: &BTreeMap<String, switchback_config::model::Flag>,
) -> Vec<&'static str> {
    let command = Command::Restore {
        revision: 1,
        services: BTreeMap::new(),
        flags: flags.clone(),
        force: false,
    };
    let decision = play.decide(&command).expect("restored");
    play.world = decision.follow(&play.world, play.world.state.revision + 1);
    decision.notes.iter().map(|note| note.kind).collect()
}

#[test]
fn restore_turns_no_flag_on_and_leaves_alone_what_is_as_it_was() {
    let mut play = play();
    let all = |play: &Play| {
        let flags = ["plain", "half", "risky"].map(|name| {
            let flag = flag(play, name).expect("a flag");
            (name.to_owned(), flag)
        });
        BTreeMap::from(flags)
    };
    let on = all(&play);
    assert!(restore(&mut play, &on).is_empty());

    let unused = FLAGS.replace("{default: true}", "{default: true, enabled: false}");
    play.reload(&file(&unused));
    assert_eq!(restore(&mut play, &on), ["conflict"]);
    assert!(!is_on(&play, "plain"), "off by the file");
    let off = all(&play);
    assert!(restore(&mut play, &off).is_empty());
    assert!(play.world.state.flags.is_empty(), "nothing is hidden");

    let set = FlagChange::Set(parsed("{share: 10%, enabled: false}"));
    assert!(play.must(change("half", set)));
    assert_eq!(
        restore(&mut play, &on),
        ["conflict", "restored", "conflict"]
    );
    let expected = switchback_config::model::Flag {
        enabled: false,
        ..on["half"].clone()
    };
    assert_eq!(flag(&play, "half"), Some(expected), "off as it was set");

    play.reload(&file(FLAGS));
    assert!(is_on(&play, "plain"), "nothing was left behind");
    assert_eq!(restore(&mut play, &off), ["conflict", "restored"]);
    assert!(!is_on(&play, "plain"), "on now, and off then");
}

#[test]
fn shares_that_make_no_sense_are_refused() {
    let mut play = play();
    for (name, shares) in [
        ("risky", vec![("on", 1)]),
        ("half", vec![("of", 1)]),
        ("half", vec![("on", 900_000), ("off", 100_001)]),
    ] {
        let shares = shares.into_iter().map(|(variant, parts)| {
            let share = switchback_config::units::Percent::from_millionths(parts);
            (variant.to_owned(), share)
        });
        let command = change(name, FlagChange::Shares(shares.collect()));
        assert!(
            matches!(play.act(command), Err(Refusal::InvalidFlag(_))),
            "{name}"
        );
    }
    assert!(play.world.state.flags.is_empty());
}
