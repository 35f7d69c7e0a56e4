//! A client of the admin API.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Collected, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use switchback_config::defaults::TAKEOVER_TIME;

use super::args::{Output, Target, WriteArgs};
use super::exit;
use crate::outbound::Outbound;

/// How long an answer may take; waiting for a drain takes longest.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Between two attempts while one process takes over from another, which takes a moment.
const HANDING_OVER_WAIT: Duration = Duration::from_millis(200);

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A request to the API that did not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The URL cannot be used.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers.
    #[error(
        "reach the admin API at {url}: {cause}; is switchback running, and is this its address?"
    )]
    Unreachable { url: String, cause: String },
    /// There is no token.
    #[error("no token: {0}")]
    NoToken(String),
    /// The API says no.
    #[error("{detail} ({code})")]
    Problem {
        status: u16,
        code: String,
        detail: String,
        /// All that it said.
        body: Box<Value>,
    },
}

impl ClientError {
    pub(super) const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => exit::UNREACHABLE,
            Self::NoToken(_)
            | Self::Problem {
                status: 401 | 403 | 429,
                ..
            } => exit::AUTH,
            Self::Problem {
                status: 409 | 412 | 503 | 504 | 507,
                ..
            } => exit::CONFLICT,
            Self::Problem { .. } => 1,
        }
    }

    /// The code of what the API said.
    fn code(&self) -> Option<&str> {
        match self {
            Self::Problem { code, .. } => Some(code),
            _ => None,
        }
    }

    /// What the API said, if it is the one that says no.
    pub(super) fn into_problem(self) -> Option<Box<Value>> {
        match self {
            Self::Problem { body, .. } => Some(body).filter(|body| body.is_object()),
            _ => None,
        }
    }

    fn problem(status: StatusCode, body: Value) -> Self {
        let field = |name: &str| body[name].as_str().map(str::to_owned);
        Self::Problem {
            status: status.as_u16(),
            code: field("code").unwrap_or_else(|| "unknown".into()),
            detail: field("detail").unwrap_or_else(|| format!("status {status}")),
            body: Box::new(body),
        }
    }
}

/// A client of the API.
pub(super) struct Client {
    url: Uri,
    token: Result<String, String>,
    server: Outbound,
    pub(super) output: Output,
    /// How long an answer may take.
    pub(super) patience: Duration,
}

impl Client {
    pub(super) fn new(target: &Target) -> Result<Self, ClientError> {
        let url = target
            .admin
            .clone()
            .unwrap_or_else(|| configured_url().unwrap_or_else(|| DEFAULT_URL.into()));
        let usage = |reason: &str| ClientError::Usage(format!("{url} is no admin URL: {reason}"));
        let parsed: Uri = url
            .trim_end_matches('/')
            .parse()
            .map_err(|_| usage("write http://host:port"))?;
        let authorities = target.ca.as_deref().map(std::fs::read).transpose();
        let authorities = authorities.map_err(|error| usage(&error.to_string()))?;
        let server = Outbound::new(&parsed, authorities.as_deref())
            .map_err(|error| usage(&error.to_string()))?;
        Ok(Self {
            url: parsed,
            token: token(target),
            server,
            output: target.output,
            patience: ANSWER_TIME,
        })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::GET, path, None, Vec::new()).await
    }

    /// Sends a write and returns the answer.
    pub(super) async fn write(
        &self,
        method: Method,
        path: &str,
        body: Value,
        options: &WriteArgs,
    ) -> Result<Value, ClientError> {
        self.write_with_key(method, path, body, options, None).await
    }

    /// The same, with a key by which the server recognises that it was asked before.
    pub(super) async fn write_with_key(
        &self,
        method: Method,
        path: &str,
        mut body: Value,
        options: &WriteArgs,
        key: Option<&str>,
    ) -> Result<Value, ClientError> {
        if let (Some(reason), Some(body)) = (&options.reason, body.as_object_mut()) {
            body.insert("reason".into(), reason.clone().into());
        }
        let mut query = Vec::new();
        if options.dry_run {
            query.push("dry_run=true");
        }
        if options.wait_drained {
            query.push("wait=drained");
        }
        let path = if query.is_empty() {
            path.to_owned()
        } else {
            let joint = if path.contains('?') { '&' } else { '?' };
            format!("{path}{joint}{}", query.join("&"))
        };
        let mut headers = Vec::new();
        if let Some(revision) = options.if_revision {
            headers.push((header::IF_MATCH, format!("\"{revision}\"")));
        }
        if let Some(key) = key {
            let name = header::HeaderName::from_static("idempotency-key");
            headers.push((name, key.to_owned()));
        }
        self.ask(method, &path, Some(body), headers).await
    }

    /// Asks, and asks again while one process takes over from another: nothing was changed then.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: Vec<(header::HeaderName, String)>,
    ) -> Result<Value, ClientError> {
        let until = Instant::now() + TAKEOVER_TIME;
        loop {
            let once = self.ask_once(method.clone(), path, body.clone(), headers.clone());
            match once.await {
                Err(error) if error.code() == Some("handing_over") && Instant::now() < until => {
                    tokio::time::sleep(HANDING_OVER_WAIT).await;
                }
                answer => return answer,
            }
        }
    }

    async fn ask_once(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: Vec<(header::HeaderName, String)>,
    ) -> Result<Value, ClientError> {
        let token = self.token().await?;
        let request = request(method, path, Some(&token), body, headers)?;
        let response = self
            .server
            .fetch(request, self.patience, ANSWER_BYTES_MAX)
            .await
            .map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let value: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        Err(ClientError::problem(status, value))
    }

    /// Where it is.
    pub(super) fn url(&self) -> String {
        self.url.to_string()
    }

    /// The text of an endpoint that needs no token.
    pub(super) async fn open_text(&self, path: &str) -> Result<String, ClientError> {
        let request = request(Method::GET, path, None, None, Vec::new())?;
        let response = self
            .server
            .fetch(request, self.patience, ANSWER_BYTES_MAX)
            .await
            .map_err(|error| self.unreachable(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(String::from_utf8_lossy(response.body()).into_owned());
        }
        Err(ClientError::problem(status, Value::Null))
    }

    /// The status of an endpoint that needs no token.
    pub(super) async fn open_status(&self, path: &str) -> Result<StatusCode, ClientError> {
        Ok(self
            .send(request(Method::GET, path, None, None, Vec::new())?)
            .await?
            .status())
    }

    /// The stream of events, as it comes after the last one that was seen.
    pub(super) async fn stream(
        &self,
        path: &str,
        last: Option<&str>,
    ) -> Result<Incoming, ClientError> {
        let token = self.token().await?;
        let name = header::HeaderName::from_static("last-event-id");
        let headers = last.map(|last| (name, last.to_owned()));
        let headers = headers.into_iter().collect();
        let request = request(Method::GET, path, Some(&token), None, headers)?;
        let response = self.send(request).await?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response.into_body());
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = tokio::time::timeout(ANSWER_TIME, body.collect()).await;
        let text = body.ok().and_then(Result::ok).map(Collected::to_bytes);
        let value = serde_json::from_slice(&text.unwrap_or_default());
        Err(ClientError::problem(status, value.unwrap_or_default()))
    }

    /// The token. That nobody listens is worse news than that there is none.
    async fn token(&self) -> Result<String, ClientError> {
        match &self.token {
            Ok(token) => Ok(token.clone()),
            Err(missing) => {
                self.open_status("/livez").await?;
                Err(ClientError::NoToken(missing.clone()))
            }
        }
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Incoming>, ClientError> {
        match tokio::time::timeout(ANSWER_TIME, self.server.send(request)).await {
            Ok(answer) => answer.map_err(|error| self.unreachable(error)),
            Err(_) => Err(self.unreachable("no answer")),
        }
    }

    fn unreachable(&self, cause: impl std::fmt::Display) -> ClientError {
        ClientError::Unreachable {
            url: self.url.to_string(),
            cause: cause.to_string(),
        }
    }
}

