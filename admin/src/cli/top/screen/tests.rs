use serde_json::json;

use super::*;
use crate::cli::top::tests::{look, many, screen};

fn key(code: KeyCode) -> KeyEvent {
    KeyEvent::new(code, KeyModifiers::NONE)
}

/// Presses keys one after the other; what the last one asks for.
fn press(screen: &mut Screen, keys: &str) -> Option<Wish> {
    let mut wish = None;
    for character in keys.chars() {
        wish = screen.press(key(match character {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '<' => KeyCode::Backspace,
            other => KeyCode::Char(other),
        }));
    }
    wish
}

fn rollback(service: &str) -> Order {
    Order {
        service: service.into(),
        act: Act::Rollback,
    }
}

fn found(screen: &Screen) -> Vec<&str> {
    let found = screen.found().into_iter();
    found.map(|service| facts::word(&service["name"])).collect()
}

#[test]
fn choice_moves_with_keys_and_stops_at_both_ends() {
    let mut screen = screen();
    let chosen = |screen: &Screen| screen.chosen.clone().unwrap_or_default();
    assert_eq!(chosen(&screen), "checkout");
    for (keys, expected) in [
        ("j", "search"),
        ("jj", "site"),
        ("k", "search"),
        ("kkk", "checkout"),
        ("G", "site"),
        ("g", "checkout"),
    ] {
        assert_eq!(press(&mut screen, keys), None);
        assert_eq!(chosen(&screen), expected, "{keys}");
    }
    screen.press(key(KeyCode::PageDown));
    assert_eq!(chosen(&screen), "site");
    screen.press(key(KeyCode::Up));
    assert_eq!(chosen(&screen), "search");
}

#[test]
fn choice_stays_with_its_service_while_others_come_and_go() {
    let mut screen = screen();
    press(&mut screen, "j");
    let mut next = look(11);
    let services = next.answer["services"].as_array_mut().expect("a list");
    services.insert(0, json!({"name": "a-new-one", "backends": {}}));
    screen.hear(News::Look(Box::new(next)));
    assert_eq!(screen.chosen.as_deref(), Some("search"));
    screen.hear(News::Look(Box::new(many(3))));
    assert_eq!(screen.chosen.as_deref(), Some("service-00"), "it has gone");
}

#[test]
fn rollback_is_carried_out_only_after_its_plan_was_seen_and_confirmed() {
    let mut screen = screen();
    let order = rollback("checkout");
    assert_eq!(press(&mut screen, "r"), Some(Wish::Plan(order.clone())));
    assert_eq!(
        press(&mut screen, "y"),
        None,
        "there is nothing to confirm yet"
    );
    screen.hear(News::Planned(
        order.clone(),
        Ok(json!({"changed": true, "diff": "x"})),
    ));
    assert_eq!(press(&mut screen, "j\n"), None, "other keys do nothing");
    assert!(matches!(screen.mode, Mode::Confirm(..)));
    assert_eq!(press(&mut screen, "y"), Some(Wish::Do(order.clone())));
    assert_eq!(press(&mut screen, "y"), None, "once");
    let answer = json!({"changed": true, "weights": {"blue": 100, "green": 0}, "revision": 8, "applied_in_us": 312, "durable": true});
    screen.hear(News::Done(order, Ok(answer)));
    assert_eq!(screen.mode, Mode::Look);
    assert_eq!(
        screen.said.as_deref(),
        Some(
            "checkout: rolled back to blue=100 green=0, revision 8, in force everywhere after 312 us"
        )
    );
}

#[test]
fn plan_that_changes_nothing_cannot_be_confirmed() {
    let mut screen = screen();
    let order = rollback("checkout");
    press(&mut screen, "r");
    screen.hear(News::Planned(order, Ok(json!({"changed": false}))));
    assert_eq!(press(&mut screen, "y"), None);
    assert_eq!(screen.mode, Mode::Look);
}

