//! Clients do not see a canary fail where asking again does no harm.

use serde_json::json;

use crate::support::{Behaviour, Http, Origin, Proxy};

/// A canary at half of the traffic that behaves so, and a judge that only watches.
async fn failing_canary(behaviour: Behaviour) -> (Origin, Origin, Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    green.behave(behaviour);
    let more = "rollback: {on_failure: notify}\nrescue: {budget: 100%}\nexpose: true";
    let proxy = Proxy::blue_green(&blue, &green, more);
    proxy.weights(50, 50).await;
    (blue, green, proxy)
}

async fn gets_see_no_error(behaviour: Behaviour) {
    let (blue, green, proxy) = failing_canary(behaviour).await;
    let mut client = Http::connect(proxy.web).await;
    let mut rescued = 0;
    for number in 0..200 {
        let id = format!("get-{number}");
        let answer = client
            .send("GET", "/", &[("x-test-id", &id)], b"")
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "request {number}");
        rescued += u64::from(answer.header("x-switchback-rescued") == "1");
    }
    assert!((95..=105).contains(&rescued), "{rescued} rescued");
    assert_eq!(
        green.received(),
        rescued,
        "every canary attempt failed and was rescued"
    );
    assert_eq!(blue.received(), 200);
    let metrics = proxy.api("GET", "/metrics", json!(null)).await.text();
    let line = format!("switchback_rescued_total{{service=\"shop\",backend=\"green\"}} {rescued}");
    assert!(metrics.contains(&line), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gets_see_no_error_while_the_canary_answers_500() {
    gets_see_no_error(Behaviour {
        status: 500,
        ..Behaviour::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gets_see_no_error_while_the_canary_hangs_up() {
    let (blue, green, proxy) = failing_canary(Behaviour {
        hang_up: true,
        ..Behaviour::default()
    })
    .await;
    let mut client = Http::connect(proxy.web).await;
    for number in 0..100 {
        let answer = client.send("GET", "/", &[], b"").await.unwrap();
        assert_eq!(answer.status, 200, "request {number}");
    }
    assert!(green.received() > 0);
    assert!(blue.received() >= 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_are_never_sent_twice() {
    for behaviour in [
        Behaviour {
            status: 500,
            ..Behaviour::default()
        },
        Behaviour {
            hang_up: true,
            ..Behaviour::default()
        },
    ] {
        let (blue, green, proxy) = failing_canary(behaviour).await;
        let mut failed = 0;
        for number in 0..100 {
            // A connection each, since a broken exchange may close it.
            let mut client = Http::connect(proxy.web).await;
            let id = format!("post-{number}");
            let answer = client
                .send("POST", "/", &[("x-test-id", &id)], b"pay 5")
                .await
                .unwrap();
            failed += u32::from(answer.status >= 500);
        }
        assert!((45..=55).contains(&failed), "{failed} failed");
        let mut deliveries = blue.deliveries();
        for (id, count) in green.deliveries() {
            *deliveries.entry(id).or_default() += count;
        }
        assert_eq!(deliveries.len(), 100);
        assert!(
            deliveries.values().all(|count| *count == 1),
            "{deliveries:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_never_left_is_sent_to_another_endpoint_whatever_its_method() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let dead = Origin::start().await;
    let (dead_url, config) = (
        dead.url(),
        crate::support::blue_green(&blue.url(), &green.url(), ""),
    );
    drop(dead);
    let two = format!("\"{dead_url}\", \"{}\"", blue.url());
    let proxy = Proxy::start(&config.replacen(&format!("\"{}\"", blue.url()), &two, 1));
    let mut client = Http::connect(proxy.web).await;
    for number in 0..50 {
        let answer = client.send("POST", "/", &[], b"x").await.unwrap();
        assert_eq!(answer.status, 200, "request {number}");
    }
    assert_eq!(blue.received(), 50);
}
