//! `top` and `status --watch`, in a real terminal against a running process.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{DEADLINE, Load, Origin, Protocol, Proxy, Terminal};

const WIDE: [u16; 2] = [120, 40];

async fn proxy() -> (Origin, Origin, Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    (blue, green, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_shows_changes_as_they_come_and_rolls_back_once_that_is_confirmed() {
    let (_blue, _green, proxy) = proxy().await;
    let mut load = Load::start(proxy.web, Protocol::Http1, 1);
    let top = Terminal::start(&proxy, "top", WIDE);
    top.shows(&["1 service", "blue 100%", "none yet"]);
    proxy.weights(90, 10).await;
    // With times of requests, once two looks can be compared.
    let screen = top.shows(&["blue 90% green 10%", " ms", "0.0%"]);
    assert!(screen.contains("> shop"), "{screen}");
    assert!(top.has_colours());
    top.press(&["r"]);
    top.shows(&[
        "roll back shop?",
        "weights.blue: 90 -> 100",
        "weights.green: 10 -> 0",
        "y  do it",
    ]);
    let weights = proxy.service().await["weights"].clone();
    assert_eq!(
        weights,
        json!({"blue": 90, "green": 10}),
        "nothing has changed yet"
    );
    top.press(&["y"]);
    top.shows(&[
        "shop: rolled back to blue=100 green=0",
        "green blocked",
        "by admin",
    ]);
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    assert_eq!(
        service["blocked_versions"]["2"]["reason"],
        "by switchback top"
    );
    top.press(&["r"]);
    top.shows(&["nothing would change"]);
    top.press(&["n", "q"]);
    assert_eq!(top.ends(), 0);
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_pauses_and_resumes_a_rollout_without_colours_on_a_narrow_terminal() {
    let (_blue, _green, proxy) = proxy().await;
    let start =
        json!({"canary": "green", "steps": [{"weight": "10%", "for": "1h"}], "force": true});
    let started = proxy.post("/v1/services/shop/rollout", start).await;
    assert_eq!(started.status, 200, "{}", started.text());
    let status = || async { proxy.get("/v1/services/shop/rollout").await["status"].clone() };
    let top = Terminal::start(&proxy, "top --color never", [60, 30]);
    top.shows(&["step 1 of 1", "blue 90% green 10%"]);
    top.press(&["p"]);
    top.shows(&[
        "pause the rollout of shop?",
        "rollout.status: running -> paused",
    ]);
    top.press(&["y"]);
    top.shows(&[
        "the rollout is paused",
        "! rollout paused",
        "paused by admin",
    ]);
    assert_eq!(status().await, "paused");
    assert!(!top.has_colours());
    top.press(&["p"]);
    top.shows(&["let the rollout of shop go on?"]);
    top.press(&["y"]);
    top.shows(&["the rollout goes on"]);
    assert_eq!(status().await, "running");
    top.press(&["C-c"]);
    assert_eq!(top.ends(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_shows_no_numbers_while_the_server_does_not_answer_and_goes_on_after() {
    let (_blue, _green, proxy) = proxy().await;
    let top = Terminal::start(&proxy, "top", WIDE);
    top.shows(&["blue 100%"]);
    proxy.signal(Signal::STOP);
    let screen = top.shows(&["!! disconnected since ", "no answer within"]);
    assert!(!screen.contains("100%"), "{screen}");
    proxy.signal(Signal::CONT);
    let screen = top.shows(&["blue 100%"]);
    assert!(!screen.contains("disconnected"), "{screen}");
    top.press(&["q"]);
    assert_eq!(top.ends(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminal_is_as_before_when_a_signal_ends_top() {
    let (_blue, _green, proxy) = proxy().await;
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let top = Terminal::start(&proxy, "top", WIDE);
        top.shows(&["blue 100%"]);
        kill_process(top.pid(), signal).unwrap();
        assert_eq!(top.ends(), 0, "{signal:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_says_what_is_wrong_before_it_takes_the_terminal() {
    let (_blue, _green, proxy) = proxy().await;
    let (code, out, err) = proxy.cli(&["top"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.contains("needs a terminal") && err.contains("status --watch"),
        "{err}"
    );
    let (code, _, err) = proxy.cli(&["top", "-o", "json"]);
    assert!(code == 2 && err.contains("status --watch -o json"), "{err}");
    let top = Terminal::start(&proxy, "top --admin http://127.0.0.1:1", WIDE);
    assert_eq!(top.ends(), 69);
    assert!(top.screen().contains("Connection refused"));
    let top = Terminal::start(&proxy, "top --token-file /dev/null", WIDE);
    assert_eq!(top.ends(), 77);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watched_status_writes_over_itself_and_shows_no_numbers_that_may_be_old() {
    let (_blue, _green, proxy) = proxy().await;
    let status = Terminal::start(&proxy, "status --watch --color never", [130, 12]);
    status.shows(&["every second", "blue", "100.0%"]);
    proxy.weights(75, 25).await;
    let screen = status.shows(&["75.0%", "25.0%"]);
    assert_eq!(screen.matches("SERVICE").count(), 1, "{screen}");
    proxy.signal(Signal::STOP);
    let screen = status.shows(&["disconnected since ", "trying again"]);
    assert!(!screen.contains("75.0%"), "{screen}");
    proxy.signal(Signal::CONT);
    status.shows(&["75.0%"]);
    let narrow = Terminal::start(&proxy, "status --watch", [80, 12]);
    let screen = narrow.shows(&["SERVICE", "25.0%", "EVIDENCE"]);
    assert!(!screen.contains("IN FLIGHT"), "{screen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_watch_status_get_a_line_of_json_a_second_and_are_told_of_losses() {
    let (_blue, _green, proxy) = proxy().await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_switchback"))
        .args(["status", "shop", "--watch", "-o", "json"])
        .env("SWITCHBACK_ADMIN", format!("http://{}", proxy.admin))
        .env("SWITCHBACK_STATE_DIR", proxy.state_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = |stream: Box<dyn std::io::Read + Send>| {
        let (sent, lines) = mpsc::sync_channel(256);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let _ = sent.send(line);
            }
        });
        lines
    };
    let out = lines(Box::new(child.stdout.take().unwrap()));
    let err = lines(Box::new(child.stderr.take().unwrap()));
    let green = || {
        let line = out.recv_timeout(DEADLINE).unwrap();
        let view: Value = serde_json::from_str(&line).unwrap();
        view["weights"]["green"].clone()
    };
    assert_eq!(green(), 0);
    proxy.weights(90, 10).await;
    while green() != 10 {}
    proxy.signal(Signal::STOP);
    let lost = err.recv_timeout(DEADLINE).unwrap();
    assert!(
        lost.contains("disconnected since ") && lost.contains("trying again"),
        "{lost}"
    );
    proxy.signal(Signal::CONT);
    let back = err.recv_timeout(DEADLINE).unwrap();
    assert!(back.contains("connected again"), "{back}");
    while green() != 10 {}
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, _, err) = proxy.cli(&["status", "nobody", "--watch"]);
    assert_eq!(code, 1, "{err}");
}
