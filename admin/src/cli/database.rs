//! Verbs about the database behind a service.

use anstream::println;
use http::Method;
use owo_colors::OwoColorize;
use serde_json::{Value, json};

use super::Failed;
use super::args::{GateVerb, SchemaVerb, WriteArgs};
use super::client::Client;
use super::look::{right, table, time};
use super::verbs::{print_json_or, segment, text};

/// Carries out a verb about a schema.
pub(super) async fn carry_out(client: &Client, verb: SchemaVerb) -> Result<u8, Failed> {
    match verb {
        SchemaVerb::Show { service } => show(client, &service).await,
        SchemaVerb::Set {
            service,
            version,
            write,
        } => {
            let body = json!({"version": version});
            change(client, &service, (Method::PUT, ""), body, &write).await
        }
        SchemaVerb::Phase {
            service,
            phase,
            schema,
            force,
            write,
        } => {
            let body = json!({"phase": phase.as_str(), "schema": schema, "force": force});
            change(client, &service, (Method::POST, "/phase"), body, &write).await
        }
        SchemaVerb::Rehearsed {
            service,
            took,
            write,
        } => {
            let body = json!({"took": took});
            change(client, &service, (Method::POST, "/rehearsed"), body, &write).await
        }
        SchemaVerb::Reverse {
            service,
            confirm: true,
            write,
        } => {
            let of = (Method::POST, "/reverse");
            change(client, &service, of, json!({}), &write).await
        }
        SchemaVerb::Reverse { service, .. } => reverse(client, &service).await,
    }
}

fn path(service: &str, what: &str) -> Result<String, Failed> {
    Ok(format!("/v1/services/{}/schema{what}", segment(service)?))
}

async fn change(
    client: &Client,
    service: &str,
    (method, what): (Method, &str),
    body: Value,
    write: &WriteArgs,
) -> Result<u8, Failed> {
    let answer = client
        .write(method, &path(service, what)?, body, write)
        .await?;
    let after = client.get(&path(service, "")?).await?;
    print_json_or(client, &answer, |answer| {
        if answer["dry_run"] == true {
            println!("{service}: this would change");
            for line in answer["diff"].as_str().into_iter().flat_map(str::lines) {
                println!("  {}", line.cyan());
            }
            for note in answer["notes"].as_array().into_iter().flatten() {
                println!("  {}", text(note));
            }
            return;
        }
        if answer["changed"] == false {
            println!("{service}: nothing to change");
        }
        print(&after);
    });
    Ok(0)
}

async fn show(client: &Client, service: &str) -> Result<u8, Failed> {
    let answer = client.get(&path(service, "")?).await?;
    print_json_or(client, &answer, print);
    Ok(0)
}

fn print(answer: &Value) {
    let schema = match answer["schema"]["version"].as_u64() {
        Some(version) => format!("schema {version}"),
        None => "nobody has said which schema the database has".to_owned(),
    };
    println!("{}: {}", text(&answer["service"]).bold(), schema);
    if let Some(phase) = answer["release"]["phase"].as_str() {
        let release = &answer["release"];
        let free = match answer["rollback_is_free"] == true {
            true => "everything can be rolled back".green().to_string(),
            false => format!(
                "what could not live with schema {} cannot come back",
                release["leaves"]
            )
            .yellow()
            .to_string(),
        };
        let (by, at) = (text(&release["by"]), time(&release["at"]));
        println!("  phase {phase} since {at}, by {by}: {free}");
    }
    let mut table = table(&[
        "BACKEND",
        "VERSION",
        "WEIGHT",
        "READS",
        "WRITES",
        "MIGRATION",
        "LAST REQUEST",
        "MAY GET TRAFFIC",
    ]);
    right(&mut table, &[2]);
    for backend in answer["backends"].as_array().into_iter().flatten() {
        let reads = backend["schema"]["reads"].as_array();
        let reads = reads.map(|reads| reads.iter().map(text).collect::<Vec<_>>().join(", "));
        table.add_row(vec![
            text(&backend["backend"]),
            text(&backend["version"]),
            text(&backend["weight"]),
            reads.unwrap_or_default(),
            text(&backend["schema"]["writes"]),
            text(&backend["migration"]),
            time(&backend["last_request"]),
            match backend["refused"].is_null() {
                true => "yes".to_owned(),
                false => "no".to_owned(),
            },
        ]);
    }
    for other in answer["others"].as_array().into_iter().flatten() {
        let mut row = vec![String::new(), text(&other["version"])];
        row.resize(6, String::new());
        row.push(time(&other["last_request"]));
        table.add_row(row);
    }
    println!("{table}");
    for backend in answer["backends"].as_array().into_iter().flatten() {
        if let Some(why) = backend["refused"].as_str() {
            println!("{}", why.yellow());
        }
    }
}

async fn reverse(client: &Client, service: &str) -> Result<u8, Failed> {
    let answer = client.get(&path(service, "/reverse")?).await?;
    print_json_or(client, &answer, print_reverse);
    Ok(0)
}

fn print_reverse(answer: &Value) {
    let service = text(&answer["service"]);
    println!("{}", "switchback never runs a reverse migration.".bold());
    match answer["command"].as_str() {
        Some(command) => println!("The command:\n  {}", command.bold()),
        None => println!(
            "Nobody has written its command down: services.{service}.database.reverse_command"
        ),
    }
    match answer["rehearsed_ago"].as_str() {
        Some(ago) => println!(
            "Last rehearsed {ago} ago, by {}",
            text(&answer["rehearsed"]["by"])
        ),
        None => println!("{}", "Never rehearsed.".red()),
    }
    println!("\nBefore:");
    for item in answer["checklist"].as_array().into_iter().flatten() {
        let mark = match item["holds"].as_bool() {
            Some(true) => "[x]".green().to_string(),
            Some(false) => "[!]".red().to_string(),
            None => "[ ]".to_owned(),
        };
        println!("  {mark} {}", text(&item["text"]));
    }
    if let Some(at) = answer["confirmed"]["at"].as_str() {
        println!(
            "\nLast confirmed at {at} by {}",
            text(&answer["confirmed"]["by"])
        );
    }
    println!(
        "\nThen record it, run the command yourself, and say where the database is:\n  {}\n  {}",
        format!("switchback schema reverse {service} --confirm --reason '…'").bold(),
        format!("switchback schema set {service} N").bold(),
    );
}

/// Asks a gate: exit 0 if it is open, else 1.
pub(super) async fn gate(client: &Client, verb: GateVerb) -> Result<u8, Failed> {
    let GateVerb::Contract { service, schema } = verb;
    let path = format!("/v1/services/{}/gates/contract", segment(&service)?);
    let options = WriteArgs::default();
    let body = json!({"schema": schema});
    let answer = client.write(Method::POST, &path, body, &options).await?;
    let open = answer["open"] == true;
    print_json_or(client, &answer, |answer| match open {
        true => println!(
            "{service}: {}: the contract to schema {} may begin",
            "open".green().bold(),
            answer["leaves"]
        ),
        false => {
            println!(
                "{service}: {}:",
                "the contract must not begin yet".red().bold()
            );
            for reason in answer["reasons"].as_array().into_iter().flatten() {
                println!("  {}", text(reason));
            }
        }
    });
    Ok(u8::from(!open))
}
