//! An etcd that lets in only whom it knows: by certificates, by passwords, and by rights that end at a prefix.

use std::path::Path;

use serde_json::Value;

use crate::support::etcd::{Etcd, origins, put_weights, version};
use crate::support::{Authority, Origin, Proxy, blue_green, eventually, eventually_async};

/// The user that the documents make, and its password.
const PASSWORD: &str = "correct horse";

/// An etcd with the user of the documents, and who may sign certificates for it.
struct World {
    authority: Authority,
    etcd: Etcd,
    config: String,
    _origins: (Origin, Origin),
}

impl World {
    async fn start() -> Self {
        let origins = origins().await;
        let config = blue_green(&origins.0.url(), &origins.1.url(), "")
            .replace("{blue: 100, green: 0}", "{blue: 50, green: 50}");
        let authority = Authority::new();
        let mut etcd = Etcd::start_guarded(&authority);
        for line in as_the_documents_say() {
            let mut words: Vec<&str> = line.split_whitespace().collect();
            let with_password = format!("switchback:{PASSWORD}");
            if words.starts_with(&["user", "add"]) {
                words[2] = &with_password;
            }
            etcd.control(&words);
        }
        etcd.control(&["user", "add", "stranger:stranger"]);
        etcd.ask_for_passwords();
        Self {
            authority,
            etcd,
            config,
            _origins: origins,
        }
    }

    /// Two instances that have joined.
    async fn two(&self) -> [Proxy; 2] {
        let proxies = ["a", "b"].map(|name| Proxy::start_in(self.directory(name, "switchback")));
        for proxy in &proxies {
            has_joined(proxy).await;
        }
        proxies
    }

    /// A directory for an instance that is let in, with its config file.
    fn directory(&self, name: &str, user: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            std::fs::write(directory.path().join(file), text).unwrap();
        };
        let (config, url) = (&self.config, self.etcd.url());
        write(
            "switchback.yaml",
            &format!(
                "{config}cluster:
  name: shop
  instance: {name}
  lease: 4s
  etcd:
    endpoints: [\"{url}\"]
    user: {user}
    password_file: password
    ca: ca.crt
    certificate: client.crt
    key: client.key
"
            ),
        );
        write("password", &format!("{PASSWORD}\n"));
        write("ca.crt", &self.authority.pem);
        self.authority
            .issue(directory.path(), "client", &["switchback"], 2050);
        directory
    }
}

/// What operators are told to tell etcd, without the name of its client.
fn as_the_documents_say() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cluster.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("### What etcd has to allow").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    let lines = section.lines();
    let commands = lines.filter_map(|line| line.strip_prefix("    etcdctl "));
    commands.map(str::to_owned).collect()
}

/// How an instance stands with etcd.
async fn contact(proxy: &Proxy) -> (Value, String) {
    let cluster = proxy.get("/v1/cluster").await;
    let reason = cluster["away"]["reason"].as_str().unwrap_or_default();
    (cluster["contact"].clone(), reason.to_owned())
}

