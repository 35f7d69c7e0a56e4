//! Whatever a client writes, in whatever pieces: either it is refused, or the backend reads exactly the
//! requests that were meant, once each and in order.
//!
//! What was meant is decided by a reader that takes RFC 9112 by the letter and shares no code with the
//! proxy. The backend reads with the same one, so it falls for everything that a lenient proxy would
//! pass on. Requests are generated whole, then made odd: in ways that everybody understands alike, which
//! the proxy may put right, and in ways that two readers understand differently, which it must refuse.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::strict::{self, Fault};
use crate::support::{DEADLINE, HEAD, Proxy};

/// Connections on each run: more where there is time for many runs, which the variable tells.
fn cases() -> u32 {
    if std::env::var_os("SWITCHBACK_RUNS").is_some() {
        20_000
    } else {
        400
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A request, and what is odd about it.
#[derive(Clone, Debug)]
struct Wanted {
    method: &'static str,
    target: &'static str,
    body: Body,
    fields: Vec<&'static str>,
    /// In any case still the same request.
    blemish: Option<Blemish>,
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Length(Vec<u8>),
    /// Size lines, where they are not the plain size, and content.
    Chunks(Vec<(Option<&'static str>, Vec<u8>)>),
}

#[derive(Clone, Debug)]
enum Blemish {
    /// A line ends in LF alone.
    BareLineFeed(usize),
    EmptyLineBefore,
    AbsoluteTarget,
    LengthTwice,
}

/// Lines that everybody, or nobody, or only some understand.
const FIELDS: [&str; 38] = [
    "Accept: */*",
    "X-Empty:",
    "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Cookie: a=b; c=d",
    "TE: trailers, gzip",
    "Connection: keep-alive, X-Hop",
    "Connection: Host, Content-Length, Transfer-Encoding",
    "Connection: close",
    "Keep-Alive: timeout=5",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    "Expect: 100-continue",
    "Trailer: Content-Length",
    "content_length: 3",
    "X-Forwarded-Host: evil.example",
    "Content-Length: 0",
    "Content-Length: 3",
    "Content-Length: 03",
    "Content-Length: +3",
    "Content-Length: 3, 3",
    "Content-Length: 99999999999999999999",
    "Content-Length : 3",
    "Content-Length\t: 3",
    " Content-Length: 3",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: CHUNKED",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding: chunked;a",
    "Transfer-Encoding:\r\n chunked",
    "Transfer_Encoding: chunked",
    "Host: evil.example",
    "X: a\rTransfer-Encoding: chunked",
    "X: a\0b",
    "no colon",
    ": no name",
];

const SIZES: [&str; 12] = [
    "3",
    "03",
    "3;a=b",
    "3 ",
    " 3",
    "0x3",
    "+3",
    "-3",
    "3,",
    "3\n",
    "00000000000000003",
    "fffffffffffffffff",
];

fn wanted() -> impl Strategy<Value = Wanted> {
    let method = select(vec![
        "GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PURGE", "GET ", "G(T",
    ]);
    let target = prop_oneof![
        8 => select(vec!["/", "/a?b=c", "/%2e%2e//x;y", "/a:1@b"]),
        1 => select(vec!["*", "a", "/a b", "/a\tb", "/a#b", "//", "evil.example:80", ""]),
    ];
    let content = || {
        let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec();
        prop_oneof![
            vec(any::<u8>(), 0..12),
            Just(smuggled),
            Just(b"0\r\n\r\n".to_vec())
        ]
    };
    let size = prop_oneof![6 => Just(None), 1 => select(&SIZES[..]).prop_map(Some)];
    let chunk = (size, vec(any::<u8>(), 3..=3));
    let body = prop_oneof![
        3 => Just(Body::None),
        2 => content().prop_map(Body::Length),
        2 => vec(chunk, 0..4).prop_map(Body::Chunks),
    ];
    let fields = prop_oneof![
        2 => vec(select(&FIELDS[..15]), 0..3),
        1 => vec(select(&FIELDS[..]), 0..3),
    ];
    let blemish = prop_oneof![
        6 => Just(None),
        1 => (0..4_usize).prop_map(|line| Some(Blemish::BareLineFeed(line))),
        1 => Just(Some(Blemish::EmptyLineBefore)),
        1 => Just(Some(Blemish::AbsoluteTarget)),
        1 => Just(Some(Blemish::LengthTwice)),
    ];
    (method, target, body, fields, blemish).prop_map(|(method, target, body, fields, blemish)| {
        Wanted {
            method,
            target,
            body,
            fields,
            blemish,
        }
    })
}

impl Wanted {
    /// Whether readers may disagree about where it ends.
    fn is_odd(&self) -> bool {
        let odd_size = match &self.body {
            Body::Chunks(chunks) => chunks.iter().any(|(size, _)| size.is_some()),
            Body::None | Body::Length(_) => false,
        };
        odd_size || !self.fields.iter().all(|field| FIELDS[..15].contains(field))
    }

    /// As it is written, or with its blemish put right.
    fn text(&self, put_right: bool) -> Vec<u8> {
        let blemish = self.blemish.as_ref().filter(|_| !put_right);
        let is_absolute =
            matches!(self.blemish, Some(Blemish::AbsoluteTarget)) && self.target.starts_with('/');
        let line = match (is_absolute, put_right) {
            (true, false) => format!(
                "{} http://meant.example{} HTTP/1.1",
                self.method, self.target
            ),
            _ => format!("{} {} HTTP/1.1", self.method, self.target),
        };
        let host = match (is_absolute, put_right) {
            (true, true) => "Host: meant.example",
            _ => "Host: shop.example",
        };
        let mut lines = vec![line, host.to_owned()];
        lines.extend(self.fields.iter().map(|field| (*field).to_owned()));
        match &self.body {
            Body::None => {}
            Body::Length(content) => {
                let length = format!("Content-Length: {}", content.len());
                lines.extend(matches!(blemish, Some(Blemish::LengthTwice)).then(|| length.clone()));
                lines.push(length);
            }
            Body::Chunks(_) => lines.push("Transfer-Encoding: chunked".into()),
        }
        if put_right {
            // The same length twice is one.
            let lengths = |line: &String| line.starts_with("Content-Length: ");
            let mut seen: Vec<String> = Vec::new();
            lines.retain(|line| {
                let again = lengths(line) && seen.contains(line);
                seen.push(line.clone());
                !again
            });
        }
        lines.push(String::new());
        let mut text = Vec::new();
        if matches!(blemish, Some(Blemish::EmptyLineBefore)) {
            text.extend_from_slice(b"\r\n");
        }
        for (index, line) in lines.iter().enumerate() {
            text.extend_from_slice(line.as_bytes());
            let bare = matches!(blemish, Some(Blemish::BareLineFeed(bare)) if *bare == index);
            text.extend_from_slice(if bare { b"\n" } else { b"\r\n" });
        }
        self.write_body(&mut text);
        text
    }

    fn write_body(&self, text: &mut Vec<u8>) {
        match &self.body {
            Body::None => {}
            Body::Length(content) => text.extend_from_slice(content),
            Body::Chunks(chunks) => {
                for (size, content) in chunks {
                    let plain = format!("{:x}", content.len());
                    text.extend_from_slice(size.unwrap_or(&plain).as_bytes());
                    text.extend_from_slice(b"\r\n");
                    text.extend_from_slice(content);
                    text.extend_from_slice(b"\r\n");
                }
                text.extend_from_slice(b"0\r\n\r\n");
            }
        }
    }
}

/// The requests at the start of some text, and why what follows is none.
fn meant(mut text: &[u8]) -> (Vec<strict::Request>, Option<Fault>) {
    let mut requests = Vec::new();
    while !text.is_empty() {
        match strict::request(text) {
            Ok(request) => {
                text = &text[request.length..];
                requests.push(request);
            }
            Err(fault) => return (requests, Some(fault)),
        }
    }
    (requests, None)
}

/// A backend that takes requests by the letter.
struct Backend {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Result<strict::Request, Fault>>>>,
}

impl Backend {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let record = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let record = record.clone();
                std::thread::spawn(move || serve(stream, &record));
            }
        });
        Self { address, seen }
    }
}

