//! What the guides in `docs/` tell people to type works, line by line.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{Origin, Proxy};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of a page's blocks of shell.
fn typed(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs").join(page)).unwrap();
    let blocks = text.split("```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap().to_owned());
    let lines: Vec<String> = blocks
        .flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(!lines.is_empty(), "{page}");
    lines
}

/// Runs a script where the program can be found by its name.
fn bash(directory: &Path, script: &str, variables: &[(&str, &Path)]) -> Output {
    let programs = Path::new(env!("CARGO_BIN_EXE_switchback"))
        .parent()
        .unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new("bash")
        .args(["-c", script])
        .env("PATH", format!("{}:{path}", programs.display()))
        .env_remove("SWITCHBACK_CONFIG")
        .envs(variables.iter().copied())
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An address of this machine that no other test uses: ports are those of the page.
fn own_address() -> String {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    format!("127.{}.{middle}.{low}", 100 + high)
}

/// The page as a script that shows each line before what it prints, and ends what it has started.
fn script(page: &str, address: &str) -> String {
    const PRELUDE: &str = "set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
# Looks until something holds that was started in the background.
until_it() { for _ in $(seq 200); do \"$@\" >/dev/null 2>&1 && return; sleep 0.1; done; echo \"not in time: $*\"; exit 1; }
";
    let mut script = PRELUDE.to_owned();
    for line in typed(page) {
        let line = line.replace("127.0.0.1", address);
        let _ = writeln!(script, "echo '$ '{}\n{line}", quoted(&line));
        let port = line.split_once("PORT=").map(|(_, rest)| &rest[..4]);
        if let Some(port) = port {
            let _ = writeln!(script, "until_it curl -s http://{address}:{port}/healthz");
        } else if line.starts_with("switchback run") {
            script.push_str("until_it switchback healthcheck\n");
        } else if line.starts_with("switchback init") {
            let _ = writeln!(
                script,
                "sed -i 's/127\\.0\\.0\\.1/{address}/' switchback.yaml"
            );
        }
    }
    script
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn quick_start_does_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("deploy"), directory.path().join("deploy")).unwrap();
    let state: PathBuf = directory.path().join("state");
    let script = script("quick-start.md", &own_address());
    let variables = [("SWITCHBACK_STATE_DIR", state.as_path())];
    let output = bash(directory.path(), &script, &variables);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    // Each line with what it printed.
    let told: Vec<(&str, &str)> = out
        .split("$ ")
        .skip(1)
        .map(|part| part.split_once('\n').unwrap_or((part, "")))
        .collect();
    let all = |start: &str| -> Vec<&str> {
        let found = told.iter().filter(|(line, _)| line.starts_with(start));
        found.map(|(_, printed)| *printed).collect()
    };
    assert_eq!(
        all("curl"),
        ["version 41\n", "version 43\n", "version 41\n"],
        "{out}"
    );
    let answers = all("for n in");
    assert!(answers[0].contains("version 41"), "{out}");
    assert!(answers[1].contains("version 43"), "{out}");
    let [before, after] = &all("switchback status")[..] else {
        panic!("{out}");
    };
    assert!(
        !before.contains("blocked") && after.contains("blocked"),
        "{out}"
    );
    assert!(
        all("switchback incident")[0].contains("canary failed"),
        "{out}"
    );
    assert!(all("switchback explain")[0].contains("42"), "{out}");
    assert!(all("switchback history")[0].contains("try 42"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_every_other_guide_work_in_their_order() {
    let guides = std::fs::read_dir(root().join("docs")).unwrap();
    let guides = guides.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut tried = 0;
    // The quick start is tried above, and what needs several instances where there are several.
    let elsewhere = ["quick-start.md", "cluster.md"];
    for page in guides.filter(|page| page.ends_with(".md") && !elsewhere.contains(&page.as_str())) {
        let whole = std::fs::read_to_string(root().join("docs").join(&page)).unwrap();
        if !whole.contains("```sh\n") {
            continue;
        }
        let (blue, green) = (Origin::start().await, Origin::start().await);
        let proxy = Proxy::blue_green(&blue, &green, "");
        let admin = PathBuf::from(format!("http://{}", proxy.admin));
        let state = proxy.state_dir();
        let variables = [
            ("SWITCHBACK_ADMIN", admin.as_path()),
            ("SWITCHBACK_STATE_DIR", state.as_path()),
        ];
        // How one process replaces another is tried by tests of its own.
        for line in typed(&page)
            .iter()
            .filter(|line| !line.starts_with("switchback run "))
        {
            let output = bash(proxy.path(), line, &variables);
            let told = text(&output.stdout) + &text(&output.stderr);
            assert!(output.status.success(), "{page}: {line}: {told}");
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
}