async fn has_joined(proxy: &Proxy) {
    eventually_async("it has joined", || async {
        contact(proxy).await.0 == "joined"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_share_a_state_that_needs_certificates_a_password_and_no_more_rights() {
    let world = World::start().await;
    let proxies = world.two().await;
    for (at, (blue, green), wanted) in [(0, (0, 100), "2"), (1, (100, 0), "1")] {
        eventually_async("a change holds on both", || async {
            let (status, answer) = put_weights(&proxies[at], blue, green).await;
            status == 200 && answer["applied"] == 2
        })
        .await;
        for proxy in &proxies {
            assert_eq!(version(proxy).await, wanted);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_go_on_after_what_the_password_was_exchanged_for_has_ended() {
    let world = World::start().await;
    let proxies = world.two().await;
    eventually_async("a change holds on both", || async {
        put_weights(&proxies[0], 100, 0).await.1["applied"] == 2
    })
    .await;
    for (at, green) in [(0, 1), (1, 0), (1, 2), (0, 0)] {
        // Whoever asks for nothing has to show the password again; who leads asks all the time.
        let ended = || {
            let log = world.etcd.log();
            let lines = log.lines();
            lines
                .filter(|line| {
                    line.contains("deleted a simple token") && line.contains("switchback")
                })
                .count()
        };
        let before = ended();
        eventually("it has ended", || ended() > before);
        let (status, answer) = put_weights(&proxies[at], 100 - green, green).await;
        assert_eq!((status, &answer["applied"]), (200, &2.into()), "{answer}");
    }
    for proxy in &proxies {
        let log = proxy.log();
        assert!(!log.contains("invalid auth token"), "{log}");
    }
}

/// The user, what is wrong, what an operator reads, and the file that has to be mended; none: it is etcd.
type Mistake = (&'static str, fn(&Path), &'static str, Option<&'static str>);

const MISTAKES: [Mistake; 5] = [
    (
        "switchback",
        |directory| std::fs::write(directory.join("password"), "guessed").unwrap(),
        "etcdserver: authentication failed, invalid user ID or password (cluster.etcd.user, cluster.etcd.password_file)",
        Some("password"),
    ),
    (
        "switchback",
        |directory| std::fs::remove_file(directory.join("password")).unwrap(),
        "/password: No such file or directory",
        Some("password"),
    ),
    (
        "switchback",
        |directory| std::fs::write(directory.join("ca.crt"), Authority::new().pem).unwrap(),
        "invalid peer certificate: BadSignature (cluster.etcd.ca)",
        Some("ca.crt"),
    ),
    (
        "switchback",
        |directory| Authority::new().issue(directory, "client", &["switchback"], 2050),
        "etcd ended the connection before it answered; it may not take the certificate of this instance (cluster.etcd.certificate)",
        Some("client.crt"),
    ),
    (
        "stranger",
        |directory| std::fs::write(directory.join("password"), "stranger").unwrap(),
        "etcdserver: permission denied (the user may not read and write all that is below cluster.etcd.prefix and cluster.name)",
        None,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instance_that_is_not_let_in_says_why_serves_stable_and_joins_once_it_may() {
    let world = World::start().await;
    let names = ["a", "b", "c", "d", "e"];
    // Each waits for etcd for a while, then begins without it.
    let mut starts = Vec::new();
    for (name, (user, spoil, ..)) in names.into_iter().zip(MISTAKES) {
        let directory = world.directory(name, user);
        spoil(directory.path());
        starts.push(tokio::task::spawn_blocking(|| Proxy::start_in(directory)));
    }
    let mut proxies = Vec::new();
    for (start, (_, _, wanted, _)) in starts.into_iter().zip(MISTAKES) {
        let proxy = start.await.unwrap();
        let (contact, reason) = contact(&proxy).await;
        assert_eq!(contact, "away", "{wanted}");
        assert!(reason.contains(wanted), "{reason}");
        let log = proxy.log();
        assert_eq!(log.matches(wanted).count(), 1, "once: {log}");
        let ready = proxy.api("GET", "/readyz?verbose", Value::Null).await;
        assert_eq!(ready.status, 200);
        let line = "cluster failed: etcd cannot be reached, isolated: canaries have weight 0 here; see the log\n";
        assert!(ready.text().ends_with(line), "{}", ready.text());
        for _ in 0..20 {
            assert_eq!(version(&proxy).await, "1", "green has half of the weight");
        }
        proxies.push(proxy);
    }
    // What is mended is seen without a restart.
    world
        .etcd
        .control(&["user", "grant-role", "stranger", "switchback"]);
    for (proxy, (.., file)) in proxies.iter().zip(MISTAKES) {
        let right = world.directory("x", "switchback");
        match file {
            // The key goes with its certificate.
            Some("client.crt") => {
                world
                    .authority
                    .issue(proxy.path(), "client", &["switchback"], 2050)
            }
            Some(file) => {
                std::fs::copy(right.path().join(file), proxy.path().join(file)).unwrap();
            }
            None => {}
        }
        has_joined(proxy).await;
    }
    eventually_async("a change holds on all", || async {
        put_weights(&proxies[0], 0, 100).await.1["applied"] == MISTAKES.len()
    })
    .await;
    for proxy in &proxies {
        assert_eq!(version(proxy).await, "2");
    }
}
