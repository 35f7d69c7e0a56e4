//! What an endpoint gets of a client's fields, and a client of an endpoint's, is what a second opinion
//! on the rules says: nothing that concerns one connection only, nothing that `Connection` lists, no
//! name with an underscore, what this proxy says about the client itself, everything else in order.
//!
//! The first byte chooses who sends, the rest are field lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchback_fuzz::strict::{self, Fields};
use switchback_fuzz::shown;
use switchback_proxy::fuzz::{Peer, forward, shown as shown_to_client};

/// Of one connection, or written anew for the next.
const NEVER_PASS: [&str; 11] = [
    "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te",
    "transfer-encoding", "upgrade", "x-forwarded-for", "x-request-id",
];

/// Passes only from those whose word is believed, whatever `Connection` lists.
const OF_TRUSTED: [&str; 3] = ["forwarded", "x-forwarded-host", "x-forwarded-proto"];

/// Written by this proxy, in this order.
const OWN: [&str; 12] = [
    "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id", "traceparent", "via",
    "x-switchback-mirrored", "te", "connection", "upgrade", "content-length", "transfer-encoding",
];

fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_lowercase()
}

/// Every field that `Connection` lists. `close` is an option there; no field may have that name (it is reserved),
/// and one that has it passes.
fn listed(fields: &Fields) -> Vec<String> {
    let lists = fields.iter().filter(|(name, _)| lower(name) == "connection");
    let names = lists.flat_map(|(_, value)| value.split(|byte| *byte == b','));
    names.map(|name| lower(name.trim_ascii())).filter(|name| name != "close").collect()
}

fn passing(request: &strict::Request, peer: Peer<'_>, traced_anew: bool) -> Fields {
    let listed = listed(&request.fields);
    let passes = |name: &str| match name {
        "traceparent" => !traced_anew,
        "tracestate" if traced_anew => false,
        "x-switchback-mirrored" => peer.is_trusted && !peer.mirrored,
        name if OF_TRUSTED.contains(&name) => peer.is_trusted,
        name if NEVER_PASS.contains(&name) || name.contains('_') => false,
        name => !listed.iter().any(|listed| listed == name),
    };
    let fields = request.fields.iter().filter(|(name, _)| passes(&lower(name)));
    fields.cloned().collect()
}

fn check_request(input: &[u8], peer: Peer<'_>) {
    let (Some(sent), Ok(request)) = (forward(input, peer), strict::request(input)) else { return };
    let seen = strict::request(&sent).unwrap_or_else(|fault| panic!("{fault:?}: {}", shown(&sent)));
    assert_eq!(seen.length, sent.len(), "{}", shown(&sent));
    assert_eq!(seen.fields[0].0, b"host", "{}", shown(&sent));
    let at = seen.fields.iter().rposition(|(name, _)| name == b"x-forwarded-for").expect("always said");
    let (passed, own) = (&seen.fields[1..at], &seen.fields[at..]);
    let traced_anew = own.iter().any(|(name, _)| name == b"traceparent");
    assert_eq!(passed, passing(&request, peer, traced_anew), "{} from {}", shown(&sent), shown(input));
    let mut places = own.iter().map(|(name, _)| OWN.iter().position(|own| own.as_bytes() == name));
    assert!(places.all(|place| place.is_some()), "{}", shown(&sent));
    assert!(own.iter().zip(&own[1..]).all(|(one, next)| {
        let place = |name: &[u8]| OWN.iter().position(|own| own.as_bytes() == name);
        place(&one.0) < place(&next.0)
    }), "{}", shown(&sent));
    for (name, allowed) in [("te", &["trailers"][..]), ("connection", &["te", "upgrade"]), ("upgrade", &["websocket"])] {
        assert!(seen.values(name).all(|value| allowed.iter().any(|text| text.as_bytes() == value)), "{}", shown(&sent));
    }
}

fn check_response(fields: &[u8]) {
    let input = [b"HTTP/1.1 200 OK\r\n", fields, b"\r\n\r\n"].concat();
    let as_request = [b"GET / HTTP/1.1\r\nHost: h\r\n", fields, b"\r\n\r\n"].concat();
    // The strict reader knows requests only; the lines are the same.
    let (Some(sent), Ok(said)) = (shown_to_client(&input), strict::request(&as_request)) else { return };
    let seen = [b"GET / HTTP/1.1\r\nHost: h\r\n", &sent[..], b"\r\n"].concat();
    let seen = strict::request(&seen).unwrap_or_else(|fault| panic!("{fault:?}: {}", shown(&sent)));
    let listed = listed(&said.fields);
    let of_one_connection = [
        "connection", "content-length", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade",
    ];
    let passes = |name: &str| !of_one_connection.contains(&name) && !listed.iter().any(|listed| listed == name);
    let expected = said.fields[1..].iter().filter(|(name, _)| passes(&lower(name)));
    assert_eq!(seen.fields[1..], expected.cloned().collect::<Fields>(), "{}", shown(&input));
}

fuzz_target!(|input: &[u8]| {
    let Some((flags, fields)) = input.split_first() else { return };
    let peer = Peer { address: "192.0.2.1", is_trusted: flags & 1 != 0, mirrored: flags & 2 != 0 };
    check_request(&[b"GET / HTTP/1.1\r\nHost: h\r\n", fields, b"\r\n\r\n"].concat(), peer);
    check_response(fields);
});
