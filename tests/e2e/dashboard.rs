//! The dashboard as it comes out of the binary, and what it asks the API for. What people see of it in a
//! browser is tested in tests/dashboard.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Answer, Http, Origin, Proxy, eventually_async};

/// Longest module or style sheet, as for Rust.
const LINES_MAX: usize = 600;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("admin/src/api/dashboard")
}

/// The files that the dashboard is made of, as they lie in the sources.
fn files() -> BTreeSet<String> {
    let entries = std::fs::read_dir(sources()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "index.html").collect()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(sources().join(name)).unwrap()
}

/// What stands between two marks, wherever they are.
fn between<'a>(text: &'a str, from: &'a str, to: &'a str) -> impl Iterator<Item = &'a str> {
    let parts = text.split(from).skip(1);
    parts.filter_map(move |part| part.split(to).next())
}

async fn proxy() -> (Origin, Origin, Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    (blue, green, proxy)
}

/// What a browser without a token gets.
async fn open(proxy: &Proxy, path: &str) -> Answer {
    Http::connect(proxy.admin).await.get(path).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboard_is_where_people_look_for_it_and_needs_no_token() {
    let (_blue, _green, proxy) = proxy().await;
    for path in ["/", "/ui"] {
        let answer = open(&proxy, path).await;
        assert_eq!((answer.status, answer.header("location")), (308, "/ui/"));
    }
    let page = open(&proxy, "/ui/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.text(), read("index.html"));
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    // What it shows does.
    assert_eq!(open(&proxy, "/v1/overview").await.status, 401);
    assert_eq!(open(&proxy, "/v1/services/shop/trend").await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_is_in_the_binary_with_its_type_and_a_strict_policy() {
    let (_blue, _green, proxy) = proxy().await;
    let files = files();
    assert!(files.len() > 20, "{files:?}");
    for name in files.iter().map(String::as_str).chain([""]) {
        let answer = open(&proxy, &format!("/ui/{name}")).await;
        assert_eq!(answer.status, 200, "{name} is not in the list of files");
        let kind = match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(answer.header("content-type"), kind, "{name}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        let policy = answer.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self';",
            "style-src 'self';",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(part), "{name}: {policy}");
        }
        assert!(
            !policy.contains("unsafe") && !policy.contains("http"),
            "{policy}"
        );
    }
}

/// A page that names a file which is not there works everywhere but where it is needed.
#[test]
fn every_file_that_is_named_is_there_and_every_file_is_named() {
    let (files, page) = (files(), read("index.html"));
    let mut named: BTreeSet<String> = between(&page, "href=\"", "\"")
        .chain(between(&page, "src=\"", "\""))
        .map(str::to_owned)
        .collect();
    for name in files.iter().filter(|name| name.ends_with(".js")) {
        let text = read(name);
        for imported in between(&text, "from \"./", "\"") {
            assert!(files.contains(imported), "{name} imports {imported}");
            named.insert(imported.to_owned());
        }
    }
    assert_eq!(named, files);
}

/// The policy forbids it, and browsers would say so to whoever looks at their console only.
#[test]
fn files_hold_nothing_inline_and_nothing_of_others() {
    for name in files().iter().map(String::as_str).chain(["index.html"]) {
        let text = read(name);
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{name}: {lines} lines");
        for banned in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            " style=\"",
            " onclick=\"",
            "<script>",
            "<style",
            "@import",
            "localStorage.setItem(\"token",
        ] {
            assert!(!text.contains(banned), "{name}: {banned}");
        }
        for address in between(&text, "http", "\"").filter(|rest| rest.starts_with("://")) {
            let address = format!("http{address}");
            assert_eq!(address, "http://www.w3.org/2000/svg", "{name}");
        }
        if name.ends_with(".js") {
            assert!(text.starts_with("// @ts-check\n// "), "{name}: say why");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_file_of_the_dashboard_is_not_found() {
    let (_blue, _green, proxy) = proxy().await;
    for path in ["/ui/index.html", "/ui/main.mjs", "/ui/admin.token"] {
        assert_eq!(open(&proxy, path).await.status, 404, "{path}");
    }
    for path in ["/ui/../v1/services", "/ui/%2e%2e/v1/config"] {
        assert_eq!(open(&proxy, path).await.status, 400, "{path}");
    }
    assert_eq!(open(&proxy, "/uix").await.status, 401, "no prefix of it");
}

/// All that a trend says of one backend: requests, failures.
fn sums(trend: &Value, backend: &str) -> (u64, u64) {
    let points = trend["backends"][backend]["points"].as_array().unwrap();
    let sum = |field: &str| -> u64 {
        let counts = points.iter().map(|point| point[field].as_u64().unwrap());
        counts.sum()
    };
    (sum("requests"), sum("failures"))
}

async fn send(proxy: &Proxy, requests: u64) {
    let mut client = Http::connect(proxy.web).await;
    for _ in 0..requests {
        client.get("/").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trend_counts_what_each_backend_did_second_by_second() {
    let (blue, _green, proxy) = proxy().await;
    let path = "/v1/services/shop/trend";
    // Recording has begun: what comes from now on is counted.
    eventually_async("there is a first second", || async {
        proxy.get(path).await["to"] != 0
    })
    .await;
    send(&proxy, 20).await;
    blue.answer_with(503);
    send(&proxy, 5).await;
    eventually_async("all requests are in it", || async {
        sums(&proxy.get(path).await, "blue") == (25, 5)
    })
    .await;
    let trend = proxy.get(path).await;
    assert_eq!(sums(&trend, "green"), (0, 0));
    let (from, to) = (
        trend["from"].as_u64().unwrap(),
        trend["to"].as_u64().unwrap(),
    );
    let mut before = 0;
    for point in trend["backends"]["blue"]["points"].as_array().unwrap() {
        let second = point["second"].as_u64().unwrap();
        assert!(second > before && (from..=to).contains(&second), "{trend}");
        before = second;
        let [p50, p99] = ["p50_ms", "p99_ms"].map(|name| point[name].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trend_goes_on_after_the_last_second_without_telling_anything_twice() {
    let (_blue, _green, proxy) = proxy().await;
    let path = "/v1/services/shop/trend";
    eventually_async("there is a first second", || async {
        proxy.get(path).await["to"] != 0
    })
    .await;
    send(&proxy, 7).await;
    let (mut last, mut requests) = (0, 0);
    while requests < 7 {
        let trend = proxy.get(&format!("{path}?after={last}")).await;
        assert!(
            last == 0 || trend["from"] == last + 1,
            "{trend} after {last}"
        );
        last = trend["to"].as_u64().unwrap();
        requests += sums(&trend, "blue").0;
    }
    assert_eq!(requests, 7);
    let answer = proxy
        .api("GET", "/v1/services/nobody/trend", Value::Null)
        .await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (404, &json!("unknown_service"))
    );
    let answer = proxy
        .api("GET", &format!("{path}?after=now"), Value::Null)
        .await;
    assert_eq!(answer.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overview_says_who_gets_what_and_what_to_look_at() {
    let (_blue, _green, proxy) = proxy().await;
    proxy.weights(75, 25).await;
    let overview = proxy.get("/v1/overview").await;
    assert_eq!(overview["revision"], 1);
    let shop = &overview["services"][0];
    assert_eq!(
        (&shop["name"], &shop["stable"]),
        (&json!("shop"), &json!("blue"))
    );
    let green = &shop["backends"]["green"];
    assert_eq!(
        (&green["version"], &green["share"], &green["blocked"]),
        (&json!("2"), &json!(0.25), &json!(false))
    );
    // The API has changed what the file says.
    assert_eq!(shop["concerns"], json!(["file_disagrees"]));
    send(&proxy, 10).await;
    eventually_async("its pace is known", || async {
        proxy.get("/v1/overview").await["services"][0]["pace"]["requests"] == 10
    })
    .await;
    let answer = proxy
        .post("/v1/services/shop/backends/green/block", json!({}))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let overview = proxy.get("/v1/overview").await;
    let shop = &overview["services"][0];
    assert_eq!(shop["backends"]["green"]["blocked"], true);
    assert_eq!(shop["backends"]["blue"]["share"], 1.0);
    let concerns = shop["concerns"].as_array().unwrap();
    assert_eq!(concerns[0], "version_blocked", "{concerns:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overview_names_a_rollout_that_waits_and_an_endpoint_that_is_down() {
    let blue = Origin::start().await;
    let green = Origin::start().await;
    let rollout = "rollout: {steps: [{weight: 10%, for: 1h}], bake: off}
health: {path: /healthz, interval: 200ms, timeout: 200ms, rise: 1, fall: 1}";
    let proxy = Proxy::blue_green(&blue, &green, rollout);
    eventually_async("both are healthy", || async {
        let shop = &proxy.get("/v1/overview").await["services"][0];
        ["blue", "green"].map(|name| shop["backends"][name]["health"] == "healthy") == [true; 2]
    })
    .await;
    for path in ["rollout", "rollout/pause"] {
        let answer = proxy
            .post(&format!("/v1/services/shop/{path}"), json!({}))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let shop = proxy.get("/v1/overview").await["services"][0].clone();
    assert_eq!(
        shop["rollout"],
        json!({"canary": "green", "status": "paused", "weight": "10%"})
    );
    let waits = |shop: &Value| {
        let concerns = shop["concerns"].as_array().unwrap();
        concerns.contains(&json!("rollout_waits"))
    };
    assert!(waits(&shop), "{shop}");
    blue.answer_with(500);
    eventually_async("blue is down", || async {
        let shop = &proxy.get("/v1/overview").await["services"][0];
        shop["concerns"][0] == "no_healthy_endpoint"
    })
    .await;
}
