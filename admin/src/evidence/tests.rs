//! A record of a real verdict, and what becomes of it when it is changed.

use std::time::Duration;

use serde_json::json;
use switchback_judge::{Control, Counts, Recorder, Settings, Verdict};

use super::*;

/// A judge whose canary begins to fail everything after a healthy minute, until its verdict.
fn failing_canary() -> VersionEvidence {
    let settings = Settings::new(&switchback_config::defaults::rollback(), 1);
    let mut judge = Recorder::new(settings, Duration::ZERO);
    let mut path: Vec<Levels> = Vec::new();
    let mut seconds: Vec<Second> = Vec::new();
    for tick in 1_u64.. {
        let counts = Counts {
            canary_requests: 1,
            canary_failures: u64::from(tick > 1_200),
            stable_requests: 19,
            stable_failures: u64::from(tick.is_multiple_of(500)),
        };
        let verdict = judge.tick(Duration::from_millis(50 * tick), counts, Control::Compared);
        let now = Second {
            second: i32::try_from(tick / 20).expect("small"),
            canary_requests: counts.canary_requests,
            canary_failures: counts.canary_failures,
            stable_requests: counts.stable_requests,
            stable_failures: counts.stable_failures,
        };
        match seconds.last_mut() {
            Some(last) if last.second == now.second => last.add(now),
            _ => seconds.push(now),
        }
        path.retain(|levels| levels.second != now.second);
        path.push(Levels {
            second: now.second,
            levels: judge.judge().reading().levels,
        });
        if verdict == Verdict::Rollback {
            break;
        }
    }
    let last = seconds.last().expect("not empty").second;
    seconds.iter_mut().for_each(|second| second.second -= last);
    path.iter_mut().for_each(|levels| levels.second -= last);
    let explanation = judge.judge().explain();
    VersionEvidence {
        backend: "green".into(),
        version: "42".into(),
        seconds,
        judges: vec![JudgeEvidence {
            trouble: Trouble::Errors,
            explanation,
            slower_than: None,
            sentence: explanation.to_string(),
            path,
            tape: judge.tape(),
        }],
        ..VersionEvidence::default()
    }
}

/// The record of its rollback.
pub(crate) fn record(id: u64) -> Record {
    let mut version = failing_canary();
    let sentence = version.judges[0].sentence.clone();
    let at: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
    let reach = |requests, clients| Reach { requests, clients };
    version.impact = Some(Impact {
        touched: reach(1_204, 310),
        saw_error: reach(1, 1),
        rescued: reach(3, 3),
    });
    version.samples = vec![SampleRequest {
        at,
        request_id: "0195-a|b`c".into(),
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
        method: "GET".into(),
        outcome: "500".into(),
        duration_ms: 12.25,
        path: None,
    }];
    let action = |what: &str| Action {
        at,
        what: what.into(),
    };
    Record {
        id,
        at,
        service: "shop".into(),
        backend: "green".into(),
        version: "42".into(),
        stable: "blue".into(),
        stable_version: "41".into(),
        cause: Cause::Judge,
        sentence,
        by: "judge".into(),
        applied_in_us: Some(87),
        weights_before: IndexMap::from([("blue".into(), 95), ("green".into(), 5)]),
        weights_after: IndexMap::from([("blue".into(), 100), ("green".into(), 0)]),
        settings: serde_json::to_value(switchback_config::defaults::rollback())
            .expect("plain data"),
        versions: vec![version],
        actions: vec![
            action("weights: blue 95 -> 100, green 5 -> 0"),
            action("version 42 of green is blocked until another version is deployed"),
        ],
        recovery: Recovery::pending(0.0123),
        switched_back: false,
    }
}

fn through_json(record: &Record) -> Record {
    serde_json::from_slice(&serde_json::to_vec(record).expect("plain data")).expect("the same")
}

#[test]
fn record_survives_json_and_proves_its_verdict() {
    let record = record(7);
    let read = through_json(&record);
    assert_eq!(read, record);
    assert_eq!(read.verify(), Ok(true));
}

