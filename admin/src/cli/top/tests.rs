//! What is seen: whole screens, kept in `screens`, written anew with `UPDATE_EXPECT=1`. Look at them as
//! somebody on call would.

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use serde_json::{Value, json};

use super::draw::{Paint, draw};
use super::feed::{Act, Look, News, Order};
use super::pace::Times;
use super::screen::{Mode, Screen};

/// When the stopwatch of all looks began.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn when(second: u64) -> Timestamp {
    let noon: Timestamp = "2026-01-02T12:00:00Z".parse().expect("a time");
    noon + Duration::from_secs(second)
}

/// A backend that has counted so much until this second.
fn backend(version: &str, weight: u32, rates: [u64; 2], second: u64) -> Value {
    let [requests, failures] = rates.map(|rate| rate * second);
    let endpoint =
        json!({"url": "http://10.0.0.1:9001", "address": "10.0.0.1:9001", "health": "healthy"});
    json!({
        "version": version, "role": "canary", "weight": weight, "share": f64::from(weight) / 100.0,
        "blocked": null, "health": "healthy", "endpoints": [endpoint], "in_flight": 3,
        "requests": requests, "failures": failures,
    })
}

/// Three services at a second: a rollout, one that is down, one without a care.
pub(super) fn look(second: u64) -> Look {
    let judge = json!({
        "evidence": 0.42, "verdict": "continue",
        "sentence": "31 of 500 failed (6.2%), stable 19 of 9,500 (0.20%), odds of a healthy canary 1 in 26",
    });
    let rollout = json!({
        "service": "checkout", "canary": "green", "version": "42", "status": "running", "weight": "5%",
        "stage": {"kind": "step", "number": 1, "of": 3}, "waits_for": {"for": "time", "until": "2026-01-02T12:05:00Z"},
    });
    let mut blue = backend("41", 95, [950, 2], second);
    blue["role"] = "stable".into();
    blue["endpoints"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"health": "healthy"}));
    let mut only = backend("2026-01-01.7", 100, [0, 0], second);
    only["role"] = "stable".into();
    let mut down = backend("7", 100, [20, 20], second);
    down["role"] = "stable".into();
    down["health"] = "unhealthy".into();
    down["endpoints"][0]["health"] = "unhealthy".into();
    let services = json!([
        {"name": "checkout", "stable": "blue", "judge": {"green": judge}, "rollout": rollout,
         "backends": {"blue": blue, "green": backend("42", 5, [50, 3], second)}},
        {"name": "search", "stable": "main", "backends": {"main": down}},
        {"name": "site", "stable": "main", "backends": {"main": only}},
    ]);
    let buckets = vec![
        (0.001, 500 * second),
        (0.01, 940 * second),
        (0.1, 950 * second),
        (f64::INFINITY, 950 * second),
    ];
    let times = Times::from([(("checkout".into(), "blue".into()), buckets)]);
    of(services, second, times)
}

fn of(services: Value, second: u64, times: Times) -> Look {
    Look {
        at: *START + Duration::from_secs(second),
        when: when(second),
        answer: json!({"revision": 7, "stable_only": false, "services": services}),
        times,
    }
}

/// Many services alike.
pub(super) fn many(count: usize) -> Look {
    let service = |index: usize| json!({"name": format!("service-{index:02}"), "stable": "main", "backends": {"main": backend("1", 100, [0, 0], 0)}});
    of((0..count).map(service).collect(), 20, Times::new())
}

/// After ten seconds of looking.
pub(super) fn screen() -> Screen {
    let mut screen = Screen::new("http://127.0.0.1:9900/".into(), look(0));
    screen.hear(News::Look(Box::new(look(10))));
    screen.hear(News::Incident("checkout".into(), Value::Null));
    screen
}

fn drawn(screen: &Screen, colours: bool, [width, height]: [u16; 2]) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    let paint = Paint { colours };
    terminal
        .draw(|frame| draw(frame, screen, paint, when(12)))
        .expect("drawn");
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let rows = buffer.content.chunks(width);
    let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
    rows.map(|row| format!("{}\n", row.trim_end())).collect()
}

