//! API versions: their routes and their end, a page and its files, the old version beside the new one.

use serde_json::{Value, json};

use crate::support::{
    Answer, Behaviour, Faulty, HEAD, Http, Origin, Proxy, blue_green, eventually, eventually_async,
};

/// Two versions of an API, told apart by path and by header.
fn api(v1: &Origin, v2: &Origin, of_v1: &str) -> String {
    let head = HEAD.replace("routes: [{service: shop}]\n", "");
    format!(
        "{head}routes:
  - {{path: /api/v1, service: v1{of_v1}}}
  - {{path: /api/v2, service: v2}}
  - {{path: /api, headers: {{accept-version: \"1\"}}, service: v1}}
  - {{path: /api, service: v2}}
services:
  v1: {{backends: {{blue: {{endpoints: [\"{}\"]}}}}}}
  v2: {{backends: {{green: {{endpoints: [\"{}\"]}}}}}}
",
        v1.url(),
        v2.url()
    )
}

fn without_v1(config: &str) -> String {
    let lines = config
        .lines()
        .filter(|line| !line.contains("path: /api/v1"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_versioning_for_safe_rollback_keeps_both_versions_and_says_when_one_ends() {
    let (v1, v2) = (Origin::start().await, Origin::start().await);
    let end =
        ", deprecation: {since: 2026-11-01, sunset: 2027-05-01, link: \"https://example.com/v2\"}";
    let proxy = Proxy::start(&api(&v1, &v2, end));
    let mut client = Http::connect(proxy.web).await;
    let old = client.get("/api/v1/orders").await;
    assert_eq!(old.header("deprecation"), "@1793491200");
    assert_eq!(old.header("sunset"), "Sat, 01 May 2027 00:00:00 GMT");
    let links: Vec<_> = old.headers.get_all("link").iter().collect();
    assert_eq!(
        links,
        [
            "<https://example.com/v2>; rel=\"deprecation\"",
            "<https://example.com/v2>; rel=\"sunset\""
        ]
    );
    let new = client.get("/api/v2/orders").await;
    assert!(new.headers.get("deprecation").is_none() && new.headers.get("sunset").is_none());
    let version = [("accept-version", "1")];
    client
        .send("GET", "/api/orders", &version, b"")
        .await
        .unwrap();
    client.get("/api/orders").await;
    assert_eq!(
        (v1.received(), v2.received()),
        (2, 2),
        "clients choose, and may choose again"
    );
    for (service, backend) in [("v1", "blue"), ("v2", "green")] {
        let view = proxy.get(&format!("/v1/services/{service}")).await;
        assert_eq!(view["backends"][backend]["begun"], 2, "counters of its own");
    }
}

#[test]
fn dates_that_contradict_each_other_are_refused() {
    let config = |deprecation: &str| {
        format!(
            "version: 1\nlisteners: {{web: {{address: \"127.0.0.1:8080\"}}}}\nroutes: [{{service: s, deprecation: {deprecation}}}]\nservices: {{s: {{backends: {{b: {{endpoints: [\"http://127.0.0.1:1\"]}}}}}}}}\n"
        )
    };
    for (deprecation, said) in [
        (
            "{since: 2027-05-02, sunset: 2027-05-01}",
            "gone before it is deprecated",
        ),
        (
            "{link: \"https://example.com/\"}",
            "says nothing about when",
        ),
        ("{since: soon}", "this is not a date"),
        ("{since: 2027-05-01, link: v2}", "not a URL"),
    ] {
        let parsed = switchback_config::parse(&config(deprecation));
        let reasons: Vec<&str> = parsed
            .diagnostics
            .iter()
            .map(|fault| &*fault.reason)
            .collect();
        assert!(parsed.config.is_none(), "{deprecation}");
        assert!(
            reasons.iter().any(|reason| reason.contains(said)),
            "{deprecation}: {reasons:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_version_that_is_still_used_is_not_removed_by_a_reload() {
    let (v1, v2) = (Origin::start().await, Origin::start().await);
    let config = api(&v1, &v2, ", keep_while_used: 24h");
    let mut proxy = Proxy::start(&config);
    // Nobody has used it, once it is known what earlier processes have seen.
    eventually_async("the past is known", || async {
        let answer = dry_reload(&proxy, &without_v1(&config)).await;
        answer.status == 200
    })
    .await;
    proxy.write_config(&config);
    // Whoever watches the file may have taken the other one over.
    assert_eq!(proxy.post("/v1/reload", Value::Null).await.status, 200);
    Http::connect(proxy.web).await.get("/api/v1/orders").await;
    // What was counted survives the process.
    proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(proxy.wait(), Some(0));
    proxy.start_again();
    proxy.write_config(&without_v1(&config));
    eventually_async("the refusal is told", || async {
        let events = proxy.get("/v1/services").await;
        assert!(events["services"].is_array());
        let answer = proxy.post("/v1/reload", Value::Null).await;
        answer.status == 409 && answer.text().contains("had a request at")
    })
    .await;
    let refused = proxy.post("/v1/reload", Value::Null).await.json();
    assert_eq!(refused["code"], "route_in_use");
    let detail = refused["detail"].as_str().unwrap();
    assert!(
        detail.contains("/api/v1 -> v1 had a request at"),
        "{detail}"
    );
    assert_eq!(
        Http::connect(proxy.web)
            .await
            .get("/api/v1/orders")
            .await
            .status,
        200
    );
    assert_eq!(v1.received(), 2, "the last good file stays in force");
    let (code, _, err) = proxy.cli(&["reload"]);
    assert_eq!(code, 75, "{err}");
    assert!(err.contains("switchback reload --force"), "{err}");
    let (code, out, err) = proxy.cli(&["reload", "--force"]);
    assert_eq!(code, 0, "{out}{err}");
    Http::connect(proxy.web).await.get("/api/v1/orders").await;
    assert_eq!(
        (v1.received(), v2.received()),
        (2, 1),
        "the other one has the path now"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_with_a_file_that_lacks_a_used_route_is_told_and_shown_until_it_is_back() {
    let (v1, v2) = (Origin::start().await, Origin::start().await);
    let config = api(&v1, &v2, ", keep_while_used: 24h");
    let mut proxy = Proxy::start(&config);
    Http::connect(proxy.web).await.get("/api/v1/orders").await;
    proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(proxy.wait(), Some(0));
    proxy.write_config(&without_v1(&config));
    proxy.start_again();
    let removed = || async {
        let services = proxy.get("/v1/services").await;
        services["routes_removed"].as_array().unwrap().clone()
    };
    eventually_async("it is shown", || async { removed().await.len() == 1 }).await;
    let said = removed().await[0].as_str().unwrap().to_owned();
    assert!(said.contains("/api/v1 -> v1 had a request at"), "{said}");
    let overview = proxy.get("/v1/overview").await;
    assert_eq!(overview["routes_removed"], json!([said]));
    let (_, out, _) = proxy.cli(&["status"]);
    assert!(
        out.contains("the file has no longer what is used: /api/v1 -> v1"),
        "{out}"
    );
    eventually("it is in the log, as a warning", || {
        let log = proxy.log();
        let mut lines = log.lines().filter(|line| line.contains("route_removed"));
        lines.any(|line| line.contains("WARN"))
    });
    proxy.write_config(&config);
    assert_eq!(proxy.post("/v1/reload", Value::Null).await.status, 200);
    assert!(removed().await.is_empty(), "it is back");
}

/// Asks what a reload of this file would do, without doing it.
async fn dry_reload(proxy: &Proxy, config: &str) -> Answer {
    proxy.write_config(config);
    proxy.post("/v1/reload?dry_run=true", Value::Null).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_rollback_is_safe_since_the_version_held_back_proves_that_it_still_works() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "rollout: {steps: [{weight: 50%, for: 1s}], bake: {holdback: 50%, for: 1s}, min_requests: 20}";
    let proxy = Proxy::blue_green(&blue, &green, more);
    let start = json!({"canary": "green", "force": true});
    let started = proxy.post("/v1/services/shop/rollout", start).await;
    assert_eq!(started.status, 200, "{}", started.text());
    let path = "/v1/services/shop/rollout";
    let mut client = Http::connect(proxy.web).await;
    let mut seen = Value::Null;
    let deadline = std::time::Instant::now() + crate::support::DEADLINE;
    let promoted = loop {
        assert!(
            std::time::Instant::now() < deadline,
            "it is not promoted: {seen}"
        );
        client.get("/").await;
        let rollout = proxy.get(path).await;
        if rollout["stage"]["kind"] == "bake" && rollout["status"] == "running" {
            seen = rollout["holdback"].clone();
        }
        if rollout["status"] == "promoted" {
            break rollout;
        }
    };
    assert_eq!(
        (&seen["backend"], &seen["version"]),
        (&json!("blue"), &json!("1"))
    );
    let proof = &promoted["holdback"];
    assert_eq!(
        (&proof["version"], &proof["works"]),
        (&json!("1"), &json!(true)),
        "{promoted}"
    );
    assert!(proof["requests"].as_u64().unwrap() >= 20, "{promoted}");
    assert_eq!(proof["failures"], 0);
}

fn pin(answer: &Answer) -> Option<String> {
    let cookies = answer.headers.get_all("set-cookie").iter();
    let mut cookies = cookies.map(|cookie| cookie.to_str().unwrap());
    let pin = cookies.find(|cookie| cookie.starts_with("page="))?;
    assert!(pin.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{pin}");
    pin.split(';').next().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_and_its_files_come_from_the_same_version_while_it_has_weight() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(
        &blue,
        &green,
        "pin: {cookie: page, assets: [/assets]}\nexpose: true",
    );
    let mut client = Http::connect(proxy.web).await;
    let page = client.get("/").await;
    let cookie = pin(&page).expect("the page's version is noted");
    proxy.weights(1, 99).await;
    for path in ["/", "/assets/a.js", "/api"].repeat(10) {
        let answer = client
            .send("GET", path, &[("cookie", &cookie)], b"")
            .await
            .unwrap();
        assert_eq!(answer.header("x-switchback-backend"), "blue", "{path}");
        assert_eq!(pin(&answer), None, "it is noted already");
    }
    // Without weight it is not there any more: the next page is noted anew.
    proxy.weights(0, 100).await;
    let answer = client
        .send("GET", "/", &[("cookie", &cookie)], b"")
        .await
        .unwrap();
    assert_eq!(answer.header("x-switchback-backend"), "green");
    let other = pin(&answer).expect("another version");
    assert_ne!(other, cookie);
    assert_eq!(blue.received(), 31);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_only_the_other_version_has_is_found_there() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "pin: {cookie: page, assets: [/assets]}\nexpose: true\nwindow: 1h"
        .replace("\nwindow: 1h", "");
    let proxy = Proxy::blue_green(&blue, &green, &more);
    let switched = proxy
        .post(
            "/v1/services/shop/switch",
            json!({"to": "green", "force": true}),
        )
        .await;
    assert_eq!(switched.status, 200, "{}", switched.text());
    green.behave(Behaviour {
        status: 404,
        ..Behaviour::default()
    });
    let mut client = Http::connect(proxy.web).await;
    let file = client.get("/assets/old.js").await;
    assert_eq!(
        (file.status, file.header("x-switchback-backend")),
        (200, "blue")
    );
    let mut ask = async |method: &str, path: &str| {
        let answer = client.send(method, path, &[], b"").await.unwrap();
        (
            answer.status,
            answer.header("x-switchback-backend").to_owned(),
        )
    };
    assert_eq!(ask("HEAD", "/assets/old.js").await.0, 200);
    // Only files, and only what may be asked twice.
    assert_eq!(ask("GET", "/assetsx").await, (404, "green".into()));
    assert_eq!(ask("POST", "/assets/old.js").await, (404, "green".into()));
    assert_eq!((blue.received(), green.received()), (2, 4));
    let service = proxy.service().await;
    assert_eq!(
        service["backends"]["blue"]["begun"], 0,
        "it is no split traffic"
    );
    // A version that was kept out gives nothing, not even its files.
    blue.behave(Behaviour {
        status: 404,
        ..Behaviour::default()
    });
    green.answer_with(200);
    let back = proxy.post("/v1/services/shop/rollback", Value::Null).await;
    assert_eq!(back.status, 200, "{}", back.text());
    assert_eq!(client.get("/assets/new.js").await.status, 404);
    assert_eq!(green.received(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_a_version_does_not_have_is_not_held_against_it() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "pin: {assets: [/assets]}\nrollback: {errors: [4xx, 5xx]}\nrescue: {enabled: false}";
    let proxy = Proxy::blue_green(&blue, &green, more);
    proxy.weights(50, 50).await;
    green.answer_with(404);
    let mut client = Http::connect(proxy.web).await;
    for number in 0..200 {
        let file = client.get(&format!("/assets/{number}.js")).await;
        assert_eq!(file.status, 200, "stable has it");
    }
    assert_eq!(
        proxy.service().await["weights"],
        json!({"blue": 50, "green": 50})
    );
    // What nobody has is a failure of whoever was asked, where the file says so.
    let mut asked = 0;
    while proxy.service().await["weights"]["green"] != 0 {
        client.get("/page").await;
        asked += 1;
        assert!(asked < 2_000, "it is rolled back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_cannot_be_looked_for_elsewhere_is_not_found() {
    let (blue, green) = (Faulty::start().await, Origin::start().await);
    let config = blue_green(
        &blue.url(),
        &green.url(),
        "pin: {cookie: page, assets: [/assets]}\nweights: {blue: 0, green: 100}",
    )
    .replace("    weights: {blue: 100, green: 0}\n", "");
    let proxy = Proxy::start(&config);
    blue.kill().await;
    green.answer_with(404);
    let answer = Http::connect(proxy.web).await.get("/assets/old.js").await;
    assert_eq!(answer.status, 404, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_of_a_page_names_its_version_in_a_header() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "pin: {header: x-app-version}\nexpose: true\nweights: {blue: 50, green: 50}";
    let config = blue_green(&blue.url(), &green.url(), more)
        .replace("    weights: {blue: 100, green: 0}\n", "");
    let proxy = Proxy::start(&config);
    let mut client = Http::connect(proxy.web).await;
    for (label, backend) in [("1", "blue"), ("2", "green")] {
        for _ in 0..8 {
            let header = [("x-app-version", label)];
            let answer = client.send("GET", "/", &header, b"").await.unwrap();
            assert_eq!(answer.header("x-switchback-backend"), backend);
            assert!(answer.headers.get("set-cookie").is_none());
        }
    }
    assert_eq!((blue.received(), green.received()), (8, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backend_is_safe_to_stop_only_without_weight_and_requests_for_long_enough() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "drain: {safe_to_stop_after: 2s}");
    let of = async |backend: &str| {
        let service = proxy.service().await;
        let view = &service["backends"][backend];
        let needed = view["needed"].as_str().unwrap_or_default().to_owned();
        (view["safe_to_stop"].as_bool().unwrap(), needed)
    };
    assert_eq!(of("blue").await, (false, "it is stable".into()));
    proxy.weights(50, 50).await;
    assert_eq!(of("green").await, (false, "it has weight 50".into()));
    let held = green.hold();
    let mut pending = Vec::new();
    for _ in 0..4 {
        let web = proxy.web;
        pending.push(tokio::spawn(async move {
            Http::connect(web).await.get("/").await.status
        }));
    }
    eventually_async("green has requests", || async { green.received() > 0 }).await;
    proxy.weights(100, 0).await;
    let (safe, needed) = of("green").await;
    assert!(
        !safe && needed.ends_with("of its requests are under way"),
        "{needed}"
    );
    drop(held);
    for request in pending {
        assert_eq!(request.await.unwrap(), 200);
    }
    let ended = std::time::Instant::now();
    let (safe, needed) = of("green").await;
    assert!(!safe && needed.contains("less than 2s"), "{needed}");
    eventually_async("it may be stopped", || async { of("green").await.0 }).await;
    assert!(
        ended.elapsed() >= std::time::Duration::from_secs(1),
        "the delay was kept"
    );
    let switched = json!({"to": "green", "force": true});
    assert_eq!(
        proxy
            .post("/v1/services/shop/switch", switched)
            .await
            .status,
        200
    );
    let (safe, needed) = of("blue").await;
    assert!(
        !safe && needed.starts_with("a rollback goes here until "),
        "{needed}"
    );
}
