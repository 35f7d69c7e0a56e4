//! A good release and a bad one, from beginning to end, with the commands of the README.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{Load, Origin, Protocol, Proxy, Receiver, eventually};

/// The commands of the README's story, as a shell would split them.
fn commands() -> Vec<Vec<String>> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let heading = "## A good release and a bad one\n";
    let story = &readme[readme.find(heading).expect("the story") + heading.len()..];
    let story = &story[..story.find("\n## ").unwrap()];
    let lines = story
        .lines()
        .filter_map(|line| line.strip_prefix("    switchback "));
    let words = |line: &str| {
        let command = line.split(['#', '>']).next().unwrap_or_default();
        command.split_whitespace().map(str::to_owned).collect()
    };
    lines.map(words).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_release_is_promoted_and_a_bad_one_comes_back_with_its_report() {
    let (one, two, three) = (
        Origin::start().await,
        Origin::start().await,
        Origin::start().await,
    );
    let hook = Receiver::start().await;
    let more = format!(
        "rollout:
  steps: [{{weight: 10%, for: 200ms}}, {{weight: 50%, for: 200ms}}]
  bake: {{holdback: 2%, for: 200ms}}
hooks:
  - {{on: [promote, rollback], http: \"{}\"}}",
        hook.url()
    );
    let proxy = Proxy::blue_green(&one, &one, &more);
    three.answer_with(500);
    let load = Load::start(proxy.web, Protocol::Http1, 4);
    let mut told = Vec::new();
    for command in commands() {
        let command: Vec<String> = command
            .into_iter()
            .map(|word| match &*word {
                "http://127.0.0.1:9002" => two.url(),
                "http://127.0.0.1:9003" => three.url(),
                _ => word,
            })
            .collect();
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let (code, out, err) = proxy.cli(&words);
        told.push((command.join(" "), code, format!("{out}{err}")));
    }
    // Clients have seen nothing of all this.
    load.finish().await;
    let codes: Vec<i32> = told.iter().map(|(_, code, _)| *code).collect();
    assert_eq!(codes, [0, 10, 0, 0], "{told:#?}");
    let [good, bad, report, explained] = &told[..] else {
        panic!("{told:#?}");
    };
    assert!(
        good.2.contains("step 1 of 2") && good.2.contains("promoted"),
        "{}",
        good.2
    );
    assert!(bad.2.contains("canary failed"), "{}", bad.2);
    let view = proxy.get("/v1/services/shop/rollout").await;
    assert_eq!(
        (&view["status"], &view["version"]),
        (&json!("rolled_back"), &json!("43"))
    );
    assert_eq!(view["stage"], json!({"kind": "step", "number": 1, "of": 2}));
    let service = proxy.service().await;
    assert_eq!(service["stable"], "green");
    assert!(service["blocked_versions"]["43"].is_object(), "{service}");
    assert!(
        report.2.contains("# Incident") && report.2.contains("canary failed"),
        "{}",
        report.2
    );
    assert!(explained.2.contains("43"), "{}", explained.2);
    eventually("both hooks arrive", || hook.seen().len() >= 2);
    assert_eq!(hook.types(), ["switchback.promote", "switchback.rollback"]);
    let message = &hook.seen()[1].body["data"];
    assert_eq!(
        (&message["version"], &message["cause"]),
        (&json!("43"), &json!("judge"))
    );
}

#[test]
fn demo_leaves_nothing_behind_when_it_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_switchback"))
            .args(["demo", "--port", "0", "--admin-port", "0"])
            .env("TMPDIR", directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = String::new();
        let mut lines = BufReader::new(demo.stdout.take().unwrap());
        lines.read_line(&mut told).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let pid = rustix::process::Pid::from_child(&demo);
        rustix::process::kill_process(pid, signal).unwrap();
        assert_eq!(demo.wait().unwrap().code(), Some(0), "{told}");
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 0, "{signal:?}");
    }
}
