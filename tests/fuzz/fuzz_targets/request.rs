//! Whatever our codec accepts as a request, in whatever pieces it comes, two others must understand in
//! the same way: hyper, and a reader that takes RFC 9112 by the letter. What we refuse, they may accept.
//! And what we send on for it must be exactly one request, with the same method, target, host and body.
#![no_main]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use switchback_fuzz::strict::{self, Fault};
use switchback_fuzz::{pieces, shown};
use switchback_proxy::fuzz::{Message, Peer, Reading, forward, request};
use tokio::io::AsyncWriteExt;

/// Start line, fields and body as hyper sees them.
type Seen = (Vec<Vec<u8>>, Vec<(Vec<u8>, Vec<u8>)>, Option<Vec<u8>>);

fn hyper_reads(input: &[u8]) -> Option<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let seen: Arc<Mutex<Option<Seen>>> = Arc::default();
    runtime.block_on(async {
        let (mut ours, theirs) = tokio::io::duplex(input.len() + (64 << 10));
        ours.write_all(input).await.expect("room");
        let seen = seen.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let seen = seen.clone();
            async move {
                let (parts, body) = request.into_parts();
                let start = vec![parts.method.as_str().into(), parts.uri.to_string().into_bytes()];
                let fields = parts.headers.iter();
                let fields = fields.map(|(name, value)| (name.as_str().into(), value.as_bytes().into()));
                let fields = fields.collect();
                let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
                seen.lock().expect("one thread").get_or_insert((start, fields, body));
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let _ = ours.shutdown().await;
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.half_close(true).max_headers(512).keep_alive(false);
        let _ = builder.serve_connection(TokioIo::new(theirs), service).await;
    });
    let seen = seen.lock().expect("one thread").take();
    seen
}

/// Pieces never make another request of the same bytes; they may hide for longer that it is none.
fn check_pieces(input: &[u8], whole: &Reading) {
    let in_pieces = request(input, &pieces(input));
    match (whole, &in_pieces) {
        (Reading::Refused, Reading::Incomplete) => {}
        _ => assert_eq!(*whole, in_pieces, "{}", shown(input)),
    }
}

/// Where we are more lenient than the letter, it is on purpose.
fn check_by_the_letter(input: &[u8], message: &Message) -> Option<strict::Request> {
    match strict::request(input) {
        Ok(theirs) => {
            let Message { start, fields, body, .. } = message;
            assert_eq!((&start[0], &start[1]), (&theirs.method, &theirs.target), "{}", shown(input));
            let lower = theirs.fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
            assert_eq!(*fields, lower.collect::<Vec<_>>(), "{}", shown(input));
            assert_eq!(*body, theirs.body, "{}", shown(input));
            Some(theirs)
        }
        // One line feed for a line end, empty lines before a request, HTTP/1.0, absolute targets, and the
        // same length said twice.
        Err(Fault::BareBreak | Fault::EmptyLine | Fault::Version | Fault::TargetForm | Fault::LengthTwice) => None,
        Err(fault) => panic!("accepted by us, by the letter {fault:?}: {}", shown(input)),
    }
}

/// What goes on is one request, for what was asked.
fn check_forwarded(input: &[u8], message: &Message, theirs: Option<&strict::Request>) {
    let peer = Peer { address: "192.0.2.1", is_trusted: input.len() % 2 == 0, mirrored: false };
    let sent = forward(input, peer).expect("accepted");
    let seen = strict::request(&sent).unwrap_or_else(|fault| panic!("{fault:?}: {}", shown(&sent)));
    assert_eq!(seen.length, sent.len(), "more than one request: {}", shown(&sent));
    assert_eq!((&seen.method, &seen.target), (&message.start[0], &message.start[1]), "{}", shown(&sent));
    assert_eq!(seen.body, message.body, "{}", shown(&sent));
    if let Some(theirs) = theirs {
        assert_eq!(seen.host(), theirs.host(), "{}", shown(&sent));
    }
}

fuzz_target!(|input: &[u8]| {
    let whole = request(input, &[]);
    check_pieces(input, &whole);
    let Reading::Message(message) = whole else { return };
    let theirs = check_by_the_letter(input, &message);
    check_forwarded(input, &message, theirs.as_ref());
    check_with_hyper(input, message);
});

fn check_with_hyper(input: &[u8], message: Message) {
    let Message { start, mut fields, body, .. } = message;
    let target = String::from_utf8_lossy(&start[1]).into_owned();
    // What hyper's URI type does not take, it refuses; and it writes some targets differently.
    let Ok(uri) = target.parse::<http::Uri>() else { return };
    let Some((their_start, mut their_fields, their_body)) = hyper_reads(input) else {
        panic!("accepted by us, refused by hyper: {:?}", String::from_utf8_lossy(input));
    };
    assert_eq!(start[0], their_start[0], "method");
    // Of an absolute target we keep the path: its authority has replaced the host.
    let theirs: http::Uri = String::from_utf8_lossy(&their_start[1]).parse().expect("hyper's own");
    let path = |uri: &http::Uri| uri.path_and_query().map(ToString::to_string);
    assert_eq!(path(&uri), path(&theirs), "target");
    // Content-Length that is repeated identically may be collapsed.
    for fields in [&mut fields, &mut their_fields] {
        fields.sort();
        fields.dedup_by(|one, other| one == other && one.0 == b"content-length");
    }
    assert_eq!(fields, their_fields, "fields");
    assert_eq!(Some(body), their_body, "body");
}
