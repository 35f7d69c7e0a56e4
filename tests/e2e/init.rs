//! The first minutes: no config file yet, one from flags or from answers, and what a typo leads to.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Http, Origin, Proxy, python};

/// Runs the command line in a directory: exit code, standard output, standard error.
fn switchback(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    told(
        Command::new(env!("CARGO_BIN_EXE_switchback"))
            .args(arguments)
            .env_remove("SWITCHBACK_CONFIG")
            .current_dir(directory),
    )
}

fn told(command: &mut Command) -> (i32, String, String) {
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn run_without_a_config_file_says_how_to_get_one() {
    let directory = tempfile::tempdir().unwrap();
    let (code, out, err) = switchback(directory.path(), &["run"]);
    assert_eq!((code, out.as_str()), (78, ""), "{err}");
    for needed in [
        "neither ./switchback.yaml nor /etc/switchback/switchback.yaml is there",
        "\n  switchback init --stable http://127.0.0.1:9001 --canary http://127.0.0.1:9002\n  switchback run\n",
        "switchback demo",
    ] {
        assert!(err.contains(needed), "{needed}: {err}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
    let named = command.arg("run").env("SWITCHBACK_CONFIG", "gone.yaml");
    let (code, _, err) = told(named.current_dir(directory.path()));
    assert_eq!(code, 78);
    assert!(
        err.ends_with("SWITCHBACK_CONFIG names gone.yaml, which is not there\n"),
        "{err}"
    );
    let (code, _, err) = switchback(directory.path(), &["run", "--config", "gone.yaml"]);
    assert_eq!(code, 78);
    assert!(err.contains("gone.yaml: No such file"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_two_commands_that_run_names_lead_to_a_canary() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let directory = tempfile::tempdir().unwrap();
    let (stable, canary) = (blue.url(), green.url());
    let (code, out, err) = switchback(
        directory.path(),
        &[
            "init",
            "--stable",
            &stable,
            "--canary",
            &canary,
            "--canary-version",
            "42 # \"rc\"",
            "--listen",
            "0",
            "--health",
            "/healthz",
        ],
    );
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(
        out.contains("next:\n  switchback run\n  switchback status"),
        "{out}"
    );
    let file = directory.path().join("switchback.yaml");
    let (code, out, _) = switchback(directory.path(), &["check", "switchback.yaml"]);
    assert_eq!(code, 0, "{out}");
    // The admin API's port is that of everybody's first try.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("127.0.0.1:9900", "127.0.0.1:0")).unwrap();
    let proxy = Proxy::start_in(directory);
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    assert_eq!(service["backends"]["green"]["version"], "42 # \"rc\"");
    assert_eq!(Http::connect(proxy.web).await.get("/").await.status, 200);
    assert_eq!((blue.received(), green.received()), (1, 0));
    // The command that init names last.
    let (code, _, err) = proxy.cli(&["weights", "shop", "blue=95", "green=5"]);
    assert_eq!(code, 0, "{err}");
}

#[test]
fn file_that_is_there_is_replaced_only_when_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("switchback.yaml");
    std::fs::write(&file, "mine").unwrap();
    let flags = ["init", "--stable", "http://127.0.0.1:9001"];
    let (code, out, err) = switchback(directory.path(), &flags);
    assert_eq!((code, out.as_str()), (73, ""));
    assert!(
        err.contains("switchback.yaml is there already; --force"),
        "{err}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    let (code, out, err) = switchback(directory.path(), &[&flags[..], &["--force"]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("then add the new version"), "{out}");
    let (code, out, _) = switchback(directory.path(), &["check", "switchback.yaml"]);
    assert_eq!(code, 0, "{out}");
    // Another name is no obstacle, and programs get what they can read.
    let elsewhere = [
        "init",
        "other.yaml",
        "--stable",
        "http://127.0.0.1:9001",
        "-o",
        "json",
    ];
    let (code, out, err) = switchback(directory.path(), &elsewhere);
    assert_eq!(code, 0, "{err}");
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said["next"][0], "switchback run --config other.yaml");
    let (code, _, err) = switchback(
        directory.path(),
        &["init", "no/such/place.yaml", "--stable", "http://a"],
    );
    assert_eq!(code, 73);
    assert!(
        err.contains("write no/such/place.yaml: No such file"),
        "{err}"
    );
}

#[test]
fn answers_that_cannot_be_are_refused_with_the_repair_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let stable = "http://127.0.0.1:9001";
    let cases: [(&[&str], &str); 8] = [
        (&[], "name the version that serves now"),
        (
            &["--stable", "127.0.0.1:9001"],
            "write http://127.0.0.1:9001",
        ),
        (&["--stable", "ftp://a"], "the scheme \"ftp\" is not known"),
        (&["--stable", stable, "--listen", "web"], "web"),
        (&["--stable", stable, "--service", "my shop"], "my shop"),
        (
            &["--stable", stable, "--service", "a\n    b: {"],
            "control characters",
        ),
        (&["--stable", stable, "--health", "healthz"], "healthz"),
        (
            &[
                "--stable",
                stable,
                "--canary",
                "http://127.0.0.1:9002",
                "--canary-version",
                "1",
            ],
            "both versions are labelled \"1\"",
        ),
    ];
    for (flags, expected) in cases {
        let (code, out, err) = switchback(directory.path(), &[&["init"], flags].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{flags:?}: {err}");
        assert!(err.contains(expected), "{flags:?}: {err}");
        let written = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(written, 0, "{flags:?}");
    }
}

#[test]
fn who_says_nothing_is_asked_on_a_terminal_until_the_answers_make_sense() {
    let directory = tempfile::tempdir().unwrap();
    let script = json!([
        ["stable: ", ""],
        ["stable: ", "localhost:9001"],
        ["write http://localhost:9001", ""],
        ["stable: ", "http://localhost:9001, http://localhost:9011"],
        ["canary: ", "http://localhost:9002"],
        ["health: ", "/healthz"],
        ["listen: ", ""],
        ["service: ", "checkout"],
    ]);
    let answering = |script: &Value| {
        told(
            Command::new(python())
                .arg(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/tests/clients/terminal.py"
                ))
                .arg(script.to_string())
                .args([env!("CARGO_BIN_EXE_switchback"), "init"])
                .current_dir(directory.path()),
        )
    };
    let (code, out, err) = answering(&script);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("wrote switchback.yaml"), "{out}");
    let text = std::fs::read_to_string(directory.path().join("switchback.yaml")).unwrap();
    for needed in [
        "web: {address: \"127.0.0.1:8080\"}",
        "  checkout:\n",
        "blue: {version: \"1\", endpoints: [\"http://localhost:9001\", \"http://localhost:9011\"]}",
        "green: {version: \"2\", endpoints: [\"http://localhost:9002\"]}",
        "    health: {path: \"/healthz\"",
    ] {
        assert!(text.contains(needed), "{needed}: {text}");
    }
    let (code, out, _) = switchback(directory.path(), &["check", "switchback.yaml"]);
    assert_eq!(code, 0, "{out}");
    // What is there is seen before anything is asked.
    let (code, out, _) = answering(&json!([]));
    assert_eq!(code, 73, "{out}");
    assert!(!out.contains("stable: "), "{out}");
}

#[test]
fn typo_in_the_first_file_is_answered_with_the_nearest_key() {
    let directory = tempfile::tempdir().unwrap();
    let flags = [
        "init",
        "--stable",
        "http://127.0.0.1:9001",
        "--health",
        "/healthz",
    ];
    assert_eq!(switchback(directory.path(), &flags).0, 0);
    let file = directory.path().join("switchback.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    for (right, wrong) in [
        ("listeners:", "listners:"),
        ("endpoints:", "endpoint:"),
        ("interval:", "intervall:"),
        ("max_extra_errors:", "max-extra-error:"),
        ("stable: blue", "stabel: blue"),
    ] {
        std::fs::write(&file, text.replacen(right, wrong, 1)).unwrap();
        let (code, out, _) = switchback(directory.path(), &["check", "switchback.yaml"]);
        assert_eq!(code, 78, "{wrong}: {out}");
        let key = right.split(':').next().unwrap();
        assert!(
            out.contains(&format!("did you mean {key}?")),
            "{wrong}: {out}"
        );
    }
}
