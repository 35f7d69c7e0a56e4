//! The process runs out of descriptors, or is told to end.

use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::support::frames::{H2, NO_ERROR, headers, request};
use crate::support::wire::Edge;
use crate::support::{
    Fault, Faulty, Http, Origin, Proxy, RawClient, blue_green, eventually, log_in, run,
};

/// How many files the process may open: fewer than there are clients.
const DESCRIPTORS: usize = 160;

/// Clients that come at the same time.
const CLIENTS: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_descriptors_accepting_pauses_without_spinning_and_recovers() {
    let (blue, green) = (Faulty::start().await, Origin::start().await);
    let directory = tempfile::tempdir().unwrap();
    let config = blue_green(&blue.url(), &green.url(), "");
    std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
    let switchback = run(directory.path());
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -n {DESCRIPTORS}; exec \"$@\""), "sh"])
        .arg(switchback.get_program())
        .args(switchback.get_args());
    log_in(directory.path(), &mut command);
    let proxy = Proxy::start_by(directory, command);
    blue.set(Fault::Hang);
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = RawClient::connect(proxy.web).await;
        client.write(post(&number.to_string()).as_bytes()).await;
        clients.push(client);
    }
    eventually("there is no room for more", || {
        !blue.deliveries().is_empty()
    });
    let share = share_while_it_waits(&proxy).await;
    let served = blue.deliveries().len();
    assert!(
        served < CLIENTS,
        "all were let in, so this has shown nothing"
    );
    blue.set(Fault::None);
    let mut answered = 0;
    for mut client in clients {
        let answer = client.read_all().await;
        answered += usize::from(answer.starts_with("HTTP/1.1 200"));
    }
    let deliveries = blue.deliveries();
    let repeated = deliveries.values().filter(|count| **count > 1).count();
    println!(
        "{DESCRIPTORS} descriptors for {CLIENTS} clients: {answered} answered, {repeated} repeated; {share:.3} of a processor while it waited"
    );
    assert_eq!(repeated, 0);
    assert_eq!(answered, CLIENTS, "everybody is served in the end");
    assert_eq!(proxy.api("GET", "/readyz", Value::Null).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn descriptors_that_really_run_out_end_nothing_and_are_waited_for() {
    const CLIENTS: usize = 40;
    let (blue, green) = (Faulty::start().await, Origin::start().await);
    let proxy = Proxy::start(&blue_green(&blue.url(), &green.url(), ""));
    // Once after its start the file is read again, and each time it is reckoned with what there is then.
    proxy.write_config(&blue_green(&blue.url(), &green.url(), "expose: true"));
    eventually("the file has been read again", || {
        proxy.log().contains("the file was taken over")
    });
    blue.set(Fault::Hang);
    let mut before_it = RawClient::connect(proxy.web).await;
    before_it.write(post("before").as_bytes()).await;
    eventually("it is in flight", || blue.deliveries().len() == 1);
    // It has reckoned with far more: from here on the kernel says no.
    let descriptors = || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid().as_raw_nonzero()));
        open.unwrap().count() as u64
    };
    let open = descriptors();
    let room = open + 8;
    let files = rustix::process::Resource::Nofile;
    let before = rustix::process::getrlimit(files);
    let limit = rustix::process::Rlimit {
        current: Some(room),
        ..before
    };
    rustix::process::prlimit(Some(proxy.pid()), files, limit).unwrap();
    let mut first = RawClient::connect(proxy.web).await;
    eventually("the first is let in", || descriptors() > open);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(RawClient::connect(proxy.web).await);
    }
    eventually("the kernel says no", || {
        proxy.log().contains("accept; pausing")
    });
    let share = share_while_it_waits(&proxy).await;
    // Who was let in is told when there is nothing left for the way to the origin.
    first.write(post("first").as_bytes()).await;
    let answer = first.read_all().await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    rustix::process::prlimit(Some(proxy.pid()), files, before).unwrap();
    blue.set(Fault::None);
    let mut answered = 0;
    for (number, mut client) in clients.into_iter().enumerate() {
        client.write(post(&number.to_string()).as_bytes()).await;
        let answer = client.read_all().await;
        answered += usize::from(answer.starts_with("HTTP/1.1 200"));
    }
    println!(
        "room for 8 more descriptors, {CLIENTS} clients: {answered} answered; {share:.3} of a processor while it waited"
    );
    assert_eq!(answered, CLIENTS, "everybody is served in the end");
    let deliveries = blue.deliveries();
    assert!(
        deliveries.values().all(|count| *count == 1),
        "{deliveries:?}"
    );
    assert!(!deliveries.contains_key("first"), "{deliveries:?}");
    let answer = before_it.read_all().await;
    assert!(
        answer.starts_with("HTTP/1.1 200"),
        "and nobody is cut: {answer}"
    );
    let service = proxy.service().await;
    let stable = &service["backends"]["blue"];
    assert_eq!(
        stable["failures"], 0,
        "the backend is not to blame: {stable}"
    );
    assert_eq!(Http::connect(proxy.web).await.get("/").await.status, 200);
}

