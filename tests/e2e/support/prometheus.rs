//! A real Prometheus that scrapes one address, five times a second.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{Http, Origin, eventually};

/// A running Prometheus with a directory of its own.
#[derive(Debug)]
pub(crate) struct Prometheus {
    directory: tempfile::TempDir,
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one that scrapes `/metrics` of an origin.
    pub(crate) fn start(target: &Origin) -> Self {
        Self::scraping("shop", target.address, &[])
    }

    /// Starts one that scrapes `/metrics` of an address under a job's name, and goes by these rules.
    pub(crate) fn scraping(job: &str, target: SocketAddr, rules: &[PathBuf]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
             rule_files: {rules:?}\n\
             scrape_configs: [{{job_name: {job}, static_configs: [{{targets: [\"{target}\"]}}]}}]\n"
        );
        std::fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (child, address) = spawn(&directory, anywhere);
        Self {
            directory,
            child,
            address,
        }
    }

    /// Asks its API; what it answers under `data`.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, String> {
        let answer = Http::connect(self.address).await.get(path).await.json();
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// The series that an expression yields now.
    pub(crate) async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let encoded: String = expression
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        let found = self.get(&format!("/api/v1/query?query={encoded}")).await?;
        Ok(found["result"].as_array().cloned().unwrap_or_default())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it without warning.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) {
        (self.child, self.address) = spawn(&self.directory, self.address);
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &tempfile::TempDir, address: SocketAddr) -> (Child, SocketAddr) {
    let path = directory.path().join("log");
    let log = std::fs::File::create(&path).unwrap();
    let mut child = Command::new("prometheus")
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
        .arg(format!("--web.listen-address={address}"))
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("prometheus is installed; tests/run does it");
    let mut bound = None;
    eventually("Prometheus listens", || {
        let log = std::fs::read_to_string(&path).unwrap();
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "Prometheus ended at its start\n{log}");
        bound = log.lines().find_map(|line| {
            let (_, address) = line.split_once("msg=\"Listening on\" address=")?;
            address.trim().parse().ok()
        });
        bound.is_some() && log.contains("Server is ready")
    });
    (child, bound.unwrap())
}
