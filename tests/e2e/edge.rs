//! The edges of the process: TLS towards endpoints, who the client is, logs, tunnels that are cut.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Http, Origin, Proxy, RawClient, blue_green, eventually, eventually_async};

/// An endpoint with TLS for `localhost`; its certificate is written to a directory.
async fn tls_endpoint(directory: &std::path::Path) -> u16 {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(directory.join("ca.crt"), made.cert.pem()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut buffer = [0; 4096];
                while matches!(stream.read(&mut buffer).await, Ok(count) if count > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nsecure\n";
                    let _ = stream.write_all(answer).await;
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_endpoint_is_verified_against_its_authority() {
    let green = Origin::start().await;
    for (tls, status) in [
        ("{ca: ca.crt, server_name: localhost}", 200),
        ("{ca: ca.crt, server_name: other.test}", 502),
        ("{server_name: localhost}", 502),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let port = tls_endpoint(directory.path()).await;
        let config = blue_green("BLUE", &green.url(), "").replace(
            "endpoints: [\"BLUE\"]",
            &format!("endpoints: [\"https://127.0.0.1:{port}\"], tls: {tls}"),
        );
        std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
        let proxy = Proxy::start_in(directory);
        let answer = Http::connect(proxy.web).await.get("/").await;
        assert_eq!(answer.status, status, "{tls}: {}", answer.text());
        assert!(
            !answer.text().contains("127.0.0.1"),
            "no upstream address in an answer"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_mirrored_to_https_endpoints() {
    let blue = Origin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let port = tls_endpoint(directory.path()).await;
    let tls = "{ca: ca.crt, server_name: localhost}";
    let config = blue_green(&blue.url(), "GREEN", "mirror: {to: green}").replace(
        "endpoints: [\"GREEN\"]",
        &format!("endpoints: [\"https://127.0.0.1:{port}\"], tls: {tls}"),
    );
    std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
    let proxy = Proxy::start_in(directory);
    let mut client = Http::connect(proxy.web).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "hello\n");
    }
    eventually_async("all copies were answered", || async {
        proxy.service().await["mirror"]["mirrored"] == 10
    })
    .await;
    let service = proxy.service().await;
    assert_eq!(service["mirror"]["mismatched"], 0, "{service}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_address_comes_from_trusted_proxies_and_the_proxy_protocol_only() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = blue_green(&blue.url(), &green.url(), "");
    let proxy = Proxy::start(&config.replace("routes:", "trusted_proxies: [127.0.0.0/8]\nroutes:"));
    let forwarded = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "from-the-edge"),
    ];
    Http::connect(proxy.web)
        .await
        .send("GET", "/", &forwarded, b"")
        .await
        .unwrap();
    let seen = blue.last();
    assert_eq!(seen.headers["x-forwarded-for"], "6.6.6.6, 127.0.0.1");
    assert_eq!(
        (
            &seen.headers["x-forwarded-proto"],
            &seen.headers["x-request-id"]
        ),
        (&"https".parse().unwrap(), &"from-the-edge".parse().unwrap())
    );
    let listener = "  web: {address: \"127.0.0.1:0\"";
    let proxy =
        Proxy::start(&config.replace(listener, &format!("{listener}, proxy_protocol: true")));
    let mut client = RawClient::connect(proxy.web).await;
    client.write(b"PROXY TCP4 9.9.9.9 127.0.0.1 1234 80\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(client.read_all().await.starts_with("HTTP/1.1 200"));
    assert_eq!(blue.last().headers["x-forwarded-for"], "9.9.9.9");
    let mut client = RawClient::connect(proxy.web).await;
    client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(
        client.read_all().await,
        "",
        "without the header nothing is answered"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_log_tells_each_request_and_is_reopened() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let off = "access_log: {format: \"off\"}";
    let config = blue_green(&blue.url(), &green.url(), "");
    let proxy = Proxy::start(&config.replace(off, "access_log: {path: access.log, format: json}"));
    let path = proxy.path().join("access.log");
    let lines = |path: &std::path::Path| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let mut client = Http::connect(proxy.web).await;
    let secret = [("authorization", "Bearer secret"), ("cookie", "secret=1")];
    client.send("GET", "/a?b=c", &secret, b"").await.unwrap();
    eventually("the line is written", || lines(&path).len() == 1);
    let line: Value = serde_json::from_str(&lines(&path)[0]).unwrap();
    for (key, value) in [
        ("method", json!("GET")),
        ("path", json!("/a")),
        ("query", json!("b=c")),
        ("status", json!(200)),
        ("service", json!("shop")),
        ("backend", json!("blue")),
        ("version", json!("1")),
        ("client", json!("127.0.0.1")),
    ] {
        assert_eq!(line[key], value, "{line}");
    }
    assert!(!lines(&path)[0].contains("secret"));
    let moved = proxy.path().join("access.log.1");
    std::fs::rename(&path, &moved).unwrap();
    proxy.signal(rustix::process::Signal::USR1);
    // The file is opened anew by the next line.
    client.get("/between").await;
    eventually("the line is in one of the files", || {
        lines(&path).len() + lines(&moved).len() == 2
    });
    proxy.write_config(&config.replace(off, "access_log: {path: access.log, format: combined}"));
    proxy.post("/v1/reload", Value::Null).await;
    client.get("/second").await;
    eventually("the line is in the new file", || {
        lines(&path).iter().any(|line| line.contains("/second"))
    });
    let line = lines(&path).pop().unwrap();
    assert!(line.contains("\"GET /second HTTP/1.1\" 200 6"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_moves_no_tunnel_unless_it_is_told_to_cut() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";
                let _ = stream.write_all(head).await;
                while let Ok(count) = stream.read(&mut buffer).await {
                    if count == 0 || stream.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    let blue = Origin::start().await;
    let proxy = Proxy::start(&blue_green(
        &blue.url(),
        &url,
        "rollback: {on_failure: notify}",
    ));
    let ask = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    proxy.weights(0, 100).await;
    let mut client = RawClient::connect(proxy.web).await;
    client.write(ask).await;
    client.read_until("\r\n\r\n").await;
    proxy.post("/v1/services/shop/rollback", Value::Null).await;
    client.write(b"still here").await;
    assert_eq!(client.read_until("here").await, "still here");
    proxy
        .post("/v1/services/shop/backends/green/unblock", Value::Null)
        .await;
    proxy.weights(0, 100).await;
    proxy
        .post("/v1/services/shop/rollback", json!({"cut": true}))
        .await;
    let rest = tokio::time::timeout(crate::support::DEADLINE, client.read_all()).await;
    assert!(rest.is_ok(), "the tunnel is closed");
    eventually_async("nothing is in flight", || async {
        proxy.service().await["backends"]["green"]["in_flight"] == 0
    })
    .await;
}
