use std::collections::BTreeMap;

use super::*;
use crate::h1::encode::LineSink;
use crate::h1::facts::HeadLimits;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 4096,
    line_bytes: 4096,
    count: 50,
    uri_bytes: 4096,
};

fn request(fields: &str) -> RequestHead {
    let mut head = RequestHead::default();
    let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    crate::h1::request_head::parse(text.as_bytes(), &mut 0, &LIMITS, &mut head)
        .ok()
        .flatten()
        .unwrap_or_else(|| panic!("{text}"));
    head
}

fn sent_with(fields: &str, trusted: bool, changes: &HeaderChanges) -> String {
    sent_as(fields, trusted, changes, false)
}

fn sent_as(fields: &str, trusted: bool, changes: &HeaderChanges, mirrored: bool) -> String {
    let head = request(fields);
    let ids = Ids {
        request_id: RequestId::from_slice(b"id"),
        trace: UNTOUCHED,
    };
    let policy = RequestPolicy {
        peer: "9.9.9.9",
        peer_is_trusted: trusted,
        secure: true,
        ids: &ids,
        changes,
        flags: None,
        mirrored,
        underscores_pass: false,
        over_h1: true,
    };
    let mut out = Vec::new();
    write_request(&mut LineSink(&mut out), &head, &policy);
    String::from_utf8(out).expect("ascii")
}

/// A trace that travels on as it came.
const UNTOUCHED: Trace = Trace {
    traceparent: None,
    begins: false,
    span: None,
};

const OWN: &str = "x-forwarded-for: 9.9.9.9\r\nx-forwarded-proto: https\r\nx-forwarded-host: h\r\nx-request-id: id\r\nvia: 1.1 switchback\r\n";

#[test]
fn hop_by_hop_fields_do_not_travel_on() {
    let changes = HeaderChanges::default();
    let sent = sent_with(
        "Connection: close, X-Hop, Host, X-Forwarded-For, Content-Length\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
         Proxy-Connection: x\r\nUpgrade: h2c\r\nHTTP2-Settings: y\r\nExpect: 100-continue\r\nA: b\r\nx_y: 1\r\n",
        false,
        &changes,
    );
    assert_eq!(sent, format!("HTTP2-Settings: y\r\nA: b\r\n{OWN}"));
}

#[test]
fn te_keeps_only_trailers() {
    let changes = HeaderChanges::default();
    assert_eq!(
        sent_with("TE: gzip, trailers\r\n", false, &changes),
        format!("{OWN}te: trailers\r\nconnection: te\r\n")
    );
    assert_eq!(sent_with("TE: gzip\r\n", false, &changes), OWN);
}

#[test]
fn strangers_cannot_say_who_the_client_is() {
    let forged = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: evil\r\n\
                  Forwarded: for=1.1.1.1\r\nX-Request-Id: forged\r\n";
    assert_eq!(sent_with(forged, false, &HeaderChanges::default()), OWN);
}

#[test]
fn copies_say_so_and_strangers_cannot() {
    let changes = HeaderChanges::default();
    let claimed = "x-switchback-mirrored: 1\r\n";
    let copy = format!("{OWN}{claimed}");
    assert_eq!(sent_as(claimed, false, &changes, false), OWN);
    assert_eq!(sent_as("", false, &changes, true), copy);
    assert_eq!(sent_as(claimed, false, &changes, true), copy);
    // A copy that a trusted proxy made stays one, also when it is copied again.
    let passed = sent_as(claimed, true, &changes, false);
    assert!(passed.starts_with(claimed), "{passed}");
    let again = sent_as(claimed, true, &changes, true);
    assert_eq!(again.matches(claimed).count(), 1, "{again}");
}

#[test]
fn trusted_proxies_are_believed_and_appended_to() {
    let sent = sent_with(
        "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: http\r\nForwarded: for=1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n",
        true,
        &HeaderChanges::default(),
    );
    assert_eq!(
        sent,
        "X-Forwarded-Proto: http\r\nForwarded: for=1.1.1.1\r\nx-forwarded-for: 1.1.1.1, 2.2.2.2, 9.9.9.9\r\n\
         x-forwarded-host: h\r\nx-request-id: id\r\nvia: 1.1 switchback\r\n"
    );
}

#[test]
fn configured_changes_replace_and_remove() {
    let changes = HeaderChanges {
        set: BTreeMap::from([("x-set".into(), "new".into())]),
        remove: vec!["x-gone".into()],
        ..HeaderChanges::default()
    };
    let sent = sent_with("X-Set: old\r\nX-Gone: 1\r\nX-Kept: 2\r\n", false, &changes);
    assert_eq!(sent, format!("X-Kept: 2\r\n{OWN}x-set: new\r\n"));
}

#[test]
fn ids_are_taken_over_or_made() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let head = request(&format!("X-Request-Id: abc\r\nTraceparent: {trace}\r\n"));
    let trusted = Ids::new(&head, true, 1, None, || [7; 16]);
    assert_eq!(trusted.request_id(), "abc");
    assert_eq!(trusted.trace.traceparent, None);
    let stranger = Ids::new(&head, false, 0x0198_0000_0000, None, || [7; 16]);
    assert_eq!(
        stranger.request_id(),
        "01980000-0000-7707-8707-070707070707"
    );
    let fresh = Ids::new(&request(""), false, 1, None, || [0xab; 16]);
    let expected = *b"00-abababababababababababababababab-abababababababab-00";
    assert_eq!(fresh.trace.traceparent, Some(expected));
}

