//! Verbs about the instances that share one state, and what `status` says of them.

use anstream::println;
use comfy_table::{Cell, Color};
use http::Method;
use owo_colors::OwoColorize;
use serde_json::{Value, json};

use super::Failed;
use super::args::{ClusterVerb, WriteArgs};
use super::client::Client;
use super::look::{right, table, time};
use super::verbs::{print_json_or, segment, text};

/// Carries out a verb.
pub(super) async fn carry_out(client: &Client, verb: ClusterVerb) -> Result<u8, Failed> {
    match verb {
        ClusterVerb::List => {
            let answer = client.get("/v1/cluster").await?;
            print_json_or(client, &answer, print_list);
            Ok(0)
        }
        ClusterVerb::Drain { name, undo, reason } => {
            let path = format!("/v1/cluster/instances/{}/drain", segment(&name)?);
            let body = json!({"draining": !undo});
            let answer = change(client, Method::PUT, &path, body, reason).await?;
            print_json_or(client, &answer, |answer| {
                let name = text(&answer["instance"]);
                match (answer["changed"] == true, undo) {
                    (false, false) => println!("{name} is drained already"),
                    (false, true) => println!("{name} is in use already"),
                    (true, false) => println!("{name} is drained: its /readyz says 503"),
                    (true, true) => println!("{name} is in use again"),
                }
            });
            Ok(0)
        }
        ClusterVerb::Remove { name, reason } => {
            let path = format!("/v1/cluster/instances/{}", segment(&name)?);
            let answer = change(client, Method::DELETE, &path, json!({}), reason).await?;
            print_json_or(client, &answer, |answer| {
                println!("{} is forgotten", text(&answer["instance"]));
            });
            Ok(0)
        }
    }
}

async fn change(
    client: &Client,
    method: Method,
    path: &str,
    body: Value,
    reason: Option<String>,
) -> Result<Value, Failed> {
    let options = WriteArgs {
        reason,
        ..WriteArgs::default()
    };
    Ok(client.write(method, path, body, &options).await?)
}

fn print_list(answer: &Value) {
    println!("{}", line(answer));
    let mut table = table(&[
        "INSTANCE", "STATE", "REVISION", "BEHIND", "FILE", "RELEASE", "ADMIN", "STARTED",
    ]);
    right(&mut table, &[2, 3]);
    for member in members(answer) {
        let (state, colour) = match (member["alive"] == true, member["draining"] == true) {
            (true, false) => ("alive", Color::Green),
            (true, true) => ("drained", Color::Yellow),
            (false, false) => ("gone", Color::Red),
            (false, true) => ("gone, drained", Color::Yellow),
        };
        let mut name = text(&member["name"]);
        if member["name"] == answer["leader"] {
            name.push_str(" (leads)");
        }
        let differs = member["baseline_differs"] == true;
        let file = text(&member["baseline"]);
        let file = match differs {
            true => Cell::new(format!("{file}, differs")).fg(Color::Red),
            false => Cell::new(file),
        };
        table.add_row(vec![
            Cell::new(name),
            Cell::new(state).fg(colour),
            Cell::new(text(&member["revision"])),
            Cell::new(text(&member["lag"])),
            file,
            Cell::new(text(&member["release"])),
            Cell::new(text(&member["admin"])),
            Cell::new(time(&member["started"])),
        ]);
    }
    println!("{table}");
}

/// The cluster in one line, as loud as it has to be.
pub(super) fn line(cluster: &Value) -> String {
    let name = text(&cluster["name"]);
    let instance = text(&cluster["instance"]);
    let away = &cluster["away"];
    if !away.is_null() {
        let effect = match away["isolated"] == true {
            true => "canaries have weight 0 here until it is back",
            false => "only rollbacks and blocks are taken here until it is back",
        };
        let said = format!(
            "cluster {name}: {instance} has lost etcd at {}: {effect} ({})",
            time(&away["since"]),
            text(&away["reason"])
        );
        return said.red().bold().to_string();
    }
    let names = |is_so: &dyn Fn(&Value) -> bool| {
        let found = members(cluster).filter(|member| is_so(member));
        let found: Vec<String> = found.map(|member| text(&member["name"])).collect();
        found.join(", ")
    };
    let alive = members(cluster).filter(|member| member["alive"] == true);
    let mut parts = vec![format!(
        "{} of {} instances alive",
        alive.count(),
        members(cluster).count()
    )];
    parts.push(match cluster["leader"].as_str() {
        Some(leader) => format!("{leader} leads"),
        None => "nobody leads: rollouts stand still".red().to_string(),
    });
    let is_behind = |member: &&Value| member["lag"].as_u64().is_some_and(|lag| lag > 0);
    let mut behind = members(cluster).filter(is_behind).peekable();
    if behind.peek().is_none() {
        parts.push("nobody is behind".into());
    }
    parts.extend(behind.map(|member| {
        let behind = format!("{} is {} behind", text(&member["name"]), member["lag"]);
        behind.yellow().to_string()
    }));
    let gone = names(&|member| member["alive"] == false);
    if !gone.is_empty() {
        parts.push(format!("gone: {gone}").yellow().to_string());
    }
    let drained = names(&|member| member["draining"] == true);
    if !drained.is_empty() {
        parts.push(format!("drained: {drained}"));
    }
    let differ = names(&|member| member["baseline_differs"] == true);
    if !differ.is_empty() {
        let said = format!("another config file than here: {differ}");
        parts.push(said.red().bold().to_string());
    }
    format!("cluster {name}: {}", parts.join("; "))
}

fn members(cluster: &Value) -> impl Iterator<Item = &Value> {
    cluster["instances"].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    fn said(cluster: &Value) -> String {
        strip_str(&line(cluster)).to_string()
    }

    fn member(name: &str, lag: u64) -> Value {
        json!({"name": name, "alive": true, "draining": false, "revision": 9, "lag": lag,
            "baseline": "aa", "baseline_differs": false})
    }

    fn cluster() -> Value {
        json!({"name": "shop", "instance": "one", "contact": "joined", "away": null,
            "leader": "two", "head": {"revision": 9}, "instances": [member("one", 0), member("two", 0)]})
    }

    #[test]
    fn line_is_quiet_while_all_is_well() {
        let well = "cluster shop: 2 of 2 instances alive; two leads; nobody is behind";
        assert_eq!(line(&cluster()), well);
    }

    #[test]
    fn line_names_who_is_behind_gone_drained_or_has_another_file() {
        let mut cluster = cluster();
        cluster["instances"][0] = member("one", 2);
        cluster["instances"][0]["draining"] = true.into();
        cluster["instances"][1]["baseline_differs"] = true.into();
        let gone = json!({"name": "three", "alive": false, "draining": false, "lag": null});
        cluster["instances"].as_array_mut().unwrap().push(gone);
        cluster["leader"] = Value::Null;
        assert_eq!(
            said(&cluster),
            "cluster shop: 2 of 3 instances alive; nobody leads: rollouts stand still; one is 2 behind; gone: three; drained: one; another config file than here: two"
        );
    }

    #[test]
    fn line_says_what_an_instance_without_etcd_does() {
        let mut cluster = cluster();
        cluster["away"] = json!({"since": "2026-01-02T03:04:05Z", "reason": "no answer within 2 s", "isolated": false});
        assert_eq!(
            said(&cluster),
            "cluster shop: one has lost etcd at 2026-01-02 03:04:05Z: only rollbacks and blocks are taken here until it is back (no answer within 2 s)"
        );
        cluster["away"]["isolated"] = true.into();
        assert!(said(&cluster).contains("canaries have weight 0 here"));
    }
}
