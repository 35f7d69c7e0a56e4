//! The shape of the project: who may depend on whom, how long a file may be, what must be documented.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

mod commands;
mod documents;
mod packaging;
mod reference;
mod runbook;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file.
const LINES_MAX: usize = 600;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory with this ending, build output apart.
fn files(below: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != ".git" && !name.starts_with("corpus") {
                found.extend(files(&path, ending));
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found
}

fn sources() -> Vec<PathBuf> {
    files(&root(), ".rs")
}

/// The workspace's own crates among the dependencies of a manifest.
fn arrows(manifest: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    let own = dependencies
        .keys()
        .filter(|name| name.starts_with("switchback-"));
    own.cloned().collect()
}

#[test]
fn crates_depend_on_each_other_in_one_direction_only() {
    for (manifest, expected) in [
        ("config/Cargo.toml", &[][..]),
        ("proxy/timeslice/Cargo.toml", &[]),
        (
            "proxy/Cargo.toml",
            &["switchback-config", "switchback-timeslice"],
        ),
        ("admin/judge/Cargo.toml", &["switchback-config"]),
        (
            "admin/Cargo.toml",
            &["switchback-config", "switchback-judge", "switchback-proxy"],
        ),
        ("Cargo.toml", &["switchback-admin", "switchback-timeslice"]),
    ] {
        let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(arrows(manifest), expected, "{manifest}");
    }
}

#[test]
fn judge_and_config_know_no_runtime_clock_or_file() {
    for directory in ["config/src", "admin/judge/src"] {
        for path in files(&root().join(directory), ".rs") {
            let text = fs::read_to_string(&path).unwrap();
            for banned in [
                "tokio",
                "Instant",
                "SystemTime",
                "std::fs",
                "std::env",
                "rand::",
            ] {
                assert!(!text.contains(banned), "{}: {banned}", path.display());
            }
        }
    }
}

#[test]
fn only_the_controller_swaps_snapshots() {
    let swapping: Vec<PathBuf> = files(&root().join("admin/src"), ".rs")
        .into_iter()
        .filter(|path| fs::read_to_string(path).unwrap().contains("plane.swap("))
        .collect();
    assert_eq!(swapping, [root().join("admin/src/control/thread.rs")]);
}

#[test]
fn files_stay_within_their_budget_and_say_what_they_are_for() {
    let mut wrong = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{}: {lines} lines", path.display()));
        }
        let is_unit_test = path.file_name().is_some_and(|name| name == "tests.rs");
        if !is_unit_test && !text.starts_with("//!") && !text.starts_with("#!") {
            wrong.push(format!(
                "{}: does not begin with a module doc",
                path.display()
            ));
        }
        if path.file_name().is_some_and(|name| name == "mod.rs") {
            wrong.push(format!("{}: use foo.rs beside foo/", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_test_sleeps() {
    let call = concat!("sle", "ep(");
    for path in files(&root().join("tests"), ".rs") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            !text.contains(call),
            "{}: wait for an event",
            path.display()
        );
    }
}

#[test]
fn documents_are_complete() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let readme = read("README.md");
    for needed in [
        "cargo run --release -- demo",
        "tests/run",
        "switchback.yaml",
        "curl",
    ] {
        assert!(readme.contains(needed), "README.md: {needed}");
    }
    let architecture = read("ARCHITECTURE.md");
    for needed in ["Invariants", "request::handle", "fence", "controller"] {
        assert!(architecture.contains(needed), "ARCHITECTURE.md: {needed}");
    }
    let security = read("SECURITY.md");
    for needed in ["Reporting", "is promised", "is not promised"] {
        assert!(security.contains(needed), "SECURITY.md: {needed}");
    }
    for name in [
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "RUNBOOK.md",
        "LICENSE",
        "deny.toml",
        "justfile",
        "rust-toolchain.toml",
    ] {
        assert!(!read(name).is_empty(), "{name}");
    }
    assert!(read("LICENSE").contains("Apache License"));
}

#[test]
fn sample_configurations_are_valid() {
    let samples = files(&root().join("deploy"), "switchback.yaml");
    assert!(samples.len() >= 3, "{samples:?}");
    for path in samples {
        let text = fs::read_to_string(&path).unwrap();
        let parsed = switchback_config::parse(&text);
        let name = path.display().to_string();
        let rendered =
            switchback_config::diagnostic::render_all(&parsed.diagnostics, &text, &name, false);
        assert!(
            parsed.config.is_some() && parsed.diagnostics.is_empty(),
            "{rendered}"
        );
    }
}

#[test]
fn readme_example_is_valid_and_short() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let start = readme.find("```yaml\n").unwrap() + "```yaml\n".len();
    let example = &readme[start..start + readme[start..].find("```").unwrap()];
    let parsed = switchback_config::parse(example);
    assert!(parsed.config.is_some(), "{:?}", parsed.diagnostics);
}
