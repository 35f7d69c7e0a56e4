//! Switching is instant, exact, and loses nothing.

use serde_json::{Value, json};

use crate::support::{Load, Origin, Protocol, Proxy, eventually, eventually_async};

/// Flips under full load. Each time the zeroed backend must, once everything has settled, have
/// received exactly as many requests as the answer said it had begun.
async fn flips(upstream: fn(&Origin) -> String, protocol: Protocol, count: u32) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = crate::support::blue_green(&upstream(&blue), &upstream(&green), "");
    let proxy = Proxy::start(&config);
    let load = Load::start(proxy.web, protocol, 16);
    let (mut late, mut with_traffic) = (0, 0);
    for flip in 0..count {
        let (zeroed, name, answer) = if flip % 2 == 0 {
            (&blue, "blue", proxy.weights(0, 100).await)
        } else {
            (&green, "green", proxy.weights(100, 0).await)
        };
        let begun = answer["begun"][name].as_u64().unwrap();
        // Requests of the other backend show that time goes on while this one stays as it is.
        let other = if flip % 2 == 0 { &green } else { &blue };
        let seen = other.received();
        eventually("the other backend serves", || other.received() > seen + 20);
        eventually_async("the zeroed backend is drained", || async {
            proxy.service().await["backends"][name]["in_flight"] == 0
        })
        .await;
        late += u32::from(zeroed.received() != begun);
        with_traffic += u32::from(begun > 0);
        assert_eq!(
            zeroed.received(),
            begun,
            "flip {flip}: {name} was to be closed after {begun}"
        );
    }
    assert!(with_traffic >= count / 2);
    let done = load.finish().await;
    println!("{count} flips under {done} requests: {late} late, 0 failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zeroed_h1_backend_receives_exactly_what_had_begun_over_200_flips() {
    flips(Origin::url, Protocol::Http1, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zeroed_h2_backend_receives_exactly_what_had_begun_over_200_flips() {
    flips(Origin::h2c_url, Protocol::Http2, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_is_idempotent_and_blocks_the_canary() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    proxy.weights(50, 50).await;
    let first = proxy
        .post("/v1/services/shop/rollback", Value::Null)
        .await
        .json();
    assert_eq!(first["changed"], true);
    assert_eq!(first["weights"], json!({"blue": 100, "green": 0}));
    assert_eq!(first["blocked"], json!(["green"]));
    assert_eq!(first["durable"], true);
    let second = proxy
        .post("/v1/services/shop/rollback", Value::Null)
        .await
        .json();
    assert_eq!(second["changed"], false);
    let answer = proxy
        .api(
            "PUT",
            "/v1/services/shop/weights",
            json!({"weights": {"blue": 50, "green": 50}}),
        )
        .await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (409, &json!("blocked"))
    );
    let answer = proxy
        .post(
            "/v1/services/shop/switch",
            json!({"to": "green", "force": true}),
        )
        .await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (409, &json!("blocked"))
    );
    let answer = proxy
        .post("/v1/services/shop/backends/green/unblock", Value::Null)
        .await
        .json();
    assert_eq!(
        answer["weights"],
        json!({"blue": 100, "green": 0}),
        "unblock moves no traffic"
    );
    proxy.weights(50, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_after_a_switch_returns_to_the_previous_stable_and_never_toggles() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let switched = proxy
        .post("/v1/services/shop/switch", json!({"to": "green"}))
        .await
        .json();
    assert_eq!(
        (
            &switched["stable"],
            &switched["previous"],
            &switched["on_trial"]
        ),
        (&json!("green"), &json!("blue"), &json!("green"))
    );
    assert_eq!(switched["weights"], json!({"blue": 0, "green": 100}));
    let back = proxy
        .post("/v1/services/shop/rollback", Value::Null)
        .await
        .json();
    assert_eq!(
        (&back["stable"], &back["previous"]),
        (&json!("blue"), &Value::Null)
    );
    assert_eq!(back["blocked"], json!(["green"]));
    let again = proxy
        .post("/v1/services/shop/rollback", Value::Null)
        .await
        .json();
    assert_eq!(
        (&again["changed"], &again["stable"]),
        (&json!(false), &json!("blue"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_line_switches_and_rolls_back_with_exit_codes() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let (code, out, _) = proxy.cli(&[
        "weights", "shop", "blue=90", "green=10", "--reason", "try it",
    ]);
    assert_eq!(code, 0);
    assert!(out.contains("blue=90 green=10"), "{out}");
    let (code, out, _) = proxy.cli(&["switch", "shop", "--to", "green", "--dry-run"]);
    assert_eq!(code, 0);
    assert!(out.contains("would be blue=0 green=100"), "{out}");
    assert_eq!(proxy.service().await["stable"], "blue");
    assert_eq!(proxy.cli(&["switch", "shop", "--to", "green"]).0, 0);
    assert_eq!(proxy.cli(&["rollback"]).0, 0);
    assert_eq!(
        proxy.cli(&["switch", "shop", "--to", "green"]).0,
        75,
        "blocked"
    );
    assert_eq!(proxy.cli(&["rollback", "--all"]).0, 0);
    assert_eq!(proxy.cli(&["unblock", "shop", "green"]).0, 0);
    assert_eq!(proxy.cli(&["block", "shop", "green"]).0, 0);
    assert_eq!(proxy.cli(&["weights", "shop", "blue=1"]).0, 1);
    assert_eq!(proxy.cli(&["weights", "shop", "blue"]).0, 2);
    assert_eq!(
        proxy.cli(&["status", "--admin", "http://127.0.0.1:1"]).0,
        69
    );
    assert_eq!(
        proxy.cli(&["status", "--token-file", "switchback.yaml"]).0,
        77
    );
    let (code, out, _) = proxy.cli(&["history", "-o", "json"]);
    let history: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    let reasons = history["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|r| r["reason"] == "try it");
    assert_eq!(reasons.count(), 1, "{out}");
    assert_eq!(proxy.cli(&["healthcheck"]).0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_run_changes_nothing_and_an_outdated_revision_is_refused() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let before = proxy.service().await;
    let body = json!({"weights": {"blue": 0, "green": 100}});
    let planned = proxy
        .api(
            "PUT",
            "/v1/services/shop/weights?dry_run=true",
            body.clone(),
        )
        .await
        .json();
    assert_eq!(
        (&planned["changed"], &planned["weights"]),
        (&json!(true), &json!({"blue": 0, "green": 100}))
    );
    assert_eq!(proxy.service().await["revision"], before["revision"]);
    let (code, _, err) = proxy.cli(&[
        "weights",
        "shop",
        "blue=0",
        "green=100",
        "--if-revision",
        "999",
    ]);
    assert_eq!(code, 75);
    assert!(err.contains("revision_mismatch"), "{err}");
    assert_eq!(
        proxy.service().await["weights"],
        json!({"blue": 100, "green": 0})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backend_set_registers_a_new_version_on_an_idle_backend_only() {
    let (blue, green, next) = (
        Origin::start().await,
        Origin::start().await,
        Origin::start().await,
    );
    let proxy = Proxy::blue_green(&blue, &green, "");
    let path = "/v1/services/shop/backends/green";
    let answer = proxy
        .api(
            "PUT",
            path,
            json!({"version": "3", "endpoints": [next.url()]}),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    eventually_async("the new endpoint is known to work", || async {
        proxy.service().await["backends"]["green"]["health"] == "healthy"
    })
    .await;
    proxy.weights(0, 100).await;
    let mut client = crate::support::Http::connect(proxy.web).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!((next.received(), green.received()), (1, 0));
    let busy = proxy
        .api(
            "PUT",
            path,
            json!({"version": "4", "endpoints": [green.url()]}),
        )
        .await;
    assert_eq!((busy.status, &busy.json()["code"]), (409, &json!("in_use")));
    for (endpoint, why) in [
        ("http://169.254.1.1:80", "link-local"),
        ("http://8.8.8.8:80", "outside"),
        ("http://0.0.0.0:80", "unspecified"),
    ] {
        let refused = proxy
            .api(
                "PUT",
                "/v1/services/shop/backends/blue",
                json!({"version": "9", "endpoints": [endpoint]}),
            )
            .await;
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (422, &json!("endpoint_refused")),
            "{why}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_in_flight_finishes_while_its_backend_is_closed() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let held = blue.hold();
    let proxy = Proxy::blue_green(&blue, &green, "");
    let web = proxy.web;
    let slow = tokio::spawn(async move { crate::support::Http::connect(web).await.get("/").await });
    eventually("the request has begun", || blue.received() == 1);
    let answer = proxy.weights(0, 100).await;
    assert_eq!(
        (&answer["begun"]["blue"], &answer["in_flight"]["blue"]),
        (&json!(1), &json!(1))
    );
    let body = json!({"weights": {"blue": 0, "green": 100}});
    let waits = "/v1/services/shop/weights?wait=drained&timeout=20s";
    let (drained, ()) = tokio::join!(proxy.put(waits, body), async { drop(held) });
    assert_eq!(drained["drained"], true);
    assert_eq!(slow.await.unwrap().status, 200);
}
