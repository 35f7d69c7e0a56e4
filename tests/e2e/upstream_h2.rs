//! Endpoints over HTTP/2, frame by frame: resets, GOAWAY and what must not be passed on. Requests are counted
//! where they arrive: what may have been processed is never sent again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::eventually_async;
use crate::support::frames::{
    ACK, DATA, END_STREAM, GOAWAY, H2, HEADERS, PREFACE, SETTINGS, block, frame, headers, request,
    reset, settings,
};
use crate::support::wire::{Edge, none_wrong, status};

/// What an endpoint sends when a request arrives, given its number and its stream.
type Script = fn(usize, u32) -> Vec<u8>;

/// An endpoint that follows a script.
struct Endpoint {
    address: SocketAddr,
    /// The streams on which requests arrived, by connection.
    seen: Arc<Mutex<Vec<(usize, u32)>>>,
    script: Arc<Mutex<Script>>,
    accepting: JoinHandle<()>,
}

impl Endpoint {
    async fn start(script: Script) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(script));
        let (noted, followed) = (seen.clone(), script.clone());
        let accepting = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            let mut number = 0;
            while let Ok((stream, _)) = socket.accept().await {
                open.spawn(serve(stream, number, noted.clone(), followed.clone()));
                number += 1;
            }
        });
        Self {
            address,
            seen,
            script,
            accepting,
        }
    }

    /// Forgets what it has seen, and follows another script from now on.
    fn follow(&self, script: Script) {
        self.seen.lock().unwrap().clear();
        *self.script.lock().unwrap() = script;
    }

    fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }

    fn received(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    mut stream: tokio::net::TcpStream,
    connection: usize,
    seen: Arc<Mutex<Vec<(usize, u32)>>>,
    script: Arc<Mutex<Script>>,
) {
    let mut preface = [0; PREFACE.len()];
    if stream.read_exact(&mut preface).await.is_err() {
        return;
    }
    let _ = stream.write_all(&settings(&[(3, 100)])).await;
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).await.is_err() {
            return;
        }
        let id = u32::from_be_bytes(head[5..].try_into().unwrap());
        if head[3] == SETTINGS && head[4] & ACK == 0 {
            let _ = stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await;
        }
        if head[3] == HEADERS {
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.push((connection, id));
                seen.len() - 1
            };
            let script = *script.lock().unwrap();
            let answer = script(number, id);
            let closes = answer.ends_with(CLOSE);
            let answer = answer.strip_suffix(CLOSE).unwrap_or(&answer);
            let _ = stream.write_all(answer).await;
            if closes {
                return;
            }
        }
    }
}

/// At the end of what is sent: the connection is closed after it.
const CLOSE: &[u8] = b"(and closes)";

fn ok(stream: u32) -> Vec<u8> {
    let head = headers(stream, false, &[(":status", "200")]);
    [head, frame(DATA, END_STREAM, stream, b"ok")].concat()
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(
        GOAWAY,
        0,
        0,
        &[last.to_be_bytes(), code.to_be_bytes()].concat(),
    )
}

