//! Which service a request goes to, over which protocol, and what the backend sees.

use std::sync::Arc;

use crate::support::{Http, Origin, Proxy};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn best_match_wins_by_host_path_method_and_header() {
    let mut origins = Vec::new();
    for _ in 0..6 {
        origins.push(Origin::start().await);
    }
    let names = ["any", "wild", "exact", "cart", "post", "beta"];
    let mut config = String::from("version: 1\nworkers: 1\nadmin: {address: \"127.0.0.1:0\"}\naccess_log: {format: \"off\"}\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes:
  - {service: any}
  - {host: \"*.example.com\", service: wild}
  - {host: shop.example.com, service: exact}
  - {host: shop.example.com, path: /cart, service: cart}
  - {host: shop.example.com, path: /cart, methods: [POST], headers: {x-kind: slow}, service: post}
  - {host: shop.example.com, headers: {x-beta: \"1\"}, service: beta}
  - {host: old.example.com, redirect: {https: true}}
services:\n");
    for (name, origin) in names.iter().zip(&origins) {
        config.push_str(&format!(
            "  {name}: {{backends: {{only: {{endpoints: [\"{}\"]}}}}}}\n",
            origin.url()
        ));
    }
    let proxy = Proxy::start(&config);
    let cases: [(&str, &str, &str, Option<(&str, &str)>, &str); 11] = [
        ("GET", "other.test", "/", None, "any"),
        ("GET", "a.example.com", "/", None, "wild"),
        ("GET", "a.b.example.com", "/", None, "wild"),
        ("GET", "example.com", "/", None, "any"),
        ("GET", "SHOP.example.com:8080", "/", None, "exact"),
        ("GET", "shop.example.com", "/cart", None, "cart"),
        ("GET", "shop.example.com", "/cart/1?x=/", None, "cart"),
        ("GET", "shop.example.com", "/cartoon", None, "exact"),
        (
            "POST",
            "shop.example.com",
            "/cart",
            Some(("x-kind", "slow")),
            "post",
        ),
        (
            "GET",
            "shop.example.com",
            "/",
            Some(("x-beta", "1")),
            "beta",
        ),
        (
            "GET",
            "shop.example.com",
            "/",
            Some(("x-beta", "2")),
            "exact",
        ),
    ];
    let mut client = Http::connect(proxy.web).await;
    for (method, host, path, header, expected) in cases {
        let before: Vec<u64> = origins.iter().map(Origin::received).collect();
        let mut headers = vec![("host", host)];
        headers.extend(header);
        let answer = client.send(method, path, &headers, b"").await.unwrap();
        assert_eq!(answer.status, 200, "{host}{path}");
        let hit = (0..6)
            .find(|index| origins[*index].received() > before[*index])
            .unwrap();
        assert_eq!(names[hit], expected, "{method} {host}{path}");
    }
    let answer = client
        .send("GET", "/a?b", &[("host", "old.example.com")], b"")
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.header("location")),
        (308, "https://old.example.com/a?b")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backend_sees_who_asked_and_nothing_a_client_made_up() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let mut client = Http::connect(proxy.web).await;
    let headers = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=6.6.6.6"),
        ("x-request-id", "made-up"),
        ("x-under_score", "1"),
        ("connection", "x-secret"),
        ("x-secret", "1"),
        ("keep-alive", "timeout=5"),
        ("x-mine", "kept"),
    ];
    client
        .send("GET", "/a%2fb?q=1", &headers, b"")
        .await
        .unwrap();
    client.send("POST", "/empty", &[], b"").await.unwrap();
    assert_eq!(
        blue.last().headers["content-length"],
        "0",
        "a POST without a body says so"
    );
    client
        .send("GET", "/a%2fb?q=1", &headers, b"")
        .await
        .unwrap();
    let seen = blue.last();
    let header = |name: &str| {
        seen.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    };
    assert_eq!(seen.uri.path_and_query().unwrap().as_str(), "/a%2fb?q=1");
    assert_eq!(header("host"), proxy.web.to_string());
    assert_eq!(
        (header("x-forwarded-for"), header("x-forwarded-proto")),
        ("127.0.0.1", "http")
    );
    assert_eq!(header("x-forwarded-host"), proxy.web.to_string());
    assert_eq!(header("via"), "1.1 switchback");
    assert_eq!(header("x-mine"), "kept");
    assert_eq!(header("x-request-id").len(), 36);
    assert!(header("traceparent").starts_with("00-"));
    for gone in [
        "forwarded",
        "x-under_score",
        "x-secret",
        "keep-alive",
        "connection",
    ] {
        assert_eq!(header(gone), "", "{gone}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_context_passes_unchanged_and_begins_anew_when_it_is_not_valid() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let other = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let cases: [(&[&str], bool); 4] = [
        (&[valid], true),
        (&[], false),
        (&["00-nonsense"], false),
        (&[valid, other], false),
    ];
    for (sent, passes) in cases {
        let mut headers = vec![("tracestate", "vendor=1")];
        headers.extend(sent.iter().map(|trace| ("traceparent", *trace)));
        let mut client = Http::connect(proxy.web).await;
        client.send("GET", "/", &headers, b"").await.unwrap();
        let seen = blue.last().headers;
        let traces: Vec<&str> = seen
            .get_all("traceparent")
            .iter()
            .map(|trace| trace.to_str().unwrap())
            .collect();
        let [trace] = traces[..] else {
            panic!("{sent:?}: {traces:?}");
        };
        assert_eq!(trace == valid, passes, "{sent:?}: {trace}");
        assert_eq!(trace.len(), 55, "{sent:?}: {trace}");
        assert_ne!(trace, other);
        assert_eq!(seen.contains_key("tracestate"), passes, "{sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cost_of_routing_does_not_depend_on_the_number_of_routes() {
    // A smoke test of size only; instruction counts are kept by the benches.
    let origin = Origin::start().await;
    let mut config = String::from(
        "version: 1\nworkers: 1\nadmin: {address: \"127.0.0.1:0\"}\naccess_log: {format: \"off\"}\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes:\n",
    );
    for number in 0..10_000 {
        config.push_str(&format!(
            "  - {{host: h{}.example.com, path: /p{number}, service: shop}}\n",
            number % 100
        ));
    }
    config.push_str(&format!(
        "services:\n  shop: {{backends: {{only: {{endpoints: [\"{}\"]}}}}}}\n",
        origin.url()
    ));
    let proxy = Proxy::start(&config);
    let mut client = Http::connect(proxy.web).await;
    for number in [0, 4_999, 9_999] {
        let host = format!("h{}.example.com", number % 100);
        let answer = client
            .send("GET", &format!("/p{number}/x"), &[("host", &host)], b"")
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
    }
    let answer = client
        .send("GET", "/p1", &[("host", "h2.example.com")], b"")
        .await
        .unwrap();
    assert_eq!(answer.status, 404);
}

/// A certificate for these names, as files in a directory.
fn certificate(directory: &std::path::Path, file: &str, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(directory.join(format!("{file}.crt")), made.cert.pem()).unwrap();
    std::fs::write(
        directory.join(format!("{file}.key")),
        made.signing_key.serialize_pem(),
    )
    .unwrap();
    made.cert.der().to_vec()
}

/// The certificate a server shows for a name, and the protocol it chose.
async fn shown(
    address: std::net::SocketAddr,
    name: &str,
    alpn: &[&[u8]],
) -> (Vec<u8>, Option<Vec<u8>>) {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .dangerous()
    .with_custom_certificate_verifier(Arc::new(AnyCertificate))
    .with_no_client_auth();
    let mut config = config;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect(
            rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap(),
            stream,
        )
        .await
        .unwrap();
    let session = stream.get_ref().1;
    let leaf = session.peer_certificates().unwrap()[0].to_vec();
    (leaf, session.alpn_protocol().map(<[u8]>::to_vec))
}

#[derive(Debug)]
struct AnyCertificate;

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_is_chosen_by_name_and_replaced_while_running() {
    let origin = Origin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let shop = certificate(directory.path(), "shop", &["shop.test"]);
    let wild = certificate(directory.path(), "wild", &["*.wild.test"]);
    let config = format!("version: 1\nworkers: 2\nadmin: {{address: \"127.0.0.1:0\"}}\naccess_log: {{format: \"off\"}}\nlisteners:
  web:
    address: \"127.0.0.1:0\"
    tls: {{certificates: [{{certificate: shop.crt, key: shop.key}}, {{certificate: wild.crt, key: wild.key}}]}}
routes: [{{service: shop}}]
services: {{shop: {{backends: {{only: {{endpoints: [\"{}\"]}}}}}}}}\n", origin.url());
    std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
    let proxy = Proxy::start_in(directory);
    assert_eq!(
        shown(proxy.web, "shop.test", &[b"h2", b"http/1.1"]).await,
        (shop.clone(), Some(b"h2".to_vec()))
    );
    assert_eq!(
        shown(proxy.web, "a.wild.test", &[b"http/1.1"]).await,
        (wild, Some(b"http/1.1".to_vec()))
    );
    assert_eq!(
        shown(proxy.web, "unknown.test", &[]).await,
        (shop, None),
        "the first serves names that match none"
    );
    let renewed = certificate(proxy.path(), "shop", &["shop.test"]);
    crate::support::eventually_async("the renewed certificate is shown", || async {
        shown(proxy.web, "shop.test", &[]).await.0 == renewed
    })
    .await;
    // Half of a pair changes nothing.
    std::fs::write(proxy.path().join("shop.key"), "rubbish").unwrap();
    let answer = proxy.post("/v1/reload", serde_json::Value::Null).await;
    assert_eq!(
        answer.json()["code"],
        "config_file_refused",
        "{}",
        answer.text()
    );
    assert_eq!(shown(proxy.web, "shop.test", &[]).await.0, renewed);
}
