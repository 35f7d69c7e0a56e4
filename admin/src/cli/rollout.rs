//! Verbs that let a new version in step by step, and `deploy`, which is several of them in a row.
//!
//! Whoever waits here is a deploy job: it gets a line whenever the rollout has moved, and an exit code
//! that says how it ended.

use std::time::{Duration, Instant};

use anstream::println;
use http::Method;
use owo_colors::OwoColorize;
use serde_json::{Value, json};

use super::args::{DeployArgs, Output, PlanArgs, RolloutVerb, WriteArgs};
use super::client::Client;
use super::look::time;
use super::verbs::{print_answer, print_json_or, segment, text};
use super::{Failed, exit};

/// One question of a wait; shorter than what proxies between here and there allow.
const ASK: Duration = Duration::from_secs(20);

/// How often a new version's health is looked at.
const HEALTH_POLL: Duration = Duration::from_millis(250);

/// Carries out a verb about a rollout.
pub(super) async fn carry_out(client: &Client, verb: RolloutVerb) -> Result<u8, Failed> {
    let (service, what, body, write, key) = match verb {
        RolloutVerb::Start {
            service,
            plan,
            canary,
            write,
        } => {
            let body = start_body(&plan, canary.as_deref());
            (service, "", body, write, plan.idempotency_key)
        }
        RolloutVerb::Promote {
            service,
            full,
            force,
            write,
        } => (
            service,
            "/promote",
            json!({"full": full, "force": force}),
            write,
            None,
        ),
        RolloutVerb::Pause { service, write } => (service, "/pause", json!({}), write, None),
        RolloutVerb::Resume { service, write } => (service, "/resume", json!({}), write, None),
        RolloutVerb::Show { service } => {
            let view = client.get(&path(&service)?).await?;
            print_json_or(client, &view, print_rollout);
            return Ok(0);
        }
        RolloutVerb::Wait {
            service,
            version,
            timeout,
        } => {
            let until = Instant::now() + timeout.0;
            return wait(client, &service, version.as_deref(), until, &Value::Null).await;
        }
    };
    let path = format!("{}{what}", path(&service)?);
    let answer = client
        .write_with_key(Method::POST, &path, body, &write, key.as_deref())
        .await?;
    print_json_or(client, &answer, |answer| {
        print_answer(answer);
        if answer["rollout"].is_object() {
            print_rollout(&answer["rollout"]);
        }
    });
    Ok(0)
}

fn path(service: &str) -> Result<String, Failed> {
    Ok(format!("/v1/services/{}/rollout", segment(service)?))
}

fn start_body(plan: &PlanArgs, canary: Option<&str>) -> Value {
    let mut body = json!({"fast": plan.fast, "force": plan.force});
    if let Some(canary) = canary {
        body["canary"] = canary.into();
    }
    if !plan.steps.is_empty() {
        body["steps"] = json!(plan.steps);
    }
    if plan.no_bake {
        body["bake"] = "off".into();
    }
    body
}

/// Waits for the end of a rollout; a line whenever it has moved.
///
/// `version`: the one that it must be of. `shown`: a view that was printed already.
async fn wait(
    client: &Client,
    service: &str,
    version: Option<&str>,
    until: Instant,
    shown: &Value,
) -> Result<u8, Failed> {
    let progress = |view: &Value| json!([view["status"], view["stage"], view["ended"]]);
    let mut seen = progress(shown);
    let mut view = client.get(&path(service)?).await?;
    let meant = match shown.is_object() {
        true => shown.clone(),
        false => view.clone(),
    };
    if shown.is_null() && view["ended"].is_object() && client.output != Output::Json {
        println!(
            "{service}: no rollout is under way; this is the last one, which began {}",
            time(&view["began"])
        );
    }
    loop {
        if let Some(other) = is_of_another(&meant, version, &view) {
            return Err(Failed::with_code(format!("{service}: {other}"), exit::HELD));
        }
        let now = progress(&view);
        if now != seen && client.output != Output::Json {
            print_rollout(&view);
        }
        seen = now;
        let left = until.saturating_duration_since(Instant::now());
        let code = match view["status"].as_str() {
            Some("promoted") => Some(0),
            Some("rolled_back") => Some(exit::ROLLED_BACK),
            Some("running") if left.is_zero() => Some(exit::CONFLICT),
            Some("running") => None,
            _ => Some(exit::HELD),
        };
        if let Some(code) = code {
            if client.output == Output::Json {
                println!("{view:#}");
            } else if code == exit::CONFLICT {
                println!("{service}: the rollout is still running, and the time is up");
            }
            return Ok(code);
        }
        // Rounded up: a wait of less than a millisecond would not be one.
        let ask_ms = left.min(ASK).as_millis() + 1;
        let path = format!("{}?wait={ask_ms}ms", path(service)?);
        view = client.get(&path).await?;
    }
}

