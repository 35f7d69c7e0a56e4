//! `explain`: why traffic goes where it goes, printed for somebody in a hurry.

use anstream::println;
use owo_colors::OwoColorize;
use serde_json::Value;

use super::Failed;
use super::client::Client;
use super::verbs::{print_json_or, segment, text};

/// Explains a service.
pub(super) async fn explain(client: &Client, service: &str) -> Result<u8, Failed> {
    let path = format!("/v1/services/{}/explain", segment(service)?);
    let answer = client.get(&path).await?;
    print_json_or(client, &answer, print);
    Ok(0)
}

fn print(answer: &Value) {
    let sentences = |name: &str| answer[name].as_array().into_iter().flatten().map(text);
    for (number, sentence) in sentences("now").enumerate() {
        match number {
            0 => println!("{}", sentence.bold()),
            _ => println!("{sentence}"),
        }
    }
    for (head, name) in [("Why", "why"), ("What happens next by itself", "next")] {
        println!("\n{}", head.dimmed());
        for sentence in sentences(name) {
            println!("  {sentence}");
        }
    }
    println!("\n{}", "What you can do".dimmed());
    for advice in answer["commands"].as_array().into_iter().flatten() {
        println!("  {}", text(&advice["command"]).bold());
        println!("      {}", text(&advice["does"]));
    }
}
