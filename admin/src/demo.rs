//! The story of switchback in one process: two small backends, some load, a version that breaks.
//!
//! Nothing is staged but the backends. The proxy, the API and the judge are the real ones, and the
//! sentence at the end is the judge's own.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use indexmap::IndexMap;
use owo_colors::OwoColorize;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::command::{Asked, Command};
use crate::control::Confirmed;
use crate::events::Event;
use crate::inherit::Inherited;
use crate::process::{Options, Process, StartError};
use crate::reload;

/// How to tell the story.
#[derive(Clone, Copy, Debug)]
pub struct Demo {
    /// Port of the proxy; 0: any.
    pub port: u16,
    /// Port of the admin API; 0: any.
    pub admin_port: u16,
    /// How long to stay; without, until a signal.
    pub seconds: Option<u64>,
    /// Whether to make requests.
    pub load: bool,
}

/// Client connections of the load.
const CLIENTS: u32 = 4;

/// Pause of each client between two requests.
const PAUSE: Duration = Duration::from_millis(10);

/// When the story moves on, counted from the start.
const SPLIT_AT: Duration = Duration::from_millis(1_500);
const SWITCH_AT: Duration = Duration::from_millis(4_500);
const BREAK_AT: Duration = Duration::from_millis(7_000);

/// Tells the story, then stays.
///
/// # Errors
/// When ports or files cannot be had.
pub async fn run(demo: Demo) -> Result<(), StartError> {
    let told = |cause| StartError::Resources {
        what: "tell the story",
        cause,
    };
    // Heard from the beginning: whoever ends it leaves no files behind.
    let ends = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [terminated, interrupted] = ends;
    let ends = [terminated.map_err(told)?, interrupted.map_err(told)?];
    let directory = std::env::temp_dir().join(format!("switchback-demo-{}", std::process::id()));
    let resources = |cause| StartError::Resources {
        what: "start the demo's backends",
        cause,
    };
    let broken = Arc::new(AtomicBool::new(false));
    let blue = backend("blue", Arc::default()).await.map_err(resources)?;
    let green = backend("green", broken.clone()).await.map_err(resources)?;
    let source = reload::parse(config(demo, blue, green), "the demo's configuration")?;
    let options = Options {
        source,
        path: None,
        state_dir: directory.clone(),
        file_refused: None,
        predecessor: None,
        inherited: Inherited::default(),
    };
    let ended = match Process::start(options).await {
        Ok(process) => {
            let ended = tell(demo, &process, &broken, &directory, ends).await;
            process.stop(Arc::new(AtomicBool::new(true))).await;
            ended.map_err(told)
        }
        Err(error) => Err(error),
    };
    let _ = std::fs::remove_dir_all(directory);
    ended
}

