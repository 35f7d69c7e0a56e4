//! The judge against recorded runs: levels, pots and ratios to 1e-9 (absolute, or relative above 1),
//! verdicts, tick numbers, counts and sentences exactly.
//!
//! `JUDGE_VECTORS` may name another file of the same shape, which is then checked too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the test, not the judge, reads files and variables"
)]

use std::time::Duration;

use serde::Deserialize;
use switchback_config::model::RateRule;
use switchback_config::units::{Percent, TimeSpan};
use switchback_judge::likelihood::ratio;
use switchback_judge::{Control, Counts, Judge, RuleState, Settings, Verdict};

const TOLERANCE: f64 = 1e-9;

/// One year, as `1/year` means it.
const YEAR: f64 = 365.0 * 86_400.0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    judge: Vec<Run>,
    plain_rule: Vec<PlainRule>,
    g_stat: Vec<Ratio>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    name: String,
    #[serde(rename = "why")]
    _why: String,
    params: Params,
    steps: Vec<Step>,
    expect: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    max_extra_errors: f64,
    #[serde(rename = "G")]
    g: Option<f64>,
    #[serde(rename = "T")]
    t: f64,
    min_failures: u64,
    min_requests: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            max_extra_errors: 0.01,
            g: None,
            t: YEAR,
            min_failures: 3,
            min_requests: 0,
        }
    }
}

/// A tick that is done `n` times, or something else that happens between ticks. A step that is
/// neither in every field is an error, so that nothing recorded is skipped in silence.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Step {
    Action(Action),
    Tick(Tick),
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    #[serde(rename = "do")]
    action: String,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tick {
    #[serde(default = "one")]
    n: u64,
    #[serde(default)]
    dt: f64,
    #[serde(default)]
    nc: u64,
    #[serde(default)]
    xc: u64,
    #[serde(default)]
    ns: u64,
    #[serde(default)]
    xs: u64,
    #[serde(default = "yes")]
    cmp: bool,
}

