//! Recordings: whatever a judge is told, playing the recording again after a journey through JSON gives
//! the same verdict at the same tick with the same numbers, and a changed recording is noticed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

use std::time::Duration;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use switchback_config::{defaults, model::RateRule};
use switchback_judge::{
    Control, Counts, Judge, Recorder, RuleState, Settings, Tape, Verdict, What,
};

fn through_json<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_slice(&serde_json::to_vec(value).unwrap()).unwrap()
}

fn settings() -> Settings {
    Settings::new(&defaults::rollback(), 1)
}

fn counts(canary: (u64, u64), stable: (u64, u64)) -> Counts {
    Counts {
        canary_requests: canary.0,
        canary_failures: canary.1.min(canary.0),
        stable_requests: stable.0,
        stable_failures: stable.1.min(stable.0),
    }
}

/// One thing that happens to a judge.
#[derive(Clone, Debug)]
enum Step {
    Tick(u64, Counts, Control),
    Quiet(u64, u32),
    HeadStart,
    NewVersion,
    NewStable,
    Baseline(u64, Counts),
}

fn some_counts() -> impl Strategy<Value = Counts> {
    let side = |most: u64| {
        (
            0..most,
            prop_oneof![6 => Just(0), 2 => 0..3_u64, 1 => 0..most],
        )
    };
    (side(40), side(200)).prop_map(|(canary, stable)| counts(canary, stable))
}

fn step() -> impl Strategy<Value = Step> {
    let control = prop_oneof![8 => Just(Control::Compared), 1 => Just(Control::Alone)];
    prop_oneof![
        60 => (1..3_000_000_u64, some_counts(), control).prop_map(|(gap, c, control)| Step::Tick(gap, c, control)),
        5 => (1..400_000_u64, 1..40_u32).prop_map(|(gap, times)| Step::Quiet(gap, times)),
        2 => Just(Step::HeadStart),
        1 => Just(Step::NewVersion),
        1 => Just(Step::NewStable),
        2 => (1..3_000_000_u64, some_counts()).prop_map(|(gap, c)| Step::Baseline(gap, c)),
    ]
}

/// Tells a recorded judge and a plain one the same; both must say the same all the time.
fn run(steps: &[Step], repeat: usize) -> (Recorder<Judge>, Judge) {
    let mut now = Duration::from_micros(1_234_567);
    let mut recorder = Recorder::new(settings(), now);
    let mut plain = Judge::new(settings(), now);
    for step in steps.iter().cycle().take(steps.len() * repeat) {
        match step {
            Step::Tick(gap, counts, control) => {
                now += Duration::from_micros(*gap);
                let said = recorder.tick(now, *counts, *control);
                assert_eq!(said, plain.tick(now, *counts, *control));
            }
            Step::Quiet(gap, times) => {
                for _ in 0..*times {
                    now += Duration::from_micros(*gap);
                    let said = recorder.tick(now, Counts::default(), Control::Compared);
                    assert_eq!(said, plain.tick(now, Counts::default(), Control::Compared));
                }
            }
            Step::HeadStart => {
                recorder.head_start(now);
                plain.head_start(now);
            }
            Step::NewVersion => {
                recorder.new_version(now);
                plain.new_version(now);
            }
            Step::NewStable => {
                recorder.new_stable(now);
                plain.new_stable(now);
            }
            Step::Baseline(gap, counts) => {
                now += Duration::from_micros(*gap);
                recorder.baseline(now, *counts);
                plain.baseline(now, *counts);
            }
        }
        if recorder.judge().has_concluded() {
            break;
        }
    }
    (recorder, plain)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn recording_comes_to_the_same_verdict_at_the_same_tick(steps in prop::collection::vec(step(), 1..300)) {
        let (recorder, plain) = run(&steps, 1);
        prop_assert_eq!(recorder.judge().explain(), plain.explain());
        if let Some(tape) = recorder.tape() {
            let read: Tape<Judge> = through_json(&tape);
            prop_assert_eq!(&read, &tape);
            let replayed = read.replay().unwrap();
            prop_assert_eq!(replayed.has_concluded(), plain.has_concluded());
            prop_assert_eq!(replayed.explain(), plain.explain());
            prop_assert_eq!(replayed.reading(), plain.reading());
        }
    }

    #[test]
    fn long_recordings_are_cut_at_a_checkpoint_and_still_replay(
        healthy in prop::collection::vec((1..60_000_u64, 1..20_u64, 1..200_u64), 1..50),
        rounds in 1..90_usize,
    ) {
        let ticks = healthy.iter().map(|(gap, canary, stable)| {
            Step::Tick(*gap, counts((*canary, 0), (*stable, 0)), Control::Compared)
        });
        let (mut recorder, _) = run(&ticks.collect::<Vec<_>>(), rounds);
        let mut now = Duration::from_secs(1_000_000);
        while recorder.tick(now, counts((5, 5), (95, 0)), Control::Compared) != Verdict::Rollback {
            now += Duration::from_millis(1);
        }
        let tape: Tape<Judge> = through_json(&recorder.tape().unwrap());
        prop_assert!(tape.inputs.len() <= 2 * 1_024);
        prop_assert_eq!(tape.concluded_us, Some(u64::try_from(now.as_micros()).unwrap()));
        prop_assert_eq!(tape.replay().unwrap().explain(), recorder.judge().explain());
    }

    #[test]
    fn recorded_rule_fires_when_the_rule_does(
        ticks in prop::collection::vec((1..900_000_u64, some_counts()), 1..2_000),
        percent in 1..40_u32, seconds in 1..60_u64,
    ) {
        let rule = RateRule {
            threshold: switchback_config::units::Percent::from_millionths(percent * 10_000),
            span: switchback_config::units::TimeSpan(Duration::from_secs(seconds)),
            not_stable: false,
        };
        let (mut now, mut plain) = (Duration::ZERO, RuleState::new(&rule, Duration::ZERO));
        let mut recorder = Recorder::of_rule(plain.clone());
        for (gap, counts) in ticks {
            now += Duration::from_micros(gap);
            let fired = plain.tick(now, counts);
            prop_assert_eq!(recorder.tick(now, counts), fired);
            if fired {
                break;
            }
        }
        if let Some(tape) = recorder.tape() {
            let read: Tape<RuleState> = through_json(&tape);
            prop_assert!(read.inputs.len() <= 2 * 1_024);
            prop_assert!(read.replay().is_ok());
        }
    }
}

