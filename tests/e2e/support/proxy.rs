//! The process under test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::client::{Answer, Http};
use super::{Origin, eventually};

/// A running switchback with a directory of its own.
#[derive(Debug)]
pub(crate) struct Proxy {
    directory: tempfile::TempDir,
    child: Child,
    /// It has file systems of its own, which are seen by way of its process.
    own_mounts: bool,
    pub(crate) web: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) token: String,
}

/// What every configuration of these tests begins with.
pub(crate) const HEAD: &str = "version: 1
workers: 2
admin: {address: \"127.0.0.1:0\"}
access_log: {format: \"off\"}
listeners:
  web: {address: \"127.0.0.1:0\"}
routes: [{service: shop}]
";

impl Proxy {
    /// Starts with a configuration of its own.
    pub(crate) fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
        Self::start_in(directory)
    }

    /// Starts in a directory that holds `switchback.yaml`.
    pub(crate) fn start_in(directory: tempfile::TempDir) -> Self {
        let command = run(directory.path());
        Self::start_by(directory, command)
    }

    /// Starts by a command of the caller's, in a directory that holds `switchback.yaml`.
    pub(crate) fn start_by(directory: tempfile::TempDir, command: Command) -> Self {
        Self::start_mounted(directory, command, false)
    }

    /// The same for a command that makes file systems which nobody else sees.
    pub(crate) fn start_with_own_mounts(directory: tempfile::TempDir, command: Command) -> Self {
        Self::start_mounted(directory, command, true)
    }

    fn start_mounted(directory: tempfile::TempDir, mut command: Command, own_mounts: bool) -> Self {
        let child = command.spawn().unwrap();
        let mut proxy = Self {
            directory,
            child,
            own_mounts,
            web: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            token: String::new(),
        };
        proxy.find();
        proxy
    }

    /// One service `shop` with blue (stable, version 1) and green (version 2), all traffic on blue.
    /// `more`: further keys of the service.
    pub(crate) fn blue_green(blue: &Origin, green: &Origin, more: &str) -> Self {
        Self::start(&blue_green(&blue.url(), &green.url(), more))
    }

    fn find(&mut self) {
        let path = self.state_dir().join("run.json");
        eventually("the proxy listens", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("switchback ended at its start: {status}\n{}", self.log());
            }
            let run = std::fs::read_to_string(&path).ok();
            let run = run.and_then(|run| serde_json::from_str::<Value>(&run).ok());
            run.is_some_and(|run| run["pid"] == self.child.id())
        });
        let run: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let listeners = run["listeners"].as_object().unwrap();
        self.web = listeners
            .get("web")
            .or_else(|| listeners.values().next())
            .unwrap()
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        self.admin = run["admin"].as_str().unwrap().parse().unwrap();
        let token = std::fs::read_to_string(self.state_dir().join("admin.token"));
        self.token = token.unwrap_or_default().trim().to_owned();
    }

    /// Where a listener other than `web` accepts.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        let run = self.run_file();
        run["listeners"][name].as_str().unwrap().parse().unwrap()
    }

    /// What it says of itself beside its state.
    pub(crate) fn run_file(&self) -> Value {
        let run = std::fs::read_to_string(self.state_dir().join("run.json")).unwrap();
        serde_json::from_str(&run).unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        let state = self.path().join("state");
        match self.own_mounts {
            true => format!("/proc/{}/root{}", self.child.id(), state.display()).into(),
            false => state,
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn write_config(&self, config: &str) {
        let (whole, partial) = (
            self.path().join("switchback.yaml"),
            self.path().join("new.yaml"),
        );
        std::fs::write(&partial, config).unwrap();
        std::fs::rename(partial, whole).unwrap();
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Lets every write fail from now on, as on a full disk, or succeed again.
    pub(crate) fn fill_disk(&self, full: bool) {
        let limit = rustix::process::Rlimit {
            current: full.then_some(0),
            maximum: None,
        };
        let resource = rustix::process::Resource::Fsize;
        rustix::process::prlimit(Some(self.pid()), resource, limit).unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the process to end; its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// Kills it without warning and starts it again.
    pub(crate) fn crash_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.start_again();
    }

    pub(crate) fn start_again(&mut self) {
        let command = run(self.directory.path());
        self.start_again_by(command);
    }

    pub(crate) fn start_again_by(&mut self, mut command: Command) {
        self.child = command.spawn().unwrap();
        self.find();
    }

    /// A new process takes over; the one before is returned.
    pub(crate) fn take_over(&mut self) -> Child {
        let next = run(self.directory.path())
            .arg("--takeover")
            .spawn()
            .unwrap();
        let before = std::mem::replace(&mut self.child, next);
        self.find();
        before
    }

    /// Asks the API.
    pub(crate) async fn api(&self, method: &str, path: &str, body: Value) -> Answer {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut headers = vec![("authorization", format!("Bearer {}", self.token))];
        if !text.is_empty() {
            headers.push(("content-type", "application/json".into()));
        }
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Http::connect(self.admin)
            .await
            .send(method, path, &headers, text.as_bytes())
            .await
            .unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.api("GET", path, Value::Null).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub(crate) async fn service(&self) -> Value {
        self.get("/v1/services/shop").await
    }

    /// Sets the weights and returns the answer.
    pub(crate) async fn weights(&self, blue: u32, green: u32) -> Value {
        let body = json!({"weights": {"blue": blue, "green": green}});
        self.put("/v1/services/shop/weights", body).await
    }

    /// Sets weights as soon as ordinary writes are taken again.
    pub(crate) async fn set_weights_when_it_can(&self, body: Value) {
        let path = "/v1/services/shop/weights";
        super::eventually_async("ordinary writes are taken again", || async {
            self.api("PUT", path, body.clone()).await.status == 200
        })
        .await;
    }

    /// Sets something, which is taken.
    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        let answer = self.api("PUT", path, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Asks for a change that is refused: the status and the code.
    pub(crate) async fn refused(&self, path: &str, body: Value) -> (u16, String) {
        let answer = self.post(path, body).await;
        let code = answer.json()["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (answer.status, code)
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.api("POST", path, body).await
    }

    /// Runs a verb of the command line against it: exit code, standard output, standard error.
    pub(crate) fn cli(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_switchback"))
            .args(arguments)
            .env("SWITCHBACK_ADMIN", format!("http://{}", self.admin))
            .env("SWITCHBACK_STATE_DIR", self.state_dir())
            .current_dir(self.path())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap_or(-1),
            text(&output.stdout),
            text(&output.stderr),
        )
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the proxy\n{}", self.log());
        }
    }
}

/// The command that runs it in a directory, with its log there.
pub(crate) fn run(directory: &Path) -> Command {
    let mut command = Command::new("sh");
    // A write beyond a limit on file sizes fails, as on a full disk, if its signal is ignored.
    command
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_switchback"))
        .args(["run", "--config", "switchback.yaml", "--state-dir", "state"]);
    log_in(directory, &mut command);
    command
}

/// Makes a command work and log in a directory.
pub(crate) fn log_in(directory: &Path, command: &mut Command) {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .unwrap();
    command
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
}

/// The configuration of [`Proxy::blue_green`].
pub(crate) fn blue_green(blue: &str, green: &str, more: &str) -> String {
    let more: String = more
        .lines()
        .map(|line| format!("    {}\n", line.trim_end()))
        .collect();
    format!(
        "{HEAD}services:
  shop:
    stable: blue
    weights: {{blue: 100, green: 0}}
    backends:
      blue: {{version: \"1\", endpoints: [\"{blue}\"]}}
      green: {{version: \"2\", endpoints: [\"{green}\"]}}
{more}"
    )
}
