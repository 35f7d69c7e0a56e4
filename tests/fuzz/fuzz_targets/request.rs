//! Whatever our codec accepts as a request, hyper must understand in the same way: same method, same
//! target, same fields, same body. What we refuse, hyper may accept: we are the stricter ones.
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
use switchback_proxy::fuzz::{Message, Reading, request};
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

fuzz_target!(|input: &[u8]| {
    let Reading::Message(Message { start, mut fields, body, .. }) = request(input) else { return };
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
});
