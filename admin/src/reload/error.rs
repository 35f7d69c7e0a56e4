//! Why a file is not in force, in words that say what to do about it, and in stable codes.

use std::io;
use std::path::PathBuf;

use switchback_config::diagnostic::Diagnostic;
use switchback_config::diff::Change;
use switchback_config::model::Name;
use switchback_config::units::Endpoint;
use switchback_proxy::health::is_own_want;

use crate::command::Refusal;
use crate::control::AskError;
use crate::files::FileError;
use crate::route_uses::{Used, in_words};

/// A file could not be taken over. The last good one stays in force, unless it is only not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The process was started without a file.
    #[error("there is no config file to read")]
    NoFile,
    /// It cannot be read.
    #[error("read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        cause: io::Error,
    },
    /// It has faults.
    #[error("{rendered}")]
    Invalid {
        /// The faults.
        diagnostics: Vec<Diagnostic>,
        /// The faults under the lines they are about.
        rendered: String,
    },
    /// A file that it names cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// It changes what only a restart can change.
    #[error(
        "{}: only a restart can change this, so nothing of the file is in force; restart, upgrade in place, or take it out of the file until then",
        paths(.0)
    )]
    RestartOnly(Vec<Change>),
    /// A listener's address cannot be bound.
    #[error("listeners.{name}: bind {address}: {cause}")]
    Bind {
        /// The listener.
        name: Name,
        /// Its address.
        address: std::net::SocketAddr,
        /// What went wrong.
        #[source]
        cause: io::Error,
    },
    /// It takes routes away that are still used.
    #[error(
        "a reload would remove what is used: {}; wait, keep the route, or force it: switchback reload --force",
        in_words(.0)
    )]
    RouteInUse(Vec<Used>),
    /// An endpoint leads back here.
    #[error(
        "{place}: {endpoint}: switchback itself listens there, requests would go round in circles; use the address of a backend"
    )]
    OwnEndpoint {
        /// Where in the file.
        place: String,
        /// The endpoint.
        endpoint: Endpoint,
    },
    /// The controller refused it; or it is in force, and not everybody has confirmed that in time.
    #[error(transparent)]
    Refused(#[from] AskError),
}

fn paths(changes: &[Change]) -> String {
    let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    paths.join(", ")
}

impl ReloadError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoFile => "no_config_file",
            Self::Read { .. } => "config_unreadable",
            Self::Invalid { .. } => "config_invalid",
            Self::File(_) => "config_file_refused",
            Self::RestartOnly(_) => "restart_only",
            Self::Bind { .. } => "cannot_bind",
            Self::RouteInUse(_) => "route_in_use",
            Self::OwnEndpoint { .. } => "endpoint_refused",
            Self::Refused(AskError::Refused(refusal)) => refusal.code(),
            Self::Refused(
                AskError::Unconfirmed(_) | AskError::NotFollowed | AskError::NotAcknowledged(_),
            ) => "apply_unconfirmed",
        }
    }

    /// Whether the same file may be taken over a moment later.
    #[must_use]
    pub fn is_for_now(&self) -> bool {
        match self {
            Self::Refused(AskError::Refused(refusal)) => matches!(
                refusal,
                Refusal::HandingOver
                    | Refusal::Busy
                    | Refusal::Overtaken
                    | Refusal::NotDurable(_)
                    | Refusal::ClusterAway
                    | Refusal::ClusterUnknown
            ),
            Self::Read { cause, .. } => is_own_want(cause),
            _ => false,
        }
    }

    /// The faults of the file, if that is what is wrong.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Invalid { diagnostics, .. } => diagnostics,
            _ => &[],
        }
    }
}
