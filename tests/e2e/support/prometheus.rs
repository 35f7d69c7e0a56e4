//! A real Prometheus that scrapes one origin, five times a second.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::{Origin, eventually};

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
        let directory = tempfile::tempdir().unwrap();
        let target = target.address;
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\n\
             scrape_configs: [{{job_name: shop, static_configs: [{{targets: [\"{target}\"]}}]}}]\n"
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
