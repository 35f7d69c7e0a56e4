//! A real etcd, and instances that share their state in it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{Authority, Http, Load, Origin, Protocol, Proxy, Relay, eventually, eventually_async};

/// A running etcd with a directory of its own.
#[derive(Debug)]
pub(crate) struct Etcd {
    directory: tempfile::TempDir,
    child: Child,
    pub(crate) address: SocketAddr,
    peer: SocketAddr,
    /// Whom it lets in.
    access: Access,
}

/// Whom an etcd lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Everybody.
    Open,
    /// Who shows a certificate.
    Certificates,
    /// Who shows a certificate and has a password.
    Passwords,
}

/// How long what a password is exchanged for is good for, if nobody uses it.
const TOKEN_SECONDS: &str = "1";

impl Access {
    fn scheme(self) -> &'static str {
        match self {
            Self::Open => "http",
            Self::Certificates | Self::Passwords => "https",
        }
    }

    fn server(self) -> &'static [&'static str] {
        match self {
            Self::Open => &[],
            Self::Certificates | Self::Passwords => &[
                "--cert-file=etcd.crt",
                "--key-file=etcd.key",
                "--trusted-ca-file=ca.crt",
                "--client-cert-auth",
                // Tells when what a password was exchanged for has ended.
                "--logger=zap",
                "--auth-token-ttl",
                TOKEN_SECONDS,
            ],
        }
    }

    fn client(self) -> &'static [&'static str] {
        let all = &[
            "--user=root:root",
            "--cacert=ca.crt",
            "--cert=etcd.crt",
            "--key=etcd.key",
        ];
        match self {
            Self::Open => &[],
            Self::Certificates => &all[1..],
            Self::Passwords => all,
        }
    }
}

/// An address that nobody listens at.
fn free_address() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

impl Etcd {
    pub(crate) fn start() -> Self {
        Self::start_for(tempfile::tempdir().unwrap(), Access::Open)
    }

