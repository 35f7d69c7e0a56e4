//! When a signal fires, and what silence does to it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use switchback_judge::{SignalRecorder, SignalStanding, SignalState, SignalTape};

const EVERY: u64 = 10;
const FRESH: u64 = 3 * EVERY;
const SPAN: u64 = 120;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn state() -> SignalState {
    SignalState::new(seconds(SPAN), seconds(FRESH))
}

/// Looks at these seconds, each of which brings an answer; the first second at which it has fired.
fn fires(looks: impl IntoIterator<Item = (u64, bool)>) -> Option<u64> {
    let mut state = state();
    for (at, bad) in looks {
        state.note(seconds(at), bad);
        if state.standing(seconds(at)) == SignalStanding::Firing {
            return Some(at);
        }
    }
    None
}

fn every_ten(from: u64, to: u64, bad: bool) -> impl Iterator<Item = (u64, bool)> {
    (from..=to).step_by(10).map(move |at| (at, bad))
}

#[test]
fn signal_fires_once_it_was_bad_for_its_whole_span() {
    assert_eq!(fires(every_ten(0, 110, true)), None);
    assert_eq!(fires(every_ten(0, 300, true)), Some(120));
    assert_eq!(fires(every_ten(0, 300, false)), None);
}

#[test]
fn one_good_answer_begins_the_run_anew() {
    let looks = every_ten(0, 110, true)
        .chain([(120, false)])
        .chain(every_ten(130, 600, true));
    assert_eq!(fires(looks), Some(250));
}

#[test]
fn missed_look_changes_nothing_while_the_last_answer_counts() {
    let looks = every_ten(0, 50, true).chain(every_ten(80, 300, true));
    assert_eq!(fires(looks), Some(120));
}

#[test]
fn time_of_a_gap_is_left_out_of_the_run() {
    // 50 s before the gap; 70 s after it.
    let looks = every_ten(0, 50, true).chain(every_ten(90, 600, true));
    assert_eq!(fires(looks), Some(160));
}

#[test]
fn gap_as_long_as_the_span_begins_the_run_anew() {
    let looks = every_ten(0, 110, true).chain(every_ten(230, 600, true));
    assert_eq!(fires(looks), Some(350));
}

#[test]
fn answer_counts_for_three_looks_and_then_the_signal_is_missing() {
    let mut state = state();
    assert_eq!(state.standing(seconds(0)), SignalStanding::Missing);
    state.note(seconds(5), false);
    assert_eq!(state.standing(seconds(5)), SignalStanding::Fine);
    assert_eq!(state.standing(seconds(5 + FRESH)), SignalStanding::Fine);
    assert_eq!(state.standing(seconds(6 + FRESH)), SignalStanding::Missing);
    state.note(seconds(100), true);
    assert_eq!(state.standing(seconds(100)), SignalStanding::Pending);
}

#[test]
fn signal_that_has_fired_stays_so() {
    let mut state = state();
    for (at, bad) in every_ten(0, SPAN, true) {
        state.note(seconds(at), bad);
    }
    state.note(seconds(SPAN + 10), false);
    let long_after = seconds(SPAN + 10_000);
    assert_eq!(state.standing(long_after), SignalStanding::Firing);
}

/// Seconds since the look before, and its answer; none: the look brought nothing.
fn looks() -> impl Strategy<Value = Vec<(u64, Option<bool>)>> {
    let gap = prop_oneof![8 => 1_u64..40, 1 => 40_u64..200];
    let answer = prop_oneof![8 => Just(Some(true)), 1 => Just(Some(false)), 1 => Just(None)];
    vec((gap, answer), 0..60)
}

/// How long it was bad before `at` as far as is known, counted the slow way: the longest run of bad
/// answers up to `at`, of whose stretches those count that lie between answers near each other.
fn known_bad(answers: &[(u64, bool)]) -> u64 {
    let mut longest = 0;
    for start in 0..answers.len() {
        let mut run = 0;
        for pair in answers[start..].windows(2) {
            let gap = pair[1].0 - pair[0].0;
            if !pair[0].1 || !pair[1].1 || gap >= SPAN {
                break;
            }
            if gap <= FRESH {
                run += gap;
            }
            longest = longest.max(run);
        }
    }
    longest
}

