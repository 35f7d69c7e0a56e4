//! Verbs that change something: a request each, and its answer in a few lines.

use anstream::println;
use http::Method;
use owo_colors::OwoColorize;
use serde_json::{Map, Value, json};

use super::Failed;
use super::args::{BackendVerb, Output, Verb, WriteArgs};
use super::client::{Client, ClientError};
use super::look::{everywhere, on_all};

/// Sends a write and prints the answer.
pub(super) async fn write(client: &Client, verb: Verb) -> Result<u8, Failed> {
    match verb {
        Verb::Rollback {
            all: true,
            force,
            cut,
            write,
            ..
        } => rollback_all(client, force, cut, &write).await,
        Verb::Rollback {
            service,
            force,
            cut,
            write,
            ..
        } => {
            let service = match service {
                Some(service) => service,
                None => only_service(client).await?,
            };
            let path = format!("/v1/services/{}/rollback", segment(&service)?);
            one(
                client,
                Call {
                    method: Method::POST,
                    path,
                    body: json!({"force": force, "cut": cut}),
                    write,
                },
            )
            .await
        }
        Verb::Reload { dry_run, force } => reload(client, dry_run, force).await,
        Verb::Acknowledge => {
            let options = WriteArgs::default();
            let answer = client
                .write(Method::POST, "/v1/acknowledge", json!({}), &options)
                .await?;
            print_json_or(client, &answer, |answer| match answer["changed"] == true {
                true => {
                    let on_all = on_all(answer).unwrap_or_default();
                    println!("acknowledged: the file's weights are in force{on_all}");
                }
                false => println!("nothing to acknowledge: the recorded state was not lost"),
            });
            Ok(0)
        }
        verb => one(client, call_of(verb)?).await,
    }
}

/// A request to the API.
struct Call {
    method: Method,
    path: String,
    body: Value,
    write: WriteArgs,
}

/// The request that a verb about one service stands for.
fn call_of(verb: Verb) -> Result<Call, Failed> {
    let (method, path, body, write) = match verb {
        Verb::Weights {
            service,
            weights,
            lease,
            write,
        } => {
            let path = format!("/v1/services/{}/weights", segment(&service)?);
            let body = json!({"weights": parse_weights(&weights)?, "lease": lease});
            (Method::PUT, path, body, write)
        }
        Verb::Switch {
            service,
            to,
            force,
            write,
        } => {
            let path = format!("/v1/services/{}/switch", segment(&service)?);
            (Method::POST, path, json!({"to": to, "force": force}), write)
        }
        verb => return backend_call_of(verb),
    };
    Ok(Call {
        method,
        path,
        body,
        write,
    })
}

/// The request that a verb about one backend stands for.
fn backend_call_of(verb: Verb) -> Result<Call, Failed> {
    let of_backend = |service: &str, backend: &str, what: &str| -> Result<String, Failed> {
        let (service, backend) = (segment(service)?, segment(backend)?);
        Ok(format!("/v1/services/{service}/backends/{backend}{what}"))
    };
    let (method, path, body, write) = match verb {
        Verb::Block {
            service,
            backend,
            force,
            write,
        } => (
            Method::POST,
            of_backend(&service, &backend, "/block")?,
            json!({"force": force}),
            write,
        ),
        Verb::Unblock {
            service,
            backend,
            write,
        } => (
            Method::POST,
            of_backend(&service, &backend, "/unblock")?,
            json!({}),
            write,
        ),
        Verb::Backend {
            verb:
                BackendVerb::Set {
                    service,
                    backend,
                    version,
                    endpoints,
                    declared,
                    force,
                    write,
                },
        } => {
            let mut body = json!({"version": version, "endpoints": endpoints, "force": force});
            declared.say(&mut body);
            (
                Method::PUT,
                of_backend(&service, &backend, "")?,
                body,
                write,
            )
        }
        _ => {
            return Err(Failed::with_code(
                "this verb is not for a running server",
                2,
            ));
        }
    };
    Ok(Call {
        method,
        path,
        body,
        write,
    })
}

async fn one(client: &Client, call: Call) -> Result<u8, Failed> {
    let Call {
        method,
        path,
        body,
        write,
    } = call;
    let answer = client.write(method, &path, body, &write).await?;
    print_json_or(client, &answer, print_answer);
    Ok(0)
}

async fn rollback_all(
    client: &Client,
    force: bool,
    cut: bool,
    options: &WriteArgs,
) -> Result<u8, Failed> {
    let body = json!({"force": force, "cut": cut});
    let answer = client
        .write(Method::POST, "/v1/rollback", body, options)
        .await?;
    print_json_or(client, &answer, |answer| {
        for result in answer["services"].as_array().into_iter().flatten() {
            match result["problem"]["detail"].as_str() {
                Some(problem) => {
                    let is_in_force = result["problem"]["code"] == "apply_unconfirmed";
                    let became = if is_in_force {
                        "unconfirmed"
                    } else {
                        "refused"
                    };
                    println!("{}: {}: {problem}", text(&result["service"]), became.red());
                }
                None => print_answer(result),
            }
        }
    });
    Ok(u8::from(answer["refused"].as_u64() != Some(0)))
}

