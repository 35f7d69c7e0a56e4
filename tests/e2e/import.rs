//! `import`: what other tools were told, as keys that `check` takes.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::blue_green;

/// A fragment as people publish it, as it is.
const FRAGMENT: &str = include_str!("../../admin/src/import/fragment.yaml");

fn switchback(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_switchback"))
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn automated_rollback_imported_from_argo_is_a_section_that_check_takes() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::write(at.join("argo.yaml"), FRAGMENT).unwrap();
    let (code, out, err) = switchback(at, &["import", "argo", "argo.yaml"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for said in [
        "rollback:\n  max_extra_errors: \"1%\"\n",
        "drain:\n  safe_to_stop_after: \"30s\"\n",
        "#   argo.yaml:9: spec.strategy.canary.analysis.args[0]: rollback.max_extra_errors",
        "#   argo.yaml:12: spec.strategy.canary.abortScaleDownDelaySeconds: drain.safe_to_stop_after",
    ] {
        assert!(out.contains(said), "{said}: {out}");
    }
    assert!(!out.contains("Not taken over"), "{out}");
    let config = blue_green("http://127.0.0.1:9001", "http://127.0.0.1:9002", &out);
    std::fs::write(at.join("switchback.yaml"), config).unwrap();
    let (code, out, _) = switchback(at, &["check", "switchback.yaml"]);
    assert_eq!(code, 0, "{out}");
}

#[test]
fn what_cannot_be_imported_is_listed_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let canary = "kind: Canary
spec:
  analysis:
    interval: 1m
    stepWeight: 10
    maxWeight: 30
    webhooks: []
";
    std::fs::write(at.join("canary.yaml"), canary).unwrap();
    let (code, out, err) = switchback(at, &["import", "flagger", "canary.yaml"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let listed =
        "# Not taken over:\n#   canary.yaml:7:5: spec.analysis.webhooks: hooks of a service";
    assert!(out.contains(listed), "{out}");
    let (_, out, _) = switchback(at, &["import", "flagger", "canary.yaml", "-o", "json"]);
    let import: Value = serde_json::from_str(&out).unwrap();
    let shares = import["section"]["rollout"]["steps"].as_array().unwrap();
    let shares: Vec<&Value> = shares.iter().map(|step| &step["weight"]).collect();
    assert_eq!(shares, ["10%", "20%", "30%"]);
    assert_eq!(import["left"][0]["line"], json!(7));
    for (file, text, code, said) in [
        (
            "none.yaml",
            "kind: Service\n",
            78,
            "none.yaml: there is no Canary in it",
        ),
        ("broken.yaml", "a: [", 78, "broken.yaml: line 1"),
        (
            "other.yaml",
            "kind: Canary\nspec: {service: {port: 1}}\n",
            1,
            "has a counterpart",
        ),
    ] {
        std::fs::write(at.join(file), text).unwrap();
        let (found, out, err) = switchback(at, &["import", "flagger", file]);
        assert_eq!((found, out.as_str()), (code, ""), "{err}");
        assert!(err.contains(said), "{err}");
    }
}
