//! Real clients and servers: curl, nginx, h2load, wrk, gRPC, WebSocket. `tests/run` installs them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::{HEAD, Origin, Proxy, blue_green, eventually, python};

/// Runs a command to its end: success, and everything it printed.
fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), text.concat())
}

fn script(name: &str) -> String {
    format!("{}/tests/clients/{name}.py", env!("CARGO_MANIFEST_DIR"))
}

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a Python server, which prints its port.
fn python_server(name: &str) -> (Server, u16) {
    let mut child = Command::new(python())
        .args([script(name).as_str(), "server"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; tests/run installs it", python()));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port = line
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("{name} printed {line:?}"));
    (Server(child), port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_client_and_server_talk_through_h2() {
    let (_server, port) = python_server("grpc_peer");
    let green = Origin::start().await;
    let proxy = Proxy::start(&blue_green(
        &format!("h2c://127.0.0.1:{port}"),
        &green.url(),
        "",
    ));
    let (ok, text) = run(
        &python(),
        &[&script("grpc_peer"), "client", &proxy.web.to_string()],
    );
    assert!(
        ok && text.contains("unary, stream and error arrived"),
        "{text}"
    );
    let service = proxy.service().await;
    assert_eq!(service["backends"]["blue"]["failures"], 0, "{service}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_calls_are_mirrored_and_compared_by_their_trailers() {
    let (_blue, stable) = python_server("grpc_peer");
    let (_green, mirrored) = python_server("grpc_peer");
    let [blue, green] = [stable, mirrored].map(|port| format!("h2c://127.0.0.1:{port}"));
    let more = "mirror: {to: green, methods: [POST]}";
    let proxy = Proxy::start(&blue_green(&blue, &green, more));
    let address = proxy.web.to_string();
    let (ok, text) = run(&python(), &[&script("grpc_peer"), "client", &address]);
    assert!(ok, "{text}");
    // The call of 3 MiB is larger than what is copied.
    crate::support::eventually_async("three calls were compared", || async {
        let service = proxy.service().await;
        service["mirror"]["mirrored"] == 3 && service["mirror"]["drops"]["body"] == 1
    })
    .await;
    let service = proxy.service().await;
    assert_eq!(service["mirror"]["mismatched"], 0, "{service}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_client_is_told_in_its_own_words_when_nobody_is_there() {
    let (dead, green) = (Origin::start().await, Origin::start().await);
    let url = dead.h2c_url();
    drop(dead);
    let proxy = Proxy::start(&blue_green(&url, &green.url(), ""));
    let (ok, text) = run(
        &python(),
        &[&script("grpc_peer"), "refused", &proxy.web.to_string()],
    );
    assert!(ok && text.trim() == "UNAVAILABLE", "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_client_and_server_talk_through_a_tunnel() {
    let (_server, port) = python_server("websocket_peer");
    let green = Origin::start().await;
    let proxy = Proxy::start(&blue_green(
        &format!("http://127.0.0.1:{port}"),
        &green.url(),
        "",
    ));
    let (ok, text) = run(
        &python(),
        &[&script("websocket_peer"), "client", &proxy.web.to_string()],
    );
    assert!(
        ok && text.contains("messages, ping and close arrived"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gets_answers_over_h1_h2_and_tls() {
    let origin = Origin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(directory.path().join("a.crt"), made.cert.pem()).unwrap();
    std::fs::write(
        directory.path().join("a.key"),
        made.signing_key.serialize_pem(),
    )
    .unwrap();
    let config = HEAD.replace(
        "  web: {address: \"127.0.0.1:0\"}\n",
        "  web: {address: \"127.0.0.1:0\"}\n  secure: {address: \"127.0.0.1:0\", tls: {certificates: [{certificate: a.crt, key: a.key}]}}\n",
    );
    let config = format!(
        "{config}services: {{shop: {{backends: {{only: {{endpoints: [\"{}\"]}}}}}}}}\n",
        origin.url()
    );
    std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
    let proxy = Proxy::start_in(directory);
    let plain = format!("http://{}/", proxy.web);
    let secure = format!("https://localhost:{}/", proxy.listener("secure").port());
    let authority = proxy.path().join("a.crt").display().to_string();
    let tls = ["--cacert", authority.as_str(), "--resolve"];
    let resolve = format!("localhost:{}:127.0.0.1", proxy.listener("secure").port());
    let cases: [(Vec<&str>, &str); 6] = [
        (vec!["--http1.0", &plain], "1.1"),
        (vec!["--http1.1", &plain], "1.1"),
        (vec!["--http2-prior-knowledge", &plain], "2"),
        (
            vec![tls[0], tls[1], tls[2], &resolve, "--http1.1", &secure],
            "1.1",
        ),
        (
            vec![tls[0], tls[1], tls[2], &resolve, "--http2", &secure],
            "2",
        ),
        (
            vec![
                tls[0],
                tls[1],
                tls[2],
                &resolve,
                "--http2",
                "--tls-max",
                "1.2",
                "-d",
                "body",
                &secure,
            ],
            "2",
        ),
    ];
    for (arguments, version) in cases {
        let mut all = vec!["-sS", "-w", "\n%{http_code} %{http_version}"];
        all.extend(&arguments);
        let (ok, text) = run("curl", &all);
        assert!(
            ok && text.ends_with(&format!("200 {version}")),
            "{arguments:?}: {text}"
        );
        assert!(
            text.starts_with("hello") || text.starts_with("body"),
            "{text}"
        );
    }
    assert_eq!(origin.received(), 6);
}

/// Starts nginx on a free port with some files.
fn nginx(directory: &std::path::Path) -> (Server, u16) {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let root = directory.display();
    std::fs::write(directory.join("large.bin"), vec![b'x'; 5 << 20]).unwrap();
    std::fs::write(directory.join("small.txt"), "from nginx\n").unwrap();
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let config = format!(
        "{user} daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/error.log; worker_processes 1;
         events {{ worker_connections 512; }}
         http {{ access_log off; client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c; uwsgi_temp_path {root}/d; scgi_temp_path {root}/e;
           server {{ listen 127.0.0.1:{port}; root {root}; location /teapot {{ return 418; }} gzip on; gzip_types text/plain; }} }}"
    );
    std::fs::write(directory.join("nginx.conf"), config).unwrap();
    let child = Command::new("nginx")
        .arg("-e")
        .arg(directory.join("error.log"))
        .arg("-c")
        .arg(directory.join("nginx.conf"))
        .spawn()
        .unwrap();
    eventually("nginx listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    (Server(child), port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_serves_files_ranges_and_compressed_text_as_an_origin() {
    let directory = tempfile::tempdir().unwrap();
    let (_nginx, port) = nginx(directory.path());
    let green = Origin::start().await;
    let proxy = Proxy::start(&blue_green(
        &format!("http://127.0.0.1:{port}"),
        &green.url(),
        "",
    ));
    let url = |path: &str| format!("http://{}{path}", proxy.web);
    let (ok, text) = run("curl", &["-sS", &url("/small.txt")]);
    assert!(ok && text == "from nginx\n", "{text}");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let (ok, text) = run(
            "curl",
            &[
                "-sS",
                version,
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{size_download}",
                &url("/large.bin"),
            ],
        );
        assert!(ok && text == format!("200 {}", 5 << 20), "{text}");
    }
    let (ok, text) = run(
        "curl",
        &[
            "-sS",
            "-r",
            "0-3",
            "-w",
            " %{http_code}",
            &url("/small.txt"),
        ],
    );
    assert!(ok && text == "from 206", "{text}");
    let (ok, text) = run("curl", &["-sS", "-I", &url("/large.bin")]);
    assert!(
        ok && text
            .to_ascii_lowercase()
            .contains(&format!("content-length: {}", 5 << 20)),
        "{text}"
    );
    let (ok, text) = run("curl", &["-sS", "--compressed", &url("/small.txt")]);
    assert!(ok && text == "from nginx\n", "{text}");
    let (_, text) = run(
        "curl",
        &[
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &url("/teapot"),
        ],
    );
    assert_eq!(text, "418");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_and_wrk_at_full_rate_see_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let (_nginx, port) = nginx(directory.path());
    let green = Origin::start().await;
    let proxy = Proxy::start(&blue_green(
        &format!("http://127.0.0.1:{port}"),
        &green.url(),
        "",
    ));
    let url = format!("http://{}/small.txt", proxy.web);
    let (ok, text) = run("h2load", &["-n", "20000", "-c", "20", "-m", "10", &url]);
    assert!(
        ok && text.contains("20000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{text}"
    );
    let (ok, text) = run("h2load", &["--h1", "-n", "20000", "-c", "20", &url]);
    assert!(
        ok && text.contains("20000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{text}"
    );
    let (ok, text) = run("wrk", &["-t", "1", "-c", "50", "-d", "2s", &url]);
    assert!(ok && text.contains("requests in"), "{text}");
    assert!(
        !text.contains("Non-2xx") && !text.contains("Socket errors"),
        "{text}"
    );
}