async fn reload(client: &Client, dry_run: bool, force: bool) -> Result<u8, Failed> {
    let options = WriteArgs {
        dry_run,
        ..WriteArgs::default()
    };
    let path = match force {
        true => "/v1/reload?force=true",
        false => "/v1/reload",
    };
    let answer = client.write(Method::POST, path, json!({}), &options).await;
    let answer = answer.map_err(|error| match error {
        error @ ClientError::Problem { status: 422, .. } => Failed {
            code: super::exit::CONFIG,
            ..Failed::from(error)
        },
        error => Failed::from(error),
    })?;
    print_json_or(client, &answer, |answer| {
        if answer["changed"] == true {
            match answer["dry_run"] == true {
                true => println!("the file would change:"),
                false => {
                    let on_all = on_all(answer).unwrap_or_default();
                    println!("reloaded at revision {}{on_all}", answer["revision"]);
                }
            }
            for change in answer["changes"].as_array().into_iter().flatten() {
                println!(
                    "  {}: {} -> {}",
                    change["path"].as_str().unwrap_or_default(),
                    change["before"],
                    change["after"]
                );
            }
        } else {
            println!("the file has not changed");
        }
    });
    Ok(0)
}

/// The service that is meant when there is only one.
async fn only_service(client: &Client) -> Result<String, Failed> {
    let services = client.get("/v1/services").await?;
    let names: Vec<&str> = services["services"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|service| service["name"].as_str())
        .collect();
    match names[..] {
        [only] => Ok(only.to_owned()),
        _ => Err(Failed::with_code(
            format!("name a service, or use --all: {}", names.join(", ")),
            2,
        )),
    }
}

fn parse_weights(written: &[String]) -> Result<Map<String, Value>, Failed> {
    let mut weights = Map::new();
    for item in written {
        let parsed = item
            .split_once('=')
            .and_then(|(name, weight)| Some((name, weight.parse::<u32>().ok()?)));
        let Some((name, weight)) = parsed else {
            return Err(Failed::with_code(
                format!("{item:?} is not a weight: write blue=95"),
                2,
            ));
        };
        if weights.insert(name.to_owned(), weight.into()).is_some() {
            return Err(Failed::with_code(format!("{name} is given twice"), 2));
        }
    }
    Ok(weights)
}

/// A name as a segment of a path.
pub(super) fn segment(name: &str) -> Result<&str, Failed> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.is_empty() && name.bytes().all(plain) {
        Ok(name)
    } else {
        Err(Failed::with_code(
            format!("{name:?} is not the name of a service or backend"),
            2,
        ))
    }
}

/// Prints JSON if asked for, otherwise as `print` does.
pub(super) fn print_json_or(client: &Client, answer: &Value, print: impl FnOnce(&Value)) {
    match client.output {
        Output::Json => println!("{answer:#}"),
        Output::Table | Output::Markdown => print(answer),
    }
}

/// A value as people read it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a write has changed.
pub(super) fn print_answer(answer: &Value) {
    let weights: Vec<String> = answer["weights"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, weight)| format!("{name}={weight}"))
        .collect();
    let service = text(&answer["service"]);
    if answer["dry_run"] == true {
        if answer["changed"] == false {
            println!("{service}: nothing would change: {}", weights.join(" "));
        } else {
            println!("{service}: would be {}", weights.join(" "));
        }
        for line in answer["diff"].as_str().into_iter().flat_map(str::lines) {
            println!("  {}", line.cyan());
        }
        for note in answer["notes"].as_array().into_iter().flatten() {
            println!("  {}", text(note));
        }
        return;
    }
    if answer["changed"] == false {
        println!(
            "{service}: nothing to change: {} at revision {}",
            weights.join(" "),
            answer["revision"]
        );
        return;
    }
    println!(
        "{}: {}, stable {}, revision {}, in force {}",
        service.bold(),
        weights.join(" "),
        text(&answer["stable"]),
        answer["revision"],
        everywhere(answer),
    );
    for (backend, count) in answer["in_flight"].as_object().into_iter().flatten() {
        if answer["weights"][backend] == 0 && *count != 0 {
            println!("  {backend}: {count} requests in flight finish");
        }
    }
    if answer["durable"] == false {
        println!(
            "  {}: it will be persisted as soon as the disk allows",
            "not yet durable".yellow()
        );
    }
    if answer["before_switch"] == "skipped" {
        println!("  {}", "hooks for before_switch were not asked".yellow());
    }
    if answer["drained"] == false {
        println!("  {}", "requests are still in flight".yellow());
    }
}
