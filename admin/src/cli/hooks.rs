//! Verbs about hooks.

use anstream::println;
use http::Method;
use owo_colors::OwoColorize;
use serde_json::{Value, json};

use super::Failed;
use super::args::{HooksVerb, WriteArgs};
use super::client::Client;
use super::look::table;
use super::verbs::{print_json_or, text};

/// Carries out a verb.
pub(super) async fn carry_out(client: &Client, verb: HooksVerb) -> Result<u8, Failed> {
    match verb {
        HooksVerb::List => list(client).await,
        HooksVerb::Deliveries => {
            let answer = client.get("/v1/hooks/deliveries?limit=500").await?;
            print_json_or(client, &answer, |answer| {
                print_deliveries(&[
                    ("waiting", &answer["waiting"]),
                    ("delivered", &answer["delivered"]),
                ]);
            });
            Ok(0)
        }
        HooksVerb::Dead => {
            let answer = client.get("/v1/hooks/dead?limit=500").await?;
            print_json_or(client, &answer, |answer| {
                print_deliveries(&[("dead", &answer["dead"])]);
            });
            Ok(0)
        }
        HooksVerb::Retry { id, all } => {
            each(client, id, all, Method::POST, "/retry", "sent again").await
        }
        HooksVerb::Drop { id, all } => each(client, id, all, Method::DELETE, "", "dropped").await,
    }
}

async fn list(client: &Client) -> Result<u8, Failed> {
    let answer = client.get("/v1/hooks").await?;
    print_json_or(client, &answer, |answer| {
        let mut table = table(&["SERVICE", "HOOK", "ON", "DOES", "TIMEOUT", "RETRIES"]);
        for hook in answer["hooks"].as_array().into_iter().flatten() {
            let words = |list: &Value| {
                let words: Vec<String> = list.as_array().into_iter().flatten().map(text).collect();
                words
            };
            let does = match (&hook["http"], &hook["run"]) {
                (Value::String(url), _) => format!("{} {url}", text(&hook["preset"])),
                (_, run @ Value::Array(_)) => words(run).join(" "),
                _ => "waits".into(),
            };
            table.add_row(vec![
                text(&hook["service"]),
                text(&hook["name"]),
                words(&hook["on"]).join(", "),
                does,
                text(&hook["timeout"]),
                text(&hook["retries"]),
            ]);
        }
        println!("{table}");
        println!("{} waiting, {} dead", answer["waiting"], answer["dead"]);
    });
    Ok(0)
}

fn print_deliveries(lists: &[(&str, &Value)]) {
    let mut table = table(&[
        "ID", "STATE", "SERVICE", "HOOK", "EVENT", "AT", "ATTEMPTS", "RESULT",
    ]);
    for (state, list) in lists {
        for delivery in list.as_array().into_iter().flatten() {
            let (event, last) = (&delivery["event"], &delivery["last"]);
            table.add_row(vec![
                text(&delivery["id"]),
                (*state).to_owned(),
                text(&event["data"]["service"]),
                text(&delivery["hook"]),
                text(&event["data"]["event"]),
                text(&event["time"]),
                text(&delivery["attempts"]),
                text(&last["result"]),
            ]);
        }
    }
    println!("{table}");
}

/// Does something about one dead letter, or all of them.
async fn each(
    client: &Client,
    id: Option<u64>,
    all: bool,
    method: Method,
    what: &str,
    done: &str,
) -> Result<u8, Failed> {
    let ids: Vec<u64> = match id {
        Some(id) => vec![id],
        None if all => {
            let answer = client.get("/v1/hooks/dead?limit=500").await?;
            let dead = answer["dead"].as_array().into_iter().flatten();
            let mut ids: Vec<u64> = dead.filter_map(|letter| letter["id"].as_u64()).collect();
            // Newest first is how they are listed; they are sent again in their order.
            ids.reverse();
            ids
        }
        None => {
            return Err(Failed::with_code(
                "name a dead letter by its id, or use --all",
                2,
            ));
        }
    };
    let mut answers = Vec::new();
    for id in ids {
        let path = format!("/v1/hooks/dead/{id}{what}");
        let options = WriteArgs::default();
        answers.push(
            client
                .write(method.clone(), &path, json!({}), &options)
                .await?,
        );
    }
    print_json_or(client, &json!(answers), |answers| {
        for answer in answers.as_array().into_iter().flatten() {
            println!("{} {done}", answer["id"].bold());
        }
    });
    Ok(0)
}
