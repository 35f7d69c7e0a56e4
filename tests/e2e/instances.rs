//! What people see of instances that share one state: answers of writes, the API, verbs, `/readyz` and metrics, with a
//! real etcd. That they do share it is shown elsewhere.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::etcd::Etcd;
use crate::support::{Http, Origin, Proxy, blue_green, eventually_async};

struct World {
    etcd: Etcd,
    config: String,
    lease: &'static str,
    _origins: [Origin; 2],
}

impl World {
    async fn start(lease: &'static str) -> Self {
        let origins = [Origin::start().await, Origin::start().await];
        Self {
            etcd: Etcd::start(),
            config: blue_green(&origins[0].url(), &origins[1].url(), ""),
            lease,
            _origins: origins,
        }
    }

    fn file(&self, name: &str) -> String {
        format!("{}{}", self.config, self.etcd.cluster(name, self.lease))
    }

    fn proxy(&self, name: &str) -> Proxy {
        Proxy::start(&self.file(name))
    }

    /// Some, who have heard of each other.
    async fn proxies<const COUNT: usize>(&self, names: [&str; COUNT]) -> [Proxy; COUNT] {
        let proxies = names.map(|name| self.proxy(name));
        for proxy in &proxies {
            sees(proxy, "all are alive, and somebody leads", |cluster| {
                alive(cluster).len() == COUNT && cluster["leader"].is_string()
            })
            .await;
        }
        proxies
    }
}

fn alive(cluster: &Value) -> Vec<&str> {
    let instances = cluster["instances"].as_array().unwrap().iter();
    let alive = instances.filter(|instance| instance["alive"] == true);
    alive.map(|one| one["name"].as_str().unwrap()).collect()
}

/// Waits until an instance says so of the cluster.
async fn sees(proxy: &Proxy, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually_async(what, || async { holds(&proxy.get("/v1/cluster").await) }).await;
    proxy.get("/v1/cluster").await
}

async fn open(proxy: &Proxy, path: &str) -> (u16, String) {
    let answer = Http::connect(proxy.admin).await.get(path).await;
    (answer.status, answer.text())
}

/// The value of a metric.
async fn metric(proxy: &Proxy, name: &str) -> Option<String> {
    let (_, text) = open(proxy, "/metrics").await;
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.map(str::to_owned)
}

/// The last entries of the audit: action, instance, result, reason.
async fn audited(proxy: &Proxy, count: usize) -> Vec<Value> {
    let page = proxy.get(&format!("/v1/audit?limit={count}")).await;
    let entries = page["entries"].as_array().unwrap().iter();
    let told = |entry: &Value| {
        json!([
            entry["action"],
            entry["instance"],
            entry["result"],
            entry["reason"]
        ])
    };
    entries.map(told).collect()
}

