//! Bytes on the wire: what is refused, what is forwarded, and how connections end.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::support::{Origin, Proxy, RawClient};

async fn proxy() -> (Origin, Origin, Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    (blue, green, proxy)
}

/// The status line's code of the answer to these bytes.
async fn status(proxy: &Proxy, bytes: &[u8]) -> String {
    let mut client = RawClient::connect(proxy.web).await;
    client.write(bytes).await;
    let answer = client.read_until("\r\n\r\n").await;
    answer.split(' ').nth(1).unwrap_or("closed").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_requests_are_refused_and_never_forwarded() {
    let (blue, _green, proxy) = proxy().await;
    let long_line = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "a".repeat(17 << 10)
    );
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9 << 10));
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: 1\r\n".repeat(101)
    );
    let cases: [(&str, &str); 39] = [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 01\r\n\r\nx",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            "501",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "501",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400",
        ),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nx",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nx",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\nx",
            "400",
        ),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\u{0}2\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX(): 1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", "400"),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET / /x HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505"),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "505"),
        ("GET /\r\n\r\n", "400"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", "405"),
        (&long_line, "431"),
        (&many, "431"),
        (&long_target, "414"),
    ];
    let mut wrong = Vec::new();
    for (request, expected) in cases {
        let found = status(&proxy, request.as_bytes()).await;
        if found != expected {
            wrong.push(format!(
                "{found} instead of {expected}: {:?}",
                &request[..request.len().min(100)]
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(blue.received(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_chunks_are_refused() {
    let (_blue, _green, proxy) = proxy().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in [
        "g\r\nx\r\n0\r\n\r\n",
        "-1\r\nx\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "00000000000000001\r\nx\r\n0\r\n\r\n",
        "\r\n",
    ] {
        let found = status(&proxy, format!("{head}{chunks}").as_bytes()).await;
        assert_eq!(found, "400", "{chunks:?}");
    }
    assert_eq!(
        status(
            &proxy,
            format!("{head}5;a=b\r\nhello\r\n0\r\nX: 1\r\n\r\n").as_bytes()
        )
        .await,
        "200"
    );
}

/// An origin that answers with exactly these bytes, and what it was sent.
async fn scripted(answer: &'static [u8]) -> (String, tokio::sync::mpsc::Receiver<String>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let (sender, seen) = tokio::sync::mpsc::channel(100);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut text = Vec::new();
                let mut buffer = [0; 8192];
                while !text.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => text.extend_from_slice(&buffer[..count]),
                    }
                }
                let _ = sender
                    .send(String::from_utf8_lossy(&text).into_owned())
                    .await;
                let _ = stream.write_all(answer).await;
                // Stays open until the proxy closes.
                while matches!(stream.read(&mut buffer).await, Ok(count) if count > 0) {}
            });
        }
    });
    (url, seen)
}

async fn through(answer: &'static [u8], request: &[u8]) -> String {
    let (url, _seen) = scripted(answer).await;
    let green = Origin::start().await;
    let proxy = Proxy::start(&crate::support::blue_green(&url, &green.url(), ""));
    let mut client = RawClient::connect(proxy.web).await;
    client.write(request).await;
    client.read_all().await
}

