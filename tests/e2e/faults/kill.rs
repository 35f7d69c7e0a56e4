//! Killed at any moment while it writes: the state is the old or the new one, never a mixture, and
//! nothing that was acknowledged is forgotten.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Http, Origin, Proxy, blue_green};

/// How often it is killed: 200 times where there is time for many runs, which the variable tells.
fn kills() -> u32 {
    if std::env::var_os("SWITCHBACK_RUNS").is_some() {
        200
    } else {
        10
    }
}

/// All weights together.
const WHOLE: u64 = 1_000_000;

/// What is recorded of the service, as far as anything here changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stand {
    green: u64,
    /// The versions that are blocked, in order.
    blocked: Vec<String>,
    /// The version of green, and its only endpoint.
    version: String,
    endpoint: String,
}

impl Stand {
    fn found(service: &Value) -> Self {
        let weight = |backend: &str| service["weights"][backend].as_u64().unwrap();
        assert_eq!(weight("blue") + weight("green"), WHOLE, "torn: {service}");
        let green = &service["backends"]["green"];
        let mut blocked: Vec<String> = ["blue", "green"]
            .map(|backend| &service["backends"][backend])
            .iter()
            .filter(|backend| !backend["blocked"].is_null())
            .map(|backend| backend["version"].as_str().unwrap().to_owned())
            .collect();
        blocked.sort();
        let endpoints = green["endpoints"].as_array().unwrap();
        assert_eq!(endpoints.len(), 1, "torn: {service}");
        Self {
            green: weight("green"),
            blocked,
            version: green["version"].as_str().unwrap().to_owned(),
            endpoint: endpoints[0]["url"].as_str().unwrap().to_owned(),
        }
    }
}

/// A request, and what holds once it is acknowledged.
struct Write {
    method: &'static str,
    path: String,
    body: Value,
    after: Stand,
}

/// The next of the writes, round and round: weights, a rollback (which blocks), lifting the block, a block,
/// lifting that, and another version at another place.
fn next(number: u64, now: &Stand) -> Write {
    let service = |rest: &str| format!("/v1/services/shop{rest}");
    let write = |method, rest: &str, body, after| Write {
        method,
        path: service(rest),
        body,
        after,
    };
    let mut after = now.clone();
    let nothing = json!({});
    let with_weight = number % WHOLE;
    match number % 7 {
        1 | 2 => {
            after.green = with_weight;
            let weights = json!({"blue": WHOLE - with_weight, "green": with_weight});
            write("PUT", "/weights", json!({"weights": weights}), after)
        }
        3 => {
            (after.green, after.blocked) = (0, vec![now.version.clone()]);
            write("POST", "/rollback", nothing, after)
        }
        4 | 6 => {
            after.blocked.clear();
            write("POST", "/backends/green/unblock", nothing, after)
        }
        5 => {
            after.blocked = vec![now.version.clone()];
            write("POST", "/backends/green/block", nothing, after)
        }
        _ => {
            after.version = format!("2.{number}");
            // An address that is never asked: green has no weight now.
            after.endpoint = format!("http://127.0.0.1:{}", 1 + number % 1_000);
            let body = json!({"version": after.version, "endpoints": [after.endpoint]});
            write("PUT", "/backends/green", body, after)
        }
    }
}

/// What was acknowledged last, and what was asked for after it.
#[derive(Clone, Debug, Default)]
struct Written {
    number: u64,
    acknowledged: Stand,
    asked: Stand,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_forget_nothing_that_was_acknowledged() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::start(&blue_green(&blue.url(), &green.url(), ""));
    proxy.weights(u32::try_from(WHOLE).unwrap(), 0).await;
    let stand = Stand::found(&proxy.service().await);
    let written = Arc::new(Mutex::new(Written {
        number: 0,
        acknowledged: stand.clone(),
        asked: stand,
    }));
    for kill in 0..kills() {
        let (admin, token) = (proxy.admin, proxy.token.clone());
        let writing = tokio::spawn(write(admin, token, written.clone()));
        // The moment is random; that nothing waits for it is the point.
        let moment = Duration::from_micros(u64::from(kill) * 7919 % 120_000 + 5_000);
        let _ = tokio::time::timeout(moment, std::future::pending::<()>()).await;
        proxy.crash_and_restart();
        writing.await.unwrap();
        let found = Stand::found(&proxy.service().await);
        {
            let mut written = written.lock().unwrap();
            let Written {
                acknowledged,
                asked,
                ..
            } = &*written;
            assert!(
                found == *acknowledged || found == *asked,
                "kill {kill}: asked for {asked:?}, acknowledged {acknowledged:?}, found {found:?}"
            );
            // What was asked for and not acknowledged may or may not hold; from here on it is known.
            written.number += u64::from(found == written.asked && found != written.acknowledged);
            (written.acknowledged, written.asked) = (found.clone(), found);
        }
        assert!(!proxy.log().contains("state_lost"), "kill {kill}");
        let check = proxy.get("/v1/audit/check").await;
        assert_eq!(check["fault"], Value::Null, "kill {kill}: {check}");
    }
    let writes = written.lock().unwrap().number;
    assert!(writes > 7, "all kinds were written: {writes}");
    println!("{} kills, {writes} writes: 0 forgotten, 0 torn", kills());
}

/// Writes one after the other as fast as they are acknowledged, until nobody answers.
async fn write(admin: std::net::SocketAddr, token: String, written: Arc<Mutex<Written>>) {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let Ok(mut client) = Http::try_connect(admin).await else {
        return;
    };
    loop {
        let (next, path) = {
            let mut written = written.lock().unwrap();
            let next = next(written.number + 1, &written.acknowledged);
            written.asked = next.after.clone();
            let path = next.path.clone();
            (next, path)
        };
        let body = next.body.to_string();
        let answer = client.send(next.method, &path, &headers, body.as_bytes());
        let Ok(answer) = answer.await else { return };
        // A rollback is in force before it is on disk, and says so.
        let is_durable = answer.json()["durable"] != false;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        if !is_durable {
            return;
        }
        let mut written = written.lock().unwrap();
        written.number += 1;
        written.acknowledged = next.after;
    }
}