fn request(
    method: Method,
    path: &str,
    token: Option<&str>,
    body: Option<Value>,
    headers: Vec<(header::HeaderName, String)>,
) -> Result<Request<Bytes>, ClientError> {
    let agent = concat!("switchback/", env!("CARGO_PKG_VERSION"));
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::USER_AGENT, agent);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let text = body.map(|body| body.to_string());
    if text.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request
        .body(Bytes::from(text.unwrap_or_default()))
        .map_err(|error| ClientError::Usage(error.to_string()))
}

/// Where a config file is looked for, in this order.
pub(super) fn config_candidates() -> Vec<PathBuf> {
    let named = std::env::var_os("SWITCHBACK_CONFIG").map(PathBuf::from);
    match named {
        Some(named) => vec![named],
        None => ["./switchback.yaml", "/etc/switchback/switchback.yaml"]
            .map(PathBuf::from)
            .to_vec(),
    }
}

/// Where the admin API listens unless a file says otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:9900";

/// The admin URL of the config file that `run` would find here. One that cannot be read says nothing, and is not
/// passed over in silence: whoever is asked instead may be another switchback.
fn configured_url() -> Option<String> {
    let path = config_candidates().into_iter().find(|path| path.exists())?;
    let text = std::fs::read_to_string(&path);
    let config = text
        .ok()
        .and_then(|text| switchback_config::parse(&text).config);
    let Some(config) = config else {
        let path = path.display();
        anstream::eprintln!(
            "switchback: {path} cannot be used (`switchback check {path}` says why); asking {DEFAULT_URL}, choose another with --admin"
        );
        return None;
    };
    let scheme = if config.admin.tls.is_some() {
        "https"
    } else {
        "http"
    };
    Some(format!("{scheme}://{}", config.admin.address))
}

/// The state directory: as asked for, or where a service manager, root or a user keeps state.
pub(super) fn state_dir(asked: Option<&Path>) -> PathBuf {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(asked) = asked {
        return asked.to_path_buf();
    }
    if let Some(directory) = variable("STATE_DIRECTORY") {
        return directory;
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/switchback");
    }
    let home = || variable("HOME").unwrap_or_else(|| PathBuf::from("."));
    variable("XDG_STATE_HOME")
        .unwrap_or_else(|| home().join(".local/state"))
        .join("switchback")
}

fn token(target: &Target) -> Result<String, String> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("read {}: {error}", path.display()))?;
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{} holds no token", path.display()));
        }
        Ok(text.to_owned())
    };
    if let Some(path) = &target.token_file {
        return read(path);
    }
    match std::env::var("SWITCHBACK_TOKEN") {
        Ok(token) if !token.is_empty() => Ok(token),
        _ => read(&state_dir(target.state_dir.as_deref()).join(crate::auth::TOKEN_FILE)),
    }
}