fn serve(mut stream: TcpStream, record: &Mutex<Vec<Result<strict::Request, Fault>>>) {
    let (mut arrived, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(bytes @ 1..) = stream.read(&mut piece) {
        arrived.extend_from_slice(&piece[..bytes]);
        while !arrived.is_empty() {
            match strict::request(&arrived) {
                Err(Fault::Incomplete) => break,
                Err(fault) => {
                    record.lock().unwrap().push(Err(fault));
                    return;
                }
                Ok(request) => {
                    arrived.drain(..request.length);
                    record.lock().unwrap().push(Ok(request));
                    if stream.write_all(ANSWER).is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// The status of the final response at the start of some text, and where it ends.
fn response(text: &[u8]) -> Option<(u16, usize)> {
    let end = text.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
    let status: u16 = head.get(9..12)?.parse().ok()?;
    if status < 200 {
        let (status, length) = response(&text[end..])?;
        return Some((status, end + length));
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(Some(0), |length| length.trim().parse().ok())?;
    (text.len() >= end + length).then_some((status, end + length))
}

/// Writes `text` in pieces; the statuses of what comes back, and whether that was all in time. `enough`:
/// after so many there is nothing to wait for.
fn converse(
    address: SocketAddr,
    text: &[u8],
    pieces: &[usize],
    enough: Option<usize>,
) -> (Vec<u16>, bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut rest = text;
    for size in pieces.iter().cycle() {
        let (piece, after) = rest.split_at(rest.len().min(*size));
        // The proxy may have closed already, which is often the point.
        if piece.is_empty() || stream.write_all(piece).is_err() {
            break;
        }
        std::thread::yield_now();
        rest = after;
    }
    let (mut statuses, mut arrived, mut buffer) = (Vec::new(), Vec::new(), [0; 4096]);
    loop {
        while let Some((status, length)) = response(&arrived) {
            arrived.drain(..length);
            statuses.push(status);
        }
        if enough.is_some_and(|enough| statuses.len() >= enough) {
            return (statuses, true);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return (statuses, true),
            Ok(bytes) => arrived.extend_from_slice(&buffer[..bytes]),
            Err(error) => return (statuses, error.kind() != std::io::ErrorKind::WouldBlock),
        }
    }
}

/// One client connection.
fn check(
    proxy: &Proxy,
    backend: &Backend,
    requests: &[Wanted],
    pieces: &[usize],
) -> Result<(), TestCaseError> {
    let text = |put_right| {
        requests
            .iter()
            .flat_map(|request| request.text(put_right))
            .collect::<Vec<u8>>()
    };
    let (meant, fault) = meant(&text(true));
    let waits = matches!(fault, None | Some(Fault::Incomplete));
    let (statuses, in_time) = converse(
        proxy.web,
        &text(false),
        pieces,
        waits.then_some(meant.len()),
    );
    let seen = std::mem::take(&mut *backend.seen.lock().unwrap());
    let wrong = |why: &str| {
        let written = text(false).escape_ascii().to_string();
        let reason = format!(
            "{why}: {written}\nfault: {fault:?}, answers: {statuses:?}\nmeant: {meant:#?}\nseen: {seen:#?}"
        );
        Err(TestCaseError::fail(reason))
    };
    if !in_time {
        return wrong("neither answered nor closed");
    }
    if seen.len() > meant.len() {
        return wrong("the backend got more than was meant");
    }
    for (meant, seen) in meant.iter().zip(&seen) {
        let Ok(seen) = seen else {
            return wrong("the backend got what is no request");
        };
        let same = (&meant.method, &meant.target, meant.host(), &meant.body)
            == (&seen.method, &seen.target, seen.host(), &seen.body);
        if !same {
            return wrong("the backend got another request than was meant");
        }
    }
    let answered = statuses.iter().filter(|status| **status == 200).count();
    if answered != seen.len() {
        return wrong("answers and requests differ");
    }
    if statuses
        .iter()
        .any(|status| *status >= 500 && !matches!(status, 501 | 505))
    {
        return wrong("the client is not told that it is its own fault");
    }
    let closes = |request: &Wanted| request.fields.contains(&"Connection: close");
    let is_plain = fault.is_none()
        && requests.iter().all(|request| {
            let allowed = |field: &&str| FIELDS[..15].contains(field);
            request.fields.iter().all(allowed) && request.blemish.is_none() && !closes(request)
        });
    let is_plain = is_plain && meant.iter().all(|request| request.target.starts_with(b"/"));
    if is_plain && !requests.iter().any(|r| r.target.contains('#')) && seen.len() < meant.len() {
        return wrong("what is in order did not arrive");
    }
    Ok(())
}

#[test]
fn backend_reads_exactly_the_requests_that_were_meant_or_they_are_refused() {
    let backend = Backend::start();
    let proxy = Proxy::start(&format!(
        "{HEAD}services:
  shop:
    backends:
      blue: {{endpoints: [\"http://{}\"]}}
",
        backend.address
    ));
    let mut runner = TestRunner::new(Config {
        cases: cases(),
        failure_persistence: None,
        ..Config::default()
    });
    let requests = vec(wanted(), 1..4).prop_map(|mut requests| {
        // Bytes that are put right must not be the content of what comes before them.
        if requests.iter().any(Wanted::is_odd) {
            requests
                .iter_mut()
                .for_each(|request| request.blemish = None);
        }
        requests
    });
    let connection = (requests, vec(1_usize..200, 1..6));
    runner
        .run(&connection, |(requests, pieces)| {
            check(&proxy, &backend, &requests, &pieces)
        })
        .unwrap();
}
