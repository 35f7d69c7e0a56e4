//! Verbs about runbooks. Whoever carries one out sees each step as it ends, and how long it took.

use std::time::Duration;

use anstream::println;
use http::Method;
use owo_colors::OwoColorize;
use serde_json::{Value, json};

use super::args::{Output, RunbookVerb, WayBack, WriteArgs};
use super::client::Client;
use super::look::table;
use super::verbs::{print_json_or, segment, text};
use super::{Failed, exit};

/// From one look at a run to the next.
const LOOK: Duration = Duration::from_millis(250);

/// Carries out a verb.
pub(super) async fn carry_out(client: &Client, verb: RunbookVerb) -> Result<u8, Failed> {
    match verb {
        RunbookVerb::List => list(client).await,
        RunbookVerb::Show { service } => {
            let run = client.get(&path(&service)?).await?;
            print_json_or(client, &run, print_run);
            Ok(0)
        }
        RunbookVerb::Run {
            service,
            runbook,
            method,
            detach,
            write,
        } => {
            let dry_run = write.dry_run;
            let body = json!({"runbook": runbook, "method": method.map(WayBack::as_str)});
            let answer = send(client, &service, "", body, write.into()).await?;
            if detach || dry_run {
                print_json_or(client, &answer, |answer| print_run(&answer["run"]));
                return Ok(0);
            }
            follow(client, &service).await
        }
        RunbookVerb::Tick {
            service,
            step,
            skip,
            method,
            write,
        } => {
            let step = match step {
                Some(step) => json!(step),
                None => client.get(&path(&service)?).await?["step"].clone(),
            };
            let method = method.map(WayBack::as_str);
            let body = json!({"step": step, "skip": skip, "method": method});
            let answer = send(client, &service, "/tick", body, write.into()).await?;
            print_json_or(client, &answer, |answer| print_run(&answer["run"]));
            Ok(0)
        }
        RunbookVerb::Stop { service, write } => {
            let answer = send(client, &service, "/stop", json!({}), write.into()).await?;
            print_json_or(client, &answer, |answer| print_run(&answer["run"]));
            Ok(0)
        }
    }
}

fn path(service: &str) -> Result<String, Failed> {
    Ok(format!("/v1/services/{}/runbook", segment(service)?))
}

async fn send(
    client: &Client,
    service: &str,
    what: &str,
    body: Value,
    write: WriteArgs,
) -> Result<Value, Failed> {
    let path = format!("{}{what}", path(service)?);
    Ok(client.write(Method::POST, &path, body, &write).await?)
}

/// Shows each step as it ends, until the run ends or waits for somebody.
async fn follow(client: &Client, service: &str) -> Result<u8, Failed> {
    let mut shown = 0;
    loop {
        let run = client.get(&path(service)?).await?;
        let ended = !run["ended"].is_null();
        let step = run["step"].as_u64().unwrap_or_default();
        let done = if ended { u64::MAX } else { step - 1 };
        let steps = run["steps"].as_array().into_iter().flatten();
        if client.output != Output::Json {
            for step in steps {
                let number = step["number"].as_u64().unwrap_or_default();
                if number > shown && number <= done {
                    print_step(step);
                    shown = number;
                }
            }
        }
        // After an escalation steps are done again.
        shown = shown.min(done);
        let waits = run["status"] == "waiting";
        if !ended && !waits {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        match client.output {
            Output::Json => println!("{run:#}"),
            Output::Table | Output::Markdown => print_standing(&run),
        }
        return Ok(match run["ended"]["outcome"].as_str() {
            Some("completed") => 0,
            _ => exit::HELD,
        });
    }
}

async fn list(client: &Client) -> Result<u8, Failed> {
    let answer = client.get("/v1/runbooks").await?;
    print_json_or(client, &answer, |answer| {
        let mut table = table(&["RUNBOOK", "TRIGGER", "SERVICES", "STEPS"]);
        for book in answer["runbooks"].as_array().into_iter().flatten() {
            let services = book["services"].as_array().into_iter().flatten();
            let services: Vec<String> = services.map(text).collect();
            let steps = book["steps"].as_array().map_or(0, Vec::len);
            table.add_row(vec![
                text(&book["runbook"]),
                text(&book["trigger"]),
                services.join(" "),
                steps.to_string(),
            ]);
        }
        println!("{table}");
        for run in answer["runs"].as_array().into_iter().flatten() {
            print_standing(run);
        }
    });
    Ok(0)
}

fn print_run(run: &Value) {
    for step in run["steps"].as_array().into_iter().flatten() {
        print_step(step);
    }
    print_standing(run);
}

fn print_step(step: &Value) {
    let status = match step["status"].as_str() {
        Some("done") => "done".green().to_string(),
        Some("running") => "now".yellow().to_string(),
        Some("skipped") => "skipped".yellow().to_string(),
        _ => "to come".to_owned(),
    };
    let mut times = Vec::new();
    if let Some(took) = step["took"].as_str() {
        times.push(took.to_owned());
    }
    if let Some(duration) = step["duration"].as_str() {
        times.push(format!("planned {duration}"));
    }
    if step["overdue"] == true {
        times.push("too long".red().to_string());
    }
    let (number, name) = (&step["number"], text(&step["name"]));
    println!("{number}. {}: {status} ({})", name.bold(), times.join(", "));
    for finding in step["findings"].as_array().into_iter().flatten() {
        println!("     {}", text(finding));
    }
}

fn print_standing(run: &Value) {
    let name = format!("{} {}", text(&run["service"]), text(&run["runbook"]));
    if let Some(reason) = run["ended"]["reason"].as_str() {
        println!("{}: {}: {reason}", name.bold(), text(&run["status"]));
        return;
    }
    let step = &run["step"];
    match run["waits_for"]["reason"].as_str() {
        Some(reason) => println!(
            "{}: step {step} waits: {reason}\n  switchback runbook tick {}",
            name.bold(),
            text(&run["service"])
        ),
        None => println!("{}: step {step} is under way", name.bold()),
    }
}
