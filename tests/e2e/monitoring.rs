//! What is shipped for monitoring, with a real Prometheus: rules and alerts keep what their unit tests say, and
//! they and the dashboard ask for nothing that a running switchback does not expose.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

#[cfg(feature = "etcd")]
use crate::support::etcd::Etcd;
use crate::support::{
    Behaviour, Http, Load, Origin, Prometheus, Protocol, Proxy, eventually_async,
};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name)
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(shipped("prometheus"))
        .output()
        .unwrap_or_else(|error| panic!("promtool: {error}; tests/run installs it"));
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(output.status.success(), "{arguments:?}: {told}");
}

#[test]
fn alerts_fire_when_they_must_and_only_then() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "tests.yml"]);
}

/// Expressions of the dashboard: of its panels, its notes and its variables.
fn dashboard() -> BTreeSet<String> {
    fn collect(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            Value::Object(members) => {
                for (key, value) in members {
                    match (key.as_str(), value) {
                        ("expr", Value::String(text)) => {
                            found.insert(text.clone());
                        }
                        _ => collect(value, found),
                    }
                }
            }
            _ => {}
        }
    }
    let text = std::fs::read_to_string(shipped("grafana/switchback.json")).unwrap();
    let mut found = BTreeSet::new();
    collect(&serde_json::from_str(&text).unwrap(), &mut found);
    let all = [
        ("$__rate_interval", "1m"),
        ("$job", ".*"),
        ("$service", ".*"),
    ];
    let filled = |text: String| {
        all.iter()
            .fold(text, |text, (name, value)| text.replace(name, value))
    };
    found.into_iter().map(filled).collect()
}

/// The metrics that a text names, those that rules record among them.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
    let words = text.split(|character| !is_part(character));
    let names = words.filter(|word| {
        let is_own = word.starts_with("switchback_") || word.starts_with("process_");
        is_own || word.contains(":switchback_")
    });
    names.map(str::to_owned).collect()
}

/// The metrics that rules, alerts and the dashboard name.
fn named_metrics() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in ["prometheus/rules.yml", "prometheus/alerts.yml"] {
        let text = std::fs::read_to_string(shipped(file)).unwrap();
        for line in text.lines() {
            let line = line.trim_start();
            let is_words = ["#", "summary:", "description:", "- name:"]
                .iter()
                .any(|start| line.starts_with(start));
            if !is_words {
                names.extend(metrics_in(line));
            }
        }
    }
    for expression in dashboard() {
        names.extend(metrics_in(&expression));
    }
    // A build without etcd is always alone.
    names.retain(|name| cfg!(feature = "etcd") || !name.starts_with("switchback_cluster_"));
    names
}

/// A process in which everything happens that has a metric, with the origins it needs.
struct World {
    proxy: Proxy,
    #[cfg(feature = "etcd")]
    _etcd: Etcd,
    _origins: [Origin; 5],
    _loads: [Load; 2],
}

impl World {
    /// The shop's canary fails and is rolled back; the cart is mirrored, drilled, has a certificate, a rule and a
    /// signal. If it can, it shares its state.
    async fn start() -> Self {
        let origins = [
            Origin::start().await,
            Origin::start().await,
            Origin::start().await,
            Origin::start().await,
            Origin::start().await,
        ];
        let [blue, green, cart, copies, check] = &origins;
        green.answer_with(500);
        copies.behave(Behaviour {
            status: 404,
            delay: Duration::from_millis(20),
            ..Behaviour::default()
        });
        let directory = tempfile::tempdir().unwrap();
        let certificate = rcgen::generate_simple_self_signed(vec!["shop.test".into()]).unwrap();
        let key = certificate.signing_key.serialize_pem();
        for (name, text) in [("shop.crt", certificate.cert.pem()), ("shop.key", key)] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let urls = [blue, green, cart, copies, check].map(Origin::url);
        let config = config(&urls);
        #[cfg(feature = "etcd")]
        let etcd = Etcd::start();
        #[cfg(feature = "etcd")]
        let config = format!("{config}{}", etcd.cluster("one", "10s"));
        std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
        let proxy = Proxy::start_in(directory);
        let loads = [
            Load::start(proxy.web, Protocol::Http1, 2),
            Load::start(proxy.listener("cart"), Protocol::Http1, 4),
        ];
        Self {
            proxy,
            #[cfg(feature = "etcd")]
            _etcd: etcd,
            _origins: origins,
            _loads: loads,
        }
    }
}

