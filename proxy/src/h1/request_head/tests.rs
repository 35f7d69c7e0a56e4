use super::*;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 2048,
    line_bytes: 256,
    count: 10,
    uri_bytes: 128,
};

fn parse_one(text: &[u8]) -> Result<RequestHead, RequestError> {
    let mut head = RequestHead::default();
    let length = parse(text, &mut 0, &LIMITS, &mut head)?;
    assert!(
        length.is_some(),
        "partial: {}",
        String::from_utf8_lossy(text)
    );
    Ok(head)
}

fn accepted(text: &str) -> RequestHead {
    parse_one(text.as_bytes()).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn status(text: &[u8]) -> u16 {
    match parse_one(text) {
        Ok(_) => panic!("accepted: {}", String::from_utf8_lossy(text)),
        Err(error) => error.status(),
    }
}

#[test]
fn request_line_and_host_are_read() {
    let head = accepted("GET /a?b=c HTTP/1.1\r\nHost: Example.com:8080\r\n\r\n");
    assert_eq!(head.method(), b"GET");
    assert_eq!(head.target(), b"/a?b=c");
    assert_eq!(head.path(), b"/a");
    assert_eq!(head.authority(), Some(&b"Example.com:8080"[..]));
    assert_eq!(
        (head.version, head.framing, head.close),
        (Version::H11, Framing::Empty, false)
    );
}

#[test]
fn absolute_form_replaces_host() {
    for (target, authority, path) in [
        ("http://a.example/x?y", "a.example", "/x?y"),
        ("HTTPS://a.example:1", "a.example:1", "/"),
        ("http://a.example?y", "a.example", "/?y"),
        ("http://[::1]/", "[::1]", "/"),
    ] {
        let head = accepted(&format!("GET {target} HTTP/1.1\r\nHost: b.example\r\n\r\n"));
        assert_eq!(head.authority(), Some(authority.as_bytes()), "{target}");
        assert_eq!(head.target(), path.as_bytes(), "{target}");
        assert_eq!(head.method(), b"GET");
    }
}

#[test]
fn connection_facts_are_read() {
    let keep = "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
    for (text, close) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n",
            true,
        ),
        ("GET / HTTP/1.0\r\n\r\n", true),
        (keep, false),
    ] {
        assert_eq!(accepted(text).close, close, "{text}");
    }
    let head = accepted(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, x-bar\r\nTE: gzip, trailers\r\n\r\n",
    );
    assert!(head.te_trailers);
    for (name, listed) in [("foo", true), ("X-Bar", true), ("te", false)] {
        assert_eq!(
            crate::head::is_listed(&head.listed, &head.fields, name.as_bytes()),
            listed,
            "{name}"
        );
    }
}

#[test]
fn body_framing_is_read() {
    let post =
        |field: &str| accepted(&format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n")).framing;
    assert_eq!(post("Content-Length: 5"), Framing::Length(5));
    assert_eq!(
        post("Content-Length: 5\r\nContent-Length: 5"),
        Framing::Length(5)
    );
    assert_eq!(post("Content-Length: 0"), Framing::Length(0));
    assert_eq!(post("X: y"), Framing::Empty);
    assert_eq!(post("Transfer-Encoding: chunked"), Framing::Streamed);
    assert_eq!(post("transfer-encoding:\tChunked "), Framing::Streamed);
}

#[test]
fn only_a_clean_websocket_handshake_is_an_upgrade() {
    let handshake = |method: &str, fields: &str| {
        format!("{method} / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n\r\n")
    };
    let good = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket";
    assert!(accepted(&handshake("GET", good)).websocket);
    for (method, fields) in [
        ("POST", good),
        ("GET", "Connection: Upgrade\r\nUpgrade: h2c"),
        ("GET", "Connection: Upgrade\r\nUpgrade: h2c, websocket"),
        ("GET", "Upgrade: websocket"),
        (
            "GET",
            "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket",
        ),
        (
            "GET",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c",
        ),
        (
            "GET",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3",
        ),
    ] {
        assert!(
            !accepted(&handshake(method, fields)).websocket,
            "{method} {fields}"
        );
    }
    let old = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\r\n";
    assert_eq!(status(old.as_bytes()), 400);
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
#[test]
fn bad_requests_are_refused_with_their_status() {
    for (expected, text) in [
        // Framing that could be read in two ways.
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n",
        ),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        ),
        (400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        // Lines.
        (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n"),
        // Hosts.
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
        // Request lines.
        (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (400, "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /\r\nHost: a\r\n\r\n"),
        (400, "GET / http/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/11\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        (405, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
    ] {
        assert_eq!(status(text.as_bytes()), expected, "{text:?}");
    }
}

#[test]
fn bare_line_feeds_are_read_but_never_copied_on() {
    let head = accepted("GET / HTTP/1.1\nHost: a\nX: y\n\n");
    let last = head.fields.list().len() - 1;
    assert_eq!(head.fields.lines(last..last + 1), None);
    assert_eq!(head.fields.value(&head.fields.list()[last]), b"y");
}

#[test]
fn limits_hold_at_the_limit_and_not_before() {
    let uri = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "u".repeat(bytes - 1));
    assert!(parse_one(uri(128).as_bytes()).is_ok());
    assert_eq!(status(uri(129).as_bytes()), 414);
    let line = |bytes: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n",
            "v".repeat(bytes - 5)
        )
    };
    assert!(parse_one(line(256).as_bytes()).is_ok());
    assert_eq!(status(line(257).as_bytes()), 431);
    let count = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "a: b\r\n".repeat(count - 1)
        )
    };
    assert!(parse_one(count(10).as_bytes()).is_ok());
    assert_eq!(status(count(11).as_bytes()), 431);
}

#[test]
fn oversized_heads_are_refused_before_their_end() {
    let partial = |text: Vec<u8>| parse(&text, &mut 0, &LIMITS, &mut RequestHead::default());
    let uri = |bytes: usize| [b"GET /", &vec![b'u'; bytes - 1][..]].concat();
    assert!(matches!(partial(uri(128)), Ok(None)));
    assert!(matches!(partial(uri(145)), Err(RequestError::UriTooLong)));
    let line = |bytes: usize| [b"GET / HTTP/1.1\r\nx: ", &vec![b'v'; bytes - 3][..]].concat();
    assert!(matches!(partial(line(256)), Ok(None)));
    assert!(matches!(
        partial(line(257)),
        Err(RequestError::HeadersTooLarge(_))
    ));
}

#[test]
fn drip_fed_heads_give_the_same_result() {
    let text = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let mut head = RequestHead::default();
    let mut seen = 0;
    let complete = (1..=text.len()).find_map(|arrived| {
        parse(&text[..arrived], &mut seen, &LIMITS, &mut head)
            .unwrap_or_else(|e| panic!("{e}"))
            .map(|n| (arrived, n))
    });
    assert_eq!(complete, Some((text.len() - 3, text.len() - 3)));
    assert_eq!(head.framing, Framing::Length(3));
}

#[test]
fn authorities_are_checked() {
    for good in [
        "a",
        "a:80",
        "a:",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8080",
        "a_b.c",
        "xn--p1ai",
    ] {
        assert!(is_authority(good.as_bytes()), "{good}");
    }
    for bad in [
        "a%20b", "a%g", "", ":80", "a:8x", "a:123456", "[::1", "[x]", "[::1]x", "a@b", "a b",
        "a\\b", "\u{e9}", "a:1:2", "a?",
    ] {
        assert!(!is_authority(bad.as_bytes()), "{bad}");
    }
}
