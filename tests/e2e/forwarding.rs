//! What an origin gets to see of a request, byte for byte: generated framing, no hop-by-hop fields,
//! nothing that a client could only have invented.

use crate::support::frames::{H2, headers, request};
use crate::support::wire::{Edge, RawOrigin, none_wrong, status};

/// A request, what must be in what the origin sees, and what must not. All in lower case.
struct Case {
    request: &'static str,
    has: &'static [&'static str],
    lacks: &'static [&'static str],
}

const fn case(
    request: &'static str,
    has: &'static [&'static str],
    lacks: &'static [&'static str],
) -> Case {
    Case {
        request,
        has,
        lacks,
    }
}

const CASES: &[Case] = &[
    case(
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &[
            "get / http/1.1\r\n",
            "\r\nhost: a\r\n",
            "\r\nvia: 1.1 switchback\r\n",
            "\r\nx-forwarded-for: 127.0.0.1\r\n",
            "\r\nx-forwarded-proto: http\r\n",
            "\r\nx-forwarded-host: a\r\n",
        ],
        &["content-length", "transfer-encoding", "connection"],
    ),
    case(
        "GET http://b.test/p?q HTTP/1.1\r\nHost: a\r\n\r\n",
        &["get /p?q http/1.1\r\n", "\r\nhost: b.test\r\n"],
        &["host: a\r\n", "http://"],
    ),
    case(
        "GET http://b.test HTTP/1.1\r\nHost: a\r\n\r\n",
        &["get / http/1.1\r\n", "\r\nhost: b.test\r\n"],
        &[],
    ),
    case(
        "GET HTTP://b.test?q HTTP/1.1\r\nHost: a\r\n\r\n",
        &["get /?q http/1.1\r\n"],
        &[],
    ),
    case(
        "OPTIONS http://a HTTP/1.1\r\nHost: b.test\r\n\r\n",
        &["options * http/1.1\r\n", "\r\nhost: a\r\n"],
        &["b.test"],
    ),
    case(
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        &["options * http/1.1\r\n"],
        &[],
    ),
    case(
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        &["get / http/1.1\r\n"],
        &[],
    ),
    case(
        "GET / HTTP/1.0\r\n\r\n",
        &["get / http/1.1\r\n", "\r\nhost: "],
        &[],
    ),
    case(
        "GET / HTTP/1.1\nHost: a\nX: y\n\n",
        &["get / http/1.1\r\n", "\r\nhost: a\r\n", "\r\nx: y\r\n"],
        &["y\n\n"],
    ),
    case(
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &["get / http/1.1\r\n"],
        &[],
    ),
    case(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        &["\r\ncontent-length: 3\r\n", "\r\n\r\nabc"],
        &["transfer-encoding"],
    ),
    case(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        &["\r\ncontent-length: 3\r\n", "\r\n\r\nabc"],
        &["content-length: 3\r\ncontent-length"],
    ),
    case(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc",
        &["\r\ncontent-length: 3\r\n"],
        &["003"],
    ),
    case(
        "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        &["\r\ncontent-length: 0\r\n"],
        &["transfer-encoding"],
    ),
    case(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n003;x=y\r\nabc\r\n0;z\r\n\r\n",
        &[
            "\r\ntransfer-encoding: chunked\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
        ],
        &["content-length", "x=y", ";z"],
    ),
    case(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked \r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &["3\r\nabc\r\n0\r\n\r\n"],
        &["content-length"],
    ),
    case(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nHost: evil\r\nTransfer-Encoding: chunked\r\nAuthorization: x\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: x\r\nUpgrade: y\r\nX_Y: z\r\n\r\n",
        &["x-sum: 1\r\n\r\n"],
        &[
            "content-length",
            "evil",
            "authorization",
            "6.6.6.6",
            "upgrade",
            "x_y",
        ],
    ),
    case(
        "DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
        &["delete / ", "\r\n\r\nab"],
        &[],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
        &["\r\ncontent-length: 2\r\n", "\r\n\r\nab"],
        &[],
    ),
    case("PURGE / HTTP/1.1\r\nHost: a\r\n\r\n", &["purge / "], &[]),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Secret, close\r\nX-Secret: 1\r\nX-Kept: 2\r\n\r\n",
        &["x-kept: 2"],
        &["x-secret", "\r\nconnection"],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\n\r\n",
        &[],
        &["keep-alive", "proxy-connection", "te: ", "\r\nconnection"],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers, gzip;q=0.5\r\nConnection: TE\r\n\r\n",
        &["\r\nte: trailers\r\n", "\r\nconnection: te\r\n"],
        &["gzip"],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: host, via, x-forwarded-for, x-forwarded-proto, x-forwarded-host, x-request-id, traceparent\r\n\r\n",
        &[
            "\r\nhost: a\r\n",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            "x-forwarded-host: a",
            "via: 1.1 switchback",
            "x-request-id: ",
            "traceparent: ",
        ],
        &["\r\nconnection"],
    ),
    case(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 3\r\n\r\nabc",
        &["\r\ncontent-length: 3\r\n", "\r\n\r\nabc"],
        &["\r\nconnection"],
    ),
    case(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &["\r\ntransfer-encoding: chunked\r\n"],
        &["\r\nconnection"],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Switchback-Mirrored: 1\r\n\r\n",
        &[
            "\r\nx-forwarded-for: 127.0.0.1\r\n",
            "\r\nx-forwarded-proto: http\r\n",
            "\r\nx-forwarded-host: a\r\n",
        ],
        &["6.6.6.6", "evil", "https", "x-switchback-mirrored"],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 6.6.6.6\r\nContent_Length: 5\r\nA_b: c\r\n\r\n",
        &[],
        &["6.6.6.6", "content_length", "a_b"],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 other\r\n\r\n",
        &["via: 1.0 other", "1.1 switchback"],
        &[],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        &[],
        &["upgrade", "http2-settings"],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n",
        &[],
        &["upgrade"],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        &[],
        &["upgrade"],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        &[],
        &["upgrade:", "\r\nconnection"],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        &[],
        &["upgrade:", "\r\nconnection"],
    ),
    case(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\nab",
        &["\r\ncontent-length: 2\r\n"],
        &["upgrade:"],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nX:\t  padded \t\r\n\r\n",
        &["\r\nx: padded\r\n"],
        &[],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n",
        &["\r\nx: \r\n"],
        &[],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n",
        &["\r\nx: \u{e9}\r\n"],
        &[],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
        &["a=1", "b=2"],
        &[],
    ),
    case(
        "GET /a/../b/./c//d?x=../y HTTP/1.1\r\nHost: a\r\n\r\n",
        &["get /a/../b/./c//d?x=../y "],
        &[],
    ),
    case(
        "GET /%2e%2e/%00;a\\b|{}^`\"<> HTTP/1.1\r\nHost: a\r\n\r\n",
        &["get /%2e%2e/%00;a\\b|{}^`\"<> "],
        &[],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        &[],
        &["expect"],
    ),
    case(
        "GET / HTTP/1.1\r\nHost: A.Test:80\r\n\r\n",
        &["\r\nhost: a.test:80\r\n"],
        &[],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origin_sees_what_was_meant_and_nothing_else() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let mut wrong = Vec::new();
    for case in CASES {
        let before = origin.requests().len();
        let mut wire = edge.plain().await;
        let bytes: Vec<u8> = case
            .request
            .chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap())
            .collect();
        wire.write(&bytes).await;
        let answer = wire.until("ok").await;
        let seen = origin.requests();
        let about = format!("{:?} gave {:?}", case.request, seen.get(before));
        if status(&answer) != "200" || seen.len() != before + 1 {
            wrong.push(format!("{} answered, {about}", status(&answer)));
            continue;
        }
        let text = seen[before].to_lowercase();
        for has in case.has.iter().filter(|has| !text.contains(**has)) {
            wrong.push(format!("without {has:?}: {about}"));
        }
        for lacks in case.lacks.iter().filter(|lacks| text.contains(**lacks)) {
            wrong.push(format!("with {lacks:?}: {about}"));
        }
    }
    none_wrong(CASES.len(), &wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2_requests_become_exactly_one_h1_request() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let mut client = H2::start(edge.secure(true).await, &[]).await;
    let fields = [
        ("cookie", "a=1"),
        ("x-forwarded-for", "6.6.6.6"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("x_y", "z"),
        ("x", "y"),
    ];
    client
        .send(&headers(1, true, &request("GET", &fields)))
        .await;
    assert_eq!(client.answer(1).await, Ok(200));
    let seen = origin.requests().pop().unwrap().to_lowercase();
    for has in [
        "get / http/1.1\r\nhost: a.test\r\n",
        "\r\ncookie: a=1; b=2\r\n",
        "\r\nx-forwarded-for: 127.0.0.1\r\n",
        "\r\nx-forwarded-proto: https\r\n",
        "\r\nte: trailers\r\n",
        "\r\nvia: 2.0 switchback\r\n",
        "\r\nx: y\r\n",
    ] {
        assert!(seen.contains(has), "{has:?} not in {seen:?}");
    }
    assert!(
        !seen.contains("6.6.6.6") && !seen.contains("x_y"),
        "{seen:?}"
    );
    assert!(
        !seen.contains("content-length") && !seen.contains("transfer-encoding"),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn underscores_are_dropped_refused_or_let_through_as_configured() {
    let origin = RawOrigin::start().await;
    for (rule, wanted, passes) in [
        ("drop", "200", false),
        ("reject", "400", false),
        ("allow", "200", true),
    ] {
        let edge = Edge::start(&origin.url(), &format!("underscores: {rule}"), "", "");
        let before = origin.requests().len();
        let mut wire = edge.plain().await;
        wire.write(b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: z\r\nConnection: close\r\n\r\n")
            .await;
        let answer = wire.rest().await.unwrap();
        assert_eq!(status(&answer), wanted, "{rule}");
        let mut client = H2::start(edge.plain().await, &[]).await;
        client
            .send(&headers(1, true, &request("GET", &[("x_y", "z")])))
            .await;
        assert_eq!(
            client.answer(1).await,
            Ok(wanted.parse().unwrap()),
            "{rule}"
        );
        let seen = origin.requests().split_off(before).join("").to_lowercase();
        assert_eq!(
            seen.matches("\r\nx_y: z\r\n").count(),
            if passes { 2 } else { 0 },
            "{rule} {seen}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order_and_bodies_do_not_run_into_each_other() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let mut wire = edge.plain().await;
    wire.write(b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\n\r\nGET /inner HTTP/1.1\r\nHost: smuggled\r\n").await;
    wire.write(b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n25\r\nGET /inner HTTP/1.1\r\nHost: smuggled\r\n\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let answer = wire.rest().await.unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 3, "{answer}");
    let lines: Vec<String> = origin
        .requests()
        .iter()
        .map(|request| request.lines().next().unwrap().to_owned())
        .collect();
    assert_eq!(
        lines,
        ["POST /1 HTTP/1.1", "POST /2 HTTP/1.1", "GET /3 HTTP/1.1"]
    );
}
