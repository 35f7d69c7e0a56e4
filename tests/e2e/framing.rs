//! Requests that two readers could understand differently: refused, closed, and never forwarded.
//!
//! Every case is sent in plain text and over TLS. Beside the status, what counts is that the connection
//! ends (what follows on it cannot be trusted) and that no byte of it reached the origin.

use futures_util::future::join_all;

use crate::support::wire::{Edge, RawOrigin, Wire, none_wrong, status};

/// The head of a POST with these lines, and what follows it.
fn post(lines: &str, rest: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{rest}")
}

fn chunks(rest: &str) -> String {
    post("Transfer-Encoding: chunked", rest)
}

fn get(line: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n")
}

/// Anything that would be a request of its own if the end were found elsewhere.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// The lengths and codings of bodies.
fn bodies() -> Vec<(&'static str, String)> {
    let mut cases: Vec<(&str, String)> = Vec::new();
    for length in [
        "Content-Length: +1",
        "Content-Length: -1",
        "Content-Length: 0x1",
        "Content-Length: 1_0",
        "Content-Length: 1 0",
        "Content-Length: 1,",
        "Content-Length: ,1",
        "Content-Length: 1, 1",
        "Content-Length: 1, 2",
        "Content-Length: 1;",
        "Content-Length: 1.0",
        "Content-Length: 1e0",
        "Content-Length:",
        "Content-Length: one",
        "Content-Length: \"1\"",
        "Content-Length: 9223372036854775808",
        "Content-Length: 18446744073709551617",
        "Content-Length: 99999999999999999999999999",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1\r\nContent-Length: 01",
        "Content-Length: 1\r\nX: y\r\ncontent-length: 0",
        "Content-Length : 1",
        "Content-Length\t: 1",
        "Content-Length: 1\r\n Content-Length: 2",
        "Content-Length: 5\u{b}",
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 1",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    ] {
        cases.push(("400", post(length, &format!("0\r\n\r\n{SMUGGLED}"))));
    }
    for coding in [
        "gzip",
        "xchunked",
        "chunkedx",
        "gzip, chunked",
        "chunked, gzip",
        "chunked;q=1",
        "\"chunked\"",
        "chunk\u{e9}d",
        "cow",
    ] {
        let line = format!("Transfer-Encoding: {coding}");
        cases.push(("501", post(&line, &format!("0\r\n\r\n{SMUGGLED}"))));
    }
    cases.push((
        "400",
        format!(
            "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
        ),
    ));
    cases.push((
        "400",
        format!("GET /x HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
    ));
    cases
}

/// Chunks that are none. The head is valid, so the origin may see a request without an end; never two.
fn broken_chunks() -> Vec<String> {
    let large = "x".repeat(4097);
    let many = format!("1;{}\r\nx\r\n", "y".repeat(4000)).repeat(5);
    let trailers = "t: v\r\n".repeat(65);
    let trailer_bytes = format!("t: {}\r\n", "v".repeat(17 << 10));
    [
        "g\r\nx\r\n0\r\n\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        " 1\r\nx\r\n0\r\n\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "1\t\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "1_\r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\rx\r\n0\r\n\r\n",
        "1\r\r\nx\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "3\r\nx\r\n0\r\n\r\n",
        "00000000000000001\r\nx\r\n0\r\n\r\n",
        "10000000000000000\r\nx\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nx\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nx\r\n0\r\n\r\n",
        "8000000000000000\r\nx\r\n0\r\n\r\n",
        "\r\nx\r\n0\r\n\r\n",
        ";a\r\nx\r\n0\r\n\r\n",
        "1;a\nb\r\nx\r\n0\r\n\r\n",
        "1;a\rb\r\nx\r\n0\r\n\r\n",
        "1;a\u{0}b\r\nx\r\n0\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nspace : v\r\n\r\n",
        "0\r\n t: v\r\n\r\n",
        "0\r\nt: v\r\n folded\r\n\r\n",
        "0\r\nt: v\u{0}\r\n\r\n",
        "0\r\nt: a\rb\r\n\r\n",
        "0\r\nt: v\nu: w\r\n\r\n",
        &format!("1;{large}\r\nx\r\n0\r\n\r\n"),
        &format!("{many}0\r\n\r\n"),
        &format!("0\r\n{trailers}\r\n"),
        &format!("0\r\n{trailer_bytes}\r\n"),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Lines, names and hosts.
fn lines() -> Vec<(&'static str, String)> {
    let mut cases: Vec<(&str, String)> = [
        "X : y",
        "X\t: y",
        " X: y",
        "\tX: y",
        "X: y\r\n folded",
        "X: y\r\n\tfolded",
        "X: a\rb",
        "X: a\u{0}b",
        "X: a\u{1}b",
        "X: a\u{7f}b",
        "X\u{0}: y",
        "X(y): z",
        "X y: z",
        "X/y: z",
        "X\u{e9}: y",
        "\u{b}X: y",
        ": y",
        "no colon",
        "Host: a",
        "Host: b",
        "host: a",
        "Host : b",
    ]
    .map(|line| ("400", get(line)))
    .to_vec();
    for host in [
        "", "a b", "a\tb", "a/b", "a@b", "u:p@a", "a?b", "a#b", "a\\b", "a,b c", "a:b", "a:-1",
        "a:65536", "a:123456", "[::1", "::1", "[x]", "[::1]x", "[::1]:x", "a%00b", "http://a",
        "a:1:2", "\u{e9}", ":80", "a b", "<a>", "a\"b",
    ] {
        cases.push(("400", format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")));
    }
    cases.push(("400", "GET / HTTP/1.1\r\n\r\n".into()));
    cases.push(("400", "GET / HTTP/1.1\r\nX: y\r\n\r\n".into()));
    cases.push(("400", "GET / HTTP/1.1\r\n Host: a\r\n\r\n".into()));
    cases.push(("400", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".into()));
    cases
}

fn request_lines() -> Vec<(&'static str, String)> {
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let mut cases: Vec<(&str, String)> = [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a HTTP/1.1 HTTP/1.1",
        "GET /a\u{0}b HTTP/1.1",
        "GET /a\u{1}b HTTP/1.1",
        "GET /a\u{7f}b HTTP/1.1",
        "GET /a\u{e9}b HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET a HTTP/1.1",
        "GET ?a HTTP/1.1",
        "GET a.test:80 HTTP/1.1",
        "GET * HTTP/1.1",
        "POST * HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http:/a HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http://u@a/ HTTP/1.1",
        "GET http://a b/ HTTP/1.1",
        "GET http://a:x/ HTTP/1.1",
        "G@T / HTTP/1.1",
        "G(T / HTTP/1.1",
        "G\u{e9}T / HTTP/1.1",
        "/ HTTP/1.1",
        "GET /",
        "GET",
        "GET / HTTP",
        "GET / HTTP/",
        "GET / HTTP/1",
        "GET / HTTP/1.",
        "GET / HTTP/1.1x",
        "GET / HTTP/11",
        "GET / HTTP/1,1",
        "GET / http/1.1",
        "GET / HTTPS/1.1",
        "GET / XHTTP/1.1",
        "GET / HTTP/ 1.1",
        "GET / HTTP/01.1",
    ]
    .map(|text| ("400", line(text)))
    .to_vec();
    for version in ["0.9", "1.2", "1.9", "2.0", "3.0"] {
        cases.push(("505", line(&format!("GET / HTTP/{version}"))));
    }
    for target in ["a:80", "a.test:443", "/", "http://a/"] {
        cases.push(("405", line(&format!("CONNECT {target} HTTP/1.1"))));
    }
    cases
}

/// Sends a case and a second request behind it; what is wrong with the answer, if anything is.
async fn check(mut wire: Wire, wanted: &str, request: &str, closes: bool) -> Option<String> {
    // Characters stand for bytes, so that a case can hold any byte.
    let bytes: Vec<u8> = request
        .chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap())
        .collect();
    wire.write(&bytes).await;
    let about = &request[..request.floor_char_boundary(120)];
    if !closes {
        let answer = wire.until("\r\n\r\n").await;
        return (status(&answer) != wanted)
            .then(|| format!("{} instead of {wanted}: {about:?}", status(&answer)));
    }
    wire.write(SMUGGLED.as_bytes()).await;
    let Some(answer) = wire.rest().await else {
        return Some(format!("stays open: {about:?}"));
    };
    let found = status(&answer);
    let answers = answer.matches("HTTP/1.1 ").count();
    (found != wanted || answers != 1)
        .then(|| format!("{found} ({answers} answers) instead of {wanted}: {about:?}"))
}

async fn check_all(edge: &Edge, cases: &[(&str, String)], closes: bool) {
    let mut wrong: Vec<String> = Vec::new();
    for some in cases.chunks(16) {
        let plain = some.iter().map(|(wanted, request)| async move {
            check(edge.plain().await, wanted, request, closes).await
        });
        wrong.extend(join_all(plain).await.into_iter().flatten());
        let secure = some.iter().map(|(wanted, request)| async move {
            check(edge.secure(false).await, wanted, request, closes).await
        });
        wrong.extend(join_all(secure).await.into_iter().flatten());
    }
    none_wrong(cases.len(), &wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_and_codings_in_doubt_are_refused_and_never_forwarded() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    check_all(&edge, &bodies(), true).await;
    assert_eq!(origin.requests(), Vec::<String>::new());
    assert!(edge.serves().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_lines_and_hosts_are_refused_and_never_forwarded() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    check_all(&edge, &lines(), true).await;
    assert_eq!(origin.requests(), Vec::<String>::new());
    assert!(edge.serves().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_request_lines_are_refused_and_never_forwarded() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let (connect, others): (Vec<_>, Vec<_>) = request_lines()
        .into_iter()
        .partition(|(wanted, _)| *wanted == "405");
    check_all(&edge, &others, true).await;
    check_all(&edge, &connect, false).await;
    assert_eq!(origin.requests(), Vec::<String>::new());
    assert!(edge.serves().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_chunks_end_the_connection_and_smuggle_nothing() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let cases: Vec<(&str, String)> = broken_chunks()
        .iter()
        .map(|rest| ("400", chunks(rest)))
        .collect();
    check_all(&edge, &cases, true).await;
    let seen = origin.requests();
    let smuggled = seen.iter().filter(|request| request.contains("/smuggled"));
    assert_eq!(smuggled.count(), 0, "{seen:?}");
    let complete = seen.iter().filter(|request| request.ends_with("0\r\n\r\n"));
    assert_eq!(complete.count(), 0, "{seen:?}");
    assert!(edge.serves().await);
}
