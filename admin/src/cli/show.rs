//! Verbs that show something.

use std::fmt::{self, Write as _};

use anstream::{print, println};
use comfy_table::{Cell, Color};
use owo_colors::OwoColorize;
use serde_json::Value;

use super::Failed;
use super::client::Client;
use super::cluster;
use super::look::{grouped, percent, right, spare, table, time};
use super::verbs::{print_json_or, text};

/// A table of services and their backends.
pub(super) async fn status(
    client: &Client,
    service: Option<&str>,
    watch: bool,
) -> Result<u8, Failed> {
    let path = service.map_or_else(
        || "/v1/services".to_owned(),
        |service| format!("/v1/services/{service}"),
    );
    if watch {
        return super::watch::watch(client, &path).await;
    }
    let answer = client.get(&path).await?;
    print_json_or(client, &answer, |answer| print!("{}", services(answer)));
    Ok(0)
}

/// Services and their backends as people read them.
pub(super) fn services(answer: &Value) -> String {
    let mut out = String::new();
    write_services(&mut out, answer).expect("memory takes everything");
    out
}

fn write_services(out: &mut String, answer: &Value) -> fmt::Result {
    let one = [answer.clone()];
    let services = answer["services"]
        .as_array()
        .map_or(&one[..], Vec::as_slice);
    if answer["stable_only"] == true {
        writeln!(
            out,
            "{}",
            "the recorded state was lost: stable only, until switchback acknowledge"
                .red()
                .bold()
        )?;
    }
    if !answer["cluster"].is_null() {
        writeln!(out, "{}", cluster::line(&answer["cluster"]))?;
    }
    let last = &answer["last_reload"];
    if last["successful"] == false {
        let error = text(&last["error"]);
        let first = error.lines().next().unwrap_or_default();
        let said = format!(
            "the file was refused at {}, and the last good one is in force: {first}; switchback check says more",
            time(&last["at"])
        );
        writeln!(out, "{}", said.red())?;
    }
    for removed in answer["routes_removed"].as_array().into_iter().flatten() {
        let said = format!("the file has no longer what is used: {}", text(removed));
        writeln!(out, "{}", said.red())?;
    }
    writeln!(out, "{}", services_table(services))?;
    for service in services {
        write_notes(out, service)?;
    }
    Ok(())
}

fn services_table(services: &[Value]) -> comfy_table::Table {
    let mut table = table(&[
        "SERVICE",
        "BACKEND",
        "VERSION",
        "ROLE",
        "WEIGHT",
        "SHARE",
        "HEALTH",
        "IN FLIGHT",
        "REQUESTS",
        "FAILURES",
        "EVIDENCE",
    ]);
    right(&mut table, &[4, 5, 7, 8, 9, 10]);
    for service in services {
        let mut name = text(&service["name"]);
        for (backend, view) in service["backends"].as_object().into_iter().flatten() {
            let evidence = service["judge"][backend]["evidence"].as_f64();
            table.add_row(backend_row(
                std::mem::take(&mut name),
                backend,
                view,
                evidence,
            ));
        }
    }
    spare(&mut table, &[7, 4, 8, 9]);
    table
}

/// What there is to say about a service beside its row.
fn write_notes(out: &mut String, service: &Value) -> fmt::Result {
    for (backend, judge) in service["judge"].as_object().into_iter().flatten() {
        if judge["verdict"] == "hold" {
            writeln!(
                out,
                "{} {backend}: {} ({})",
                text(&service["name"]),
                text(&judge["hold"]),
                text(&judge["sentence"])
            )?;
        }
    }
    write_mirror(out, &service["name"], &service["mirror"])?;
    for (backend, view) in service["backends"].as_object().into_iter().flatten() {
        write_versions(
            out,
            &text(&service["name"]),
            backend,
            &view["versions_seen"],
        )?;
    }
    for signal in service["signals"].as_array().into_iter().flatten() {
        write_signal(out, &text(&service["name"]), signal)?;
    }
    for firing in service["rules_firing"].as_array().into_iter().flatten() {
        let [backend, sentence] = ["backend", "sentence"].map(|key| text(&firing[key]));
        let fires = "rule fires".red();
        writeln!(
            out,
            "{} {backend}: {fires}: {sentence}",
            text(&service["name"])
        )?;
    }
    for conflict in service["conflicts"].as_array().into_iter().flatten() {
        write_conflict(out, &text(&service["name"]), conflict)?;
    }
    Ok(())
}

/// Which versions a backend answers as, if there are several.
fn write_versions(out: &mut String, service: &str, backend: &str, seen: &Value) -> fmt::Result {
    if seen["mixed"] != true {
        return Ok(());
    }
    let versions = seen["versions"].as_array().into_iter().flatten();
    let versions: Vec<String> = versions
        .map(|one| format!("{} {}", text(&one["version"]), percent(&one["share"])))
        .collect();
    writeln!(
        out,
        "{service} {backend}: answers as several versions: {}",
        versions.join(", ")
    )
}

