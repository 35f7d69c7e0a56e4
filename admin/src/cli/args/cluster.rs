//! Arguments of `cluster`.

use clap::Subcommand;

/// What to do about the instances that share one state.
#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// Show who they are, whether they are alive, and whether they follow
    #[command(after_help = "Example: switchback cluster list")]
    List,
    /// Take an instance out of use: its /readyz says 503
    #[command(
        after_help = "Example: switchback cluster drain edge-2 --reason 'new kernel'\nExample: switchback cluster drain edge-2 --undo"
    )]
    Drain {
        /// Its name
        name: String,
        /// Use it again
        #[arg(long)]
        undo: bool,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Forget an instance that is gone for good
    #[command(after_help = "Example: switchback cluster remove edge-2")]
    Remove {
        /// Its name
        name: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}
