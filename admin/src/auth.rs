//! Who may do what: tokens and roles.
//!
//! Tokens are long random strings; only their SHA-256 is kept, and a caller's token is compared with
//! all of them in constant time. Every failure gets the same answer, and an address that keeps
//! failing is told to wait.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use switchback_config::defaults::ADMIN_FAILURES_PER_MINUTE;
use utoipa::ToSchema;

/// File of the generated token in the state directory.
pub const TOKEN_FILE: &str = "admin.token";

/// Random bytes of a generated token.
const TOKEN_BYTES: usize = 32;

/// Addresses whose failures are remembered before old ones are forgotten.
const ADDRESSES_MAX: usize = 10_000;

/// What a caller may do; each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Roll back and block.
    Rollback,
    /// Change weights, roles and backends.
    Operator,
    /// Everything.
    Admin,
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "rollback" => Ok(Self::Rollback),
            "operator" => Ok(Self::Operator),
            "admin" => Ok(Self::Admin),
            other => Err(format!(
                "{other:?} is no role: use viewer, rollback, operator or admin"
            )),
        }
    }
}

/// A token that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Who holds it, as recorded with every change.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// SHA-256 of the token.
    pub digest: [u8; 32],
}

/// A caller who showed a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The request it was shown with, for the record.
    pub request: String,
}

/// Why a caller is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// No token, more than one, or a wrong one.
    Unauthorized,
    /// Too many failures of this address.
    TooManyFailures,
}

/// The tokens file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read or written.
    #[error("use token file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        cause: io::Error,
    },
    /// Others can read it.
    #[error("token file {} can be read by others; run chmod 600 on it", path.display())]
    Readable {
        /// The file.
        path: PathBuf,
    },
    /// It is shorter than any token that was generated.
    #[error("token file {} holds a token of less than {TOKEN_BYTES} characters; delete it to have a new one generated", path.display())]
    Short {
        /// The file.
        path: PathBuf,
    },
}

/// The tokens that are accepted, and who failed.
#[derive(Debug)]
pub struct Auth {
    tokens: ArcSwap<Vec<Token>>,
    failures: DefaultKeyedRateLimiter<IpAddr>,
}

impl Auth {
    /// Accepts these tokens.
    #[must_use]
    pub fn new(tokens: Vec<Token>) -> Arc<Self> {
        let per_minute = NonZeroU32::new(ADMIN_FAILURES_PER_MINUTE).unwrap_or(NonZeroU32::MIN);
        Arc::new(Self {
            tokens: ArcSwap::from_pointee(tokens),
            failures: RateLimiter::keyed(Quota::per_minute(per_minute)),
        })
    }

    /// Accepts other tokens from now on.
    pub fn set_tokens(&self, tokens: Vec<Token>) {
        self.tokens.store(Arc::new(tokens));
    }

    /// Who a caller is.
    ///
    /// # Errors
    /// When they are not let in.
    pub fn check(&self, address: IpAddr, token: Option<&str>) -> Result<Caller, Rejection> {
        let digest: [u8; 32] = Sha256::digest(token.unwrap_or_default()).into();
        let tokens = self.tokens.load();
        let mut found = None;
        for known in tokens.iter() {
            if bool::from(known.digest.ct_eq(&digest)) {
                found = Some(known);
            }
        }
        if let Some(known) = found.filter(|_| token.is_some()) {
            return Ok(Caller {
                name: known.name.clone(),
                role: known.role,
                request: String::new(),
            });
        }
        if self.failures.len() > ADDRESSES_MAX {
            self.failures.retain_recent();
        }
        match self.failures.check_key(&address) {
            Ok(()) => Err(Rejection::Unauthorized),
            Err(_) => Err(Rejection::TooManyFailures),
        }
    }
}

/// The token that a request shows, if it shows exactly one.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let token = values
        .next()
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    token.filter(|_| values.next().is_none())
}

/// A new random token, and what is kept of it.
///
/// # Errors
/// When the system has no randomness to give.
pub fn new_token(name: &str, role: Role) -> io::Result<(String, Token)> {
    let mut bytes = [0; TOKEN_BYTES];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let filled = provider.secure_random.fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the system gave no random bytes"))?;
    let text = hex(&bytes);
    let digest = Sha256::digest(&text).into();
    Ok((
        text,
        Token {
            name: name.into(),
            role,
            digest,
        },
    ))
}

/// The token of the state directory; made if there is none. Its file is readable by its owner only.
///
/// # Errors
/// When the file cannot be used, is readable by others, or holds too short a token.
pub fn generated_token(directory: &Path) -> Result<Token, TokenError> {
    let path = directory.join(TOKEN_FILE);
    let failed = |cause| TokenError::File {
        path: path.clone(),
        cause,
    };
    if !path.exists() {
        let (text, _) = new_token("admin", Role::Admin).map_err(failed)?;
        let created = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        created
            .and_then(|mut file| writeln!(file, "{text}"))
            .map_err(failed)?;
        tracing::info!(path = %path.display(), "made an admin token");
    }
    let mode = fs::metadata(&path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(TokenError::Readable { path });
    }
    let text = fs::read_to_string(&path).map_err(failed)?;
    let text = text.trim();
    if text.len() < TOKEN_BYTES {
        return Err(TokenError::Short { path });
    }
    Ok(Token {
        name: "admin".into(),
        role: Role::Admin,
        digest: Sha256::digest(text).into(),
    })
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn only_a_known_token_is_let_in_with_its_role() {
        let (text, token) = new_token("deploy", Role::Operator).expect("random bytes");
        let auth = Auth::new(vec![token]);
        let caller = auth.check(HOME, Some(&text)).expect("known");
        assert_eq!(
            (caller.name.as_str(), caller.role),
            ("deploy", Role::Operator)
        );
        assert_eq!(
            auth.check(HOME, Some("wrong")),
            Err(Rejection::Unauthorized)
        );
        assert_eq!(auth.check(HOME, Some("")), Err(Rejection::Unauthorized));
        assert_eq!(auth.check(HOME, None), Err(Rejection::Unauthorized));
        auth.set_tokens(Vec::new());
        assert_eq!(auth.check(HOME, Some(&text)), Err(Rejection::Unauthorized));
    }

    #[test]
    fn eleventh_failure_of_an_address_is_told_to_wait_but_a_right_token_still_works() {
        let (text, token) = new_token("ops", Role::Viewer).expect("random bytes");
        let auth = Auth::new(vec![token]);
        for _ in 0..ADMIN_FAILURES_PER_MINUTE {
            assert_eq!(auth.check(HOME, None), Err(Rejection::Unauthorized));
        }
        assert_eq!(auth.check(HOME, None), Err(Rejection::TooManyFailures));
        assert_eq!(
            auth.check([127, 0, 0, 2].into(), None),
            Err(Rejection::Unauthorized)
        );
        assert!(auth.check(HOME, Some(&text)).is_ok());
    }

    #[test]
    fn generated_token_is_kept_private_and_refused_when_it_is_not() {
        let directory = tempfile::tempdir().expect("directory");
        let first = generated_token(directory.path()).expect("made");
        assert_eq!(generated_token(directory.path()).expect("read"), first);
        let path = directory.path().join(TOKEN_FILE);
        assert_eq!(
            fs::metadata(&path).expect("file").permissions().mode() & 0o777,
            0o600
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(
            generated_token(directory.path()),
            Err(TokenError::Readable { .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::write(&path, "short").expect("write");
        assert!(matches!(
            generated_token(directory.path()),
            Err(TokenError::Short { .. })
        ));
    }
}
