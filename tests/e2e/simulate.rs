//! `simulate`: recorded traffic through the same judge, from a real access log and from made ones.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Http, Origin, Proxy, blue_green, eventually, eventually_async};

fn switchback(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_switchback"))
        .args(arguments)
        .env_remove("SWITCHBACK_CONFIG")
        .current_dir(directory)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A minute of requests, ten a second, every tenth to green, which fails in its second half.
fn log() -> String {
    let mut log = String::new();
    for index in 0..600 {
        let (backend, version) = if index % 10 == 0 {
            ("green", "2")
        } else {
            ("blue", "1")
        };
        let status = if backend == "green" && index >= 300 {
            502
        } else {
            200
        };
        let (second, tenth) = (index / 10, index % 10);
        let _ = writeln!(
            log,
            "{{\"time\":\"2026-11-24T10:00:{second:02}.{tenth}00Z\",\"client\":\"192.0.2.{second}\",\"method\":\"GET\",\"path\":\"/\",\"status\":{status},\"bytes\":2,\"duration_ms\":4,\"service\":\"shop\",\"backend\":\"{backend}\",\"version\":\"{version}\",\"request_id\":\"x\"}}"
        );
    }
    log
}

fn directory_with(log: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let config = blue_green("http://127.0.0.1:9001", "http://127.0.0.1:9002", "");
    std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
    std::fs::write(directory.path().join("access.jsonl"), log).unwrap();
    directory
}

fn report(directory: &Path, more: &[&str]) -> Value {
    let arguments = [&["simulate", "--log", "access.jsonl", "-o", "json"], more].concat();
    let (code, out, err) = switchback(directory, &arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    serde_json::from_str(&out).unwrap()
}

fn green(run: &Value) -> &Value {
    let versions = run["versions"].as_array().unwrap();
    versions
        .iter()
        .find(|version| version["backend"] == "green")
        .unwrap()
}

/// Failures that would have come if nobody had rolled back.
const MORE: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulation_of_a_recorded_rollback_agrees_with_what_happened() {
    let (blue, green_origin) = (Origin::start().await, Origin::start().await);
    let config = blue_green(&blue.url(), &green_origin.url(), "rescue: {enabled: false}")
        .replace("{format: \"off\"}", "{path: access.jsonl, format: json}");
    let proxy = Proxy::start(&config);
    proxy.weights(50, 50).await;
    let mut client = Http::connect(proxy.web).await;
    for _ in 0..60 {
        assert_eq!(client.get("/").await.status, 200);
    }
    green_origin.answer_with(503);
    let mut requests = 60;
    while proxy.service().await["weights"]["green"] != 0 {
        client.get("/").await;
        requests += 1;
        assert!(requests < 2_000, "it is rolled back");
    }
    eventually_async("the rollback is on record", || async {
        !proxy.get("/v1/rollbacks").await["rollbacks"][0]["sentence"].is_null()
    })
    .await;
    let lived = proxy.get("/v1/rollbacks").await["rollbacks"][0].clone();
    let log = proxy.path().join("access.jsonl");
    eventually("every line is written", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().count() == requests && text.ends_with('\n')
    });
    // The log's clock is in milliseconds, so the judge may look one failure later: what failed goes on failing.
    let text = std::fs::read_to_string(&log).unwrap();
    let failed = text
        .lines()
        .rfind(|line| line.contains("\"status\":503"))
        .unwrap();
    std::fs::write(
        &log,
        format!("{text}{}", format!("{failed}\n").repeat(MORE)),
    )
    .unwrap();
    let report = report(proxy.path(), &[]);
    assert_eq!(report["log"]["lines"], requests + MORE);
    assert_eq!(report["log"]["skipped"], 0);
    let green = green(&report["runs"][0]);
    let verdict = &green["verdicts"][0];
    assert_eq!(
        (&verdict["action"], &verdict["cause"]),
        (&json!("rollback"), &json!("judge"))
    );
    let failures = |of: &Value| -> i64 {
        let sentence = of["sentence"].as_str().unwrap();
        let counts = sentence
            .strip_prefix("canary failed ")
            .unwrap_or_else(|| panic!("{of}"));
        counts.split(' ').next().unwrap().parse().unwrap()
    };
    assert!(
        (failures(verdict) - failures(&lived)).unsigned_abs() <= MORE as u64,
        "{verdict}\n{lived}"
    );
    assert_eq!(verdict["users_hurt"], 1, "one client, by its address");
}

#[test]
fn simulate_tells_people_what_would_have_happened() {
    let broken = format!("{}nonsense\n", log());
    let directory = directory_with(&broken);
    let arguments = [
        "simulate",
        "--log",
        "access.jsonl",
        "--inject",
        "green 5xx=50% from 10:00:10",
        "--with",
        "max_extra_errors=50%",
    ];
    let (code, out, err) = switchback(directory.path(), &arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for said in [
        "access.jsonl: 601 lines, 2026-11-24 10:00:00.000Z to 2026-11-24 10:00:59.900Z",
        "1 skipped: it is neither a JSON object nor a line in the combined format (first: line 601, byte 1)",
        "shop green (2): rollback at 2026-11-24 10:00:",
        "canary failed ",
        "it would have spared it ",
        "FOUND AFTER",
        "green 5xx=50% from 10:00:10",
        "max_extra_errors=50%",
    ] {
        assert!(out.contains(said), "{said}: {out}");
    }
}

#[test]
fn simulate_compares_settings_for_each_fault_and_says_the_same_every_time() {
    let directory = directory_with(&log());
    let more = [
        "--inject",
        "shop/green 5xx=100% from +10s to +20s",
        "--inject",
        "blue 5xx=100% from +10s",
        "--with",
        "min_failures=50",
    ];
    let report_ = report(directory.path(), &more);
    let runs = report_["runs"].as_array().unwrap();
    assert_eq!(
        runs.len(),
        6,
        "two settings, each as recorded and with two faults"
    );
    assert_eq!(runs[0]["fault"], Value::Null);
    let found = runs[1]["fault"]["detected_in_seconds"].as_f64().unwrap();
    assert!((2.0..6.0).contains(&found), "one failure a second: {found}");
    assert_eq!(runs[1]["fault"]["verdict"]["action"], "rollback");
    // Stable cannot be rolled back, and the canary is not to blame.
    assert_eq!(
        runs[2]["fault"]["detected_in_seconds"],
        Value::Null,
        "{}",
        runs[2]
    );
    assert_eq!(
        runs[4]["fault"]["missed"],
        "not found out before the end of the log"
    );
    assert_eq!(report(directory.path(), &more), report_);
}

#[test]
fn simulate_refuses_what_it_cannot_use() {
    let directory = directory_with(&log());
    let at = directory.path();
    std::fs::write(at.join("bad.yaml"), "version: 1\nlistners: {}\n").unwrap();
    std::fs::write(at.join("empty"), "").unwrap();
    std::fs::write(at.join("text"), "one\ntwo\n").unwrap();
    let log = ["simulate", "--log", "access.jsonl"];
    for (arguments, code, said) in [
        (vec!["simulate", "--log", "gone"], 1, "read gone: "),
        (
            vec!["simulate", "--log", "empty"],
            1,
            "empty: there is no line in it",
        ),
        (
            vec!["simulate", "--log", "text"],
            1,
            "text: no line of it can be read",
        ),
        (
            [&log[..], &["--config", "bad.yaml"]].concat(),
            78,
            "listners",
        ),
        (
            [&log[..], &["--config", "gone.yaml"]].concat(),
            78,
            "gone.yaml",
        ),
        (
            [&log[..], &["--inject", "green 5xx"]].concat(),
            2,
            "names no share",
        ),
        (
            [&log[..], &["--inject", "red 5xx=1%"]].concat(),
            2,
            "no backend red",
        ),
        (
            [&log[..], &["--with", "min_failures"]].concat(),
            2,
            "is not KEY=VALUE",
        ),
        (
            [&log[..], &["--with", "max_extra_errors=2"]].concat(),
            2,
            "needs a percent sign",
        ),
        ([&log[..], &["--service", "web"]].concat(), 2, "it has shop"),
    ] {
        let (found, out, err) = switchback(at, &arguments);
        assert_eq!(found, code, "{arguments:?}: {out}{err}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
}
