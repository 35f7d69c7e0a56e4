//! Flags in the hands of operators: set, compared, restored, measured, and kept from others.

use std::process::Command;

use serde_json::{Value, json};

use super::{Application, FLAGS, config, off, ofrep, on, post, said, start};
use crate::support::{Http, Origin, Proxy, RawClient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_applications_open_flags_and_nothing_else() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let directory = tempfile::tempdir().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_switchback"))
        .args(["token", "new", "--name", "shop", "-o", "json"])
        .output()
        .unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let token = made["token"].as_str().unwrap();
    let tokens = |sha256: &str| format!("- {{name: shop, sha256: \"{sha256}\"}}\n");
    let path = directory.path().join("apps.yaml");
    std::fs::write(&path, tokens(made["sha256"].as_str().unwrap())).unwrap();
    let flags = FLAGS.replace("127.0.0.1:0\"}", "127.0.0.1:0\", tokens_file: apps.yaml}");
    let file = config(&blue, &green, &flags, "");
    std::fs::write(directory.path().join("switchback.yaml"), &file).unwrap();
    let proxy = Proxy::start_in(directory);
    let one = "/ofrep/v1/evaluate/flags/plain";
    let ask = |token: &str| {
        let (address, bearer) = (ofrep(&proxy), format!("Bearer {token}"));
        async move {
            post(address, one, &[("authorization", &bearer)], &json!({}))
                .await
                .status
        }
    };
    assert_eq!(post(ofrep(&proxy), one, &[], &json!({})).await.status, 401);
    // Nobody has to take in a body for that, or to send all of it.
    let mut unknown = RawClient::connect(ofrep(&proxy)).await;
    let host = ofrep(&proxy);
    let head = format!(
        "POST {one} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: 262144\r\n\r\n{{"
    );
    unknown.write(head.as_bytes()).await;
    let refused = unknown.read_until("\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    assert_eq!(ask(token).await, 200);
    assert_eq!(
        ask(&proxy.token).await,
        401,
        "nor does a token of the admin API"
    );
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let mut client = Http::connect(proxy.admin).await;
    let refused = client
        .send("GET", "/v1/flags", &headers, b"")
        .await
        .unwrap();
    assert_eq!(refused.status, 401);
    let mut application = Application::start(ofrep(&proxy), token);
    let question = json!({"flag": "plain", "kind": "boolean", "default": false, "key": "u"});
    assert_eq!(application.ask(&question)["value"], true);
    // Whose token is taken out of the file is not answered any more.
    std::fs::write(proxy.path().join("apps.yaml"), tokens(&"0".repeat(64))).unwrap();
    assert_eq!(proxy.post("/v1/reload", Value::Null).await.status, 200);
    assert_eq!(ask(token).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_are_set_compared_and_restored_by_the_command_line() {
    let (blue, green, proxy) = start(FLAGS).await;
    let cli = |arguments: &[&str]| {
        let (code, out, err) = proxy.cli(arguments);
        assert_eq!(code, 0, "{arguments:?}: {err}");
        out
    };
    let first = proxy.get("/v1/flags").await["revision"].as_u64().unwrap();
    let out = cli(&[
        "flag",
        "set",
        "new-checkout",
        "--share",
        "100%",
        "--reason",
        "all in",
    ]);
    assert!(out.starts_with("new-checkout: on, revision "), "{out}");
    let out = cli(&["flag", "eval", "new-checkout", "--key", "anybody"]);
    assert_eq!(out, "true: on (SPLIT)\n");
    std::fs::write(
        proxy.path().join("banner.yaml"),
        "variants: {short: hi, long: hello}\ndefault: short\nrules: [{when: {plan: gold}, serve: long}]\n",
    )
    .unwrap();
    cli(&["flag", "set", "banner", "--from", "banner.yaml"]);
    let out = cli(&["flag", "eval", "banner", "--context", "plan=gold"]);
    assert_eq!(out, "\"hello\": long (TARGETING_MATCH)\n");
    let out = cli(&["flag", "list"]);
    assert!(
        out.contains("banner") && out.contains("flag unset new-checkout"),
        "{out}"
    );
    let out = cli(&["history"]);
    assert!(
        out.contains("flag new-checkout") && out.contains("all in"),
        "{out}"
    );
    let out = cli(&["diff", &first.to_string()]);
    assert!(out.contains("flag new-checkout"), "{out}");
    assert!(out.contains(r#"- shares: {"on":"20%"}"#), "{out}");
    cli(&["flag", "off", "plain"]);
    let out = cli(&["restore", &first.to_string()]);
    assert!(out.contains("flag new-checkout is restored"), "{out}");
    assert!(
        out.contains("flag plain was on then, and stays off"),
        "{out}"
    );
    assert!(out.contains("banner: not restored"), "{out}");
    let view = proxy.get("/v1/flags/new-checkout").await;
    assert_eq!(
        (&view["effective"]["shares"], &view["override"]),
        (&json!({"on": "20%"}), &Value::Null)
    );
    assert_eq!(said(&proxy, "plain").await, off());
    cli(&["flag", "unset", "banner"]);
    let (code, _, err) = proxy.cli(&["flag", "off", "banner"]);
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("there is no flag \"banner\" (unknown_flag)"),
        "{err}"
    );
    // A file with another value wins over what was set.
    cli(&["flag", "set", "new-checkout", "--share", "50%"]);
    let changed = FLAGS.replace("share: 20%", "share: 30%");
    proxy.write_config(&config(&blue, &green, &changed, ""));
    proxy.post("/v1/reload", Value::Null).await;
    let view = proxy.get("/v1/flags/new-checkout").await;
    assert_eq!(view["effective"]["shares"], json!({"on": "30%"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flag_that_makes_no_sense_is_refused_with_place_and_repair() {
    let (_blue, _green, proxy) = start(FLAGS).await;
    let put = |path: &'static str, body: Value| {
        let proxy = &proxy;
        async move { proxy.api("PUT", path, body).await }
    };
    let answer = put(
        "/v1/flags/x",
        json!({"flag": {"share": "5%", "shares": {"of": "5%"}}}),
    )
    .await;
    assert_eq!(answer.status, 422);
    let problem = answer.json();
    assert_eq!(problem["code"], "invalid_flag");
    let faults = problem["diagnostics"].as_array().unwrap();
    let of = faults
        .iter()
        .find(|fault| fault["code"] == "SB0014")
        .unwrap();
    assert_eq!(
        (&of["path"], &of["repair"]),
        (&json!("shares.of"), &json!("did you mean off?"))
    );
    for (path, body, status, code) in [
        (
            "/v1/flags/no:name",
            json!({"flag": {}}),
            422,
            "invalid_name",
        ),
        (
            "/v1/flags/payments/shares",
            json!({"shares": {"on": "5%"}}),
            422,
            "invalid_flag",
        ),
        (
            "/v1/flags/button/shares",
            json!({"shares": {"red": "60%", "blue": "41%"}}),
            422,
            "invalid_flag",
        ),
        (
            "/v1/flags/button/shares",
            json!({"shares": {"green": "1%"}}),
            422,
            "invalid_flag",
        ),
        (
            "/v1/flags/none/shares",
            json!({"shares": {}}),
            404,
            "unknown_flag",
        ),
        (
            "/v1/flags/plain?wait=drained",
            json!({"flag": {}}),
            400,
            "invalid_query",
        ),
    ] {
        let answer = put(path, body).await;
        assert_eq!(
            (answer.status, answer.json()["code"].clone()),
            (status, json!(code)),
            "{path}"
        );
    }
    let view = proxy.get("/v1/flags").await;
    assert_eq!(view["flags"].as_array().unwrap().len(), 4);
    // A dry run tells and changes nothing.
    let dry = put(
        "/v1/flags/plain?dry_run=true",
        json!({"flag": {"default": false}}),
    )
    .await
    .json();
    assert_eq!(
        (&dry["changed"], &dry["dry_run"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(dry["differences"][0]["field"], "default");
    assert_eq!(said(&proxy, "plain").await, on());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_what_flags_said() {
    let (_blue, _green, proxy) = start(FLAGS).await;
    for _ in 0..3 {
        said(&proxy, "plain").await;
    }
    proxy.post("/v1/flags/plain/off", Value::Null).await;
    said(&proxy, "plain").await;
    let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
    for line in [
        "switchback_flag_evaluations_total{flag=\"plain\",variant=\"on\"} 3",
        "switchback_flag_evaluations_total{flag=\"plain\",variant=\"off\"} 1",
        "switchback_flag_enabled{flag=\"plain\"} 0",
        "switchback_flag_enabled{flag=\"payments\"} 1",
        "switchback_kill_switches_believed 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}\n{metrics}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_restart_changes_where_flags_are_asked_for() {
    let (blue, green, proxy) = start(FLAGS).await;
    let moved = FLAGS.replace("ofrep: {address: \"127.0.0.1:0\"}\n", "");
    proxy.write_config(&config(&blue, &green, &moved, ""));
    let refused = proxy.post("/v1/reload", Value::Null).await;
    assert_eq!(
        (refused.status, refused.json()["code"].clone()),
        (422, json!("restart_only"))
    );
    assert_eq!(said(&proxy, "plain").await, on());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_backend_is_where_flags_are_asked_for() {
    let (_blue, _green, proxy) = start(FLAGS).await;
    let endpoint = format!("http://{}", ofrep(&proxy));
    let body = json!({"version": "3", "endpoints": [endpoint], "force": true});
    let path = "/v1/services/shop/backends/green";
    let refused = proxy.api("PUT", path, body).await;
    assert_eq!(
        (refused.status, refused.json()["code"].clone()),
        (422, json!("endpoint_refused"))
    );
}
