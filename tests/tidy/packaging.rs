//! What is shipped to install switchback with agrees with the program and with itself, as far as that can be told
//! without building anything; `tests/packaging/run` builds and installs it.

use std::fs;
use std::path::Path;
use std::process::Command;

use switchback_config::model::Config;

use super::{files, root};

fn deploy(name: &str) -> String {
    fs::read_to_string(root().join("deploy").join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn valid(text: &str, name: &str) -> Config {
    let parsed = switchback_config::parse(text);
    let faults = &parsed.diagnostics;
    parsed
        .config
        .filter(|_| faults.is_empty())
        .unwrap_or_else(|| panic!("{name}: {faults:#?}"))
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
    // Some faults are only spoken of.
    assert!(
        !told.contains("Unknown key") && !told.contains("ignoring"),
        "{told}"
    );
}

#[test]
fn unit_takes_away_what_the_service_does_not_need() {
    let unit = root().join("deploy/systemd/switchback.service");
    let unit = unit.to_str().unwrap();
    // Tenths: at most 2.0.
    run(
        "systemd-analyze",
        &["security", "--offline=true", "--threshold=20", unit],
    );
}

#[test]
fn units_are_understood() {
    let directory = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for name in ["switchback.service", "switchback.socket"] {
        // The program and its manual are not installed where this is tested.
        let text = deploy(&format!("systemd/{name}"))
            .replace("ExecStart=/usr/bin/switchback", "ExecStart=/bin/true")
            .replace("Documentation=man:switchback(1)\n", "");
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        paths.push(path);
    }
    let paths: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    run(
        "systemd-analyze",
        &[&["verify", "--man=no"], &paths[..]].concat(),
    );
}

#[test]
fn sockets_are_those_of_the_config_file_that_is_installed_beside_them() {
    let config = valid(&deploy("debian/switchback.yaml"), "debian/switchback.yaml");
    let listeners: Vec<String> = config
        .listeners
        .values()
        .map(|listener| listener.address.to_string())
        .collect();
    let socket = deploy("systemd/switchback.socket");
    let held: Vec<&str> = socket
        .lines()
        .filter_map(|line| line.strip_prefix("ListenStream="))
        .collect();
    assert_eq!(held, listeners);
}

#[test]
fn config_map_holds_a_config_file_and_one_replica_serves_it() {
    let map = deploy("kubernetes/configmap.yml");
    let (_, text) = map.split_once("  switchback.yaml: |\n").unwrap();
    let text: String = text
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line)))
        .collect();
    let config = valid(&text, "configmap.yml");
    let deployment = deploy("kubernetes/deployment.yml");
    assert!(deployment.contains("\n  replicas: 1\n"));
    // Ports of the pod are those of the file.
    for address in config.listeners.values().map(|listener| listener.address) {
        assert!(deployment.contains(&format!("containerPort: {}", address.port())));
    }
    let admin = config.admin.address.port();
    assert!(deployment.contains(&format!("containerPort: {admin}")));
    assert!(
        deploy("helm/switchback/templates/deployment.yaml")
            .contains(&format!("containerPort: {admin}"))
    );
}

#[test]
fn everything_that_is_yaml_can_be_read() {
    let python = format!("{}/target/test-venv/bin/python", root().display());
    let python = std::env::var("SWITCHBACK_TEST_PYTHON").unwrap_or(python);
    let mut paths = vec!["-c".to_owned(), READ_YAML.to_owned()];
    for ending in [".yml", ".yaml"] {
        let found = files(&root().join("deploy"), ending).into_iter();
        let read = found.filter(|path| {
            !path
                .parent()
                .is_some_and(|parent| parent.ends_with("templates"))
        });
        paths.extend(read.map(|path| path.display().to_string()));
    }
    assert!(paths.len() > 15, "{paths:?}");
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    run(&python, &paths);
}

/// Reads every document of every file that it is given, and tells which one it cannot read.
const READ_YAML: &str = "
import sys, yaml
for path in sys.argv[1:]:
    try:
        documents = list(yaml.safe_load_all(open(path)))
    except yaml.YAMLError as error:
        sys.exit(f'{path}: {error}')
    assert documents and all(documents), path
";

#[test]
fn versions_are_those_of_the_program() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = deploy("helm/switchback/Chart.yaml");
    assert!(
        chart.contains(&format!("\nversion: {version}\n")),
        "Chart.yaml"
    );
    assert!(
        chart.contains(&format!("\nappVersion: \"{version}\"\n")),
        "Chart.yaml"
    );
    let changelog = deploy("debian/changelog");
    assert!(
        changelog.starts_with(&format!("switchback ({version}-1) ")),
        "debian/changelog"
    );
    let deployment = deploy("kubernetes/deployment.yml");
    assert!(deployment.contains(&format!("image: switchback:{version}\n")));
    let toolchain = fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
    let toolchain: toml::Table = toolchain.parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    let channel: Vec<&str> = channel.split('.').take(2).collect();
    let builder = format!("library/rust:{}-", channel.join("."));
    assert!(deploy("Dockerfile").contains(&builder), "{builder}");
}

#[test]
fn everything_that_the_package_installs_is_there() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let package = &manifest["package"]["metadata"]["deb"];
    let assets = package["assets"].as_array().unwrap();
    assert!(assets.len() > 8);
    for asset in assets {
        let source = asset[0].as_str().unwrap();
        let pattern = Path::new(source);
        let is_made = source.starts_with("target/");
        let found = match pattern.file_name().and_then(|name| name.to_str()) {
            Some(name) if name.starts_with('*') => {
                let directory = root().join(pattern.parent().unwrap());
                is_made || !files(&directory, &name[1..]).is_empty()
            }
            _ => is_made || root().join(pattern).exists(),
        };
        assert!(found, "{source} is not there");
    }
    let kept = package["conf-files"][0].as_str().unwrap();
    assert_eq!(kept, "/etc/switchback/switchback.yaml");
    for script in files(&root().join("deploy/debian/scripts"), "") {
        let text = fs::read_to_string(&script).unwrap();
        assert!(text.contains("\n#DEBHELPER#\n"), "{}", script.display());
    }
}

#[test]
fn package_installs_the_hooks_where_their_examples_are() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let asset = r#"["deploy/hooks/*-rollback", "usr/share/switchback/hooks/", "755"],"#;
    assert!(manifest.contains(asset), "Cargo.toml: {asset}");
    let programs = files(&root().join("deploy/hooks"), "-rollback");
    assert_eq!(programs.len(), 2);
    for program in programs {
        let name = program.file_name().and_then(|name| name.to_str()).unwrap();
        let text = fs::read_to_string(&program).unwrap();
        let example = format!("run: [/usr/share/switchback/hooks/{name}, ");
        assert!(text.contains(&example), "{name}: {example}");
    }
}
