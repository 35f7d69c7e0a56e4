//! What every request to the API must pass before it is looked at.
//!
//! In this order: a head without doubt ([`head`]), a plain path, a known `Host` (against DNS rebinding), no foreign web page behind it
//! (against cross-site requests), and a token. What is open to everybody (`/livez`, `/readyz`,
//! `/metrics`, and the static files of the dashboard and of `/docs/`) passes the first two only.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, StatusCode, header, request::Parts};

use super::head;
use super::problem::Problem;
use crate::auth::{Auth, Caller, Rejection, bearer};

/// Paths that need no token.
const OPEN: [&str; 7] = [
    "/", "/livez", "/readyz", "/healthz", "/metrics", "/ui", "/docs",
];

/// Below these are static files, the same for everybody.
const OPEN_FILES: [&str; 2] = ["/ui/", "/docs/"];

/// The addresses and names under which the API may be called.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    pub(crate) address: SocketAddr,
    /// None: no other names can be configured.
    pub(crate) allowed_hosts: Option<Vec<String>>,
}

/// Lets a request pass, with the caller if it needs one.
pub(crate) fn pass(
    doors: &Doors,
    auth: &Auth,
    peer: IpAddr,
    request: &Parts,
) -> Result<Option<Caller>, Problem> {
    head::check(request)?;
    check_path(request)?;
    check_host(doors, request)?;
    let path = request.uri.path();
    if OPEN.contains(&path) || OPEN_FILES.iter().any(|files| path.starts_with(files)) {
        return Ok(None);
    }
    check_site(doors, &request.headers)?;
    let mut caller = check_token(auth, peer, request)?;
    caller.request = described(request);
    if request.method != Method::GET && request.method != Method::HEAD {
        check_content_type(&request.headers)?;
    }
    Ok(Some(caller))
}

/// Lets an application pass that asks for flags. Whoever has to show a token is no web page that was led
/// astray; without tokens a page could ask whatever listens on the machine of who looks at it.
pub(crate) fn pass_application(
    doors: &Doors,
    needs_token: bool,
    request: &Parts,
) -> Result<(), Problem> {
    head::check(request)?;
    if !needs_token {
        check_host(doors, request)?;
        check_site(doors, &request.headers)?;
    }
    match request.method {
        Method::POST => check_content_type(&request.headers),
        _ => Ok(()),
    }
}

fn check_path(request: &Parts) -> Result<(), Problem> {
    let path = request.uri.path();
    let lower = path.to_ascii_lowercase();
    let tricks = ["//", "/./", "/../", ";", "%2f", "%5c", "%00", "%2e", "\\"];
    let ends_in_dots = lower.ends_with("/..") || lower.ends_with("/.");
    if ends_in_dots || tricks.iter().any(|trick| lower.contains(trick)) {
        return Err(Problem::bad_request(
            "invalid_path",
            "the path contains dot segments or encoded separators",
        ));
    }
    Ok(())
}

fn check_host(doors: &Doors, request: &Parts) -> Result<(), Problem> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let from_header = hosts.next().and_then(|host| host.to_str().ok());
    // A target in absolute form names a host too, and whoever reads only one of them is misled.
    let from_target = request.uri.authority().map(http::uri::Authority::as_str);
    let named = [from_header, from_target];
    let mut named = named.iter().flatten().peekable();
    let says_one = named.peek().is_some() && hosts.next().is_none();
    if says_one && named.all(|host| is_own(doors, host)) {
        return Ok(());
    }
    let detail = match doors.allowed_hosts {
        Some(_) => "this name is not served here; add it to admin.allowed_hosts if it should be",
        None => "this name is not served here; use the address, or ofrep.tokens_file",
    };
    Err(Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        "unknown_host",
        detail,
    ))
}

/// Whether a host is the literal address, `localhost` for a loopback one, or configured.
fn is_own(doors: &Doors, host: &str) -> bool {
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let (name, port) = name.map_or((host, None), |(name, port)| {
        (name, port.parse::<u16>().ok())
    });
    if doors
        .allowed_hosts
        .iter()
        .flatten()
        .any(|allowed| allowed.eq_ignore_ascii_case(host) || allowed.eq_ignore_ascii_case(name))
    {
        return true;
    }
    if port.unwrap_or(80) != doors.address.port() {
        return false;
    }
    let literal = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    match literal {
        Ok(literal) => {
            literal == doors.address.ip()
                || doors.address.ip().is_unspecified()
                || (literal.is_loopback() && doors.address.ip().is_loopback())
        }
        Err(_) => name.eq_ignore_ascii_case("localhost") && doors.address.ip().is_loopback(),
    }
}

/// Refuses what a browser sends on behalf of another site.
fn check_site(doors: &Doors, headers: &HeaderMap) -> Result<(), Problem> {
    let refused = || {
        Problem::new(
            StatusCode::FORBIDDEN,
            "cross_site",
            "requests from other sites are refused",
        )
    };
    if let Some(site) = headers.get("sec-fetch-site")
        && !matches!(site.as_bytes(), b"same-origin" | b"none")
    {
        return Err(refused());
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(_, host)| is_own(doors, host));
        if !own {
            return Err(refused());
        }
    }
    Ok(())
}

fn check_token(auth: &Auth, peer: IpAddr, request: &Parts) -> Result<Caller, Problem> {
    auth.check(peer, bearer(&request.headers))
        .map_err(|rejection| match rejection {
            Rejection::Unauthorized => Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "a valid token is needed: Authorization: Bearer <token>",
            ),
            Rejection::TooManyFailures => Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_failures",
                "too many failed attempts from this address; wait a minute",
            ),
        })
}

/// Longest description of a request on record.
const DESCRIBED_MAX: usize = 200;

/// A request as it is recorded: what was asked for, and the name the client gives itself.
fn described(request: &Parts) -> String {
    let agent = request.headers.get(header::USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok());
    let by = agent.map_or(String::new(), |agent| format!(" by {agent}"));
    let text = format!("{} {}{by}", request.method, request.uri.path());
    text.chars().take(DESCRIBED_MAX).collect()
}

/// A form of a web page cannot send JSON without asking first.
fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let has_body = headers
        .get(header::CONTENT_LENGTH)
        .is_some_and(|length| length != "0")
        || headers.contains_key(header::TRANSFER_ENCODING);
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let is_json = kind.is_some_and(|kind| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    });
    if is_json || (!has_body && kind.is_none()) {
        return Ok(());
    }
    let detail = "send the body as application/json";
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        detail,
    ))
}
