//! What a stranger makes of the OpenAPI document: schemathesis tries everything that it allows, and what
//! it forbids, against the running process, and looks whether answers are what it promises.

use std::process::Command;

use serde_json::Value;

use crate::support::{Origin, Proxy, python};

/// Checks that leave out the token or send a wrong one: an address has ten such tries a minute. openapi.rs
/// asks for every operation without a token.
const WITHOUT_TOKEN: &str = "ignored_auth,missing_required_header";

/// Tests the API through its document; the summary if all is well.
async fn fuzz(seed: &str, examples: &str) -> String {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    proxy.weights(90, 10).await;
    let tool = python().replace("bin/python", "bin/schemathesis");
    let config = format!(
        "{}/tests/clients/schemathesis.toml",
        env!("CARGO_MANIFEST_DIR")
    );
    let address = format!("http://{}/openapi.json", proxy.admin);
    let token = format!("Authorization: Bearer {}", proxy.token);
    let directory = proxy.path().to_owned();
    let arguments = [
        "--config-file",
        &config,
        "run",
        &address,
        "-H",
        &token,
        "--checks",
        "all",
        "--exclude-checks",
        WITHOUT_TOKEN,
        "--seed",
        seed,
        "--max-examples",
        examples,
        "--warnings",
        "off",
    ]
    .map(str::to_owned);
    let output = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(&tool);
        command
            .args(arguments)
            .current_dir(directory)
            .env("NO_COLOR", "1");
        command
            .output()
            .unwrap_or_else(|error| panic!("{tool}: {error}; tests/run installs it"))
    })
    .await
    .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Whatever was tried, nothing is broken.
    let after = proxy.api("GET", "/v1/services/shop", Value::Null).await;
    assert_eq!(after.status, 200);
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stranger_finds_the_api_as_its_document_says() {
    let said = fuzz("1", "8").await;
    assert!(said.contains("No issues found"), "{said}");
}

/// With `SWITCHBACK_RUNS`, as `tests/run --all` sets it: more examples, and other ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stranger_who_stays_longer_finds_nothing_either() {
    if std::env::var_os("SWITCHBACK_RUNS").is_none() {
        return;
    }
    for seed in ["2", "3", "4"] {
        fuzz(seed, "60").await;
    }
}

#[test]
fn kept_document_is_valid_openapi() {
    let tool = python().replace("bin/python", "bin/openapi-spec-validator");
    let output = Command::new(&tool)
        .arg(format!("{}/tests/openapi.json", env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error}; tests/run installs it"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