/// What is shown if that is not the rollout that is waited for: only the last one of a service is.
fn is_of_another(meant: &Value, version: Option<&str>, view: &Value) -> Option<String> {
    let (found, by) = (text(&view["version"]), text(&view["by"]));
    if let Some(version) = version.filter(|version| *version != found) {
        return Some(format!(
            "the last rollout is of version {found}, not {version}: that one has not begun, or is over"
        ));
    }
    (meant["began"] != view["began"]).then(|| {
        format!(
            "another rollout has begun, of version {found} by {by}; the history says what became of the one that was waited for"
        )
    })
}

fn print_rollout(view: &Value) {
    let name = format!("{} {}", text(&view["service"]), text(&view["canary"]));
    let version = text(&view["version"]);
    let status = text(&view["status"]);
    if let Some(reason) = view["ended"]["reason"].as_str() {
        let status = match status.as_str() {
            "promoted" => status.green().to_string(),
            _ => status.red().to_string(),
        };
        println!("{} ({version}): {status}: {reason}", name.bold());
        return;
    }
    println!("{} ({version}): {}", name.bold(), standing(view));
}

/// How far a rollout has come.
pub(super) fn stage(view: &Value) -> String {
    match view["stage"]["kind"].as_str() {
        Some("step") => format!(
            "step {} of {}",
            view["stage"]["number"], view["stage"]["of"]
        ),
        _ => "bake".to_owned(),
    }
}

/// Where a rollout that is under way stands, and what it waits for.
pub(super) fn standing(view: &Value) -> String {
    let waits = &view["waits_for"];
    let waits = match waits["for"].as_str() {
        Some("resume") => {
            let reason = view["paused"]["reason"].as_str();
            let why = reason
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default();
            format!("paused by {}{why}", text(&view["paused"]["by"]))
        }
        Some("time") => format!("until {}", time(&waits["until"])),
        Some("traffic") => format!("{} of {} requests", waits["requests"], waits["needed"]),
        Some("hold") => format!("held: {}", text(&waits["reason"])),
        Some("approval") => "waits for switchback rollout promote".to_owned(),
        _ => "goes on".to_owned(),
    };
    format!(
        "{}, {} of the traffic, {waits}",
        stage(view),
        text(&view["weight"])
    )
}

/// Registers a version, waits for its health, rolls it out, and waits for the end.
pub(super) async fn deploy(client: &Client, args: DeployArgs) -> Result<u8, Failed> {
    let until = Instant::now() + args.timeout.0;
    let service_path = format!("/v1/services/{}", segment(&args.service)?);
    let service = client.get(&service_path).await?;
    let say = |what: String| {
        if client.output != Output::Json {
            println!("{}: {what}", args.service.bold());
        }
    };
    let backend = match target_of(&service, &args)? {
        Target::Blocked(reason) => {
            say(format!("version {} is blocked: {reason}", args.version));
            return Ok(exit::ROLLED_BACK);
        }
        Target::IsStable => {
            say(format!("version {} is stable already", args.version));
            return Ok(0);
        }
        Target::RollsOut => {
            say(format!(
                "version {} is being rolled out already",
                args.version
            ));
            let version = Some(args.version.as_str());
            return wait(client, &args.service, version, until, &Value::Null).await;
        }
        Target::Backend(backend) => backend,
    };
    let write = WriteArgs {
        reason: args.reason.clone(),
        ..WriteArgs::default()
    };
    let path = format!("{service_path}/backends/{}", segment(&backend)?);
    let mut body = json!({"version": args.version, "endpoints": args.endpoints});
    args.declared.say(&mut body);
    client.write(Method::PUT, &path, body, &write).await?;
    say(format!("{backend} is version {} now", args.version));
    let healthy_until = until.min(Instant::now() + args.health_timeout.0);
    if !args.plan.force && !becomes_healthy(client, &service_path, &backend, healthy_until).await? {
        let message = format!(
            "{backend} did not become healthy within {}; it got no traffic",
            args.health_timeout
        );
        return Err(Failed::with_code(message, exit::CONFLICT));
    }
    let body = start_body(&args.plan, Some(&backend));
    let key = args.plan.idempotency_key.as_deref();
    let path = format!("{service_path}/rollout");
    let answer = client
        .write_with_key(Method::POST, &path, body, &write, key)
        .await?;
    if client.output != Output::Json {
        print_rollout(&answer["rollout"]);
    }
    let version = Some(args.version.as_str());
    wait(client, &args.service, version, until, &answer["rollout"]).await
}

/// What a deployment finds.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// The version must stay out.
    Blocked(String),
    /// There is nothing to do.
    IsStable,
    /// Somebody has begun already: the same job, before it was repeated.
    RollsOut,
    /// Where the version goes.
    Backend(String),
}

