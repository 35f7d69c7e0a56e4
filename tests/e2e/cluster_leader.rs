//! What one instance does for all: drills that are due, runbooks that a rule begins, rollouts.

use serde_json::{Value, json};

use crate::support::etcd::{Instances, ROLLOUT, begin_rollout, origins};
use crate::support::{Load, Protocol, Proxy, Receiver, blue_green, eventually_async};

/// Entries of an instance's audit with one of these actions, the oldest first.
async fn audited(proxy: &Proxy, actions: &[&str]) -> Vec<Value> {
    let page = proxy.get("/v1/audit?limit=100").await;
    let entries = page["entries"].as_array().unwrap().iter().rev();
    let meant = entries.filter(|entry| actions.contains(&entry["action"].as_str().unwrap()));
    meant
        .map(|entry| json!([entry["action"], entry["result"]]))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drill_that_is_due_takes_place_on_one_instance_and_is_on_record_on_all() {
    let (blue, green) = origins().await;
    let receiver = Receiver::start().await;
    let drill = format!(
        "drill: {{every: 30d}}\nhooks: [{{name: proof, on: [drill_passed, drill_failed], http: \"{}\"}}]\n",
        receiver.url()
    );
    let config = blue_green(&blue.url(), &green.url(), &drill);
    let mut fleet = Instances::start(3, &config, "2s").await;
    let on_record = async |fleet: &Instances| {
        for proxy in &fleet.proxies {
            eventually_async("the drill is on record", || async {
                let answer = proxy.api("GET", "/v1/services/shop/drill", Value::Null);
                let answer = answer.await;
                answer.status == 200 && answer.json()["passed"] == true
            })
            .await;
        }
    };
    on_record(&fleet).await;
    let first = fleet.proxies[0].get("/v1/services/shop/drill").await;
    // Another one leads, and leaves it at that: looking takes a second.
    drop(fleet.proxies.remove(fleet.leader()));
    fleet.have_joined().await;
    eventually_async("another one leads", || async {
        fleet.values("fleet/leader").len() == 1
    })
    .await;
    on_record(&fleet).await;
    eventually_async("it is told", || async { !receiver.types().is_empty() }).await;
    for proxy in &fleet.proxies {
        let record = proxy.get("/v1/services/shop/drill").await;
        assert_eq!(record, first, "there is one");
        let told = audited(proxy, &["drill_start", "drill_passed", "drill_failed"]).await;
        assert_eq!(
            told,
            [
                json!(["drill_start", "done"]),
                json!(["drill_passed", "done"])
            ]
        );
    }
    assert_eq!(receiver.types(), ["switchback.drill_passed"]);
}

const RUNBOOK: &str = r#"runbooks:
  mend:
    trigger: "Error rate > 5% for 1 second after deployment"
    steps:
      - {name: "Assess impact", action: "Check error rate"}
      - {name: "Communicate", action: "Notify stakeholders"}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runbook_that_a_rule_begins_is_carried_out_by_one_instance() {
    let (blue, green) = origins().await;
    let receiver = Receiver::start().await;
    let service = format!(
        "rollback: {{min_requests: 1000000000, verify: 1s}}\nhooks: [{{on: [runbook_start, runbook_status, runbook_end], http: \"{}\"}}]\n",
        receiver.url()
    );
    let config = blue_green(&blue.url(), &green.url(), &service) + RUNBOOK;
    let fleet = Instances::start(3, &config, "10s").await;
    fleet.proxies[0].weights(50, 50).await;
    // The rule holds on every instance.
    let mut loads = fleet.loads();
    green.answer_with(500);
    for proxy in &fleet.proxies {
        eventually_async("the run is over, as all know", || async {
            let answer = proxy.api("GET", "/v1/services/shop/runbook", Value::Null);
            let answer = answer.await;
            answer.status == 200 && answer.json()["status"] == "completed"
        })
        .await;
    }
    for load in &mut loads {
        load.stop().await;
    }
    eventually_async("it is told", || async { receiver.types().len() >= 3 }).await;
    let first = fleet.proxies[0].get("/v1/services/shop/runbook").await;
    for proxy in &fleet.proxies {
        assert_eq!(proxy.get("/v1/services/shop/runbook").await, first);
        let began = audited(proxy, &["runbook_start"]).await;
        assert_eq!(began, [json!(["runbook_start", "done"])]);
    }
    let told = receiver.types();
    let expected = ["runbook_start", "runbook_status", "runbook_end"];
    assert_eq!(told, expected.map(|kind| format!("switchback.{kind}")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_that_holds_where_nobody_leads_begins_the_runbook_all_the_same() {
    let (blue, green) = origins().await;
    for on_failure in ["rollback", "notify"] {
        green.answer_with(200);
        let service = format!(
            "rollback: {{min_requests: 1000000000, verify: 1s, on_failure: {on_failure}}}\n"
        );
        let config = blue_green(&blue.url(), &green.url(), &service) + RUNBOOK;
        let fleet = Instances::start(2, &config, "10s").await;
        fleet.proxies[0].weights(50, 50).await;
        let follower = &fleet.proxies[1 - fleet.leader()];
        let mut load = Load::start(follower.web, Protocol::Http1, 1);
        green.answer_with(500);
        eventually_async("the run has begun", || async {
            let answer = follower.api("GET", "/v1/services/shop/runbook", Value::Null);
            answer.await.status == 200
        })
        .await;
        load.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_a_rollout_is_taken_once() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), ROLLOUT);
    let fleet = Instances::start(3, &config, "10s").await;
    let loads = fleet.loads();
    begin_rollout(&fleet.proxies[0]).await;
    for proxy in &fleet.proxies {
        eventually_async("green is stable", || async {
            proxy.service().await["stable"] == "green"
        })
        .await;
    }
    for load in loads {
        load.finish().await;
    }
    let history = fleet.proxies[0].get("/v1/revisions").await;
    for proxy in &fleet.proxies {
        assert_eq!(proxy.get("/v1/revisions").await, history);
        // Nobody else has tried: a second one would have come too late, and be on record.
        let told = audited(proxy, &["rollout_start", "progress"]).await;
        let expected = ["rollout_start", "progress", "progress"];
        assert_eq!(told, expected.map(|action| json!([action, "done"])));
    }
}