const CLOSING: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_answers_of_origins_are_502_and_never_passed_on() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 99 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        let seen = through(answer, CLOSING).await;
        assert!(
            seen.starts_with("HTTP/1.1 502"),
            "{:?} gave {seen}",
            String::from_utf8_lossy(answer)
        );
        assert!(
            seen.to_ascii_lowercase()
                .contains("proxy-status: switchback"),
            "{seen}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn informational_responses_and_trailers_pass() {
    let answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 9\r\n\r\n";
    let seen = through(
        answer,
        b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n",
    )
    .await
    .to_ascii_lowercase();
    assert!(seen.starts_with("http/1.1 103"), "{seen}");
    assert!(seen.contains("link: </a.css>"), "{seen}");
    assert!(seen.contains("http/1.1 200 ok"), "{seen}");
    assert!(
        seen.contains("5\r\nhello\r\n0\r\nx-sum: 9\r\n\r\n"),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_body_ends_in_a_cut_connection_never_in_a_clean_end() {
    for head in [
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Content-Length: 10\r\n\r\nhello",
    ] {
        let close = Arc::new(Notify::new());
        let url = closing_origin(format!("HTTP/1.1 200 OK\r\n{head}"), close.clone()).await;
        let green = Origin::start().await;
        let proxy = Proxy::start(&crate::support::blue_green(&url, &green.url(), ""));
        let mut client = RawClient::connect(proxy.web).await;
        client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let seen = client.read_until("hello").await;
        assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
        close.notify_one();
        let rest = client.read_all().await;
        assert!(!rest.contains("0\r\n\r\n"), "{rest}");
    }
}

/// An origin that sends these bytes, and closes when it is told to.
async fn closing_origin(answer: String, close: Arc<Notify>) -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let mut buffer = [0; 8192];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            close.notified().await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_and_keep_alive_and_pipelining_work() {
    let (blue, _green, proxy) = proxy().await;
    let mut client = RawClient::connect(proxy.web).await;
    client.write(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let seen = client.read_all().await;
    assert!(
        seen.contains(" 200 ") && seen.ends_with("hello\n"),
        "{seen}"
    );
    let mut client = RawClient::connect(proxy.web).await;
    client.write(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let seen = client.read_all().await;
    assert_eq!(seen.matches("HTTP/1.1 200").count(), 3, "{seen}");
    assert_eq!(blue.received(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expect_100_continue_is_answered_before_the_body_is_sent() {
    let (_blue, _green, proxy) = proxy().await;
    let mut client = RawClient::connect(proxy.web).await;
    client.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n").await;
    let first = client.read_until("\r\n\r\n").await;
    assert!(first.starts_with("HTTP/1.1 100"), "{first}");
    client.write(b"hello").await;
    let rest = client.read_all().await;
    assert!(
        rest.contains("HTTP/1.1 200") && rest.ends_with("hello"),
        "{rest}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn body_over_the_limit_is_413_and_one_at_the_limit_passes() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "limits: {request_body_bytes: 1KiB}");
    let post = |size: usize| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n{}",
            "x".repeat(size)
        )
    };
    assert_eq!(status(&proxy, post(1024).as_bytes()).await, "200");
    assert_eq!(status(&proxy, post(1025).as_bytes()).await, "413");
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n{}\r\n0\r\n\r\n",
        "x".repeat(1025)
    );
    assert_eq!(status(&proxy, chunked.as_bytes()).await, "413");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_and_silent_origins_end_in_408_and_504() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    blue.behave(crate::support::Behaviour {
        delay: std::time::Duration::from_secs(60),
        ..Default::default()
    });
    let config = crate::support::blue_green(
        &blue.url(),
        &green.url(),
        "limits: {upstream_response_timeout: 300ms}",
    )
    .replace("routes:", "limits: {header_read_timeout: 300ms}\nroutes:");
    let proxy = Proxy::start(&config);
    assert_eq!(status(&proxy, b"GET / HTTP/1.1\r\nHo").await, "408");
    assert_eq!(
        status(
            &proxy,
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        )
        .await,
        "504"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_bytes_pass_both_ways_after_101() {
    let (url, mut seen) = scripted(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nfrom-server").await;
    let green = Origin::start().await;
    let proxy = Proxy::start(&crate::support::blue_green(&url, &green.url(), ""));
    let mut client = RawClient::connect(proxy.web).await;
    client.write(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
    let answer = client.read_until("from-server").await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let request = seen.recv().await.unwrap().to_ascii_lowercase();
    assert!(
        request.contains("upgrade: websocket") && request.contains("sec-websocket-key"),
        "{request}"
    );
    // Other upgrades are not passed on.
    let mut client = RawClient::connect(proxy.web).await;
    client.write(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\n\r\n").await;
    let request = seen.recv().await.unwrap().to_ascii_lowercase();
    assert!(
        !request.contains("upgrade") && !request.contains("http2-settings"),
        "{request}"
    );
}

async fn connections(proxy: &Proxy) -> String {
    let metrics = proxy
        .api("GET", "/metrics", serde_json::Value::Null)
        .await
        .text();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("switchback_connections "));
    line.unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_takes_nothing_is_cut_over_h1_and_h2() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = crate::support::blue_green(&blue.url(), &green.url(), "");
    let proxy =
        Proxy::start(&config.replace("routes:", "limits: {write_stall_timeout: 300ms}\nroutes:"));
    let body = vec![b'x'; 16 << 20];
    // More than the buffers of both sockets hold comes back, and nobody reads it.
    let mut silent = RawClient::connect(proxy.web).await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    silent.write(head.as_bytes()).await;
    silent.write(&body).await;
    crate::support::eventually_async("the h1 client is cut", || async {
        connections(&proxy).await == "switchback_connections 0"
    })
    .await;
    let stream = tokio::net::TcpStream::connect(proxy.web).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .initial_stream_window_size(65_535)
            .handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}/", proxy.web));
    let full = http_body_util::Full::new(bytes::Bytes::from(body[..1 << 20].to_vec()));
    let response = sender
        .send_request(request.body(full).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(connections(&proxy).await, "switchback_connections 1");
    let ended = tokio::time::timeout(crate::support::DEADLINE, driver).await;
    assert!(ended.is_ok(), "the h2 client is cut");
    drop(response);
}
