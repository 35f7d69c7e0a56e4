//! Slow requests on live traffic: judged like failures, and noticed while they still wait.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Behaviour, Http, Load, Origin, Protocol, Proxy, RawClient, eventually_async};

const HOUR: Duration = Duration::from_secs(3_600);

fn takes(delay: Duration) -> Behaviour {
    Behaviour {
        delay,
        ..Behaviour::default()
    }
}

/// A counter of a backend; 0 if it is not there.
async fn counted(proxy: &Proxy, metric: &str, backend: &str) -> f64 {
    let text = proxy.api("GET", "/metrics", Value::Null).await.text();
    let label = format!("backend=\"{backend}\"");
    let line = text
        .lines()
        .find(|line| line.starts_with(metric) && line.contains(&label));
    line.and_then(|line| line.rsplit(' ').next())
        .map_or(0.0, |value| value.parse().unwrap())
}

async fn slow_requests(proxy: &Proxy, backend: &str) -> f64 {
    counted(proxy, "switchback_slow_requests_total", backend).await
}

async fn rolled_back(proxy: &Proxy) -> Value {
    eventually_async("the canary is rolled back", || async {
        proxy.service().await["weights"]["green"] == 0
    })
    .await;
    proxy.service().await["backends"]["green"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_slower_than_the_limit_is_rolled_back_for_it() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "rollback: {max_extra_slow: 5%, slow: 500ms}");
    proxy.weights(80, 20).await;
    let load = Load::start(proxy.web, Protocol::Http1, 40);
    eventually_async("traffic flows", || async { load.done() > 500 }).await;
    assert_eq!(proxy.service().await["weights"]["green"], 20);
    let before = green.received();
    green.behave(takes(Duration::from_millis(800)));
    let backend = rolled_back(&proxy).await;
    let requests = green.received() - before;
    println!("canary always slow: rolled back after at most {requests} canary requests");
    assert_eq!(backend["blocked"]["cause"], "judge", "{backend}");
    let sentence = backend["blocked"]["reason"].as_str().unwrap();
    assert!(
        sentence.starts_with("canary was slower than 500ms in "),
        "{sentence}"
    );
    assert!(slow_requests(&proxy, "green").await >= 3.0);
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_canary_is_rolled_back_before_any_of_its_requests_has_ended() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    green.behave(takes(HOUR));
    let more =
        "rollback: {max_extra_slow: 5%, slow: 300ms}\nlimits: {upstream_response_timeout: off}";
    let proxy = Proxy::blue_green(&blue, &green, more);
    proxy.weights(50, 50).await;
    // Each of these clients gets stuck at the canary sooner or later.
    let load = Load::start(proxy.web, Protocol::Http2, 40);
    let backend = rolled_back(&proxy).await;
    assert!(backend["begun"].as_u64().unwrap() >= 3, "{backend}");
    assert_eq!(backend["requests"], 0, "none has ended: {backend}");
    assert_eq!(
        backend["in_flight"], backend["begun"],
        "all hang: {backend}"
    );
    assert_eq!(backend["blocked"]["cause"], "judge", "{backend}");
    drop(load);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limit_follows_stables_times_and_a_slower_canary_is_rolled_back() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    for origin in [&blue, &green] {
        origin.behave(takes(Duration::from_millis(3)));
    }
    let proxy = Proxy::blue_green(&blue, &green, "rollback: {max_extra_slow: 10%}");
    proxy.weights(80, 20).await;
    let load = Load::start(proxy.web, Protocol::Http1, 8);
    eventually_async("stable's usual times are known", || async {
        let judges = proxy.service().await["judge"]["green"]["judges"].clone();
        judges[1]["trouble"] == "slow"
            && judges[1]["slower_than"]
                .as_str()
                .is_some_and(|limit| limit.ends_with("ms (stable's p99)"))
    })
    .await;
    let seen = load.done();
    eventually_async("traffic flows", || async { load.done() > seen + 2_000 }).await;
    let service = proxy.service().await;
    assert_eq!(service["weights"]["green"], 20, "{service}");
    green.behave(takes(Duration::from_millis(1_500)));
    let backend = rolled_back(&proxy).await;
    let sentence = backend["blocked"]["reason"].as_str().unwrap();
    assert!(sentence.contains(" (stable's p99) in "), "{sentence}");
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowness_that_stable_shares_rolls_nothing_back() {
    for slow in ["stable p99", "200ms"] {
        let (blue, green) = (Origin::start().await, Origin::start().await);
        let more = format!("rollback: {{max_extra_slow: 5%, slow: {slow}}}");
        let proxy = Proxy::blue_green(&blue, &green, &more);
        proxy.weights(50, 50).await;
        let load = Load::start(proxy.web, Protocol::Http1, 40);
        eventually_async("what is slow is known", || async {
            let judges = proxy.service().await["judge"]["green"]["judges"].clone();
            judges[1]["slower_than"].is_string()
        })
        .await;
        // What stable does for long becomes usual, so this ends by itself where the limit follows.
        for origin in [&blue, &green] {
            origin.behave(takes(Duration::from_millis(400)));
        }
        eventually_async("both are slow", || async {
            slow_requests(&proxy, "green").await + slow_requests(&proxy, "blue").await > 30.0
        })
        .await;
        let service = proxy.service().await;
        assert_eq!(service["weights"], json!({"blue": 50, "green": 50}));
        load.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_request_is_a_failure_where_the_file_says_so() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "rollback: {errors: [5xx, slow], slow: 300ms}";
    let proxy = Proxy::blue_green(&blue, &green, more);
    proxy.weights(50, 50).await;
    green.behave(takes(HOUR));
    let load = Load::start(proxy.web, Protocol::Http1, 40);
    let backend = rolled_back(&proxy).await;
    let sentence = backend["blocked"]["reason"].as_str().unwrap();
    assert!(sentence.starts_with("canary failed "), "{sentence}");
    drop(load);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_slow_request_counts_once_and_only_for_the_backend_that_was_slow() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    green.behave(Behaviour {
        status: 500,
        ..takes(Duration::from_millis(400))
    });
    let more =
        "rollback: {max_extra_slow: 5%, slow: 100ms, on_failure: notify}\nrescue: {budget: 100%}";
    let proxy = Proxy::blue_green(&blue, &green, more);
    proxy.weights(1, 1_000_000).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut client = Http::connect(proxy.web).await;
        clients.spawn(async move { client.get("/").await.status });
    }
    let answers = clients.join_all().await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    assert_eq!(green.received(), 20);
    assert_eq!(slow_requests(&proxy, "green").await, 20.0);
    assert_eq!(
        slow_requests(&proxy, "blue").await,
        0.0,
        "stable only helped out"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_do_slowly_is_not_the_backends_slowness() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "rollback: {max_extra_slow: 5%, slow: 2s}";
    let proxy = Proxy::blue_green(&blue, &green, more);
    // One takes his time with the body of his request.
    let mut uploading = RawClient::connect(proxy.web).await;
    uploading
        .write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n01234")
        .await;
    eventually_async("the request is under way", || async {
        blue.received() == 1
    })
    .await;
    // Another goes away before it is too long; a third waits for longer than the limit.
    let mut waiting = Http::connect(proxy.web).await;
    blue.behave(takes(HOUR));
    let mut gone = RawClient::connect(proxy.web).await;
    gone.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    eventually_async("it arrives", || async { blue.received() == 2 }).await;
    drop(gone);
    blue.behave(takes(Duration::from_millis(2_500)));
    assert_eq!(waiting.get("/").await.status, 200);
    assert_eq!(slow_requests(&proxy, "blue").await, 1.0, "only the third");
    uploading.write(b"56789").await;
    let answer = uploading.read_until("0123456789").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert_eq!(slow_requests(&proxy, "blue").await, 1.0, "still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn judging_slowness_is_switched_on_and_off_by_a_reload() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = |more: &str| crate::support::blue_green(&blue.url(), &green.url(), more);
    let proxy = Proxy::start(&config(""));
    proxy.weights(50, 50).await;
    let slow = takes(Duration::from_millis(500));
    green.behave(slow.clone());
    let load = Load::start(proxy.web, Protocol::Http1, 20);
    eventually_async("traffic flows", || async { green.received() > 40 }).await;
    assert_eq!(proxy.service().await["weights"]["green"], 50, "it is off");
    assert_eq!(slow_requests(&proxy, "green").await, 0.0);
    proxy.write_config(&config("rollback: {max_extra_slow: 5%, slow: 200ms}"));
    rolled_back(&proxy).await;
    load.finish().await;
}

/// A canary that is rolled back for being slow; what the check afterwards finds, if blue takes so long.
async fn recovery_after_slowness(blue_takes: Duration) -> (Proxy, Value) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "rollback: {max_extra_slow: 5%, slow: 1s, verify: 9s}";
    let proxy = Proxy::blue_green(&blue, &green, more);
    // So few requests that the check has to wait for its end.
    blue.behave(takes(Duration::from_millis(250)));
    green.behave(takes(Duration::from_millis(1_500)));
    let mut load = Load::start(proxy.web, Protocol::Http1, 4);
    proxy.weights(50, 50).await;
    rolled_back(&proxy).await;
    blue.behave(takes(blue_takes));
    let record = async || {
        // The rollback comes first, and is written down then.
        match &proxy.get("/v1/rollbacks").await["rollbacks"][0]["id"] {
            Value::Null => Value::Null,
            id => proxy.get(&format!("/v1/rollbacks/{id}")).await,
        }
    };
    eventually_async("it is known whether it helped", || async {
        let state = record().await["recovery"]["state"].clone();
        state.is_string() && state != "pending"
    })
    .await;
    load.stop().await;
    let recovery = record().await["recovery"].clone();
    (proxy, recovery)
}

async fn recoveries(proxy: &Proxy, result: &str) -> bool {
    let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
    metrics.contains(&format!(
        "switchback_recoveries_total{{service=\"shop\",result=\"{result}\"}} 1\n"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_for_slowness_has_helped_when_stable_is_not_slow() {
    let (proxy, recovery) = recovery_after_slowness(Duration::from_millis(50)).await;
    assert_eq!(recovery["state"], "recovered", "{recovery}");
    assert!(
        recovery["slow"]["requests"].as_u64() > Some(0),
        "{recovery}"
    );
    assert!(recoveries(&proxy, "recovered").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_for_slowness_did_not_help_when_stable_is_slow_too() {
    let (proxy, recovery) = recovery_after_slowness(Duration::from_millis(1_500)).await;
    assert_eq!(recovery["state"], "did_not_help", "{recovery}");
    let sentence = recovery["sentence"].as_str().unwrap();
    assert!(
        sentence.contains("; blue was slow in ") && sentence.ends_with("shared cause likely"),
        "{sentence}"
    );
    assert_eq!(recovery["failures"], 0, "nothing fails");
    assert!(recoveries(&proxy, "did_not_help").await);
}
