//! Attacks on the admin API, as bytes: what is refused, how, and that nothing has changed after it.

use serde_json::{Value, json};

use crate::support::{Http, Load, Origin, Protocol, Proxy, RawClient};

async fn proxy() -> (Origin, Origin, Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    (blue, green, proxy)
}

/// Attack, statuses that refuse it, and the request. `HOST` and `TOKEN` stand for the right ones.
const ATTACKS: &[(&str, &[u16], &str)] = &[
    (
        "no token",
        &[401],
        "GET /v1/services HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    (
        "token in the query",
        &[401],
        "GET /v1/services?token=TOKEN HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    (
        "token as a cookie",
        &[401],
        "GET /v1/services HTTP/1.1\r\nHost: HOST\r\nCookie: token=TOKEN\r\n\r\n",
    ),
    (
        "token by another scheme",
        &[401],
        "GET /v1/services HTTP/1.1\r\nHost: HOST\r\nAuthorization: Basic TOKEN\r\n\r\n",
    ),
    (
        "two tokens",
        &[401],
        "GET /v1/services HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nAuthorization: Bearer x\r\n\r\n",
    ),
    (
        "rebound name",
        &[421],
        "GET /v1/services HTTP/1.1\r\nHost: attacker.example\r\nAuthorization: Bearer TOKEN\r\n\r\n",
    ),
    (
        "rebound name with the right port",
        &[421],
        "GET /livez HTTP/1.1\r\nHost: attacker.example:PORT\r\n\r\n",
    ),
    (
        "other port",
        &[421],
        "GET /livez HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n",
    ),
    ("no host", &[400, 421], "GET /livez HTTP/1.1\r\n\r\n"),
    (
        "two hosts",
        &[400, 421],
        "GET /livez HTTP/1.1\r\nHost: HOST\r\nHost: attacker.example\r\n\r\n",
    ),
    (
        "target for another host",
        &[400, 421],
        "GET http://attacker.example/livez HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    (
        "host of another than the target",
        &[400, 421],
        "GET http://HOST/livez HTTP/1.1\r\nHost: attacker.example\r\n\r\n",
    ),
    (
        "foreign origin",
        &[403],
        "POST /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nOrigin: https://attacker.example\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    ),
    (
        "opaque origin",
        &[403],
        "POST /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nOrigin: null\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "cross-site fetch",
        &[403],
        "POST /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "same-site fetch",
        &[403],
        "POST /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nSec-Fetch-Site: same-site\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "preflight",
        &[401, 403],
        "OPTIONS /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nOrigin: https://attacker.example\r\nAccess-Control-Request-Method: POST\r\n\r\n",
    ),
    (
        "form",
        &[415],
        "POST /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nforce=1",
    ),
    (
        "text that is JSON",
        &[415],
        "PUT /v1/services/shop/weights HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nContent-Type: text/plain\r\nContent-Length: 36\r\n\r\n{\"weights\": {\"blue\": 0, \"green\": 1}}",
    ),
    (
        "write by GET",
        &[405],
        "GET /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nX-HTTP-Method-Override: POST\r\n\r\n",
    ),
    (
        "dot segments",
        &[400],
        "GET /v1/x/../services HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\n\r\n",
    ),
    (
        "dot segments to where no token is needed",
        &[400],
        "GET /docs/../v1/services HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    (
        "encoded dot segments",
        &[400],
        "GET /docs/%2e%2E/v1/services HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    (
        "encoded slash",
        &[400],
        "GET /v1%2Fservices HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\n\r\n",
    ),
    (
        "encoded NUL",
        &[400],
        "GET /v1/services%00 HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\n\r\n",
    ),
    (
        "path parameter",
        &[400],
        "GET /livez;/v1/services HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    (
        "double slash",
        &[400],
        "GET //v1/services HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\n\r\n",
    ),
    (
        "path that is asked for before the token",
        &[400],
        "GET /v1/../v1/services HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    (
        "unknown path without a token",
        &[401],
        "GET /nothing HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    (
        "two lengths",
        &[400],
        "POST /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "one coding twice",
        &[400],
        "POST /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "one coding in two lines",
        &[400],
        "POST /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "empty coding before the one",
        &[400],
        "POST /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "another coding below",
        &[501],
        "POST /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "tunnel",
        &[405],
        "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\n\r\n",
    ),
    (
        "more body than is allowed, announced only",
        &[413],
        "POST /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nContent-Type: application/json\r\nContent-Length: 262145\r\n\r\n",
    ),
    (
        "field name with a space",
        &[400],
        "POST /v1/services/shop/rollback HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\nContent-Length : 0\r\n\r\n",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attacks_are_refused_and_change_nothing() {
    let (_blue, _green, proxy) = proxy().await;
    proxy.weights(50, 50).await;
    let before = proxy.service().await;
    let (host, port) = (proxy.admin.to_string(), proxy.admin.port().to_string());
    for (attack, expected, request) in ATTACKS {
        let request = request
            .replace("HOST", &host)
            .replace("PORT", &port)
            .replace("TOKEN", &proxy.token);
        let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        // From an address of its own each, so that the limit on failures does not hide the reason.
        let answer = raw(&proxy, &request).await;
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        assert!(
            status.is_some_and(|status| expected.contains(&status)),
            "{attack}: {answer}"
        );
        let lower = answer.to_ascii_lowercase();
        assert!(
            !lower.contains("access-control-allow"),
            "{attack}: {answer}"
        );
        assert!(
            !answer.contains(&proxy.token),
            "{attack}: the token is repeated"
        );
        // The answers that are our own are never kept and never guessed at.
        if lower.contains("content-type:") {
            assert!(
                lower.contains("cache-control: no-store"),
                "{attack}: {answer}"
            );
            assert!(
                lower.contains("x-content-type-options: nosniff"),
                "{attack}: {answer}"
            );
        }
    }
    let after = proxy.service().await;
    for key in ["revision", "weights", "stable", "blocked"] {
        assert_eq!(after[key], before[key], "{key} has changed");
    }
    assert!(
        !proxy.log().contains(&proxy.token),
        "the token is in the log"
    );
}

async fn raw(proxy: &Proxy, request: &str) -> String {
    use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let source = [127, 0, 1, NEXT.fetch_add(1, SeqCst)];
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket
        .bind((std::net::IpAddr::from(source), 0).into())
        .unwrap();
    let stream = socket.connect(proxy.admin).await.unwrap();
    let mut client = RawClient { stream };
    client.write(request.as_bytes()).await;
    client.read_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_of_the_api_have_the_limits_of_listeners() {
    let (_blue, _green, proxy) = proxy().await;
    let ask = async |path: &str, fields: &str| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{fields}\r\n",
            proxy.admin
        );
        let answer = raw(&proxy, &head).await;
        answer.get(9..12).unwrap_or("closed").to_owned()
    };
    let path = |bytes: usize| format!("/livez?{}", "x".repeat(bytes - 7));
    let line = |bytes: usize| format!("x: {}\r\n", "y".repeat(bytes - 5));
    for (fields, expected) in [
        (String::new(), "200"),
        (line(16 << 10), "200"),
        (line((16 << 10) + 1), "431"),
        (line(16 << 10).repeat(4), "431"),
    ] {
        assert_eq!(ask("/livez", &fields).await, expected, "{}", fields.len());
    }
    assert_eq!(ask(&path(8 << 10), "").await, "200");
    assert_eq!(ask(&path((8 << 10) + 1), "").await, "414");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_lead_inside_or_back_are_refused() {
    let (_blue, green, proxy) = proxy().await;
    let (web, admin) = (proxy.web.port(), proxy.admin.port());
    let set = async |endpoint: String| {
        let body = json!({"version": "9", "endpoints": [endpoint]});
        proxy
            .api("PUT", "/v1/services/shop/backends/green", body)
            .await
    };
    for endpoint in [
        "http://169.254.169.254".to_owned(),
        "http://[fe80::1]:80".to_owned(),
        "http://[::ffff:169.254.169.254]:80".to_owned(),
        "http://0.0.0.0:80".to_owned(),
        "http://[::]:80".to_owned(),
        "http://224.0.0.1:80".to_owned(),
        "http://255.255.255.255:80".to_owned(),
        "http://8.8.8.8:53".to_owned(),
        "http://[2001:4860:4860::8888]:53".to_owned(),
        format!("http://127.0.0.1:{web}"),
        format!("http://127.0.0.1:{admin}"),
        format!("http://[::ffff:127.0.0.1]:{admin}"),
    ] {
        let answer = set(endpoint.clone()).await;
        assert_eq!(answer.status, 422, "{endpoint}: {}", answer.text());
        assert_eq!(answer.json()["code"], "endpoint_refused", "{endpoint}");
    }
    for endpoint in [
        "file:///etc/passwd",
        "gopher://127.0.0.1:1",
        "http://user:secret@127.0.0.1:1",
        "http://127.0.0.1:1/path",
        "http://2130706433:80",
        "http://0x7f.1:80",
        "http://127.1:80",
    ] {
        let answer = set(endpoint.to_owned()).await;
        assert!(
            matches!(answer.status, 400 | 422),
            "{endpoint}: {}",
            answer.text()
        );
        assert!(!answer.text().contains("secret"), "{}", answer.text());
    }
    assert_eq!(
        set(green.url()).await.status,
        200,
        "an ordinary one is taken"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_of_the_file_that_lead_back_are_refused() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let everywhere = "web: {address: \"0.0.0.0:0\"}";
    let config = crate::support::blue_green(&blue.url(), &green.url(), "")
        .replace("web: {address: \"127.0.0.1:0\"}", everywhere);
    let config = format!("{config}\nofrep: {{address: \"127.0.0.1:0\"}}\n");
    let proxy = Proxy::start(&config);
    let (web, admin) = (proxy.web.port(), proxy.admin.port());
    let flags = proxy.run_file()["ofrep"].clone();
    let flags: std::net::SocketAddr = flags.as_str().unwrap().parse().unwrap();
    for endpoint in [
        format!("http://127.0.0.1:{web}"),
        format!("h2c://127.0.0.9:{web}"),
        format!("http://[::ffff:127.0.0.1]:{web}"),
        format!("http://127.0.0.1:{admin}"),
        format!("http://{flags}"),
        format!("http://[::ffff:127.0.0.1]:{}", flags.port()),
    ] {
        proxy.write_config(&config.replace(&green.url(), &endpoint));
        let refused = proxy.post("/v1/reload", Value::Null).await;
        assert_eq!(refused.json()["code"], "endpoint_refused", "{endpoint}");
        let detail = refused.json()["detail"].to_string();
        assert!(
            detail.contains("services.shop.backends.green.endpoints"),
            "{detail}"
        );
    }
    // Nor does a process start that way. What is known without one is found by `check` as well.
    let fixed = config.replace("0.0.0.0:0", &format!("0.0.0.0:{}", green.address.port()));
    std::fs::write(proxy.path().join("circle.yaml"), fixed).unwrap();
    let (code, out, _) = proxy.cli(&["check", "circle.yaml"]);
    assert_eq!(code, 78, "{out}");
    proxy.write_config(&config);
    assert_eq!(proxy.post("/v1/reload", Value::Null).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_that_resolves_to_where_it_may_not_gets_no_endpoint() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = crate::support::blue_green(&blue.url(), &green.url(), "");
    let allowing = "admin: {address: \"127.0.0.1:0\", endpoint_allow: [10.0.0.0/8]}";
    let proxy = Proxy::start(&config.replace("admin: {address: \"127.0.0.1:0\"}", allowing));
    let endpoint = format!("http://localhost:{}", green.address.port());
    let body = json!({"version": "9", "endpoints": [endpoint]});
    let answer = proxy
        .api("PUT", "/v1/services/shop/backends/green", body)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    crate::support::eventually("its address is refused", || {
        proxy.log().contains("points where it may not")
    });
    let service = proxy.service().await;
    let endpoints = &service["backends"]["green"]["endpoints"];
    assert!(
        endpoints
            .as_array()
            .unwrap()
            .iter()
            .all(|e| e["address"].is_null()),
        "{endpoints}"
    );
    let switched = proxy
        .post("/v1/services/shop/switch", json!({"to": "green"}))
        .await;
    assert_eq!(switched.json()["code"], "target_unhealthy");
    assert_eq!(green.received(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_give_way_to_whoever_has_a_token() {
    const PLACES: usize = 64;
    let (_blue, _green, proxy) = proxy().await;
    let mut silent = Vec::new();
    for _ in 0..PLACES {
        silent.push(RawClient::connect(proxy.admin).await);
    }
    proxy.weights(50, 50).await;
    proxy.weights(100, 0).await;
    let mut open = 0;
    for client in &mut silent {
        let mut byte = [0];
        open += usize::from(client.stream.try_read(&mut byte).is_err());
    }
    // Had they only been waited for, all would have been closed by now.
    assert!(open >= PLACES / 2, "{open} of {PLACES} are still open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn neither_side_starves_the_other() {
    let (_blue, green, proxy) = proxy().await;
    proxy.weights(50, 50).await;
    let load = Load::start(proxy.web, Protocol::Http1, 32);
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (admin, token) = (proxy.admin, proxy.token.clone());
            tokio::spawn(async move {
                let bearer = format!("Bearer {token}");
                let headers = [("authorization", bearer.as_str())];
                let mut client = Http::connect(admin).await;
                for _ in 0..50 {
                    let answer = client.send("GET", "/v1/services", &headers, b"").await;
                    assert_eq!(answer.unwrap().status, 200);
                }
            })
        })
        .collect();
    let more = load.done() + 1_000;
    crate::support::eventually("traffic goes on", || load.done() > more);
    let rolled_back = proxy.post("/v1/services/shop/rollback", Value::Null).await;
    assert_eq!(rolled_back.status, 200, "{}", rolled_back.text());
    let begun = rolled_back.json()["begun"]["green"].as_u64();
    for reader in readers {
        reader.await.unwrap();
    }
    let done = load.finish().await;
    assert_eq!(Some(green.received()), begun);
    println!("{done} requests beside 400 reads and a rollback: 0 failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_tells_who_did_what_and_that_nobody_has_changed_it() {
    let (_blue, _green, proxy) = proxy().await;
    proxy.weights(50, 50).await;
    proxy
        .post("/v1/services/shop/rollback", json!({"reason": "broken"}))
        .await;
    let audit = proxy.get("/v1/audit").await;
    let last = &audit["entries"][0];
    assert_eq!(
        (
            &last["number"],
            &last["by"],
            &last["action"],
            &last["reason"]
        ),
        (
            &json!(2),
            &json!("admin"),
            &json!("rollback"),
            &json!("broken")
        )
    );
    assert_eq!(
        last["before"]["shop"]["weights"],
        json!({"blue": 50, "green": 50})
    );
    assert_eq!(
        last["after"]["shop"]["weights"],
        json!({"blue": 100, "green": 0})
    );
    let (code, out, err) = proxy.cli(&["audit", "--verify"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("2 entries hold, 1 to 2"), "{out}");
    let check = proxy.get("/v1/audit/check").await;
    let hash = check["hash"].as_str().unwrap();
    assert!(proxy.log().contains(hash), "the log has the hash too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusal_reaches_who_sends_a_body_with_what_is_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (_blue, _green, proxy) = proxy().await;
    let body = vec![b' '; 200_000];
    let host = proxy.admin;
    let length = body.len();
    let head = format!(
        "PUT /v1/services/shop/weights HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    // Fewer than make an address wait.
    for _ in 0..8 {
        let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // As slowly as a refusal could be quick.
        for piece in body.chunks(20_000) {
            stream.write_all(piece).await.expect("it is taken");
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{read:?}: {answer}");
        read.expect("the connection ends in order");
    }
}