    /// Lets in only who shows a certificate of this authority and, once there are users, knows a password.
    pub(crate) fn start_guarded(authority: &Authority) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.crt"), &authority.pem).unwrap();
        authority.issue(directory.path(), "etcd", &["127.0.0.1"], 2050);
        Self::start_for(directory, Access::Certificates)
    }

    /// From now on nobody is let in without a password.
    pub(crate) fn ask_for_passwords(&mut self) {
        for arguments in [
            "user add root:root",
            "user grant-role root root",
            "auth enable",
        ] {
            self.control(&arguments.split(' ').collect::<Vec<_>>());
        }
        self.access = Access::Passwords;
    }

    fn start_for(directory: tempfile::TempDir, access: Access) -> Self {
        // It cannot be told to look for a port by itself, and others look for ports, too.
        for _ in 0..10 {
            let (address, peer) = (free_address(), free_address());
            if let Ok(child) = spawn(directory.path(), address, peer, access) {
                return Self {
                    directory,
                    child,
                    address,
                    peer,
                    access,
                };
            }
        }
        panic!("no etcd can be started");
    }

    /// The key `cluster` of a config file.
    pub(crate) fn cluster(&self, instance: &str, lease: &str) -> String {
        let endpoint = self.url();
        format!(
            "cluster: {{name: edge, instance: {instance}, lease: {lease}, etcd: {{endpoints: [\"{endpoint}\"]}}}}\n"
        )
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.access.scheme(), self.address)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Ends it without warning.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was, on what it has written.
    pub(crate) fn start_again(&mut self) {
        let child = spawn(self.directory.path(), self.address, self.peer, self.access);
        self.child = child.unwrap();
    }

    /// Writes a backup, as its operators do.
    pub(crate) fn back_up(&self) {
        let file = self.directory.path().join("backup");
        let _ = std::fs::remove_file(&file);
        self.control(&["snapshot", "save", file.to_str().unwrap()]);
    }

    /// Goes back to the backup.
    pub(crate) fn restore(&mut self) {
        self.kill();
        let directory = self.directory.path();
        std::fs::remove_dir_all(directory.join("data")).unwrap();
        let (data, backup) = (directory.join("data"), directory.join("backup"));
        let peer = format!("http://{}", self.peer);
        self.control(&[
            "snapshot",
            "restore",
            backup.to_str().unwrap(),
            "--data-dir",
            data.to_str().unwrap(),
            "--initial-cluster",
            &format!("default={peer}"),
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        self.start_again();
    }

    /// Goes back to nothing.
    pub(crate) fn lose_everything(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.directory.path().join("data")).unwrap();
        self.start_again();
    }

    /// What its own client says.
    pub(crate) fn control(&self, arguments: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .current_dir(self.directory.path())
            .arg(format!("--endpoints={}", self.url()))
            .args(self.access.client())
            .args(arguments)
            .output()
            .expect("etcdctl is installed; tests/run does it");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts it; what it says if it ends at once.
fn spawn(
    directory: &Path,
    address: SocketAddr,
    peer: SocketAddr,
    access: Access,
) -> Result<Child, String> {
    let log = std::fs::File::create(directory.join("log")).unwrap();
    let scheme = access.scheme();
    let (client, peer) = (format!("{scheme}://{address}"), format!("http://{peer}"));
    let mut child = Command::new("etcd")
        .args(["--data-dir", "data", "--unsafe-no-fsync"])
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(access.server())
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("etcd is installed; tests/run does it");
    let mut ended = false;
    eventually("etcd listens or ends", || {
        ended = child.try_wait().unwrap().is_some();
        ended || std::net::TcpStream::connect(address).is_ok()
    });
    match ended {
        true => Err(std::fs::read_to_string(directory.join("log")).unwrap()),
        false => Ok(child),
    }
}

/// Of instances, in the order in which they are started.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Instances that share their state, each with a way to etcd of its own.
#[derive(Debug)]
pub(crate) struct Instances {
    pub(crate) etcd: Etcd,
    pub(crate) relays: Vec<Relay>,
    pub(crate) proxies: Vec<Proxy>,
}

impl Instances {
    /// Starts so many with one configuration. They have joined when this returns.
    pub(crate) async fn start(count: usize, config: &str, lease: &str) -> Self {
        let mut instances = Self {
            etcd: Etcd::start(),
            relays: Vec::new(),
            proxies: Vec::new(),
        };
        for _ in 0..count {
            instances.add(config, lease).await;
        }
        instances.have_joined().await;
        instances
    }

    pub(crate) async fn add(&mut self, config: &str, lease: &str) {
        let relay = Relay::start(self.etcd.address).await;
        let name = NAMES[self.proxies.len()];
        let config = format!(
            "{config}cluster:\n  name: edge\n  instance: {name}\n  lease: {lease}\n  etcd: {{endpoints: [\"http://{}\"]}}\n",
            relay.address
        );
        self.proxies.push(Proxy::start(&config));
        self.relays.push(relay);
    }

    /// Waits until the lease of every one lives, and all serve the last change.
    pub(crate) async fn have_joined(&self) {
        let count = self.proxies.len();
        eventually_async("all have joined", || async {
            let head = self.values("head");
            let instances = self.values("fleet/instances/");
            let serves = |instance: &Value| instance["hash"] == head[0]["hash"];
            head.len() == 1 && instances.len() == count && instances.iter().all(serves)
        })
        .await;
    }

    /// The values of all keys with a prefix.
    pub(crate) fn values(&self, key: &str) -> Vec<Value> {
        let key = format!("/switchback/edge/{key}");
        let text = self
            .etcd
            .control(&["get", "--prefix", "--print-value-only", &key]);
        let lines = text.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The place of the one that leads.
    pub(crate) fn leader(&self) -> usize {
        let leader = self.values("fleet/leader");
        let mut names = NAMES.iter();
        let found = names.position(|name| leader == [json!(name)]);
        found.expect("somebody leads")
    }

    /// Clients of each of them.
    pub(crate) fn loads(&self) -> Vec<Load> {
        let proxies = self.proxies.iter();
        proxies
            .map(|proxy| Load::start(proxy.web, Protocol::Http1, 1))
            .collect()
    }

    /// Which backend answers now at each of them.
    pub(crate) async fn versions(&self) -> Vec<String> {
        let mut versions = Vec::new();
        for proxy in &self.proxies {
            versions.push(version(proxy).await);
        }
        versions
    }
}

/// Backends of two versions, blue and green.
pub(crate) async fn origins() -> (Origin, Origin) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    blue.name_version("1");
    green.name_version("2");
    (blue, green)
}

/// A rollout that is over in seconds.
pub(crate) const ROLLOUT: &str =
    "rollout:\n  steps: [{weight: 10%, for: 1s}, {weight: 50%, for: 1s}]\n  bake: off\n";

/// Begins it.
pub(crate) async fn begin_rollout(proxy: &Proxy) {
    let body = json!({"canary": "green", "force": true});
    let answer = proxy.post("/v1/services/shop/rollout", body).await;
    assert!(answer.status < 300, "{}", answer.text());
}

/// The version that answers one request.
pub(crate) async fn version(proxy: &Proxy) -> String {
    let answer = Http::connect(proxy.web).await.get("/").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let version = answer.headers.get("x-app-version").cloned();
    version.unwrap().to_str().unwrap().to_owned()
}

/// Sets weights at an instance; the whole answer.
pub(crate) async fn put_weights(proxy: &Proxy, blue: u32, green: u32) -> (u16, Value) {
    let body = json!({"weights": {"blue": blue, "green": green}});
    let answer = proxy.api("PUT", "/v1/services/shop/weights", body).await;
    (answer.status, answer.json())
}
