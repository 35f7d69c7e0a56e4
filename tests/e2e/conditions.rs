//! Writes under conditions, dry runs, and writes that wait: what they answer and what they leave alone.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Behaviour, Http, Origin, Proxy, eventually_async};

const WEIGHTS: &str = "/v1/services/shop/weights";

async fn proxy() -> (Origin, Origin, Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    (blue, green, proxy)
}

async fn send(
    proxy: &Proxy,
    method: &str,
    path: &str,
    header: (&str, &str),
    body: Value,
) -> Answer {
    let token = format!("Bearer {}", proxy.token);
    let mut headers = vec![("authorization", token.as_str()), header];
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    if !text.is_empty() {
        headers.push(("content-type", "application/json"));
    }
    let mut client = Http::connect(proxy.admin).await;
    client
        .send(method, path, &headers, text.as_bytes())
        .await
        .unwrap()
}

fn weights(blue: u32, green: u32) -> Value {
    json!({"weights": {"blue": blue, "green": green}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_ordinary_write_heeds_if_match_and_shows_the_state_it_found() {
    let (_blue, green, proxy) = proxy().await;
    let revision = proxy.weights(90, 10).await["revision"].as_u64().unwrap();
    let outdated = format!("\"{}\"", revision - 1);
    let writes = [
        ("PUT", WEIGHTS, weights(50, 50)),
        ("POST", "/v1/services/shop/switch", json!({"to": "green"})),
        (
            "PUT",
            "/v1/services/shop/backends/green",
            json!({"version": "2", "endpoints": [green.url()]}),
        ),
        (
            "POST",
            "/v1/services/shop/backends/green/unblock",
            json!({}),
        ),
        (
            "POST",
            "/v1/services/shop/rollout",
            json!({"canary": "green"}),
        ),
        ("POST", "/v1/acknowledge", json!({})),
    ];
    for (method, path, body) in writes {
        let answer = send(&proxy, method, path, ("if-match", &outdated), body).await;
        assert_eq!(answer.status, 412, "{path}: {}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["code"], "revision_mismatch", "{path}");
        assert_eq!(problem["revision"], revision, "{path}");
        if path != "/v1/acknowledge" {
            assert_eq!(
                problem["current"]["weights"],
                json!({"blue": 90, "green": 10}),
                "{path}"
            );
        }
    }
    let now = proxy.service().await;
    assert_eq!(
        (&now["revision"], &now["stable"]),
        (&json!(revision), &json!("blue"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_match_as_the_standard_says() {
    let (_blue, _green, proxy) = proxy().await;
    let mut revision = proxy.weights(99, 1).await["revision"].as_u64().unwrap();
    let cases = [
        ("\"{}\"", true),
        ("*", true),
        ("\"0\", \"{}\"", true),
        ("\"abc\", \"{}\" , \"999999\"", true),
        ("W/\"{}\"", false),
        ("\"abc\"", false),
        ("\"0\", \"999999\"", false),
    ];
    for (index, (tag, matches)) in cases.into_iter().enumerate() {
        let tag = tag.replace("{}", &revision.to_string());
        let body = weights(98, u32::try_from(index).unwrap() + 2);
        let answer = send(&proxy, "PUT", WEIGHTS, ("if-match", &tag), body).await;
        assert_eq!(
            answer.status,
            if matches { 200 } else { 412 },
            "{tag}: {}",
            answer.text()
        );
        if matches {
            revision = answer.json()["revision"].as_u64().unwrap();
        }
    }
    for tag in ["12x", "\"12", "", "\"1\" \"2\""] {
        let answer = send(&proxy, "PUT", WEIGHTS, ("if-match", tag), weights(1, 1)).await;
        assert_eq!(answer.status, 400, "{tag}");
        assert_eq!(answer.json()["code"], "invalid_condition");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_and_block_ignore_if_match() {
    let (_blue, _green, proxy) = proxy().await;
    proxy.weights(90, 10).await;
    for path in [
        "/v1/services/shop/rollback",
        "/v1/services/shop/backends/green/block",
        "/v1/rollback",
    ] {
        let answer = send(&proxy, "POST", path, ("if-match", "\"999\""), json!({})).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    assert_eq!(proxy.service().await["weights"]["green"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_who_has_the_state_is_told_so_without_a_body() {
    let (_blue, _green, proxy) = proxy().await;
    for path in ["/v1/services", "/v1/services/shop"] {
        let revision = proxy.weights(90, 10).await["revision"].clone();
        let tag = format!("\"{revision}\"");
        for (asked, status) in [
            (tag.clone(), 304),
            (format!("W/{tag}"), 304),
            (format!("\"x\", {tag}"), 304),
            ("*".into(), 304),
            ("\"x\"".into(), 200),
        ] {
            let answer = send(&proxy, "GET", path, ("if-none-match", &asked), Value::Null).await;
            assert_eq!(answer.status, status, "{path} {asked}");
            assert_eq!(answer.header("etag"), tag);
            assert_eq!(answer.body.is_empty(), status == 304);
        }
        proxy.weights(80, 20).await;
        let answer = send(&proxy, "GET", path, ("if-none-match", &tag), Value::Null).await;
        assert_eq!(answer.status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_run_of_every_write_shows_its_difference_and_changes_nothing() {
    let (_blue, green, proxy) = proxy().await;
    proxy.weights(90, 10).await;
    let moved = json!({"version": "3", "endpoints": [green.url()], "force": true});
    let writes = [
        ("PUT", WEIGHTS, weights(50, 50), "weights.green: 10 -> 50"),
        (
            "POST",
            "/v1/services/shop/rollback",
            json!({}),
            "weights.green: 10 -> 0",
        ),
        (
            "POST",
            "/v1/services/shop/switch",
            json!({"to": "green", "force": true}),
            "stable: blue -> green",
        ),
        (
            "POST",
            "/v1/services/shop/backends/green/block",
            json!({}),
            "blocked: [] -> [\"green\"]",
        ),
        (
            "PUT",
            "/v1/services/shop/backends/green",
            moved,
            "backends.green.version: 2 -> 3",
        ),
        (
            "POST",
            "/v1/services/shop/rollout",
            json!({"canary": "green", "force": true}),
            "rollout: - -> ",
        ),
    ];
    let before = proxy.service().await;
    let recorded = proxy.get("/v1/revisions").await;
    for (method, path, body, line) in writes {
        let answer = proxy
            .api(method, &format!("{path}?dry_run=true"), body)
            .await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let planned = answer.json();
        assert_eq!(
            (&planned["dry_run"], &planned["changed"]),
            (&json!(true), &json!(true)),
            "{path}"
        );
        let diff = planned["diff"].as_str().unwrap();
        assert!(diff.contains(line), "{path}: {diff}");
        let changes = planned["changes"].as_array().unwrap();
        assert_eq!(changes.len(), diff.lines().count(), "{path}");
    }
    let all = proxy
        .post("/v1/rollback?dry_run=true", json!({}))
        .await
        .json();
    assert_eq!(
        all["services"][0]["diff"]
            .as_str()
            .unwrap()
            .lines()
            .next()
            .unwrap(),
        "weights.blue: 90 -> 100"
    );
    let after = proxy.service().await;
    for part in [
        "revision",
        "weights",
        "stable",
        "rollout",
        "blocked_versions",
        "effective",
    ] {
        assert_eq!(before[part], after[part], "{part}");
    }
    assert_eq!(recorded, proxy.get("/v1/revisions").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_run_of_a_reload_tells_what_the_file_would_change() {
    let (blue, green, proxy) = proxy().await;
    let broken = crate::support::blue_green(&blue.url(), &green.url(), "nonsense: 1");
    proxy.write_config(&broken);
    let answer = proxy.post("/v1/reload?dry_run=true", Value::Null).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (422, &json!("config_invalid"))
    );
    let answer = proxy.post("/v1/reload?dry_run=1", Value::Null).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let same = crate::support::blue_green(&blue.url(), &green.url(), "");
    proxy.write_config(&same);
    let answer = proxy
        .post("/v1/reload?dry_run=true", Value::Null)
        .await
        .json();
    assert_eq!(
        (&answer["dry_run"], &answer["changed"]),
        (&json!(true), &json!(false)),
        "{answer}"
    );
    let answer = send(
        &proxy,
        "POST",
        "/v1/reload",
        ("if-match", "\"999\""),
        Value::Null,
    )
    .await;
    assert_eq!(answer.status, 412, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_writes_have_the_promised_members_and_no_others() {
    let (_blue, green, proxy) = proxy().await;
    let promised = [
        "service",
        "changed",
        "revision",
        "weights",
        "stable",
        "previous",
        "on_trial",
        "blocked",
        "applied_in_us",
        "begun",
        "in_flight",
        "durable",
    ];
    let promised: BTreeSet<&str> = promised.into_iter().collect();
    let set = json!({"version": "2", "endpoints": [green.url()]});
    for (method, path, body, more) in [
        ("PUT", WEIGHTS, weights(90, 10), &[][..]),
        ("PUT", "/v1/services/shop/backends/green", set, &[]),
        ("POST", "/v1/services/shop/rollback", Value::Null, &[]),
        (
            "POST",
            "/v1/services/shop/backends/green/block",
            Value::Null,
            &[],
        ),
        (
            "POST",
            "/v1/services/shop/backends/green/unblock",
            Value::Null,
            &[],
        ),
        (
            "POST",
            "/v1/services/shop/rollback?wait=drained&timeout=5s",
            Value::Null,
            &["drained"],
        ),
        (
            "POST",
            "/v1/services/shop/switch",
            json!({"to": "green", "force": true}),
            &[],
        ),
        (
            "POST",
            "/v1/services/shop/rollout",
            json!({"canary": "blue", "force": true}),
            &["rollout"],
        ),
        (
            "POST",
            "/v1/services/shop/rollout/pause",
            Value::Null,
            &["rollout"],
        ),
    ] {
        let answer = proxy.api(method, path, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let answer = answer.json();
        let members: BTreeSet<&str> = answer
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let expected: BTreeSet<&str> = promised.iter().chain(more).copied().collect();
        assert_eq!(members, expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_drain_ends_with_the_last_request_or_with_its_time() {
    let (_blue, green, proxy) = proxy().await;
    proxy.weights(0, 100).await;
    green.behave(Behaviour {
        delay: Duration::from_secs(20),
        ..Behaviour::default()
    });
    let address = proxy.web;
    let request = tokio::spawn(async move {
        let mut client = Http::connect(address).await;
        client.send("POST", "/", &[], b"").await
    });
    eventually_async("the request is in flight", || async {
        proxy.service().await["backends"]["green"]["in_flight"] == 1
    })
    .await;
    let path = format!("{WEIGHTS}?wait=drained&timeout=100ms");
    let answer = proxy.api("PUT", &path, weights(100, 0)).await.json();
    assert_eq!(
        (&answer["drained"], &answer["in_flight"]["green"]),
        (&json!(false), &json!(1))
    );
    request.abort();
    let path = format!("{WEIGHTS}?wait=drained&timeout=10s");
    let answer = proxy.api("PUT", &path, weights(100, 0)).await.json();
    assert_eq!(
        (&answer["drained"], &answer["in_flight"]["green"]),
        (&json!(true), &json!(0))
    );
}
