//! Feature flags as applications, backends and operators see them.

mod off;
mod operators;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::support::wire::{Edge, RawOrigin, status};
use crate::support::{Answer, HEAD, Http, Origin, Proxy, RawClient, python};

/// Flags of every kind, and where they are asked for.
const FLAGS: &str = "ofrep: {address: \"127.0.0.1:0\"}
flags:
  plain: {default: true}
  payments: {kill_switch: true, max_age: 10s}
  new-checkout: {share: 20%}
  button:
    variants: {red: \"#f00\", blue: \"#00f\", big: {size: 3}}
    default: red
    rules:
      - {when: {plan: gold, age: {above: 17}}, serve: blue}
      - {when: {email: {ends_with: \"@example.com\"}}, serve: big}
";

/// A service `shop` whose backends tell who they are, with these flags. `green`: further keys of green.
fn config(blue: &Origin, green: &Origin, flags: &str, green_keys: &str) -> String {
    let (blue, green) = (blue.url(), green.url());
    format!(
        "{HEAD}{flags}services:
  shop:
    stable: blue
    weights: {{blue: 80, green: 20}}
    affinity: {{header: x-user}}
    expose: true
    backends:
      blue: {{version: \"1\", endpoints: [\"{blue}\"]}}
      green: {{version: \"2\", endpoints: [\"{green}\"]{green_keys}}}
"
    )
}

async fn start(flags: &str) -> (Origin, Origin, Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::start(&config(&blue, &green, flags, ""));
    (blue, green, proxy)
}

/// Where flags are asked for.
fn ofrep(proxy: &Proxy) -> SocketAddr {
    let run = std::fs::read_to_string(proxy.state_dir().join("run.json")).unwrap();
    let run: Value = serde_json::from_str(&run).unwrap();
    run["ofrep"].as_str().unwrap().parse().unwrap()
}

async fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers);
    let mut client = Http::connect(address).await;
    client
        .send("POST", path, &all, body.to_string().as_bytes())
        .await
        .unwrap()
}

/// What a flag says to somebody.
async fn ask(proxy: &Proxy, flag: &str, context: Value) -> Answer {
    let path = format!("/ofrep/v1/evaluate/flags/{flag}");
    post(ofrep(proxy), &path, &[], &json!({"context": context})).await
}

/// The value of a flag, and why.
async fn said(proxy: &Proxy, flag: &str) -> (Value, String) {
    let answer = ask(proxy, flag, json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let reason = answer["reason"].as_str().unwrap().to_owned();
    (answer["value"].clone(), reason)
}

fn on() -> (Value, String) {
    (json!(true), "STATIC".into())
}

fn off() -> (Value, String) {
    (json!(false), "DISABLED".into())
}

fn closed() -> (Value, String) {
    (json!(false), "ERROR".into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_tells_backends_of_no_flags_in_its_trailers_either() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(
        &origin.url(),
        "flags: {plain: {default: false}}\n",
        "",
        "flags: {header: x-flags, names: [plain]}",
    );
    let mut client = edge.plain().await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-before: 1\r\nX-Flags: plain=on\r\nx-after: 2\r\n\r\n";
    client.write(request.as_bytes()).await;
    let answer = client.until("\r\n\r\n").await;
    assert_eq!(status(&answer), "200", "{answer}");
    let seen = origin.requests().concat().to_ascii_lowercase();
    assert!(seen.contains("\r\nx-flags: plain=off\r\n"), "{seen}");
    assert!(!seen.contains("plain=on"), "{seen}");
    assert!(
        seen.ends_with("0\r\nx-before: 1\r\nx-after: 2\r\n\r\n"),
        "{seen}"
    );
}

/// The real client.
struct Application {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Application {
    fn start(address: SocketAddr, token: &str) -> Self {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/clients/openfeature_client.py"
        );
        let mut child = Command::new(python())
            .args([script, &format!("http://{address}"), token])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; tests/run installs it", python()));
        Self {
            questions: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.questions, "{question}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("it says {line:?}"))
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openfeature_client_gets_values_variants_and_reasons() {
    let (_blue, _green, proxy) = start(FLAGS).await;
    let mut application = Application::start(ofrep(&proxy), "none");
    let mut ask = |flag: &str, kind: &str, default: Value, key: Value, context: Value| {
        application.ask(&json!({
            "flag": flag, "kind": kind, "default": default, "key": key, "context": context,
        }))
    };
    let answer = |value: Value, variant: &str, reason: &str| json!({"value": value, "variant": variant, "reason": reason, "error": null});
    let failed = |value: Value, error: &str| json!({"value": value, "variant": null, "reason": "ERROR", "error": error});
    for (flag, kind, default, key, context, expected) in [
        (
            "plain",
            "boolean",
            json!(false),
            json!("u"),
            json!({}),
            answer(json!(true), "on", "STATIC"),
        ),
        (
            "payments",
            "boolean",
            json!(false),
            json!("u"),
            json!({}),
            answer(json!(true), "on", "STATIC"),
        ),
        (
            "button",
            "string",
            json!("?"),
            json!("u"),
            json!({}),
            answer(json!("#f00"), "red", "DEFAULT"),
        ),
        (
            "button",
            "string",
            json!("?"),
            json!("u"),
            json!({"plan": "gold", "age": 18}),
            answer(json!("#00f"), "blue", "TARGETING_MATCH"),
        ),
        (
            "button",
            "string",
            json!("?"),
            json!("u"),
            json!({"plan": "gold", "age": 17}),
            answer(json!("#f00"), "red", "DEFAULT"),
        ),
        (
            "button",
            "object",
            json!({}),
            json!("u"),
            json!({"email": "me@example.com"}),
            answer(json!({"size": 3}), "big", "TARGETING_MATCH"),
        ),
        (
            "button",
            "boolean",
            json!(true),
            json!("u"),
            json!({}),
            failed(json!(true), "TYPE_MISMATCH"),
        ),
        (
            "none",
            "boolean",
            json!(true),
            json!("u"),
            json!({}),
            failed(json!(true), "FLAG_NOT_FOUND"),
        ),
        (
            "new-checkout",
            "boolean",
            json!(true),
            Value::Null,
            json!({}),
            failed(json!(true), "TARGETING_KEY_MISSING"),
        ),
    ] {
        assert_eq!(
            ask(flag, kind, default, key, context.clone()),
            expected,
            "{flag} for {context}"
        );
    }
    // Off for whom the default of the application is on.
    let turned_off = proxy.post("/v1/flags/plain/off", Value::Null).await;
    assert_eq!(turned_off.status, 200, "{}", turned_off.text());
    let after = ask("plain", "boolean", json!(true), json!("u"), json!({}));
    assert_eq!(after, answer(json!(false), "off", "DISABLED"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flag_and_canary_of_one_share_are_the_same_users() {
    let (_blue, _green, proxy) = start(FLAGS).await;
    let mut application = Application::start(ofrep(&proxy), "none");
    let mut both = 0;
    for number in 0..200 {
        let user = format!("user-{number}");
        let headers = [("x-user", user.as_str())];
        let mut client = Http::connect(proxy.web).await;
        let served = client.send("GET", "/", &headers, b"").await.unwrap();
        let answer = application.ask(&json!({
            "flag": "new-checkout", "kind": "boolean", "default": false, "key": user,
        }));
        assert_eq!(answer["reason"], "SPLIT");
        let by_canary = served.header("x-switchback-backend") == "green";
        assert_eq!(answer["value"], by_canary, "{user}");
        both += u32::from(by_canary);
    }
    assert!((15..70).contains(&both), "{both} of 200 at 20 %");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_flags_at_once_carry_a_tag_that_saves_the_next_answer() {
    let (_blue, _green, proxy) = start(FLAGS).await;
    let path = "/ofrep/v1/evaluate/flags";
    let body = json!({"context": {"targetingKey": "user-1", "plan": "gold", "age": 20}});
    let first = post(ofrep(&proxy), path, &[], &body).await;
    assert_eq!(first.status, 200);
    let all = first.json();
    let flags = all["flags"].as_array().unwrap();
    let named = |name: &str| flags.iter().find(|flag| flag["key"] == name).unwrap();
    assert_eq!(flags.len(), 4);
    assert_eq!(named("button")["variant"], "blue");
    assert_eq!(named("new-checkout")["reason"], "SPLIT");
    let tag = first.header("etag").to_owned();
    let again = |tag: String| {
        let (proxy, body) = (&proxy, &body);
        async move { post(ofrep(proxy), path, &[("if-none-match", &tag)], body).await }
    };
    let same = again(tag.clone()).await;
    assert_eq!((same.status, same.text()), (304, String::new()));
    assert_eq!(same.header("etag"), tag);
    let turned_off = proxy.post("/v1/flags/plain/off", Value::Null).await;
    assert_eq!(turned_off.status, 200);
    let changed = again(tag.clone()).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), tag);
    // A flag that needs a key is a fault of its own, and the others are answered.
    let without = post(ofrep(&proxy), path, &[], &json!({})).await.json();
    let flags = without["flags"].as_array().unwrap();
    let faults: Vec<&Value> = flags
        .iter()
        .filter(|f| f["errorCode"].is_string())
        .collect();
    assert_eq!(faults.len(), 1, "{without}");
    assert_eq!(faults[0]["errorCode"], "TARGETING_KEY_MISSING");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_with_a_code() {
    let (_blue, _green, proxy) = start(FLAGS).await;
    let one = "/ofrep/v1/evaluate/flags/plain";
    for (method, path, body, status, code) in [
        ("POST", one, "{", 400, "PARSE_ERROR"),
        ("POST", one, "[]", 400, "PARSE_ERROR"),
        ("POST", one, r#"{"context": 5}"#, 400, "PARSE_ERROR"),
        (
            "POST",
            one,
            r#"{"context": {"targetingKey": 5}}"#,
            400,
            "INVALID_CONTEXT",
        ),
        ("GET", one, "", 405, "GENERAL"),
        ("POST", "/ofrep/v1/evaluate/flags/a/b", "{}", 404, "GENERAL"),
        ("POST", "/v1/flags", "{}", 404, "GENERAL"),
    ] {
        let mut client = Http::connect(ofrep(&proxy)).await;
        let json = [("content-type", "application/json")];
        let answer = client
            .send(method, path, &json, body.as_bytes())
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        assert_eq!(answer.json()["errorCode"], code, "{path} {body}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    // With the two around it.
    for (depth, status) in [(30, 200), (31, 400)] {
        let inner = "[".repeat(depth) + &"]".repeat(depth);
        let body = format!("{{\"context\": {{\"x\": {inner}}}}}");
        let body: Value = serde_json::from_str(&body).unwrap();
        let answer = post(ofrep(&proxy), one, &[], &body).await;
        assert_eq!(answer.status, status, "{depth}: {}", answer.text());
    }
    let large = json!({"context": {"x": "y".repeat(300 << 10)}});
    let answer = post(ofrep(&proxy), one, &[], &large).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_of_another_site_cannot_ask() {
    let (_blue, _green, proxy) = start(FLAGS).await;
    let address = ofrep(&proxy);
    let (own, local) = (
        format!("http://{address}"),
        format!("localhost:{}", address.port()),
    );
    let json = ("content-type", "application/json");
    for (headers, status) in [
        (vec![json], 200),
        (
            vec![json, ("origin", &own), ("sec-fetch-site", "same-origin")],
            200,
        ),
        (vec![json, ("host", &local)], 200),
        (
            vec![("content-type", "application/json; charset=utf-8")],
            200,
        ),
        (vec![json, ("origin", "https://evil.example")], 403),
        (vec![json, ("origin", "null")], 403),
        (vec![json, ("sec-fetch-site", "cross-site")], 403),
        (vec![json, ("host", "evil.example")], 421),
        (vec![("content-type", "text/plain")], 415),
        (vec![], 415),
    ] {
        let mut client = Http::connect(address).await;
        let path = "/ofrep/v1/evaluate/flags/plain";
        let answer = client.send("POST", path, &headers, b"{}").await.unwrap();
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_give_way_to_whoever_asks() {
    const PLACES: usize = 1_000;
    let files = rustix::process::Resource::Nofile;
    let mut limit = rustix::process::getrlimit(files);
    limit.current = limit.maximum;
    rustix::process::setrlimit(files, limit).unwrap();
    let (_blue, _green, proxy) = start(FLAGS).await;
    let address = ofrep(&proxy);
    let mut waiting = Http::connect(address).await;
    let path = "/ofrep/v1/evaluate/flags/plain";
    let json = [("content-type", "application/json")];
    let answer = waiting.send("POST", path, &json, b"{}").await.unwrap();
    assert_eq!(answer.status, 200);
    let mut silent = Vec::new();
    for _ in 0..PLACES {
        silent.push(RawClient::connect(address).await);
    }
    assert_eq!(said(&proxy, "plain").await, on());
    let mut open = 0;
    for client in &mut silent {
        let mut byte = [0];
        open += usize::from(client.stream.try_read(&mut byte).is_err());
    }
    // Had they only been waited for, all would have been closed by now.
    assert!(open >= PLACES / 2, "{open} of {PLACES} are still open");
    let answer = waiting.send("POST", path, &json, b"{}").await.unwrap();
    assert_eq!(answer.status, 200, "who has asked before may be silent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_are_told_of_flags_in_a_header() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "    flags: {header: x-flags, names: [new-checkout, button, payments]}\n";
    let file = config(&blue, &green, FLAGS, "") + more;
    let proxy = Proxy::start(&file);
    let get = |user: String| {
        let web = proxy.web;
        async move {
            let headers = [("x-user", user.as_str()), ("x-flags", "new-checkout=on")];
            let mut client = Http::connect(web).await;
            let answer = client.send("GET", "/", &headers, b"").await.unwrap();
            answer.header("x-switchback-backend").to_owned()
        }
    };
    let mut seen = [0, 0];
    for number in 0..60 {
        let by = get(format!("user-{number}")).await;
        let (origin, variant) = match by.as_str() {
            "green" => (&green, "on"),
            _ => (&blue, "off"),
        };
        seen[usize::from(by == "green")] += 1;
        let told: Vec<_> = origin
            .last()
            .headers
            .get_all("x-flags")
            .iter()
            .cloned()
            .collect();
        let expected = format!("new-checkout={variant}, button=red, payments=on");
        assert_eq!(told, [expected.as_str()], "user-{number} by {by}");
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    proxy.post("/v1/flags/payments/off", Value::Null).await;
    let by = get("user-1".into()).await;
    let origin = if by == "green" { &green } else { &blue };
    let told = origin.last().headers["x-flags"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(told.ends_with("payments=off"), "{told}");
}
