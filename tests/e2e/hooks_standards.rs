//! Hooks as others understand them: Standard Webhooks and CloudEvents by the libraries of their makers,
//! alerts by the real Alertmanager, messages for Slack by what its documentation asks for.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    Http, Origin, Process, Proxy, Receiver, blue_green, client, eventually, eventually_async,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A receiver in Python, and its port.
fn python_receiver(secret: &str) -> (Process, String) {
    let mut command = client("hook_receiver.py");
    let receiver = Process::start(command.env("HOOK_SECRET", secret), false);
    let port = receiver.line();
    (receiver, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_webhooks_and_cloudevents_understand_our_messages() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let (receiver, port) = python_receiver(SECRET);
    let hooks = format!(
        "hooks: [{{on: [all], http: \"http://127.0.0.1:{port}/hook\", secret_file: hook.secret, retries: 0}}]"
    );
    let directory = tempfile::tempdir().unwrap();
    // The old secret is still there while the receiver knows the new one already.
    let secrets = format!("an older secret of 24 bytes\n{SECRET}\n");
    std::fs::write(directory.path().join("hook.secret"), secrets).unwrap();
    let config = blue_green(&blue.url(), &green.url(), &hooks);
    std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
    let proxy = Proxy::start_in(directory);
    proxy.weights(90, 10).await;
    proxy.post("/v1/services/shop/rollback", Value::Null).await;
    let understood = [receiver.line(), receiver.line()];
    let understood = understood.map(|line| serde_json::from_str::<Value>(&line).unwrap());
    for (event, kind) in understood
        .iter()
        .zip(["switchback.weights", "switchback.rollback"])
    {
        assert!(event["error"].is_null(), "{event}");
        assert_eq!(event["type"], kind);
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["source"], "/services/shop");
        assert_eq!(event["data"]["service"], "shop");
    }
    assert_eq!(understood[1]["subject"], "green");
    // The file is read for every attempt: with another secret the receiver refuses at once.
    std::fs::write(
        proxy.path().join("hook.secret"),
        "another secret of 24 bytes",
    )
    .unwrap();
    proxy
        .post("/v1/services/shop/backends/green/unblock", Value::Null)
        .await;
    let refused: Value = serde_json::from_str(&receiver.line()).unwrap();
    let error = refused["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("WebhookVerificationError"), "{refused}");
    eventually_async("it is a dead letter", || async {
        let dead = proxy.get("/v1/hooks/dead").await;
        dead["dead"][0]["last"]["result"] == "400 Bad Request"
    })
    .await;
}

/// The names of the alerts that fire for the service.
async fn firing(alertmanager: std::net::SocketAddr) -> Vec<Value> {
    let answer = Http::connect(alertmanager)
        .await
        .get("/api/v2/alerts")
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let alerts = answer.json();
    let alerts = alerts.as_array().unwrap().iter();
    let ours = alerts.filter(|alert| alert["labels"]["service"] == "shop");
    ours.cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alertmanager_takes_our_alerts_and_their_end() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("alertmanager.yml");
    std::fs::write(
        &config,
        "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n",
    )
    .unwrap();
    let mut command = Command::new("prometheus-alertmanager");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", directory.path().display()))
        .args([
            "--web.listen-address=127.0.0.1:0",
            "--cluster.listen-address=",
        ]);
    let alertmanager = Process::start(&mut command, true);
    let address = loop {
        let line = alertmanager.line();
        if let Some((_, address)) = line.split_once("address=127.0.0.1:") {
            let port: String = address.chars().take_while(char::is_ascii_digit).collect();
            break format!("127.0.0.1:{port}").parse().unwrap();
        }
    };
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let hooks = format!("hooks: [{{on: [all], http: \"http://{address}\", preset: alertmanager}}]");
    let proxy = Proxy::blue_green(&blue, &green, &hooks);
    proxy.weights(90, 10).await;
    proxy.post("/v1/services/shop/rollback", Value::Null).await;
    let name = |alert: &Value| alert["labels"]["alertname"].as_str().unwrap().to_owned();
    let mut alert = Value::Null;
    eventually_async("the rollback fires", || async {
        firing(address)
            .await
            .iter()
            .any(|alert| name(alert) == "SwitchbackRolledBack")
    })
    .await;
    for found in firing(address).await {
        if name(&found) == "SwitchbackRolledBack" {
            alert = found;
        }
    }
    assert_eq!(alert["status"]["state"], "active", "{alert}");
    assert_eq!(alert["labels"]["severity"], "warning");
    assert_eq!(alert["annotations"]["backend"], "green");
    let description = alert["annotations"]["description"].as_str().unwrap();
    assert!(description.contains("green rolled back"), "{alert}");
    // Once a version is stable again, that trouble is over.
    proxy
        .post("/v1/services/shop/backends/green/unblock", Value::Null)
        .await;
    let body = json!({"to": "green", "force": true});
    proxy.post("/v1/services/shop/switch", body).await;
    eventually_async("the alert is resolved", || async {
        let alerts = firing(address).await;
        !alerts
            .iter()
            .any(|alert| name(alert) == "SwitchbackRolledBack")
    })
    .await;
    assert_eq!(proxy.get("/v1/hooks/dead").await["dead"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slack_gets_a_text_and_blocks() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let slack = Receiver::start().await;
    let hooks = format!(
        "hooks: [{{on: [rollback], http: \"{}\", preset: slack}}]",
        slack.url()
    );
    let proxy = Proxy::blue_green(&blue, &green, &hooks);
    proxy.weights(90, 10).await;
    let body = json!({"reason": "p99 > 2s & climbing"});
    proxy.post("/v1/services/shop/rollback", body).await;
    eventually("it is told", || !slack.seen().is_empty());
    let message = &slack.seen()[0];
    assert_eq!(message.path, "/hook");
    assert_eq!(message.header("content-type"), "application/json");
    let text = message.body["text"].as_str().unwrap();
    assert!(
        text.contains("*shop* rollback: green rolled back"),
        "{text}"
    );
    assert_eq!(message.body["blocks"][0]["text"]["text"], text);
}
