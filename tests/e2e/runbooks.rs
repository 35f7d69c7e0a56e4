//! Runbooks: read as they are kept elsewhere, begun by their triggers, ticked by people, gone on with after a
//! restart.

use serde_json::{Value, json};

use crate::support::{HEAD, Load, Origin, Protocol, Proxy, Receiver, eventually_async};

/// The template of the reference, word by word.
const TEMPLATE: &str = r#"rollback_runbook:
  trigger: "Error rate > 5% for 5 minutes after deployment"

  steps:
    - name: "Assess impact"
      action: "Check error rate, affected users, business impact"
      duration: "2 min"

    - name: "Decide rollback method"
      action: "Feature flag > config > blue/green > redeploy"
      duration: "1 min"

    - name: "Execute rollback"
      action: "Run rollback command for chosen method"
      duration: "Varies (see speed table)"

    - name: "Verify recovery"
      action: "Confirm error rate returned to baseline"
      duration: "5 min"

    - name: "Communicate"
      action: "Notify stakeholders, update status page"
      duration: "5 min"

    - name: "Post-incident"
      action: "Schedule postmortem, create follow-up tickets"
      duration: "After recovery"
"#;

/// Nobody but people, rules and runbooks roll anything back.
const NO_JUDGE: &str = "min_requests: 1000000000";

