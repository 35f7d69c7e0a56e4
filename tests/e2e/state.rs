//! What survives: kills, restarts, damaged files, a second process.

use serde_json::{Value, json};

use crate::support::{Origin, Proxy, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_changes_survive_a_kill() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    proxy.weights(60, 40).await;
    let before = proxy.service().await;
    proxy.crash_and_restart();
    let after = proxy.service().await;
    assert_eq!(after["weights"], json!({"blue": 60, "green": 40}));
    assert_eq!(after["revision"], before["revision"]);
    proxy
        .post("/v1/services/shop/switch", json!({"to": "green"}))
        .await;
    proxy.crash_and_restart();
    let after = proxy.service().await;
    assert_eq!(
        (&after["stable"], &after["previous"]),
        (&json!("green"), &json!("blue"))
    );
    assert_eq!(after["on_trial"]["backend"], "green");
    proxy
        .post("/v1/services/shop/rollback", json!({"reason": "broken"}))
        .await;
    proxy.crash_and_restart();
    let after = proxy.service().await;
    assert_eq!(after["weights"], json!({"blue": 100, "green": 0}));
    assert_eq!(after["backends"]["green"]["blocked"]["reason"], "broken");
    let revisions = proxy.get("/v1/revisions").await;
    let actions: Vec<&str> = revisions["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["rollback", "switch", "weights"]);
    let audit = proxy.get("/v1/audit").await;
    assert_eq!(audit["entries"].as_array().unwrap().len(), 3, "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn block_outlives_reload_restart_and_reapplied_file_until_the_version_changes() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = crate::support::blue_green(&blue.url(), &green.url(), "")
        .replace("blue: 100, green: 0", "blue: 50, green: 50");
    let mut proxy = Proxy::start(&config);
    proxy.post("/v1/services/shop/rollback", Value::Null).await;
    for _ in 0..2 {
        proxy.post("/v1/reload", Value::Null).await;
        assert_eq!(
            proxy.service().await["weights"],
            json!({"blue": 100, "green": 0})
        );
        proxy.crash_and_restart();
    }
    // The file's weights change: they win over the override, but not over the block.
    proxy.write_config(&config.replace("blue: 50, green: 50", "blue: 40, green: 60"));
    proxy.post("/v1/reload", Value::Null).await;
    assert_eq!(
        proxy.service().await["weights"],
        json!({"blue": 100, "green": 0})
    );
    // Another version of green is another matter.
    proxy.write_config(
        &config
            .replace("blue: 50, green: 50", "blue: 40, green: 60")
            .replace("version: \"2\"", "version: \"3\""),
    );
    proxy.post("/v1/reload", Value::Null).await;
    assert_eq!(
        proxy.service().await["weights"],
        json!({"blue": 40, "green": 60})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_database_is_replaced_by_its_copy() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    proxy.weights(50, 50).await;
    proxy.post("/v1/services/shop/rollback", Value::Null).await;
    proxy.signal(rustix::process::Signal::KILL);
    proxy.wait();
    std::fs::write(proxy.state_dir().join("state.redb"), "rubbish").unwrap();
    proxy.start_again();
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    assert!(!service["backends"]["green"]["blocked"].is_null());
    assert!(proxy.log().contains("state_lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_state_serves_stable_only_until_acknowledged() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = crate::support::blue_green(&blue.url(), &green.url(), "")
        .replace("blue: 100, green: 0", "blue: 50, green: 50");
    let mut proxy = Proxy::start(&config);
    proxy.weights(60, 40).await;
    proxy.signal(rustix::process::Signal::KILL);
    proxy.wait();
    for file in ["state.redb", "state.json", "state.json.1"] {
        let _ = std::fs::write(proxy.state_dir().join(file), "rubbish");
    }
    proxy.start_again();
    assert_eq!(proxy.get("/v1/services").await["stable_only"], true);
    assert_eq!(
        proxy.service().await["weights"],
        json!({"blue": 100, "green": 0})
    );
    assert_eq!(proxy.cli(&["acknowledge"]).0, 0);
    assert_eq!(
        proxy.service().await["weights"],
        json!({"blue": 50, "green": 50})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_process_in_a_state_directory_is_refused_with_the_pid_of_the_first() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let (code, _, err) = proxy.cli(&["run", "--config", "switchback.yaml"]);
    assert_eq!(code, 73, "{err}");
    let pid = proxy.pid().as_raw_nonzero().to_string();
    assert!(err.contains(&pid), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn term_finishes_what_is_in_flight_and_exits_0() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let held = blue.hold();
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    let web = proxy.web;
    let mut requests = Vec::new();
    for _ in 0..50 {
        requests.push(tokio::spawn(async move {
            crate::support::Http::connect(web)
                .await
                .send("GET", "/", &[], b"")
                .await
        }));
    }
    eventually("all requests are in flight", || blue.received() == 50);
    proxy.signal(rustix::process::Signal::TERM);
    eventually("it stops", || proxy.log().contains("stopping"));
    drop(held);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status, 200);
    }
    assert_eq!(proxy.wait(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_signal_cuts_and_exits_3() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let _held = blue.hold();
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    let mut client = crate::support::RawClient::connect(proxy.web).await;
    client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the request is in flight", || blue.received() == 1);
    proxy.signal(rustix::process::Signal::TERM);
    eventually("it stops", || proxy.log().contains("stopping"));
    proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(proxy.wait(), Some(3));
}
