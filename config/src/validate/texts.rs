//! Checks of single texts: names, hosts, paths, header names.

use crate::decode::{Context, Place, Spanned};
use crate::diagnostic::Code;
use crate::units::{UnitError, is_dns_name};

/// Longest name of a service, backend or listener.
const NAME_BYTES_MAX: usize = 63;

/// Whether a text can be the name of a service, listener, backend, flag or variant.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(valid)
        && !name.bytes().all(|byte| byte == b'.')
}

/// Checks a name that the user gives to something.
pub(super) fn check_name(name: &str, at: Place, what: &str, cx: &Context<'_>) {
    if !is_name(name) {
        let article = if what.starts_with(['a', 'e', 'i', 'o', 'u']) {
            "an"
        } else {
            "a"
        };
        let reason = format!("{name:?} cannot be the name of {article} {what}");
        let repair =
            format!("use letters, digits, - _ and . only, at most {NAME_BYTES_MAX} characters");
        cx.error(Code::InvalidName, at, reason, repair);
    }
}

/// Whether a text is a token of HTTP: a method, a header name, a cookie name.
pub(super) fn is_token(text: &str) -> bool {
    let special = b"!#$%&'*+-.^_`|~";
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || special.contains(&b))
}

/// Whether a text is a method as clients write it: methods are case-sensitive.
pub(super) fn is_method(text: &str) -> bool {
    is_token(text) && !text.bytes().any(|b| b.is_ascii_lowercase())
}

/// The header name in lower case.
pub(super) fn header_name(name: &str, at: Place, cx: &Context<'_>) -> Option<String> {
    if is_token(name) {
        return Some(name.to_ascii_lowercase());
    }
    let reason = format!("{name:?} is not a header name");
    cx.error(
        Code::InvalidValue,
        at,
        reason,
        "use letters, digits and - only, such as x-user-id",
    );
    None
}

/// Checks a header value. Control characters were refused when it was read.
pub(super) fn check_header_value(value: &Spanned<String>, cx: &Context<'_>) {
    let text = &value.value;
    if text.trim() != text || !text.is_ascii() {
        let reason = "a header value is plain ASCII without blanks at its ends";
        cx.error(Code::InvalidValue, value, reason, "remove what is not");
    }
}

/// Checks `host` or `host:port`.
pub(super) fn check_authority(authority: &Spanned<String>, cx: &Context<'_>) {
    let text = authority.value.as_str();
    if !is_authority(text) {
        let reason = format!("{text:?} is not a host name");
        cx.error(
            Code::InvalidValue,
            authority,
            reason,
            "write a name such as ops.example.com, with a port if needed",
        );
    }
}

fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    is_host(host) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Checks the URL of something that switchback asks. `secrets`: where a password belongs instead.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_url(text: &str, secrets: &str) -> Result<(), UnitError> {
    let repair = "write a URL such as http://127.0.0.1:9090";
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .ok_or_else(|| UnitError::new("this is not a URL of http or https", repair))?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        let reason = "a password in a URL is shown wherever the URL is";
        return Err(UnitError::new(
            reason,
            format!("remove it, and use {secrets}"),
        ));
    }
    if !is_authority(authority) {
        let reason = format!("{authority:?} is not a host name");
        return Err(UnitError::new(reason, repair));
    }
    let misplaced = |byte: u8| !byte.is_ascii_graphic() || b"#\"<>\\^`{|}".contains(&byte);
    if rest.bytes().any(misplaced) {
        let reason = "blanks, #, quotes, braces and the like do not belong into a URL";
        return Err(UnitError::new(reason, "write them as %20, %23 and so on"));
    }
    Ok(())
}

/// Whether a text is a DNS name or an address.
pub(super) fn is_host(host: &str) -> bool {
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.parse::<std::net::Ipv4Addr>().is_ok() || is_dns_name(host),
    }
}

/// The path prefix of a route without a slash at its end.
pub(super) fn path_prefix(path: &Spanned<String>, cx: &Context<'_>) -> Option<String> {
    let text = path.value.as_str();
    let lower = text.to_ascii_lowercase();
    let segments = || text.split('/').skip(1);
    let wrong = if !text.starts_with('/') {
        Some(("a path begins with /", format!("write /{text}")))
    } else if text.contains(['?', '#', ' ', '\\']) || !text.is_ascii() {
        Some((
            "a path prefix has no query, fragment, blank or backslash",
            "write the path only".into(),
        ))
    } else if text.contains("//") || segments().any(|segment| segment == "." || segment == "..") {
        Some((
            "a path prefix has no empty or dot segments",
            "write the path without them".into(),
        ))
    } else if lower.contains("%2f") || lower.contains("%5c") {
        Some((
            "an encoded slash is not a segment boundary",
            "write the path without it".into(),
        ))
    } else if segments().count() > SEGMENTS_MAX {
        Some((
            "this path has too many segments",
            format!("use at most {SEGMENTS_MAX}"),
        ))
    } else {
        None
    };
    if let Some((reason, repair)) = wrong {
        cx.error(Code::InvalidValue, path, reason, repair);
        return None;
    }
    Some(if text.len() > 1 {
        text.trim_end_matches('/').into()
    } else {
        text.into()
    })
}

/// Deepest path prefix that routes are looked up by.
const SEGMENTS_MAX: usize = 64;
