//! A new process takes over from an old one: no request is lost, nothing decided is forgotten, and
//! at no time do two processes write the state.

mod broken_off;
mod peers;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use peers::Taker;
use serde_json::{Value, json};

use crate::support::{
    HEAD, Http, Load, Named, Origin, Protocol, Proxy, blue_green, eventually, eventually_async,
    log_in, python, run,
};

/// How often a new version is installed under load.
const UPGRADES: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_under_load_lose_and_repeat_no_request() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::start(&blue_green(&blue.url(), &green.url(), ""));
    proxy.weights(60, 40).await;
    let kept_alive = Load::start(proxy.web, Protocol::Http1, 4);
    let multiplexed = Load::start(proxy.web, Protocol::Http2, 2);
    let stop = Arc::new(AtomicBool::new(false));
    let posts: Vec<_> = (0..2)
        .map(|client| tokio::spawn(post_until(proxy.web, client, stop.clone())))
        .collect();
    for _ in 0..UPGRADES {
        let (one, other) = (kept_alive.done() + 200, multiplexed.done() + 200);
        let mut before = proxy.take_over();
        eventually("both kinds of load go on", || {
            kept_alive.done() > one && multiplexed.done() > other
        });
        assert_eq!(wait(&mut before), Some(0), "the old process drains");
        let service = proxy.service().await;
        assert_eq!(service["weights"], json!({"blue": 60, "green": 40}));
    }
    stop.store(true, SeqCst);
    let (one, other) = (kept_alive.finish().await, multiplexed.finish().await);
    let mut sent = 0;
    for post in posts {
        sent += post.await.unwrap();
    }
    let mut deliveries: HashMap<String, u32> = blue.deliveries();
    for (id, count) in green.deliveries() {
        *deliveries.entry(id).or_default() += count;
    }
    assert_eq!(deliveries.len() as u64, sent, "every POST has arrived");
    assert!(
        deliveries.values().all(|count| *count == 1),
        "and only once"
    );
    println!(
        "{UPGRADES} upgrades: {one} over HTTP/1 kept alive, {other} over HTTP/2, {sent} POSTs on new connections: 0 failed"
    );
}

