//! Health, spill, affinity, preview.

use serde_json::json;

use std::sync::Arc;

use tokio::sync::Barrier;

use crate::support::{Http, Origin, Proxy, blue_green, eventually_async};

const CHECKS: &str = "health: {path: /healthz, interval: 100ms, timeout: 90ms, fall: 2, rise: 1}\nrollback: {unhealthy_for: 1h}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn share_of_an_unhealthy_canary_goes_to_stable() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, CHECKS);
    proxy.weights(50, 50).await;
    green.answer_with(503);
    eventually_async("green is known to be down", || async {
        proxy.service().await["backends"]["green"]["health"] == "unhealthy"
    })
    .await;
    let before = green.received();
    let mut client = Http::connect(proxy.web).await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(green.received(), before);
    green.answer_with(200);
    eventually_async("green is back", || async {
        proxy.service().await["backends"]["green"]["health"] == "healthy"
    })
    .await;
    for _ in 0..50 {
        client.get("/").await;
    }
    // Exact to less than 2 in any window.
    assert!(
        (24..=26).contains(&(green.received() - before)),
        "{}",
        green.received() - before
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backend_without_weight_that_is_back_can_be_rolled_back_to() {
    for checks in ["", CHECKS] {
        let (blue, green) = (Origin::start().await, Origin::start().await);
        let proxy = Proxy::blue_green(&blue, &green, checks);
        let address = blue.url()["http://".len()..].parse().unwrap();
        drop(blue);
        eventually_async("blue is known not to accept connections", || async {
            Http::connect(proxy.web).await.get("/").await;
            proxy.service().await["backends"]["blue"]["health"] == "unhealthy"
        })
        .await;
        let switched = proxy
            .post("/v1/services/shop/switch", json!({"to": "green"}))
            .await;
        assert_eq!(switched.status, 200, "{}", switched.text());
        let refused = proxy.refused("/v1/services/shop/rollback", json!({})).await;
        assert_eq!(refused, (409, "target_unhealthy".into()));
        // Nobody sends requests there, and it works again all the same.
        let _blue = Origin::start_at(address).await;
        eventually_async("it can be rolled back to", || async {
            let path = "/v1/services/shop/rollback";
            proxy.post(path, json!({})).await.status == 200
        })
        .await;
        assert_eq!(proxy.service().await["weights"]["blue"], 100);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stable_without_healthy_endpoint_is_not_spilled_unless_asked_for() {
    for (spill, status) in [(false, 503), (true, 200)] {
        let (blue, green) = (Origin::start().await, Origin::start().await);
        let proxy = Proxy::blue_green(
            &blue,
            &green,
            &format!("{CHECKS}\nspill_to_canary: {spill}"),
        );
        proxy.weights(99, 1).await;
        blue.answer_with(503);
        eventually_async("blue is known to be down", || async {
            proxy.service().await["backends"]["blue"]["health"] == "unhealthy"
        })
        .await;
        let mut client = Http::connect(proxy.web).await;
        let mut statuses = Vec::new();
        for _ in 0..20 {
            let answer = client.get("/").await;
            if answer.status == 503 {
                assert_ne!(answer.header("retry-after"), "");
                assert!(
                    answer.header("proxy-status").starts_with("switchback"),
                    "{:?}",
                    answer.headers
                );
            }
            statuses.push(answer.status);
        }
        assert!(
            statuses.iter().filter(|s| **s == status).count() >= 19,
            "{statuses:?}"
        );
    }
}

/// Starts of a process, and clients that ask it all at once as soon as it listens.
const STARTS: usize = 5;
const CLIENTS: usize = 48;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_with_a_dead_address_fails_no_request_of_a_fresh_process() {
    // The name has an IPv6 address, too, where nobody listens.
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let by_name = format!("http://localhost:{}", blue.address.port());
    let config = blue_green(&by_name, &green.url(), "balance: round_robin");
    let mut proxy = Proxy::start(&config);
    for start in 0..STARTS {
        let ready = Arc::new(Barrier::new(CLIENTS));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (ready, web) = (ready.clone(), proxy.web);
                // What must not be sent twice is repeated as well: nothing of it was sent.
                let method = ["GET", "POST"][number % 2];
                tokio::spawn(async move {
                    let mut client = Http::connect(web).await;
                    ready.wait().await;
                    client.send(method, "/", &[], b"").await.unwrap().status
                })
            })
            .collect();
        let mut statuses = Vec::new();
        for client in clients {
            statuses.push(client.await.unwrap());
        }
        let failed: Vec<_> = statuses.iter().filter(|status| **status != 200).collect();
        assert!(failed.is_empty(), "start {start}: {failed:?}");
        proxy.crash_and_restart();
    }
    assert_eq!(blue.received(), (STARTS * CLIENTS) as u64);
    // The dead one is known, and not asked any more.
    let endpoints = proxy.service().await["backends"]["blue"]["endpoints"].clone();
    assert_eq!(endpoints.as_array().map(Vec::len), Some(2), "{endpoints}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backend_whose_every_endpoint_is_dead_is_said_to_be_so() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let by_name = format!("http://localhost:{}", dead.local_addr().unwrap().port());
    drop(dead);
    let proxy = Proxy::start(&blue_green(&by_name, &green.url(), ""));
    let first = Http::connect(proxy.web).await.get("/").await;
    assert_eq!(first.status, 502, "{}", first.text());
    assert!(first.header("proxy-status").contains("connection_refused"));
    for _ in 0..20 {
        let answer = Http::connect(proxy.web).await.get("/").await;
        assert!(matches!(answer.status, 502 | 503), "{}", answer.text());
    }
    assert_eq!(blue.received() + green.received(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_fail_everywhere_are_not_believed() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(
        &blue,
        &green,
        &CHECKS.replace("/healthz", "/missing-health"),
    );
    blue.answer_with(404);
    green.answer_with(404);
    eventually_async("all checks fail", || async {
        proxy.service().await["health"]["panic"] == true
    })
    .await;
    blue.answer_with(200);
    let mut client = Http::connect(proxy.web).await;
    let answer = client.get("/").await;
    assert!(matches!(answer.status, 200 | 404), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_stay_where_they_are_and_only_move_to_a_growing_canary() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "affinity: {header: x-user-id}\nexpose: true");
    let mut client = Http::connect(proxy.web).await;
    let mut on_green = Vec::new();
    let mut sizes = Vec::new();
    for share in [10, 30, 60, 100] {
        proxy.weights(100 - share, share).await;
        let mut now = Vec::new();
        for user in 0..300 {
            let user = format!("user-{user}");
            let first = client
                .send("GET", "/", &[("x-user-id", &user)], b"")
                .await
                .unwrap();
            let again = client
                .send("GET", "/", &[("x-user-id", &user)], b"")
                .await
                .unwrap();
            let backend = first.header("x-switchback-backend").to_owned();
            assert_eq!(
                again.header("x-switchback-backend"),
                backend,
                "{user} moved"
            );
            if backend == "green" {
                now.push(user);
            }
        }
        assert!(
            on_green.iter().all(|user| now.contains(user)),
            "a client left the canary while it grew"
        );
        sizes.push(now.len());
        on_green = now;
    }
    assert!(
        (10..=55).contains(&sizes[0]) && (150..=210).contains(&sizes[2]) && sizes[3] == 300,
        "{sizes:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn affinity_cookie_is_issued_and_kept() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "affinity: {cookie: sb_user}\nexpose: true");
    proxy.weights(50, 50).await;
    let mut client = Http::connect(proxy.web).await;
    let first = client.get("/").await;
    let cookie = first.header("set-cookie").to_owned();
    for part in ["sb_user=", "Path=/", "HttpOnly", "SameSite=Lax", "Max-Age="] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "plain text: {cookie}");
    let pair = cookie.split(';').next().unwrap();
    for _ in 0..20 {
        let answer = client
            .send("GET", "/", &[("cookie", pair)], b"")
            .await
            .unwrap();
        assert_eq!(
            answer.header("x-switchback-backend"),
            first.header("x-switchback-backend")
        );
        assert_eq!(answer.header("set-cookie"), "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn testers_choose_a_backend_at_weight_0_but_never_a_blocked_one() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "preview: {from: [127.0.0.1/32]}");
    let mut client = Http::connect(proxy.web).await;
    let preview = [("x-switchback-backend", "green")];
    let answer = client.send("GET", "/", &preview, b"").await.unwrap();
    assert_eq!(
        (answer.status, green.received(), blue.received()),
        (200, 1, 0)
    );
    assert_eq!(answer.header("x-switchback-backend"), "green");
    // What testers do is not judged, and not part of the split's count.
    green.answer_with(500);
    for _ in 0..20 {
        assert_eq!(
            client.send("GET", "/", &preview, b"").await.unwrap().status,
            500
        );
    }
    assert_eq!(proxy.service().await["backends"]["green"]["begun"], 0);
    proxy
        .post("/v1/services/shop/backends/green/block", json!({}))
        .await;
    assert_eq!(
        client.send("GET", "/", &preview, b"").await.unwrap().status,
        200
    );
    assert_eq!(green.received(), 21, "a blocked version gets nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn split_is_exact_in_every_window_on_one_worker() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = crate::support::blue_green(&blue.url(), &green.url(), "expose: true")
        .replace("workers: 2", "workers: 1");
    let proxy = Proxy::start(&config);
    proxy.weights(93, 7).await;
    let mut client = Http::connect(proxy.web).await;
    let mut picks = Vec::new();
    for _ in 0..600 {
        picks.push(u32::from(
            client.get("/").await.header("x-switchback-backend") == "green",
        ));
    }
    for size in [1, 10, 50, 100, 333, 600] {
        for window in picks.windows(size) {
            let share = f64::from(window.iter().sum::<u32>());
            assert!(
                (share - 0.07 * size as f64).abs() < 2.0,
                "{share} of {size}"
            );
        }
    }
}