fn config(demo: Demo, blue: SocketAddr, green: SocketAddr) -> String {
    let Demo {
        port, admin_port, ..
    } = demo;
    format!(
        "version: 1
admin: {{address: \"127.0.0.1:{admin_port}\"}}
access_log: {{format: \"off\"}}
listeners:
  web: {{address: \"127.0.0.1:{port}\"}}
routes:
  - {{service: shop}}
services:
  shop:
    stable: blue
    weights: {{blue: 100, green: 0}}
    backends:
      blue: {{version: \"41\", endpoints: [\"http://{blue}\"]}}
      green: {{version: \"42\", endpoints: [\"http://{green}\"]}}
    expose: true
"
    )
}

async fn tell(
    demo: Demo,
    process: &Process,
    broken: &AtomicBool,
    directory: &std::path::Path,
    [mut terminated, mut interrupted]: [Signal; 2],
) -> io::Result<()> {
    let web = process.listeners().first().map(|(_, address)| *address);
    let Some(web) = web else { return Ok(()) };
    let load = Arc::new(Load::default());
    let stage = Stage {
        started: Instant::now(),
        load: load.clone(),
    };
    introduce(&stage, process, web, directory)?;
    if demo.load {
        for _ in 0..CLIENTS {
            tokio::spawn(client(web, load.clone()));
        }
    }
    let end = async {
        match demo.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = story(demo, &stage, process, broken) => ended,
        () = end => Ok(()),
        _ = terminated.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
    }
}

fn introduce(
    stage: &Stage,
    process: &Process,
    web: SocketAddr,
    directory: &std::path::Path,
) -> io::Result<()> {
    let (blue, green) = ("blue (41)".blue(), "green (42)".green());
    let token = directory.join(crate::auth::TOKEN_FILE);
    let header = format!("Authorization: Bearer $(cat {})", token.display());
    stage.headline("switchback demo: two versions of one service behind one proxy")?;
    stage.say(&format!(
        "service shop: {blue} is stable, {green} is the new version"
    ))?;
    stage.say(&format!("try it: curl -i http://{web}/"))?;
    stage.say(&format!(
        "watch it: http://{}/ with the token in {}",
        process.admin(),
        token.display()
    ))?;
    stage.say(&format!(
        "admin:  curl -H \"{header}\" http://{}/v1/services",
        process.admin()
    ))
}

async fn story(
    demo: Demo,
    stage: &Stage,
    process: &Process,
    broken: &AtomicBool,
) -> io::Result<()> {
    let mut events = process.events().follow(None).coming;
    let service = || "shop".to_owned();
    sleep_until(stage.started + SPLIT_AT).await;
    let weights = IndexMap::from([("blue".to_owned(), 50), ("green".to_owned(), 50)]);
    let done = ask(
        process,
        Command::SetWeights {
            service: service(),
            weights,
            lease: None,
        },
    )
    .await?;
    let us = done.applied_in.as_micros();
    stage.headline(&format!(
        "1. split: half of the traffic goes to green, on every worker after {us} us"
    ))?;
    sleep_until(stage.started + SWITCH_AT).await;
    stage.seen()?;
    let to = "green".to_owned();
    let done = ask(
        process,
        Command::Switch {
            service: service(),
            to,
            force: false,
        },
    )
    .await?;
    let us = done.applied_in.as_micros();
    stage.headline(&format!(
        "2. switch: green is stable now and on trial, after {us} us; blue stays warm"
    ))?;
    sleep_until(stage.started + BREAK_AT).await;
    stage.seen()?;
    stage.headline("3. green breaks: every request to it now fails")?;
    broken.store(true, Relaxed);
    let broke = Instant::now();
    if !demo.load {
        stage.say("there is no load: send a few requests yourself")?;
    }
    let verdict = rolled_back(&mut events).await;
    let ms = broke.elapsed().as_millis();
    stage.headline(&format!(
        "4. rolled back by itself, {ms} ms after green broke"
    ))?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.seen()?;
    stage.say("all traffic is back on blue; version 42 stays out until it is unblocked")?;
    stage.say(&format!("the judge's sentence:\n\n{}", verdict.bold()))?;
    std::future::pending().await
}

async fn ask(process: &Process, command: Command) -> io::Result<Confirmed> {
    let asked = Asked {
        by: "demo".into(),
        ..Asked::by_itself("api", None)
    };
    process
        .controls()
        .ask(command, asked)
        .await
        .map_err(io::Error::other)
}

/// Waits for the judge's rollback; the verdict is its sentence.
async fn rolled_back(events: &mut tokio::sync::broadcast::Receiver<Event>) -> String {
    loop {
        match events.recv().await {
            Ok(event) if event.kind == "rolled_back" => return event.message,
            Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return String::new(),
        }
    }
}

/// Where the story is told.
struct Stage {
    started: Instant,
    load: Arc<Load>,
}

impl Stage {
    fn headline(&self, text: &str) -> io::Result<()> {
        self.line(&text.bold().to_string())
    }

    fn say(&self, text: &str) -> io::Result<()> {
        self.line(text)
    }

    fn line(&self, text: &str) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        writeln!(
            out,
            "{:6.1} s  {text}",
            self.started.elapsed().as_secs_f64()
        )?;
        out.flush()
    }

    /// What clients have seen since the last time.
    fn seen(&self) -> io::Result<()> {
        let [blue, green, failed] = [&self.load.blue, &self.load.green, &self.load.failed]
            .map(|count| count.swap(0, Relaxed));
        if blue + green + failed > 0 {
            self.line(&format!(
                "   clients got {blue} answers from blue, {green} from green, {failed} errors"
            ))?;
        }
        Ok(())
    }
}

/// What clients of the demo have seen.
#[derive(Debug, Default)]
struct Load {
    blue: AtomicU64,
    green: AtomicU64,
    failed: AtomicU64,
}

/// One keep-alive client.
async fn client(address: SocketAddr, load: Arc<Load>) {
    loop {
        if requests(address, &load).await.is_err() {
            load.failed.fetch_add(1, Relaxed);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn requests(
    address: SocketAddr,
    load: &Load,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    loop {
        let request = Request::get("/")
            .header(header::HOST, address.to_string())
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let backend = response.headers().get("x-switchback-backend").cloned();
        let count = match backend.as_ref().map(http::HeaderValue::as_bytes) {
            _ if response.status() != StatusCode::OK => &load.failed,
            Some(b"green") => &load.green,
            _ => &load.blue,
        };
        count.fetch_add(1, Relaxed);
        response.into_body().collect().await?;
        tokio::time::sleep(PAUSE).await;
    }
}

/// A small HTTP service that works until it is broken.
async fn backend(name: &'static str, broken: Arc<AtomicBool>) -> io::Result<SocketAddr> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = socket.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let broken = broken.clone();
            let service = service_fn(move |_request| {
                let broken = broken.load(Relaxed);
                async move {
                    let (status, text) = match broken {
                        false => (StatusCode::OK, format!("hello from {name}\n")),
                        true => (
                            StatusCode::INTERNAL_SERVER_ERROR,
                            format!("{name} is broken\n"),
                        ),
                    };
                    let mut response = Response::new(Full::new(Bytes::from(text)));
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    Ok(address)
}
