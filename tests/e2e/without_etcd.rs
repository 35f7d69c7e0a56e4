//! A build without etcd and a config file that wants it: said beforehand, and refused rather than served alone.

use crate::support::{blue_green, eventually, run};

fn config() -> String {
    let cluster = "cluster: {name: edge, etcd: {endpoints: [\"http://127.0.0.1:2379\"]}}\n";
    let origin = "http://127.0.0.1:9001";
    format!(
        "{}{cluster}",
        blue_green(origin, "http://127.0.0.1:9002", "")
    )
}

const SENTENCE: &str = "cluster: this switchback was built without etcd; use a release package, or build it with --features etcd";

#[test]
fn run_refuses_a_cluster_with_the_code_of_a_config_file() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("switchback.yaml"), config()).unwrap();
    let mut child = run(directory.path()).spawn().unwrap();
    let mut status = None;
    eventually("it ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    assert_eq!(status.unwrap().code(), Some(78), "{log}");
    assert!(log.contains(SENTENCE), "{log}");
}

#[test]
fn check_says_that_this_build_cannot_run_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("switchback.yaml");
    std::fs::write(&path, config()).unwrap();
    let check = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_switchback"))
            .arg("check")
            .arg(&path)
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (code, said) = check(&[]);
    assert_eq!(code, Some(0), "another build takes it: {said}");
    assert!(said.contains(&format!("note: {SENTENCE}")), "{said}");
    let (_, said) = check(&["-o", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["note"], SENTENCE);
}
