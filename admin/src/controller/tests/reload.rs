//! A changed file beside what was set at run time.

use super::*;

/// The file, with flags that go off with a rollback of green.
fn with_flags_of_green(flags: &str) -> String {
    let file = FILE.replace(
        "endpoints: [\"http://127.0.0.1:2\"]",
        &format!("endpoints: [\"http://127.0.0.1:2\"], off_on_rollback: [{flags}]"),
    );
    format!("{file}flags: {{one: {{default: true}}, other: {{default: true}}}}\n")
}

#[test]
fn other_flags_of_a_backend_leave_its_deployment_alone() {
    let mut play = Play::new();
    play.reload(&with_flags_of_green("one"));
    play.must(Command::SetBackend {
        service: shop(),
        backend: "green".into(),
        version: "2.1".into(),
        endpoints: vec!["http://127.0.0.1:22".parse().expect("endpoint")],
        declared: crate::command::Declared::default(),
        force: true,
    });
    play.reload(&with_flags_of_green("one, other"));

    let green = &play.effective().backends["green"];
    assert_eq!(&*green.version, "2.1");
    assert_eq!(green.endpoints[0].to_string(), "http://127.0.0.1:22");
    let flags: Vec<&str> = green.off_on_rollback.iter().map(|flag| &**flag).collect();
    assert_eq!(flags, ["one", "other"]);
}

#[test]
fn stable_whose_new_version_is_blocked_is_nothing_to_go_back_to() {
    let mut play = Play::new();
    play.must(block("green"));
    let blue_with_what_is_blocked = FILE
        .replace("blue: {version: \"1\"", "blue: {version: \"2\"")
        .replace("green: 20", "green: 0");
    play.reload(&blue_with_what_is_blocked);

    let effective = play.effective();
    assert_eq!(
        &*effective.stable, "red",
        "the only one that is not blocked"
    );
    assert_eq!(effective.previous, None);
    assert!(effective.trial_at(play.now).is_none());
    assert_eq!(play.weights(), [0, 0, 80], "blue's share");
    assert_eq!(effective.conflicts.len(), 1, "{:?}", effective.conflicts);
}
