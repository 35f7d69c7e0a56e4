use std::fmt::Write as _;

use serde_json::json;

use super::*;

/// A file with one service, green at 5 %; `rollback`: settings of its judge.
fn file(rollback: &str) -> Config {
    let text = format!(
        "version: 1
listeners: {{web: {{address: \"127.0.0.1:8080\"}}}}
routes: [{{service: shop}}]
services:
  shop:
    stable: blue
    weights: {{blue: 95, green: 5}}
    rollback: {{{rollback}}}
    backends:
      blue: {{version: \"41\", endpoints: [\"http://blue.internal:9001\"]}}
      green: {{version: \"42\", endpoints: [\"https://127.0.0.1:9002\"]}}
"
    );
    crate::testing::config(&text)
}

fn plan(config: &Config) -> Plan {
    Plan {
        settings: vec![Settings::of_file(config)],
        faults: Vec::new(),
        service: None,
        spread: false,
    }
}

fn run(log: &str, plan: &Plan) -> Report {
    simulate(log.as_bytes(), plan, |_| ()).expect("it can be simulated")
}

/// A line of switchback's own; `more`: further fields.
fn line(ms: i64, backend: &str, version: &str, status: u16, client: u64, more: &str) -> String {
    let time = world::timestamp(1_795_509_187_000 + ms);
    format!(
        "{{\"time\":\"{time:.3}\",\"client\":\"192.0.2.{client}\",\"method\":\"GET\",\"path\":\"/\",\"status\":{status},\"bytes\":1,\"duration_ms\":3.5,\"service\":\"shop\",\"backend\":\"{backend}\",\"version\":\"{version}\"{more},\"request_id\":\"x\"}}\n"
    )
}

/// Requests a second of `seconds`, every twentieth to green, which fails from `bad_from` on.
fn traffic(seconds: i64, bad_from: i64) -> String {
    let mut log = String::new();
    for index in 0..seconds * 200 {
        let (ms, client) = (index * 5, index.unsigned_abs() % 200);
        let line = match index % 20 {
            0 if ms >= bad_from * 1_000 => line(ms, "green", "42", 500, client, ""),
            0 => line(ms, "green", "42", 200, client, ""),
            _ => line(ms, "blue", "41", 200, client, ""),
        };
        log.push_str(&line);
    }
    log
}

fn green(run: &Run) -> &VersionReport {
    let mut versions = run.versions.iter();
    versions
        .find(|version| version.backend == "green")
        .expect("green was met")
}

#[test]
fn healthy_traffic_leads_to_nothing() {
    let report = run(&traffic(60, 60), &plan(&file("")));
    assert_eq!((report.log.lines, report.log.skipped), (12_000, 0));
    let recorded = &report.runs[0];
    assert_eq!(recorded.rollbacks().count(), 0);
    let green = green(recorded);
    assert_eq!(
        (green.requests, green.failures, green.users_hurt),
        (600, 0, 0)
    );
    assert!(recorded.told.is_empty() && recorded.late == 0);
}

#[test]
fn failing_canary_would_have_been_rolled_back_and_the_rest_been_spared() {
    let report = run(&traffic(60, 30), &plan(&file("")));
    let green = green(&report.runs[0]);
    let verdict = green.rollback().expect("it fails entirely");
    assert_eq!((verdict.action, verdict.cause), ("rollback", "judge"));
    assert!(
        verdict
            .sentence
            .starts_with("canary failed 3 of 3 (100.0%), stable 0 of "),
        "{}",
        verdict.sentence
    );
    // Three failures, one in 100 ms, and the response of each takes 3.5 ms.
    assert_eq!(verdict.at.to_string(), "2026-11-24T08:33:37.203Z");
    assert_eq!((verdict.failures, verdict.users_hurt), (3, 3));
    assert_eq!((green.failures, green.spared_requests), (3, 297));
    assert_eq!((green.spared_failures, green.spared_users), (297, 10));
}

#[test]
fn version_whose_migration_destroys_would_have_been_held_as_in_life() {
    let mut config = file("");
    let backends = &mut config.services["shop"].backends;
    backends["green"].migration = switchback_config::model::Migration::Destructive;
    let report = run(&traffic(60, 30), &plan(&config));
    let green = green(&report.runs[0]);
    assert_eq!(green.verdicts[0].action, "hold");
    assert_eq!((green.rollback(), green.spared_requests), (None, 0));
}

#[test]
fn wrong_clock_costs_its_line_and_no_time() {
    let past = traffic(1, 60).replace("2026-", "1970-");
    let future = traffic(1, 60).replace("2026-", "9000-");
    let log = format!("{past}{}{future}", traffic(60, 30));
    let report = run(&log, &plan(&file("")));
    assert_eq!((report.log.lines, report.log.skipped), (12_400, 0));
    let verdict = green(&report.runs[0])
        .rollback()
        .expect("it fails entirely");
    assert_eq!(verdict.at.to_string(), "2026-11-24T08:33:37.203Z");
}

#[test]
fn injected_fault_is_found_as_soon_as_a_recorded_one() {
    let mut injected = plan(&file(""));
    injected.faults = vec!["green 503=100% from +30s".parse().expect("a fault")];
    let report = run(&traffic(60, 60), &injected);
    let [recorded, injected] = &report.runs[..] else {
        panic!("one as recorded, one with the fault");
    };
    assert_eq!(recorded.rollbacks().count(), 0);
    let fault = injected.fault.as_ref().expect("it has a fault");
    assert_eq!((fault.hits, fault.rescued, fault.missed), (3, 3, None));
    // Stable would have answered in its place.
    assert_eq!(fault.users_hurt, 0);
    let seconds = fault.detected_in_seconds.expect("it was found");
    assert!((seconds - 0.203).abs() < 1e-9, "{seconds}");
    let failing = run(&traffic(60, 30), &plan(&file("")));
    let (found, recorded) = (
        fault.verdict.clone(),
        green(&failing.runs[0]).rollback().cloned(),
    );
    assert_eq!(
        found.map(|verdict| (verdict.at, verdict.sentence)),
        recorded.map(|verdict| (verdict.at, verdict.sentence))
    );
}

#[test]
fn same_log_and_arguments_give_the_same_answer() {
    let config = file("");
    let mut plan = plan(&config);
    plan.faults = vec!["green 5xx=20% from +10s to +50s".parse().expect("a fault")];
    plan.spread = true;
    let log = traffic(60, 30);
    assert_eq!(json!(run(&log, &plan)), json!(run(&log, &plan)));
}

#[test]
fn settings_are_compared_on_the_same_traffic() {
    let config = file("");
    let mut plan = plan(&config);
    for words in [
        "min_failures=500",
        "min_failures=500; rules=[\"error_rate > 5% for 20s\"]",
    ] {
        plan.settings
            .push(Settings::with(&config, words).expect(words));
    }
    plan.faults = vec!["green 5xx=20% from +20s".parse().expect("a fault")];
    let report = run(&traffic(120, 120), &plan);
    let found: Vec<_> = report
        .runs
        .iter()
        .filter_map(|run| {
            let fault = run.fault.as_ref()?;
            let cause = fault.verdict.as_ref().map(|verdict| verdict.cause);
            Some((&*run.settings, cause, fault.missed))
        })
        .collect();
    let missed = Some("not found out before the end of the log");
    assert_eq!(report.runs.len(), 6);
    assert_eq!(found[0], ("file", Some("judge"), None));
    assert_eq!(found[1], ("min_failures=500", None, missed));
    assert_eq!((found[2].1, found[2].2), (Some("rule"), None));
}

#[test]
fn settings_that_the_file_would_not_take_are_refused_in_its_words() {
    let config = file("");
    for (words, said) in [
        ("max_extra_errors=200%", "a share is at most 100%"),
        ("nonsense=1", "nonsense"),
        ("quick", "\"quick\" is not KEY=VALUE"),
    ] {
        let error = Settings::with(&config, words).expect_err(words).to_string();
        assert!(error.contains(said), "{words}: {error}");
    }
}

#[test]
fn lines_without_a_backend_are_spread_by_the_weights_of_the_file() {
    let mut log = String::new();
    for index in 0..2_000 {
        let second = index / 40;
        let _ = writeln!(
            log,
            "192.0.2.{} - - [24/Nov/2026:08:33:{second:02} +0000] \"GET /{index} HTTP/1.1\" 200 5 \"-\" \"-\"",
            index % 100
        );
    }
    let mut plan = plan(&file(""));
    plan.faults = vec![
        "shop/green 5xx=100% from 08:33:20"
            .parse()
            .expect("a fault"),
    ];
    let report = run(&log, &plan);
    assert_eq!(report.log.spread, 2_000);
    let met = green(&report.runs[0]).requests;
    assert!((99..=101).contains(&met), "{met}");
    let fault = report.runs[1].fault.as_ref().expect("it has a fault");
    // Two requests a second: the third failure is in the second second, which is all that is known.
    assert_eq!(fault.detected_in_seconds.map(f64::round), Some(1.0));
}

#[test]
fn what_cannot_be_read_or_says_nothing_is_counted_with_its_reason() {
    let mut log = traffic(2, 2);
    let ok = |more: &str| line(2_000, "green", "42", 200, 1, more);
    log.push_str("nonsense\n\n");
    log.push_str(&ok("").replace("\"shop\"", "\"other\""));
    log.push_str(&ok("").replace("\"shop\"", "\"shop~drill\""));
    log.push_str(&ok("").replace("\"green\"", "\"red\""));
    log.push_str(&ok("").replace("\"service\":\"shop\",", ""));
    log.push_str(&ok(",\"pick\":\"preview\""));
    log.push_str(&line(-100_000, "blue", "41", 200, 1, ""));
    log.push_str(&ok("")[..40]);
    let report = run(&log, &plan(&file("")));
    let LogReport {
        lines,
        skipped,
        skipped_because,
        set_aside,
        ..
    } = report.log;
    assert_eq!((lines, skipped), (409, 3));
    let reasons: Vec<_> = skipped_because
        .iter()
        .map(|because| (because.line, because.lines))
        .collect();
    assert_eq!(reasons, [(401, 1), (408, 1), (409, 1)]);
    let expected = [
        NO_SERVICE,
        NOT_SPLIT,
        OF_DRILLS,
        UNKNOWN_BACKEND,
        UNKNOWN_SERVICE,
    ];
    assert_eq!(set_aside, expected.iter().map(|what| (*what, 1)).collect());
}

#[test]
fn requests_that_stable_took_over_hurt_nobody_and_count_all_the_same() {
    let mut log = traffic(30, 30);
    for index in 0..40 {
        let more = ",\"rescued_from\":\"green\",\"rescued_outcome\":\"5xx\"";
        log.push_str(&line(30_000 + index * 100, "blue", "41", 200, 7, more));
    }
    let report = run(&log, &plan(&file("")));
    let green = green(&report.runs[0]);
    let verdict = green.rollback().expect("all its requests fail");
    assert!((3..=5).contains(&verdict.failures), "{verdict:?}");
    assert_eq!((green.rescued, verdict.users_hurt), (verdict.failures, 0));
    assert_eq!(green.spared_failures, 40 - verdict.failures);
}

#[test]
fn another_label_is_another_version() {
    let mut log = traffic(60, 30);
    for index in 0..400 {
        let ms = 60_000 + index * 100;
        log.push_str(&line(ms, "green", "43", 200, 1, ""));
        log.push_str(&line(ms + 1, "blue", "41", 200, 1, ""));
    }
    log.push_str(&line(100_100, "green", "42", 200, 1, ""));
    let report = run(&log, &plan(&file("")));
    let recorded = &report.runs[0];
    let versions: Vec<_> = recorded
        .versions
        .iter()
        .map(|version| {
            let gone = version.rollback().is_some();
            (&*version.backend, &*version.version, gone)
        })
        .collect();
    assert_eq!(
        versions,
        [
            ("blue", "41", false),
            ("green", "42", true),
            ("green", "43", false)
        ]
    );
    assert_eq!(
        recorded.versions[2].requests, 400,
        "its block is not for this one"
    );
    assert_eq!(recorded.late, 1);
}

#[test]
fn slow_canary_is_found_where_time_is_judged() {
    let mut injected = plan(&file("max_extra_slow: 5%, slow: 500ms"));
    injected.faults = vec![
        "green slow:600ms=50% from +20s".parse().expect("a fault"),
        "green slow:400ms=50% from +20s".parse().expect("a fault"),
    ];
    let report = run(&traffic(60, 60), &injected);
    let said = |index: usize| {
        let fault = report.runs[index].fault.as_ref();
        fault
            .and_then(|fault| fault.verdict.as_ref())
            .map(|verdict| verdict.sentence.clone())
    };
    let sentence = said(1).expect("it is slow");
    assert!(
        sentence.starts_with("canary was slower than 500ms in"),
        "{sentence}"
    );
    assert_eq!(said(2), None, "that is not slow");
}

#[test]
fn plans_that_do_not_fit_the_file_are_refused() {
    let config = file("");
    let said = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan(&config);
        change(&mut plan);
        simulate(&b""[..], &plan, |_| ())
            .expect_err("it does not fit")
            .to_string()
    };
    let fault = |text: &str| vec![text.parse::<Injection>().expect("a fault")];
    assert_eq!(
        said(&|plan| plan.service = Some("web".into())),
        "the file has no service web; it has shop"
    );
    assert_eq!(
        said(&|plan| plan.faults = fault("red 5xx=1%")),
        "red 5xx=1%: the file has no backend red there"
    );
    let mut two = config.clone();
    let shop = two.services["shop"].clone();
    two.services.insert("web".into(), shop);
    let mut ambiguous = plan(&two);
    let combined = "a - - [24/Nov/2026:08:33:07 +0000] \"GET / HTTP/1.1\" 200 1\n";
    let error = simulate(combined.as_bytes(), &ambiguous, |_| ()).expect_err("which?");
    assert!(
        error
            .to_string()
            .contains("line 1 names no service, and the file has shop, web")
    );
    ambiguous.faults = fault("green 5xx=1%");
    let error = simulate(&b""[..], &ambiguous, |_| ()).expect_err("which?");
    assert!(error.to_string().contains("write SERVICE/green"), "{error}");
}

#[test]
fn lines_are_read_whole_however_they_arrive() {
    struct Dribble<'a>(&'a [u8]);
    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(7).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }
    let log = traffic(2, 1);
    let plan = plan(&file(""));
    let dribbled = simulate(Dribble(log.trim_end().as_bytes()), &plan, |_| ());
    assert_eq!(
        json!(dribbled.expect("it can be read")),
        json!(run(&log, &plan))
    );
    let long = format!("{}\n{}", "x".repeat(LINE_BYTES_MAX + 5), traffic(1, 1));
    let report = run(&long, &plan);
    assert_eq!((report.log.lines, report.log.skipped), (201, 1));
    assert_eq!(
        report.log.skipped_because[0].reason,
        "it is longer than 1 MiB"
    );
}
