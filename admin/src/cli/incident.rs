//! Rollbacks and their evidence: a list, one of them, its report.

use anstream::{print, println};
use owo_colors::OwoColorize;
use serde::Deserialize;
use serde_json::Value;

use super::Failed;
use super::args::Output;
use super::client::Client;
use super::look::{table, time};
use super::verbs::{print_json_or, segment, text};
use crate::api::views::rollback::Rollback;
use crate::incident::{Incident, markdown};

/// A table of rollbacks.
pub(super) async fn list(client: &Client, service: Option<&str>) -> Result<u8, Failed> {
    let mut path = "/v1/rollbacks?limit=500".to_owned();
    if let Some(service) = service {
        path = format!("{path}&service={}", segment(service)?);
    }
    let answer = client.get(&path).await?;
    print_json_or(client, &answer, |answer| {
        let keys = [
            "id", "at", "service", "backend", "version", "cause", "by", "recovery", "sentence",
        ];
        let heads = keys.map(str::to_uppercase);
        let mut table = table(&heads.each_ref().map(String::as_str));
        for rollback in answer["rollbacks"].as_array().into_iter().flatten() {
            let cell = |key| match key {
                "at" => time(&rollback[key]),
                key => text(&rollback[key]),
            };
            table.add_row(keys.map(cell).to_vec());
        }
        println!("{table}");
    });
    Ok(0)
}

/// One rollback.
pub(super) async fn show(client: &Client, id: Option<u64>, verify: bool) -> Result<u8, Failed> {
    let id = match id {
        Some(id) => id,
        None => last(client).await?,
    };
    let answer = client.get(&format!("/v1/rollbacks/{id}")).await?;
    if verify {
        return Ok(print_check(client, &answer));
    }
    if client.output == Output::Json {
        println!("{answer:#}");
        return Ok(0);
    }
    let shown = Rollback::deserialize(&answer)
        .map_err(|error| Failed::new(format!("read the record of rollback {id}: {error}")))?;
    if client.output == Output::Markdown {
        let report = markdown(&Incident {
            record: &shown.record,
            replayed: shown.replayed,
            replay_problem: shown.replay_problem.as_deref(),
            timeline: &shown.timeline,
        });
        print!("{report}");
    } else {
        print_facts(&answer);
    }
    Ok(0)
}

async fn last(client: &Client) -> Result<u64, Failed> {
    let answer = client.get("/v1/rollbacks?limit=1").await?;
    let last = answer["rollbacks"][0]["id"].as_u64();
    last.ok_or_else(|| Failed::new("there was no rollback yet"))
}

fn print_check(client: &Client, answer: &Value) -> u8 {
    let problem = answer["replay_problem"].as_str();
    match (client.output, problem) {
        (Output::Json, _) => println!(
            "{:#}",
            serde_json::json!({"id": answer["id"], "replayed": answer["replayed"], "replay_problem": problem})
        ),
        (_, Some(problem)) => println!("{}: {problem}", "the record does not hold".red()),
        (_, None) if answer["replayed"] == true => println!(
            "{}: told the same again, the judge comes to the same verdict at the same tick",
            "verified".green()
        ),
        _ => println!("there is no judge's verdict in this record"),
    }
    u8::from(problem.is_some())
}

fn print_facts(answer: &Value) {
    let mut facts = table(&["", ""]);
    for key in [
        "id",
        "at",
        "service",
        "backend",
        "version",
        "stable",
        "cause",
        "by",
        "sentence",
        "applied_in_us",
        "replayed",
    ] {
        let value = match key {
            "at" => time(&answer[key]),
            key => text(&answer[key]),
        };
        facts.add_row(vec![key.to_owned(), value]);
    }
    let recovery = &answer["recovery"];
    let recovered = format!(
        "{}: {}",
        text(&recovery["state"]),
        text(&recovery["sentence"])
    );
    facts.add_row(vec!["recovery".to_owned(), recovered]);
    println!("{facts}");
    let mut reached = table(&["VERSION", "REACHED", "REQUESTS", "CLIENTS"]);
    for version in answer["versions"].as_array().into_iter().flatten() {
        for (what, key) in [
            ("touched it", "touched"),
            ("saw its error", "saw_error"),
            ("were rescued", "rescued"),
        ] {
            let reach = &version["impact"][key];
            let counts = ["requests", "clients"].map(|count| text(&reach[count]));
            let [requests, clients] = counts;
            reached.add_row(vec![
                text(&version["version"]),
                what.into(),
                requests,
                clients,
            ]);
        }
    }
    println!("{reached}");
    for action in answer["actions"].as_array().into_iter().flatten() {
        println!("{} {}", time(&action["at"]), text(&action["what"]));
    }
    println!(
        "The report: switchback incident {} -o markdown",
        text(&answer["id"])
    );
}
