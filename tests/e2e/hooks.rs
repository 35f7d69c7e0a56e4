//! Hooks: everybody who wants to know is told, at least once, in order, and nobody waits for it.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{DEADLINE, Mood, Origin, Proxy, Receiver, blue_green, eventually};

/// A service with these hooks.
async fn with_hooks(hooks: &str) -> (Proxy, Origin, Origin) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = format!("health: {{path: /healthz, interval: 50ms, rise: 1}}\nhooks: {hooks}");
    let proxy = Proxy::blue_green(&blue, &green, &more);
    (proxy, blue, green)
}

async fn dead(proxy: &Proxy) -> Vec<Value> {
    let answer = proxy.get("/v1/hooks/dead").await;
    answer["dead"].as_array().unwrap().clone()
}

async fn delivered(proxy: &Proxy) -> Vec<Value> {
    let answer = proxy.get("/v1/hooks/deliveries").await;
    answer["delivered"].as_array().unwrap().clone()
}

async fn eventually_delivered(proxy: &Proxy, count: usize) -> Vec<Value> {
    crate::support::eventually_async("the messages arrived", || async {
        delivered(proxy).await.len() >= count
    })
    .await;
    delivered(proxy).await
}

async fn eventually_dead(proxy: &Proxy, count: usize) -> Vec<Value> {
    crate::support::eventually_async("the messages are given up", || async {
        dead(proxy).await.len() == count
    })
    .await;
    dead(proxy).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_told_once_with_what_it_did() {
    let receiver = Receiver::start().await;
    let hooks = format!("[{{on: [all], http: \"{}\"}}]", receiver.url());
    let (proxy, _blue, _green) = with_hooks(&hooks).await;
    proxy.weights(90, 10).await;
    let answer = proxy
        .post("/v1/services/shop/rollback", json!({"reason": "it smells"}))
        .await
        .json();
    // Nothing changes, so nothing is told.
    proxy.post("/v1/services/shop/rollback", Value::Null).await;
    proxy
        .post("/v1/services/shop/backends/green/unblock", Value::Null)
        .await;
    eventually("three messages arrived", || receiver.seen().len() == 3);
    assert_eq!(
        receiver.types(),
        [
            "switchback.weights",
            "switchback.rollback",
            "switchback.unblock"
        ]
    );
    let rollback = &receiver.seen()[1];
    assert_eq!(
        rollback.header("content-type"),
        "application/cloudevents+json"
    );
    assert_eq!(
        rollback.header("webhook-id"),
        rollback.body["id"].as_str().unwrap()
    );
    assert_eq!(rollback.body["specversion"], "1.0");
    assert_eq!(rollback.body["source"], "/services/shop");
    assert_eq!(rollback.body["subject"], "green");
    let data = &rollback.body["data"];
    assert_eq!(data["revision"], answer["revision"]);
    assert_eq!(data["weights"], json!({"blue": 100, "green": 0}));
    for (key, value) in [
        ("service", "shop"),
        ("event", "rollback"),
        ("kind", "rolled_back"),
        ("backend", "green"),
        ("version", "2"),
        ("stable", "blue"),
        ("cause", "operator"),
        ("reason", "it smells"),
        ("by", "admin"),
    ] {
        assert_eq!(data[key], value, "{key}: {data}");
    }
    let ids: std::collections::BTreeSet<String> = receiver
        .seen()
        .iter()
        .map(|message| message.body["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 3);
    let noted = eventually_delivered(&proxy, 3).await;
    assert_eq!(noted[0]["last"]["result"], "204 No Content");
    let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
    let count =
        "switchback_hook_deliveries_total{service=\"shop\",hook=\"hook-1\",result=\"delivered\"} 3";
    assert!(metrics.contains(count), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_by_the_judge_is_told_with_its_sentence() {
    let receiver = Receiver::start().await;
    let hooks = format!("[{{on: [rollback], http: \"{}\"}}]", receiver.url());
    let (proxy, _blue, green) = with_hooks(&hooks).await;
    green.answer_with(500);
    proxy.weights(50, 50).await;
    let mut load = crate::support::Load::start(proxy.web, crate::support::Protocol::Http1, 2);
    eventually("the rollback is told", || !receiver.seen().is_empty());
    load.stop().await;
    let data = receiver.seen()[0].body["data"].clone();
    assert_eq!(data["by"], "judge", "{data}");
    assert!(
        ["judge", "unhealthy"].contains(&data["cause"].as_str().unwrap()),
        "{data}"
    );
    assert_eq!(data["backend"], "green");
    assert!(
        data["message"]
            .as_str()
            .unwrap()
            .contains("green rolled back to blue: ")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_wait_for_a_receiver_that_is_down_and_keep_their_order() {
    let receiver = Receiver::start().await;
    let address = receiver.address;
    let hooks = format!("[{{on: [all], http: \"{}\"}}]", receiver.url());
    drop(receiver);
    let (proxy, _blue, _green) = with_hooks(&hooks).await;
    proxy.weights(90, 10).await;
    proxy.post("/v1/services/shop/rollback", Value::Null).await;
    crate::support::eventually_async("the first attempt has failed", || async {
        let waiting = proxy.get("/v1/hooks/deliveries").await["waiting"].clone();
        waiting
            .as_array()
            .unwrap()
            .iter()
            .any(|d| d["attempts"] == 1)
    })
    .await;
    let receiver = Receiver::start_at(address).await;
    eventually("both arrived", || receiver.seen().len() == 2);
    assert_eq!(
        receiver.types(),
        ["switchback.weights", "switchback.rollback"]
    );
    let noted = eventually_delivered(&proxy, 2).await;
    assert!(noted[1]["attempts"].as_u64().unwrap() > 1, "{noted:?}");
    assert_eq!(dead(&proxy).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_survive_a_kill_and_are_sent_again_when_told() {
    let receiver = Receiver::start().await;
    receiver.be(Mood::Answer(500));
    let hooks = format!(
        "[{{name: purge, on: [rollback], http: \"{}\", retries: 1}}]",
        receiver.url()
    );
    let (mut proxy, _blue, _green) = with_hooks(&hooks).await;
    proxy.weights(90, 10).await;
    proxy.post("/v1/services/shop/rollback", Value::Null).await;
    let letters = eventually_dead(&proxy, 1).await;
    assert_eq!(letters[0]["attempts"], 2);
    assert_eq!(letters[0]["last"]["result"], "500 Internal Server Error");
    assert_eq!(letters[0]["last"]["output"], "noted");
    assert_eq!(receiver.seen().len(), 2);
    proxy.crash_and_restart();
    assert_eq!(dead(&proxy).await, letters);
    let metrics = || async { proxy.api("GET", "/metrics", Value::Null).await.text() };
    crate::support::eventually_async("the letter is counted", || async {
        metrics().await.contains("switchback_hook_dead_letters 1\n")
    })
    .await;
    let (code, out, err) = proxy.cli(&["hooks", "dead"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("purge") && out.contains("500"), "{out}");
    // It fails again: a dead letter once more, under another number.
    let id = letters[0]["id"].to_string();
    assert_eq!(proxy.cli(&["hooks", "retry", &id]).0, 0);
    eventually("it was tried twice more", || receiver.seen().len() == 4);
    let letters = eventually_dead(&proxy, 1).await;
    assert_ne!(letters[0]["id"].to_string(), id);
    receiver.be(Mood::Answer(200));
    assert_eq!(proxy.cli(&["hooks", "retry", "--all"]).0, 0);
    eventually_delivered(&proxy, 1).await;
    assert_eq!(dead(&proxy).await, Vec::<Value>::new());
    // Through all of this it was one message.
    let mut ids: Vec<String> = receiver
        .seen()
        .iter()
        .map(|m| m.header("webhook-id").to_owned())
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let (code, _, err) = proxy.cli(&["hooks", "drop", "4711"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("no dead letter 4711"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receiver_that_is_gone_for_good_is_not_asked_again() {
    let receiver = Receiver::start().await;
    receiver.be(Mood::Answer(410));
    let hooks = format!("[{{on: [weights], http: \"{}\"}}]", receiver.url());
    let (proxy, _blue, _green) = with_hooks(&hooks).await;
    proxy.weights(90, 10).await;
    let letters = eventually_dead(&proxy, 1).await;
    assert_eq!(letters[0]["attempts"], 1);
    assert_eq!(receiver.seen().len(), 1);
    let id = letters[0]["id"].to_string();
    assert_eq!(proxy.cli(&["hooks", "drop", &id]).0, 0);
    assert_eq!(dead(&proxy).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_outlives_a_kill_before_its_answer_and_keeps_its_id() {
    let receiver = Receiver::start().await;
    receiver.be(Mood::Hang);
    let hooks = format!(
        "[{{on: [switch, rollback], http: \"{}\", timeout: 1m}}]",
        receiver.url()
    );
    let (mut proxy, _blue, _green) = with_hooks(&hooks).await;
    let answer = proxy
        .post(
            "/v1/services/shop/switch",
            json!({"to": "green", "force": true}),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    eventually("it is on its way", || receiver.seen().len() == 1);
    // A second one waits behind it.
    proxy.post("/v1/services/shop/rollback", Value::Null).await;
    proxy.signal(rustix::process::Signal::KILL);
    proxy.wait();
    receiver.be(Mood::Answer(204));
    proxy.start_again();
    eventually("both arrived", || receiver.seen().len() == 3);
    let seen = receiver.seen();
    assert_eq!(seen[0].body, seen[1].body);
    assert_eq!(seen[2].body["type"], "switchback.rollback");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollbacks_and_blocks_do_not_wait_for_hooks() {
    let receiver = Receiver::start().await;
    receiver.be(Mood::Hang);
    let url = receiver.url();
    let hooks = format!(
        "\n  - {{on: [all], http: \"{url}\", timeout: 1h}}
  - {{on: [all], run: [sleep, \"60\"], timeout: 1h}}
  - {{on: [before_switch], http: \"{url}\", timeout: 1h}}"
    );
    let (proxy, _blue, _green) = with_hooks(&hooks).await;
    // More messages than the outbox holds: the oldest are given up.
    for round in 0..510 {
        proxy.weights(100 - round % 50, 1 + round % 50).await;
    }
    eventually("a hook hangs", || !receiver.seen().is_empty());
    let letters = proxy.get("/v1/hooks/dead").await;
    let reason = letters["dead"][0]["last"]["result"].as_str().unwrap();
    assert!(reason.contains("more than 1000 messages"), "{letters}");
    // While the receiver still hangs, everything urgent is answered, and well before any timeout.
    let began = Instant::now();
    for _ in 0..5 {
        let answer = proxy.post("/v1/services/shop/rollback", Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["durable"], true);
        let path = "/v1/services/shop/backends/green";
        proxy.post(&format!("{path}/unblock"), Value::Null).await;
        proxy.weights(90, 10).await;
        let answer = proxy.post(&format!("{path}/block"), Value::Null).await;
        assert_eq!(answer.json()["changed"], true, "{}", answer.text());
        proxy.post(&format!("{path}/unblock"), Value::Null).await;
        proxy.weights(90, 10).await;
    }
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    assert_eq!(receiver.seen().len(), 1, "the receiver has answered nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn program_gets_its_arguments_verbatim_and_knows_what_happened() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("told");
    let text = "#!/bin/sh\nfor word in \"$@\"; do printf '<%s>' \"$word\"; done\nenv | sort\ncat\necho to-stderr >&2\n";
    executable(&script, text);
    let hooks = format!(
        "[{{on: [rollback], run: [\"{}\", \"two words\", \"$HOME\", \"; exit 7\", \"*\", \"\"], env: {{MORE: \"a b\"}}}}]",
        script.display()
    );
    let (proxy, _blue, _green) = with_hooks(&hooks).await;
    proxy.weights(90, 10).await;
    let answer = proxy
        .post("/v1/services/shop/rollback", json!({"reason": "it smells"}))
        .await;
    let noted = eventually_delivered(&proxy, 1).await;
    assert_eq!(noted[0]["last"]["result"], "exit status: 0");
    let output = noted[0]["last"]["output"].as_str().unwrap();
    assert!(
        output.starts_with("<two words><$HOME><; exit 7><*><>"),
        "{output}"
    );
    let revision = format!("SWITCHBACK_REVISION={}\n", answer.json()["revision"]);
    for line in [
        "SWITCHBACK_EVENT=rollback\n",
        "SWITCHBACK_SERVICE=shop\n",
        "SWITCHBACK_BACKEND=green\n",
        "SWITCHBACK_VERSION=2\n",
        "SWITCHBACK_REASON=it smells\n",
        "MORE=a b\n",
        "PATH=",
        "\"type\":\"switchback.rollback\"",
        "to-stderr\n",
        &revision,
    ] {
        assert!(output.contains(line), "{line}: {output}");
    }
    // Nothing else of ours leaks into it.
    assert!(!output.contains("CARGO"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn program_that_takes_too_long_is_ended_with_everything_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("stubborn");
    let pids = directory.path().join("pids");
    // Neither it nor its child listens to TERM.
    let text = format!(
        "#!/bin/sh\ntrap '' TERM\nsleep 60 &\necho $$ $! > {}\necho started\nwait\nwait\nsleep 60\n",
        pids.display()
    );
    executable(&script, &text);
    let hooks = format!(
        "[{{on: [weights], run: [\"{}\"], timeout: 1s}}]",
        script.display()
    );
    let (proxy, _blue, _green) = with_hooks(&hooks).await;
    proxy.weights(90, 10).await;
    let letters = eventually_dead(&proxy, 1).await;
    assert_eq!(
        letters[0]["last"]["result"],
        "did not end within 1s, killed"
    );
    assert_eq!(letters[0]["last"]["output"], "started\n");
    let pids = std::fs::read_to_string(pids).unwrap();
    for pid in pids.split_whitespace() {
        let status = format!("/proc/{pid}/status");
        eventually("the process is gone", || {
            // Whoever inherits it may not have noticed yet.
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            status.is_empty() || status.contains("State:\tZ")
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn program_that_fails_or_is_not_there_leaves_a_dead_letter_that_says_so() {
    let hooks = "\n  - {name: fails, on: [weights], run: [\"false\"]}\n  - {name: missing, on: [weights], run: [no-such-program]}";
    let (proxy, _blue, _green) = with_hooks(hooks).await;
    proxy.weights(90, 10).await;
    let letters = eventually_dead(&proxy, 2).await;
    let result = |hook: &str| {
        let letter = letters
            .iter()
            .find(|letter| letter["hook"] == hook)
            .unwrap();
        letter["last"]["result"].as_str().unwrap().to_owned()
    };
    assert_eq!(result("fails"), "exit status: 1");
    assert!(result("missing").contains("start \"no-such-program\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_of_hooks_are_shown_to_nobody() {
    let hooks = "[{on: [rollback], http: \"http://127.0.0.1:1/secret-path\", headers: {authorization: secret-key}}]";
    let (proxy, blue, green) = with_hooks(hooks).await;
    for path in ["/v1/config", "/v1/hooks"] {
        let shown = proxy.get(path).await.to_string();
        assert!(shown.contains("http://127.0.0.1:1/***"), "{shown}");
        assert!(!shown.contains("secret"), "{path}: {shown}");
    }
    let (code, out, _) = proxy.cli(&["hooks", "list"]);
    assert!(
        code == 0 && out.contains("rollback") && !out.contains("secret"),
        "{out}"
    );
    let more = format!("hooks: {}", hooks.replace("secret-key", "secret-other"));
    proxy.write_config(&blue_green(&blue.url(), &green.url(), &more));
    let answer = proxy.post("/v1/reload", Value::Null).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.text().contains("secret"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_hook_that_left_the_file_become_dead_letters() {
    let hooks = "[{on: [weights], http: \"http://127.0.0.1:1/\", retries: 20}]";
    let (proxy, blue, green) = with_hooks(hooks).await;
    proxy.weights(90, 10).await;
    crate::support::eventually_async("it waits for its next attempt", || async {
        let waiting = proxy.get("/v1/hooks/deliveries").await["waiting"].clone();
        waiting[0]["attempts"].as_u64() > Some(0)
    })
    .await;
    proxy.write_config(&blue_green(&blue.url(), &green.url(), ""));
    proxy.post("/v1/reload", Value::Null).await;
    let letters = eventually_dead(&proxy, 1).await;
    assert_eq!(
        letters[0]["last"]["result"],
        "the file has no such hook any more"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_with_unusable_secrets_is_refused() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let more =
        "hooks: [{on: [rollback], http: \"http://127.0.0.1:1/\", secret_file: hooks.secret}]";
    proxy.write_config(&blue_green(&blue.url(), &green.url(), more));
    for (secret, said) in [(None, "read "), (Some("hush"), "24 bytes")] {
        if let Some(secret) = secret {
            std::fs::write(proxy.path().join("hooks.secret"), secret).unwrap();
        }
        let answer = proxy.post("/v1/reload", Value::Null).await;
        assert_eq!(answer.status, 422);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(
            detail.contains("secret_file") && detail.contains(said),
            "{detail}"
        );
        assert!(!detail.contains("hush"), "{detail}");
    }
}

/// Writes a program.
fn executable(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