fn one() -> u64 {
    1
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    verdict: String,
    rollback_at_tick: Option<u64>,
    t: f64,
    p_ref: f64,
    s: [f64; 5],
    u: [f64; 5],
    argmax: usize,
    counts: [u64; 4],
    g: f64,
    vetoes: f64,
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainRule {
    name: String,
    threshold: f64,
    for_s: u64,
    seconds: Vec<Second>,
    fires_at: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Second {
    #[serde(default = "one")]
    n: u64,
    nc: u64,
    xc: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ratio {
    nc: u64,
    xc: u64,
    ns: u64,
    xs: u64,
    g: f64,
}

fn files() -> Vec<(String, File)> {
    let own = include_str!("judge_vectors.json");
    let mut files = vec![(
        "judge_vectors.json".to_owned(),
        serde_json::from_str(own).unwrap(),
    )];
    if let Ok(path) = std::env::var("JUDGE_VECTORS") {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {path}: {e}"));
        let file = serde_json::from_str(&text).unwrap_or_else(|e| panic!("parse {path}: {e}"));
        files.push((path, file));
    }
    files
}

/// How many cases of a kind all files hold, counted without the types above.
fn recorded(kind: &str) -> usize {
    let mut texts = vec![include_str!("judge_vectors.json").to_owned()];
    if let Ok(path) = std::env::var("JUDGE_VECTORS") {
        texts.push(std::fs::read_to_string(path).unwrap());
    }
    texts
        .iter()
        .map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap())
        .map(|file| file[kind].as_array().unwrap().len())
        .sum()
}

#[track_caller]
fn assert_close(what: &str, found: f64, expected: f64) {
    let allowed = TOLERANCE * expected.abs().max(1.0);
    assert!(
        (found - expected).abs() <= allowed,
        "{what}: {found} instead of {expected}"
    );
}

#[test]
fn judge_agrees_with_every_recorded_run() {
    let mut runs = 0;
    for (file, vectors) in files() {
        for run in &vectors.judge {
            check_run(&file, run);
            runs += 1;
        }
    }
    assert_eq!(runs, recorded("judge"));
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn check_run(file: &str, run: &Run) {
    let name = format!("{file}: {}", run.name);
    let settings = Settings {
        max_extra: run.params.g.unwrap_or(run.params.max_extra_errors),
        budget_seconds: run.params.t,
        min_failures: run.params.min_failures,
        min_requests: run.params.min_requests,
    };
    let mut judge = Judge::new(settings, Duration::ZERO);
    let (mut micros, mut ticks, mut rolled_back) = (0_u64, 0, None);
    let mut verdict = Verdict::Continue;
    'run: for step in &run.steps {
        let step = match step {
            Step::Tick(tick) => tick,
            Step::Action(Action { action }) => {
                assert_eq!(action, "weight_change", "{name}: unknown action");
                judge.head_start(Duration::from_micros(micros));
                continue;
            }
        };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "steps are short"
        )]
        let step_micros = (step.dt * 1e6).round() as u64;
        for _ in 0..step.n {
            micros += step_micros;
            ticks += 1;
            let counts = Counts {
                canary_requests: step.nc,
                canary_failures: step.xc,
                stable_requests: step.ns,
                stable_failures: step.xs,
            };
            let control = if step.cmp {
                Control::Compared
            } else {
                Control::Alone
            };
            verdict = judge.tick(Duration::from_micros(micros), counts, control);
            if verdict == Verdict::Rollback {
                rolled_back = Some(ticks);
                break 'run;
            }
        }
    }
    let expected = &run.expect;
    let verdict = match verdict {
        Verdict::Continue => "continue",
        Verdict::Hold(_) => "hold",
        Verdict::Rollback => "rollback",
    };
    assert_eq!(verdict, expected.verdict, "{name}");
    assert_eq!(rolled_back, expected.rollback_at_tick, "{name}: tick");
    assert_close(
        &format!("{name}: t"),
        Duration::from_micros(micros).as_secs_f64(),
        expected.t,
    );
    let reading = judge.reading();
    assert_close(
        &format!("{name}: p_ref"),
        reading.usual_rate,
        expected.p_ref,
    );
    for index in 0..5 {
        assert_close(
            &format!("{name}: s[{index}]"),
            reading.levels[index],
            expected.s[index],
        );
        assert_close(
            &format!("{name}: u[{index}]"),
            reading.pots[index],
            expected.u[index],
        );
    }
    assert_eq!(reading.highest, expected.argmax, "{name}: argmax");
    let counts = reading.counts;
    let counts = [
        counts.canary_requests,
        counts.canary_failures,
        counts.stable_requests,
        counts.stable_failures,
    ];
    assert_eq!(counts, expected.counts, "{name}: counts");
    assert_close(&format!("{name}: g"), reading.ratio, expected.g);
    assert_close(&format!("{name}: vetoes"), reading.vetoes, expected.vetoes);
    if let Some(text) = &expected.text {
        assert_eq!(judge.explain().to_string(), *text, "{name}");
    }
}

#[test]
fn step_with_an_unknown_field_is_refused() {
    for step in [
        r#"{"do": "weight_change", "dt": 1}"#,
        r#"{"dt": 1, "nx": 2}"#,
    ] {
        assert!(serde_json::from_str::<Step>(step).is_err(), "{step}");
    }
}

#[test]
fn plain_rules_fire_when_recorded() {
    let mut rules = 0;
    for (file, vectors) in files() {
        for case in &vectors.plain_rule {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share"
            )]
            let threshold = Percent::from_millionths((case.threshold * 1e6).round() as u32);
            let span = TimeSpan(Duration::from_secs(case.for_s));
            let rule = RateRule {
                threshold,
                span,
                not_stable: false,
            };
            let mut state = RuleState::new(&rule, Duration::ZERO);
            let (mut second, mut fired) = (0_u32, None);
            for step in &case.seconds {
                for _ in 0..step.n {
                    second += 1;
                    let counts = Counts {
                        canary_requests: step.nc,
                        canary_failures: step.xc,
                        ..Counts::default()
                    };
                    let fires = state.tick(Duration::from_secs(second.into()), counts);
                    if fires && fired.is_none() {
                        fired = Some(f64::from(second));
                    }
                }
            }
            assert_eq!(fired, case.fires_at, "{file}: {}", case.name);
            rules += 1;
        }
    }
    assert_eq!(rules, recorded("plain_rule"));
}

#[test]
fn likelihood_ratios_agree() {
    let mut ratios = 0;
    for (file, vectors) in files() {
        for case in &vectors.g_stat {
            let name = format!(
                "{file}: {} of {}, {} of {}",
                case.xc, case.nc, case.xs, case.ns
            );
            assert_close(&name, ratio(case.nc, case.xc, case.ns, case.xs), case.g);
            ratios += 1;
        }
    }
    assert_eq!(ratios, recorded("g_stat"));
}
