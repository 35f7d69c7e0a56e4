//! That a page and what it loads come from the same version.

use serde::Serialize;

use super::AffinityKey;

/// Keeps a client on the version that its page came from, and finds what only another version has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pin {
    /// Where a request says which version its page came from.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub key: Option<AffinityKey>,
    /// Paths of files that belong to one version: what one does not have is looked for at the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub assets: Vec<String>,
}
