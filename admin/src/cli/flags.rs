//! Verbs about feature flags.

use std::path::Path;

use anstream::println;
use http::Method;
use owo_colors::OwoColorize;
use serde_json::{Map, Value, json};
use switchback_config::diagnostic::render_all;

use super::args::{FlagVerb, WriteArgs};
use super::client::Client;
use super::history::print_differences;
use super::look::{everywhere, table};
use super::verbs::{print_json_or, segment, text};
use super::{Failed, exit};

/// Carries out a verb.
pub(super) async fn carry_out(client: &Client, verb: FlagVerb) -> Result<u8, Failed> {
    match verb {
        FlagVerb::List => list(client).await,
        FlagVerb::Eval { flag, key, context } => eval(client, &flag, key, &context).await,
        FlagVerb::Off { flag, write } => {
            change(client, Method::POST, &flag, "/off", json!({}), write.into()).await
        }
        FlagVerb::On { flag, write } => {
            change(client, Method::POST, &flag, "/on", json!({}), write.into()).await
        }
        FlagVerb::Unset { flag, write } => {
            change(client, Method::DELETE, &flag, "", json!({}), write.into()).await
        }
        FlagVerb::Set {
            flag,
            from: Some(path),
            write,
            ..
        } => {
            let body = json!({"flag": read(&path)?});
            change(client, Method::PUT, &flag, "", body, write.into()).await
        }
        FlagVerb::Set {
            flag,
            shares,
            write,
            ..
        } => {
            let body = json!({"shares": parse_shares(&shares)?});
            change(client, Method::PUT, &flag, "/shares", body, write.into()).await
        }
    }
}

/// A flag from a file, with everything written out.
fn read(path: &Path) -> Result<Value, Failed> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failed::new(format!("read {name}: {error}")))?;
    let flag = switchback_config::parse_flag(&text).map_err(|faults| {
        let message = render_all(&faults, &text, &name, false);
        Failed::with_code(message, exit::CONFIG)
    })?;
    Ok(json!(flag))
}

fn parse_shares(written: &[String]) -> Result<Map<String, Value>, Failed> {
    let mut shares = Map::new();
    for item in written {
        let (variant, share) = item.split_once('=').unwrap_or(("on", item));
        if shares.insert(variant.to_owned(), share.into()).is_some() {
            return Err(Failed::with_code(format!("{variant} is given twice"), 2));
        }
    }
    Ok(shares)
}

async fn change(
    client: &Client,
    method: Method,
    flag: &str,
    what: &str,
    body: Value,
    write: WriteArgs,
) -> Result<u8, Failed> {
    let path = format!("/v1/flags/{}{what}", segment(flag)?);
    let answer = client.write(method, &path, body, &write).await?;
    print_json_or(client, &answer, print_written);
    Ok(0)
}

fn print_written(answer: &Value) {
    let flag = text(&answer["flag"]);
    if answer["changed"] == false {
        println!("{flag}: nothing to change");
        return;
    }
    if answer["dry_run"] == true {
        println!("{flag}: this would change");
        print_differences(answer);
        return;
    }
    let is = match &answer["enabled"] {
        Value::Bool(true) => "on".green().to_string(),
        Value::Bool(false) => "off".red().to_string(),
        _ => "gone".to_owned(),
    };
    println!(
        "{}: {is}, revision {}, in force {}",
        flag.bold(),
        answer["revision"],
        everywhere(answer),
    );
    if answer["durable"] == false {
        let what = "it will be persisted as soon as the disk allows";
        println!("  {}: {what}", "not yet durable".yellow());
    }
}

async fn list(client: &Client) -> Result<u8, Failed> {
    let answer = client.get("/v1/flags").await?;
    print_json_or(client, &answer, |answer| {
        let mut table = table(&["FLAG", "STATE", "SAYS", "SHARES", "RULES", "ANSWERS"]);
        let flags = || answer["flags"].as_array().into_iter().flatten();
        for flag in flags() {
            let effective = &flag["effective"];
            let pairs = |map: &Value| {
                let pairs = map.as_object().into_iter().flatten();
                let pairs: Vec<String> = pairs
                    .map(|(name, v)| format!("{name}={}", text(v)))
                    .collect();
                pairs.join(" ")
            };
            table.add_row(vec![
                text(&flag["flag"]),
                state(flag).to_owned(),
                text(match flag["enabled"] == true && flag["closed"] == false {
                    true => &effective["default"],
                    false => &effective["off"],
                }),
                pairs(&effective["shares"]),
                effective["rules"]
                    .as_array()
                    .map_or(0, Vec::len)
                    .to_string(),
                pairs(&flag["answers"]),
            ]);
        }
        println!("{table}");
        for conflict in flags().filter_map(|flag| flag["conflict"].as_str()) {
            println!("{conflict}");
        }
        if answer["kill_switches_believed"] == false {
            let why = "the recorded state cannot be read: all kill switches are off";
            println!("{}", why.red().bold());
        }
    });
    Ok(0)
}

fn state(flag: &Value) -> &'static str {
    match () {
        () if flag["closed"] == true => "closed",
        () if flag["enabled"] == false => "off",
        () if flag["kill_switch"] == true => "on (kill switch)",
        () => "on",
    }
}

async fn eval(
    client: &Client,
    flag: &str,
    key: Option<String>,
    written: &[String],
) -> Result<u8, Failed> {
    let mut context = Map::new();
    for item in written {
        let Some((name, value)) = item.split_once('=') else {
            let message = format!("{item:?} is no attribute: write plan=gold");
            return Err(Failed::with_code(message, 2));
        };
        let value = match serde_json::from_str(value) {
            Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
            _ => value.into(),
        };
        context.insert(name.to_owned(), value);
    }
    if let Some(key) = key {
        context.insert("targetingKey".to_owned(), key.into());
    }
    let path = format!("/v1/flags/{}/evaluate", segment(flag)?);
    let body = json!({"context": context});
    let options = WriteArgs::default();
    let answer = client.write(Method::POST, &path, body, &options).await?;
    print_json_or(client, &answer, |answer| {
        let (value, variant) = (&answer["value"], text(&answer["variant"]));
        println!("{}: {variant} ({})", value.bold(), text(&answer["reason"]));
    });
    Ok(0)
}
