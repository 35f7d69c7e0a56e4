//! What is shipped to be tried out does what it is said to do.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::{Http, Proxy, eventually_async, python};

fn shipped(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name)
}

/// The sample service of the compose file.
struct Sample {
    child: Child,
    url: String,
}

impl Sample {
    fn start(settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(python())
            .arg(shipped("compose/sample.py"))
            .envs([("HOST", "127.0.0.1"), ("PORT", "0")])
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let port = line.split_whitespace().last().unwrap_or_default();
        Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        }
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compose_sample_rolls_its_broken_version_back_before_ones_eyes() {
    let blue = Sample::start(&[("VERSION", "41")]);
    let green = Sample::start(&[("VERSION", "42"), ("FAIL_EVERY", "3")]);
    let config = std::fs::read_to_string(shipped("compose/switchback.yaml")).unwrap();
    let config = config
        .replace("http://blue:8000", &blue.url)
        .replace("http://green:8000", &green.url)
        .replace("0.0.0.0:8080", "127.0.0.1:0");
    let proxy = Proxy::start(&format!("{config}admin: {{address: \"127.0.0.1:0\"}}\n"));
    let mut client = Http::connect(proxy.web).await;
    let answer = client.get("/").await;
    assert_eq!(
        (
            answer.text().as_str(),
            answer.header("x-switchback-version")
        ),
        ("version 41\n", "41")
    );
    // The command of the compose file, word for word.
    let compose = std::fs::read_to_string(shipped("compose/compose.yml")).unwrap();
    let command = compose
        .lines()
        .find_map(|line| line.split_once("exec switchback switchback "))
        .unwrap()
        .1;
    let words: Vec<&str> = command.split_whitespace().collect();
    let (code, _, err) = proxy.cli(&words);
    assert_eq!(code, 0, "{err}");
    let asked = std::sync::atomic::AtomicU32::new(0);
    let client = tokio::sync::Mutex::new(client);
    eventually_async("green is rolled back", || async {
        let mut client = client.lock().await;
        for _ in 0..20 {
            let answer = client.get("/").await;
            // Stable answers what green fails.
            assert_eq!(answer.status, 200, "{}", answer.text());
            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        proxy.service().await["backends"]["green"]["blocked"]["cause"] == "judge"
    })
    .await;
    assert!(asked.into_inner() > 30);
}
