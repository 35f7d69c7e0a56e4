//! What a rollback leaves behind outside of the traffic: caches, and jobs that are under way.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Behaviour, Http, Mood, Origin, Proxy, RawClient, Receiver, eventually, eventually_async,
};

fn cached(origin: &Origin) {
    origin.behave(Behaviour {
        headers: vec![("cache-control", "public, max-age=3600".into())],
        ..Behaviour::default()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_invalidation_pitfall_caches_are_purged_again_until_they_answer() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let cache = Receiver::start().await;
    cache.be(Mood::Answer(503));
    let hooks = format!(
        "hooks: [{{name: purge, on: [rollback, switch], method: PURGE, http: \"{}\", retries: 5}}]\n",
        cache.url()
    );
    let proxy = Proxy::blue_green(&blue, &green, &hooks);
    proxy.weights(50, 50).await;
    let answer = proxy
        .post("/v1/services/shop/rollback", json!({}))
        .await
        .json();
    assert_eq!(answer["weights"]["green"], 0, "the cache is not waited for");
    eventually_async("it is tried", || async {
        let waiting = proxy.get("/v1/hooks/deliveries").await["waiting"].clone();
        waiting
            .as_array()
            .unwrap()
            .iter()
            .any(|d| d["attempts"] == 1)
    })
    .await;
    cache.be(Mood::Answer(200));
    eventually("it is tried again", || cache.seen().len() >= 2);
    let message = cache.seen()[1].clone();
    assert_eq!(
        (message.method.as_str(), message.path.as_str()),
        ("PURGE", "/hook")
    );
    assert_eq!(message.body["data"]["version"], "2", "what was rolled back");
    eventually_async("it is on record", || async {
        let deliveries = proxy.get("/v1/hooks/deliveries").await;
        deliveries.to_string().contains("\"attempts\":2")
    })
    .await;
    let refused = proxy.path().join("bad.yaml");
    let text = std::fs::read_to_string(proxy.path().join("switchback.yaml")).unwrap();
    std::fs::write(&refused, text.replace("PURGE", "\"purge it\"")).unwrap();
    let (code, out, _) = proxy.cli(&["check", "bad.yaml"]);
    assert_eq!(code, 78);
    assert!(out.contains("\"purge it\" is not a method"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_invalidation_pitfall_nothing_of_a_version_on_trial_is_kept() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    cached(&blue);
    cached(&green);
    let more = "expose: true\nno_store_on_trial: true\npreview: {from: [127.0.0.0/8]}\n";
    let proxy = Proxy::blue_green(&blue, &green, more);
    proxy.weights(50, 50).await;
    let kept = |backend: &'static str| {
        let web = proxy.web;
        async move {
            let mut client = Http::connect(web).await;
            let wish = [("x-switchback-backend", backend)];
            let answer = client.send("GET", "/", &wish, b"").await.unwrap();
            assert_eq!(answer.header("x-switchback-backend"), backend);
            answer.header("cache-control").to_owned()
        }
    };
    assert_eq!(kept("green").await, "no-store");
    assert_eq!(kept("blue").await, "public, max-age=3600");
    // Stable, but still on trial.
    let switched = proxy.post(
        "/v1/services/shop/switch",
        json!({"to": "green", "force": true}),
    );
    assert_eq!(switched.await.status, 200);
    assert_eq!(kept("green").await, "no-store");
    assert_eq!(kept("blue").await, "public, max-age=3600");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn async_jobs_pitfall_a_switch_waits_until_the_queue_is_empty() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let queue = Origin::start().await;
    queue.answer_with(503);
    let hooks = format!(
        "hooks: [{{name: queue, on: [before_switch], until: {{http: \"{}/empty\", every: 100ms, deadline: 15s}}}}]\n",
        queue.url()
    );
    let proxy = Proxy::blue_green(&blue, &green, &hooks);
    let switch = proxy.post("/v1/services/shop/switch", json!({"to": "green"}));
    let emptied = async {
        eventually_async("the queue is looked at", || async { queue.received() >= 3 }).await;
        assert_eq!(
            proxy.service().await["stable"],
            "blue",
            "it is not empty yet"
        );
        queue.answer_with(200);
    };
    let (switched, ()) = tokio::join!(switch, emptied);
    assert_eq!(switched.status, 200, "{}", switched.text());
    assert_eq!(switched.json()["before_switch"], "passed");
    // At the end of its time nothing is switched.
    let hooks = hooks.replace("15s", "300ms");
    let proxy = Proxy::blue_green(&blue, &green, &hooks);
    queue.answer_with(503);
    assert_eq!(
        proxy
            .refused("/v1/services/shop/switch", json!({"to": "green"}))
            .await,
        (409, "before_switch_failed".into())
    );
    assert_eq!(proxy.service().await["stable"], "blue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn async_jobs_pitfall_workers_hear_when_to_stop_and_when_all_is_done() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    green.behave(Behaviour {
        delay: Duration::from_secs(1),
        ..Behaviour::default()
    });
    let receiver = Receiver::start().await;
    let hooks = format!(
        "preview: {{from: [127.0.0.0/8]}}\nhooks: [{{on: [version_closed, version_drained], http: \"{}\"}}]\n",
        receiver.url()
    );
    let proxy = Proxy::blue_green(&blue, &green, &hooks);
    proxy.weights(50, 50).await;
    let mut worker = RawClient::connect(proxy.admin).await;
    let subscribe = format!(
        "GET /v1/events HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\naccept: text/event-stream\r\n\r\n",
        proxy.admin, proxy.token
    );
    worker.write(subscribe.as_bytes()).await;
    worker.read_until("\r\n\r\n").await;
    // A request is under way there while its traffic is taken.
    let web = proxy.web;
    let under_way = tokio::spawn(async move {
        let wish = [("x-switchback-backend", "green")];
        Http::connect(web).await.send("GET", "/", &wish, b"").await
    });
    eventually("it has arrived", || green.received() == 1);
    proxy.weights(100, 0).await;
    let heard = worker.read_until("version_drained").await;
    assert!(under_way.await.unwrap().unwrap().status == 200);
    let told = |kind: &str| {
        let mut events = heard.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut events = events
            .by_ref()
            .filter_map(|text| serde_json::from_str::<Value>(text).ok());
        events.find(|event| event["kind"] == kind)
    };
    let closed = told("version_closed").unwrap();
    assert_eq!(
        (&closed["backend"], &closed["version"]),
        (&json!("green"), &json!("2"))
    );
    assert!(
        closed["message"]
            .as_str()
            .unwrap()
            .contains("take no new jobs"),
        "{closed}"
    );
    eventually("hooks are told too", || receiver.seen().len() == 2);
    assert_eq!(
        receiver.types(),
        ["switchback.version_closed", "switchback.version_drained"]
    );
    assert_eq!(receiver.seen()[1].body["data"]["version"], "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn async_jobs_pitfall_workers_of_a_replaced_version_hear_when_all_is_done_too() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let receiver = Receiver::start().await;
    let hooks = format!(
        "hooks: [{{on: [version_closed, version_drained], http: \"{}\"}}]\n",
        receiver.url()
    );
    let proxy = Proxy::blue_green(&blue, &green, &hooks);
    proxy.weights(50, 50).await;
    let body = json!({"version": "3", "endpoints": [green.url()], "force": true});
    proxy.put("/v1/services/shop/backends/green", body).await;
    eventually("both are told", || receiver.seen().len() == 2);
    assert_eq!(
        receiver.types(),
        ["switchback.version_closed", "switchback.version_drained"]
    );
    assert_eq!(receiver.seen()[1].body["data"]["version"], "2");
}