fn failing_canary() -> Tape<Judge> {
    let mut recorder = Recorder::new(settings(), Duration::ZERO);
    for tick in 1.. {
        let now = Duration::from_millis(50 * tick);
        let canary = (3, u64::from(tick > 100));
        if recorder.tick(now, counts(canary, (95, 0)), Control::Compared) == Verdict::Rollback {
            break;
        }
    }
    recorder.tape().unwrap()
}

#[test]
fn quiet_at_the_end_is_on_the_recording_too() {
    let mut recorder = Recorder::new(settings(), Duration::ZERO);
    let mut plain = Judge::new(settings(), Duration::ZERO);
    for tick in 1..=57 {
        let now = Duration::from_millis(50 * tick);
        let heard = match tick {
            1..=20 => counts((5, 0), (95, 0)),
            21 => counts((5, 1), (95, 0)),
            _ => Counts::default(),
        };
        assert_eq!(
            recorder.tick(now, heard, Control::Compared),
            plain.tick(now, heard, Control::Compared)
        );
    }
    let replayed = recorder.tape().unwrap().replay().unwrap();
    assert_eq!(replayed.explain(), plain.explain());
    assert!(plain.explain().seconds > 1.0, "{:?}", plain.explain());
}

#[test]
fn changed_recording_is_noticed() {
    let tape = failing_canary();
    let verdict = tape.replay().unwrap().explain();
    let with = |index: usize, change: &dyn Fn(&mut Counts)| {
        let mut changed = tape.clone();
        if let What::Tick(counts, _) = &mut changed.inputs[index].what {
            change(counts);
        }
        changed
    };
    let last = tape.inputs.len() - 1;
    for changed in [
        with(last, &|counts| counts.canary_failures = 0),
        with(last - 5, &|counts| counts.canary_failures = 3),
        with(0, &|counts| counts.stable_failures = 90),
        with(20, &|counts| counts.stable_requests += 1),
    ] {
        let noticed = match changed.replay() {
            Err(_) => true,
            Ok(judge) => judge.explain() != verdict,
        };
        assert!(noticed, "{changed:?}");
    }
    let mut short = tape.clone();
    short.inputs.pop();
    assert_eq!(
        short.replay().unwrap_err().to_string(),
        format!(
            "played again it concludes never, recorded was at {} us",
            tape.concluded_us.unwrap()
        )
    );
}

#[test]
fn level_of_minus_infinity_survives_json() {
    let mut text = serde_json::to_string(&failing_canary().checkpoint).unwrap();
    // As a judge is before its first start.
    let level = text.find("\"level\":").unwrap() + "\"level\":".len();
    let end = level + text[level..].find(',').unwrap();
    text.replace_range(level..end, "\"-inf\"");
    let judge: Judge = serde_json::from_str(&text).unwrap();
    assert_eq!(judge.reading().levels[0], f64::NEG_INFINITY);
    assert_eq!(through_json(&judge), judge);
}

#[test]
fn impossible_inputs_are_refused() {
    for row in [
        r#"["tick",5,1,2,0,0]"#,
        r#"["tock",5,1,1,0,0]"#,
        r#"["tick",5,1]"#,
    ] {
        assert!(serde_json::from_str::<switchback_judge::Input>(row).is_err());
    }
}

#[test]
fn ticks_that_change_nothing_are_not_written_down() {
    let mut recorder = Recorder::new(settings(), Duration::ZERO);
    for tick in 0..2_000 {
        recorder.tick(
            Duration::from_millis(50 * tick),
            Counts::default(),
            Control::Compared,
        );
    }
    let inputs = recorder.tape().unwrap().inputs.len();
    assert!(inputs <= 101, "one refresh a second, not {inputs}");
}
