//! Arguments of `flag`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::WriteArgs;

/// What to do about feature flags.
#[derive(Debug, Subcommand)]
pub enum FlagVerb {
    /// Show all flags: what is in force, and who has changed what
    #[command(after_help = "Example: switchback flag list")]
    List,
    /// Turn a flag off at once; it stays off whatever the file says, until it is turned on
    #[command(after_help = "Example: switchback flag off new-checkout --reason 'orders are lost'")]
    Off {
        /// The flag
        flag: String,
        /// What comes with every change.
        #[command(flatten)]
        write: FlagWriteArgs,
    },
    /// Turn a flag on again
    #[command(after_help = "Example: switchback flag on new-checkout")]
    On {
        /// The flag
        flag: String,
        /// What comes with every change.
        #[command(flatten)]
        write: FlagWriteArgs,
    },
    /// Set the shares of a flag, or all of it; makes a flag that is new
    #[command(
        after_help = "Example: switchback flag set new-checkout --share 5%\nExample: switchback flag set button --share red=5% --share blue=10%\nExample: switchback flag set button --from button.yaml"
    )]
    Set {
        /// The flag
        flag: String,
        /// Share of targeting keys that get on, or a variant; those not named get the default
        #[arg(
            long = "share",
            value_name = "[VARIANT=]PERCENT",
            required_unless_present = "from",
            conflicts_with = "from"
        )]
        shares: Vec<String>,
        /// File with the whole flag, as it is written below `flags` in the config file
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// What comes with every change.
        #[command(flatten)]
        write: FlagWriteArgs,
    },
    /// Forget what was set: the flag is as in the file, or gone if the file does not name it
    #[command(after_help = "Example: switchback flag unset new-checkout")]
    Unset {
        /// The flag
        flag: String,
        /// What comes with every change.
        #[command(flatten)]
        write: FlagWriteArgs,
    },
    /// Show what a flag says to somebody, and why
    #[command(
        after_help = "Example: switchback flag eval new-checkout --key user-7 --context plan=gold --context age=17"
    )]
    Eval {
        /// The flag
        flag: String,
        /// The targeting key, by which shares are given
        #[arg(long)]
        key: Option<String>,
        /// What rules are about; true, false and numbers are what they look like
        #[arg(long, value_name = "NAME=VALUE")]
        context: Vec<String>,
    },
}

/// What comes with every change of a flag.
#[derive(Clone, Debug, Default, Args)]
pub struct FlagWriteArgs {
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Show what would change, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Only if the state is still at this revision
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
}

impl From<FlagWriteArgs> for WriteArgs {
    fn from(args: FlagWriteArgs) -> Self {
        Self {
            reason: args.reason,
            dry_run: args.dry_run,
            if_revision: args.if_revision,
            wait_drained: false,
        }
    }
}