/// How the copies of a service's requests did, if there are any.
fn write_mirror(out: &mut String, service: &Value, mirror: &Value) -> fmt::Result {
    if mirror.is_null() {
        return Ok(());
    }
    let counts = ["mirrored", "failed", "mismatched", "dropped"].map(|key| text(&mirror[key]));
    let [mirrored, failed, mismatched, dropped] = counts;
    let times = match (&mirror["mean_ms"], &mirror["stable_mean_ms"]) {
        (Value::Null, _) | (_, Value::Null) => String::new(),
        (copies, originals) => format!(", {copies} ms to answer (stable {originals} ms)"),
    };
    let stopped = mirror["stopped"]
        .as_str()
        .map(|why| format!("; none now, it is {why}"))
        .unwrap_or_default();
    writeln!(
        out,
        "{}: mirrors {} to {} ({}): {mirrored} copies, {failed} failed, {mismatched} differed, {dropped} dropped{times}{stopped}",
        text(service),
        text(&mirror["share"]),
        text(&mirror["to"]),
        text(&mirror["version"]),
    )
}

/// Where the file and what is in force disagree: by somebody's choice, or because it must not be.
fn write_conflict(out: &mut String, service: &str, conflict: &Value) -> fmt::Result {
    let kind = match conflict["kind"].as_str() {
        Some("refused") => "conflict".yellow().to_string(),
        _ => "differs".dimmed().to_string(),
    };
    writeln!(out, "{service}: {kind}: {}", text(&conflict["sentence"]))?;
    writeln!(
        out,
        "  {}",
        format!("to end it: {}", text(&conflict["ends"])).dimmed()
    )
}

/// A signal that somebody should look at.
fn write_signal(out: &mut String, service: &str, signal: &Value) -> fmt::Result {
    let state = text(&signal["state"]);
    let state = match state.as_str() {
        "firing" => state.red().to_string(),
        "missing" | "pending" => state.yellow().to_string(),
        _ => return Ok(()),
    };
    let [name, backend, source, threshold, span] =
        ["name", "backend", "source", "threshold", "for"].map(|key| text(&signal[key]));
    let seen = match (&signal["error"], &signal["value"]) {
        (Value::String(error), _) => error.clone(),
        (_, Value::Null) => "no answer yet".into(),
        (_, value) => format!("{value}, bad: {threshold} for {span}"),
    };
    writeln!(
        out,
        "{service} {backend}: signal {name} ({source}) is {state}: {seen}"
    )
}

fn backend_row(service: String, backend: &str, view: &Value, evidence: Option<f64>) -> Vec<Cell> {
    let health = text(&view["health"]);
    let colour = match health.as_str() {
        "healthy" => Color::Green,
        "unknown" => Color::Yellow,
        _ => Color::Red,
    };
    let role = match view["blocked"].is_null() {
        true => Cell::new(text(&view["role"])),
        false => Cell::new(format!("{}, blocked", text(&view["role"]))).fg(Color::Red),
    };
    // Before the first request there is only the head start of a change.
    let evidence = evidence.filter(|_| view["weight"] != 0 && view["requests"] != 0);
    vec![
        Cell::new(service),
        Cell::new(backend),
        Cell::new(text(&view["version"])),
        role,
        Cell::new(grouped(&view["weight"])),
        Cell::new(percent(&view["share"])),
        Cell::new(health).fg(colour),
        Cell::new(grouped(&view["in_flight"])),
        Cell::new(grouped(&view["requests"])),
        Cell::new(grouped(&view["failures"])),
        Cell::new(
            evidence
                .map(|evidence| format!("{evidence:.2}"))
                .unwrap_or_default(),
        ),
    ]
}

/// A table of what was asked for.
pub(super) async fn audit(client: &Client) -> Result<u8, Failed> {
    let answer = client.get("/v1/audit?limit=500").await?;
    print_json_or(client, &answer, |answer| {
        let keys = [
            "at", "by", "via", "action", "service", "result", "revision", "reason",
        ];
        let heads = keys.map(str::to_uppercase);
        let mut table = table(&heads.each_ref().map(String::as_str));
        right(&mut table, &[6]);
        for entry in answer["entries"].as_array().into_iter().flatten() {
            table.add_row(
                keys.map(|key| match key {
                    "at" => time(&entry[key]),
                    key => text(&entry[key]),
                })
                .to_vec(),
            );
        }
        println!("{table}");
    });
    Ok(0)
}

/// Exit 0 if the audit is what was written.
pub(super) async fn check_audit(client: &Client) -> Result<u8, Failed> {
    let check = client.get("/v1/audit/check").await?;
    let fault = check["fault"].clone();
    print_json_or(client, &check, |check| match check["last"].as_u64() {
        None => println!("there is no entry yet"),
        Some(last) if fault.is_null() => println!(
            "{} entries hold, {} to {last}; hash of the last: {}",
            check["entries"],
            check["first"],
            text(&check["hash"])
        ),
        Some(_) => println!(
            "entry {} of the audit is wrong: {}; {} before it hold",
            fault["number"],
            text(&fault["reason"]),
            check["entries"]
        ),
    });
    Ok(u8::from(!fault.is_null()))
}

/// Exit 0 if the server is ready for clients.
pub(super) async fn healthcheck(client: &Client) -> Result<u8, Failed> {
    let status = client.open_status("/readyz").await?;
    if status.is_success() {
        Ok(0)
    } else {
        Err(Failed::new(format!("not ready: status {status}")))
    }
}
