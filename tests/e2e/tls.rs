//! TLS at the edge: who may connect, for which hosts, with which certificates, and how they change.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::support::{Authority, Origin, Proxy, blue_green, eventually, eventually_async};

/// A listener with TLS settings in front of blue.
fn secure(blue: &Origin, green: &Origin, tls: &str) -> String {
    let web = "web: {address: \"127.0.0.1:0\"}";
    let with_tls = format!("web: {{address: \"127.0.0.1:0\", tls: {tls}}}");
    blue_green(&blue.url(), &green.url(), "").replace(web, &with_tls)
}

fn start(directory: tempfile::TempDir, config: &str) -> Proxy {
    std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
    Proxy::start_in(directory)
}

/// A proxy with one certificate, valid until the beginning of a year, and its origins.
async fn shop(own: &Authority, until: i32) -> ([Origin; 2], Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let directory = tempfile::tempdir().unwrap();
    own.issue(directory.path(), "shop", &["shop.test"], until);
    let tls = "{certificates: [{certificate: shop.crt, key: shop.key}]}";
    let proxy = start(directory, &secure(&blue, &green, tls));
    ([blue, green], proxy)
}

/// A client that trusts an authority, and shows a certificate from a directory if it is named.
fn client(authority: &Authority, identity: Option<(&Path, &str)>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some((directory, name)) => {
            let file = |kind: &str| directory.join(format!("{name}.{kind}"));
            let chain = vec![CertificateDer::from_pem_file(file("crt")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

async fn connect(
    address: SocketAddr,
    name: &str,
    config: rustls::ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// The answer to a GET over HTTP/1.1; empty if the connection was refused.
async fn get(address: SocketAddr, name: &str, host: &str, config: rustls::ClientConfig) -> String {
    let mut text = Vec::new();
    let Ok(mut stream) = connect(address, name, config).await else {
        return String::new();
    };
    let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    // A server that refuses a client's certificate says so after the handshake (TLS 1.3).
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

/// The status of the answer to a GET over HTTP/2; none if the connection was refused.
async fn get_h2(
    address: SocketAddr,
    name: &str,
    host: &str,
    mut config: rustls::ClientConfig,
) -> Option<u16> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = connect(address, name, config).await.ok()?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (executor, io) = (TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .ok()?;
    let driver = tokio::spawn(connection);
    let request = Request::get(format!("https://{host}/"));
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap());
    let status = answer.await.ok().map(|answer| answer.status().as_u16());
    driver.abort();
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listener_with_client_ca_serves_only_clients_that_show_its_certificate() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let directory = tempfile::tempdir().unwrap();
    let (own, clients, foreign) = (Authority::new(), Authority::new(), Authority::new());
    own.issue(directory.path(), "shop", &["shop.test"], 2050);
    clients.issue(directory.path(), "friend", &["friend.test"], 2050);
    clients.issue(directory.path(), "expired", &["expired.test"], 2001);
    foreign.issue(directory.path(), "stranger", &["stranger.test"], 2050);
    std::fs::write(directory.path().join("clients.crt"), &clients.pem).unwrap();
    let tls = "{certificates: [{certificate: shop.crt, key: shop.key}], client_ca: clients.crt}";
    let proxy = start(directory, &secure(&blue, &green, tls));
    let answer = async |identity: Option<&str>| {
        let identity = identity.map(|name| (proxy.path(), name));
        get(proxy.web, "shop.test", "shop.test", client(&own, identity)).await
    };
    assert!(answer(Some("friend")).await.starts_with("HTTP/1.1 200"));
    // Who showed a certificate for one host has shown none for another.
    let friend = client(&own, Some((proxy.path(), "friend")));
    let other = get(proxy.web, "shop.test", "bank.test", friend).await;
    assert!(other.starts_with("HTTP/1.1 421"), "{other}");
    for refused in [None, Some("stranger"), Some("expired")] {
        assert_eq!(answer(refused).await, "", "{refused:?}");
    }
    assert_eq!(blue.received(), 1);
    // The same over HTTP/2.
    let over_h2 = async |identity: Option<&str>, host: &str| {
        let identity = identity.map(|name| (proxy.path(), name));
        get_h2(proxy.web, "shop.test", host, client(&own, identity)).await
    };
    assert_eq!(over_h2(Some("friend"), "shop.test").await, Some(200));
    assert_eq!(over_h2(Some("friend"), "bank.test").await, Some(421));
    for refused in [None, Some("stranger"), Some("expired")] {
        assert_eq!(over_h2(refused, "shop.test").await, None, "{refused:?}");
    }
    assert_eq!(blue.received(), 2);
    // Other authorities are taken over without a restart, and the old ones end.
    std::fs::write(proxy.path().join("clients.crt"), &foreign.pem).unwrap();
    let reloaded = proxy.post("/v1/reload", Value::Null).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    eventually_async("strangers are friends now", || async {
        answer(Some("stranger")).await.starts_with("HTTP/1.1 200")
    })
    .await;
    assert_eq!(answer(Some("friend")).await, "");
    // What is no authority changes nothing.
    std::fs::write(proxy.path().join("clients.crt"), "rubbish").unwrap();
    let refused = proxy.post("/v1/reload", Value::Null).await;
    assert_eq!(
        refused.json()["code"],
        "config_file_refused",
        "{}",
        refused.text()
    );
    assert!(answer(Some("stranger")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backend_that_asks_for_a_certificate_is_shown_the_configured_one() {
    let green = Origin::start().await;
    let (own, clients) = (Authority::new(), Authority::new());
    for (identity, status) in [
        (
            ", client_certificate: proxy.crt, client_key: proxy.key",
            "200",
        ),
        ("", "502"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        own.issue(directory.path(), "origin", &["origin.test"], 2050);
        clients.issue(directory.path(), "proxy", &["proxy.test"], 2050);
        std::fs::write(directory.path().join("ca.crt"), &own.pem).unwrap();
        let port = demanding_origin(directory.path(), &clients).await;
        let tls = format!("{{ca: ca.crt, server_name: origin.test{identity}}}");
        let config = blue_green("BLUE", &green.url(), "").replace(
            "endpoints: [\"BLUE\"]",
            &format!("endpoints: [\"https://127.0.0.1:{port}\"], tls: {tls}"),
        );
        let proxy = start(directory, &config);
        let answer = crate::support::Http::connect(proxy.web)
            .await
            .get("/")
            .await;
        assert_eq!(answer.status.to_string(), status, "{tls}");
    }
}

/// An origin that serves only clients with a certificate of an authority; its port.
async fn demanding_origin(directory: &Path, clients: &Authority) -> u16 {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_file(directory.join("origin.crt")).unwrap()],
            PrivateKeyDer::from_pem_file(directory.join("origin.key")).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            let _ = stream.write_all(answer).await;
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_for_a_host_that_the_connection_is_not_for_is_misdirected() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let directory = tempfile::tempdir().unwrap();
    let own = Authority::new();
    own.issue(
        directory.path(),
        "shop",
        &["shop.test", "www.shop.test"],
        2050,
    );
    own.issue(directory.path(), "bank", &["bank.test"], 2050);
    let tls = "{certificates: [{certificate: shop.crt, key: shop.key}, {certificate: bank.crt, key: bank.key}]}";
    let any_host = secure(&blue, &green, tls);
    let proxy = start(directory, &any_host);
    let named = "routes:\n  - {host: shop.test, service: shop}\n  - {host: \"*.shop.test\", service: shop}\n  - {host: bank.test, service: shop}\n  - {host: 127.0.0.1, service: shop}\n";
    let named = any_host.replace("routes: [{service: shop}]\n", named);
    assert_ne!(named, any_host);
    // Routes for every host do not care what a connection was opened for.
    let answer = get(proxy.web, "shop.test", "bank.test", client(&own, None)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    std::fs::write(proxy.path().join("switchback.yaml"), named).unwrap();
    let reloaded = proxy.post("/v1/reload", Value::Null).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    for (name, host, status) in [
        ("shop.test", "shop.test", 200),
        ("shop.test", "SHOP.test:8443", 200),
        ("shop.test", "www.shop.test", 200),
        ("shop.test", "bank.test", 421),
        ("bank.test", "shop.test", 421),
        ("bank.test", "bank.test", 200),
        ("shop.test", "127.0.0.1", 421),
    ] {
        let received = blue.received();
        let answer = get(proxy.web, name, host, client(&own, None)).await;
        let expected = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&expected), "{name} {host}: {answer}");
        let mut h2 = client(&own, None);
        h2.alpn_protocols = vec![b"h2".to_vec()];
        let stream = connect(proxy.web, name, h2).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = Request::get(format!("https://{host}/")).body(Empty::<Bytes>::new());
        let answer = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), status, "{name} {host} over HTTP/2");
        answer.into_body().collect().await.unwrap();
        let served = if status == 200 { 2 } else { 0 };
        assert_eq!(blue.received(), received + served, "{name} {host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_without_a_dropped_handshake_and_bad_ones_are_not_used() {
    const RENEWALS: i32 = 20;
    let own = Authority::new();
    let (_origins, proxy) = shop(&own, 2040).await;
    let config = client(&own, None);
    let stop = Arc::new(AtomicBool::new(false));
    let (address, stopped) = (proxy.web, stop.clone());
    let handshakes = tokio::spawn(async move {
        let mut done = 0;
        while !stopped.load(SeqCst) {
            let answer = get(address, "shop.test", "shop.test", config.clone()).await;
            assert!(
                answer.starts_with("HTTP/1.1 200"),
                "handshake {done}: {answer}"
            );
            done += 1;
        }
        done
    });
    for renewal in 0..RENEWALS {
        own.issue(proxy.path(), "shop", &["shop.test"], 2041 + renewal);
        let answer = proxy.post("/v1/reload", Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let last = CertificateDer::from_pem_file(proxy.path().join("shop.crt")).unwrap();
    let shown = async || {
        let config = client(&own, None);
        let stream = connect(proxy.web, "shop.test", config).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    assert_eq!(shown().await, last.to_vec());
    for bad in [
        "",
        "rubbish",
        "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(proxy.path().join("shop.crt"), bad).unwrap();
        let refused = proxy.post("/v1/reload", Value::Null).await;
        assert_eq!(
            refused.json()["code"],
            "config_file_refused",
            "{}",
            refused.text()
        );
        assert_eq!(shown().await, last.to_vec(), "the old one stays");
    }
    stop.store(true, SeqCst);
    let done: u32 = handshakes.await.unwrap();
    println!("{RENEWALS} renewals during {done} handshakes: 0 failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_resume_also_after_the_certificate_has_changed() {
    let own = Authority::new();
    let (_origins, proxy) = shop(&own, 2050).await;
    for version in ["-tls1_2", "-tls1_3"] {
        let first = s_client(&proxy, &[version, "-sess_out", "session.pem"]).await;
        assert!(first.contains("New, TLSv1"), "{version}: {first}");
        // Other workers and another certificate make no difference.
        own.issue(proxy.path(), "shop", &["shop.test"], 2049);
        assert_eq!(proxy.post("/v1/reload", Value::Null).await.status, 200);
        for _ in 0..8 {
            let again = s_client(&proxy, &[version, "-sess_in", "session.pem"]).await;
            assert!(again.contains("Reused, TLSv1"), "{version}: {again}");
            assert!(again.contains("HTTP/1.1 200"), "{version}: {again}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_versions_and_weak_ciphers_are_refused() {
    let (_origins, proxy) = shop(&Authority::new(), 2050).await;
    for (arguments, served) in [
        (&["-tls1_3"][..], true),
        (&["-tls1_2"], true),
        (&["-tls1_2", "-cipher", "ECDHE+AESGCM"], true),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], false),
        (&["-tls1", "-cipher", "ALL:@SECLEVEL=0"], false),
        // No forward secrecy, no authenticated encryption.
        (&["-tls1_2", "-cipher", "AES128-GCM-SHA256"], false),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], false),
    ] {
        let said = s_client(&proxy, arguments).await;
        assert_eq!(
            said.contains("HTTP/1.1 200"),
            served,
            "{arguments:?}: {said}"
        );
    }
}

/// One GET by `openssl s_client`, and what it says.
async fn s_client(proxy: &Proxy, arguments: &[&str]) -> String {
    let mut child = tokio::process::Command::new("openssl")
        .args(["s_client", "-connect", &proxy.web.to_string()])
        .args(["-servername", "shop.test", "-ign_eof"])
        .args(arguments)
        .current_dir(proxy.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // It may have been refused already.
    let _ = input
        .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
        .await;
    let output = tokio::time::timeout(crate::support::DEADLINE, child.wait_with_output());
    let output = output.await.expect("openssl ends").unwrap();
    drop(input);
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_of_certificates_is_measured_and_warned_about() {
    let own = Authority::new();
    let (_origins, proxy) = shop(&own, 2001).await;
    let metric = async |seconds: &str| {
        let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
        let name = "switchback_certificate_expiry_timestamp_seconds{";
        let mut lines = metrics.lines();
        lines.any(|line| {
            line.starts_with(name)
                && line.contains("tls=\"listeners.web.tls\"")
                && line.contains("certificate=\"shop.test\"")
                && line.ends_with(&format!(" {seconds}"))
        })
    };
    // The first second of 2001.
    assert!(metric("978307200").await);
    eventually("it is warned about", || {
        proxy.log().contains("has expired at 2001-01-01")
    });
    let events = proxy
        .api("GET", "/v1/events?follow=false", Value::Null)
        .await;
    assert!(
        events.text().contains("certificate_expires"),
        "{}",
        events.text()
    );
    own.issue(proxy.path(), "shop", &["shop.test"], 2050);
    assert_eq!(proxy.post("/v1/reload", Value::Null).await.status, 200);
    assert!(metric("2524608000").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_is_measured_of_every_certificate_that_is_shown_to_anybody() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let directory = tempfile::tempdir().unwrap();
    let own = Authority::new();
    own.issue(directory.path(), "flags", &["flags.test"], 2050);
    own.issue(directory.path(), "client", &[], 2001);
    let config = blue_green(&blue.url(), &green.url(), "").replace(
        &format!("endpoints: [\"{}\"]", green.url()),
        &format!(
            "endpoints: [\"{}\"], tls: {{client_certificate: client.crt, client_key: client.key}}",
            green.url()
        ),
    );
    assert!(config.contains("client.crt"), "{config}");
    let ofrep = "ofrep: {address: \"127.0.0.1:0\", tls: {certificate: flags.crt, key: flags.key}}";
    let proxy = start(directory, &format!("{config}\n{ofrep}\n"));
    let expires = async |section: &str, name: &str| {
        let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
        let series = format!(
            "switchback_certificate_expiry_timestamp_seconds{{tls=\"{section}\",certificate=\"{name}\"}} "
        );
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(&series));
        value.unwrap_or_else(|| panic!("{metrics}")).to_owned()
    };
    let client = "services.shop.backends.green.tls";
    let subject = "CN=rcgen self signed cert";
    assert_eq!(expires("ofrep.tls", "flags.test").await, "2524608000");
    assert_eq!(expires(client, subject).await, "978307200");
    eventually("it is warned about", || {
        let log = proxy.log();
        log.contains("in services.shop.backends.green.tls has expired at 2001-01-01")
    });
    own.issue(proxy.path(), "client", &[], 2050);
    own.issue(proxy.path(), "flags", &["flags.test"], 2051);
    assert_eq!(proxy.post("/v1/reload", Value::Null).await.status, 200);
    assert_eq!(expires(client, subject).await, "2524608000");
    assert_eq!(expires("ofrep.tls", "flags.test").await, "2556144000");
}