proptest! {
    #[test]
    fn it_fires_exactly_when_it_is_known_to_have_been_bad_for_its_span(looks in looks()) {
        let mut state = state();
        let (mut now, mut answers) = (0, Vec::new());
        for (after, answer) in looks {
            now += after;
            if let Some(bad) = answer {
                answers.push((now, bad));
                state.note(seconds(now), bad);
            }
            let fired = state.standing(seconds(now)) == SignalStanding::Firing;
            prop_assert_eq!(fired, known_bad(&answers) >= SPAN);
        }
    }

    #[test]
    fn silence_never_fires(looks in looks(), silence in 1_u64..1_000_000) {
        let mut state = state();
        let mut now = 0;
        for (after, answer) in looks {
            now += after;
            if let Some(bad) = answer {
                state.note(seconds(now), bad);
            }
        }
        let before = state.standing(seconds(now));
        let after = state.standing(seconds(now + FRESH + silence));
        let expected = match before {
            SignalStanding::Firing => SignalStanding::Firing,
            _ => SignalStanding::Missing,
        };
        prop_assert_eq!(after, expected);
    }

    #[test]
    fn answers_that_are_never_bad_never_fire(gaps in vec(1_u64..200, 0..60)) {
        let mut state = state();
        let mut now = 0;
        for gap in gaps {
            now += gap;
            state.note(seconds(now), false);
            prop_assert!(state.standing(seconds(now)) == SignalStanding::Fine);
        }
    }
}

fn through_json(tape: &SignalTape) -> SignalTape {
    serde_json::from_slice(&serde_json::to_vec(tape).unwrap()).unwrap()
}

proptest! {
    /// Whatever a signal was told, however often: told the same again it fires at the same answer.
    #[test]
    fn recording_comes_to_the_same_verdict_when_it_is_played_again(
        looks in vec((1_u64..90_000_000, proptest::num::f64::NORMAL, proptest::bool::weighted(0.9)), 1..900),
    ) {
        let mut recorder = SignalRecorder::new(state());
        let mut plain = state();
        let (mut now, mut fired_us) = (0, None);
        for (after_us, value, bad) in looks {
            now += after_us;
            recorder.note(Duration::from_micros(now), value, bad);
            plain.note(Duration::from_micros(now), bad);
            if plain.has_fired() {
                fired_us.get_or_insert(now);
            }
        }
        let tape = recorder.tape().unwrap();
        let read = through_json(&tape);
        prop_assert_eq!(&read, &tape);
        prop_assert!(tape.looks.len() <= 360);
        prop_assert_eq!(tape.concluded_us, fired_us);
        let replayed = read.replay().unwrap();
        prop_assert_eq!(replayed.has_fired(), plain.has_fired());
    }
}

#[test]
fn recording_that_was_changed_is_noticed() {
    let mut recorder = SignalRecorder::new(state());
    for (at, bad) in every_ten(0, 300, true) {
        recorder.note(seconds(at), f64::INFINITY, bad);
    }
    let tape = through_json(&recorder.tape().unwrap());
    assert_eq!(tape.concluded_us, Some(120_000_000));
    assert_eq!(
        tape.looks.len(),
        13,
        "what came afterwards has led to nothing"
    );
    assert!(tape.looks.iter().all(|look| look.value == f64::INFINITY));
    assert!(tape.replay().is_ok());
    let mut good = tape.clone();
    good.looks[5].bad = false;
    assert!(good.replay().is_err());
    let mut later = tape;
    later.concluded_us = Some(130_000_000);
    assert!(later.replay().is_err());
}

#[test]
fn signal_that_begins_again_fires_again_and_is_recorded_anew() {
    let mut recorder = SignalRecorder::new(state());
    let mut tell = |from, to, bad| {
        for (at, bad) in every_ten(from, to, bad) {
            recorder.note(seconds(at), 1.0, bad);
        }
        let begins = recorder.begin_again_when_fine();
        (begins, recorder.standing(seconds(to)), recorder.tape())
    };
    let (begins, standing, _) = tell(0, 120, true);
    assert!(
        !begins && standing == SignalStanding::Firing,
        "it is bad still"
    );
    let (begins, standing, tape) = tell(130, 130, false);
    assert!(begins && standing == SignalStanding::Fine && tape.is_none());
    let (_, standing, _) = tell(140, 250, true);
    assert_eq!(standing, SignalStanding::Pending);
    let (_, standing, tape) = tell(260, 260, true);
    assert_eq!(standing, SignalStanding::Firing);
    let tape = through_json(&tape.unwrap());
    assert_eq!(tape.concluded_us, Some(260_000_000));
    assert!(tape.replay().is_ok());
}