/// How much of a processor it takes for two seconds in which it lets nobody in. A loop that spins would use up
/// all of one; one that pauses looks fifty times a second.
async fn share_while_it_waits(proxy: &Proxy) -> f64 {
    let (started, used) = (Instant::now(), cpu_ticks(proxy));
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(100));
    for _ in 0..20 {
        ticks.tick().await;
    }
    let seconds = started.elapsed().as_secs_f64();
    let share = (cpu_ticks(proxy) - used) as f64 / 100.0 / seconds;
    assert!(share < 0.5, "{share:.2} of a processor while it waits");
    share
}

/// A request that must arrive once, the last of its connection.
fn post(id: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: a\r\nx-test-id: {id}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

/// Processor time it has used, in hundredths of a second.
fn cpu_ticks(proxy: &Proxy) -> u64 {
    let path = format!("/proc/{}/stat", proxy.pid().as_raw_nonzero());
    let stat = std::fs::read_to_string(path).unwrap();
    // The name, in parentheses, may hold anything.
    let after = stat.rsplit_once(") ").unwrap().1;
    let fields: Vec<&str> = after.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn term_with_two_hundred_requests_in_flight_finishes_each_once() {
    const IN_FLIGHT: usize = 200;
    let (blue, green) = (Faulty::start().await, Origin::start().await);
    let mut proxy = Proxy::start(&blue_green(&blue.url(), &green.url(), ""));
    blue.set(Fault::Hang);
    let web = proxy.web;
    let requests: Vec<_> = (0..IN_FLIGHT)
        .map(|number| {
            tokio::spawn(async move {
                let id = number.to_string();
                let headers = [("x-test-id", id.as_str())];
                let mut client = Http::connect(web).await;
                client.send("POST", "/", &headers, b"once").await
            })
        })
        .collect();
    eventually("all are in flight", || blue.deliveries().len() == IN_FLIGHT);
    proxy.signal(rustix::process::Signal::TERM);
    eventually("it stops", || proxy.log().contains("stopping"));
    crate::support::eventually_async("nobody else is let in", || async {
        Http::try_connect(web).await.is_err()
    })
    .await;
    blue.set(Fault::None);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status, 200);
    }
    assert_eq!(proxy.wait(), Some(0));
    let deliveries = blue.deliveries();
    assert!(deliveries.values().all(|count| *count == 1));
    println!("TERM with {IN_FLIGHT} POSTs in flight: 0 failed, 0 repeated, exit 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_term_cuts_what_is_in_flight_and_says_so() {
    let (blue, green) = (Faulty::start().await, Origin::start().await);
    let mut proxy = Proxy::start(&blue_green(&blue.url(), &green.url(), ""));
    blue.set(Fault::Hang);
    let mut client = RawClient::connect(proxy.web).await;
    client
        .write(b"POST / HTTP/1.1\r\nHost: a\r\nx-test-id: 1\r\nContent-Length: 0\r\n\r\n")
        .await;
    eventually("it is in flight", || blue.deliveries().len() == 1);
    proxy.signal(rustix::process::Signal::TERM);
    eventually("it stops", || proxy.log().contains("stopping"));
    proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(client.read_all().await, "", "cut, and not answered");
    assert_eq!(proxy.wait(), Some(3));
    assert_eq!(blue.deliveries()["1"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_not_finished_in_time_after_term_is_cut_and_said_so() {
    let origin = Faulty::start().await;
    let limits = "limits: {shutdown_timeout: 500ms}";
    let mut edge = Edge::start(&origin.url(), limits, "", "");
    origin.set(Fault::Hang);
    let mut h1 = edge.plain().await;
    h1.write(b"POST / HTTP/1.1\r\nHost: a\r\nx-test-id: h1\r\nContent-Length: 0\r\n\r\n")
        .await;
    let mut h2 = H2::start(edge.plain().await, &[]).await;
    let post = request("POST", &[("x-test-id", "h2")]);
    h2.send(&headers(1, true, &post)).await;
    eventually("both are in flight", || origin.deliveries().len() == 2);
    edge.proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(h2.until_closed().await, Some(NO_ERROR), "told to go first");
    assert_eq!(
        h1.rest().await.as_deref(),
        Some(""),
        "cut, and not answered"
    );
    assert_eq!(edge.proxy.wait(), Some(3));
    assert!(origin.deliveries().values().all(|count| *count == 1));
}