/// POSTs on a new connection each, with ids of their own; none may fail. How many.
async fn post_until(web: std::net::SocketAddr, client: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut sent = 0;
    while !stop.load(SeqCst) {
        let id = format!("{client}-{sent}");
        let headers = [("x-test-id", id.as_str()), ("connection", "close")];
        let answer = Http::connect(web)
            .await
            .send("POST", "/", &headers, b"once")
            .await;
        assert_eq!(answer.unwrap().status, 200, "POST {id}");
        sent += 1;
    }
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_is_carried_over_and_the_record_goes_on() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    proxy.weights(50, 50).await;
    let rolled_back = proxy.post("/v1/services/shop/rollback", Value::Null).await;
    assert_eq!(rolled_back.json()["blocked"], json!(["green"]));
    let revision = proxy.service().await["revision"].clone();
    let mut before = proxy.take_over();
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    assert!(
        !service["backends"]["green"]["blocked"].is_null(),
        "{service}"
    );
    assert_eq!(service["revision"], revision);
    assert_eq!(wait(&mut before), Some(0));
    // The lock has changed hands: a third process is told of the second.
    let (code, _, err) = proxy.cli(&["run", "--config", "switchback.yaml"]);
    assert_eq!(code, 73);
    let pid = proxy.pid().as_raw_nonzero().to_string();
    assert!(err.contains(&pid), "{err}");
    assert_eq!(proxy.cli(&["unblock", "shop", "green"]).0, 0);
    assert_eq!(
        proxy.service().await["revision"],
        revision.as_u64().unwrap() + 1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_the_old_process_follow_the_new_one() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    let mut kept = Vec::new();
    for _ in 0..4 {
        let mut client = Http::connect(proxy.web).await;
        assert_eq!(client.get("/").await.status, 200);
        kept.push(client);
    }
    let mut before = proxy.take_over();
    let (to_blue, to_green) = (blue.received(), green.received());
    proxy.weights(0, 100).await;
    for mut client in kept {
        let answer = client.get("/").await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("connection"),
            "close",
            "it leads to the new one"
        );
    }
    assert_eq!(
        (blue.received(), green.received()),
        (to_blue, to_green + 4),
        "a write is in force everywhere once it is answered"
    );
    assert_eq!(wait(&mut before), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_set_by_name_serves_from_the_first_request_of_a_new_process() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    let named = Named::start().await;
    let by_name = named.url();
    // Of stable, so that nobody else serves in its place.
    let body = json!({"version": "1", "endpoints": [by_name], "force": true});
    let path = "/v1/services/shop/backends/blue";
    let answer = proxy.api("PUT", path, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    eventually_async("the named endpoint serves", || async {
        let answer = Http::connect(proxy.web).await.get("/").await;
        answer.status == 200 && named.received() > 0
    })
    .await;
    let (to_named, to_others) = (named.received(), blue.received() + green.received());
    let load = Load::start(proxy.web, Protocol::Http1, 4);
    for _ in 0..UPGRADES {
        let enough = load.done() + 200;
        let mut before = proxy.take_over();
        eventually("the load goes on", || load.done() > enough);
        assert_eq!(wait(&mut before), Some(0));
    }
    let requests = load.finish().await;
    proxy.crash_and_restart();
    assert_eq!(Http::connect(proxy.web).await.get("/").await.status, 200);
    assert!(named.received() > to_named + requests);
    assert_eq!(blue.received() + green.received(), to_others);
    println!("{UPGRADES} upgrades with an endpoint by name: {requests} requests, 0 failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_process_that_cannot_start_leaves_the_old_one_serving() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let good = std::fs::read_to_string(proxy.path().join("switchback.yaml")).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = format!("  busy: {{address: \"{}\"}}\n", taken.local_addr().unwrap());
    let web = "  web: {address: \"127.0.0.1:0\"}\n";
    for (config, exit) in [
        ("version: 1\n".to_owned(), 78),
        (good.replace(web, &format!("{web}{busy}")), 73),
    ] {
        std::fs::write(proxy.path().join("next.yaml"), config).unwrap();
        let arguments = ["run", "--config", "next.yaml", "--takeover"];
        let (code, _, err) = proxy.cli(&arguments);
        assert_eq!(code, exit, "{err}");
        assert_eq!(Http::connect(proxy.web).await.get("/").await.status, 200);
        proxy.weights(70, 30).await;
        proxy.weights(100, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_during_a_hand_over_travels_along_and_ordinary_writes_wait() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    proxy.weights(50, 50).await;
    let mut taker = Taker::connect(&proxy);
    taker.take();
    let body = json!({"weights": {"blue": 20, "green": 80}});
    let refused = proxy.api("PUT", "/v1/services/shop/weights", body).await;
    assert_eq!(
        (
            refused.status,
            &refused.json()["code"],
            refused.header("retry-after")
        ),
        (503, &json!("handing_over"), "1")
    );
    let press = verb(&proxy, &["rollback", "shop"]);
    let carried = taker.talk.receive();
    assert_eq!(carried["say"], "carry");
    assert_eq!(
        (&carried["urgent"]["verb"], &carried["urgent"]["service"]),
        (&json!("rollback"), &json!("shop"))
    );
    taker
        .talk
        .send(&json!({"say": "done", "number": carried["number"], "durable": true}));
    let answer = press.await.unwrap();
    assert_eq!(answer["durable"], true, "{answer}");
    let before = green.received();
    for _ in 0..20 {
        assert_eq!(Http::connect(proxy.web).await.get("/").await.status, 200);
    }
    assert_eq!(
        green.received(),
        before,
        "it is in force in the old process too"
    );
    // Verbs wait for the end of a hand-over instead of failing.
    let waiting = verb(&proxy, &["weights", "shop", "blue=1", "green=0"]);
    let again = verb(&proxy, &["rollback", "shop"]);
    assert_eq!(
        again.await.unwrap()["changed"],
        false,
        "rollbacks do not wait"
    );
    assert!(!waiting.is_finished());
    drop(taker);
    assert_eq!(
        waiting.await.unwrap()["weights"],
        json!({"blue": 1, "green": 0})
    );
}

/// A verb of the command line, in the background; what it prints.
fn verb(proxy: &Proxy, arguments: &[&str]) -> tokio::task::JoinHandle<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
    command
        .args(arguments)
        .args(["-o", "json", "--admin", &format!("http://{}", proxy.admin)])
        .env("SWITCHBACK_TOKEN", &proxy.token);
    tokio::task::spawn_blocking(move || {
        let output = command.output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_process_goes_on_and_persists_when_the_new_one_dies_with_the_state() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    proxy.weights(50, 50).await;
    let mut taker = Taker::connect(&proxy);
    taker.take();
    let rolled_back = proxy.post("/v1/services/shop/rollback", Value::Null).await;
    assert_eq!(rolled_back.status, 200, "{}", rolled_back.text());
    assert_eq!(
        rolled_back.json()["durable"],
        false,
        "nobody has said that it is"
    );
    drop(taker);
    eventually("the old process goes on", || {
        proxy.log().contains("takeover_failed")
    });
    let body = json!({"weights": {"blue": 100, "green": 0}, "reason": "again"});
    proxy.set_weights_when_it_can(body).await;
    proxy.crash_and_restart();
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    assert!(
        !service["backends"]["green"]["blocked"].is_null(),
        "{service}"
    );
    // And it can be taken over from for good.
    let mut before = proxy.take_over();
    assert_eq!(wait(&mut before), Some(0));
    assert!(!proxy.service().await["backends"]["green"]["blocked"].is_null());
}

/// Services with a canary each, of which one is rolled back after the other during an upgrade.
const SERVICES: usize = 30;

/// Services whose stable has come from `red`, so that a rollback that is done twice goes too far.
fn many(origin: &Origin) -> String {
    let backends: String = ["red", "blue", "green"]
        .map(|name| {
            format!(
                "      {name}: {{version: {name}-1, endpoints: [\"{}\"]}}\n",
                origin.url()
            )
        })
        .concat();
    let service = |number| {
        format!(
            "  s{number}:\n    stable: red\n    rollback: {{on_failure: notify}}\n    backends:\n{backends}"
        )
    };
    let services: String = (0..SERVICES).map(service).collect();
    format!("{HEAD}services:\n{services}").replace("service: shop", "service: s0")
}

/// Presses until somebody answers. A connection may be told to come again.
async fn press(admin: SocketAddr, token: &str, service: usize) -> Value {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let path = format!("/v1/services/s{service}/rollback");
    loop {
        let Ok(mut client) = Http::try_connect(admin).await else {
            continue;
        };
        match client.send("POST", &path, &headers, b"").await {
            Ok(answer) if answer.status == 200 => return answer.json(),
            Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
            Err(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollbacks_pressed_all_the_time_survive_upgrades() {
    let origin = Origin::start().await;
    let mut proxy = Proxy::start(&many(&origin));
    let put = async |proxy: &Proxy, path: String, body: Value| {
        eventually_async("it is set", || async {
            let answer = proxy.api("PUT", &path, body.clone()).await;
            assert!([200, 503].contains(&answer.status), "{}", answer.text());
            answer.status == 200
        })
        .await;
    };
    for service in 0..SERVICES {
        let path = format!("/v1/services/s{service}/switch");
        let answer = proxy.post(&path, json!({"to": "blue"})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for upgrade in 0..UPGRADES {
        for service in 0..SERVICES {
            let version = format!("trial-{upgrade}");
            let set = json!({"version": version, "endpoints": [origin.url()]});
            put(
                &proxy,
                format!("/v1/services/s{service}/backends/green"),
                set,
            )
            .await;
            let weights = json!({"weights": {"blue": 50, "green": 50, "red": 0}});
            put(&proxy, format!("/v1/services/s{service}/weights"), weights).await;
        }
        let (admin, token) = (proxy.admin, proxy.token.clone());
        let presses = tokio::spawn(async move {
            for service in 0..SERVICES {
                let answer = press(admin, &token, service).await;
                assert_eq!(answer["weights"]["green"], 0, "{answer}");
            }
        });
        let mut before = proxy.take_over();
        presses.await.unwrap();
        assert_eq!(wait(&mut before), Some(0));
        for service in 0..SERVICES {
            let service = proxy.get(&format!("/v1/services/s{service}")).await;
            let weights = json!({"red": 0, "blue": 100, "green": 0});
            assert_eq!(service["weights"], weights, "{service}");
            let blocked = |backend: &str| !service["backends"][backend]["blocked"].is_null();
            assert!(blocked("green") && !blocked("blue"), "{service}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_is_free_for_a_third_process_while_the_first_still_drains() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::start(&blue_green(&blue.url(), &green.url(), ""));
    // Kept open until a request comes, for some seconds.
    let mut idle = Http::connect(proxy.web).await;
    assert_eq!(idle.send("GET", "/", &[], b"").await.unwrap().status, 200);
    let mut first = proxy.take_over();
    proxy.crash_and_restart();
    assert!(first.try_wait().unwrap().is_none(), "the first one drains");
    assert_eq!(idle.send("GET", "/", &[], b"").await.unwrap().status, 200);
    assert_eq!(wait(&mut first), Some(0));
    proxy.weights(60, 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socket_of_a_service_manager_is_used_by_all_workers_and_loses_no_connection() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = blue_green(&blue.url(), &green.url(), "");
    let config = config.replace(
        "web: {address: \"127.0.0.1:0\"}",
        &format!("web: {{address: \"{address}\"}}"),
    );
    std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
    let command = activated(directory.path(), &socket);
    let mut proxy = Proxy::start_by(directory, command);
    assert_eq!(proxy.web, address);
    for _ in 0..40 {
        assert_eq!(Http::connect(address).await.get("/").await.status, 200);
    }
    proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(proxy.wait(), Some(0));
    // Nobody accepts now, but the socket is still there: connections wait.
    let waiting: Vec<_> = (0..8)
        .map(|_| tokio::spawn(async move { Http::connect(address).await.get("/").await.status }))
        .collect();
    let command = activated(proxy.path(), &socket);
    proxy.start_again_by(command);
    for client in waiting {
        assert_eq!(client.await.unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socket_of_a_service_manager_that_is_nobodys_is_refused() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = blue_green(&blue.url(), &green.url(), "");
    std::fs::write(
        directory.path().join("switchback.yaml"),
        config.replace("web: {", "other: {"),
    )
    .unwrap();
    let mut child = activated(directory.path(), &socket).spawn().unwrap();
    assert_eq!(wait(&mut child), Some(78));
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    let bound = socket.local_addr().unwrap().to_string();
    assert!(
        log.contains(&bound) && log.contains("ListenStream="),
        "{log}"
    );
}

/// The command that runs switchback in a directory as a service manager would, with a socket.
fn activated(directory: &std::path::Path, socket: &std::net::TcpListener) -> Command {
    // The variables name the process that they are meant for, so it sets them itself.
    const ACTIVATE: &str = "
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='web')
os.execvp(sys.argv[2], sys.argv[2:])
";
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).unwrap();
    let switchback = run(directory);
    let mut command = Command::new(python());
    command.args(["-c", ACTIVATE, &socket.as_raw_fd().to_string()]);
    command
        .arg(switchback.get_program())
        .args(switchback.get_args());
    log_in(directory, &mut command);
    command
}

/// Waits for a process to end; its exit code.
fn wait(child: &mut Child) -> Option<i32> {
    let mut status = None;
    eventually("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}
