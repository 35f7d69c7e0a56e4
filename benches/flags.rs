//! How many flags one core evaluates in a second: `just flags`, or
//! `cargo bench -p switchback-proxy --bench flags`.
//!
//! Each evaluation is what an application is answered with, without the connection: its context is read
//! from JSON, its key is hashed, the flag is evaluated, and the answer is written as JSON. The kinds of
//! flags differ in what there is to look at.
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program that prints figures"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use switchback_config::model::Flag;
use switchback_proxy::flag::{Asker, Trust, evaluate};
use switchback_proxy::split::key_hash;

/// How long each kind is measured.
const TIME: Duration = Duration::from_secs(2);

/// Contexts, as they are sent.
const CONTEXTS: usize = 1_000;

fn main() {
    let mut rules = String::from("{share: 5%, rules: [");
    for number in 0..20 {
        let _ = write!(
            rules,
            "{{when: {{plan: [a{number}, b{number}], age: {{above: {number}}}}}, serve: true}}, "
        );
    }
    rules.push_str("]}");
    let kinds = [
        ("on for everybody", "default: true".to_owned()),
        ("kill switch", "kill_switch: true".to_owned()),
        ("5 % of keys", "share: 5%".to_owned()),
        ("20 rules that do not match, 5 % of keys", rules),
    ];
    let trust = Trust::new(Instant::now() + Duration::from_secs(3_600));
    let contexts: Vec<String> = (0..CONTEXTS).map(context).collect();
    println!("| flag | evaluations/s | with its context from and its answer to JSON |");
    println!("| --- | --- | --- |");
    for (name, text) in kinds {
        let Ok(flag) = switchback_config::parse_flag(&text) else {
            println!("| {name} | not valid | |");
            continue;
        };
        let read: Vec<Map<String, Value>> = contexts.iter().map(|text| parse(text)).collect();
        let bare = rate(|index| say(&flag, &trust, &read[index % CONTEXTS]).0.len());
        let whole = rate(|index| {
            let context = parse(&contexts[index % CONTEXTS]);
            let (variant, value, reason) = say(&flag, &trust, &context);
            let answer = json!({"key": name, "value": value, "variant": variant, "reason": reason});
            answer.to_string().len()
        });
        println!("| {name} | {bare:.0} | {whole:.0} |");
    }
}

fn context(number: usize) -> String {
    let plan = ["free", "silver", "gold"][number % 3];
    json!({
        "targetingKey": format!("user-{number}"), "plan": plan, "age": number % 90,
        "email": format!("user-{number}@example.com"), "country": "DE", "beta": number.is_multiple_of(7),
    })
    .to_string()
}

fn parse(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

fn say<'a>(
    flag: &'a Flag,
    trust: &Trust,
    context: &Map<String, Value>,
) -> (&'a str, &'a Value, &'static str) {
    let key = context.get("targetingKey").and_then(Value::as_str);
    let asker = Asker {
        key: key.map(|key| key_hash(key.as_bytes())),
        context,
    };
    match evaluate(flag, trust, Instant::now(), asker) {
        Ok(answer) => (answer.variant, answer.value, answer.reason.as_str()),
        Err(_) => ("", &Value::Null, ""),
    }
}

/// How often a second.
fn rate(mut once: impl FnMut(usize) -> usize) -> f64 {
    let (started, mut done) = (Instant::now(), 0_usize);
    while started.elapsed() < TIME {
        for _ in 0..1_000 {
            black_box(once(black_box(done)));
            done += 1;
        }
    }
    done as f64 / started.elapsed().as_secs_f64()
}
