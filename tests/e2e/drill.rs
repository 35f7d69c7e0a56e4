//! Drills: a rollback is rehearsed on a shadow of the service, and no user notices.

use serde_json::{Value, json};

use crate::support::{Http, Load, Origin, Protocol, Proxy, Receiver, blue_green, eventually_async};

/// Lines of `/metrics` that are about requests of users, or about their service.
async fn of_users(proxy: &Proxy) -> Vec<String> {
    let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
    let counted = [
        "switchback_requests_total{",
        "switchback_request_duration_seconds_count{",
        "switchback_rollbacks_total",
        "switchback_blocked{",
        "switchback_backend_weight{",
        "switchback_rescued_total",
    ];
    let lines = metrics.lines();
    let of_users = lines.filter(|line| counted.iter().any(|name| line.starts_with(name)));
    of_users.map(str::to_owned).collect()
}

/// What anybody may look at, of which a drill is no part.
const LOOKED_AT: [&str; 7] = [
    "/metrics",
    "/v1/hooks",
    "/v1/hooks/deliveries",
    "/v1/hooks/dead",
    "/v1/runbooks",
    "/v1/services",
    "/v1/overview",
];

#[track_caller]
fn assert_no_shadow(path: &str, text: &str) {
    let mut lines = text.lines().filter(|line| line.contains("~drill"));
    assert_eq!(lines.next(), None, "{path}");
    assert!(!text.contains(".drill.invalid"), "{path}: {text}");
}

/// The service, once what was asked is counted and its health is known; without what says how long
/// ago something was, which a look at another moment says differently.
async fn settled(proxy: &Proxy) -> Value {
    eventually_async("nothing is under way", || async {
        let service = proxy.service().await;
        let backends = service["backends"].as_object().unwrap();
        let rests = |of: &Value| of["in_flight"] == 0 && of["health"] == "healthy";
        backends.values().all(rests)
    })
    .await;
    let mut service = proxy.service().await;
    for backend in service["backends"].as_object_mut().unwrap().values_mut() {
        let backend = backend.as_object_mut().unwrap();
        backend.remove("safe_to_stop").unwrap();
        backend.remove("needed");
    }
    service
}

async fn method(proxy: &Proxy, way: &str) -> Value {
    let answer = proxy.get("/v1/services/shop/methods").await;
    let methods = answer["methods"].as_array().unwrap();
    let found = methods.iter().find(|method| method["method"] == way);
    found.unwrap_or_else(|| panic!("{way}: {answer}")).clone()
}

