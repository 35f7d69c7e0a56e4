//! Hooks that are asked before another backend becomes stable, by an operator or at the end of a rollout.

use serde_json::{Value, json};

use crate::support::{
    Load, Mood, Origin, Protocol, Proxy, Receiver, blue_green, eventually, eventually_async,
};

/// A service with these hooks, and a rollout of one short step.
async fn with_hooks(hooks: &str) -> (Proxy, Origin, Origin) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = format!(
        "health: {{path: /healthz, interval: 50ms, rise: 1}}
rollout: {{steps: [{{weight: 50%, requests: 20}}], bake: off}}
hooks: {hooks}"
    );
    let proxy = Proxy::blue_green(&blue, &green, &more);
    (proxy, blue, green)
}

fn in_background(
    proxy: &Proxy,
    path: &'static str,
    body: Value,
) -> tokio::task::JoinHandle<(u16, Value)> {
    let (admin, token) = (proxy.admin, proxy.token.clone());
    tokio::spawn(async move {
        let authorization = format!("Bearer {token}");
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        let mut client = crate::support::Http::connect(admin).await;
        let body = body.to_string();
        let answer = client.send("POST", path, &headers, body.as_bytes());
        let answer = answer.await.unwrap();
        (answer.status, answer.json())
    })
}

async fn stable(proxy: &Proxy) -> Value {
    proxy.service().await["stable"].clone()
}

