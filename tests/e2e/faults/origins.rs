//! Origins that break, one way after the other.

use std::collections::HashMap;

use crate::support::{Fault, Faulty, Http, Origin, Proxy, blue_green, eventually_async};

/// Requests of each method for each fault.
const REQUESTS: usize = 60;

/// Clients that send them.
const CLIENTS: usize = 6;

/// What became of the requests during a fault.
#[derive(Debug, Default)]
struct Tally {
    sent: usize,
    failed: usize,
    /// Answered 200 without having arrived, or with half of the body.
    lost: usize,
    /// POSTs that arrived more than once, GETs more than twice.
    duplicated: usize,
    wrong_backend: usize,
}

/// A fault, and what must be said of the requests that meet it.
struct Case {
    name: &'static str,
    fault: Fault,
    /// How many may fail: all, or not one, by method.
    gets_fail: bool,
    posts_may_fail: bool,
}

const CASES: [Case; 7] = [
    Case {
        name: "none",
        fault: Fault::None,
        gets_fail: false,
        posts_may_fail: false,
    },
    Case {
        name: "slow",
        fault: Fault::Slow,
        gets_fail: false,
        posts_may_fail: false,
    },
    Case {
        name: "hung",
        fault: Fault::Hang,
        gets_fail: true,
        posts_may_fail: true,
    },
    Case {
        name: "reset in the body",
        fault: Fault::ResetInBody,
        gets_fail: true,
        posts_may_fail: true,
    },
    Case {
        name: "garbage",
        fault: Fault::Garbage,
        gets_fail: true,
        posts_may_fail: true,
    },
    Case {
        name: "closed without an answer",
        fault: Fault::CloseUnanswered,
        gets_fail: true,
        posts_may_fail: true,
    },
    // A request that may be repeated is, on a new connection. Others are not, once a byte was sent.
    Case {
        name: "keep-alive closed on reuse",
        fault: Fault::CloseOnReuse,
        gets_fail: false,
        posts_may_fail: true,
    },
];

fn config(blue: &str, green: &str) -> String {
    let limits = "limits: {upstream_response_timeout: 1s, upstream_connect_timeout: 1s}\nroutes:";
    blue_green(blue, green, "").replace("routes:", limits)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_origins_lose_and_repeat_nothing_and_spill_nowhere() {
    let (blue, green) = (Faulty::start().await, Origin::start().await);
    let proxy = Proxy::start(&config(&blue.url(), &green.url()));
    println!("fault | sent | failed | lost | duplicated | wrong backend");
    for case in &CASES {
        if case.fault == Fault::CloseOnReuse {
            let _ = run(&proxy, &blue, &green, "GET", "before", REQUESTS / CLIENTS).await;
        }
        blue.set(case.fault);
        // Repeating is limited to a fifth of the requests, and here every request would have to be.
        let each = match case.fault {
            Fault::CloseOnReuse => 1,
            _ => REQUESTS / CLIENTS,
        };
        let gets = run(&proxy, &blue, &green, "GET", case.name, each).await;
        let posts = run(&proxy, &blue, &green, "POST", case.name, each).await;
        for (method, tally) in [("GET", &gets), ("POST", &posts)] {
            println!(
                "{}, {method} | {} | {} | {} | {} | {}",
                case.name,
                tally.sent,
                tally.failed,
                tally.lost,
                tally.duplicated,
                tally.wrong_backend
            );
            let harm = (tally.lost, tally.duplicated, tally.wrong_backend);
            assert_eq!(harm, (0, 0, 0), "{}, {method}: {tally:?}", case.name);
        }
        let expected = if case.gets_fail { gets.sent } else { 0 };
        assert_eq!(gets.failed, expected, "{}: {gets:?}", case.name);
        assert!(
            case.posts_may_fail || posts.failed == 0,
            "{}: {posts:?}",
            case.name
        );
        blue.set(Fault::None);
        recovers(&proxy).await;
    }
    let address = blue.kill().await;
    let (mut failed, sent) = (0, 20);
    for _ in 0..sent {
        let answer = Http::connect(proxy.web).await.get("/").await;
        failed += usize::from(matches!(answer.status, 502 | 503));
    }
    println!(
        "killed, GET | {sent} | {failed} | 0 | 0 | {}",
        green.received()
    );
    assert_eq!((failed, green.received()), (sent, 0));
    let _again = Faulty::start_at(address).await;
    recovers(&proxy).await;
}

async fn recovers(proxy: &Proxy) {
    eventually_async("it recovers by itself", || async {
        Http::connect(proxy.web).await.get("/").await.status == 200
    })
    .await;
}

async fn run(
    proxy: &Proxy,
    blue: &Faulty,
    green: &Origin,
    method: &'static str,
    name: &str,
    each: usize,
) -> Tally {
    let web = proxy.web;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let prefix = format!("{name}-{method}-{client}");
            tokio::spawn(async move {
                let mut answers = HashMap::new();
                for number in 0..each {
                    let id = format!("{prefix}-{number}");
                    let headers = [("x-test-id", id.as_str())];
                    let body: &[u8] = if method == "POST" { b"once" } else { b"" };
                    let answer = Http::connect(web)
                        .await
                        .send(method, "/", &headers, body)
                        .await;
                    answers.insert(id, answer);
                }
                answers
            })
        })
        .collect();
    let mut tally = Tally::default();
    let mut answers = HashMap::new();
    for client in clients {
        answers.extend(client.await.unwrap());
    }
    let (right, wrong) = (blue.deliveries(), green.deliveries());
    for (id, answer) in answers {
        let delivered = right.get(&id).copied().unwrap_or(0);
        tally.sent += 1;
        tally.wrong_backend += usize::from(wrong.contains_key(&id));
        tally.duplicated += usize::from(delivered > if method == "POST" { 1 } else { 2 });
        match answer {
            Ok(answer) if answer.status == 200 => {
                let whole = answer.text() == crate::support::FAULTY_BODY;
                tally.lost += usize::from(delivered == 0 || !whole);
            }
            Ok(_) | Err(_) => tally.failed += 1,
        }
    }
    tally
}