fn config(blue: &Origin, green: &Origin, service: &str, more: &str) -> String {
    format!(
        "{HEAD}{more}services:
  shop:
    stable: blue
    weights: {{blue: 100, green: 0}}
    backends:
      blue: {{version: \"1\", endpoints: [\"{}\"]}}
      green: {{version: \"2\", endpoints: [\"{}\"], off_on_rollback: [new]}}
{service}flags: {{new: {{default: true}}}}
",
        blue.url(),
        green.url()
    )
}

fn start(config: &str, runbook: &str) -> Proxy {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
    std::fs::write(directory.path().join("rollback.yaml"), runbook).unwrap();
    Proxy::start_in(directory)
}

async fn run_is(proxy: &Proxy, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually_async(what, || async {
        let answer = proxy.api("GET", "/v1/services/shop/runbook", Value::Null);
        let answer = answer.await;
        answer.status == 200 && holds(&answer.json())
    })
    .await;
    proxy.get("/v1/services/shop/runbook").await
}

fn findings(run: &Value, step: usize) -> String {
    let findings = run["steps"][step]["findings"].as_array().unwrap();
    let findings: Vec<&str> = findings.iter().map(|text| text.as_str().unwrap()).collect();
    findings.join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runbook_template_is_read_as_it_is_and_its_trigger_is_a_rule() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    // In a file of its own, and pasted into the configuration.
    let pasted: String = TEMPLATE.lines().map(|line| format!("  {line}\n")).collect();
    for more in [
        "runbooks: {rollback: rollback.yaml}\n",
        &format!("runbooks:\n{pasted}"),
    ] {
        let proxy = start(&config(&blue, &green, "", more), TEMPLATE);
        let all = proxy.get("/v1/runbooks").await;
        let book = &all["runbooks"][0];
        assert_eq!(book["rule"], "error_rate > 5% for 5m");
        assert_eq!(book["services"], json!(["shop"]));
        let kinds: Vec<&str> = book["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["kind"].as_str().unwrap())
            .collect();
        let expected = [
            "assess",
            "decide",
            "execute",
            "verify",
            "communicate",
            "post_incident",
        ];
        assert_eq!(kinds, expected);
        let config = proxy.get("/v1/config").await;
        let rules = &config["config"]["services"]["shop"]["rollback"]["rules"];
        assert_eq!(*rules, json!(["error_rate > 5% for 5m"]));
        let (code, out, _) = proxy.cli(&["runbook", "list"]);
        assert_eq!(code, 0);
        assert!(
            out.contains("Error rate > 5% for 5 minutes after deployment"),
            "{out}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runbook_template_goes_from_its_trigger_to_the_report() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let receiver = Receiver::start().await;
    let service = format!(
        "    rollback: {{{NO_JUDGE}, verify: 1s}}\n    hooks: [{{on: [runbook_start, runbook_status, runbook_end], http: \"{}\"}}]\n",
        receiver.url()
    );
    let runbook = TEMPLATE.replace("5 minutes", "1 second");
    let more = "runbooks: {rollback: rollback.yaml}\n";
    let proxy = start(&config(&blue, &green, &service, more), &runbook);
    proxy.weights(50, 50).await;
    let mut load = Load::start(proxy.web, Protocol::Http1, 2);
    green.answer_with(500);
    let run = run_is(&proxy, "the runbook is completed", |run| {
        run["status"] == "completed"
    })
    .await;
    load.stop().await;
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    assert_eq!(service["backends"]["green"]["blocked"]["cause"], "rule");
    assert_eq!(
        run["trigger"],
        "Error rate > 5% for 1 second after deployment"
    );
    assert_eq!(run["method"], "traffic");
    assert!(
        findings(&run, 0).contains("requests failed in the last"),
        "{run:#}"
    );
    assert!(
        findings(&run, 1).contains("green (2) has been rolled back already"),
        "{run:#}"
    );
    let id = run["rollback"].as_u64().unwrap();
    let record = proxy.get(&format!("/v1/rollbacks/{id}")).await;
    assert_eq!(record["recovery"]["state"], "recovered");
    assert!(findings(&run, 3).contains(record["recovery"]["sentence"].as_str().unwrap()));
    assert!(
        findings(&run, 5).contains(&format!("switchback incident {id}")),
        "{run:#}"
    );
    for step in run["steps"].as_array().unwrap() {
        assert_eq!(step["status"], "done");
        assert!(step["took"].is_string(), "{step}");
    }
    eventually_async("hooks are told", || async { receiver.types().len() == 3 }).await;
    let told = receiver.types();
    let expected = ["runbook_start", "runbook_status", "runbook_end"];
    assert_eq!(told, expected.map(|kind| format!("switchback.{kind}")));
    let text = receiver.seen()[1].body["data"]["message"].clone();
    assert!(
        text.as_str().unwrap().contains("errors are back to usual"),
        "{text}"
    );
    // What it was about is over: it does not begin again.
    let (_, out, _) = proxy.cli(&["events"]);
    assert_eq!(out.matches("runbook_started").count(), 1, "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_that_only_tells_begins_a_runbook_that_takes_nothing_away_unasked() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let service = format!("    rollback: {{{NO_JUDGE}, verify: 1s, on_failure: notify}}\n");
    let runbook = TEMPLATE.replace("5 minutes", "1 second");
    let more = "runbooks: {rollback: rollback.yaml}\n";
    let proxy = start(&config(&blue, &green, &service, more), &runbook);
    // About stable alone it begins nothing: the trigger is about deployments.
    let mut load = Load::start(proxy.web, Protocol::Http1, 2);
    blue.answer_with(500);
    eventually_async("the rule fires about stable", || async {
        !proxy.service().await["rules_firing"]
            .as_array()
            .unwrap()
            .is_empty()
    })
    .await;
    assert!(proxy.service().await["runbook"].is_null());
    blue.answer_with(200);
    green.answer_with(500);
    proxy.weights(50, 50).await;
    let run = run_is(&proxy, "it asks", |run| {
        run["waits_for"]["for"] == "approval"
    })
    .await;
    assert_eq!(run["step"], 2, "{run:#}");
    assert!(
        findings(&run, 1).contains("flag: new would go off"),
        "{run:#}"
    );
    assert_eq!(proxy.service().await["weights"]["green"], 50);
    assert_eq!(proxy.get("/v1/flags/new").await["enabled"], true);
    let body = json!({"step": 2, "method": "traffic"});
    let agreed = proxy.post("/v1/services/shop/runbook/tick", body).await;
    assert_eq!(agreed.status, 200, "{}", agreed.text());
    let run = run_is(&proxy, "it is completed", |run| {
        run["status"] == "completed"
    })
    .await;
    load.stop().await;
    assert_eq!(
        (&run["method"], &run["steps"][1]["ticked_by"]),
        (&json!("traffic"), &json!("admin"))
    );
    assert_eq!(proxy.service().await["weights"]["green"], 0);
    // The rollback itself turns off what came with its version.
    assert_eq!(proxy.get("/v1/flags/new").await["enabled"], false);
}

const BY_HAND: &str = r#"
services: [shop]
steps:
  - {name: Drain the queue, action: "stop the workers", duration: 1s}
  - {name: Decide, action: "blue/green > redeploy", approve: true}
  - {name: Execute, action: go back}
  - {name: Tell the shift lead, action: call}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_wait_for_a_tick_from_command_line_or_api_also_after_a_restart() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "runbooks: {rollback: rollback.yaml}\n";
    let service = format!("    rollback: {{{NO_JUDGE}}}\n");
    let mut proxy = start(&config(&blue, &green, &service, more), BY_HAND);
    proxy.weights(50, 50).await;
    let (code, out, err) = proxy.cli(&["runbook", "run", "shop", "--reason", "orders fail"]);
    assert_eq!(code, 11, "{err}");
    assert!(out.contains("step 1 waits: stop the workers"), "{out}");
    // Nothing else begins meanwhile.
    let again = proxy.post("/v1/services/shop/runbook", json!({})).await;
    assert_eq!(
        (again.status, again.json()["code"].clone()),
        (409, json!("runbook_running"))
    );
    let run = run_is(&proxy, "the step is late", |run| {
        run["steps"][0]["overdue"] == true
    })
    .await;
    assert_eq!(run["status"], "waiting");
    proxy.crash_and_restart();
    let run = proxy.get("/v1/services/shop/runbook").await;
    assert_eq!(
        (&run["step"], &run["status"]),
        (&json!(1), &json!("waiting"))
    );
    let (code, out, err) = proxy.cli(&["runbook", "tick", "shop", "--reason", "queue is empty"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("ticked by admin: queue is empty"), "{out}");
    // A tick for a step that is over ticks no other.
    let late = proxy
        .post("/v1/services/shop/runbook/tick", json!({"step": 1}))
        .await;
    assert_eq!(
        (late.status, late.json()["code"].clone()),
        (409, json!("not_this_step"))
    );
    assert_eq!(proxy.service().await["weights"]["green"], 50);
    let agreed = proxy
        .post("/v1/services/shop/runbook/tick", json!({"step": 2}))
        .await;
    assert_eq!(agreed.status, 200, "{}", agreed.text());
    let run = run_is(&proxy, "it has gone back", |run| run["step"] == 4).await;
    assert!(findings(&run, 1).contains("traffic: "), "{run:#}");
    assert!(
        findings(&run, 2).contains("traffic is back, in force everywhere after"),
        "{run:#}"
    );
    assert_eq!(proxy.service().await["weights"]["green"], 0);
    let (code, out, err) = proxy.cli(&["runbook", "tick", "shop", "--skip"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("completed: all 4 steps are done"), "{out}");
    let audit = proxy.get("/v1/audit").await.to_string();
    for verb in ["runbook_start", "runbook_tick", "runbook_step", "rollback"] {
        assert!(audit.contains(&format!("\"action\":\"{verb}\"")), "{verb}");
    }
    let (code, _, err) = proxy.cli(&["runbook", "tick", "shop"]);
    assert_eq!(code, 75, "{err}");
}

const FLAG_FIRST: &str = r#"
steps:
  - {name: Decide, action: "feature flag > traffic"}
  - {name: Execute, action: go back}
  - {name: Verify, action: look, duration: 2s}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn way_back_that_does_not_help_is_followed_by_the_next_one() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "runbooks: {rollback: rollback.yaml}\n";
    let service = format!("    rollback: {{{NO_JUDGE}, verify: 1s}}\n");
    let proxy = start(&config(&blue, &green, &service, more), FLAG_FIRST);
    proxy.weights(50, 50).await;
    let mut load = Load::start(proxy.web, Protocol::Http1, 2);
    green.answer_with(500);
    let begun = proxy
        .post("/v1/services/shop/runbook", json!({"reason": "it fails"}))
        .await;
    assert_eq!(begun.status, 200, "{}", begun.text());
    let run = run_is(&proxy, "the runbook is completed", |run| {
        run["status"] == "completed"
    })
    .await;
    load.stop().await;
    assert_eq!(run["method"], "traffic");
    assert!(
        findings(&run, 0).contains("flag: was tried and did not help"),
        "{run:#}"
    );
    assert!(findings(&run, 1).contains("flag new is off"), "{run:#}");
    assert_eq!(proxy.get("/v1/flags/new").await["enabled"], false);
    assert_eq!(proxy.service().await["weights"]["green"], 0);
    let (_, out, _) = proxy.cli(&["events"]);
    assert!(out.contains("flag did not help"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_revert_of_a_runbook_takes_an_operator() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "runbooks: {rollback: rollback.yaml}\n";
    let runbook = FLAG_FIRST.replace("feature flag > traffic", "config > traffic");
    let service = format!("    rollback: {{{NO_JUDGE}}}\n");
    let before = config(&blue, &green, &service, more);
    let proxy = start(&before, &runbook);
    proxy.write_config(&before.replace("blue: 100, green: 0", "blue: 60, green: 40"));
    assert_eq!(proxy.post("/v1/reload", Value::Null).await.status, 200);
    assert_eq!(proxy.service().await["weights"]["green"], 40);
    let begun = proxy.post("/v1/services/shop/runbook", json!({})).await;
    assert_eq!(begun.status, 200, "{}", begun.text());
    eventually_async("the file's change is reverted", || async {
        proxy.service().await["weights"]["green"] == 0
    })
    .await;
    let run = proxy.get("/v1/services/shop/runbook").await;
    assert_eq!(run["method"], "config", "{run:#}");
    // It was a change of the split, and no version is to blame.
    assert!(proxy.service().await["backends"]["green"]["blocked"].is_null());
    assert_eq!(
        proxy
            .post("/v1/services/shop/runbook/stop", Value::Null)
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_revert_of_a_trigger_takes_an_operator_too() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let runbook = TEMPLATE
        .replace("5 minutes", "1 second")
        .replace("Feature flag > config > blue/green", "config > blue/green");
    let service = format!("    rollback: {{{NO_JUDGE}, on_failure: notify}}\n");
    let made = ["rollback", "operator"].map(|role| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_switchback"))
            .args(["token", "new", "--name", role, "--role", role, "-o", "json"])
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    });
    let lines = made.each_ref().map(|token| {
        format!(
            "- {{name: {}, role: {}, sha256: {}}}\n",
            token["name"], token["role"], token["sha256"]
        )
    });
    let [night, operator] = made.map(|token| token["token"].as_str().unwrap().to_owned());
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("tokens.yaml"), lines.concat()).unwrap();
    std::fs::write(directory.path().join("rollback.yaml"), runbook).unwrap();
    let more = "runbooks: {rollback: rollback.yaml}\n";
    let before = config(&blue, &green, &service, more)
        .replace("admin: {", "admin: {tokens_file: tokens.yaml, ");
    std::fs::write(directory.path().join("switchback.yaml"), &before).unwrap();
    let mut proxy = Proxy::start_in(directory);
    operator.clone_into(&mut proxy.token);
    proxy.write_config(&before.replace("blue: 100, green: 0", "blue: 60, green: 40"));
    assert_eq!(proxy.post("/v1/reload", Value::Null).await.status, 200);
    let load = Load::start(proxy.web, Protocol::Http1, 2);
    green.answer_with(500);
    let asks = |findings: usize| {
        move |run: &Value| {
            let reason = run["waits_for"]["reason"].as_str().unwrap_or_default();
            run["step"] == 2
                && reason.contains("only an operator can agree")
                && run["steps"][1]["findings"].as_array().unwrap().len() > findings
        }
    };
    run_is(&proxy, "an operator is asked", asks(0)).await;
    night.clone_into(&mut proxy.token);
    let path = "/v1/services/shop/runbook/tick";
    let body = json!({"step": 2, "method": "config"});
    assert_eq!(proxy.post(path, body).await.status, 403);
    assert_eq!(proxy.post(path, json!({"step": 2})).await.status, 200);
    // Held again: the tick is a finding, and what is found after it another.
    run_is(&proxy, "it is asked again", asks(2)).await;
    assert_eq!(proxy.service().await["weights"]["green"], 40);
    operator.clone_into(&mut proxy.token);
    let agreed = proxy.post(path, json!({"step": 2})).await;
    assert_eq!(agreed.status, 200, "{}", agreed.text());
    run_is(&proxy, "it is restored", |run| run["method"] == "config").await;
    eventually_async("the file's change is reverted", || async {
        proxy.service().await["weights"]["green"] == 0
    })
    .await;
    drop(load);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runbook_that_is_not_understood_is_refused_with_the_words_that_are() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "runbooks: {rollback: rollback.yaml}\n";
    let file = config(&blue, &green, "", more);
    let proxy = start(&file, TEMPLATE);
    for (from, to, word) in [
        (
            "Error rate > 5%",
            "Latency > 5%",
            "the words understood are: \"error rate\"",
        ),
        (
            "> redeploy",
            "> prayer",
            "the words understood are: feature flag",
        ),
        ("2 min", "2 moments", "this is not a duration"),
        ("steps:", "stepz:", "did you mean steps?"),
        (
            "  steps:",
            "  services: [shp]\n  steps:",
            "there is no service \"shp\"",
        ),
    ] {
        std::fs::write(
            proxy.path().join("rollback.yaml"),
            TEMPLATE.replacen(from, to, 1),
        )
        .unwrap();
        let (code, out, _) = proxy.cli(&["check", "switchback.yaml"]);
        assert_eq!(code, 78, "{to}: {out}");
        assert!(out.contains(word), "{to}: {out}");
        let refused = proxy.post("/v1/reload", Value::Null).await;
        assert_eq!(refused.json()["code"], "config_file_refused", "{to}");
    }
    assert_eq!(
        proxy.get("/v1/runbooks").await["runbooks"][0]["steps"][0]["kind"],
        "assess"
    );
    let unknown = json!({"runbook": "rolback"});
    let refused = proxy.post("/v1/services/shop/runbook", unknown).await;
    assert_eq!(
        (refused.status, refused.json()["code"].clone()),
        (404, json!("unknown_runbook"))
    );
}
