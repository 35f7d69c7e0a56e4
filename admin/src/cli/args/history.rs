//! Arguments of the verbs about the past.

use super::WriteArgs;

/// Arguments of `history`.
#[derive(Clone, Debug, clap::Args)]
pub struct HistoryArgs {
    /// Only this service
    pub service: Option<String>,
    /// Show so many revisions, the newest first
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=500))]
    pub limit: u64,
    /// Show one revision with everything it changed
    #[arg(long, value_name = "N", conflicts_with_all = ["service", "limit"])]
    pub revision: Option<u64>,
}

/// Arguments of `diff`.
#[derive(Clone, Debug, clap::Args)]
pub struct DiffArgs {
    /// The revision to compare
    pub revision: u64,
    /// The revision to compare it with [default: what is in force now]
    pub to: Option<u64>,
    /// Only this service
    #[arg(long)]
    pub service: Option<String>,
}

/// Arguments of `restore`.
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreArgs {
    /// The revision whose state is wanted; 0: before the first change
    pub revision: u64,
    /// Only this service
    pub service: Option<String>,
    /// Even if a backend that gets traffic is not known to be healthy, and without asking hooks
    #[arg(long)]
    pub force: bool,
    /// What comes with every change.
    #[command(flatten)]
    pub write: WriteArgs,
}
