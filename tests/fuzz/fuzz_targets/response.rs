//! Whatever our codec accepts as a response to a GET, in whatever pieces it comes, hyper's client must
//! understand in the same way.
#![no_main]

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use switchback_fuzz::{pieces, shown};
use switchback_proxy::fuzz::{Message, Reading, response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Status, fields and body as hyper sees them; the body is missing if it broke off.
type Seen = (u16, Vec<(Vec<u8>, Vec<u8>)>, Option<Vec<u8>>);

fn hyper_reads(input: &[u8]) -> Option<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(async {
        let (mut ours, theirs) = tokio::io::duplex(input.len() + (64 << 10));
        let handshake = hyper::client::conn::http1::Builder::new()
            .max_headers(512)
            .handshake(TokioIo::new(theirs))
            .await;
        let (mut sender, connection) = handshake.ok()?;
        let exchange = async {
            let request = Request::get("/").header("host", "a").body(Empty::<Bytes>::new()).expect("valid");
            let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
            let fields = parts.headers.iter();
            let fields = fields.map(|(name, value)| (name.as_str().into(), value.as_bytes().into()));
            let fields = fields.collect();
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            Some((parts.status.as_u16(), fields, body))
        };
        let origin = async {
            let mut buffer = [0; 1024];
            let _ = ours.read(&mut buffer).await;
            let _ = ours.write_all(input).await;
            let _ = ours.shutdown().await;
            std::future::pending::<()>().await;
        };
        let (mut connection, mut origin, mut exchange) = (Box::pin(connection), Box::pin(origin), Box::pin(exchange));
        std::future::poll_fn(move |cx| {
            let _ = origin.as_mut().poll(cx);
            let ended = connection.as_mut().poll(cx).is_ready();
            let outcome = exchange.as_mut().poll(cx);
            if ended && outcome.is_pending() {
                return std::task::Poll::Ready(None);
            }
            outcome
        })
        .await
    })
}

fuzz_target!(|input: &[u8]| {
    let whole = response(input, &[]);
    match (&whole, response(input, &pieces(input))) {
        // In pieces it takes longer to see that it is none.
        (Reading::Refused, Reading::Incomplete) => {}
        (whole, in_pieces) => assert_eq!(*whole, in_pieces, "{}", shown(input)),
    }
    let Reading::Message(Message { start, mut fields, body, .. }) = whole else { return };
    // Informational responses are followed by others, which hyper waits for.
    if start[0].starts_with(b"1") {
        return;
    }
    let Some((status, mut their_fields, their_body)) = hyper_reads(input) else {
        panic!("accepted by us, refused by hyper: {:?}", String::from_utf8_lossy(input));
    };
    assert_eq!(start[0], status.to_string().into_bytes(), "status");
    fields.sort();
    their_fields.sort();
    assert_eq!(fields, their_fields, "fields");
    if let Some(their_body) = their_body {
        assert_eq!(body, their_body, "body");
    }
});