fn config([blue, green, cart, copies, check]: &[String; 5]) -> String {
    format!(
        "version: 1
workers: 2
admin: {{address: \"127.0.0.1:0\"}}
access_log: {{format: \"off\"}}
listeners:
  web: {{address: \"127.0.0.1:0\"}}
  cart: {{address: \"127.0.0.1:0\"}}
  secure: {{address: \"127.0.0.1:0\", tls: {{certificates: [{{certificate: shop.crt, key: shop.key}}]}}}}
routes: [{{listeners: [cart], service: cart}}, {{service: shop}}]
services:
  shop:
    stable: blue
    weights: {{blue: 50, green: 50}}
    backends:
      blue: {{version: \"1\", endpoints: [\"{blue}\"]}}
      green: {{version: \"2\", endpoints: [\"{green}\"]}}
    rescue: {{budget: 100%}}
    rollback: {{verify: 1s}}
  cart:
    stable: blue
    backends:
      blue: {{version: \"1\", endpoints: [\"{cart}\"]}}
      green: {{version: \"2\", endpoints: [\"{copies}\"]}}
    mirror: {{to: green, concurrency: 1}}
    drill: {{every: 30d}}
    rollback:
      rules:
        - error_rate > 20% for 1m
        - {{name: stock, http: \"{check}/ok\", for: 30s, every: 100ms}}
"
    )
}

async fn has_series(prometheus: &Prometheus, expression: &str) {
    eventually_async(&format!("{expression} yields something"), || async {
        let found = prometheus.query(expression).await;
        !found
            .unwrap_or_else(|error| panic!("{expression}: {error}"))
            .is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_and_dashboard_find_all_they_ask_for_in_a_running_switchback() {
    let world = World::start().await;
    let rules = [
        shipped("prometheus/rules.yml"),
        shipped("prometheus/alerts.yml"),
    ];
    let prometheus = Prometheus::scraping("switchback", world.proxy.admin, &rules);
    let names = named_metrics();
    assert!(names.len() > 40, "{names:?}");
    for name in &names {
        has_series(&prometheus, name).await;
    }
    // What looks for something bad may find nothing; everything else shows something.
    for expression in dashboard() {
        let filters = expression.contains(" == ") || expression.ends_with("> 0");
        match filters {
            false => has_series(&prometheus, &expression).await,
            true => {
                let found = prometheus.query(&expression).await;
                found.unwrap_or_else(|error| panic!("{expression}: {error}"));
            }
        }
    }
    let groups = prometheus.get("/api/v1/rules").await.unwrap();
    let groups = groups["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let mut seen = 0;
    for rule in rules {
        seen += 1;
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    assert!(seen > 25, "{seen}");

    // The first rollback of a service is told of, though its counter has never grown since it was there.
    let firing = "ALERTS{alertname=\"SwitchbackRolledBack\", alertstate=\"firing\"}";
    has_series(&prometheus, firing).await;
    let found = prometheus.query(firing).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let labels = &found[0]["metric"];
    assert_eq!(
        (&labels["service"], &labels["cause"], &labels["severity"]),
        (&json!("shop"), &json!("judge"), &json!("ticket"))
    );
    // Nobody is woken: clients have seen nothing of it.
    let pages = "ALERTS{severity=\"page\"}";
    assert_eq!(
        prometheus.query(pages).await.unwrap(),
        Vec::<Value>::new(),
        "an alert fires, or is about to"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_keep_to_the_format_and_the_names_of_prometheus() {
    let world = World::start().await;
    // All families are there once the canary is rolled back and its recovery checked.
    eventually_async("the recovery was checked", || async {
        let answer = Http::connect(world.proxy.admin).await.get("/metrics").await;
        answer.text().contains("switchback_recoveries_total{")
    })
    .await;
    let answer = Http::connect(world.proxy.admin).await.get("/metrics").await;
    let file = world.proxy.path().join("metrics");
    std::fs::write(&file, answer.text()).unwrap();
    let output = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(file).unwrap())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}