/// Compares a screen with the one that is kept.
#[track_caller]
fn assert_shows(name: &str, screen: &Screen, size: [u16; 2]) {
    let path = format!(
        "{}/src/cli/top/screens/{name}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    let (path, seen) = (Path::new(&path), text(&drawn(screen, false, size)));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &seen).expect("written");
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(seen, expected, "{name}:\n{seen}");
}

fn order(act: Act) -> Order {
    Order {
        service: "checkout".into(),
        act,
    }
}

#[test]
fn wide_terminal_has_services_and_the_details_of_one() {
    assert_shows("wide", &screen(), [120, 26]);
}

#[test]
fn narrow_terminal_has_what_matters_most() {
    assert_shows("narrow", &screen(), [60, 24]);
}

#[test]
fn low_terminal_has_services_only_until_details_are_opened() {
    let mut screen = screen();
    assert_shows("low", &screen, [80, 8]);
    screen.is_open = true;
    assert_shows("low_details", &screen, [80, 8]);
    screen.scroll = 3;
    assert_shows("low_details_scrolled", &screen, [80, 8]);
}

#[test]
fn lost_connection_leaves_no_number_on_the_screen() {
    let mut screen = screen();
    screen.hear(News::Lost(
        "reach the admin API at http://127.0.0.1:9900/: connection refused".into(),
    ));
    assert_shows("disconnected", &screen, [80, 10]);
}

#[test]
fn question_before_a_rollback_shows_what_it_would_do() {
    let mut screen = screen();
    let plan = json!({
        "changed": true,
        "diff": "weights.blue: 95 -> 100\nweights.green: 5 -> 0\nrollout.status: running -> rolled_back",
        "notes": ["version 42 will be blocked until switchback unblock checkout green"],
    });
    screen.mode = Mode::Confirm(order(Act::Rollback), plan);
    assert_shows("confirm", &screen, [80, 24]);
    screen.mode = Mode::Confirm(order(Act::Rollback), json!({"changed": false}));
    assert_shows("confirm_nothing", &screen, [60, 12]);
}

#[test]
fn refusal_says_why_and_how_to_do_it_by_hand() {
    let mut screen = screen();
    let why = "stable blue has no healthy endpoint, and green has one; force goes back nevertheless (no_healthy_target)";
    screen.mode = Mode::Refused(order(Act::Rollback), why.into());
    assert_shows("refused", &screen, [60, 16]);
}

#[test]
fn help_names_every_key() {
    let mut screen = screen();
    screen.mode = Mode::Help;
    assert_shows("help", &screen, [80, 24]);
}

#[test]
fn chosen_one_of_many_is_in_sight_and_search_says_when_nothing_is_found() {
    let mut screen = Screen::new("http://127.0.0.1:9900/".into(), many(40));
    screen.chosen = Some("service-25".into());
    assert_shows("many", &screen, [80, 12]);
    screen.chosen = Some("service-39".into());
    assert_shows("many_end", &screen, [80, 12]);
    screen.search = "nowhere".into();
    screen.mode = Mode::Search;
    assert_shows("search_nothing", &screen, [80, 6]);
}

#[test]
fn everything_that_can_be_wrong_with_a_service_is_told_in_its_details() {
    let mut next = look(20);
    let at = "2026-01-02T11:59:00Z";
    let service = &mut next.answer["services"][0];
    service["previous"] = "red".into();
    service["on_trial"] = json!({"backend": "blue", "until": "2026-01-04T12:00:00Z"});
    service["rollout"]["status"] = "paused".into();
    service["rollout"]["paused"] = json!({"by": "ada", "at": at, "reason": "lunch"});
    service["rollout"]["waits_for"] = json!({"for": "resume"});
    service["judge"]["green"]["verdict"] = "hold".into();
    service["judge"]["green"]["hold"] = "stable fails as well".into();
    service["judge"]["blue"] =
        json!({"evidence": 0.0, "verdict": "continue", "sentence": "2 of 950 failed"});
    service["backends"]["red"] = json!({
        "version": "40", "role": "previous", "weight": 0, "share": 0.0, "blocked": {"by": "ada"}, "in_flight": 0,
        "health": "unknown", "endpoints": [{"url": "http://10.0.0.3:9003", "health": "unknown"}],
        "requests": 12_345_678, "failures": 0,
    });
    service["blocked_versions"] =
        json!({"40": {"backend": "red", "by": "ada", "at": at, "reason": "bad"}});
    service["rules_firing"] =
        json!([{"backend": "blue", "sentence": "error_rate > 5% for 5m: 6.1%"}]);
    service["signals"] = json!([
        {"name": "cpu", "state": "firing", "value": 91.0, "threshold": "> 90", "for": "1m"},
        {"name": "orders", "state": "missing", "error": "no answer within 2s"},
        {"name": "idle", "state": "ok", "value": 1, "threshold": "> 5", "for": "1m"},
    ]);
    service["conflicts"] = json!([
        {"kind": "differs", "sentence": "weights were set by ada", "ends": "switchback weights checkout blue=100 green=0"},
        {"kind": "refused", "sentence": "the file gives blocked version 40 weight", "ends": "switchback unblock checkout red"},
    ]);
    service["override"] = json!({"lease": {"until": "2026-01-02T13:00:00Z"}});
    service["mirror"] = json!({"to": "red", "mirrored": 12_000, "failed": 3, "mismatched": 1});
    let mut screen = screen();
    screen.hear(News::Look(Box::new(next)));
    let incident = json!({
        "id": 6, "at": at, "backend": "green", "version": "39", "by": "judge", "cause": "judge",
        "sentence": "120 of 400 failed", "recovery": "did_not_help",
    });
    screen.hear(News::Incident("checkout".into(), incident));
    screen.is_open = true;
    assert_shows("everything", &screen, [100, 34]);
}

#[test]
fn state_that_was_lost_is_told_in_the_first_line() {
    let mut lost = look(11);
    lost.answer["stable_only"] = true.into();
    let mut screen = screen();
    screen.hear(News::Look(Box::new(lost)));
    assert!(text(&drawn(&screen, false, [120, 8])).contains("!! state lost: stable only"));
}

#[test]
fn without_colours_no_cell_has_one_and_words_are_the_same() {
    let screen = screen();
    let size = [120, 26];
    let (plain, coloured) = (drawn(&screen, false, size), drawn(&screen, true, size));
    let colours = |buffer: &Buffer| {
        let cells = buffer.content.iter();
        cells
            .filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
            .count()
    };
    assert_eq!(colours(&plain), 0);
    assert!(colours(&coloured) > 0);
    assert_eq!(text(&plain), text(&coloured));
}

#[test]
fn no_size_is_too_small() {
    for size in [[1, 1], [3, 2], [10, 3], [20, 40]] {
        for mode in [
            Mode::Look,
            Mode::Help,
            Mode::Confirm(order(Act::Pause), json!({})),
        ] {
            let mut screen = screen();
            screen.mode = mode;
            drawn(&screen, true, size);
            screen.is_open = true;
            screen.scroll = u16::MAX;
            drawn(&screen, true, size);
        }
    }
}