async fn ask(edge: &Edge, method: &str) -> String {
    let mut wire = edge.plain().await;
    let request = format!(
        "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
    );
    wire.write(request.as_bytes()).await;
    wire.rest().await.expect("the connection ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_is_sent_again_only_if_it_was_certainly_not_processed() {
    let cases: &[(&str, &str, Script, &str, usize)] = &[
        (
            "refused stream",
            "POST",
            |n, id| if n == 0 { reset(id, 7) } else { ok(id) },
            "200",
            2,
        ),
        (
            "stream above the last of a GOAWAY",
            "POST",
            |n, id| if n == 0 { goaway(id - 1, 0) } else { ok(id) },
            "200",
            2,
        ),
        (
            "stream that a GOAWAY lets finish",
            "POST",
            |_, id| [goaway(id, 0), ok(id)].concat(),
            "200",
            1,
        ),
        (
            "internal error",
            "POST",
            |n, id| if n == 0 { reset(id, 2) } else { ok(id) },
            "502",
            1,
        ),
        (
            "cancelled",
            "POST",
            |n, id| if n == 0 { reset(id, 8) } else { ok(id) },
            "502",
            1,
        ),
        (
            "no error",
            "POST",
            |n, id| if n == 0 { reset(id, 0) } else { ok(id) },
            "502",
            1,
        ),
        (
            "GOAWAY that may include it, then the end",
            "POST",
            |n, id| {
                if n == 0 {
                    [&goaway(id, 0), CLOSE].concat()
                } else {
                    ok(id)
                }
            },
            "502",
            1,
        ),
        (
            "the end",
            "POST",
            |n, id| if n == 0 { CLOSE.to_vec() } else { ok(id) },
            "502",
            1,
        ),
        (
            "protocol error",
            "POST",
            |n, id| {
                if n == 0 {
                    [&goaway(id, 1), CLOSE].concat()
                } else {
                    ok(id)
                }
            },
            "502",
            1,
        ),
        (
            "internal error of a safe method",
            "GET",
            |n, id| if n == 0 { reset(id, 2) } else { ok(id) },
            "200",
            2,
        ),
        ("always refused", "POST", |_, id| reset(id, 7), "502", 2),
    ];
    let mut wrong = Vec::new();
    let endpoint = Endpoint::start(|_, id| ok(id)).await;
    // Three attempts may be made again whatever share that is of all.
    let edges = [(); 2].map(|()| Edge::start(&endpoint.url(), "workers: 1", "", ""));
    for (number, (name, method, script, wanted, deliveries)) in cases.iter().enumerate() {
        endpoint.follow(*script);
        let edge = &edges[usize::from(number > 2)];
        let answer = ask(edge, method).await;
        let found = (status(&answer), endpoint.received());
        if found != (*wanted, *deliveries) {
            wrong.push(format!(
                "{name}: {found:?} instead of {wanted} and {deliveries}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Responses that must not be passed on as complete.
const BROKEN: &[(&str, Script)] = &[
    ("no status", |_, id| headers(id, true, &[("x", "y")])),
    ("two statuses", |_, id| {
        headers(id, true, &[(":status", "200"), (":status", "204")])
    }),
    ("status that is no number", |_, id| {
        headers(id, true, &[(":status", "ok")])
    }),
    ("status above 599", |_, id| {
        headers(id, true, &[(":status", "600")])
    }),
    ("status below 100", |_, id| {
        headers(id, true, &[(":status", "099")])
    }),
    ("101", |_, id| headers(id, true, &[(":status", "101")])),
    ("pseudo-header after a field", |_, id| {
        headers(id, true, &[("x", "y"), (":status", "200")])
    }),
    ("upper case", |_, id| {
        headers(id, true, &[(":status", "200"), ("X", "y")])
    }),
    ("connection", |_, id| {
        headers(id, true, &[(":status", "200"), ("connection", "close")])
    }),
    ("transfer-encoding", |_, id| {
        headers(
            id,
            true,
            &[(":status", "200"), ("transfer-encoding", "chunked")],
        )
    }),
    ("line end in a value", |_, id| {
        headers(id, true, &[(":status", "200"), ("x", "y\r\nset-cookie: z")])
    }),
    ("NUL in a value", |_, id| {
        headers(id, true, &[(":status", "200"), ("x", "y\u{0}")])
    }),
    ("two lengths", |_, id| {
        [
            headers(
                id,
                false,
                &[
                    (":status", "200"),
                    ("content-length", "2"),
                    ("content-length", "3"),
                ],
            ),
            frame(DATA, END_STREAM, id, b"ok"),
        ]
        .concat()
    }),
    ("length that is no number", |_, id| {
        [
            headers(id, false, &[(":status", "200"), ("content-length", "+2")]),
            frame(DATA, END_STREAM, id, b"ok"),
        ]
        .concat()
    }),
    ("less than announced", |_, id| {
        [
            headers(id, false, &[(":status", "200"), ("content-length", "3")]),
            frame(DATA, END_STREAM, id, b"ok"),
        ]
        .concat()
    }),
    ("more than announced", |_, id| {
        [
            headers(id, false, &[(":status", "200"), ("content-length", "1")]),
            frame(DATA, END_STREAM, id, b"ok"),
        ]
        .concat()
    }),
    ("reset in the middle", |_, id| {
        [
            headers(id, false, &[(":status", "200")]),
            frame(DATA, 0, id, b"o"),
            reset(id, 2),
        ]
        .concat()
    }),
    ("reset without an error in the middle", |_, id| {
        [
            headers(id, false, &[(":status", "200")]),
            frame(DATA, 0, id, b"o"),
            reset(id, 0),
        ]
        .concat()
    }),
    ("the end in the middle", |_, id| {
        [
            &headers(id, false, &[(":status", "200")]),
            &frame(DATA, 0, id, b"o")[..],
            CLOSE,
        ]
        .concat()
    }),
    ("data before the head", |_, id| {
        frame(DATA, END_STREAM, id, b"ok")
    }),
    ("header block that cannot be read", |_, id| {
        frame(HEADERS, 5, id, b"\x80")
    }),
    ("pushed response", |_, id| {
        frame(
            5,
            4,
            id,
            &[&[0, 0, 0, 2][..], &block(&request("GET", &[]))].concat(),
        )
    }),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_h2_answers_are_refused_or_cut() {
    let mut wrong = Vec::new();
    let endpoint = Endpoint::start(|_, id| ok(id)).await;
    let edge = Edge::start(&endpoint.url(), "workers: 1", "", "");
    for (name, script) in BROKEN {
        endpoint.follow(*script);
        let answer = ask(&edge, "POST").await;
        let cut = answer.is_empty()
            || !(answer.ends_with("0\r\n\r\n")
                || answer.ends_with("\r\n\r\nok")
                || answer.ends_with("\r\n\r\n"));
        if !(status(&answer) == "502" || cut) {
            wrong.push(format!("{name} over HTTP/1: {answer:?}"));
        }
        let mut client = H2::start(edge.plain().await, &[]).await;
        client.send(&headers(1, false, &request("POST", &[]))).await;
        client.send(&frame(DATA, END_STREAM, 1, b"x")).await;
        let answer = client.answer(1).await;
        if !(answer == Ok(502)
            || answer
                .as_ref()
                .is_err_and(|error| error.starts_with("reset")))
        {
            wrong.push(format!("{name} over HTTP/2: {answer:?}"));
        }
        if endpoint.received() != 2 {
            wrong.push(format!("{name}: {} deliveries", endpoint.received()));
        }
    }
    none_wrong(BROKEN.len(), &wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_h2_endpoints_are_limited_like_others() {
    let endpoint = Endpoint::start(|number, id| {
        let mut fields = vec![(":status", "200")];
        fields.extend([("x", "y"); 11].iter().take(10 + number));
        headers(id, true, &fields)
    })
    .await;
    let edge = Edge::start(
        &endpoint.url(),
        "workers: 1",
        "",
        "limits: {response_header_count: 10}",
    );
    assert_eq!(status(&ask(&edge, "POST").await), "200");
    assert_eq!(status(&ask(&edge, "POST").await), "502");
    assert_eq!(edge.hits("response_header_count").await, 1);
}

/// The `grpc-status` of a response that is all head.
async fn grpc_status(edge: &Edge, more: &[(&str, &str)]) -> String {
    let fields = [
        &[("content-type", "application/grpc"), ("te", "trailers")][..],
        more,
    ]
    .concat();
    let stream = tokio::net::TcpStream::connect(edge.proxy.web)
        .await
        .unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut call = http::Request::post("http://a.test/pkg.Service/Call");
    for (name, value) in fields {
        call = call.header(name, value);
    }
    let body = http_body_util::Full::new(bytes::Bytes::from_static(b"\0\0\0\0\0"));
    let response = sender.send_request(call.body(body).unwrap());
    let response = tokio::time::timeout(crate::support::DEADLINE, response)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    response.headers()["grpc-status"]
        .to_str()
        .unwrap()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_callers_are_told_in_grpc_what_went_wrong() {
    for (name, script, limits, more, wanted) in [
        ("reset", (|_, id| reset(id, 2)) as Script, "", &[][..], "14"),
        (
            "nothing in time",
            |_, _| Vec::new(),
            "limits: {upstream_response_timeout: 200ms}",
            &[],
            "4",
        ),
        (
            "nothing before the caller's deadline",
            |_, _| Vec::new(),
            "",
            &[("grpc-timeout", "200m")],
            "4",
        ),
        (
            "a body too large",
            |_, id| ok(id),
            "limits: {request_body_bytes: 1B}",
            &[],
            "8",
        ),
    ] {
        let endpoint = Endpoint::start(script).await;
        let edge = Edge::start(&endpoint.url(), "workers: 1", "", limits);
        assert_eq!(grpc_status(&edge, more).await, wanted, "{name}");
        assert!(endpoint.received() <= 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadline_of_a_caller_is_no_failure_of_the_backend() {
    let endpoint = Endpoint::start(|_, _| Vec::new()).await;
    let edge = Edge::start(&endpoint.url(), "workers: 1", "", "");
    for _ in 0..3 {
        assert_eq!(grpc_status(&edge, &[("grpc-timeout", "100m")]).await, "4");
    }
    // The caller has its answer a moment before the request is over.
    eventually_async("nothing is in flight", || async {
        edge.proxy.service().await["backends"]["only"]["in_flight"] == 0
    })
    .await;
    let service = edge.proxy.service().await;
    assert_eq!(service["backends"]["only"]["failures"], 0, "{service}");
}
