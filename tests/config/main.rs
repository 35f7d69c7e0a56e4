//! What the reader of configuration files says, word for word, and what must hold for any input.
//!
//! Each `cases/*.yaml` has a `*.txt` beside it: the faults as they are rendered without colour, and for
//! a usable file the effective file after them. `UPDATE_EXPECT=1` writes them anew; read the
//! difference as somebody who has been woken at three and has never seen the tool. Files named `good-`
//! have no fault, those named `warn-` only warnings, all others at least one error.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod properties;
mod schema;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use switchback_config::diagnostic::{Code, Severity, render_all};
use switchback_config::{Parsed, explain, parse};

/// A file of the corpus.
struct Case {
    /// File name without its extension.
    name: String,
    path: PathBuf,
    text: String,
}

/// The corpus, by name.
fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/cases");
    let mut cases: Vec<Case> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .map(|path| Case {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            text: fs::read_to_string(&path).unwrap(),
            path,
        })
        .collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    cases
}

fn good_cases() -> Vec<Case> {
    let mut cases = cases();
    cases.retain(|case| case.name.starts_with("good-"));
    cases
}

fn shown(case: &Case, parsed: &Parsed) -> String {
    let mut shown = String::new();
    if !parsed.diagnostics.is_empty() {
        let file = format!("{}.yaml", case.name);
        shown += &render_all(&parsed.diagnostics, &case.text, &file, false);
    }
    if let Some(config) = &parsed.config {
        shown += &explain(config);
    }
    shown
}

#[test]
fn every_case_reads_as_expected() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut different = String::new();
    for case in cases() {
        let found = shown(&case, &parse(&case.text));
        let expected = case.path.with_extension("txt");
        if update {
            fs::write(&expected, &found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            writeln!(different, "--- {}\n{found}", case.name).unwrap();
        }
    }
    assert!(
        different.is_empty(),
        "what is said has changed; UPDATE_EXPECT=1 accepts it\n{different}"
    );
}

#[test]
fn every_case_has_faults_as_its_name_says() {
    for Case { name, text, .. } in cases() {
        let parsed = parse(&text);
        let has = |severity| parsed.diagnostics.iter().any(|d| d.severity == severity);
        let found = (has(Severity::Error), has(Severity::Warning));
        let expected = match name.split('-').next() {
            Some("good") => found == (false, false),
            Some("warn") => found == (false, true),
            _ => found.0,
        };
        assert!(expected, "{name}: {:#?}", parsed.diagnostics);
        assert_eq!(parsed.config.is_some(), !found.0, "{name}");
    }
}

#[test]
fn every_code_occurs_in_a_case() {
    let found: BTreeSet<Code> = cases()
        .iter()
        .flat_map(|case| parse(&case.text).diagnostics)
        .map(|diagnostic| diagnostic.code)
        .collect();
    let missing: Vec<&Code> = Code::ALL
        .iter()
        .filter(|code| !found.contains(code))
        .collect();
    assert!(missing.is_empty(), "no case produces {missing:?}");
}

#[test]
fn every_fault_says_what_is_wrong_and_how_to_repair_it() {
    for Case { name, text, .. } in cases() {
        for fault in parse(&text).diagnostics {
            for words in [&fault.reason, &fault.repair] {
                assert!(!words.trim().is_empty(), "{name}: {fault:?}");
                assert!(!words.ends_with('.'), "{name}: {words}");
                assert!(!words.contains('\n'), "{name}: {words}");
            }
        }
    }
}

#[test]
fn effective_file_reads_back_to_the_same_configuration() {
    for Case { name, text, .. } in good_cases() {
        let config = parse(&text)
            .config
            .unwrap_or_else(|| panic!("{name} is not good"));
        let effective = explain(&config);
        let again = parse(&effective);
        assert_eq!(again.diagnostics, [], "{name}:\n{effective}");
        assert_eq!(again.config.as_ref(), Some(&config), "{name}:\n{effective}");
    }
}