#[test]
fn question_can_be_left_at_any_time() {
    let mut screen = screen();
    let order = rollback("checkout");
    for leave in ["\u{1b}", "n", "q"] {
        press(&mut screen, "r");
        screen.hear(News::Planned(order.clone(), Ok(json!({"changed": true}))));
        assert_eq!(press(&mut screen, leave), None);
        assert_eq!(screen.mode, Mode::Look, "{leave:?}");
    }
    press(&mut screen, "r\u{1b}");
    screen.hear(News::Planned(order, Ok(json!({"changed": true}))));
    assert_eq!(screen.mode, Mode::Look, "nobody asks any more");
}

#[test]
fn refusals_are_shown_until_a_key_is_pressed() {
    let mut screen = screen();
    let order = rollback("checkout");
    press(&mut screen, "r");
    screen.hear(News::Planned(order.clone(), Err("no".into())));
    assert_eq!(screen.mode, Mode::Refused(order.clone(), "no".into()));
    press(&mut screen, "x");
    assert_eq!(screen.mode, Mode::Look);
    // Also the one of an order whose dialog was left.
    screen.mode = Mode::Doing(order.clone());
    press(&mut screen, "\u{1b}");
    screen.hear(News::Done(order.clone(), Err("late no".into())));
    assert_eq!(screen.mode, Mode::Refused(order, "late no".into()));
}

#[test]
fn p_pauses_what_runs_and_resumes_what_is_paused() {
    let mut screen = screen();
    let wish = press(&mut screen, "p");
    assert!(matches!(
        wish,
        Some(Wish::Plan(Order {
            act: Act::Pause,
            ..
        }))
    ));
    press(&mut screen, "\u{1b}");
    let mut paused = look(11);
    paused.answer["services"][0]["rollout"]["status"] = "paused".into();
    screen.hear(News::Look(Box::new(paused)));
    let wish = press(&mut screen, "p");
    assert!(matches!(
        wish,
        Some(Wish::Plan(Order {
            act: Act::Resume,
            ..
        }))
    ));
    press(&mut screen, "\u{1b}j");
    assert_eq!(press(&mut screen, "p"), None);
    assert_eq!(
        screen.said.as_deref(),
        Some("search: no rollout is under way")
    );
}

#[test]
fn search_looks_at_names_backends_versions_and_states() {
    let mut screen = screen();
    for (text, expected) in [
        ("SITE", &["site"][..]),
        ("42", &["checkout"]),
        ("green", &["checkout"]),
        ("is down", &["search"]),
        ("nowhere", &[]),
        ("", &["checkout", "search", "site"]),
    ] {
        press(&mut screen, &format!("/{text}\n"));
        assert_eq!(found(&screen), expected, "{text}");
        assert_eq!(screen.chosen.as_deref(), expected.first().copied());
        press(&mut screen, "\u{1b}");
        assert_eq!(found(&screen).len(), 3, "Esc shows all again");
    }
    press(&mut screen, "/sitx<e");
    assert_eq!(found(&screen), ["site"], "while it is typed");
    assert_eq!(press(&mut screen, "\nq"), Some(Wish::Quit));
}

#[test]
fn keys_without_a_service_do_nothing() {
    let mut screen = screen();
    press(&mut screen, "/nowhere\n");
    assert_eq!(press(&mut screen, "rpjk\n"), None);
    assert_eq!(screen.chosen, None);
    assert_eq!(screen.mode, Mode::Look);
}

#[test]
fn control_c_ends_it_from_everywhere_and_releases_of_keys_do_nothing() {
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for before in ["", "?", "/", "r"] {
        let mut screen = screen();
        press(&mut screen, before);
        assert_eq!(screen.press(control_c), Some(Wish::Quit), "{before:?}");
    }
    let mut released = key(KeyCode::Char('q'));
    released.kind = KeyEventKind::Release;
    assert_eq!(screen().press(released), None);
}

#[test]
fn lost_connection_is_remembered_until_the_next_look_and_paces_begin_anew() {
    let mut screen = screen();
    let seen = screen.link.seen;
    assert!(screen.paces.of("checkout", "blue").is_some());
    screen.hear(News::Lost("gone".into()));
    let lost = Link {
        seen,
        lost: Some("gone".into()),
    };
    assert_eq!(screen.link, lost);
    screen.hear(News::Look(Box::new(look(60))));
    assert_eq!(screen.link.lost, None);
    assert!(screen.paces.of("checkout", "blue").is_none());
}
