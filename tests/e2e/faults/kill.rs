//! Killed at any moment while it writes: the state is the old or the new one, never a mixture, and
//! nothing that was acknowledged is forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_forget_nothing_that_was_acknowledged() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::start(&blue_green(&blue.url(), &green.url(), ""));
    proxy.weights(1_000_000, 0).await;
    let mut writes = 0;
    for kill in 0..kills() {
        let (asked, acknowledged) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let writing = tokio::spawn(write(
            proxy.admin,
            proxy.token.clone(),
            asked.clone(),
            acknowledged.clone(),
        ));
        // The moment is random; that nothing waits for it is the point.
        let moment = Duration::from_micros(u64::from(kill) * 7919 % 120_000 + 5_000);
        let _ = tokio::time::timeout(moment, std::future::pending::<()>()).await;
        proxy.crash_and_restart();
        writing.await.unwrap();
        let service = proxy.service().await;
        let (asked, acknowledged) = (asked.load(SeqCst), acknowledged.load(SeqCst));
        writes += acknowledged;
        let found = service["weights"]["green"].as_u64().unwrap() as u32;
        let sum = service["weights"]["blue"].as_u64().unwrap() as u32 + found;
        assert!(
            (found == acknowledged || found == asked) && sum == 1_000_000,
            "kill {kill}: asked for {asked}, acknowledged {acknowledged}, found {service}"
        );
        assert!(!proxy.log().contains("state_lost"), "kill {kill}");
        let check = proxy.get("/v1/audit/check").await;
        assert_eq!(check["fault"], Value::Null, "kill {kill}: {check}");
        // The next round begins with something else.
        proxy.weights(1_000_000, 0).await;
    }
    println!(
        "{} kills, {writes} acknowledged writes: 0 forgotten, 0 torn",
        kills()
    );
}

/// Writes 1, 2, 3 … as fast as they are acknowledged, until nobody answers.
async fn write(
    admin: std::net::SocketAddr,
    token: String,
    asked: Arc<AtomicU32>,
    acknowledged: Arc<AtomicU32>,
) {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let Ok(mut client) = Http::try_connect(admin).await else {
        return;
    };
    for number in 1.. {
        asked.store(number, SeqCst);
        let body = json!({"weights": {"blue": 1_000_000 - number, "green": number}}).to_string();
        let path = "/v1/services/shop/weights";
        match client.send("PUT", path, &headers, body.as_bytes()).await {
            Ok(answer) if answer.status == 200 => acknowledged.store(number, SeqCst),
            _ => return,
        }
    }
}