#[test]
fn invalid_traces_are_restarted() {
    let valid = "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let twice = request(&valid.repeat(2));
    assert!(
        Ids::new(&twice, false, 1, None, || [1; 16]).trace.begins,
        "two are none"
    );
    let head = request("Traceparent: nonsense\r\nTracestate: a=b\r\n");
    let ids = Ids::new(&head, false, 1, None, || [1; 16]);
    assert!(ids.trace.begins);
    assert!(!keeps_request_field(
        &head,
        &RequestPolicy {
            peer: "",
            peer_is_trusted: false,
            secure: false,
            ids: &ids,
            changes: &HeaderChanges::default(),
            flags: None,
            mirrored: false,
            underscores_pass: false,
            over_h1: true,
        },
        &head.fields.list()[2],
    ));
}

#[test]
fn responses_lose_hop_by_hop_fields_and_gain_what_is_exposed() {
    let mut head = ResponseHead::default();
    let text = "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nServer: s\r\nKeep-Alive: 5\r\nContent-Length: 2\r\nA_b: c\r\n\r\n";
    crate::h1::response_head::parse(text.as_bytes(), &mut 0, &LIMITS, false, &mut head)
        .expect("valid");
    let policy = ResponsePolicy {
        expose: Some(("blue", "41")),
        rescued: true,
        no_store: false,
        set_cookie: Some("c=d"),
        set_pin: Some("v=1"),
        changes: None,
    };
    let mut out = Vec::new();
    write_response(&mut LineSink(&mut out), &head, &policy);
    assert_eq!(
        String::from_utf8(out).expect("ascii"),
        "Server: s\r\nA_b: c\r\nx-switchback-backend: blue\r\nx-switchback-version: 41\r\nx-switchback-rescued: 1\r\nset-cookie: c=d\r\nset-cookie: v=1\r\n"
    );
}

#[test]
fn client_address_is_the_last_untrusted_one() {
    let trusted: Vec<IpNet> = [
        "10.0.0.0/8".parse().expect("net"),
        "::1/128".parse().expect("net"),
    ]
    .to_vec();
    let address = |fields: &str, peer: &str| {
        client_address(&request(fields), peer.parse().expect("address"), &trusted).to_string()
    };
    assert_eq!(
        address("X-Forwarded-For: 1.1.1.1\r\n", "9.9.9.9"),
        "9.9.9.9"
    );
    assert_eq!(
        address(
            "X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.2\r\n",
            "10.0.0.1"
        ),
        "1.1.1.1"
    );
    assert_eq!(
        address(
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 10.0.0.3, [2001:db8::1]:5\r\n",
            "::1"
        ),
        "2001:db8::1"
    );
    assert_eq!(
        address("X-Forwarded-For: garbage\r\n", "10.0.0.1"),
        "10.0.0.1"
    );
    assert_eq!(
        address("X-Forwarded-For: 10.0.0.9\r\n", "10.0.0.1"),
        "10.0.0.9"
    );
    assert_eq!(
        address("X-Forwarded-For: 1.1.1.1\r\n", "::ffff:10.0.0.1"),
        "1.1.1.1"
    );
}

#[test]
fn cookies_are_found_by_exact_name() {
    let head = request("Cookie: a=1; sb_user=abc ;b=\r\nCookie: c=3\r\n");
    assert_eq!(cookie(&head, "sb_user"), Some(&b"abc"[..]));
    assert_eq!(cookie(&head, "c"), Some(&b"3"[..]));
    assert_eq!(cookie(&head, "b"), None);
    assert_eq!(cookie(&head, "user"), None);
    assert_eq!(
        affinity_cookie("n", "v", true),
        "n=v; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax; Secure"
    );
}

#[test]
fn what_a_client_says_of_flags_is_replaced() {
    let head = request("X-Flags: a=on\r\nA: b\r\n");
    let ids = Ids {
        request_id: RequestId::from_slice(b"id"),
        trace: UNTOUCHED,
    };
    let policy = RequestPolicy {
        peer: "9.9.9.9",
        peer_is_trusted: true,
        secure: true,
        ids: &ids,
        changes: &HeaderChanges::default(),
        flags: Some(("x-flags", "a=off")),
        mirrored: false,
        underscores_pass: false,
        over_h1: true,
    };
    let mut out = Vec::new();
    write_request(&mut LineSink(&mut out), &head, &policy);
    let sent = String::from_utf8(out).expect("ascii");
    assert_eq!(sent, format!("A: b\r\n{OWN}x-flags: a=off\r\n"));
}

#[test]
fn response_that_no_cache_may_keep_says_so_whatever_else_was_said() {
    let mut head = ResponseHead::default();
    let text = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nExpires: later\r\nSurrogate-Control: x\r\nServer: s\r\n\r\n";
    crate::h1::response_head::parse(text.as_bytes(), &mut 0, &LIMITS, false, &mut head)
        .expect("valid");
    let changes = HeaderChanges {
        set: [("cache-control".to_owned(), "public".to_owned())].into(),
        add: Vec::new(),
        remove: Vec::new(),
    };
    let written = |no_store| {
        let policy = ResponsePolicy {
            no_store,
            changes: Some(&changes),
            ..ResponsePolicy::default()
        };
        let mut out = Vec::new();
        write_response(&mut LineSink(&mut out), &head, &policy);
        String::from_utf8(out).expect("ascii")
    };
    assert_eq!(written(true), "Server: s\r\ncache-control: no-store\r\n");
    assert_eq!(
        written(false),
        "Expires: later\r\nSurrogate-Control: x\r\nServer: s\r\ncache-control: public\r\n"
    );
}
