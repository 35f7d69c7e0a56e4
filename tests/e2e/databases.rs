//! The database behind a service: what cannot live with it gets no traffic, and its old form goes only when
//! nobody needs it any more.

use serde_json::{Value, json};

use crate::support::{HEAD, Http, Load, Origin, Protocol, Proxy, Receiver, eventually_async};

/// Blue lives with schema 3 and 4, green and red with 4 and 5.
fn config(origins: &[Origin; 3], green_keys: &str, more: &str) -> String {
    let [blue, green, red] = origins.each_ref().map(Origin::url);
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "{HEAD}services:
  shop:
    stable: blue
    weights: {{blue: 100, green: 0, red: 0}}
    backends:
      blue: {{version: \"1\", endpoints: [\"{blue}\"], schema: {{reads: [3, 4], writes: 3}}}}
      green: {{version: \"2\", endpoints: [\"{green}\"], schema: {{reads: [4, 5], writes: 4}}{green_keys}}}
      red: {{version: \"3\", endpoints: [\"{red}\"], schema: {{reads: [4, 5], writes: 4}}}}
{more}"
    )
}

async fn origins() -> [Origin; 3] {
    [
        Origin::start().await,
        Origin::start().await,
        Origin::start().await,
    ]
}

/// Carries out a verb that must succeed.
#[track_caller]
fn must(proxy: &Proxy, arguments: &[&str]) -> String {
    let (code, out, why) = proxy.cli(arguments);
    assert_eq!(code, 0, "{arguments:?}: {out}{why}");
    out
}

fn gate(proxy: &Proxy) -> (i32, Value) {
    let (code, out, why) = proxy.cli(&["gate", "contract", "shop", "-o", "json"]);
    let answer = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{why}"));
    (code, answer)
}

fn reasons(answer: &Value) -> Vec<String> {
    let reasons = answer["reasons"].as_array().unwrap().iter();
    reasons
        .map(|reason| reason.as_str().unwrap().to_owned())
        .collect()
}

async fn events(proxy: &Proxy) -> String {
    let (_, out, _) = proxy.cli(&["events", "-o", "json"]);
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expand_contract_is_walked_from_the_command_line_and_rollback_is_free_until_the_contract() {
    let origins = origins().await;
    let proxy = Proxy::start(&config(&origins, "", "database: {contract_after: 1s}\n"));
    must(&proxy, &["schema", "set", "shop", "3"]);
    let (code, _, why) = proxy.cli(&["switch", "shop", "--to", "green"]);
    assert_eq!(code, 75, "{why}");
    assert!(why.contains("cannot live with schema 3"), "{why}");
    must(&proxy, &["schema", "phase", "shop", "expand"]);
    must(&proxy, &["schema-version", "set", "shop", "4"]);
    must(&proxy, &["switch", "shop", "--to", "green"]);
    for phase in ["migrate", "switch-reads"] {
        let shown = must(&proxy, &["schema", "phase", "shop", phase]);
        assert!(shown.contains("everything can be rolled back"), "{shown}");
        let plan = must(&proxy, &["rollback", "shop", "--dry-run"]);
        assert!(plan.contains("blue=100"), "{plan}");
    }
    let (code, _, why) = proxy.cli(&["schema", "phase", "shop", "contract"]);
    assert_eq!(code, 75, "{why}");
    assert!(
        why.contains("blue (version 1) is the rollback target"),
        "{why}"
    );
    must(&proxy, &["switch", "shop", "--to", "red"]);
    eventually_async("the gate opens", || async { gate(&proxy).0 == 0 }).await;
    let shown = must(&proxy, &["schema", "phase", "shop", "contract"]);
    assert!(shown.contains("could not live with schema 5"), "{shown}");
    // Back to green is still possible, to blue it is not.
    let (_, _, why) = proxy.cli(&["switch", "shop", "--to", "blue"]);
    assert!(why.contains("the contract has begun"), "{why}");
    let answer = proxy
        .post("/v1/services/shop/switch", json!({"to": "blue"}))
        .await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (409, &json!("contract_begun"))
    );
    must(&proxy, &["rollback", "shop"]);
    assert_eq!(proxy.service().await["stable"], "green");
    must(&proxy, &["schema", "set", "shop", "5"]);
    must(&proxy, &["schema", "phase", "shop", "done"]);
    let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
    assert!(metrics.contains("switchback_schema_version{service=\"shop\"} 5"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn judge_holds_and_pages_when_stable_cannot_read_the_schema() {
    let origins = origins().await;
    let receiver = Receiver::start().await;
    let hooks = format!(
        "hooks: [{{on: [rollback_held], http: \"{}\"}}]\n",
        receiver.url()
    );
    let proxy = Proxy::start(&config(&origins, "", &hooks));
    let body = json!({"version": 4, "reason": "expanded"});
    proxy.put("/v1/services/shop/schema", body).await;
    let split = json!({"weights": {"blue": 80, "green": 20, "red": 0}});
    proxy.put("/v1/services/shop/weights", split).await;
    let body = json!({"version": 5});
    proxy.put("/v1/services/shop/schema", body).await;
    origins[1].answer_with(500);
    let load = Load::start(proxy.web, Protocol::Http1, 2);
    eventually_async("the hook is told", || async { !receiver.seen().is_empty() }).await;
    drop(load);
    let told = &receiver.seen()[0].body;
    assert_eq!(told["type"], "switchback.rollback_held");
    let message = told["data"]["message"].as_str().unwrap();
    assert!(message.contains("cannot live with schema 5"), "{message}");
    let service = proxy.service().await;
    assert_eq!(
        service["weights"],
        json!({"blue": 80, "green": 20, "red": 0})
    );
    assert_eq!(service["blocked_versions"], json!({}));
    // A person may know better.
    assert_eq!(
        proxy
            .refused("/v1/services/shop/rollback", Value::Null)
            .await,
        (409, "schema_incompatible".into())
    );
    let forced = proxy
        .post("/v1/services/shop/rollback", json!({"force": true}))
        .await;
    assert_eq!(forced.json()["weights"]["green"], 0, "{}", forced.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destructive_migration_is_rolled_back_by_people_only() {
    let origins = origins().await;
    let proxy = Proxy::start(&config(&origins, ", migration: destructive", ""));
    let split = json!({"weights": {"blue": 80, "green": 20, "red": 0}});
    proxy.put("/v1/services/shop/weights", split).await;
    origins[1].answer_with(500);
    let load = Load::start(proxy.web, Protocol::Http1, 2);
    eventually_async("the judge holds", || async {
        events(&proxy).await.contains("judge_hold")
    })
    .await;
    drop(load);
    assert!(
        events(&proxy)
            .await
            .contains("its migration is destructive")
    );
    assert_eq!(proxy.service().await["weights"]["green"], 20);
    must(&proxy, &["rollback", "shop"]);
    assert_eq!(proxy.service().await["weights"]["green"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destructive_migration_pitfall_gate_counts_the_last_old_request_across_restarts() {
    let origins = origins().await;
    let file = config(&origins, "", "database: {contract_after: 1s}\n");
    let mut proxy = Proxy::start(&file);
    let (code, answer) = gate(&proxy);
    assert_eq!(code, 1);
    assert!(
        reasons(&answer)[0].contains("nobody has said which schema"),
        "{answer}"
    );
    Http::connect(proxy.web).await.get("/").await;
    must(&proxy, &["schema", "set", "shop", "4"]);
    let (_, answer) = gate(&proxy);
    let said = reasons(&answer);
    assert!(
        said.iter()
            .any(|one| one.starts_with("blue (version 1) is stable")),
        "{said:?}"
    );
    // Two releases later, nobody could go back to what needs the old form.
    must(&proxy, &["switch", "shop", "--to", "green"]);
    must(&proxy, &["switch", "shop", "--to", "red"]);
    eventually_async("the last old request is long ago", || async {
        gate(&proxy).0 == 0
    })
    .await;
    // A tester is enough to close it, and the process may be killed meanwhile.
    let split = json!({"weights": {"blue": 1, "green": 0, "red": 0}});
    proxy.put("/v1/services/shop/weights", split).await;
    Http::connect(proxy.web).await.get("/").await;
    let split = json!({"weights": {"blue": 0, "green": 0, "red": 1}});
    proxy.put("/v1/services/shop/weights", split).await;
    eventually_async("it is on disk", || async {
        let view = proxy.get("/v1/services/shop/schema").await;
        view["last_requests_durable"] == true
    })
    .await;
    proxy.crash_and_restart();
    eventually_async("the past is read", || async {
        let (code, answer) = gate(&proxy);
        assert_eq!(code, 1, "{answer}");
        reasons(&answer)
            .iter()
            .any(|one| one.starts_with("version 1 got a request"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reversible_migrations_are_shown_with_their_checklist_confirmed_and_never_run() {
    let origins = origins().await;
    let directory = tempfile::tempdir().unwrap();
    let proof = directory.path().join("it-ran");
    let more = format!(
        "database: {{reverse_command: \"touch {}\", checklist: [\"orders are exported\"]}}\n",
        proof.display()
    );
    let proxy = Proxy::start(&config(&origins, "", &more));
    must(&proxy, &["schema", "set", "shop", "4"]);
    let shown = must(&proxy, &["schema", "reverse", "shop"]);
    for part in [
        &*proof.to_string_lossy(),
        "Never rehearsed",
        "orders are exported",
        "never runs",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    must(&proxy, &["schema", "rehearsed", "shop", "--took", "12m"]);
    must(
        &proxy,
        &[
            "schema",
            "reverse",
            "shop",
            "--confirm",
            "--reason",
            "orders are lost",
        ],
    );
    let answer = proxy.get("/v1/services/shop/schema/reverse").await;
    assert_eq!(answer["rehearsed"]["took_s"], 720);
    assert_eq!(answer["confirmed"]["by"], "admin");
    assert_eq!(answer["confirmed"]["reason"], "orders are lost");
    let holds = |text: &str| {
        let items = answer["checklist"].as_array().unwrap();
        let item = items
            .iter()
            .find(|item| item["text"].as_str().unwrap().contains(text));
        item.unwrap_or_else(|| panic!("{text}: {answer}"))["holds"].clone()
    };
    assert_eq!(holds("rehearsed elsewhere"), true);
    assert_eq!(holds("orders are exported"), Value::Null);
    let audit = proxy.get("/v1/audit").await;
    let entry = &audit["entries"][0];
    assert_eq!(entry["action"], "schema_reverse_confirmed");
    assert_eq!(
        (&entry["by"], &entry["reason"]),
        (&json!("admin"), &json!("orders are lost"))
    );
    let methods = proxy.get("/v1/services/shop/methods").await;
    let database = methods["methods"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(database["method"], "database_rollback");
    assert_eq!(database["p50_us"], 720_000_000_u64);
    assert!(!proof.exists(), "it was run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_only_fix_says_what_it_can_live_with_when_it_is_registered() {
    let origins = origins().await;
    let proxy = Proxy::start(&config(&origins, "", ""));
    must(&proxy, &["schema", "set", "shop", "5"]);
    let url = origins[1].url();
    let register = |reads: &'static str| {
        [
            "backend",
            "set",
            "shop",
            "green",
            "--version",
            "2.1",
            "--endpoint",
            &url,
            "--schema-reads",
            reads,
            "--schema-writes",
            "5",
            "--migration",
            "expand",
        ]
        .map(str::to_owned)
    };
    let arguments = register("3,4");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (code, _, why) = proxy.cli(&arguments);
    assert_eq!(code, 1, "{why}");
    assert!(
        why.contains("a version has to read what it writes"),
        "{why}"
    );
    let arguments = register("4,5");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    must(&proxy, &arguments);
    let backend = proxy.service().await["effective"]["backends"]["green"].clone();
    assert_eq!(backend["schema"], json!({"reads": [4, 5], "writes": 5}));
    assert_eq!(backend["migration"], "expand");
    eventually_async("the fix is known to work", || async {
        proxy.cli(&["switch", "shop", "--to", "green"]).0 == 0
    })
    .await;
}
