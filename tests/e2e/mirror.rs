//! Copies of stable's requests: as many as asked for, the same as the original, and never in its way.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::{
    Behaviour, Http, Load, Origin, Protocol, Proxy, blue_green, eventually_async,
};

/// A service whose requests to blue are copied to green as `mirror` says.
async fn mirrored(mirror: &str) -> (Origin, Origin, Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, &format!("mirror: {mirror}"));
    (blue, green, proxy)
}

/// What the API says of the mirror.
async fn mirror(proxy: &Proxy) -> Value {
    proxy.service().await["mirror"].clone()
}

/// Waits until so many copies were compared, and tells what the API says then.
async fn after(proxy: &Proxy, copies: u64) -> Value {
    eventually_async("all copies were compared", || async {
        mirror(proxy).await["mirrored"] == copies
    })
    .await;
    mirror(proxy).await
}

/// Sends so many GETs one after the other; none may fail.
async fn gets(proxy: &Proxy, count: u64) {
    let mut client = Http::connect(proxy.web).await;
    for number in 0..count {
        let id = format!("get-{number}");
        let answer = client.send("GET", "/", &[("x-test-id", &id)], b"").await;
        assert_eq!(answer.unwrap().status, 200, "request {number}");
    }
}

async fn metrics(proxy: &Proxy) -> String {
    proxy.api("GET", "/metrics", Value::Null).await.text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_get_is_copied_once_and_split_counters_do_not_move() {
    let (blue, green, proxy) = mirrored("{to: green}").await;
    gets(&proxy, 200).await;
    let seen = after(&proxy, 200).await;
    assert_eq!((blue.received(), green.received()), (200, 200));
    assert!(green.deliveries().values().all(|count| *count == 1));
    assert_eq!(
        (&seen["failed"], &seen["mismatched"], &seen["dropped"]),
        (&json!(0), &json!(0), &json!(0)),
        "{seen}"
    );
    assert!(seen["mean_ms"].as_f64().unwrap() > 0.0, "{seen}");
    assert!(seen["stable_mean_ms"].as_f64().unwrap() > 0.0, "{seen}");
    let service = proxy.service().await;
    for (key, blue, green) in [("begun", 200, 0), ("requests", 200, 0), ("in_flight", 0, 0)] {
        assert_eq!(service["backends"]["blue"][key], blue, "{key}: {service}");
        assert_eq!(service["backends"]["green"][key], green, "{key}: {service}");
    }
    let metrics = metrics(&proxy).await;
    let line = "switchback_mirrored_requests_total{service=\"shop\",backend=\"green\",version=\"2\",code_class=\"2xx\"} 200";
    assert!(metrics.contains(line), "{metrics}");
    let line = "switchback_mirrored_request_duration_seconds_count{service=\"shop\",backend=\"green\"} 200";
    assert!(metrics.contains(line), "{metrics}");
    let split = "switchback_requests_total{service=\"shop\",backend=\"green\"";
    assert!(!metrics.contains(split), "{metrics}");
    let (code, out, _) = proxy.cli(&["status", "shop"]);
    let line = "shop: mirrors 100% to green (2): 200 copies, 0 failed, 0 differed, 0 dropped, ";
    assert!(code == 0 && out.contains(line), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn share_is_exact_on_every_worker() {
    let (_blue, green, proxy) = mirrored("{to: green, share: 10%}").await;
    let load = Load::start(proxy.web, Protocol::Http1, 8);
    eventually_async("some requests were served", || async {
        load.done() > 5_000
    })
    .await;
    let done = load.finish().await;
    let expected = done / 10;
    eventually_async("every tenth request was copied or dropped", || async {
        let seen = mirror(&proxy).await;
        let dropped = seen["dropped"].as_u64().unwrap();
        let chosen = seen["mirrored"].as_u64().unwrap() + dropped;
        // Two workers, each less than two requests away from its exact share.
        chosen.abs_diff(expected) <= 4 && green.received() + dropped == chosen
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_is_the_original_but_says_that_it_is_a_copy() {
    let (blue, green, proxy) = mirrored("{to: green}").await;
    let mut client = Http::connect(proxy.web).await;
    let headers = [
        ("host", "shop.example.com"),
        ("cookie", "a=b"),
        ("x-switchback-mirrored", "1"),
        ("x-other", "kept"),
    ];
    let answer = client.send("GET", "/a/b?c=d", &headers, b"").await.unwrap();
    assert_eq!(answer.status, 200);
    after(&proxy, 1).await;
    let (original, copy) = (blue.last(), green.last());
    assert_eq!(
        original.headers.get("x-switchback-mirrored"),
        None,
        "a client cannot pretend"
    );
    assert_eq!(copy.headers["x-switchback-mirrored"], "1");
    assert_eq!((&copy.method, &copy.uri), (&original.method, &original.uri));
    for name in [
        "x-request-id",
        "traceparent",
        "host",
        "cookie",
        "x-other",
        "x-forwarded-for",
    ] {
        assert_eq!(copy.headers[name], original.headers[name], "{name}");
    }
    assert_eq!(copy.headers.len(), original.headers.len() + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_listed_methods_are_copied() {
    let (blue, green, proxy) = mirrored("{to: green}").await;
    let mut client = Http::connect(proxy.web).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS"] {
        let answer = client.send(method, "/", &[], b"").await.unwrap();
        assert_eq!(answer.status, 200, "{method}");
    }
    after(&proxy, 3).await;
    assert_eq!((blue.received(), green.received()), (7, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_copied_byte_for_byte_where_asked_and_only_up_to_the_bound() {
    for url in [Origin::url, Origin::h2c_url] {
        let (blue, green) = (Origin::start().await, Origin::start().await);
        let more = "mirror: {to: green, methods: [POST], max_body: 64KiB}";
        let proxy = Proxy::start(&blue_green(&url(&blue), &url(&green), more));
        let mut client = Http::connect(proxy.web).await;
        let body: Vec<u8> = (0..64 << 10).map(|n: u32| (n % 251) as u8).collect();
        for bytes in [0, 1, 5_000, 64 << 10] {
            let before = green.received();
            let answer = client.send("POST", "/", &[], &body[..bytes]).await.unwrap();
            assert_eq!(answer.status, 200);
            after(&proxy, before + 1).await;
            assert_eq!(green.last_body(), body[..bytes], "{bytes} bytes");
        }
        // Known from its length, and found out on the way.
        let large = [&body[..], b"x"].concat();
        client.send("POST", "/", &[], &large).await.unwrap();
        let chunks: Vec<&[u8]> = large.chunks(10_000).collect();
        let answer = client.send_chunks("POST", "/", &chunks).await.unwrap();
        assert_eq!((answer.status, answer.body), (200, large.clone().into()));
        let answer = client.send_chunks("POST", "/", &chunks[..3]).await.unwrap();
        assert_eq!(answer.status, 200);
        let seen = after(&proxy, 5).await;
        assert_eq!(green.last_body(), body[..30_000]);
        assert_eq!(seen["drops"]["body"], 2, "{seen}");
        assert_eq!((blue.received(), green.received()), (7, 5));
    }
}

/// How long copies are waited for, in the tests of mirrors that do not answer.
const PATIENCE: Duration = Duration::from_millis(400);

/// Load with a mirror that behaves so: no request may fail or become slow.
async fn clients_notice_nothing(green: &str, what: &str) -> Value {
    let blue = Origin::start().await;
    let more = format!("mirror: {{to: green, timeout: {PATIENCE:?}, concurrency: 20}}");
    let proxy = Proxy::start(&blue_green(&blue.url(), green, &more));
    let load = Load::start(proxy.web, Protocol::Http1, 8);
    let started = Instant::now();
    eventually_async("many requests were served", || async {
        load.done() > 2_000
    })
    .await;
    let mut client = Http::connect(proxy.web).await;
    let mut times = Vec::new();
    for _ in 0..100 {
        let sent = Instant::now();
        assert_eq!(client.get("/").await.status, 200);
        times.push(sent.elapsed());
    }
    times.sort();
    let done = load.finish().await;
    println!(
        "{what}: {done} requests in {:?}, times of 100: median {:?}, longest {:?}",
        started.elapsed(),
        times[50],
        times[99]
    );
    assert!(
        times[50] < PATIENCE / 2,
        "a request waits for its copy: {times:?}"
    );
    assert_eq!(blue.received(), done + 100);
    eventually_async("no copy is under way", || async {
        proxy.service().await["backends"]["green"]["in_flight"] == 0
    })
    .await;
    assert_eq!(proxy.service().await["backends"]["green"]["begun"], 0);
    mirror(&proxy).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_notice_nothing_of_a_mirror_that_hangs() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", hanging.local_addr().unwrap());
    let accepting = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = hanging.accept().await {
            connections.spawn(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    let seen = clients_notice_nothing(&url, "hangs").await;
    accepting.abort();
    assert!(
        seen["mismatches"]["failed"].as_u64().unwrap() >= 20,
        "{seen}"
    );
    assert!(seen["drops"]["busy"].as_u64().unwrap() > 100, "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_notice_nothing_of_a_mirror_that_hangs_up() {
    let green = Origin::start().await;
    green.behave(Behaviour {
        hang_up: true,
        ..Behaviour::default()
    });
    let seen = clients_notice_nothing(&green.url(), "hangs up").await;
    assert!(
        seen["mismatches"]["failed"].as_u64().unwrap() > 100,
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_that_fails_is_never_sent_again() {
    let (blue, green, proxy) = mirrored("{to: green}").await;
    for behaviour in [
        Behaviour {
            hang_up: true,
            ..Behaviour::default()
        },
        Behaviour {
            status: 503,
            ..Behaviour::default()
        },
    ] {
        green.behave(behaviour);
        gets(&proxy, 50).await;
        let seen = after(&proxy, blue.received()).await;
        assert_eq!(green.received(), blue.received(), "{seen}");
        assert_eq!(seen["failed"], blue.received(), "{seen}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_notice_nothing_of_a_mirror_that_refuses_connections() {
    let dead = Origin::start().await;
    let url = dead.url();
    drop(dead);
    let seen = clients_notice_nothing(&url, "refuses").await;
    assert!(seen["mismatches"]["failed"].as_u64().unwrap() > 0, "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_response_of_a_mirror_is_left_after_a_bound() {
    let endless = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", endless.local_addr().unwrap());
    let written = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = written.clone();
    let accepting = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = endless.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat();
        stream.write_all(head).await.unwrap();
        while stream.write_all(&chunk).await.is_ok() {
            count.fetch_add(4096, std::sync::atomic::Ordering::SeqCst);
        }
    });
    let blue = Origin::start().await;
    let proxy = Proxy::start(&blue_green(&blue.url(), &url, "mirror: {to: green}"));
    gets(&proxy, 1).await;
    let seen = after(&proxy, 1).await;
    assert_eq!(
        seen["mismatched"], 0,
        "it is compared by its status: {seen}"
    );
    accepting.await.unwrap();
    let written = written.load(std::sync::atomic::Ordering::SeqCst);
    assert!((1 << 20..32 << 20).contains(&written), "{written} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mismatches_are_counted_by_kind() {
    let (blue, green, proxy) = mirrored("{to: green}").await;
    let mut client = Http::connect(proxy.web).await;
    for (round, (original, copy)) in [(200, 200), (200, 204), (200, 404), (200, 500), (503, 200)]
        .into_iter()
        .enumerate()
    {
        blue.answer_with(original);
        green.answer_with(copy);
        for _ in 0..=round {
            let answer = client.get("/").await;
            assert_eq!(answer.status, original, "clients get what stable said");
        }
        let copies = (0..=round as u64).map(|round| round + 1).sum();
        after(&proxy, copies).await;
    }
    let seen = mirror(&proxy).await;
    assert_eq!(
        seen["mismatches"],
        json!({"status": 2, "class": 3, "failed": 4, "repaired": 5}),
        "{seen}"
    );
    assert_eq!(
        (&seen["mismatched"], &seen["failed"]),
        (&json!(14), &json!(4))
    );
    let metrics = metrics(&proxy).await;
    for (kind, count) in [("status", 2), ("class", 3), ("failed", 4), ("repaired", 5)] {
        let line = format!(
            "switchback_mirror_mismatches_total{{service=\"shop\",backend=\"green\",version=\"2\",kind=\"{kind}\"}} {count}"
        );
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_version_gets_no_copies_from_the_moment_it_is_answered() {
    let (_blue, green, proxy) = mirrored("{to: green}").await;
    let load = Load::start(proxy.web, Protocol::Http1, 8);
    for round in 0..10 {
        let before = green.received();
        eventually_async("copies arrive", || async { green.received() > before + 20 }).await;
        let path = "/v1/services/shop/backends/green/block";
        let answer = proxy.post(path, Value::Null).await;
        assert_eq!(answer.status, 200);
        eventually_async("those that had begun have ended", || async {
            proxy.service().await["backends"]["green"]["in_flight"] == 0
        })
        .await;
        let (received, done) = (green.received(), load.done());
        eventually_async("time goes on", || async { load.done() > done + 200 }).await;
        assert_eq!(green.received(), received, "round {round}");
        let seen = mirror(&proxy).await;
        assert_eq!(seen["stopped"], "blocked", "{seen}");
        let path = "/v1/services/shop/backends/green/unblock";
        assert_eq!(proxy.post(path, Value::Null).await.status, 200);
    }
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_the_split_gives_to_stable_is_copied() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "mirror: {to: green}\npreview: {from: [127.0.0.0/8]}";
    let proxy = Proxy::blue_green(&blue, &green, more);
    let mut client = Http::connect(proxy.web).await;
    for backend in ["blue", "green"] {
        let header = [("x-switchback-backend", backend)];
        client.send("GET", "/", &header, b"").await.unwrap();
    }
    assert_eq!((blue.received(), green.received()), (1, 1), "previews");
    let answer = proxy.weights(50, 50).await;
    assert_eq!(answer["weights"]["green"], 50);
    gets(&proxy, 100).await;
    let seen = after(&proxy, blue.received() - 1).await;
    let begun = proxy.service().await["backends"]["green"]["begun"]
        .as_u64()
        .unwrap();
    assert_eq!(
        green.received(),
        1 + begun + seen["mirrored"].as_u64().unwrap()
    );
    assert_eq!(blue.received() - 1 + begun, 100);
    // Stable is no mirror of itself.
    let answer = proxy
        .post("/v1/services/shop/switch", json!({"to": "green"}))
        .await;
    assert_eq!(answer.status, 200);
    let (blue_before, green_before) = (blue.received(), green.received());
    gets(&proxy, 20).await;
    assert_eq!(blue.received(), blue_before);
    assert_eq!(green.received(), green_before + 20);
    assert_eq!(mirror(&proxy).await["stopped"], "stable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_changes_the_mirror_and_ends_it_exactly() {
    let (blue, green, proxy) = mirrored("{to: green}").await;
    gets(&proxy, 100).await;
    after(&proxy, 100).await;
    for (more, share, copies) in [
        ("mirror: {to: green, share: 0%}", json!("0%"), 100),
        ("mirror: {to: green}", json!("100%"), 150),
        ("", Value::Null, 150),
    ] {
        proxy.write_config(&blue_green(&blue.url(), &green.url(), more));
        let answer = proxy.post("/v1/reload", Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(mirror(&proxy).await["share"], share);
        gets(&proxy, 50).await;
        if !share.is_null() {
            after(&proxy, copies).await;
        }
        assert_eq!(green.received(), copies, "{more}");
    }
    assert_eq!(blue.received(), 250);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flips_stay_exact_while_requests_are_mirrored() {
    let (blue, green, dark) = (
        Origin::start().await,
        Origin::start().await,
        Origin::start().await,
    );
    let config = blue_green(&blue.url(), &green.url(), "mirror: {to: dark}").replacen(
        "      green:",
        &format!(
            "      dark: {{version: \"3\", endpoints: [\"{}\"]}}\n      green:",
            dark.url()
        ),
        1,
    );
    let config = config.replacen("green: 0}", "green: 0, dark: 0}", 1);
    let proxy = Proxy::start(&config);
    let load = Load::start(proxy.web, Protocol::Http1, 8);
    for flip in 0..40 {
        let (blue_weight, name) = if flip % 2 == 0 {
            (0, "blue")
        } else {
            (100, "green")
        };
        let weights =
            json!({"weights": {"blue": blue_weight, "green": 100 - blue_weight, "dark": 0}});
        let answer = proxy
            .api("PUT", "/v1/services/shop/weights", weights)
            .await
            .json();
        let begun = answer["begun"][name].as_u64().unwrap();
        let done = load.done();
        eventually_async("the other backend serves", || async {
            load.done() > done + 20
        })
        .await;
        eventually_async("the zeroed backend is drained", || async {
            proxy.service().await["backends"][name]["in_flight"] == 0
        })
        .await;
        let zeroed = if name == "blue" { &blue } else { &green };
        assert_eq!(zeroed.received(), begun, "flip {flip}");
    }
    load.finish().await;
    assert!(dark.received() > 0);
    assert_eq!(proxy.service().await["backends"]["dark"]["begun"], 0);
}
