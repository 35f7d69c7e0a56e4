//! Images that are brought back: the hooks that are shipped, with programs in place of kubectl and docker
//! that write down how they were called.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Http, Origin, Proxy, eventually, eventually_async};

fn shipped(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("deploy/hooks").join(name)
}

/// A program that writes down its arguments and the variables it is about, and ends as told.
fn fake(directory: &Path, name: &str, code: u8) {
    let path = directory.join(name);
    let text = format!(
        "#!/bin/sh\necho \"{name} $* GREEN_IMAGE=${{GREEN_IMAGE:-}}\" >> \"$(dirname \"$0\")/calls\"\necho \"REVISION  CHANGE-CAUSE\"\nexit {code}\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn calls(directory: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join("calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// What a hook is told of a rollback, as it is told.
fn tell(directory: &Path, weights: &Value) {
    let told = json!({"data": {"service": "shop", "weights": weights}});
    std::fs::write(directory.join("told"), told.to_string()).unwrap();
}

/// Runs a hook as switchback would, without it: exit code and what it printed.
fn run(directory: &Path, name: &str, arguments: &[&str], more: &[(&str, &str)]) -> (i32, String) {
    let path = format!("{}:/usr/bin:/bin", directory.display());
    let told = std::fs::File::open(directory.join("told"));
    let stdin = told.map_or_else(|_| Stdio::null(), Stdio::from);
    let output = Command::new(shipped(name))
        .args(arguments)
        .stdin(stdin)
        .env("PATH", path)
        .envs(more.iter().copied())
        .current_dir(directory)
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    (output.status.code().unwrap_or(-1), printed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_image_rollback_follows_the_rollback_of_the_traffic() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let tools = tempfile::tempdir().unwrap();
    fake(tools.path(), "kubectl", 0);
    let hooks = format!(
        "hooks: [{{name: undo, on: [rollback], run: [\"{}\", green, deployment/shop-green, \"3\"], env: {{PATH: \"{}:/usr/bin:/bin\", NAMESPACE: shop}}}}]\n",
        shipped("kubernetes-rollback").display(),
        tools.path().display()
    );
    let proxy = Proxy::blue_green(&blue, &green, &hooks);
    proxy.weights(50, 50).await;
    let answer = proxy
        .post("/v1/services/shop/rollback", json!({}))
        .await
        .json();
    assert_eq!(
        answer["weights"]["green"], 0,
        "the traffic does not wait for it"
    );
    eventually("the image is brought back", || {
        calls(tools.path()).len() == 3
    });
    let called: Vec<String> = calls(tools.path())
        .iter()
        .map(|call| call.split(" GREEN_IMAGE").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        called,
        [
            "kubectl --namespace=shop rollout history deployment/shop-green",
            "kubectl --namespace=shop rollout undo deployment/shop-green --to-revision=3",
            "kubectl --namespace=shop rollout status deployment/shop-green --timeout=5m",
        ]
    );
    eventually_async("it is on record", || async {
        let deliveries = proxy.get("/v1/hooks/deliveries").await.to_string();
        deliveries.contains("exit status: 0")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speed_table_shows_how_long_a_program_took_to_bring_a_backend_back() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let tools = tempfile::tempdir().unwrap();
    fake(tools.path(), "kubectl", 0);
    let hook = |name: &str, way: &str, argument: &str| {
        format!(
            "{{name: {name}, on: [rollback], run: [\"{}\", green, {argument}, \"3\"], env: {{PATH: \"{}:/usr/bin:/bin\"}}, carries_out: {{way: {way}, backend: green}}}}",
            shipped("kubernetes-rollback").display(),
            tools.path().display()
        )
    };
    // The second one fails each time.
    let hooks = format!(
        "hooks: [{}, {}]\n",
        hook("undo", "image_revert", "deployment/shop-green"),
        hook("broken", "rolling_redeploy", "shop")
    );
    let proxy = Proxy::blue_green(&blue, &green, &hooks);
    let delivered = || async {
        let deliveries = proxy.get("/v1/hooks/deliveries").await;
        deliveries["delivered"].as_array().unwrap().clone()
    };
    assert!(method(&proxy, "image_revert").await["p50_us"].is_null());
    proxy.weights(50, 50).await;
    proxy.post("/v1/services/shop/rollback", json!({})).await;
    eventually_async("the image is back, and that was measured", || async {
        method(&proxy, "image_revert").await["measured"] == 1
    })
    .await;
    let took_ms = delivered().await[0]["last"]["took_ms"].as_u64().unwrap();
    assert_eq!(
        method(&proxy, "image_revert").await["p50_us"],
        took_ms * 1_000
    );
    let (_, out, _) = proxy.cli(&["methods", "shop"]);
    let row = out.lines().find(|line| line.contains("image revert"));
    assert!(!row.unwrap().contains("not measured"), "{out}");
    // What is about blue is none of its business, and took no time worth showing.
    for words in [
        &["unblock", "shop", "green"][..],
        &["switch", "shop", "--to", "green"],
        &["switch", "shop", "--to", "blue"],
        &["rollback", "shop"],
    ] {
        let (code, out, err) = proxy.cli(words);
        assert_eq!(code, 0, "{words:?}: {out}{err}");
    }
    eventually_async("the program had nothing to do", || async {
        delivered().await.len() == 2
    })
    .await;
    let about = delivered().await[0]["event"]["data"]["backend"].clone();
    assert_eq!(about, "blue");
    assert_eq!(method(&proxy, "image_revert").await["measured"], 1);
    let failed = method(&proxy, "rolling_redeploy").await["measured"].clone();
    assert_eq!(failed, 0, "a program that fails measures nothing");
}

/// A row of the speed table.
async fn method(proxy: &Proxy, way: &str) -> Value {
    let methods = proxy.get("/v1/services/shop/methods").await["methods"].clone();
    let mut methods = methods.as_array().unwrap().iter();
    methods
        .find(|method| method["method"] == way)
        .unwrap()
        .clone()
}

#[test]
fn kubernetes_image_rollback_wants_a_revision_and_fails_if_pods_do_not_become_ready() {
    let tools = tempfile::tempdir().unwrap();
    fake(tools.path(), "kubectl", 0);
    tell(tools.path(), &json!({"blue": 100, "green": 0}));
    let attempt = |arguments: &[&str]| {
        let more = [("SWITCHBACK_BACKEND", "green")];
        run(tools.path(), "kubernetes-rollback", arguments, &more)
    };
    for (arguments, why) in [
        (&["green", "shop", "3"][..], "is no deployment"),
        (&["green", "deployment/shop", "v3"], "is no number"),
        // Without a revision, or with this one, the second time would bring the bad image back.
        (&["green", "deployment/shop", "0"], "is no number"),
        (&["green", "deployment/shop"], "usage: "),
        (&["green;", "deployment/shop", "3"], "is no name"),
    ] {
        let (code, printed) = attempt(arguments);
        assert_eq!(code, 2, "{printed}");
        assert!(printed.contains(why), "{printed}");
    }
    assert!(calls(tools.path()).is_empty());
    // Hooks are told at least once: the second time is the same revision.
    for times in 1..=2 {
        let (code, printed) = attempt(&["green", "deployment/shop", "3"]);
        assert_eq!(code, 0, "{printed}");
        let calls = calls(tools.path());
        let undone = calls
            .iter()
            .filter(|call| call.contains("undo deployment/shop --to-revision=3 "));
        assert_eq!(undone.count(), times, "{calls:?}");
    }
    fake(tools.path(), "kubectl", 1);
    let (code, _) = attempt(&["green", "deployment/shop", "3"]);
    assert_eq!(code, 1);
}

#[test]
fn image_rollback_of_a_backend_leaves_the_rollback_of_another_one_alone() {
    let tools = tempfile::tempdir().unwrap();
    fake(tools.path(), "docker", 0);
    fake(tools.path(), "kubectl", 0);
    let digest = format!("shop@sha256:{}", "0".repeat(64));
    std::fs::write(tools.path().join("previous"), digest).unwrap();
    for (hook, more) in [
        (
            "compose-rollback",
            &["shop-green", "GREEN_IMAGE", "previous"],
        ),
        (
            "kubernetes-rollback",
            &["deployment/shop-green", "3", "unused"],
        ),
    ] {
        let arguments = [&["green"][..], more].concat();
        // blue was switched to and rolled back: green serves everybody.
        tell(tools.path(), &json!({"blue": 0, "green": 100}));
        let blue = [("SWITCHBACK_BACKEND", "blue")];
        let (code, printed) = run(tools.path(), hook, &arguments, &blue);
        assert_eq!(code, 0, "{printed}");
        assert!(
            printed.contains("about backend blue, not green: nothing to do"),
            "{printed}"
        );
        // Whatever is said, it is not done to the one that serves.
        let green = [("SWITCHBACK_BACKEND", "green")];
        let (code, printed) = run(tools.path(), hook, &arguments, &green);
        assert_eq!(code, 1, "{printed}");
        assert!(
            printed.contains("green has weight 100; switch first"),
            "{printed}"
        );
        let (code, printed) = run(tools.path(), hook, &arguments, &[]);
        assert_eq!(code, 1, "{printed}");
        assert!(printed.contains("not told which"), "{printed}");
        // A dot is a dot.
        tell(tools.path(), &json!({"gxeen": 0, "g.een": 100}));
        let dotted = [&["g.een"][..], more].concat();
        let (code, printed) = run(
            tools.path(),
            hook,
            &dotted,
            &[("SWITCHBACK_BACKEND", "g.een")],
        );
        assert_eq!(code, 1, "{printed}");
        assert!(printed.contains("g.een has weight 100"), "{printed}");
        std::fs::remove_file(tools.path().join("told")).unwrap();
        let (code, printed) = run(tools.path(), hook, &arguments, &green);
        assert_eq!(code, 1, "{printed}");
        assert!(printed.contains("not told which"), "{printed}");
        assert!(calls(tools.path()).is_empty(), "nothing was done");
    }
}

#[test]
fn docker_compose_rollback_recreates_the_idle_backend_from_a_pinned_digest() {
    let tools = tempfile::tempdir().unwrap();
    fake(tools.path(), "docker", 0);
    let digest = format!("registry.example/shop@sha256:{}", "a1".repeat(32));
    std::fs::write(tools.path().join("previous"), format!("{digest}\n")).unwrap();
    tell(tools.path(), &json!({"blue": 100, "green": 0}));
    let arguments = ["green", "shop-green", "GREEN_IMAGE", "previous"];
    let more = [("SWITCHBACK_BACKEND", "green")];
    let (code, error) = run(tools.path(), "compose-rollback", &arguments, &more);
    assert_eq!(code, 0, "{error}");
    assert_eq!(
        calls(tools.path()),
        [
            format!("docker compose pull shop-green GREEN_IMAGE={digest}"),
            format!(
                "docker compose up --detach --no-deps --force-recreate --wait --wait-timeout 120 shop-green GREEN_IMAGE={digest}"
            ),
        ]
    );
    // A tag is whatever it points at now.
    for bad in ["registry.example/shop:42", "", "shop@sha256:a1"] {
        std::fs::write(tools.path().join("previous"), bad).unwrap();
        let (code, error) = run(tools.path(), "compose-rollback", &arguments, &more);
        assert_eq!(code, 2, "{bad}");
        assert!(error.contains("not pinned by digest"), "{error}");
    }
    assert_eq!(calls(tools.path()).len(), 2, "nothing was done");
}

#[test]
fn docker_compose_rollback_never_recreates_the_backend_that_serves() {
    let tools = tempfile::tempdir().unwrap();
    fake(tools.path(), "docker", 0);
    let digest = format!("shop@sha256:{}", "0".repeat(64));
    std::fs::write(tools.path().join("previous"), digest).unwrap();
    tell(tools.path(), &json!({"blue": 100, "green": 0}));
    let attempt = |backend: &str| {
        let more = [("SWITCHBACK_BACKEND", backend)];
        run(
            tools.path(),
            "compose-rollback",
            &[backend, "x", "GREEN_IMAGE", "previous"],
            &more,
        )
    };
    let (code, error) = attempt("blue");
    assert_eq!(code, 1);
    assert!(
        error.contains("backend blue has weight 100; switch first"),
        "{error}"
    );
    let (code, error) = attempt("red");
    assert_eq!(code, 1);
    assert!(error.contains("has weight unknown"), "{error}");
    assert!(calls(tools.path()).is_empty());
    let (code, error) = attempt("green");
    assert_eq!((code, calls(tools.path()).len()), (0, 2), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backend_that_was_recreated_gets_nothing_before_it_is_healthy() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let health = "health: {path: /healthz, interval: 50ms, timeout: 40ms, rise: 1, fall: 1}";
    let proxy = Proxy::blue_green(&blue, &green, health);
    green.answer_with(503);
    let body = json!({"version": "3", "endpoints": [green.url()]});
    proxy.put("/v1/services/shop/backends/green", body).await;
    assert_eq!(
        proxy
            .refused("/v1/services/shop/switch", json!({"to": "green"}))
            .await,
        (409, "target_unhealthy".into())
    );
    assert_eq!(proxy.service().await["stable"], "blue");
    green.answer_with(200);
    eventually_async("it is healthy, and may be switched to", || async {
        proxy
            .post("/v1/services/shop/switch", json!({"to": "green"}))
            .await
            .status
            == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_redeploy_mixed_versions_are_reported_by_their_share_of_responses() {
    let pods = [Origin::start().await, Origin::start().await];
    for (pod, version) in pods.iter().zip(["41", "42"]) {
        pod.name_version(version);
    }
    let config = format!(
        "{}services:\n  shop:\n    balance: round_robin\n    version_header: X-App-Version\n    backends:\n      only: {{version: \"42\", endpoints: [\"{}\", \"{}\"]}}\n",
        crate::support::HEAD,
        pods[0].url(),
        pods[1].url()
    );
    let proxy = Proxy::start(&config);
    let mut client = Http::connect(proxy.web).await;
    for _ in 0..40 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let seen = proxy.service().await["backends"]["only"]["versions_seen"].clone();
    assert_eq!(
        (&seen["mixed"], &seen["unmarked"]),
        (&json!(true), &json!(0)),
        "{seen}"
    );
    let versions = seen["versions"].as_array().unwrap();
    let mut shares: Vec<(&str, f64)> = versions
        .iter()
        .map(|one| {
            (
                one["version"].as_str().unwrap(),
                one["share"].as_f64().unwrap(),
            )
        })
        .collect();
    shares.sort_by(|one, other| one.0.cmp(other.0));
    assert_eq!(shares, [("41", 0.5), ("42", 0.5)]);
    let (_, out, _) = proxy.cli(&["status", "shop"]);
    assert!(
        out.contains("shop only: answers as several versions: "),
        "{out}"
    );
    let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
    let line = "switchback_version_share{service=\"shop\",backend=\"only\",seen=\"41\"} 0.5\n";
    assert!(metrics.contains(line), "{metrics}");
    // Whatever a backend sends, the number of values is bounded.
    for number in 0..40 {
        pods[0].name_version(&format!("v{number}"));
        pods[1].name_version(&format!("v{number}"));
        client.get("/").await;
    }
    let seen = proxy.service().await["backends"]["only"]["versions_seen"].clone();
    assert!(
        seen["versions"].as_array().unwrap().len() <= 32,
        "16 a worker: {seen}"
    );
    assert!(seen["other"].as_u64().unwrap() > 0, "{seen}");
}