const FLAG: &str = "flags:\n  promo: {}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_says_on_how_many_instances_it_is_in_force() {
    let mut world = World::start("10s").await;
    world.config.push_str(FLAG);
    let [one, two] = world.proxies(["one", "two"]).await;
    let told = |answer: &Value| {
        assert_eq!(
            (&answer["applied"], &answer["of"]),
            (&json!(2), &json!(2)),
            "{answer}"
        );
        assert!(answer["slowest_ms"].is_u64(), "{answer}");
    };
    let first = one.weights(95, 5).await;
    told(&first);
    let restore = format!("/v1/revisions/{}/restore", first["revision"]);
    let body = json!({"weights": {"blue": 90, "green": 10}});
    told(
        &two.put("/v1/services/shop/weights?wait=applied", body)
            .await,
    );
    for (path, body) in [
        ("/v1/services/shop/rollback?wait=applied", Value::Null),
        ("/v1/services/shop/backends/green/unblock", Value::Null),
        ("/v1/flags/promo/off?wait=applied", Value::Null),
        ("/v1/flags/promo/on", Value::Null),
        (restore.as_str(), json!({"force": true})),
    ] {
        let answer = one.post(path, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.json()["changed"], true, "{path}: {}", answer.text());
        told(&answer.json());
    }
    // Nothing has changed, and others may still have had to follow.
    let again = one.weights(95, 5).await;
    assert_eq!(
        (&again["changed"], &again["of"]),
        (&json!(false), &json!(2))
    );
    let (code, said, _) = two.cli(&["weights", "shop", "blue=80", "green=20"]);
    assert_eq!(code, 0);
    assert!(said.contains(", on all 2 instances after "), "{said}");
    let (code, said, _) = two.cli(&["rollback", "--all"]);
    assert_eq!(code, 0);
    assert!(said.contains(", on all 2 instances after "), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switchback_that_is_alone_says_nothing_of_instances() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let answer = proxy.weights(95, 5).await;
    for key in ["applied", "of", "slowest_ms"] {
        assert!(answer.get(key).is_none(), "{answer}");
    }
    for (method, path, body) in [
        ("GET", "/v1/cluster", Value::Null),
        (
            "PUT",
            "/v1/cluster/instances/one/drain",
            json!({"draining": true}),
        ),
        ("DELETE", "/v1/cluster/instances/one", Value::Null),
    ] {
        let answer = proxy.api(method, path, body).await;
        assert_eq!(answer.status, 404, "{method} {path}");
        assert_eq!(answer.json()["code"], "no_cluster", "{method} {path}");
    }
    let (code, _, error) = proxy.cli(&["cluster", "list"]);
    assert_eq!(code, 1);
    assert!(error.contains("no_cluster"), "{error}");
    let (_, status, _) = proxy.cli(&["status"]);
    assert!(!status.contains("cluster"), "{status}");
    let (_, metrics) = open(&proxy, "/metrics").await;
    assert!(!metrics.contains("switchback_cluster"), "{metrics}");
    let (_, ready) = open(&proxy, "/readyz?verbose").await;
    assert_eq!(ready, "ok\nconfig ok\nstate ok\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_instance_is_not_ready_until_it_is_used_again() {
    let world = World::start("10s").await;
    let [one, two] = world.proxies(["one", "two"]).await;
    assert_eq!(open(&two, "/readyz").await, (200, "ok\n".into()));
    let (code, said, _) = one.cli(&["cluster", "drain", "two", "--reason", "new kernel"]);
    assert_eq!(
        (code, said.as_str()),
        (0, "two is drained: its /readyz says 503\n")
    );
    let drained = (503, "not ready: this instance is drained\n".to_owned());
    eventually_async("two is not ready", || async {
        open(&two, "/readyz").await == drained
    })
    .await;
    assert_eq!(open(&one, "/readyz").await.0, 200);
    assert_eq!(two.cli(&["healthcheck"]).0, 1);
    assert_eq!(
        metric(&two, "switchback_cluster_draining").await.as_deref(),
        Some("1")
    );
    // It goes on serving, and follows.
    assert_eq!(Http::connect(two.web).await.get("/").await.status, 200);
    assert_eq!(one.weights(90, 10).await["of"], 2);
    assert_eq!(two.service().await["weights"]["green"], 10);
    let (_, status, _) = two.cli(&["status"]);
    assert!(status.contains("; drained: two"), "{status}");

    // Once more changes nothing.
    let path = "/v1/cluster/instances/two/drain";
    let again = one.put(path, json!({"draining": true})).await;
    assert_eq!(again["changed"], false, "{again}");
    assert_eq!(two.cli(&["cluster", "drain", "two", "--undo"]).0, 0);
    eventually_async("two is ready", || async {
        open(&two, "/readyz").await.0 == 200
    })
    .await;
    let expected = [
        json!(["cluster_drain", "two", "unchanged", null]),
        json!(["weights", null, "done", null]),
        json!(["cluster_drain", "two", "done", "new kernel"]),
    ];
    assert_eq!(audited(&one, 3).await, expected);
    let expected = json!(["cluster_undrain", "two", "done", null]);
    assert_eq!(audited(&two, 1).await, [expected]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instance_is_removed_only_when_it_is_gone() {
    let world = World::start("2s").await;
    let [one, mut two] = world.proxies(["one", "two"]).await;
    let (code, _, error) = one.cli(&["cluster", "remove", "two"]);
    assert_eq!(code, 75, "{error}");
    assert!(error.contains("instance_alive"), "{error}");
    let (code, _, error) = one.cli(&["cluster", "remove", "three"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("there are one, two (unknown_instance)"),
        "{error}"
    );
    two.signal(rustix::process::Signal::KILL);
    two.wait();
    let cluster = sees(&one, "two is gone", |cluster| alive(cluster) == ["one"]).await;
    let gone = &cluster["instances"][1];
    assert_eq!((&gone["name"], &gone["lag"]), (&json!("two"), &Value::Null));
    let (_, listed, _) = one.cli(&["cluster", "list"]);
    assert!(listed.contains("1 of 2 instances alive"), "{listed}");
    assert!(listed.contains("gone: two"), "{listed}");
    let (_, listed, _) = one.cli(&["cluster", "list", "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(alive(&listed), ["one"]);
    let (code, said, error) = one.cli(&["cluster", "remove", "two", "--reason", "sold"]);
    assert_eq!((code, said.as_str()), (0, "two is forgotten\n"), "{error}");
    let cluster = one.get("/v1/cluster").await;
    assert_eq!(
        cluster["instances"].as_array().unwrap().len(),
        1,
        "{cluster}"
    );
    let expected = [
        json!(["cluster_remove", "two", "done", "sold"]),
        json!(["cluster_remove", "three", "unknown_instance", null]),
        json!(["cluster_remove", "two", "instance_alive", null]),
    ];
    assert_eq!(audited(&one, 3).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_look_and_operators_drain() {
    let world = World::start("10s").await;
    let directory = tempfile::tempdir().unwrap();
    let mut entries = String::new();
    let mut tokens = Vec::new();
    for role in ["viewer", "rollback", "operator"] {
        let output = Command::new(env!("CARGO_BIN_EXE_switchback"))
            .args(["token", "new", "--name", role, "--role", role, "-o", "json"])
            .output()
            .unwrap();
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        let sha256 = &made["sha256"];
        entries.push_str(&format!(
            "- {{name: {role}, role: {role}, sha256: {sha256}}}\n"
        ));
        tokens.push((role, made["token"].as_str().unwrap().to_owned()));
    }
    std::fs::write(directory.path().join("tokens.yaml"), entries).unwrap();
    let file = world.file("one").replace(
        "admin: {address: \"127.0.0.1:0\"}",
        "admin: {address: \"127.0.0.1:0\", tokens_file: tokens.yaml}",
    );
    std::fs::write(directory.path().join("switchback.yaml"), file).unwrap();
    let mut proxy = Proxy::start_in(directory);
    let mut answers = Vec::new();
    for (role, token) in tokens {
        proxy.token = token;
        let seen = proxy.api("GET", "/v1/cluster", Value::Null).await.status;
        let path = "/v1/cluster/instances/one/drain";
        let drained = proxy.api("PUT", path, json!({"draining": true})).await;
        let path = "/v1/cluster/instances/one";
        let removed = proxy.api("DELETE", path, Value::Null).await.status;
        answers.push((role, seen, drained.status, removed));
    }
    let expected = [
        ("viewer", 200, 403, 403),
        ("rollback", 200, 403, 403),
        ("operator", 200, 200, 409),
    ];
    assert_eq!(answers, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_config_file_is_told_of_everywhere() {
    let world = World::start("10s").await;
    let [one] = world.proxies(["one"]).await;
    // Limits are each instance's own.
    let two = Proxy::start(&format!(
        "{}limits: {{header_read_timeout: 7s}}\n",
        world.file("two")
    ));
    sees(&one, "two is there", |cluster| alive(cluster).len() == 2).await;
    assert_eq!(
        metric(&one, "switchback_cluster_baseline_differs")
            .await
            .as_deref(),
        Some("0")
    );
    let three = Proxy::start(&format!("{}{FLAG}", world.file("three")));
    for proxy in [&one, &two] {
        let cluster = sees(proxy, "three is there", |cluster| alive(cluster).len() == 3).await;
        let differs = |name: &str| {
            let mut instances = cluster["instances"].as_array().unwrap().iter();
            let found = instances.find(|instance| instance["name"] == name);
            found.unwrap()["baseline_differs"].clone()
        };
        assert_eq!(["one", "two", "three"].map(differs), [false, false, true]);
        assert_eq!(
            metric(proxy, "switchback_cluster_baseline_differs")
                .await
                .as_deref(),
            Some("1")
        );
    }
    let (_, status, _) = one.cli(&["status"]);
    assert!(
        status.contains("another config file than here: three"),
        "{status}"
    );
    let (_, status, _) = three.cli(&["status"]);
    assert!(
        status.contains("another config file than here: one, two"),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_readyz_tell_how_the_instance_stands() {
    let mut world = World::start("4s").await;
    let [one, two] = world.proxies(["one", "two"]).await;
    assert_eq!(one.weights(50, 50).await["of"], 2);
    for (name, value) in [
        ("switchback_cluster_joined", "1"),
        ("switchback_cluster_isolated", "0"),
        ("switchback_cluster_has_leader", "1"),
        ("switchback_cluster_instances", "2"),
        ("switchback_cluster_members", "2"),
        ("switchback_cluster_revision_lag{instance=\"one\"}", "0"),
        ("switchback_cluster_revision_lag{instance=\"two\"}", "0"),
    ] {
        assert_eq!(metric(&two, name).await.as_deref(), Some(value), "{name}");
    }
    let leads = "switchback_cluster_leader";
    let mut leaders = [metric(&one, leads).await, metric(&two, leads).await];
    leaders.sort();
    assert_eq!(leaders, [Some("0".into()), Some("1".into())]);
    let leader = one.get("/v1/cluster").await["leader"].clone();
    let (_, text) = open(&two, "/readyz?verbose").await;
    let leader = leader.as_str().unwrap();
    let line = format!("cluster ok: 2 instances, leader {leader}, 0 changes behind\n");
    assert!(text.ends_with(&line), "{text}");
    let entries = audited(&two, 50).await.len();

    world.etcd.kill();
    let isolated = "isolated: canaries have weight 0 here";
    eventually_async("two is isolated, and ready all the same", || async {
        let (status, text) = open(&two, "/readyz?verbose").await;
        status == 200 && text.contains(isolated)
    })
    .await;
    assert_eq!(
        metric(&two, "switchback_cluster_joined").await.as_deref(),
        Some("0")
    );
    assert_eq!(
        metric(&two, "switchback_cluster_isolated").await.as_deref(),
        Some("1")
    );
    assert_eq!(metric(&two, leads).await.as_deref(), Some("0"));
    let (_, status, _) = two.cli(&["status"]);
    assert!(status.contains("two has lost etcd at "), "{status}");
    assert!(status.contains("canaries have weight 0 here"), "{status}");
    // A person is told what is in force where.
    let (code, _, error) = two.cli(&["rollback", "shop"]);
    assert_eq!(code, 75, "{error}");
    assert!(
        error.contains(
            "the change is in force on this instance, but the other instances do not know of it"
        ),
        "{error}"
    );
    let answer = two
        .post("/v1/services/shop/backends/green/block", json!({}))
        .await;
    assert_eq!(
        answer.status,
        504,
        "it is blocked already, and the other one does not know: {}",
        answer.text()
    );
    let (code, _, error) = two.cli(&["cluster", "drain", "one"]);
    assert_eq!(code, 75, "{error}");
    assert!(error.contains("cluster_unreachable"), "{error}");
    // Nobody has asked for anything else, and no task keeps asking.
    assert_eq!(audited(&two, 50).await.len(), entries + 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_names_the_instances_that_do_not_follow() {
    let world = World::start("10s").await;
    let [one, two] = world.proxies(["one", "two"]).await;
    // Its lease lives on for a while.
    two.signal(rustix::process::Signal::STOP);
    let body = json!({"weights": {"blue": 90, "green": 10}});
    let answer = one.api("PUT", "/v1/services/shop/weights", body).await;
    two.signal(rustix::process::Signal::CONT);
    assert_eq!(answer.status, 504, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["code"], "apply_unconfirmed");
    assert_eq!(
        (&answer["behind"], &answer["of"]),
        (&json!(["two"]), &json!(2))
    );
    // In force all the same, and there too before long.
    assert_eq!(one.service().await["weights"]["green"], 10);
    eventually_async("two follows", || async {
        two.service().await["weights"]["green"] == 10
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_that_is_due_waits_for_etcd_and_leaves_no_trace_meanwhile() {
    let mut world = World::start("4s").await;
    let rollout =
        "    rollout: {steps: [{weight: 10%, for: 1s}, {weight: 50%, for: 1h}], bake: off}\n";
    world.config.push_str(rollout);
    let [one, two] = world.proxies(["one", "two"]).await;
    let body = json!({"canary": "green", "force": true});
    let answer = one.post("/v1/services/shop/rollout", body).await;
    assert!(answer.status < 300, "{}", answer.text());
    // By the time that etcd is missed, the next step is due.
    world.etcd.kill();
    for proxy in [&one, &two] {
        sees(proxy, "it is isolated", |cluster| {
            cluster["away"]["isolated"] == true
        })
        .await;
        let rollout = proxy.get("/v1/services/shop/rollout").await;
        assert_eq!(rollout["status"], "running", "{rollout}");
        let page = proxy.get("/v1/audit?limit=50").await;
        let mut entries = page["entries"].as_array().unwrap().iter();
        let asked = entries.find(|entry| {
            let refused = entry["result"].as_str().unwrap().starts_with("cluster_");
            entry["via"] == "rollout" && refused
        });
        assert_eq!(asked, None);
    }
}
