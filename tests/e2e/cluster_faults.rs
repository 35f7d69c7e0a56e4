//! What goes wrong with etcd while clients ask all instances: history that is removed, a network that comes apart.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::etcd::{Etcd, Instances, origins, put_weights, version};
use crate::support::{Origin, Passage, Proxy, blue_green, eventually_async};

/// Removes the history of etcd up to now, and its space.
fn compact(etcd: &Etcd) {
    let status: Value =
        serde_json::from_str(&etcd.control(&["get", "--write-out=json", "nothing"])).unwrap();
    let revision = status["header"]["revision"].to_string();
    etcd.control(&["compaction", "--physical", &revision]);
    etcd.control(&["defrag"]);
}

/// Number and hash of the last change that each of them serves.
async fn heads(fleet: &Instances) -> Vec<(Value, Value)> {
    let mut heads = Vec::new();
    for proxy in &fleet.proxies {
        let cluster = proxy.get("/v1/cluster").await;
        heads.push((cluster["head"].clone(), proxy.service().await));
    }
    heads
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instance_that_was_away_follows_though_the_history_is_gone() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let fleet = Instances::start(3, &config, "6s").await;
    assert_eq!(put_weights(&fleet.proxies[0], 50, 50).await.0, 200);
    let loads = fleet.loads();
    fleet.relays[2].set(Passage::Closed);
    for green in 1..=4 {
        eventually_async("the others go on", || async {
            put_weights(&fleet.proxies[green % 2], 100 - green as u32, green as u32)
                .await
                .0
                == 200
        })
        .await;
    }
    compact(&fleet.etcd);
    let history = fleet.proxies[0].get("/v1/revisions").await;
    assert_ne!(fleet.proxies[2].get("/v1/revisions").await, history);
    fleet.relays[2].set(Passage::Open);
    eventually_async("it follows", || async {
        fleet.proxies[2].get("/v1/revisions").await == history
    })
    .await;
    fleet.have_joined().await;
    let (status, answer) = put_weights(&fleet.proxies[2], 0, 100).await;
    assert_eq!((status, &answer["applied"]), (200, &json!(3)), "{answer}");
    assert_eq!(fleet.versions().await, ["2"; 3]);
    for load in loads {
        load.finish().await;
    }
}

/// Changes while history is removed.
const CHANGES: u32 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_history_is_removed_under_those_who_follow() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let fleet = Instances::start(3, &config, "10s").await;
    let loads = fleet.loads();
    for change in 1..=CHANGES {
        let at = &fleet.proxies[change as usize % 3];
        let (status, answer) = put_weights(at, 100 - change, change).await;
        assert_eq!((status, &answer["applied"]), (200, &json!(3)), "{answer}");
        if change % 3 == 0 {
            compact(&fleet.etcd);
        }
    }
    let heads = heads(&fleet).await;
    assert_eq!(heads[0].1["weights"]["green"], CHANGES);
    let history = fleet.proxies[0].get("/v1/revisions?limit=100").await;
    for (proxy, head) in fleet.proxies.iter().zip(&heads) {
        assert_eq!(head.0, heads[0].0);
        assert_eq!(head.1["weights"], heads[0].1["weights"]);
        assert_eq!(proxy.get("/v1/revisions?limit=100").await, history);
        let log = proxy.log();
        assert!(!log.contains("etcd reason"), "none has begun anew: {log}");
    }
    for load in loads {
        load.finish().await;
    }
}

/// The lease of the test below; half of it is how long an instance may go on as it was.
const LEASE: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_elsewhere_holds_at_an_instance_that_is_away_after_half_a_lease() {
    let (blue, green) = origins().await;
    // Only the clients of the instance that is away get to green, by an address of its own.
    let apart = Origin::start().await;
    apart.name_version("2");
    let config = blue_green(&blue.url(), &green.url(), "");
    let mut fleet = Instances::start(2, &config, "4s").await;
    let elsewhere = blue_green(&blue.url(), &apart.url(), "");
    fleet.add(&elsewhere, "4s").await;
    fleet.have_joined().await;
    assert_eq!(put_weights(&fleet.proxies[0], 50, 50).await.0, 200);
    let loads = fleet.loads();
    let away: &Proxy = &fleet.proxies[2];
    let before = apart.received();
    eventually_async("its clients get to green", || async {
        apart.received() > before
    })
    .await;
    fleet.relays[2].set(Passage::Closed);
    let cut = Instant::now();
    // In force at once here, and answered late: one that may live does not follow.
    let answer = fleet.proxies[0]
        .post("/v1/services/shop/rollback", Value::Null)
        .await;
    assert!(matches!(answer.status, 200 | 504), "{}", answer.text());
    eventually_async("it takes canaries to 0", || async {
        away.get("/v1/cluster").await["away"]["isolated"] == true
    })
    .await;
    println!("isolated {:?} after the cut", cut.elapsed());
    eventually_async("what was under way has ended", || async {
        let service = away.service().await;
        let green = &service["backends"]["green"];
        service["weights"]["green"] == 0 && green["in_flight"] == 0
    })
    .await;
    let count = apart.received();
    let until = cut + LEASE;
    while Instant::now() < until {
        assert_eq!(version(away).await, "1");
    }
    fleet.relays[2].set(Passage::Open);
    eventually_async("it knows of the rollback", || async {
        !away.service().await["backends"]["green"]["blocked"].is_null()
    })
    .await;
    fleet.have_joined().await;
    for proxy in &fleet.proxies {
        let service = proxy.service().await;
        assert!(!service["backends"]["green"]["blocked"].is_null());
        assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    }
    assert_eq!(apart.received(), count, "none since");
    for load in loads {
        load.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_process_of_an_isolated_instance_serves_stable_too() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let mut fleet = Instances::start(2, &config, "2s").await;
    assert_eq!(put_weights(&fleet.proxies[0], 50, 50).await.0, 200);
    fleet.relays[0].set(Passage::Closed);
    eventually_async("it takes canaries to 0", || async {
        fleet.proxies[0].get("/v1/cluster").await["away"]["isolated"] == true
            && fleet.proxies[0].service().await["weights"]["green"] == 0
    })
    .await;
    let mut old = fleet.proxies[0].take_over();
    for _ in 0..40 {
        assert_eq!(version(&fleet.proxies[0]).await, "1");
    }
    let ended = tokio::task::spawn_blocking(move || old.wait()).await;
    assert!(ended.unwrap().unwrap().success());
    assert_eq!(version(&fleet.proxies[0]).await, "1");
    fleet.relays[0].set(Passage::Open);
    fleet.have_joined().await;
    eventually_async("canaries have their weights again", || async {
        version(&fleet.proxies[0]).await == "2"
    })
    .await;
}
