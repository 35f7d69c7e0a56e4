//! Verbs about the past: what changed, what differs from then, and bringing it back.

use anstream::println;
use http::Method;
use jiff::Timestamp;
use owo_colors::OwoColorize;
use serde_json::{Value, json};

use super::Failed;
use super::args::{DiffArgs, HistoryArgs, RestoreArgs};
use super::client::Client;
use super::look::{table, time};
use super::verbs::{print_answer, print_json_or, segment, text};
use crate::age;

/// Sentences of a revision that a line of the table has room for.
const NOTES_SHOWN: usize = 3;

/// A table of revisions, or one with everything it changed.
pub(super) async fn history(client: &Client, args: HistoryArgs) -> Result<u8, Failed> {
    if let Some(revision) = args.revision {
        let answer = client.get(&format!("/v1/revisions/{revision}")).await?;
        print_json_or(client, &answer, print_revision);
        return Ok(0);
    }
    let service = match args.service.as_deref() {
        Some(service) => format!("&service={}", segment(service)?),
        None => String::new(),
    };
    let path = format!("/v1/revisions?limit={}{service}", args.limit);
    let answer = client.get(&path).await?;
    print_json_or(client, &answer, |answer| {
        let heads = [
            "REVISION", "AGE", "SERVICE", "BY", "VIA", "ACTION", "WHAT", "REASON",
        ];
        let mut table = table(&heads);
        for revision in items(&answer["revisions"]) {
            table.add_row(row(revision).to_vec());
        }
        println!("{table}");
        if !answer["next_before"].is_null() {
            println!("there is more; --limit 500 shows most of it");
        }
    });
    Ok(0)
}

fn row(revision: &Value) -> [String; 8] {
    let changes = revision["changes"].as_object().into_iter().flatten();
    let services = changes.map(|(name, _)| name.clone());
    let flags = revision["flags"].as_object().into_iter().flatten();
    let flags = flags.map(|(name, _)| format!("flag {name}"));
    let subjects: Vec<String> = services.chain(flags).collect();
    let notes: Vec<String> = items(&revision["notes"]).map(text).collect();
    let mut what = notes[..notes.len().min(NOTES_SHOWN)].join("; ");
    if let Some(more) = notes.len().checked_sub(NOTES_SHOWN + 1) {
        what.push_str(&format!("; and {} more", more + 1));
    }
    [
        text(&revision["revision"]),
        age_of(&revision["at"]),
        subjects.join(", "),
        text(&revision["by"]),
        text(&revision["via"]),
        text(&revision["action"]),
        what,
        text(&revision["reason"]),
    ]
}

fn age_of(at: &Value) -> String {
    let at = at.as_str().and_then(|at| at.parse().ok());
    at.map_or(String::new(), |at| age::between(at, Timestamp::now()))
}

fn print_revision(revision: &Value) {
    println!(
        "{} {}, {} ago: {}",
        "revision".bold(),
        revision["revision"].bold(),
        age_of(&revision["at"]),
        text(&revision["action"])
    );
    let how = match revision["how"].as_str() {
        Some(how) => format!(" ({how})"),
        None => String::new(),
    };
    println!("  at     {}", time(&revision["at"]));
    println!(
        "  by     {} via {}{how}",
        text(&revision["by"]),
        text(&revision["via"])
    );
    if let Some(reason) = revision["reason"].as_str() {
        println!("  why    {reason}");
    }
    for note in items(&revision["notes"]) {
        println!("  what   {}", text(note));
    }
    print_differences(revision);
}

/// What differs between a revision and another, or what is in force now.
pub(super) async fn diff(client: &Client, args: DiffArgs) -> Result<u8, Failed> {
    let mut query = Vec::new();
    query.extend(args.to.map(|to| format!("to={to}")));
    if let Some(service) = &args.service {
        query.push(format!("service={}", segment(service)?));
    }
    let path = format!("/v1/revisions/{}/diff?{}", args.revision, query.join("&"));
    let answer = client.get(&path).await?;
    print_json_or(client, &answer, |answer| {
        let to = match answer["current"] == true {
            true => "what is in force now".to_owned(),
            false => format!("revision {}", answer["to"]),
        };
        if items(&answer["differences"]).next().is_none() {
            println!("no difference between revision {} and {to}", args.revision);
        } else {
            println!("from revision {} to {to}", args.revision);
        }
        print_differences(answer);
        let unknown = ["unknown", "unknown_flags"].map(|key| items(&answer[key]));
        for name in unknown.into_iter().flatten() {
            println!("{}: its changes since then are no longer kept", text(name));
        }
    });
    Ok(0)
}

/// Field by field, what was and what is.
pub(super) fn print_differences(answer: &Value) {
    let mut subject = String::new();
    for found in items(&answer["differences"]) {
        let of = match found["flag"].as_str() {
            Some(flag) => format!("flag {flag}"),
            None => text(&found["service"]),
        };
        if of != subject {
            println!("{}", of.bold());
            subject = of;
        }
        let field = text(&found["field"]);
        if !found["before"].is_null() {
            println!(
                "  {}",
                format!("- {field}: {}", value(&found["before"])).red()
            );
        }
        if !found["after"].is_null() {
            println!(
                "  {}",
                format!("+ {field}: {}", value(&found["after"])).green()
            );
        }
    }
}

/// A list without its brackets and quotes.
fn value(value: &Value) -> String {
    match value.as_array() {
        Some(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        None => text(value),
    }
}

/// Brings back what was in force after a revision.
pub(super) async fn restore(client: &Client, args: RestoreArgs) -> Result<u8, Failed> {
    let mut body = json!({"force": args.force});
    if let Some(service) = &args.service {
        body["service"] = service.as_str().into();
    }
    let path = format!("/v1/revisions/{}/restore", args.revision);
    let answer = client.write(Method::POST, &path, body, &args.write).await?;
    print_json_or(client, &answer, print_restored);
    Ok(0)
}

fn print_restored(answer: &Value) {
    let number = &answer["restored"];
    match (answer["changed"] == true, answer["dry_run"] == true) {
        (false, _) => println!("everything is as it was after revision {number}"),
        (true, true) => {
            println!("restoring revision {number} would change");
            print_differences(answer);
        }
        (true, false) => {
            for service in items(&answer["services"]) {
                print_answer(service);
            }
            for flag in items(&answer["flags"]) {
                println!("flag {} is restored", text(flag));
            }
            if answer["before_switch"] == "skipped" {
                println!("  {}", "hooks for before_switch were not asked".yellow());
            }
        }
    }
    for conflict in items(&answer["conflicts"]) {
        println!("{}", said(conflict, &"conflict".yellow()));
    }
    for left in items(&answer["not_restored"]) {
        println!("{}", said(left, &"not restored".yellow()));
    }
}

fn said(said: &Value, kind: &dyn std::fmt::Display) -> String {
    let of = [text(&said["service"]), text(&said["flag"])];
    let of = of.into_iter().find(|name| !name.is_empty());
    let of = of.map_or(String::new(), |name| format!("{name}: "));
    format!("{of}{kind}: {}", text(&said["reason"]))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
