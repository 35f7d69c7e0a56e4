//! What a signal is asked with: its token, and whom it trusts.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use switchback_config::defaults::{SIGNAL_AUTHORITIES_BYTES_MAX, SIGNAL_TOKEN_BYTES_MAX};
use switchback_config::model::{Signal, SignalSource};

use crate::outbound::Outbound;

/// The contents of a signal's files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    token: Option<Vec<u8>>,
    authorities: Option<Vec<u8>>,
}

/// What a signal is asked with.
#[derive(Debug)]
pub(super) struct Credentials {
    contents: Contents,
    authorization: Option<HeaderValue>,
    pub(super) outbound: Outbound,
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with one.
    pub(super) fn read(signal: &Signal, base: &Path) -> Result<Contents, String> {
        let load = |path: &Option<std::path::PathBuf>, bytes_max| {
            let path = path.as_ref().map(|path| base.join(path));
            path.map(|path| read(&path, bytes_max)).transpose()
        };
        Ok(Contents {
            token: load(&signal.token_file, SIGNAL_TOKEN_BYTES_MAX)?,
            authorities: load(&signal.ca, SIGNAL_AUTHORITIES_BYTES_MAX)?,
        })
    }

    /// Makes a client for whoever is asked.
    ///
    /// # Errors
    /// What is wrong with the contents of a file.
    pub(super) fn new(contents: Contents, signal: &Signal) -> Result<Self, String> {
        let url = match &signal.source {
            SignalSource::Prometheus { prometheus, .. } => prometheus,
            // Only its host matters here, and nothing is filled in there.
            SignalSource::Http { http, .. } => http.as_str(),
        };
        let end = url.find("{{").unwrap_or(url.len());
        let url: Uri = url[..end]
            .parse()
            .map_err(|error| format!("{url}: {error}"))?;
        let outbound = Outbound::new(&url, contents.authorities.as_deref());
        Ok(Self {
            authorization: contents.token.as_deref().map(bearer).transpose()?,
            outbound: outbound.map_err(|error| error.to_string())?,
            contents,
        })
    }

    /// Whether the files have not changed since.
    pub(super) fn is_made_of(&self, contents: &Contents) -> bool {
        self.contents == *contents
    }

    /// A request for a path and query.
    ///
    /// # Errors
    /// When that is none.
    pub(super) fn request(&self, target: &str) -> Result<Request<Bytes>, String> {
        let mut request = Request::get(target).header(header::USER_AGENT, "switchback-signal");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        request
            .body(Bytes::new())
            .map_err(|error| error.to_string())
    }
}

fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("read {}: {error}", path.display());
    let file = File::open(path).map_err(failed)?;
    let mut contents = Vec::new();
    let limit = bytes_max as u64 + 1;
    file.take(limit)
        .read_to_end(&mut contents)
        .map_err(failed)?;
    if contents.len() > bytes_max {
        return Err(format!(
            "read {}: larger than {bytes_max} bytes",
            path.display()
        ));
    }
    Ok(contents)
}

/// The text is never part of an error.
fn bearer(token: &[u8]) -> Result<HeaderValue, String> {
    let token = token.trim_ascii();
    let value = [b"Bearer ", token].concat();
    match HeaderValue::from_bytes(&value) {
        Ok(mut value) if !token.is_empty() => {
            value.set_sensitive(true);
            Ok(value)
        }
        _ => Err("the token file does not hold one line with a token".into()),
    }
}
