//! `drill`: rehearses a rollback, and says what held.

use anstream::println;
use http::Method;
use owo_colors::OwoColorize;
use serde_json::{Value, json};

use super::Failed;
use super::args::WriteArgs;
use super::client::Client;
use super::look::time;
use super::verbs::{print_json_or, segment, text};

/// How long a drill may take: rules need their own time beside the judge.
pub(super) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(180);

/// Rehearses a rollback; exit 1 if something did not hold. `last`: only tells of the last time.
pub(super) async fn drill(
    client: &Client,
    service: &str,
    live: bool,
    last: bool,
    reason: Option<String>,
) -> Result<u8, Failed> {
    let path = format!("/v1/services/{}/drill", segment(service)?);
    let record = match last {
        true => client.get(&path).await?,
        false => {
            let options = WriteArgs {
                reason,
                ..WriteArgs::default()
            };
            let body = json!({"live": live});
            client.write(Method::POST, &path, body, &options).await?
        }
    };
    print_json_or(client, &record, |record| print(service, record));
    Ok(u8::from(record["passed"] != true))
}

fn print(service: &str, record: &Value) {
    for check in record["checks"].as_array().into_iter().flatten() {
        let mark = match check["passed"] == true {
            true => "ok".green().to_string(),
            false => "FAILED".red().to_string(),
        };
        println!(
            "{mark} {} ({} ms)\n     {}",
            text(&check["name"]).bold(),
            check["took_ms"],
            text(&check["finding"])
        );
    }
    let outcome = match record["passed"] == true {
        true => "passed".green().to_string(),
        false => "failed".red().to_string(),
    };
    println!(
        "{}: the drill {outcome}, {} ms, by {} at {}",
        service.bold(),
        record["took_ms"],
        text(&record["by"]),
        time(&record["at"])
    );
}
