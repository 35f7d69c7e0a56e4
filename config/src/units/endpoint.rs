//! Where requests are sent: scheme, host and port, nothing else.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::UnitError;

/// Where requests are sent: `http://127.0.0.1:9001`, `https://shop.internal`, `h2c://[::1]:9000`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// How to speak to it.
    pub scheme: Scheme,
    /// Name or address.
    pub host: EndpointHost,
    /// TCP port, 1 to 65535.
    pub port: u16,
}

/// The protocol of an [`Endpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// HTTP/1.1 without TLS.
    Http,
    /// TLS; HTTP/2 or HTTP/1.1 as the endpoint chooses by ALPN.
    Https,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
}

impl Scheme {
    /// The scheme as written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http | Self::H2c => 80,
        }
    }
}

/// The host of an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointHost {
    /// A literal address.
    Address(IpAddr),
    /// A DNS name in lower case, looked up again and again (all its addresses are used).
    Name(String),
}

impl fmt::Display for EndpointHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Endpoint {
    /// `host` or `host:port` as a client of the endpoint writes it in `Host` and `:authority`.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Endpoint {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const REPAIR: &str = "write scheme://host:port with the scheme http, https or h2c";
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("h2c", rest)) => (Scheme::H2c, rest),
            Some((other, _)) => {
                return Err(UnitError::new(
                    format!("the scheme {other:?} is not known"),
                    REPAIR,
                ));
            }
            None => {
                return Err(UnitError::new(
                    "an endpoint needs a scheme",
                    format!("write http://{text}"),
                ));
            }
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(UnitError::new(
                "an endpoint has no path",
                "write only scheme://host:port; use a route's rewrite to change paths",
            ));
        }
        if authority.contains('@') {
            return Err(UnitError::new(
                "an endpoint has no user or password",
                REPAIR,
            ));
        }
        let (host, port) = split_authority(authority)
            .ok_or_else(|| UnitError::new("this is not host:port", REPAIR))?;
        let port = match port {
            None => scheme.default_port(),
            Some(port) => match port.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => {
                    return Err(UnitError::new(
                        format!("{port:?} is not a port"),
                        "use a port from 1 to 65535",
                    ));
                }
            },
        };
        Ok(Self {
            scheme,
            host: parse_host(host)?,
            port,
        })
    }
}

/// Splits `host[:port]`; an IPv6 address must stand in brackets.
fn split_authority(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (_, tail) = rest.split_once(']')?;
        let host = &authority[..authority.len() - tail.len()];
        return match tail.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => tail.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

fn parse_host(host: &str) -> Result<EndpointHost, UnitError> {
    if let Some(inside) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let address = inside.parse().map_err(|_| {
            UnitError::new(
                format!("{inside:?} is not an IPv6 address"),
                "write it as [::1]",
            )
        })?;
        return Ok(EndpointHost::Address(IpAddr::V6(address)));
    }
    if let Ok(address) = host.parse() {
        return Ok(EndpointHost::Address(IpAddr::V4(address)));
    }
    if !is_dns_name(host) {
        return Err(UnitError::new(
            format!("{host:?} is neither an address nor a host name"),
            "use an IPv4 address, an IPv6 address in brackets, or a DNS name",
        ));
    }
    Ok(EndpointHost::Name(host.to_ascii_lowercase()))
}

/// Whether this is a DNS host name: labels of letters, digits, `-` and `_`, not all digits.
#[must_use]
pub fn is_dns_name(name: &str) -> bool {
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253
        && name.split('.').all(label_ok)
        && !name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}
