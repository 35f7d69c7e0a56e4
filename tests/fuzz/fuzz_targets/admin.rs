//! A whole process behind its admin address. Whatever arrives there: every request is answered, never with
//! an error of ours; every refusal says why in JSON; without a token nothing is told and nothing changes;
//! reading changes nothing.
//!
//! The first byte chooses method and token, the first line is the target, the rest is the body.
#![no_main]

use std::cell::OnceCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use switchback_admin::inherit::Inherited;
use switchback_admin::process::{Options, Process};
use switchback_admin::reload::Source;
use switchback_fuzz::shown;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const FILE: &str = r#"
version: 1
admin: {address: "127.0.0.1:0"}
listeners: {web: {address: "127.0.0.1:0"}}
workers: 1
routes: [{service: shop}]
services:
  shop:
    stable: blue
    weights: {blue: 90, green: 10}
    backends:
      blue: {version: "1", endpoints: ["http://127.0.0.1:1"]}
      green: {version: "2", endpoints: ["http://127.0.0.1:2"]}
"#;

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"];

/// What may be seen without a token.
const OPEN: [&str; 7] = ["/", "/livez", "/readyz", "/healthz", "/metrics", "/ui", "/docs"];

/// The same of what begins so: the dashboard, which asks for a token itself, and the documentation.
const OPEN_FILES: [&str; 2] = ["/ui/", "/docs/"];

/// What no path may contain.
const TRICKS: [&str; 7] = ["//", "/./", "/../", ";", "%2f", "%00", "%2e"];

struct Server {
    process: Process,
    token: String,
    _runtime: Runtime,
    _directory: TempDir,
}

thread_local! {
    static SERVER: OnceCell<Server> = const { OnceCell::new() };
}

struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Server {
    fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let memory = Path::new("/dev/shm");
        let directory = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let directory = directory.expect("a directory");
        let config = switchback_config::parse(FILE).config.expect("valid");
        let source = Source { text: FILE.into(), config, warnings: Vec::new() };
        let state_dir = directory.path().join("state");
        let options = Options { source, path: None, state_dir: state_dir.clone(), file_refused: None, predecessor: None, inherited: Inherited::default() };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let process = runtime.block_on(Process::start(options)).expect("a process");
        let token = std::fs::read_to_string(state_dir.join("admin.token")).expect("a token");
        Self { process, token: token.trim().into(), _runtime: runtime, _directory: directory }
    }

    fn address(&self) -> SocketAddr {
        self.process.admin()
    }

    fn ask(&self, method: &str, target: &str, token: Option<&str>, body: &[u8]) -> Response {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address());
        if let Some(token) = token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len()));
        let mut stream = TcpStream::connect(self.address()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
        stream.write_all(head.as_bytes()).expect("it reads");
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        let mut broken = None;
        loop {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
                Ok(bytes) => answer.extend_from_slice(&piece[..bytes]),
            }
            // Events go on for ever.
            if answer.windows(17).any(|text| text == b"text/event-stream") {
                break;
            }
        }
        let end = answer.windows(4).position(|text| text == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer to {method} {target}: {} {broken:?}", shown(&answer)));
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        Response { status, head, body: answer[end + 4..].to_vec() }
    }

    fn revision(&self) -> u64 {
        let services = self.ask("GET", "/v1/services", Some(&self.token), b"");
        let services: Value = serde_json::from_slice(&services.body).expect("JSON");
        services["revision"].as_u64().expect("a revision")
    }
}

fn check(server: &Server, input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (target, body) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    let Some(target) = std::str::from_utf8(target).ok().filter(|target| target.starts_with('/')) else { return };
    // What is no request line is the business of the library's parser.
    if target.parse::<http::Uri>().is_err() || target.contains([' ', '#']) || !target.bytes().all(|b| b.is_ascii_graphic()) {
        return;
    }
    let method = METHODS[usize::from(*choice) % METHODS.len()];
    let token = (choice & 0x80 != 0).then_some(&server.token[..]);
    let reads = matches!(method, "GET" | "HEAD");
    let before = server.revision();
    let response = server.ask(method, target, token, body);
    let after = server.revision();
    assert!(after == before || (!reads && token.is_some()), "{method} {target} changed something");
    assert!(after >= before, "revisions go back");
    let Response { status, head, body } = response;
    assert!(status < 500 || matches!(status, 503 | 507), "{method} {target}: {status} {}", shown(&body));
    let path = target.split('?').next().unwrap_or_default().to_ascii_lowercase();
    if TRICKS.iter().any(|trick| path.contains(trick)) {
        assert_eq!(status, 400, "{method} {target}");
    }
    let is_open = OPEN.contains(&&path[..]) || OPEN_FILES.iter().any(|files| path.starts_with(files));
    if token.is_none() && !is_open {
        assert!(status >= 400, "{method} {target} without a token: {status}");
    }
    if status >= 400 && method != "HEAD" {
        let lower = head.to_ascii_lowercase();
        assert!(lower.contains("application/problem+json"), "{method} {target}: {head}");
        let start = body.iter().position(|byte| *byte == b'{').expect("JSON");
        let end = body.iter().rposition(|byte| *byte == b'}').expect("JSON");
        let problem: Value = serde_json::from_slice(&body[start..=end]).expect("JSON");
        assert!(problem["code"].is_string() && problem["detail"].is_string(), "{}", shown(&body));
        assert_eq!(problem["status"], status, "{}", shown(&body));
    }
}

fuzz_target!(|input: &[u8]| {
    SERVER.with(|server| check(server.get_or_init(Server::new), input));
});
