//! The stream of events: whoever is cut off goes on where they were.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Answer, Http, Origin, Proxy, RawClient, eventually_async};

async fn proxy() -> (Origin, Origin, Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    (blue, green, proxy)
}

/// What is kept after an id.
async fn kept(proxy: &Proxy, last: Option<&str>) -> Answer {
    let token = format!("Bearer {}", proxy.token);
    let mut headers = vec![("authorization", token.as_str())];
    headers.extend(last.map(|last| ("last-event-id", last)));
    let mut client = Http::connect(proxy.admin).await;
    client
        .send("GET", "/v1/events?follow=false", &headers, b"")
        .await
        .unwrap()
}

/// The messages of a stream: ids and data, as far as they are complete.
fn messages(text: &str) -> Vec<(u64, Value)> {
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    let mut found = Vec::new();
    for message in whole.split("\n\n") {
        let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name));
        if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
            found.push((id.parse().unwrap(), serde_json::from_str(data).unwrap()));
        }
    }
    found
}

async fn open(proxy: &Proxy, last: Option<u64>) -> RawClient {
    let mut stream = RawClient::connect(proxy.admin).await;
    let last = last.map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
    // HTTP/1.0: the stream comes without chunks around it.
    let request = format!(
        "GET /v1/events HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {}\r\n{last}\r\n",
        proxy.admin, proxy.token
    );
    stream.write(request.as_bytes()).await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_whose_connections_break_all_the_time_sees_every_event_exactly_once() {
    let (_blue, _green, proxy) = proxy().await;
    const CHANGES: u32 = 120;
    proxy.weights(100, 1).await;
    let first = messages(&kept(&proxy, None).await.text())[0].0;
    let mut seen = BTreeMap::new();
    let mut connections = 0;
    let changing = async {
        for weight in 2..=CHANGES {
            proxy.weights(100, weight).await;
        }
    };
    let reading = async {
        let mut last = first - 1;
        // A fixed row of numbers: where a connection is cut differs, but not from run to run.
        let mut cut_after = 7_usize;
        while seen.len() < CHANGES as usize {
            let mut stream = open(&proxy, Some(last)).await;
            connections += 1;
            let mut text = String::new();
            cut_after = cut_after * 31 % 97 + 60;
            while text.len() < cut_after * 8
                && seen.len() + messages(&text).len() < CHANGES as usize
            {
                text += &stream.read_some().await;
            }
            // Cut, in the middle of a message as likely as not.
            drop(stream);
            for (id, event) in messages(&text) {
                assert_eq!(id, last + 1, "no hole, nothing twice");
                assert_ne!(event["kind"], "gap");
                assert!(seen.insert(id, event).is_none());
                last = id;
            }
        }
    };
    tokio::join!(changing, reading);
    assert!(connections > 10, "{connections}");
    let all = messages(&kept(&proxy, None).await.text());
    assert_eq!(all, seen.into_iter().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_says_when_to_come_back_and_that_it_lives() {
    let (_blue, _green, proxy) = proxy().await;
    let mut stream = open(&proxy, None).await;
    stream.read_until("retry: 1000\n\n").await;
    // The heartbeat of an idle stream.
    stream.read_until(":\n\n").await;
    proxy.weights(100, 1).await;
    stream.read_until("event: weights_changed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_is_told_as_a_gap_once_and_ids_go_on() {
    let (_blue, _green, mut proxy) = proxy().await;
    proxy.weights(100, 1).await;
    let before = messages(&kept(&proxy, None).await.text());
    let last = before.last().unwrap().0;
    proxy.crash_and_restart();
    proxy.weights(100, 2).await;
    let after = messages(&kept(&proxy, Some(&last.to_string())).await.text());
    assert_eq!(after[0].1["kind"], "gap", "{after:?}");
    assert!(after.iter().all(|(id, _)| *id > last), "{after:?}");
    let gap = after[0].0.to_string();
    let rest = messages(&kept(&proxy, Some(&gap)).await.text());
    assert_eq!(rest, after[1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn id_that_is_none_is_refused() {
    let (_blue, _green, proxy) = proxy().await;
    for last in ["", "abc", "-1", "1.5", "99999999999999999999999"] {
        let answer = kept(&proxy, Some(last)).await;
        assert_eq!(answer.status, 400, "{last}");
        assert_eq!(answer.json()["code"], "invalid_last_event_id");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_never_take_the_room_that_is_needed_to_act() {
    let (_blue, _green, proxy) = proxy().await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        let mut stream = open(&proxy, None).await;
        stream.read_until("retry:").await;
        streams.push(stream);
    }
    let mut refused = open(&proxy, None).await;
    refused.read_until("too_many_streams").await;
    let answer = proxy.post("/v1/services/shop/rollback", json!({})).await;
    assert_eq!(answer.status, 200);
    drop(streams);
    eventually_async("a place is free again", || async {
        let mut stream = open(&proxy, None).await;
        let head = stream.read_some().await;
        head.contains(" 200 ")
    })
    .await;
}
