//! Instances that share one state, with a real etcd; the ways to it are relays that can be cut.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::etcd::{Instances, ROLLOUT, begin_rollout, origins, put_weights, version};
use crate::support::{Http, Load, Passage, Protocol, Proxy, blue_green, eventually_async};

/// Whether green is kept out at an instance.
async fn is_blocked(proxy: &Proxy) -> bool {
    !proxy.service().await["backends"]["green"]["blocked"].is_null()
}

/// How often weights are flipped.
const FLIPS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flip_at_one_instance_holds_at_all_when_it_is_answered() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let fleet = Instances::start(3, &config, "10s").await;
    let loads = fleet.loads();
    let mut times = Vec::new();
    for flip in 0..FLIPS {
        let (weights, wanted) = match flip % 2 {
            0 => ((0, 100), "2"),
            _ => ((100, 0), "1"),
        };
        let at = &fleet.proxies[flip % 3];
        let began = Instant::now();
        let (status, answer) = put_weights(at, weights.0, weights.1).await;
        times.push(began.elapsed());
        assert_eq!(status, 200, "flip {flip}: {answer}");
        assert_eq!(
            (&answer["applied"], &answer["of"]),
            (&json!(3), &json!(3)),
            "{answer}"
        );
        // Whatever begins after the answer.
        assert_eq!(fleet.versions().await, [wanted; 3], "flip {flip}");
    }
    let mut requests = 0;
    for load in loads {
        requests += load.finish().await;
    }
    times.sort_unstable();
    println!(
        "{FLIPS} flips at 3 instances under {requests} requests: 0 failed, 0 of {} requests begun after an answer at the zeroed version; until the answer p50 {:?}, p99 {:?}",
        3 * FLIPS,
        times[FLIPS / 2],
        times[FLIPS * 99 / 100]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_later_or_comes_back_serves_what_is_shared() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let mut fleet = Instances::start(1, &config, "10s").await;
    assert_eq!(put_weights(&fleet.proxies[0], 0, 100).await.0, 200);
    fleet.add(&config, "10s").await;
    fleet.have_joined().await;
    assert_eq!(version(&fleet.proxies[1]).await, "2");
    // It is away while the other one goes on.
    fleet.relays[1].set(Passage::Closed);
    eventually_async("the lease of the one that is away ends", || async {
        put_weights(&fleet.proxies[0], 100, 0).await.0 == 200
    })
    .await;
    fleet.relays[1].set(Passage::Open);
    fleet.have_joined().await;
    eventually_async("it follows", || async {
        version(&fleet.proxies[1]).await == "1"
    })
    .await;
    let history = fleet.proxies[0].get("/v1/revisions").await;
    assert_eq!(fleet.proxies[1].get("/v1/revisions").await, history);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_works_without_etcd_and_reaches_the_others_later() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let fleet = Instances::start(2, &config, "10s").await;
    assert_eq!(put_weights(&fleet.proxies[0], 50, 50).await.0, 200);
    fleet.relays[0].set(Passage::Closed);
    let answer = fleet.proxies[0]
        .post("/v1/services/shop/rollback", Value::Null)
        .await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (504, &json!("apply_unconfirmed")),
        "{}",
        answer.text()
    );
    // In force here all the same.
    for _ in 0..20 {
        assert_eq!(version(&fleet.proxies[0]).await, "1");
    }
    eventually_async("ordinary changes are refused", || async {
        let path = "/v1/services/shop/backends/green/unblock";
        let answer = fleet.proxies[0].post(path, Value::Null).await;
        answer.status == 503 && answer.json()["code"] == "cluster_unreachable"
    })
    .await;
    assert_eq!(fleet.proxies[1].service().await["weights"]["green"], 50);
    fleet.relays[0].set(Passage::Open);
    eventually_async("the other one follows", || async {
        let service = fleet.proxies[1].service().await;
        service["weights"]["green"] == 0 && is_blocked(&fleet.proxies[1]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instance_that_hears_nothing_for_half_a_lease_serves_stable_only() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let fleet = Instances::start(2, &config, "4s").await;
    assert_eq!(put_weights(&fleet.proxies[0], 1, 99).await.0, 200);
    let load = Load::start(fleet.proxies[1].web, Protocol::Http1, 2);
    fleet.relays[1].set(Passage::Closed);
    eventually_async("canaries are closed", || async {
        for _ in 0..20 {
            if version(&fleet.proxies[1]).await != "1" {
                return false;
            }
        }
        true
    })
    .await;
    // The other one goes on alone, when nobody has to wait for this one any more.
    eventually_async("it is not waited for", || async {
        put_weights(&fleet.proxies[0], 2, 98).await.0 == 200
    })
    .await;
    fleet.relays[1].set(Passage::Open);
    eventually_async("canaries are back", || async {
        version(&fleet.proxies[1]).await == "2"
    })
    .await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_that_fails_everywhere_is_rolled_back_everywhere() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let fleet = Instances::start(3, &config, "10s").await;
    green.answer_with(500);
    assert_eq!(put_weights(&fleet.proxies[0], 90, 10).await.0, 200);
    let mut loads = fleet.loads();
    eventually_async("it is rolled back everywhere", || async {
        let mut all = true;
        for proxy in &fleet.proxies {
            all &= is_blocked(proxy).await;
        }
        all
    })
    .await;
    for load in &mut loads {
        load.stop().await;
    }
    let reached = green.received();
    println!("{reached} requests of three instances reached the failing canary");
}

/// Failures of one instance that are no verdict by themselves: those of three are needed.
const FEW: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_that_are_too_few_at_each_instance_are_enough_together() {
    let (blue, green) = origins().await;
    let rules = format!("rollback: {{min_failures: {}}}\n", 3 * FEW);
    let config = blue_green(&blue.url(), &green.url(), &rules);
    let fleet = Instances::start(3, &config, "10s").await;
    assert_eq!(put_weights(&fleet.proxies[0], 50, 50).await.0, 200);
    // Whoever leads has what the others have counted before it judges them as seen.
    eventually_async("all tell what they count", || async {
        fleet.values("counters/").len() == 3
    })
    .await;
    green.answer_with(500);
    for (before, proxy) in fleet.proxies.iter().enumerate() {
        // What green fails, blue answers.
        while green.received() < ((before + 1) * FEW) as u64 {
            Http::connect(proxy.web).await.get("/").await;
        }
    }
    let failed = green.received();
    for proxy in &fleet.proxies {
        eventually_async("it is rolled back everywhere", || is_blocked(proxy)).await;
    }
    assert_eq!(failed, 3 * FEW as u64, "those of any two are too few");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_goes_on_when_its_leader_is_killed() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), ROLLOUT);
    let mut fleet = Instances::start(3, &config, "2s").await;
    begin_rollout(&fleet.proxies[0]).await;
    let leader = fleet.leader();
    let loads: Vec<Load> = (0..3)
        .filter(|index| *index != leader)
        .map(|index| Load::start(fleet.proxies[index].web, Protocol::Http1, 1))
        .collect();
    drop(fleet.proxies.remove(leader));
    for proxy in &fleet.proxies {
        eventually_async("green is stable", || async {
            proxy.service().await["stable"] == "green"
        })
        .await;
    }
    for load in loads {
        load.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_has_lost_is_brought_back_by_those_who_saw_it() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let mut fleet = Instances::start(3, &config, "10s").await;
    assert_eq!(put_weights(&fleet.proxies[0], 50, 50).await.0, 200);
    fleet.etcd.back_up();
    let answer = fleet.proxies[1]
        .post("/v1/services/shop/rollback", Value::Null)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let loads = fleet.loads();
    fleet.etcd.restore();
    fleet.have_joined().await;
    for proxy in &fleet.proxies {
        let service = proxy.service().await;
        assert!(is_blocked(proxy).await, "{service}");
        assert_eq!(service["weights"]["green"], 0, "{service}");
    }
    // The list of changes goes on.
    eventually_async("changes are shared again", || async {
        let body = json!({"reason": "mended"});
        let path = "/v1/services/shop/backends/green/unblock";
        fleet.proxies[2].post(path, body).await.status == 200
    })
    .await;
    for proxy in &fleet.proxies {
        assert!(!is_blocked(proxy).await);
    }
    for load in loads {
        load.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_etcd_has_forgotten_are_waited_for() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let mut fleet = Instances::start(3, &config, "20s").await;
    assert_eq!(put_weights(&fleet.proxies[0], 50, 50).await.0, 200);
    fleet.relays[2].set(Passage::Closed);
    fleet.etcd.lose_everything();
    eventually_async("the others are back", || async {
        fleet.values("fleet/instances/").len() == 2
    })
    .await;
    // Green still answers at the third one.
    let (status, answer) = put_weights(&fleet.proxies[0], 100, 0).await;
    assert_eq!(
        (status, &answer["behind"]),
        (504, &json!(["c"])),
        "{answer}"
    );
    fleet.relays[2].set(Passage::Open);
    fleet.have_joined().await;
    let (status, answer) = put_weights(&fleet.proxies[0], 0, 100).await;
    assert_eq!((status, &answer["applied"]), (200, &json!(3)), "{answer}");
    assert_eq!(fleet.versions().await, ["2"; 3]);
}

/// How long etcd is away.
const OUTAGE: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_of_etcd_costs_no_request_and_no_acknowledged_write() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let mut fleet = Instances::start(3, &config, "4s").await;
    assert_eq!(put_weights(&fleet.proxies[0], 60, 40).await.0, 200);
    let loads = fleet.loads();
    fleet.etcd.kill();
    let outage = match std::env::var("SWITCHBACK_RUNS") {
        Ok(_) => Duration::from_secs(60),
        Err(_) => OUTAGE,
    };
    let over = Instant::now() + outage;
    // Rollbacks work meanwhile.
    fleet.proxies[1]
        .post("/v1/services/shop/rollback", Value::Null)
        .await;
    assert!(is_blocked(&fleet.proxies[1]).await);
    while Instant::now() < over {
        assert_eq!(version(&fleet.proxies[1]).await, "1");
    }
    fleet.etcd.start_again();
    for proxy in &fleet.proxies {
        eventually_async("the block reaches everybody", || async {
            is_blocked(proxy).await
        })
        .await;
    }
    for load in loads {
        load.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_way_to_etcd_makes_answers_late_and_nothing_else() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let fleet = Instances::start(2, &config, "10s").await;
    let delay = Duration::from_millis(100);
    fleet.relays[1].set(Passage::Slow(delay));
    for flip in 0..6 {
        let (weights, wanted) = match flip % 2 {
            0 => ((0, 100), "2"),
            _ => ((100, 0), "1"),
        };
        let at = &fleet.proxies[flip % 2];
        let began = Instant::now();
        let (status, answer) = put_weights(at, weights.0, weights.1).await;
        assert_eq!(status, 200, "{answer}");
        assert!(began.elapsed() >= delay, "the slow one was waited for");
        assert_eq!(fleet.versions().await, [wanted; 2]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_process_takes_the_place_of_an_instance() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let mut fleet = Instances::start(2, &config, "10s").await;
    let load = Load::start(fleet.proxies[0].web, Protocol::Http1, 2);
    let mut old = fleet.proxies[0].take_over();
    // Both processes follow, and so does the other instance.
    for (blue, green, wanted) in [(0, 100, "2"), (100, 0, "1"), (0, 100, "2")] {
        eventually_async("a change is acknowledged by both instances", || async {
            let (status, answer) = put_weights(&fleet.proxies[1], blue, green).await;
            status == 200 && answer["applied"] == 2
        })
        .await;
        assert_eq!(fleet.versions().await, [wanted; 2]);
    }
    load.finish().await;
    let ended = tokio::task::spawn_blocking(move || old.wait()).await;
    assert!(ended.unwrap().unwrap().success());
    fleet.have_joined().await;
    assert_eq!(put_weights(&fleet.proxies[0], 100, 0).await.0, 200);
    assert_eq!(fleet.versions().await, ["1"; 2]);
}
