//! Several instances that share one state.

use std::path::PathBuf;

use serde::Serialize;

use super::Name;
use crate::units::TimeSpan;

/// Several instances that share weights, roles, blocks, rollouts and flags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// Instances with the same one belong together.
    pub name: Name,
    /// Name of this instance; none: the machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<Name>,
    /// Where the shared state is kept.
    pub etcd: Etcd,
    /// An instance that is not heard of for so long is not waited for any more.
    pub lease: TimeSpan,
}

/// Where the shared state is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Etcd {
    /// URLs of its members, at least one.
    pub endpoints: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// PEM file with the authorities that its members are trusted by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// PEM file with the chain of this instance's own certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file with the key of that; there if `certificate` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Name of its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File with the user's password; there if `user` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}