/// Where a version goes: onto a backend that has no weight, rather not the one that rollback needs.
fn target_of(service: &Value, args: &DeployArgs) -> Result<Target, Failed> {
    let version = args.version.as_str();
    let block = &service["blocked_versions"][version];
    if block.is_object() {
        let reason = block["reason"].as_str().unwrap_or("by an operator");
        return Ok(Target::Blocked(reason.to_owned()));
    }
    let stable = text(&service["stable"]);
    if service["backends"][&stable]["version"] == version {
        return Ok(Target::IsStable);
    }
    let rollout = &service["rollout"];
    let is_running = matches!(rollout["status"].as_str(), Some("running" | "paused"));
    if is_running && rollout["version"] == version {
        return Ok(Target::RollsOut);
    }
    if is_running {
        let message = format!(
            "a rollout of version {} is under way; promote it, roll it back, or wait",
            text(&rollout["version"])
        );
        return Err(Failed::with_code(message, exit::CONFLICT));
    }
    if let Some(backend) = &args.backend {
        return Ok(Target::Backend(backend.clone()));
    }
    let backends = service["backends"].as_object();
    let idle = backends.into_iter().flatten();
    let mut idle: Vec<(&String, &Value)> = idle
        .filter(|(name, backend)| **name != stable && backend["weight"] == 0)
        .collect();
    // The same version again first, then one that was never used, the rollback target last.
    idle.sort_by_key(|(_, backend)| {
        (
            backend["version"] != version,
            backend["role"] == "previous",
            backend["begun"].as_u64().unwrap_or(0) > 0,
        )
    });
    match idle.first() {
        Some((name, _)) => Ok(Target::Backend((*name).clone())),
        None => Err(Failed::with_code(
            "every backend has traffic; roll back or switch first, or name one with --backend",
            exit::CONFLICT,
        )),
    }
}

async fn becomes_healthy(
    client: &Client,
    service: &str,
    backend: &str,
    until: Instant,
) -> Result<bool, Failed> {
    let mut ticks = tokio::time::interval(HEALTH_POLL);
    loop {
        ticks.tick().await;
        let view = client.get(service).await?;
        if view["backends"][backend]["health"] == "healthy" {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchback_config::units::TimeSpan;

    #[test]
    fn rollout_that_is_not_waited_for_is_told_apart() {
        let view =
            |version: &str, began: u32| json!({"version": version, "began": began, "by": "ann"});
        let meant = view("42", 1);
        assert_eq!(is_of_another(&meant, None, &meant), None);
        assert_eq!(is_of_another(&meant, Some("42"), &meant), None);
        for (version, seen, words) in [
            (Some("43"), &meant, "is of version 42, not 43"),
            (
                None,
                &view("42", 2),
                "another rollout has begun, of version 42 by ann",
            ),
            (Some("42"), &view("42", 2), "another rollout has begun"),
        ] {
            let said = is_of_another(&meant, version, seen);
            assert!(said.is_some_and(|said| said.contains(words)), "{words}");
        }
    }

    fn args(version: &str) -> DeployArgs {
        DeployArgs {
            service: "shop".into(),
            version: version.into(),
            endpoints: Vec::new(),
            declared: super::super::args::DeclaredArgs::default(),
            backend: None,
            plan: PlanArgs::default(),
            health_timeout: TimeSpan(Duration::ZERO),
            timeout: TimeSpan(Duration::ZERO),
            reason: None,
        }
    }

    fn service() -> Value {
        json!({
            "stable": "blue",
            "blocked_versions": {"40": {"reason": "bad"}},
            "rollout": null,
            "backends": {
                "blue": {"version": "41", "weight": 100, "role": "stable"},
                "red": {"version": "38", "weight": 0, "role": "previous", "begun": 9},
                "green": {"version": "39", "weight": 0, "role": "canary", "begun": 5},
                "grey": {"version": "37", "weight": 0, "role": "canary", "begun": 0},
            },
        })
    }

    #[test]
    fn version_goes_to_an_idle_backend_and_the_rollback_target_comes_last() {
        let mut service = service();
        let target = |service: &Value, version| target_of(service, &args(version)).unwrap();
        let on = |name: &str| Target::Backend(name.into());
        assert_eq!(target(&service, "42"), on("grey"));
        assert_eq!(target(&service, "39"), on("green"), "it is there already");
        service["backends"]["grey"]["weight"] = 1.into();
        assert_eq!(target(&service, "42"), on("green"));
        service["backends"]["green"]["weight"] = 1.into();
        assert_eq!(target(&service, "42"), on("red"));
        service["backends"]["red"]["weight"] = 1.into();
        let refused = target_of(&service, &args("42")).unwrap_err();
        assert_eq!(refused.code, exit::CONFLICT);
    }

    #[test]
    fn blocked_stable_and_running_versions_are_recognised() {
        let mut service = service();
        let target = |service: &Value, version| target_of(service, &args(version)).unwrap();
        assert_eq!(target(&service, "40"), Target::Blocked("bad".into()));
        assert_eq!(target(&service, "41"), Target::IsStable);
        service["rollout"] = json!({"status": "running", "version": "42"});
        assert_eq!(target(&service, "42"), Target::RollsOut);
        let refused = target_of(&service, &args("43")).unwrap_err();
        assert_eq!(refused.code, exit::CONFLICT);
    }
}
