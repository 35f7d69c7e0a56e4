//! The report as it is read.

use super::*;
use crate::evidence::tests::record;
use crate::evidence::{Recovery, SampleRequest};

fn report_of(record: &Record) -> String {
    let at = |minutes: i64| {
        record
            .at
            .checked_sub(SignedDuration::from_mins(minutes))
            .expect("in range")
    };
    let moment = |minutes, revision, by: &str, what: &str| Moment {
        at: at(minutes),
        revision,
        by: by.into(),
        what: what.into(),
    };
    let timeline = [
        moment(62, 5, "ci", "green is version \"42\" now"),
        moment(2, 6, "ci", "a rollout of green begins: 5% | <script>"),
        moment(
            0,
            7,
            "judge",
            &format!("green rolled back to blue: {}", record.sentence),
        ),
    ];
    let (replayed, problem) = match record.verify() {
        Ok(played) => (Some(true).filter(|_| played), None),
        Err(problem) => (Some(false), Some(problem)),
    };
    markdown(&Incident {
        record,
        replayed,
        replay_problem: problem.as_deref(),
        timeline: &timeline,
    })
}

fn recovered() -> Record {
    let mut record = record(7);
    for second in 1..=60 {
        record.versions[0].seconds.push(Second {
            second,
            stable_requests: 400,
            stable_failures: u64::from(second % 20 == 0),
            ..Second::default()
        });
    }
    record.recovery = Recovery {
        state: RecoveryState::Recovered,
        requests: 400,
        failures: 1,
        after_s: 30.0,
        sentence: "after the rollback of green (42), blue failed 1 of 400 requests: within its usual 1.23%".into(),
        ..record.recovery
    };
    record
}

#[test]
fn report_reads_as_expected() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/incident/expected.md");
    let report = report_of(&recovered());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &report).expect("written");
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        report == expected,
        "run this test with UPDATE_EXPECT=1, and read the difference:\n{report}"
    );
}

#[test]
fn report_has_paths_only_where_they_were_recorded() {
    let mut record = recovered();
    assert!(!report_of(&record).contains("| path |"));
    let sample = SampleRequest {
        path: Some("/users/*".into()),
        ..record.versions[0].samples[0].clone()
    };
    record.versions[0].samples.push(sample);
    let report = report_of(&record);
    assert!(
        report.contains("| path |") && report.contains("| `/users/*` |"),
        "{report}"
    );
}

#[test]
fn report_says_what_a_rollback_that_did_not_help_means() {
    let mut record = recovered();
    record.recovery.state = RecoveryState::DidNotHelp;
    let report = report_of(&record);
    assert!(report.contains("**the rollback did not help**"), "{report}");
    assert!(report.contains("- [ ] Look for a shared cause"), "{report}");
}

#[test]
fn report_says_so_if_the_record_does_not_prove_the_verdict() {
    let mut record = recovered();
    record.sentence = "all is well".into();
    let report = report_of(&record);
    assert!(
        report.contains("**The record does not prove the verdict**"),
        "{report}"
    );
}

#[test]
fn text_from_elsewhere_cannot_be_markup() {
    let mut record = recovered();
    record.cause = Cause::Operator;
    record.by = "x |\n# <img src=1> [a](b)".into();
    record.sentence = "`rm`\n\n# heading".into();
    let report = report_of(&record);
    assert_eq!(report.matches('<').count(), report.matches("\\<").count());
    assert!(!report.contains("\n# heading"), "{report}");
    let by = "operator: x \\| # \\<img src=1> \\[a\\](b)";
    assert!(report.contains(by), "{report}");
    let script = report.lines().find(|line| line.contains("script"));
    assert!(
        script.expect("shown").contains("5% \\| \\<script>"),
        "{report}"
    );
}
