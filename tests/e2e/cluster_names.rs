//! Two processes with the name of one instance.

use serde_json::{Value, json};

use crate::support::etcd::{Etcd, origins, put_weights, version};
use crate::support::{Origin, Proxy, blue_green, eventually_async};

struct World {
    etcd: Etcd,
    config: String,
    _origins: (Origin, Origin),
}

impl World {
    async fn start() -> Self {
        let origins = origins().await;
        Self {
            etcd: Etcd::start(),
            config: blue_green(&origins.0.url(), &origins.1.url(), ""),
            _origins: origins,
        }
    }

    fn proxy(&self, lease: &str) -> Proxy {
        Proxy::start(&format!(
            "{}{}",
            self.config,
            self.etcd.cluster("one", lease)
        ))
    }
}

/// Waits until a change at an instance is acknowledged by it alone.
async fn is_the_one(proxy: &Proxy, green: u32) {
    eventually_async("it is the instance", || async {
        let (status, answer) = put_weights(proxy, 100 - green, green).await;
        status == 200 && answer["of"] == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_process_with_a_name_waits_until_the_first_one_is_gone() {
    let world = World::start().await;
    let mut first = world.proxy("4s");
    is_the_one(&first, 50).await;
    let second = world.proxy("4s");
    let away = second.get("/v1/cluster").await["away"].clone();
    let reason = away["reason"].as_str().unwrap();
    let wanted = format!(
        "another process is instance \"one\", with another state directory (its admin API: {})",
        first.admin
    );
    assert!(reason.contains(&wanted), "{reason}");
    assert_eq!(away["isolated"], true);
    // It is not waited for, and its clients get what is stable.
    for green in 51..60 {
        let (status, answer) = put_weights(&first, 100 - green, green).await;
        assert_eq!((status, &answer["of"]), (200, &json!(1)), "{answer}");
        assert_eq!(version(&second).await, "1");
    }
    let (status, answer) = put_weights(&second, 50, 50).await;
    assert_eq!(
        (status, &answer["code"]),
        (503, &json!("cluster_unreachable"))
    );
    let log = second.log();
    assert_eq!(
        log.matches("another process is instance").count(),
        1,
        "{log}"
    );
    assert!(!first.log().contains("another session"), "{}", first.log());

    first.signal(rustix::process::Signal::KILL);
    first.wait();
    is_the_one(&second, 100).await;
    assert_eq!(version(&second).await, "2");
    // Who comes back is second now.
    first.start_again();
    eventually_async("the first one is told so", || async {
        let away = first.get("/v1/cluster").await["away"].clone();
        let reason = away["reason"].as_str().unwrap_or_default();
        reason.contains("another process is instance")
    })
    .await;
    let (status, _) = put_weights(&second, 0, 100).await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instance_that_is_killed_has_its_name_again_at_once() {
    let world = World::start().await;
    // Nobody waits for this lease to end.
    let mut proxy = world.proxy("60s");
    is_the_one(&proxy, 50).await;
    proxy.crash_and_restart();
    is_the_one(&proxy, 100).await;
    assert_eq!(version(&proxy).await, "2");
    let ready = proxy
        .api("GET", "/readyz?verbose", Value::Null)
        .await
        .text();
    assert!(ready.contains("cluster ok: 1 instances"), "{ready}");
}