#[test]
fn changed_record_does_not_prove_its_verdict() {
    type Change = fn(&mut serde_json::Value);
    let changes: [(&str, Change); 7] = [
        ("a failure less", |record| {
            let inputs = &mut record["versions"][0]["judges"][0]["tape"]["inputs"];
            let last = inputs.as_array().map_or(0, Vec::len) - 2;
            inputs[last][3] = json!(0);
        }),
        ("stable failed too", |record| {
            record["versions"][0]["judges"][0]["tape"]["inputs"][5][5] = json!(19);
        }),
        ("another moment", |record| {
            record["versions"][0]["judges"][0]["tape"]["concluded_us"] = json!(1);
        }),
        ("other numbers", |record| {
            record["versions"][0]["judges"][0]["explanation"]["canary_failures"] = json!(99);
        }),
        ("another sentence", |record| {
            record["sentence"] = json!("canary failed 1 of 9,000 (0.0%)");
        }),
        ("a worse stable", |record| {
            let checkpoint = &mut record["versions"][0]["judges"][0]["tape"]["checkpoint"];
            checkpoint["baseline"]["failures"] = json!([50.0, 50.0]);
        }),
        ("a shorter list", |record| {
            let inputs = record["versions"][0]["judges"][0]["tape"]["inputs"].as_array_mut();
            inputs.map(Vec::pop);
        }),
    ];
    for (what, change) in changes {
        let mut json = serde_json::to_value(record(7)).expect("plain data");
        change(&mut json);
        let changed: Record = serde_json::from_value(json).expect("still a record");
        assert!(changed.verify().is_err(), "{what} is noticed");
    }
}

#[test]
fn amendments_add_seconds_once_and_keep_what_they_do_not_know() {
    let mut record = record(7);
    let before = record.versions[0].seconds.len();
    let second = |second| Second {
        second,
        stable_requests: 10,
        ..Second::default()
    };
    let now = record.versions[0].seconds[before - 1];
    record.amend(Amendment {
        seconds: vec![vec![second(0), second(1), second(60), second(61)]],
        ..Amendment::default()
    });
    let seconds = &record.versions[0].seconds;
    assert_eq!(seconds.len(), before + 2, "a minute after, no more");
    assert_eq!(
        seconds[before - 1].stable_requests,
        now.stable_requests + 10,
        "the second of the rollback has two halves"
    );
    assert_eq!(record.applied_in_us, Some(87));
    assert!(record.versions[0].impact.is_some());
}

#[test]
fn operators_rollback_has_nothing_to_prove() {
    let mut record = record(7);
    record.cause = Cause::Operator;
    record.versions[0].judges[0].tape = None;
    assert_eq!(record.verify(), Ok(false));
}

#[test]
fn rule_from_outside_has_nothing_to_prove_but_its_judges_must_hold() {
    let mut record = record(7);
    record.cause = Cause::Rule;
    record.sentence = "http http://127.0.0.1:7000/ok fails for 1m; canary failed 0 of 9".into();
    record.versions[0].rule = Some(RuleEvidence {
        rule: "http http://127.0.0.1:7000/ok fails for 1m".into(),
        tape: None,
        signal: None,
    });
    assert_eq!(record.verify(), Ok(false));
    record.versions[0].judges[0].explanation.canary_failures += 1;
    assert!(record.verify().is_err());
}

#[test]
fn samples_that_come_later_are_added_once_and_bounded() {
    let mut record = record(7);
    let known = record.versions[0].samples[0].clone();
    let later = (0..30).map(|number| SampleRequest {
        request_id: format!("later-{number}"),
        ..known.clone()
    });
    let samples: Vec<SampleRequest> = std::iter::once(known.clone()).chain(later).collect();
    record.amend(Amendment {
        samples: vec![samples],
        ..Amendment::default()
    });
    let kept = &record.versions[0].samples;
    assert_eq!((kept.len(), &kept[0]), (SAMPLES_MAX, &known));
    assert_eq!(kept[1].request_id, "later-0");
}
