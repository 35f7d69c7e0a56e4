//! The admin API towards those who should not be there, and those who mistype.

use serde_json::{Value, json};

use crate::support::{Answer, Http, Origin, Proxy, RawClient};

async fn proxy() -> (Origin, Origin, Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    (blue, green, proxy)
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], status);
    assert!(!problem["detail"].as_str().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_valid_token_nothing_is_answered_but_probes_and_metrics() {
    let (_blue, _green, proxy) = proxy().await;
    let right = format!("Bearer {}", proxy.token);
    let wrong = format!("Bearer {}", "0".repeat(64));
    let basic = right.replace("Bearer", "Basic");
    for headers in [
        vec![],
        vec![("authorization", wrong.as_str())],
        vec![("authorization", basic.as_str())],
        vec![
            ("authorization", right.as_str()),
            ("authorization", right.as_str()),
        ],
    ] {
        let mut client = Http::connect(proxy.admin).await;
        let answer = client
            .send("GET", "/v1/services", &headers, b"")
            .await
            .unwrap();
        assert_problem(&answer, 401, "unauthorized");
        let answer = client
            .send(
                "GET",
                &format!("/v1/services?token={}", proxy.token),
                &headers,
                b"",
            )
            .await
            .unwrap();
        assert_problem(&answer, 401, "unauthorized");
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(
            Http::connect(proxy.admin).await.get(path).await.status,
            200,
            "{path}"
        );
    }
    let mut last = 0;
    for _ in 0..20 {
        last = Http::connect(proxy.admin)
            .await
            .get("/v1/services")
            .await
            .status;
    }
    assert_eq!(last, 429, "failures are limited");
    assert_eq!(
        proxy.get("/v1/services").await["services"][0]["name"],
        "shop"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_request_is_said_and_nothing_changes() {
    let (_blue, _green, proxy) = proxy().await;
    let weights = "/v1/services/shop/weights";
    let cases: [(&str, &str, Value, u16, &str); 14] = [
        (
            "PUT",
            weights,
            json!({"weights": {"blue": 1}}),
            422,
            "invalid_weights",
        ),
        (
            "PUT",
            weights,
            json!({"weights": {"blue": 0, "green": 0}}),
            422,
            "invalid_weights",
        ),
        (
            "PUT",
            weights,
            json!({"weights": {"blue": 1, "green": 1, "red": 1}}),
            404,
            "unknown_backend",
        ),
        (
            "PUT",
            weights,
            json!({"weights": {"blue": -1, "green": 1}}),
            400,
            "invalid_body",
        ),
        (
            "PUT",
            weights,
            json!({"weights": {"blue": 1.5, "green": 1}}),
            400,
            "invalid_body",
        ),
        ("PUT", weights, json!({"weight": {}}), 400, "invalid_body"),
        (
            "PUT",
            "/v1/services/none/weights",
            json!({"weights": {"blue": 1, "green": 1}}),
            404,
            "unknown_service",
        ),
        (
            "PUT",
            "/v1/services/shop/weights?dry=1",
            json!({"weights": {"blue": 1, "green": 1}}),
            400,
            "invalid_query",
        ),
        (
            "POST",
            "/v1/services/shop/switch",
            json!({"to": "red"}),
            404,
            "unknown_backend",
        ),
        (
            "POST",
            "/v1/services/shop/backends/red/block",
            json!({}),
            404,
            "unknown_backend",
        ),
        (
            "POST",
            "/v1/services/shop/backends/blue/block",
            json!({}),
            409,
            "no_target",
        ),
        (
            "PUT",
            "/v1/services/shop/backends/green",
            json!({"version": "", "endpoints": []}),
            422,
            "invalid_version",
        ),
        (
            "PUT",
            "/v1/services/shop/backends/green",
            json!({"version": "3", "endpoints": ["ftp://127.0.0.1"]}),
            400,
            "invalid_body",
        ),
        (
            "DELETE",
            "/v1/services",
            Value::Null,
            405,
            "method_not_allowed",
        ),
    ];
    let before = proxy.service().await;
    for (method, path, body, status, code) in cases {
        let answer = proxy.api(method, path, body).await;
        assert_problem(&answer, status, code);
    }
    assert_problem(
        &proxy.api("GET", "/v1/nothing", Value::Null).await,
        404,
        "not_found",
    );
    let after = proxy.service().await;
    assert_eq!(
        (&after["weights"], &after["revision"]),
        (&before["weights"], &before["revision"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_pages_and_rebound_names_are_refused_before_anything_is_looked_at() {
    let (_blue, _green, proxy) = proxy().await;
    let token = format!("Bearer {}", proxy.token);
    let auth = ("authorization", token.as_str());
    let cases: [(Vec<(&str, &str)>, u16, &str); 5] = [
        (vec![auth, ("host", "evil.example")], 421, "unknown_host"),
        (vec![auth, ("host", "127.0.0.1:1")], 421, "unknown_host"),
        (
            vec![auth, ("origin", "http://evil.example")],
            403,
            "cross_site",
        ),
        (
            vec![auth, ("sec-fetch-site", "cross-site")],
            403,
            "cross_site",
        ),
        (
            vec![auth, ("content-type", "text/plain")],
            415,
            "unsupported_media_type",
        ),
    ];
    for (headers, status, code) in cases {
        let mut client = Http::connect(proxy.admin).await;
        let answer = client
            .send("POST", "/v1/rollback", &headers, b"{}")
            .await
            .unwrap();
        assert_problem(&answer, status, code);
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    for path in [
        "/v1/services/../rollback",
        "/v1//services",
        "/v1/services%2fshop",
        "/v1/services;x",
    ] {
        let mut client = RawClient::connect(proxy.admin).await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {token}\r\nConnection: close\r\n\r\n",
            proxy.admin
        );
        client.write(request.as_bytes()).await;
        let answer = client.read_all().await;
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("invalid_path"),
            "{path}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_are_refused() {
    let (_blue, _green, proxy) = proxy().await;
    let token = format!("Bearer {}", proxy.token);
    let headers = [
        ("authorization", token.as_str()),
        ("content-type", "application/json"),
    ];
    let body = vec![b' '; 256 * 1024 + 1];
    let mut client = Http::connect(proxy.admin).await;
    let answer = client
        .send("POST", "/v1/rollback", &headers, &body)
        .await
        .unwrap();
    assert_problem(&answer, 413, "body_too_large");
    let mut client = Http::connect(proxy.admin).await;
    let deep = "[".repeat(10_000);
    let answer = client
        .send("POST", "/v1/rollback", &headers, deep.as_bytes())
        .await
        .unwrap();
    assert_problem(&answer, 400, "invalid_body");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_limit_what_a_token_may_do_and_the_tokens_file_is_read_again() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let make = |role: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_switchback"))
            .args(["token", "new", "--name", role, "--role", role, "-o", "json"])
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let made: Vec<Value> = ["viewer", "rollback", "operator", "admin"]
        .iter()
        .map(|role| make(role))
        .collect();
    let line = |token: &Value| {
        format!(
            "- {{name: {}, role: {}, sha256: {}}}\n",
            token["name"], token["role"], token["sha256"]
        )
    };
    let directory = tempfile::tempdir().unwrap();
    let tokens: String = made.iter().map(line).collect();
    std::fs::write(directory.path().join("tokens.yaml"), &tokens).unwrap();
    let config = crate::support::blue_green(&blue.url(), &green.url(), "").replace(
        "admin: {address: \"127.0.0.1:0\"}",
        "admin: {address: \"127.0.0.1:0\", tokens_file: tokens.yaml}",
    );
    std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
    let mut proxy = Proxy::start_in(directory);
    let expected = [
        ("viewer", 200, 403, 403, 403),
        ("rollback", 200, 200, 403, 403),
        ("operator", 200, 200, 200, 403),
        ("admin", 200, 200, 200, 200),
    ];
    for (token, (role, read, rollback, write, admin)) in made.iter().zip(expected) {
        proxy.token = token["token"].as_str().unwrap().to_owned();
        assert_eq!(
            proxy.api("GET", "/v1/services", Value::Null).await.status,
            read,
            "{role}"
        );
        assert_eq!(
            proxy
                .post("/v1/services/shop/rollback", Value::Null)
                .await
                .status,
            rollback,
            "{role}"
        );
        let weights = json!({"weights": {"blue": 100, "green": 0}});
        assert_eq!(
            proxy
                .api("PUT", "/v1/services/shop/weights", weights)
                .await
                .status,
            write,
            "{role}"
        );
        assert_eq!(
            proxy.post("/v1/acknowledge", Value::Null).await.status,
            admin,
            "{role}"
        );
    }
    // Without its line, a token is worth nothing.
    std::fs::write(proxy.path().join("tokens.yaml"), line(&made[0])).unwrap();
    crate::support::eventually_async("the admin's token is refused", || async {
        proxy.api("GET", "/v1/services", Value::Null).await.status == 401
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_stream_resumes_after_the_last_id() {
    let (_blue, _green, proxy) = proxy().await;
    proxy.weights(90, 10).await;
    proxy.weights(80, 20).await;
    let all = proxy
        .api("GET", "/v1/events?follow=false", Value::Null)
        .await
        .text();
    let ids: Vec<&str> = all
        .lines()
        .filter_map(|line| line.strip_prefix("id:"))
        .map(str::trim)
        .collect();
    assert_eq!(ids.len(), 2, "{all}");
    assert!(all.contains("weights are blue=80 green=20"), "{all}");
    let token = format!("Bearer {}", proxy.token);
    let headers = [("authorization", token.as_str()), ("last-event-id", ids[0])];
    let rest = Http::connect(proxy.admin)
        .await
        .send("GET", "/v1/events?follow=false", &headers, b"")
        .await
        .unwrap()
        .text();
    assert!(
        !rest.contains("blue=90") && rest.contains("blue=80"),
        "{rest}"
    );
    // And live.
    let mut stream = RawClient::connect(proxy.admin).await;
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nHost: {}\r\nAuthorization: {token}\r\n\r\n",
        proxy.admin
    );
    stream.write(request.as_bytes()).await;
    stream.read_until("blue=80").await;
    proxy
        .post("/v1/services/shop/rollback", json!({"reason": "drill"}))
        .await;
    stream.read_until("event: rolled_back").await;
}
