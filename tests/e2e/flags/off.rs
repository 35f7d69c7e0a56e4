//! Turning flags off: by a person, with a rollback, and by doubt.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use serde_json::{Value, json};

use super::{FLAGS, ask, closed, config, off, ofrep, on, post, said, start};
use crate::support::{Http, Load, Origin, Protocol, Proxy, eventually, eventually_async};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flag_that_was_turned_off_stays_off_until_it_is_turned_on() {
    let (blue, green, mut proxy) = start(FLAGS).await;
    assert_eq!(said(&proxy, "payments").await, on());
    let body = json!({"reason": "orders are lost"});
    let answer = proxy.post("/v1/flags/payments/off", body).await.json();
    assert_eq!(
        (&answer["changed"], &answer["enabled"], &answer["durable"]),
        (&json!(true), &json!(false), &json!(true)),
        "{answer}"
    );
    assert_eq!(said(&proxy, "payments").await, off());
    let again = proxy.post("/v1/flags/payments/off", Value::Null).await;
    assert_eq!(again.json()["changed"], false);
    proxy.crash_and_restart();
    assert_eq!(said(&proxy, "payments").await, off());
    // Whatever the file says.
    let changed = FLAGS.replace("max_age: 10s", "max_age: 20s");
    proxy.write_config(&config(&blue, &green, &changed, ""));
    assert_eq!(proxy.post("/v1/reload", Value::Null).await.status, 200);
    assert_eq!(said(&proxy, "payments").await, off());
    let view = proxy.get("/v1/flags/payments").await;
    assert_eq!(view["off"]["reason"], "orders are lost");
    assert_eq!(view["effective"]["max_age"], "20s");
    let conflict = view["conflict"].as_str().unwrap();
    assert!(
        conflict.ends_with("until: switchback flag on payments"),
        "{conflict}"
    );
    let turned_on = proxy.post("/v1/flags/payments/on", Value::Null).await;
    assert_eq!(turned_on.json()["enabled"], true);
    assert_eq!(said(&proxy, "payments").await, on());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flag_goes_off_with_full_disk_and_comes_on_only_when_that_is_written() {
    let (_blue, _green, proxy) = start(FLAGS).await;
    proxy.fill_disk(true);
    let answer = proxy.post("/v1/flags/plain/off", Value::Null).await;
    assert_eq!(
        (answer.status, answer.json()["durable"].clone()),
        (200, json!(false))
    );
    assert_eq!(said(&proxy, "plain").await, off());
    let refused = proxy.post("/v1/flags/plain/on", Value::Null).await;
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert_eq!(said(&proxy, "plain").await, off());
    proxy.fill_disk(false);
    eventually_async("it can be turned on", || async {
        proxy.post("/v1/flags/plain/on", Value::Null).await.status == 200
    })
    .await;
    assert_eq!(said(&proxy, "plain").await, on());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_turns_off_the_flags_of_its_version() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let keys = ", off_on_rollback: [plain, payments]";
    let proxy = Proxy::start(&config(&blue, &green, FLAGS, keys));
    assert_eq!(said(&proxy, "plain").await, on());
    let rolled_back = proxy.post("/v1/services/shop/rollback", Value::Null).await;
    assert_eq!(rolled_back.status, 200);
    for flag in ["plain", "payments"] {
        assert_eq!(said(&proxy, flag).await, off(), "{flag}");
        let view = proxy.get(&format!("/v1/flags/{flag}")).await;
        assert_eq!(view["off"]["reason"], "green (2) was rolled back");
    }
    let button = ask(&proxy, "button", json!({})).await.json();
    assert_eq!(button["variant"], "red", "others stay as they are");
    // In one revision with the rollback, and unblocking does not turn them on.
    let revision = rolled_back.json()["revision"].as_u64().unwrap();
    let record = proxy.get(&format!("/v1/revisions/{revision}")).await;
    let flags: Vec<&String> = record["flags"].as_object().unwrap().keys().collect();
    assert_eq!(flags, ["payments", "plain"]);
    let path = "/v1/services/shop/backends/green/unblock";
    assert_eq!(proxy.post(path, Value::Null).await.status, 200);
    assert_eq!(said(&proxy, "plain").await, off());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn judge_turns_off_the_flags_of_the_version_it_rolls_back() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::start(&config(&blue, &green, FLAGS, ", off_on_rollback: [plain]"));
    green.answer_with(500);
    let mut load = Load::start(proxy.web, Protocol::Http1, 4);
    eventually_async("the flag is off", || async {
        said(&proxy, "plain").await == off()
    })
    .await;
    let _ = load.stop().await;
    let view = proxy.get("/v1/flags/plain").await;
    assert_eq!(view["off"]["by"], "judge");
    assert_eq!(proxy.service().await["weights"]["green"], 0);
}

/// Asks for two flags again and again, until it is stopped: how often the kill switch was on, and closed.
/// The plain flag is always on.
async fn applications(address: SocketAddr, stop: Arc<AtomicBool>, seen: Arc<[AtomicU64; 2]>) {
    let mut client = Http::connect(address).await;
    let headers = [("content-type", "application/json")];
    while !stop.load(SeqCst) {
        for flag in ["payments", "plain"] {
            let path = format!("/ofrep/v1/evaluate/flags/{flag}");
            let answer = client.send("POST", &path, &headers, b"{}").await.unwrap();
            assert_eq!(answer.status, 200);
            let answer = answer.json();
            let (value, reason) = (&answer["value"], answer["reason"].as_str().unwrap());
            match (flag, value, reason) {
                ("plain" | "payments", Value::Bool(true), "STATIC") => {
                    seen[0].fetch_add(u64::from(flag == "payments"), SeqCst);
                }
                ("payments", Value::Bool(false), "ERROR") => {
                    seen[1].fetch_add(1, SeqCst);
                }
                _ => panic!("{flag} says {answer}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_switches_fail_closed_under_load_when_the_store_is_corrupted() {
    let (_blue, _green, mut proxy) = start(FLAGS).await;
    proxy.weights(100, 0).await;
    let (stop, seen) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new([0, 0].map(AtomicU64::new)),
    );
    let asking: Vec<_> = (0..4)
        .map(|_| tokio::spawn(applications(ofrep(&proxy), stop.clone(), seen.clone())))
        .collect();
    let load = Load::start(proxy.web, Protocol::Http1, 2);
    let counts = || [0, 1].map(|index: usize| seen[index].load(SeqCst));
    eventually("applications are answered", || counts()[0] > 200);
    assert_eq!(counts()[1], 0);
    for file in ["state.json", "state.json.1", "state.redb"] {
        let path = proxy.state_dir().join(file);
        if path.exists() {
            std::fs::write(path, vec![0x5a; 4_096]).unwrap();
        }
    }
    let before = counts()[1];
    eventually("kill switches close", || counts()[1] > before + 500);
    let last_on = counts()[0];
    eventually("they stay closed", || counts()[1] > before + 1_500);
    assert_eq!(counts()[0], last_on, "none is on once the damage was seen");
    let view = proxy.get("/v1/flags").await;
    assert_eq!(view["kill_switches_believed"], false);
    eventually_async("it is told", || async {
        let events = proxy
            .api("GET", "/v1/events?follow=false", Value::Null)
            .await;
        events.text().contains("kill_switches_closed")
    })
    .await;
    stop.store(true, SeqCst);
    for application in asking {
        application.await.unwrap();
    }
    let done = load.finish().await;
    println!(
        "{:?} answers on and closed, {done} requests passed meanwhile",
        counts()
    );
    // Nothing valid is left: what was turned off is not known until somebody has looked.
    proxy.crash_and_restart();
    assert_eq!(said(&proxy, "payments").await, closed());
    assert_eq!(said(&proxy, "plain").await, on());
    let acknowledged = proxy.post("/v1/acknowledge", Value::Null).await;
    assert_eq!(acknowledged.status, 200);
    eventually_async("it is believed again", || async {
        said(&proxy, "payments").await == on()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_switches_say_what_they_should_again_once_the_copy_is_written_anew() {
    let (_blue, _green, mut proxy) = start(FLAGS).await;
    proxy.weights(90, 10).await;
    std::fs::write(proxy.state_dir().join("state.json"), "{}").unwrap();
    eventually_async("it is closed", || async {
        said(&proxy, "payments").await == closed()
    })
    .await;
    proxy.weights(80, 20).await;
    eventually_async("the next change writes it", || async {
        said(&proxy, "payments").await == on()
    })
    .await;
    std::fs::write(proxy.state_dir().join("state.json"), "{}").unwrap();
    proxy.crash_and_restart();
    assert_eq!(said(&proxy, "payments").await, on(), "so does a start");
    let copy = std::fs::read_to_string(proxy.state_dir().join("state.json")).unwrap();
    assert!(copy.contains("checksum"), "{copy}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_and_their_listener_change_hands_with_the_process() {
    let (_blue, _green, mut proxy) = start(FLAGS).await;
    proxy.post("/v1/flags/plain/off", Value::Null).await;
    let address = ofrep(&proxy);
    let (stop, seen) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let asking = tokio::spawn({
        let (stop, seen) = (stop.clone(), seen.clone());
        async move {
            while !stop.load(SeqCst) {
                let path = "/ofrep/v1/evaluate/flags/plain";
                let answer = post(address, path, &[], &json!({})).await;
                assert_eq!(answer.json()["value"], false);
                seen.fetch_add(1, SeqCst);
            }
        }
    });
    let mut before = proxy.take_over();
    let until = seen.load(SeqCst) + 50;
    eventually("applications go on asking", || seen.load(SeqCst) > until);
    eventually("the old process ends", || {
        before.try_wait().unwrap().is_some()
    });
    stop.store(true, SeqCst);
    asking.await.unwrap();
    assert_eq!(ofrep(&proxy), address);
    assert_eq!(said(&proxy, "plain").await, off());
    proxy.post("/v1/flags/plain/on", Value::Null).await;
    assert_eq!(said(&proxy, "plain").await, on());
}
