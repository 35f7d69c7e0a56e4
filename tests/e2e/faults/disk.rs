//! A full disk, and damaged files.

use std::io::Write;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    Http, Load, Origin, Protocol, Proxy, blue_green, eventually_async, log_in, run,
};

/// Starts it with a small file system of its own for its state: in a mount namespace, which every user
/// may have on most machines.
fn start_on_a_small_disk(config: &str) -> Proxy {
    const MOUNT: &str = "mount -t tmpfs -o size=4m,mode=700 none state && exec \"$@\"";
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
    std::fs::create_dir(directory.path().join("state")).unwrap();
    let switchback = run(directory.path());
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--map-root-user", "sh", "-c", MOUNT, "sh"])
        .arg(switchback.get_program())
        .args(switchback.get_args());
    log_in(directory.path(), &mut command);
    Proxy::start_with_own_mounts(directory, command)
}

/// Fills the disk to its last byte; the file that does.
fn fill(proxy: &Proxy) -> std::path::PathBuf {
    let path = proxy.state_dir().join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [65_536, 4_096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_refuses_ordinary_writes_and_stops_neither_rollbacks_nor_traffic() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = start_on_a_small_disk(&blue_green(&blue.url(), &green.url(), ""));
    proxy.weights(50, 50).await;
    let load = Load::start(proxy.web, Protocol::Http1, 4);
    let filler = fill(&proxy);
    let body = json!({"weights": {"blue": 40, "green": 60}});
    eventually_async("ordinary writes are refused", || async {
        // What little room the database has kept for itself has to be used up first.
        let answer = proxy
            .api("PUT", "/v1/services/shop/weights", body.clone())
            .await;
        let _ = proxy
            .api(
                "PUT",
                "/v1/services/shop/weights",
                json!({"weights": {"blue": 50, "green": 50}}),
            )
            .await;
        answer.status == 507
    })
    .await;
    let before = proxy.service().await;
    let refused = proxy
        .api(
            "PUT",
            "/v1/services/shop/weights",
            json!({"weights": {"blue": 1, "green": 99}}),
        )
        .await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (507, &json!("not_durable"))
    );
    let after = proxy.service().await;
    assert_eq!(
        after["weights"], before["weights"],
        "nothing is half applied"
    );
    assert_eq!(after["revision"], before["revision"]);
    let rolled_back = proxy
        .post("/v1/services/shop/rollback", json!({"reason": "full"}))
        .await;
    let answer = rolled_back.json();
    assert_eq!(
        (rolled_back.status, &answer["durable"]),
        (200, &json!(false)),
        "{answer}"
    );
    assert_eq!(answer["weights"], json!({"blue": 100, "green": 0}));
    let begun = answer["begun"]["green"].as_u64().unwrap();
    let more = load.done() + 200;
    crate::support::eventually("traffic goes on", || load.done() > more);
    crate::support::eventually("what had begun arrives", || green.received() >= begun);
    assert_eq!(green.received(), begun, "the rollback is in force");
    std::fs::remove_file(filler).unwrap();
    let body = json!({"weights": {"blue": 100, "green": 0}, "lease": "1h"});
    proxy.set_weights_when_it_can(body).await;
    let done = load.finish().await;
    println!(
        "full disk: {done} requests meanwhile, 0 failed; the rollback was applied and persisted later"
    );
    // What was not durable then is by now. The disk goes with the process, so a copy is looked at, as it
    // is in the middle of whatever the process does.
    let copy = tempfile::tempdir().unwrap();
    proxy.signal(rustix::process::Signal::STOP);
    copy_state(&proxy, copy.path());
    proxy.signal(rustix::process::Signal::KILL);
    proxy.wait();
    let again = Proxy::start_in(copy);
    let service = again.service().await;
    assert_eq!(
        service["backends"]["green"]["blocked"]["reason"], "full",
        "{service}"
    );
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
}

/// Copies the configuration and the state into a directory.
fn copy_state(proxy: &Proxy, to: &std::path::Path) {
    std::fs::copy(
        proxy.path().join("switchback.yaml"),
        to.join("switchback.yaml"),
    )
    .unwrap();
    std::fs::create_dir(to.join("state")).unwrap();
    for file in std::fs::read_dir(proxy.state_dir()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), to.join("state").join(file.file_name())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_state_never_brings_a_rolled_back_version_back() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = blue_green(&blue.url(), &green.url(), "")
        .replace("blue: 100, green: 0", "blue: 50, green: 50");
    let mut proxy = Proxy::start(&config);
    proxy.post("/v1/services/shop/rollback", Value::Null).await;
    proxy.signal(rustix::process::Signal::KILL);
    proxy.wait();
    let sound = tempfile::tempdir().unwrap();
    copy_state(&proxy, sound.path());
    let size = std::fs::metadata(sound.path().join("state/state.redb"))
        .unwrap()
        .len();
    let mut damages: Vec<Damage> = Vec::new();
    for part in 0..5 {
        damages.push(Damage::Cut("state.redb", size * part / 5));
        damages.push(Damage::Flip("state.redb", size * part / 5 + 1 + part * 13));
        damages.push(Damage::Both(size * part / 5 + 3));
    }
    damages.push(Damage::Cut("state.json", 10));
    damages.push(Damage::Flip("state.json", 40));
    for damage in damages {
        let directory = tempfile::tempdir().unwrap();
        let from = sound.path();
        std::fs::copy(
            from.join("switchback.yaml"),
            directory.path().join("switchback.yaml"),
        )
        .unwrap();
        std::fs::create_dir(directory.path().join("state")).unwrap();
        for file in std::fs::read_dir(from.join("state")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(
                file.path(),
                directory.path().join("state").join(file.file_name()),
            )
            .unwrap();
        }
        damage.apply(&directory.path().join("state"));
        let proxy = Proxy::start_in(directory);
        let service = proxy.service().await;
        assert_eq!(
            service["weights"],
            json!({"blue": 100, "green": 0}),
            "{damage:?}: {service}"
        );
        let blocked = !service["backends"]["green"]["blocked"].is_null();
        let stable_only = proxy.get("/v1/services").await["stable_only"] == true;
        assert!(blocked || stable_only, "{damage:?}: {service}");
        assert_eq!(Http::connect(proxy.web).await.get("/").await.status, 200);
    }
}

/// What is done to the files while nobody looks.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Cut(&'static str, u64),
    Flip(&'static str, u64),
    /// The database and both of its copies.
    Both(u64),
}

impl Damage {
    fn apply(self, state: &std::path::Path) {
        match self {
            Self::Cut(name, length) => {
                let file = std::fs::OpenOptions::new()
                    .write(true)
                    .open(state.join(name));
                file.unwrap().set_len(length).unwrap();
            }
            Self::Flip(name, at) => {
                let path = state.join(name);
                let mut bytes = std::fs::read(&path).unwrap();
                let at = at as usize % bytes.len();
                bytes[at] ^= 0x40;
                std::fs::write(path, bytes).unwrap();
            }
            Self::Both(at) => {
                Self::Cut("state.redb", at).apply(state);
                for name in ["state.json", "state.json.1"] {
                    if state.join(name).exists() {
                        Self::Flip(name, at % 200).apply(state);
                    }
                }
            }
        }
    }
}
