//! Verbs about ways back: `ready`, `methods` and `diagnose`.

use anstream::println;
use owo_colors::OwoColorize;
use serde_json::Value;
use switchback_config::units::TimeSpan;

use super::Failed;
use super::client::Client;
use super::look::{microseconds, right, table, time};
use super::verbs::{print_json_or, segment, text};

/// What is said of a way whose time nobody has measured.
const NOT_MEASURED: &str = "not measured yet";

/// Exit 0 if the service can be rolled back right now, else 1 with reasons.
pub(super) async fn ready(client: &Client, service: &str) -> Result<u8, Failed> {
    let path = format!("/v1/services/{}/ready", segment(service)?);
    let answer = client.get(&path).await?;
    print_json_or(client, &answer, |answer| {
        let name = text(&answer["service"]);
        match answer["ready"] == true {
            true => println!(
                "{}: {} to roll back, to {}",
                name.bold(),
                "ready".green().bold(),
                text(&answer["target"])
            ),
            false => println!("{}: {} to roll back", name.bold(), "not ready".red().bold()),
        }
        for check in answer["checks"].as_array().into_iter().flatten() {
            let mark = match check["ok"] == true {
                true => "ok".green().to_string(),
                false => "no".red().to_string(),
            };
            println!(
                "  {mark}  {}: {}",
                text(&check["check"]),
                text(&check["text"])
            );
        }
    });
    Ok(u8::from(answer["ready"] != true))
}

/// The ways back beside each other.
pub(super) async fn methods(client: &Client, service: &str) -> Result<u8, Failed> {
    let path = format!("/v1/services/{}/methods", segment(service)?);
    let answer = client.get(&path).await?;
    print_json_or(client, &answer, |answer| {
        let mut table = table(&[
            "METHOD",
            "P50",
            "P99",
            "MEASURED",
            "LAST",
            "LAST DRILLED",
            "DATA RISK",
            "DONE BY",
        ]);
        right(&mut table, &[1, 2, 3]);
        for method in answer["methods"].as_array().into_iter().flatten() {
            let (p50, p99) = speeds(method);
            table.add_row(vec![
                text(&method["name"]),
                p50,
                p99,
                text(&method["measured"]),
                time(&method["last"]),
                match method["last_drill"].is_null() {
                    true => "never".to_owned(),
                    false => time(&method["last_drill"]),
                },
                text(&method["data_risk"]),
                text(&method["done_by"]),
            ]);
        }
        println!("{table}");
    });
    Ok(0)
}

/// Half of the times, and 99 of a hundred, as far as they were measured.
fn speeds(method: &Value) -> (String, String) {
    match method["p50_us"].is_null() {
        true => (NOT_MEASURED.to_owned(), String::new()),
        false => (
            microseconds(&method["p50_us"]),
            microseconds(&method["p99_us"]),
        ),
    }
}

/// What is wrong, and what to do about it.
pub(super) async fn diagnose(
    client: &Client,
    service: &str,
    within: Option<TimeSpan>,
) -> Result<u8, Failed> {
    let query = within.map_or(String::new(), |within| {
        format!("?within={}", within.to_string().replace(' ', "%20"))
    });
    let path = format!("/v1/services/{}/diagnose{query}", segment(service)?);
    let answer = client.get(&path).await?;
    print_json_or(client, &answer, print_diagnosis);
    Ok(0)
}

fn print_diagnosis(answer: &Value) {
    let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    println!("{}", text(&answer["finding"]).bold());
    println!("\n{}", "Who errs".dimmed());
    let none = |name: &str, word: &str| {
        if list(name).is_empty() {
            println!("  {word}");
        }
    };
    none("errors", "nobody");
    for errors in list("errors") {
        let before = match errors["since_before"] == true {
            true => " or earlier",
            false => "",
        };
        println!(
            "  {} (version {}) since {}{before}: {} of {} requests in the last minute",
            text(&errors["backend"]),
            text(&errors["version"]),
            time(&errors["since"]),
            errors["failures"],
            errors["requests"],
        );
    }
    println!(
        "\n{}",
        format!("What changed in the last {} min", answer["within_min"]).dimmed()
    );
    none("changes", "nothing");
    for change in list("changes") {
        println!(
            "  {} revision {}: {} by {}",
            time(&change["at"]),
            change["revision"],
            text(&change["action"]),
            text(&change["by"]),
        );
    }
    println!("\n{}", "The tree".dimmed());
    for question in list("tree") {
        let answer = match question["answer"] == true {
            true => "yes".yellow().to_string(),
            false => "no".to_owned(),
        };
        println!(
            "  {} {answer}: {}",
            text(&question["question"]),
            text(&question["because"])
        );
    }
    println!("\n{}", "What to do, the best first".dimmed());
    for method in list("methods") {
        let command = text(&method["command"]);
        let command = match method["possible"] == true {
            true => command.bold().to_string(),
            false => format!("{} (not now)", command.dimmed()),
        };
        println!("  {command}");
        let speed = match speeds(&method) {
            (p50, p99) if p99.is_empty() => p50,
            (p50, p99) => format!("{p50}, at most {p99} ({} measured)", method["measured"]),
        };
        println!(
            "      {}: {}",
            text(&method["name"]),
            text(&method["because"])
        );
        println!("      time: {speed}; data: {}", text(&method["data_risk"]));
    }
}