fn check<'a>(record: &'a Value, name: &str) -> &'a Value {
    let checks = record["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("{name}: {record:#}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn untested_rollback_path_pitfall_is_met_by_a_drill_that_no_user_notices() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let receiver = Receiver::start().await;
    let hooks = format!(
        "hooks:\n  - {{on: [rollback], http: \"{}\"}}\n  - {{on: [rollback], run: [\"true\"]}}\n  - {{name: proof, on: [drill_passed, drill_failed], http: \"{}\"}}\n",
        receiver.url(),
        receiver.url()
    );
    let proxy = Proxy::blue_green(&blue, &green, &hooks);
    let mut user = Http::connect(proxy.web).await;
    assert_eq!(user.get("/").await.status, 200);
    let (before, counted) = (settled(&proxy).await, of_users(&proxy).await);
    let (code, out, err) = proxy.cli(&["drill", "shop", "--reason", "practice"]);
    assert_eq!(code, 0, "{out}\n{err}");
    assert!(out.contains("shop: the drill passed"), "{out}");
    let record = proxy.get("/v1/services/shop/drill").await;
    assert_eq!(
        (&record["passed"], &record["live"]),
        (&json!(true), &json!(false))
    );
    for name in [
        "requests pass",
        "the fault is noticed",
        "nothing reaches the failing version",
        "the version is blocked",
        "the rollback is on disk",
        "hooks are told (dry)",
        "the event is told",
    ] {
        assert_eq!(check(&record, name)["passed"], true, "{record:#}");
    }
    let noticed = check(&record, "the fault is noticed")["finding"]
        .as_str()
        .unwrap();
    assert!(
        noticed.contains("canary failed "),
        "the judge's sentence: {noticed}"
    );
    assert!(record["rolled_back_in_ms"].as_u64().unwrap() < 10_000);
    // Nobody who serves users was asked, nothing of theirs has moved, and no hook outside was told.
    assert_eq!((blue.received(), green.received()), (1, 0));
    assert_eq!(of_users(&proxy).await, counted);
    let after = settled(&proxy).await;
    for same in [
        "weights",
        "stable",
        "backends",
        "blocked_versions",
        "judge",
        "effective",
    ] {
        assert_eq!(after[same], before[same], "{same}");
    }
    eventually_async("the result is told", || async {
        !receiver.types().is_empty()
    })
    .await;
    assert_eq!(receiver.types(), ["switchback.drill_passed"]);
    // It is on record, and the shadow is gone.
    let services = proxy.get("/v1/services").await;
    assert_eq!(services["services"].as_array().map(Vec::len), Some(1));
    assert_eq!(proxy.get("/v1/rollbacks").await["rollbacks"], json!([]));
    let audit = proxy.get("/v1/audit").await.to_string();
    for action in ["drill_start", "drill_passed"] {
        assert!(
            audit.contains(&format!("\"action\":\"{action}\"")),
            "{audit}"
        );
    }
    assert!(proxy.get("/v1/audit/check").await["fault"].is_null());
    let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
    for name in ["timestamp_seconds", "duration_seconds", "rollback_seconds"] {
        let line = format!("switchback_last_drill_{name}{{service=\"shop\"}} ");
        assert!(metrics.contains(&line), "{metrics}");
    }
    assert!(metrics.contains("switchback_last_drill_passed{service=\"shop\"} 1\n"));
    let config = proxy.get("/v1/config").await.to_string();
    assert!(!config.contains("~drill"), "{config}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shadow_is_in_no_view_while_a_drill_lasts_nor_after_it() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let hooks = "hooks: [{name: undo, on: [rollback], run: [\"true\"]}]\n";
    let config = crate::support::blue_green(&blue.url(), &green.url(), hooks);
    let runbook = "runbooks: {calm: {steps: [{name: breathe, action: breathe}]}}";
    let proxy = Proxy::start(&format!("{config}{runbook}\n"));
    let mut during = 0;
    let mut drill = std::pin::pin!(proxy.post("/v1/services/shop/drill", json!({})));
    let record = loop {
        let look = async {
            for path in LOOKED_AT {
                let seen = proxy.api("GET", path, Value::Null).await;
                assert_eq!(seen.status, 200, "{path}");
                assert_no_shadow(path, &seen.text());
            }
        };
        tokio::select! {
            record = &mut drill => break record.json(),
            () = look => during += 1,
        }
    };
    assert_eq!(record["passed"], true, "{record:#}");
    assert!(during > 0, "it was looked at while it lasted");
    let runbooks = proxy.get("/v1/runbooks").await;
    assert_eq!(runbooks["runbooks"][0]["services"], json!(["shop"]));
    // What it has told itself is gone as well, whatever became of it.
    eventually_async("nothing waits", || async {
        let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
        assert_no_shadow("/metrics", &metrics);
        metrics.contains("switchback_hook_deliveries_waiting 0\n")
    })
    .await;
    for path in LOOKED_AT {
        let seen = proxy.api("GET", path, Value::Null).await.text();
        assert_no_shadow(path, &seen);
    }
    let hooks = proxy.get("/v1/hooks").await;
    assert_eq!((&hooks["waiting"], &hooks["dead"]), (&json!(0), &json!(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drill_that_passed_is_measured_for_the_way_that_it_went() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let (code, out, why) = proxy.cli(&["drill", "shop"]);
    assert_eq!(code, 0, "{out}{why}");
    let record = proxy.get("/v1/services/shop/drill").await;
    let canary = method(&proxy, "canary_to_zero").await;
    assert_eq!(canary["measured"], 1, "{canary}");
    // From the swap, and not since the fault began.
    let took_us = canary["p50_us"].as_u64().unwrap();
    let noticed_ms = record["rolled_back_in_ms"].as_u64().unwrap();
    assert!(
        took_us <= noticed_ms * 1_000 + 999,
        "{took_us} us: {record}"
    );
    assert_eq!(canary["last_drill"], canary["last"]);
    assert!(canary["last_drill"].is_string(), "{canary}");
    let switch = method(&proxy, "blue_green_switch").await;
    assert_eq!(
        (&switch["measured"], &switch["last_drill"]),
        (&json!(0), &Value::Null),
        "nobody has gone that way"
    );
    let shown = proxy.cli(&["methods", "shop"]).1;
    assert_eq!(shown.matches("never  ").count(), 6, "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reaches_the_shadow_by_a_host_or_a_name_of_their_own() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "expose: true");
    let mut load = Load::start(proxy.web, Protocol::Http1, 2);
    let drill = proxy.post("/v1/services/shop/drill", json!({}));
    let strangers = async {
        let mut client = Http::connect(proxy.web).await;
        for _ in 0..200 {
            for host in [
                "00000000000000000000000000000000.drill.invalid",
                "shop~drill",
            ] {
                let answer = client
                    .send("GET", "/", &[("host", host)], b"")
                    .await
                    .unwrap();
                assert_eq!(
                    (answer.status, answer.header("x-switchback-version")),
                    (200, "1")
                );
            }
        }
    };
    let (record, ()) = tokio::join!(drill, strangers);
    let (_, failed, first) = load.stop().await;
    assert_eq!(record.json()["passed"], true, "{}", record.text());
    assert_eq!(failed, 0, "{first:?}");
    for path in ["rollback", "switch"] {
        let path = format!("/v1/services/shop~drill/{path}");
        let refused = proxy.post(&path, json!({"to": "green"})).await;
        assert!(refused.status >= 400, "{}", refused.text());
    }
    assert_eq!(green.received(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drill_that_is_due_takes_place_by_itself_and_goes_on_through_a_reload() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "drill: {every: 30d}");
    eventually_async("the drill is on record", || async {
        let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
        let _ = proxy.post("/v1/reload", Value::Null).await;
        metrics.contains("switchback_last_drill_passed{service=\"shop\"} 1\n")
    })
    .await;
    let record = proxy.get("/v1/services/shop/drill").await;
    assert_eq!(record["by"], "switchback");
    let audit = proxy.get("/v1/audit").await.to_string();
    assert_eq!(
        audit.matches("\"action\":\"drill_start\"").count(),
        1,
        "it is due in 30 days"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drill_fails_where_a_rollback_would() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "hooks: [{name: undo, on: [rollback], run: [\"./undo\"]}]\n";
    let proxy = Proxy::blue_green(&blue, &green, more);
    let (code, out, _) = proxy.cli(&["drill", "shop"]);
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("hook undo: there is no program \"./undo\""),
        "{out}"
    );
    let record = proxy.get("/v1/services/shop/drill").await;
    assert_eq!(check(&record, "the fault is noticed")["passed"], true);
    assert_eq!(check(&record, "hooks are told (dry)")["passed"], false);
    let (code, _, _) = proxy.cli(&["drill", "shop", "--last"]);
    assert_eq!(code, 1);
    let canary = method(&proxy, "canary_to_zero").await;
    assert_eq!(
        (&canary["measured"], &canary["last_drill"]),
        (&json!(0), &Value::Null)
    );
    let unknown = proxy.post("/v1/services/shp/drill", json!({})).await;
    assert_eq!(
        (unknown.status, unknown.json()["code"].clone()),
        (404, json!("unknown_service"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_drill_moves_a_hundredth_of_the_traffic_and_back() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let health = "health: {path: /healthz, interval: 100ms, timeout: 90ms, rise: 1}";
    let proxy = Proxy::blue_green(&blue, &green, health);
    let mut load = Load::start(proxy.web, Protocol::Http1, 2);
    let body = json!({"live": true});
    let record = proxy
        .post("/v1/services/shop/drill", body.clone())
        .await
        .json();
    let (_, failed, first) = load.stop().await;
    assert_eq!(
        (&record["passed"], &record["live"]),
        (&json!(true), &json!(true)),
        "{record:#}"
    );
    assert_eq!(failed, 0, "{first:?}");
    let (all, moved) = (blue.received() as f64, green.received() as f64);
    assert!(moved > 0.0 && moved < all * 0.02, "{moved} of {all}");
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    // Not while it would be in somebody's way.
    proxy.weights(90, 10).await;
    let refused = proxy.post("/v1/services/shop/drill", body).await;
    assert_eq!(
        (refused.status, refused.json()["code"].clone()),
        (409, json!("drill_impossible"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_drill_leaves_alone_what_an_operator_decides_meanwhile() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let health = "health: {path: /healthz, interval: 100ms, timeout: 90ms, rise: 1}";
    let proxy = Proxy::blue_green(&blue, &green, health);
    let live = json!({"live": true});
    // Who has leased the weights has plans.
    let leased = json!({"weights": {"blue": 100, "green": 0}, "lease": "10m"});
    proxy.put("/v1/services/shop/weights", leased).await;
    let refused = proxy
        .post("/v1/services/shop/drill", live.clone())
        .await
        .json();
    assert_eq!(refused["code"], "drill_impossible", "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("leased"));
    assert!(proxy.service().await["override"]["lease"].is_object());
    proxy.weights(99, 1).await;
    proxy.weights(100, 0).await;
    eventually_async("green is healthy", || async {
        let dry = ["switch", "shop", "--to", "green", "--dry-run"];
        proxy.cli(&dry).0 == 0
    })
    .await;
    // Somebody switches while a hundredth is away.
    let drill = proxy.post("/v1/services/shop/drill", live);
    let operator = async {
        eventually_async("a hundredth is lent", || async {
            proxy.service().await["weights"]["green"] == 1
        })
        .await;
        proxy.cli(&["switch", "shop", "--to", "green"])
    };
    let (record, (code, out, why)) = tokio::join!(drill, operator);
    assert_eq!(code, 0, "{out}{why}");
    let service = proxy.service().await;
    assert_eq!(
        (&service["stable"], &service["weights"]),
        (&json!("green"), &json!({"blue": 0, "green": 100}))
    );
    let record = record.json();
    let moved = check(
        &record,
        "a hundredth of the traffic is moved and back (live)",
    );
    assert_eq!(moved["passed"], false, "{record:#}");
    let finding = moved["finding"].as_str().unwrap();
    assert!(finding.contains("what they did stays"), "{finding}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drill_takes_the_way_of_clients_through_tls_and_the_proxy_protocol() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let key = rcgen::generate_simple_self_signed(vec!["shop.test".into()]).unwrap();
    let certificates = "{certificates: [{certificate: c.pem, key: k.pem}]";
    for listener in [
        format!("tls: {certificates}}}"),
        format!("proxy_protocol: true, tls: {certificates}}}"),
        "proxy_protocol: true".to_owned(),
    ] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("c.pem"), key.cert.pem()).unwrap();
        std::fs::write(
            directory.path().join("k.pem"),
            key.signing_key.serialize_pem(),
        )
        .unwrap();
        let config = crate::support::blue_green(&blue.url(), &green.url(), "");
        let web = "web: {address: \"127.0.0.1:0\"";
        let config = config.replace(web, &format!("{web}, {listener}"));
        std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
        let proxy = Proxy::start_in(directory);
        let record = proxy
            .post("/v1/services/shop/drill", json!({}))
            .await
            .json();
        assert_eq!(record["passed"], true, "{listener}: {record:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drill_writes_nothing_to_the_access_log_from_which_others_count_and_simulate() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    for format in ["json", "combined"] {
        let log = format!("{{path: access.log, format: {format}}}");
        let config = blue_green(&blue.url(), &green.url(), "");
        let mut proxy = Proxy::start(&config.replace("{format: \"off\"}", &log));
        assert_eq!(Http::connect(proxy.web).await.get("/").await.status, 200);
        let (code, out, err) = proxy.cli(&["drill", "shop"]);
        assert_eq!(code, 0, "{out}\n{err}");
        proxy.signal(rustix::process::Signal::TERM);
        assert_eq!(proxy.wait(), Some(0), "everything is written by now");
        let log = std::fs::read_to_string(proxy.path().join("access.log")).unwrap();
        assert_eq!(log.lines().count(), 1, "{format}: {log}");
    }
}
