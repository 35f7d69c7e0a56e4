//! Whatever comes over HTTP/2 and is accepted leaves over HTTP/1 as exactly one request, with the same
//! method, target, host and body.
//!
//! The input is text: `METHOD SP scheme SP authority SP path`, lines `name:value`, an empty line, the
//! content, and after another empty line lines of trailers. What the types of `http` refuse, hyper has
//! refused before.
#![no_main]

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri};
use libfuzzer_sys::fuzz_target;
use switchback_fuzz::{shown, strict};
use switchback_proxy::fuzz::{Peer, forward_h2};

/// Head, content and trailers, divided as the file's head says.
fn read(input: &[u8]) -> Option<(Parts, &[u8], HeaderMap)> {
    let (head, rest) = split(input, b"\n\n");
    let (content, late) = split(rest, b"\n\n");
    let mut lines = head.split(|byte| *byte == b'\n');
    let line: Vec<&[u8]> = lines.next()?.splitn(4, |byte| *byte == b' ').collect();
    let [method, scheme, authority, path] = line[..] else { return None };
    let mut uri = Uri::builder().path_and_query(path);
    if !authority.is_empty() {
        uri = uri.scheme(scheme).authority(authority);
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method).ok()?;
    *request.uri_mut() = uri.build().ok()?;
    *request.headers_mut() = map(lines)?;
    let trailers = map(late.split(|byte| *byte == b'\n'))?;
    Some((request.into_parts().0, content, trailers))
}

fn split<'a>(input: &'a [u8], at: &[u8]) -> (&'a [u8], &'a [u8]) {
    let found = input.windows(at.len()).position(|window| window == at);
    found.map_or((input, b""), |found| (&input[..found], &input[found + at.len()..]))
}

fn map<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = split(line, b":");
        map.append(HeaderName::from_lowercase(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(map)
}

fuzz_target!(|input: &[u8]| {
    let Some((parts, content, trailers)) = read(input) else { return };
    let peer = Peer { address: "192.0.2.1", is_trusted: input.len() % 2 == 0, mirrored: false };
    let Some(sent) = forward_h2(&parts, content, &trailers, peer) else { return };
    let seen = strict::request(&sent).unwrap_or_else(|fault| panic!("{fault:?}: {}", shown(&sent)));
    assert_eq!(seen.length, sent.len(), "more than one request: {}", shown(&sent));
    assert_eq!(seen.method, parts.method.as_str().as_bytes(), "{}", shown(&sent));
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    assert_eq!(seen.target, target.as_bytes(), "{}", shown(&sent));
    let host = parts.headers.get("host").map(HeaderValue::as_bytes);
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    assert_eq!(Some(seen.host()), authority.or(host), "{}", shown(&sent));
    let announced = parts.headers.get("content-length").map(HeaderValue::as_bytes);
    match announced {
        None => assert_eq!(seen.body, content, "{}", shown(&sent)),
        Some(announced) => {
            // The same number; zeros in front of it do not travel on.
            let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
            let sent_on = seen.values("content-length").next().expect("announced");
            assert_eq!(number(announced), number(sent_on), "{}", shown(&sent));
            assert!(content.starts_with(&seen.body), "{}", shown(&sent));
        }
    }
});