async fn rollout_status(proxy: &Proxy) -> Value {
    let answer = proxy
        .api("GET", "/v1/services/shop/rollout", Value::Null)
        .await;
    answer.json()["status"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switch_waits_until_the_condition_holds_and_nothing_else_does() {
    let (stop, queue) = (Receiver::start().await, Receiver::start().await);
    queue.be(Mood::Answer(503));
    let hooks = format!(
        "\n  - {{name: stop, on: [before_switch], http: \"{}\", until: {{http: \"{}\", every: 100ms}}}}",
        stop.url(),
        queue.url()
    );
    let (proxy, _blue, _green) = with_hooks(&hooks).await;
    let path = "/v1/services/shop/switch";
    let switch = in_background(&proxy, path, json!({"to": "green", "reason": "release 2"}));
    eventually("the condition was looked at", || queue.seen().len() >= 3);
    let told = stop.seen();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].body["type"], "switchback.before_switch");
    let data = &told[0].body["data"];
    assert_eq!(data["backend"], "green");
    assert_eq!(data["stable"], "blue");
    assert_eq!(data["reason"], "release 2");
    // Other changes do not wait; a second switch is told to.
    assert_eq!(proxy.weights(90, 10).await["changed"], true);
    let answer = proxy.post(path, json!({"to": "green"})).await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.json()["code"], "before_switch_running");
    assert_eq!(stable(&proxy).await, "blue");
    assert!(!switch.is_finished());
    queue.be(Mood::Answer(200));
    let (status, answer) = switch.await.unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["before_switch"], "passed");
    assert_eq!(answer["stable"], "green");
    // Going back is a matter of no discussion.
    queue.be(Mood::Hang);
    let answer = proxy
        .post("/v1/services/shop/rollback", Value::Null)
        .await
        .json();
    assert_eq!(answer["stable"], "blue");
    assert_eq!(stop.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switch_is_refused_when_a_hook_says_no_or_its_condition_does_not_hold_in_time() {
    for (hook, said, output) in [
        (
            "run: [sh, -c, \"echo queue is full; exit 3\"]",
            "exit status: 3",
            "queue is full\n",
        ),
        (
            "until: {run: [\"false\"], every: 100ms, deadline: 300ms}",
            "did not hold within 300ms; last: exit status: 1",
            "",
        ),
        (
            "run: [sleep, \"60\"], timeout: 200ms",
            "did not end within 200ms",
            "",
        ),
    ] {
        let after = Receiver::start().await;
        let hooks = format!(
            "\n  - {{name: queue, on: [before_switch], {hook}}}\n  - {{on: [all], http: \"{}\"}}",
            after.url()
        );
        let (proxy, _blue, _green) = with_hooks(&hooks).await;
        let before = proxy.service().await["revision"].clone();
        let path = "/v1/services/shop/switch";
        let answer = proxy
            .post(path, json!({"to": "green", "force": false}))
            .await;
        assert_eq!(answer.status, 409, "{}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["code"], "before_switch_failed");
        assert_eq!(problem["hook"], "queue");
        assert_eq!(problem["output"], output);
        assert!(
            problem["detail"].as_str().unwrap().contains(said),
            "{problem}"
        );
        assert_eq!(proxy.service().await["revision"], before);
        eventually("the refusal is told", || !after.seen().is_empty());
        assert_eq!(after.types(), ["switchback.before_switch_failed"]);
        // Dry runs ask nobody; force does not either, and says so.
        let answer = proxy
            .post(&format!("{path}?dry_run=true"), json!({"to": "green"}))
            .await;
        assert_eq!(answer.json()["stable"], "green", "{}", answer.text());
        let answer = proxy
            .post(path, json!({"to": "green", "force": true}))
            .await
            .json();
        assert_eq!(answer["before_switch"], "skipped", "{answer}");
        assert_eq!(answer["stable"], "green");
        eventually("the switch is told", || after.seen().len() == 2);
        assert_eq!(after.types()[1], "switchback.switch");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_hook_that_may_be_ignored_is_noted() {
    let hooks = "[{name: queue, on: [before_switch], run: [\"false\"], on_failure: continue}]";
    let (proxy, _blue, _green) = with_hooks(hooks).await;
    let (code, out, err) = proxy.cli(&["switch", "shop", "--to", "green", "--force"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("before_switch were not asked"), "{out}");
    proxy.post("/v1/services/shop/rollback", Value::Null).await;
    proxy
        .post("/v1/services/shop/backends/green/unblock", Value::Null)
        .await;
    eventually_async("green is known to be healthy", || async {
        proxy.service().await["backends"]["green"]["health"] == "healthy"
    })
    .await;
    let (code, out, err) = proxy.cli(&["switch", "shop", "--to", "green"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("stable green"), "{out}");
    assert!(
        proxy.log().contains("before_switch_failed"),
        "{}",
        proxy.log()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_or_block_during_the_wait_ends_it_without_a_switch() {
    let queue = Receiver::start().await;
    queue.be(Mood::Hang);
    let hooks = format!(
        "[{{on: [before_switch], http: \"{}\", timeout: 1h}}]",
        queue.url()
    );
    let (proxy, _blue, _green) = with_hooks(&hooks).await;
    let switch = in_background(&proxy, "/v1/services/shop/switch", json!({"to": "green"}));
    eventually("the hook is asked", || !queue.seen().is_empty());
    let path = "/v1/services/shop/backends/green/block";
    let answer = proxy.post(path, Value::Null).await;
    assert_eq!(answer.json()["changed"], true, "{}", answer.text());
    let (status, answer) = switch.await.unwrap();
    assert_eq!(status, 409);
    assert_eq!(answer["code"], "overtaken", "{answer}");
    assert_eq!(stable(&proxy).await, "blue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switch_does_not_happen_after_its_client_has_given_up() {
    let queue = Receiver::start().await;
    queue.be(Mood::Answer(503));
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("pid");
    let script = format!("echo $$ > {}; sleep 60", pid.display());
    let hooks = format!(
        "\n  - {{on: [before_switch], run: [sh, -c, \"{script}\"], timeout: 1h}}
  - {{on: [before_switch], http: \"{}\"}}",
        queue.url()
    );
    let (proxy, _blue, _green) = with_hooks(&hooks).await;
    let path = "/v1/services/shop/switch";
    let switch = in_background(&proxy, path, json!({"to": "green"}));
    eventually("the program runs", || {
        std::fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'))
    });
    switch.abort();
    let _ = switch.await;
    let pid = std::fs::read_to_string(&pid).unwrap();
    let status = format!("/proc/{}/status", pid.trim());
    eventually("the program is gone", || {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        status.is_empty() || status.contains("State:\tZ")
    });
    // Whoever asks again is not told that somebody else is being waited for.
    eventually_async("the wait has ended", || async {
        let answer = proxy
            .post(path, json!({"to": "green", "force": true}))
            .await;
        answer.status == 200
    })
    .await;
    assert!(queue.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_becomes_stable_at_the_end_of_a_rollout_only_after_hooks_agree() {
    let queue = Receiver::start().await;
    queue.be(Mood::Answer(503));
    let hooks = format!(
        "[{{name: queue, on: [before_switch], until: {{http: \"{}\", every: 100ms, deadline: 1s}}}}]",
        queue.url()
    );
    let (proxy, _blue, _green) = with_hooks(&hooks).await;
    eventually_async("green is known to be healthy", || async {
        proxy.service().await["backends"]["green"]["health"] == "healthy"
    })
    .await;
    let path = "/v1/services/shop/rollout";
    let answer = proxy.post(path, json!({"canary": "green"})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let load = Load::start(proxy.web, Protocol::Http1, 1);
    eventually("the hook is asked", || !queue.seen().is_empty());
    // It does not hold in time: the rollout stands, and says why.
    eventually_async("the rollout is paused", || async {
        rollout_status(&proxy).await == "paused"
    })
    .await;
    let rollout = proxy.get(path).await;
    let reason = rollout["paused"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("\"queue\"") && reason.contains("503"),
        "{reason}"
    );
    assert_eq!(stable(&proxy).await, "blue");
    // Nobody gets around the hooks by promoting.
    let answer = proxy
        .post(&format!("{path}/promote"), json!({"full": true}))
        .await;
    assert_eq!(
        answer.json()["code"],
        "before_switch_failed",
        "{}",
        answer.text()
    );
    queue.be(Mood::Answer(200));
    proxy.post(&format!("{path}/resume"), Value::Null).await;
    eventually_async("the canary is stable", || async {
        rollout_status(&proxy).await == "promoted"
    })
    .await;
    load.finish().await;
    assert_eq!(stable(&proxy).await, "green");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_during_the_wait_of_a_rollout_does_not_wait() {
    let queue = Receiver::start().await;
    queue.be(Mood::Hang);
    let hooks = format!(
        "[{{on: [before_switch], http: \"{}\", timeout: 1h}}]",
        queue.url()
    );
    let (proxy, _blue, _green) = with_hooks(&hooks).await;
    eventually_async("green is known to be healthy", || async {
        proxy.service().await["backends"]["green"]["health"] == "healthy"
    })
    .await;
    let path = "/v1/services/shop/rollout";
    proxy.post(path, json!({"canary": "green"})).await;
    let load = Load::start(proxy.web, Protocol::Http1, 1);
    eventually("the hook is asked", || !queue.seen().is_empty());
    let answer = proxy.post("/v1/services/shop/rollback", Value::Null).await;
    assert_eq!(answer.json()["weights"]["green"], 0, "{}", answer.text());
    assert_eq!(rollout_status(&proxy).await, "rolled_back");
    load.finish().await;
    assert_eq!(stable(&proxy).await, "blue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_asks_the_hooks_of_every_service_it_changes_and_is_refused_as_a_whole() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let (shop, site) = (Receiver::start().await, Receiver::start().await);
    let config = blue_green(
        &blue.url(),
        &green.url(),
        &format!(
            "hooks: [{{name: shop, on: [before_switch], http: \"{}\"}}]",
            shop.url()
        ),
    );
    let site_service = format!(
        "  site:
    stable: blue
    weights: {{blue: 100, green: 0}}
    backends:
      blue: {{version: \"1\", endpoints: [\"{}\"]}}
      green: {{version: \"2\", endpoints: [\"{}\"]}}
    hooks: [{{name: site, on: [before_switch], http: \"{}\", retries: 0}}]
",
        blue.url(),
        green.url(),
        site.url()
    );
    let config = config.replace("services:\n", &format!("services:\n{site_service}"));
    let routes = "routes: [{host: site.example.com, service: site}, {service: shop}]";
    let config = config.replace("routes: [{service: shop}]", routes);
    let proxy = Proxy::start(&config);
    proxy.weights(50, 50).await;
    let path = "/v1/services/site/weights";
    let answer = proxy
        .api("PUT", path, json!({"weights": {"blue": 70, "green": 30}}))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let state = async || {
        let services = proxy.get("/v1/services").await;
        let weights = services["services"].as_array().unwrap().iter();
        let weights: Vec<Value> = weights.map(|service| service["weights"].clone()).collect();
        (services["revision"].clone(), weights)
    };
    let before = state().await;
    let path = "/v1/revisions/0/restore";
    // Dry runs ask nobody.
    let plan = proxy.post(&format!("{path}?dry_run=true"), json!({})).await;
    assert_eq!(plan.json()["changed"], true, "{}", plan.text());
    assert_eq!(shop.seen().len() + site.seen().len(), 0);

    site.be(Mood::Answer(410));
    let refused = proxy.post(path, json!({"reason": "as before"})).await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    let problem = refused.json();
    assert_eq!(
        (&problem["code"], &problem["hook"]),
        (&json!("before_switch_failed"), &json!("site"))
    );
    assert_eq!(state().await, before, "no service has changed");

    site.be(Mood::Answer(204));
    let (asked_shop, asked_site) = (shop.seen().len(), site.seen().len());
    let restored = proxy.post(path, json!({"reason": "as before"})).await;
    assert_eq!(restored.status, 200, "{}", restored.text());
    assert_eq!(restored.json()["before_switch"], "passed");
    assert_eq!(
        (shop.seen().len(), site.seen().len()),
        (asked_shop + 1, asked_site + 1),
        "each is asked once"
    );
    let told = shop.seen().pop().unwrap();
    assert_eq!(told.body["type"], "switchback.before_switch");
    let data = &told.body["data"];
    assert_eq!(
        (&data["service"], &data["reason"]),
        (&json!("shop"), &json!("as before"))
    );
    assert_eq!(
        data["message"],
        "an earlier state is about to be restored: stable blue, weights blue=100 green=0"
    );
    assert_eq!(
        state().await.1,
        [
            json!({"blue": 100, "green": 0}),
            json!({"blue": 100, "green": 0})
        ]
    );

    // Force skips them, and says so.
    site.be(Mood::Answer(410));
    proxy.weights(50, 50).await;
    let asked = shop.seen().len();
    let (code, out, err) = proxy.cli(&["restore", "0", "--force"]);
    assert!(
        code == 0 && out.contains("before_switch were not asked"),
        "{out}{err}"
    );
    assert_eq!(shop.seen().len(), asked);
}
