//! Traces over OTLP, as a collector reads them.

use std::collections::HashMap;
use std::process::Command;

use serde_json::Value;

use crate::support::{Http, Origin, Process, Proxy, blue_green, client, eventually, run};

/// A collector, and a switchback that exports to it.
struct Traced {
    collector: Process,
    proxy: Proxy,
    blue: Origin,
    green: Origin,
}

impl Traced {
    async fn start(more: &str, environment: &[(&str, &str)]) -> Self {
        let (blue, green) = (Origin::start().await, Origin::start().await);
        let collector = Process::start(&mut client("otlp_receiver.py"), false);
        let endpoint = format!("http://127.0.0.1:{}", collector.line());
        let directory = tempfile::tempdir().unwrap();
        let config = blue_green(&blue.url(), &green.url(), more);
        std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
        let mut command = run(directory.path());
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        command.envs(environment.iter().copied());
        Self {
            collector,
            proxy: Proxy::start_by(directory, command),
            blue,
            green,
        }
    }

    /// The next span that is wanted.
    fn span(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let span: Value = serde_json::from_str(&self.collector.line()).expect("a span");
            if wanted(&span) {
                return span;
            }
        }
    }

    fn request(&self) -> Value {
        self.span(|span| span["kind"] == "SPAN_KIND_SERVER")
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

/// What the origin was told last.
fn told(origin: &Origin) -> String {
    let last = origin.last();
    last.headers["traceparent"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sampled_request_is_a_span_between_its_caller_and_the_backend() {
    let traced = Traced::start("", &[("OTEL_RESOURCE_ATTRIBUTES", "zone=a")]).await;
    let mut http = Http::connect(traced.proxy.web).await;
    let headers = [
        ("traceparent", traceparent("01")),
        ("tracestate", "v=1".into()),
    ];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let answer = http
        .send("GET", "/cart?item=7", &headers, b"")
        .await
        .unwrap();
    assert_eq!(answer.status, 200);

    let span = traced.request();
    assert_eq!(
        (&span["trace"], &span["parent"]),
        (&TRACE.into(), &CALLER.into())
    );
    assert_eq!(
        told(&traced.blue),
        format!("00-{TRACE}-{}-01", span["span"].as_str().unwrap())
    );
    assert_eq!(traced.blue.last().headers["tracestate"], "v=1");
    assert_eq!(span["name"], "GET shop");
    assert_eq!(span["status"], "STATUS_CODE_UNSET");
    assert!(span["ms"].as_f64().unwrap() > 0.0, "{span}");
    let attributes = &span["attributes"];
    for (name, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/cart"),
        ("url.query", "item=7"),
        ("url.scheme", "http"),
        ("server.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("switchback.service", "shop"),
        ("switchback.backend", "blue"),
        ("switchback.version", "1"),
    ] {
        assert_eq!(attributes[name], value, "{name}");
    }
    assert_eq!(attributes["http.response.status_code"], 200);
    assert_eq!(attributes["server.port"], traced.proxy.web.port());
    let resource = &span["resource"];
    assert_eq!(
        (&resource["service.name"], &resource["zone"]),
        (&"switchback".into(), &"a".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_choose_neither_names_nor_sizes_of_spans() {
    let traced = Traced::start("", &[]).await;
    let mut http = Http::connect(traced.proxy.web).await;
    let path = format!("/{}", "x".repeat(4_000));
    http.send("BREW", &path, &[], b"").await.unwrap();
    let span = traced.request();
    assert_eq!(span["name"], "HTTP shop");
    let attributes = &span["attributes"];
    assert_eq!(attributes["http.request.method"], "_OTHER");
    assert_eq!(attributes["http.request.method_original"], "BREW");
    assert_eq!(attributes["url.path"].as_str().unwrap().len(), 1024);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsampled_trace_travels_on_and_is_not_exported() {
    let traced = Traced::start("", &[]).await;
    let mut http = Http::connect(traced.proxy.web).await;
    let unsampled = traceparent("00");
    http.send("GET", "/quiet", &[("traceparent", &unsampled)], b"")
        .await
        .unwrap();
    assert_eq!(told(&traced.blue), unsampled);
    // Whoever names no trace begins one, which is sampled.
    http.get("/loud").await;
    let span = traced.request();
    assert_eq!(span["attributes"]["url.path"], "/loud");
    assert_eq!(span["parent"], "");
    let expected = [
        span["trace"].as_str().unwrap(),
        span["span"].as_str().unwrap(),
    ]
    .join("-");
    assert_eq!(told(&traced.blue), format!("00-{expected}-01"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rescue_and_the_rollback_that_follows_are_told() {
    let traced = Traced::start("rescue: {budget: 100%}", &[]).await;
    traced.green.answer_with(500);
    traced.proxy.weights(50, 50).await;
    let mut http = Http::connect(traced.proxy.web).await;
    let mut sent: HashMap<String, u16> = HashMap::new();
    let mut number = 0;
    while traced.proxy.service().await["backends"]["green"]["weight"] != 0 {
        let path = format!("/{number}");
        sent.insert(path.clone(), http.get(&path).await.status);
        number += 1;
        assert!(number < 10_000, "it is not rolled back");
    }
    assert!(
        sent.values().all(|status| *status == 200),
        "all are rescued"
    );

    let (mut rescued, mut rollback) = (None, None);
    while rescued.is_none() || rollback.is_none() {
        let span = traced.span(|_| true);
        if span["attributes"]["switchback.rescued_from"] == "green" {
            rescued = Some(span);
        } else if span["name"] == "rolled_back" {
            rollback = Some(span);
        }
    }
    let (rescued, rollback) = (rescued.unwrap(), rollback.unwrap());
    let attributes = &rescued["attributes"];
    assert_eq!(attributes["switchback.backend"], "blue");
    assert_eq!(attributes["switchback.rescued_outcome"], "5xx");
    assert_eq!(attributes["http.response.status_code"], 200);
    let attributes = &rollback["attributes"];
    assert_eq!(attributes["switchback.by"], "judge");
    assert_eq!(attributes["switchback.service"], "shop");
    let message = attributes["switchback.message"].as_str().unwrap();
    assert!(message.contains("failed"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sampler_of_the_environment_decides_and_last_spans_are_exported_at_the_end() {
    let half = [
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
    ];
    let mut traced = Traced::start("", &half).await;
    let mut http = Http::connect(traced.proxy.web).await;
    // By the end of the trace's id, whatever its caller has decided.
    let below = format!("00-{}{}-{CALLER}-00", "1".repeat(16), "7fff000000000000");
    let above = format!("00-{}{}-{CALLER}-01", "1".repeat(16), "8000000000000000");
    http.send("GET", "/above", &[("traceparent", &above)], b"")
        .await
        .unwrap();
    http.send("GET", "/below", &[("traceparent", &below)], b"")
        .await
        .unwrap();
    traced.proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(traced.proxy.wait(), Some(0));
    assert_eq!(traced.request()["attributes"]["url.path"], "/below");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collector_that_is_away_costs_spans_and_nothing_else() {
    let nobody = [(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "http://127.0.0.1:1/v1/traces",
    )];
    let traced = Traced::start("", &nobody).await;
    let mut http = Http::connect(traced.proxy.web).await;
    for _ in 0..20 {
        assert_eq!(http.get("/").await.status, 200);
    }
    let proxy = &traced.proxy;
    crate::support::eventually_async("they are counted", || async {
        let metrics = Http::connect(proxy.admin)
            .await
            .get("/metrics")
            .await
            .text();
        let lost = metrics
            .lines()
            .find_map(|line| line.strip_prefix("switchback_spans_lost_total "));
        lost.and_then(|lost| lost.parse().ok()).unwrap_or(0.0) >= 20.0
    })
    .await;
    eventually("it is said once", || {
        proxy
            .log()
            .matches("spans are lost until this ends")
            .count()
            == 1
    });
}

#[test]
fn endpoint_that_cannot_be_used_keeps_the_process_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    let config = blue_green("http://127.0.0.1:1", "http://127.0.0.1:2", "");
    std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_switchback"))
        .args(["run", "--config", "switchback.yaml", "--state-dir", "state"])
        .current_dir(directory.path())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains(
            "OTEL_EXPORTER_OTLP_ENDPOINT=https://collector:4318: spans leave over http:// only"
        ),
        "{said}"
    );
}
