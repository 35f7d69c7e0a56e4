//! Hand-overs that stop somewhere: nothing decided is lost, and nobody is promised what does not hold.

use std::collections::HashSet;
use std::process::Command;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::peers::{Giver, Taker, Talk};
use super::{verb, wait};
use crate::support::{
    DEADLINE, Fault, Faulty, Http, Origin, Proxy, blue_green, eventually, eventually_async, log_in,
    run,
};

/// Lets `giver` play the process that is taken over from, and starts a new one; `talk` goes on from where
/// the new one has the state.
fn taken_over_from<T: Send + 'static>(
    proxy: &mut Proxy,
    giver: Giver,
    talk: impl FnOnce(Talk) -> T + Send + 'static,
) -> (Giver, T) {
    let talking = std::thread::spawn(move || {
        let said = talk(giver.give());
        (giver, said)
    });
    let mut command = run(proxy.path());
    command.arg("--takeover");
    proxy.start_again_by(command);
    talking.join().unwrap()
}

/// A proxy that has ended, and whose place the test holds.
async fn held_by_another(blue: &Origin, green: &Origin) -> (Proxy, Giver) {
    let mut proxy = Proxy::blue_green(blue, green, "");
    proxy.weights(50, 50).await;
    proxy.signal(Signal::TERM);
    proxy.wait();
    let giver = Giver::hold(&proxy.state_dir());
    (proxy, giver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_of_a_rollback_during_a_hand_over_reaches_the_new_process() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "rollback: {on_failure: notify}";
    let mut proxy = Proxy::blue_green(&blue, &green, more);
    proxy.weights(50, 50).await;
    green.answer_with(500);
    for _ in 0..40 {
        Http::connect(proxy.web).await.get("/").await;
    }
    let mut taker = Taker::connect(&proxy);
    taker.take();
    let press = verb(&proxy, &["rollback", "shop", "--reason", "it fails"]);
    let carried = taker.talk.receive();
    let done = json!({"say": "done", "number": carried["number"], "durable": true});
    taker.talk.send(&done);
    assert_eq!(press.await.unwrap()["durable"], true);
    let record = carried["record"].clone();
    let samples = record["versions"][0]["samples"].as_array();
    let has_samples = samples.is_some_and(|samples| !samples.is_empty());
    assert!(has_samples, "{carried}");
    // Now the same, as a new process sees it.
    proxy.signal(Signal::KILL);
    proxy.wait();
    drop(taker);
    let giver = Giver::hold(&proxy.state_dir());
    let (_giver, done) = taken_over_from(&mut proxy, giver, move |mut talk| {
        talk.send(&carried);
        // It may serve before it has read what was sent along.
        let said = [talk.receive(), talk.receive()];
        assert!(said.contains(&json!({"say": "serving"})), "{said:?}");
        talk.send(&json!({"say": "retired"}));
        let done = said.into_iter().find(|said| said["say"] == "done");
        done.unwrap()
    });
    assert_eq!(
        (&done["say"], &done["durable"]),
        (&json!("done"), &json!(true))
    );
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    let path = format!("/v1/rollbacks/{}", service["revision"]);
    eventually_async("its record is kept", || async {
        proxy.api("GET", &path, Value::Null).await.status == 200
    })
    .await;
    let kept = proxy.get(&path).await;
    for member in ["at", "by", "sentence", "weights_before", "settings"] {
        assert_eq!(kept[member], record[member], "{member}");
    }
    assert_eq!(
        kept["versions"][0]["samples"],
        record["versions"][0]["samples"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_process_serves_its_api_though_the_old_one_never_says_that_it_is_done() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let (mut proxy, giver) = held_by_another(&blue, &green).await;
    let (_giver, mut talk) = taken_over_from(&mut proxy, giver, |mut talk| {
        assert_eq!(talk.receive(), json!({"say": "serving"}));
        talk
    });
    // It is reachable, though what it decides may not be in force everywhere yet.
    assert_eq!(
        proxy.service().await["weights"],
        json!({"blue": 50, "green": 50})
    );
    let body = json!({"weights": {"blue": 60, "green": 40}});
    let answer = proxy.api("PUT", "/v1/services/shop/weights", body).await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert_eq!(answer.json()["code"], "apply_unconfirmed");
    assert_eq!(
        proxy.service().await["weights"],
        json!({"blue": 60, "green": 40})
    );
    // What the old one decides until it is done still counts.
    let author = json!({"by": "ops", "via": "api", "how": null, "reason": "late"});
    let urgent = json!({"verb": "rollback", "service": "shop", "cut": false});
    talk.send(
        &json!({"say": "carry", "number": 1, "revision": 1_000, "urgent": urgent,
        "author": author, "record": null}),
    );
    let done = loop {
        let said = talk.receive();
        if said["say"] == "done" {
            break said;
        }
        assert_eq!(said["say"], "follow");
    };
    assert_eq!(done["durable"], true);
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    let revision = service["revision"].clone();
    talk.send(&json!({"say": "retired"}));
    talk.send(&json!({"say": "followed", "revision": revision}));
    let again = proxy.post("/v1/services/shop/rollback", Value::Null).await;
    assert_eq!(again.status, 200, "{}", again.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_is_unconfirmed_while_the_old_process_does_not_follow() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    let mut kept = Http::connect(proxy.web).await;
    assert_eq!(kept.get("/").await.status, 200);
    let mut before = proxy.take_over();
    let old = Pid::from_child(&before);
    kill_process(old, Signal::STOP).unwrap();
    let body = json!({"weights": {"blue": 0, "green": 100}});
    let answer = proxy.api("PUT", "/v1/services/shop/weights", body).await;
    kill_process(old, Signal::CONT).unwrap();
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert_eq!(answer.json()["code"], "apply_unconfirmed");
    assert_eq!(
        proxy.service().await["weights"],
        json!({"blue": 0, "green": 100})
    );
    proxy
        .set_weights_when_it_can(json!({"weights": {"blue": 1, "green": 100}}))
        .await;
    proxy
        .set_weights_when_it_can(json!({"weights": {"blue": 0, "green": 100}}))
        .await;
    let to_green = green.received();
    assert_eq!(kept.get("/").await.status, 200);
    assert_eq!(green.received(), to_green + 1, "it follows again");
    assert_eq!(wait(&mut before), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_is_in_force_as_a_whole_though_the_old_process_does_not_confirm_it() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = blue_green(&blue.url(), &green.url(), "");
    let mut proxy = Proxy::start(&config);
    let mut kept = Http::connect(proxy.web).await;
    assert_eq!(kept.get("/").await.status, 200);
    let mut before = proxy.take_over();
    let old = Pid::from_child(&before);
    kill_process(old, Signal::STOP).unwrap();
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = listener.local_addr().unwrap();
    drop(listener);
    let web = "  web: {address: \"127.0.0.1:0\"}\n";
    let more = format!("{web}  more: {{address: \"{free}\"}}\n");
    let new = config.replace(web, &more);
    let new = new.replace("blue: 100, green: 0", "blue: 0, green: 100");
    proxy.write_config(&new);
    let answer = proxy.post("/v1/reload", Value::Null).await;
    kill_process(old, Signal::CONT).unwrap();
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert_eq!(answer.json()["code"], "apply_unconfirmed");
    let to_green = green.received();
    let through_more = Http::connect(free).await.get("/").await;
    assert_eq!(through_more.status, 200, "its listener is open");
    assert_eq!(green.received(), to_green + 1);
    let copy = proxy.state_dir().join("config.yaml");
    eventually("it is the last good one", || {
        std::fs::read_to_string(&copy).unwrap() == new
    });
    eventually("it is told", || {
        proxy.log().contains("the file was taken over")
    });
    assert!(!proxy.log().contains("the file was refused"));
    let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
    let is_taken = "\nswitchback_config_last_reload_successful 1\n";
    assert!(metrics.contains(is_taken), "{metrics}");
    drop(kept);
    assert_eq!(wait(&mut before), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_are_sent_along_all_at_once_are_all_answered() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let (mut proxy, giver) = held_by_another(&blue, &green).await;
    let numbers: Vec<u64> = (0..20).collect();
    let sent = numbers.clone();
    let (_giver, mut done) = taken_over_from(&mut proxy, giver, move |mut talk| {
        let author = json!({"by": "ops", "via": "api", "how": null, "reason": null});
        let urgent = json!({"verb": "rollback", "service": "shop", "cut": false});
        for number in &sent {
            talk.send(
                &json!({"say": "carry", "number": number, "revision": number + 1_000,
                "urgent": urgent, "author": author, "record": null}),
            );
        }
        let (mut done, mut serves) = (Vec::new(), false);
        while done.len() < sent.len() || !serves {
            let said = talk.receive();
            if said["say"] == "done" {
                done.push(said["number"].as_u64().unwrap());
            }
            serves |= said["say"] == "serving";
        }
        talk.send(&json!({"say": "retired"}));
        done
    });
    done.sort_unstable();
    assert_eq!(done, numbers);
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    assert!(!service["backends"]["green"]["blocked"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_say_nothing_do_not_keep_another_process_from_taking_over() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    let mut silent: Vec<Taker> = (0..4).map(|_| Taker::silent(&proxy)).collect();
    let mut halfway = Taker::connect(&proxy);
    let mut before = proxy.take_over();
    assert_eq!(wait(&mut before), Some(0));
    assert!(halfway.talk.receive_any().is_none());
    assert!(
        silent
            .iter_mut()
            .all(|one| one.talk.receive_any().is_none())
    );
    // Nor are they waited for forever.
    let mut silent = Taker::silent(&proxy);
    let told = std::thread::spawn(move || silent.talk.receive_any());
    assert!(told.join().unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_that_cannot_be_opened_again_is_told_and_tried_again() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    proxy.weights(50, 50).await;
    let mut taker = Taker::connect(&proxy);
    taker.take();
    let (database, aside) = (
        proxy.state_dir().join("state.redb"),
        proxy.state_dir().join("aside"),
    );
    std::fs::rename(&database, &aside).unwrap();
    std::fs::create_dir(&database).unwrap();
    drop(taker);
    let is_written = "switchback_state_last_write_successful";
    eventually_async("it is in the metrics", || async {
        let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
        metrics.contains(&format!("\n{is_written} 0\n"))
    })
    .await;
    let ready = proxy.api("GET", "/readyz?verbose", Value::Null).await;
    assert_eq!(ready.status, 200, "traffic is served");
    assert!(ready.text().contains("state failed"), "{}", ready.text());
    assert_eq!(Http::connect(proxy.web).await.get("/").await.status, 200);
    let body = json!({"weights": {"blue": 60, "green": 40}, "reason": "no disk"});
    let refused = proxy
        .api("PUT", "/v1/services/shop/weights", body.clone())
        .await;
    assert_eq!(refused.status, 507, "{}", refused.text());
    let rolled_back = proxy.post("/v1/services/shop/rollback", Value::Null).await;
    assert_eq!(
        rolled_back.json()["durable"],
        false,
        "{}",
        rolled_back.text()
    );
    std::fs::remove_dir(&database).unwrap();
    std::fs::rename(&aside, &database).unwrap();
    eventually("it is persisted", || proxy.log().contains("state_returned"));
    let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
    assert!(
        metrics.contains(&format!("\n{is_written} 1\n")),
        "{metrics}"
    );
    assert_eq!(audited(&proxy, "no disk").await, ["not_durable"]);
    proxy.crash_and_restart();
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    assert!(!service["backends"]["green"]["blocked"].is_null());
}

/// What the audit says of requests with this reason.
async fn audited(proxy: &Proxy, reason: &str) -> Vec<String> {
    let answer = proxy.api("GET", "/v1/audit", Value::Null).await;
    if answer.status == 503 {
        // Nothing can be read while another process has the state.
        return Vec::new();
    }
    let audit = answer.json();
    let entries = audit["entries"].as_array().unwrap().iter();
    let ours = entries.filter(|entry| entry["reason"] == reason);
    ours.map(|entry| entry["result"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_during_a_hand_over_is_in_the_audit_whoever_has_the_state_afterwards() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    let put = |reason: &str| json!({"weights": {"blue": 1, "green": 1}, "reason": reason});
    let path = "/v1/services/shop/weights";
    let mut taker = Taker::connect(&proxy);
    taker.take();
    assert_eq!(proxy.api("PUT", path, put("came back")).await.status, 503);
    drop(taker);
    eventually_async("it is in the audit", || async {
        audited(&proxy, "came back").await == ["handing_over"]
    })
    .await;
    // To a process that does take over it is sent.
    let mut taker = Taker::connect(&proxy);
    taker.take();
    assert_eq!(proxy.api("PUT", path, put("went along")).await.status, 503);
    taker.talk.send(&json!({"say": "serving"}));
    let audit = taker.talk.receive();
    assert_eq!(audit["say"], "audit", "{audit}");
    assert_eq!(audit["entries"][0]["reason"], "went along");
    assert_eq!(taker.talk.receive(), json!({"say": "retired"}));
    drop(taker);
    proxy.wait();
    let giver = Giver::hold(&proxy.state_dir());
    taken_over_from(&mut proxy, giver, move |mut talk| {
        assert_eq!(talk.receive(), json!({"say": "serving"}));
        talk.send(&audit);
        talk.send(&json!({"say": "retired"}));
    });
    eventually_async("it is in the audit", || async {
        audited(&proxy, "went along").await == ["handing_over"]
    })
    .await;
    assert_eq!(proxy.cli(&["audit", "--verify"]).0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn term_during_a_hand_over_finishes_requests_and_leaves_the_state_to_the_new_process() {
    let (blue, green) = (Faulty::start().await, Origin::start().await);
    let mut proxy = Proxy::start(&blue_green(&blue.url(), &green.url(), ""));
    proxy.weights(99, 1).await;
    proxy.weights(100, 0).await;
    let revision = proxy.service().await["revision"].clone();
    blue.set(Fault::Hang);
    let web = proxy.web;
    let requests: Vec<_> = (0..20)
        .map(|number| {
            tokio::spawn(async move {
                let id = number.to_string();
                let headers = [("x-test-id", id.as_str())];
                Http::connect(web)
                    .await
                    .send("POST", "/", &headers, b"once")
                    .await
            })
        })
        .collect();
    eventually("all are in flight", || blue.deliveries().len() == 20);
    let mut taker = Taker::connect(&proxy);
    taker.take();
    let body = json!({"weights": {"blue": 1, "green": 1}, "reason": "too late"});
    let refused = proxy.api("PUT", "/v1/services/shop/weights", body).await;
    assert_eq!(refused.status, 503);
    proxy.signal(Signal::TERM);
    // What it knows that the new one does not, it still says.
    let audit = taker.talk.receive();
    assert_eq!(audit["entries"][0]["reason"], "too late", "{audit}");
    assert_eq!(taker.talk.receive(), json!({"say": "retired"}));
    assert!(taker.talk.receive_any().is_none());
    blue.set(Fault::None);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status, 200);
    }
    assert_eq!(proxy.wait(), Some(0));
    let deliveries = blue.deliveries();
    assert!(deliveries.values().all(|count| *count == 1));
    // The directory is the new process's until it ends.
    let (code, _, err) = proxy.cli(&["run", "--config", "switchback.yaml"]);
    assert_eq!(code, 73, "{err}");
    drop(taker);
    proxy.start_again();
    assert_eq!(proxy.service().await["revision"], revision);
    println!("TERM during a hand-over with 20 POSTs in flight: 0 failed, 0 repeated, exit 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_changes_during_a_hand_over_is_taken_over_soon_after_it() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    // The log is elsewhere, so that nothing but the file itself calls for a look at it.
    let directory = tempfile::tempdir().unwrap();
    let etc = directory.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    let config = blue_green(&blue.url(), &green.url(), "");
    std::fs::write(etc.join("switchback.yaml"), &config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
    command.args([
        "run",
        "--config",
        "etc/switchback.yaml",
        "--state-dir",
        "state",
    ]);
    log_in(directory.path(), &mut command);
    let proxy = Proxy::start_by(directory, command);
    let mut taker = Taker::connect(&proxy);
    taker.take();
    let new = config.replace("blue: 100, green: 0", "blue: 70, green: 30");
    std::fs::write(etc.join("new.yaml"), new).unwrap();
    std::fs::rename(etc.join("new.yaml"), etc.join("switchback.yaml")).unwrap();
    eventually("it is refused", || {
        proxy.log().contains("taking over from this one")
    });
    // It is tried again and again, though nothing calls for it: once at the start, by each hint, and then.
    let (mut tries, started) = (HashSet::new(), Instant::now());
    while tries.len() < 6 {
        assert!(started.elapsed() < DEADLINE, "only tried at {tries:?}");
        let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
        let at = "switchback_config_last_reload_timestamp_seconds ";
        let at = metrics.lines().find_map(|line| line.strip_prefix(at));
        tries.insert(at.unwrap().to_owned());
    }
    drop(taker);
    eventually_async("the file is in force", || async {
        proxy.service().await["weights"] == json!({"blue": 70, "green": 30})
    })
    .await;
    let refusals = proxy.log().matches("reload_failed").count();
    assert_eq!(refusals, 1, "the same refusal is told once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_that_hands_over_by_another_protocol_is_told_so() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let mut taker = Taker::silent(&proxy);
    taker
        .talk
        .send(&json!({"say": "hello", "protocol": 99, "pid": 1}));
    let refused = taker.talk.receive();
    assert_eq!(refused["say"], "refused", "{refused}");
    assert!(refused["reason"].to_string().contains("99"), "{refused}");
    assert!(taker.talk.receive_any().is_none());
    proxy.weights(70, 30).await;
}
