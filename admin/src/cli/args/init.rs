//! Arguments of `init`.

use std::path::PathBuf;

/// Arguments of `init`.
#[derive(Clone, Debug, clap::Args)]
pub struct InitArgs {
    /// The file to write
    #[arg(default_value = "switchback.yaml", value_name = "FILE")]
    pub file: PathBuf,
    /// Where the version that serves now listens; repeat for several endpoints [default: asks, on a terminal]
    #[arg(long, value_name = "URL")]
    pub stable: Vec<String>,
    /// Where the new version listens; repeat for several endpoints
    #[arg(long, value_name = "URL", requires = "stable")]
    pub canary: Vec<String>,
    /// Label of the version that serves now
    #[arg(long, value_name = "LABEL", default_value = "1")]
    pub stable_version: String,
    /// Label of the new version
    #[arg(long, value_name = "LABEL", default_value = "2")]
    pub canary_version: String,
    /// Address for clients, or only a port, for clients of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: String,
    /// Name of the service
    #[arg(long, value_name = "NAME", default_value = "shop")]
    pub service: String,
    /// Path that tells whether an endpoint is well
    #[arg(long, value_name = "PATH")]
    pub health: Option<String>,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
}
