//! Whoever is woken by an alert must find what to do: each has its entry in the runbook, and only alerts have.

use std::collections::BTreeSet;
use std::fs;

use super::root;

/// What follows a key at the beginning of lines.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(move |line| line.trim_start().strip_prefix(key))
        .map(str::trim)
}

#[test]
fn every_alert_has_its_entry_in_the_runbook_and_leads_there() {
    let alerts = fs::read_to_string(root().join("deploy/prometheus/alerts.yml")).unwrap();
    let runbook = fs::read_to_string(root().join("RUNBOOK.md")).unwrap();
    let names: Vec<&str> = values(&alerts, "- alert:").collect();
    assert!(names.len() > 10, "{names:?}");
    let links: Vec<&str> = values(&alerts, "runbook_url:").collect();
    let expected: Vec<String> = names
        .iter()
        .map(|name| format!("RUNBOOK.md#{}", name.to_lowercase()))
        .collect();
    assert_eq!(links, expected, "in the order of the alerts");
    let entries: BTreeSet<&str> = values(&runbook, "## ").collect();
    assert_eq!(
        entries,
        names.into_iter().collect(),
        "RUNBOOK.md, alerts.yml"
    );
    for entry in runbook.split("\n## ").skip(1) {
        let (name, text) = entry.split_once('\n').unwrap();
        assert!(text.trim().len() > 100, "{name} says nothing");
    }
}

#[test]
fn every_alert_is_shown_to_fire_by_a_unit_test() {
    let read =
        |name: &str| fs::read_to_string(root().join("deploy/prometheus").join(name)).unwrap();
    let (alerts, tests) = (read("alerts.yml"), read("tests.yml"));
    for name in values(&alerts, "- alert:") {
        let fires = tests.contains(&format!("- alertname: {name}\n"));
        assert!(fires, "no test in which {name} fires");
    }
}
