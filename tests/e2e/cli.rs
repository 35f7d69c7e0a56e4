//! The command line towards people, programs and shells.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

use serde_json::Value;

use crate::support::{DEADLINE, Origin, Proxy, Relay, blue_green};

fn switchback(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_switchback"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The verbs below a verb, as its help lists them.
fn verbs(of: &[&str]) -> Vec<String> {
    let help = text(&switchback(&[of, &["--help"]].concat()).stdout);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    listed
        .take_while(|line| !line.is_empty())
        // Descriptions go on in lines that are further in.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .map(str::to_owned)
        .collect()
}

async fn proxy() -> (Origin, Origin, Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    (blue, green, proxy)
}

#[test]
fn help_of_every_verb_has_an_example_and_fits_a_terminal() {
    let mut seen = 0;
    for verb in verbs(&[]) {
        let mut paths = vec![vec![verb.clone()]];
        paths.extend(
            verbs(&[&verb])
                .into_iter()
                .map(|below| vec![verb.clone(), below]),
        );
        for path in paths {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let output = switchback(&[&path[..], &["--help"]].concat());
            let help = text(&output.stdout);
            assert!(output.status.success(), "{path:?}");
            assert!(help.contains("Example: switchback "), "{path:?}: {help}");
            let examples = help.lines().filter(|line| line.starts_with("Example"));
            let wide = help.lines().find(|line| line.chars().count() > 100);
            assert!(
                wide.is_none_or(|line| examples.clone().any(|example| example == line)),
                "{path:?}: {wide:?}"
            );
            seen += 1;
        }
    }
    assert!(seen > 25, "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_speaks_to_people_and_to_programs() {
    let (_blue, green, proxy) = proxy().await;
    let endpoint = green.url();
    let set = [
        "backend",
        "set",
        "shop",
        "green",
        "--version",
        "3",
        "--endpoint",
        &endpoint,
    ];
    let calls: Vec<(&[&str], &str)> = vec![
        (&["status"], "blue"),
        (&["status", "shop"], "blue"),
        (
            &["weights", "shop", "blue=90", "green=10", "--dry-run"],
            "weights.green: 0 -> 10",
        ),
        (
            &["weights", "shop", "blue=90", "green=10", "--reason", "try"],
            "in force everywhere after",
        ),
        (&["rollback", "shop"], "blue=100 green=0"),
        (&["rollback", "--all"], "nothing to change"),
        (&["unblock", "shop", "green"], "shop"),
        (&["block", "shop", "green"], "shop"),
        (&["unblock", "shop", "green", "--reason", "fixed"], "shop"),
        (&set, "shop"),
        (
            &[
                "rollout",
                "start",
                "shop",
                "--canary",
                "green",
                "--step",
                "10% for 1h",
                "--no-bake",
                "--force",
            ],
            "step 1 of 1",
        ),
        (&["rollout", "show", "shop"], "10% of the traffic"),
        (&["rollout", "pause", "shop"], "paused by admin"),
        (&["rollout", "resume", "shop"], "until "),
        (
            &["rollout", "promote", "shop", "--full", "--force"],
            "promoted",
        ),
        (&["rollout", "wait", "shop", "--timeout", "5s"], "promoted"),
        (
            &["switch", "shop", "--to", "blue", "--force"],
            "stable blue",
        ),
        (&["history"], "weights"),
        (&["history", "shop"], "try"),
        (&["diff", "1"], ""),
        (&["restore", "1", "--dry-run", "--force"], ""),
        (&["explain", "shop"], "switchback"),
        (&["incidents"], "shop"),
        (&["incident"], "shop"),
        (&["events"], "weights_changed"),
        (&["audit"], "admin"),
        (&["flag", "list"], "FLAG"),
        (&["methods", "shop"], "not measured yet"),
        (&["diagnose", "shop"], "What to do"),
        (&["schema", "show", "shop"], "nobody has said"),
        (&["schema", "set", "shop", "4"], "schema 4"),
        (&["schema", "phase", "shop", "expand"], "phase expand"),
        (&["schema", "rehearsed", "shop"], "schema 4"),
        (&["schema", "reverse", "shop"], "never runs"),
        (&["runbook", "list"], "RUNBOOK"),
        (&["drill", "shop"], "passed"),
        (&["hooks", "list"], ""),
        (&["hooks", "deliveries"], ""),
        (&["hooks", "dead"], ""),
        (&["reload", "--dry-run"], "the file has not changed"),
        (&["reload"], "the file has not changed"),
        (&["acknowledge"], "nothing to acknowledge"),
        (&["healthcheck"], ""),
    ];
    let mut verbs_seen = std::collections::BTreeSet::new();
    for (arguments, expected) in calls {
        let (code, out, err) = proxy.cli(arguments);
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        assert!(out.contains(expected), "{arguments:?}: {out}");
        assert!(
            !out.contains('\u{1b}'),
            "{arguments:?}: no colours in a pipe"
        );
        verbs_seen.insert(arguments[0]);
        if ["events", "healthcheck"].contains(&arguments[0]) {
            continue;
        }
        // The same again, for programs: what is done already does not change, but is answered.
        let (code, out, err) = proxy.cli(&[arguments, &["-o", "json"]].concat());
        let is_again = ["start", "pause", "resume", "promote"]
            .iter()
            .any(|verb| arguments.contains(verb));
        let (answer, place) = match code {
            0 => (out, "stdout"),
            _ if is_again => (err, "stderr"),
            _ => panic!("{arguments:?}: {code} {err}"),
        };
        let answer: Value = serde_json::from_str(&answer)
            .unwrap_or_else(|error| panic!("{arguments:?} on {place}: {error}: {answer}"));
        assert!(answer.is_object() || answer.is_array(), "{arguments:?}");
    }
    // A new verb belongs into the table above, or into this list of those that ask no server, answer a
    // question with their exit code, or need other instances (these are tried with them).
    let alone = [
        "ready",
        "gate",
        "cluster",
        "demo",
        "run",
        "init",
        "import",
        "simulate",
        "check",
        "schema",
        "token",
        "completions",
        "man",
        "deploy",
        "top",
    ];
    for verb in verbs(&[]) {
        let known = verbs_seen.contains(verb.as_str()) || alone.contains(&verb.as_str());
        assert!(known, "{verb} is not tried");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_and_why_and_programs_get_what_the_api_said() {
    let (_blue, _green, proxy) = proxy().await;
    let dead = "http://127.0.0.1:1";
    let cases: [(&[&str], i32, &str, &str); 6] = [
        (
            &["weights", "shop", "blue=1"],
            1,
            "invalid_weights",
            "green",
        ),
        (
            &["switch", "shop", "--to", "red"],
            1,
            "unknown_backend",
            "it has blue, green",
        ),
        (&["rollout", "pause", "shop"], 75, "no_rollout", "under way"),
        (
            &[
                "weights",
                "shop",
                "blue=1",
                "green=1",
                "--if-revision",
                "99",
            ],
            75,
            "revision_mismatch",
            "not 99",
        ),
        (
            &["status", "--admin", dead],
            69,
            "unreachable",
            "is switchback running",
        ),
        (&["weights", "shop", "blue"], 2, "usage", "write blue=95"),
    ];
    for (arguments, expected, code, why) in cases {
        let (status, out, err) = proxy.cli(arguments);
        assert_eq!(
            (status, out.as_str()),
            (expected, ""),
            "{arguments:?}: {err}"
        );
        assert!(
            err.starts_with("switchback: ") && err.contains(why),
            "{arguments:?}: {err}"
        );
        let (status, out, err) = proxy.cli(&[arguments, &["-o", "json"]].concat());
        assert_eq!((status, out.as_str()), (expected, ""), "{arguments:?}");
        let problem: Value = serde_json::from_str(&err).unwrap();
        assert_eq!(problem["code"], code, "{arguments:?}: {err}");
        assert!(problem["detail"].as_str().unwrap().contains(why), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn colours_are_there_when_asked_for_and_only_then() {
    let (_blue, _green, proxy) = proxy().await;
    let coloured = |arguments: &[&str]| proxy.cli(arguments).1.contains('\u{1b}');
    assert!(!coloured(&["status"]), "not on a terminal");
    assert!(coloured(&["status", "--color", "always"]));
    assert!(!coloured(&["status", "--color", "never"]));
    assert!(!coloured(&["status", "--color", "always", "-o", "json"]));
}

#[test]
fn completions_complete_in_a_real_shell() {
    let script = r#"
        set -e
        source <("$0" completions bash)
        complete_line() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _switchback switchback "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[@]}"
        }
        complete_line switchback roll
        complete_line switchback rollout st
        complete_line switchback status -o ''
    "#;
    let output = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_switchback")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let completed = text(&output.stdout);
    let lines: Vec<&str> = completed.lines().collect();
    assert_eq!(lines, ["rollback rollout", "start", "table json markdown"]);
    for (shell, expected) in [
        ("zsh", "#compdef switchback"),
        ("fish", "complete -c switchback"),
    ] {
        let script = text(&switchback(&["completions", shell]).stdout);
        assert!(
            script.contains(expected) && script.contains("rollback"),
            "{shell}"
        );
    }
}

#[test]
fn manual_pages_are_there_for_every_verb_and_have_no_faults() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    assert!(switchback(&["man", path]).status.success());
    for verb in verbs(&[]) {
        let page = directory.path().join(format!("switchback-{verb}.1"));
        assert!(page.exists(), "{}", page.display());
    }
    let pages = std::fs::read_dir(directory.path()).unwrap();
    for page in pages.map(|page| page.unwrap().path()) {
        let lint = Command::new("mandoc")
            .args(["-T", "lint", "-W", "error"])
            .arg(&page)
            .output()
            .unwrap_or_else(|error| panic!("mandoc: {error}; tests/run installs it"));
        assert!(lint.status.success(), "{}", text(&lint.stdout));
        let shown = Command::new("mandoc")
            .args(["-T", "html"])
            .arg(&page)
            .output()
            .unwrap();
        assert!(
            text(&shown.stdout).contains("SYNOPSIS"),
            "{}",
            page.display()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followed_events_go_on_over_connections_that_break_and_say_so() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = blue_green(&blue.url(), &green.url(), "").replace(
        "admin: {address: \"127.0.0.1:0\"}",
        "admin: {address: \"127.0.0.1:0\", allowed_hosts: [\"127.0.0.1\"]}",
    );
    let proxy = Proxy::start(&config);
    let relay = Relay::start(proxy.admin).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_switchback"))
        .args(["events", "--follow", "-o", "json", "--admin"])
        .arg(format!("http://{}", relay.address))
        .env("SWITCHBACK_STATE_DIR", proxy.state_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (sent, lines) = mpsc::sync_channel(64);
    let out = BufReader::new(child.stdout.take().unwrap());
    let err = BufReader::new(child.stderr.take().unwrap());
    for mut reader in [Box::new(out) as Box<dyn BufRead + Send>, Box::new(err)] {
        let sent = sent.clone();
        std::thread::spawn(move || {
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
                let _ = sent.send(std::mem::take(&mut line));
            }
        });
    }
    let next = |what: &str| {
        let line = lines.recv_timeout(DEADLINE);
        line.unwrap_or_else(|error| panic!("{what}: {error}"))
    };
    proxy.weights(90, 10).await;
    assert!(next("the first event").contains("blue=90"));
    for (before, weight) in [(10, 20), (20, 30)] {
        relay.cut();
        assert!(
            next("that it broke").contains("lost the stream"),
            "after {before}"
        );
        proxy.weights(100 - weight, weight).await;
        let mut rest = [next("going on"), next("the missed event")];
        rest.sort();
        assert!(rest[0].contains("connected again"), "{rest:?}");
        assert!(rest[1].contains(&format!("green={weight}")), "{rest:?}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines.try_recv().is_err(), "nothing is told twice");
}
