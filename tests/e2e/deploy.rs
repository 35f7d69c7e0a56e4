//! What a deploy job types, and the exit codes it gets.

use serde_json::json;

use crate::support::{Load, Origin, Protocol, Proxy, eventually_async};

/// A service whose rollouts take no time.
const QUICK: &str = "rollout:
  steps: [{weight: 10%, for: 100ms}, {weight: 50%, for: 100ms}]
  bake: {holdback: 2%, for: 100ms}";

fn deploy(proxy: &Proxy, version: &str, origin: &Origin) -> (i32, String, String) {
    let url = origin.url();
    proxy.cli(&[
        "deploy",
        "shop",
        "--version",
        version,
        "--endpoint",
        &url,
        "--timeout",
        "20s",
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_version_is_stable_when_the_job_ends_and_a_bad_one_is_not() {
    let (one, two, three) = (
        Origin::start().await,
        Origin::start().await,
        Origin::start().await,
    );
    let proxy = Proxy::blue_green(&one, &one, QUICK);
    let load = Load::start(proxy.web, Protocol::Http1, 4);
    let (code, out, err) = deploy(&proxy, "v2", &two);
    assert_eq!(code, 0, "{out}{err}");
    for line in ["green is version v2 now", "step 1 of 2", "promoted"] {
        assert!(out.contains(line), "{line}: {out}");
    }
    let service = proxy.service().await;
    assert_eq!(
        (&service["stable"], &service["previous"]),
        (&json!("green"), &json!("blue"))
    );
    // The job runs again.
    let (code, out, _) = deploy(&proxy, "v2", &two);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("stable already"), "{out}");
    // The only idle backend is the rollback target, so it is used.
    three.answer_with(500);
    let (code, out, err) = deploy(&proxy, "v3", &three);
    assert_eq!(code, 10, "{out}{err}");
    assert!(out.contains("canary failed"), "{out}");
    load.finish().await;
    let service = proxy.service().await;
    assert_eq!(service["stable"], "green");
    assert_eq!(service["weights"]["blue"], 0);
    let before = three.received();
    let (code, out, _) = deploy(&proxy, "v3", &three);
    assert_eq!(code, 10, "blocked: it is not even tried");
    assert!(out.contains("blocked"), "{out}");
    assert_eq!(three.received(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_that_does_not_come_up_gets_no_traffic() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&one, &one, QUICK);
    let dead = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", socket.local_addr().unwrap())
    };
    let (code, _, err) = proxy.cli(&[
        "deploy",
        "shop",
        "--version",
        "v2",
        "--endpoint",
        &dead,
        "--health-timeout",
        "300ms",
    ]);
    assert_eq!(code, 75, "{err}");
    assert!(err.contains("did not become healthy"), "{err}");
    assert_eq!(proxy.service().await["weights"]["green"], 0);
    // The job is mended and runs again, onto the same backend.
    let load = Load::start(proxy.web, Protocol::Http1, 2);
    let (code, out, err) = deploy(&proxy, "v2", &two);
    assert_eq!(code, 0, "{out}{err}");
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_that_was_cut_off_finds_its_rollout_again() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&one, &one, QUICK);
    let url = two.url();
    let cut_off = proxy.cli(&[
        "deploy",
        "shop",
        "--version",
        "v2",
        "--endpoint",
        &url,
        "--step",
        "10% until approved",
        "--no-bake",
        "--timeout",
        "1s",
    ]);
    assert_eq!(cut_off.0, 75, "{}", cut_off.1);
    // Another version has to wait.
    let (code, _, err) = deploy(&proxy, "v9", &two);
    assert_eq!(code, 75);
    assert!(err.contains("under way"), "{err}");
    let load = Load::start(proxy.web, Protocol::Http1, 2);
    eventually_async("it waits for approval", || async {
        let view = proxy.get("/v1/services/shop/rollout").await;
        view["waits_for"]["for"] == "approval"
    })
    .await;
    let promoted = proxy.cli(&["rollout", "promote", "shop"]);
    assert_eq!(promoted.0, 0, "{}", promoted.2);
    let (code, out, err) = deploy(&proxy, "v2", &two);
    assert_eq!(code, 0, "{out}{err}");
    load.finish().await;
}
