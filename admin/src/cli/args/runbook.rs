//! Arguments of `runbook`.

use clap::{Args, Subcommand, ValueEnum};

use super::WriteArgs;

/// What to do about runbooks.
#[derive(Debug, Subcommand)]
pub enum RunbookVerb {
    /// Show all runbooks of the file, and where their runs stand
    #[command(after_help = "Example: switchback runbook list")]
    List,
    /// Show the run of a service: what each step found, and what it waits for
    #[command(after_help = "Example: switchback runbook show checkout")]
    Show {
        /// The service
        service: String,
    },
    /// Carry out a runbook: exit 0 when all is done, 11 when a step waits for a tick
    #[command(
        after_help = "Example: switchback runbook run checkout --reason 'checkout fails'\nExample: switchback runbook run checkout --runbook rollback --method traffic"
    )]
    Run {
        /// The service
        service: String,
        /// Which one [default: the only one for the service]
        #[arg(long, value_name = "NAME")]
        runbook: Option<String>,
        /// The way back, if it is decided already
        #[arg(long, value_enum)]
        method: Option<WayBack>,
        /// Return at once, and let it go on by itself
        #[arg(long)]
        detach: bool,
        /// What comes with every change.
        #[command(flatten)]
        write: RunbookWriteArgs,
    },
    /// Say that the step which waits is done, or may begin
    #[command(
        after_help = "Example: switchback runbook tick checkout --reason 'queue is drained'\nExample: switchback runbook tick checkout --skip"
    )]
    Tick {
        /// The service
        service: String,
        /// The step [default: the one that waits]
        #[arg(long, value_name = "N")]
        step: Option<u64>,
        /// Pass it over
        #[arg(long)]
        skip: bool,
        /// The way back, of a step that decides or goes back
        #[arg(long, value_enum)]
        method: Option<WayBack>,
        /// What comes with every change.
        #[command(flatten)]
        write: RunbookWriteArgs,
    },
    /// End a run; what it has done stays done
    #[command(after_help = "Example: switchback runbook stop checkout")]
    Stop {
        /// The service
        service: String,
        /// What comes with every change.
        #[command(flatten)]
        write: RunbookWriteArgs,
    },
}

/// A way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WayBack {
    /// The flags of the failing version go off
    Flag,
    /// What was in force before the last change of the file comes back
    Config,
    /// All traffic goes back
    Traffic,
    /// The previous version is deployed again, by whoever deploys
    Redeploy,
}

impl WayBack {
    pub(in crate::cli) const fn as_str(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Config => "config",
            Self::Traffic => "traffic",
            Self::Redeploy => "redeploy",
        }
    }
}

/// What comes with every change of a run.
#[derive(Clone, Debug, Default, Args)]
pub struct RunbookWriteArgs {
    /// Why, or what was done, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Show what would change, change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Only if the state is still at this revision
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
}

impl From<RunbookWriteArgs> for WriteArgs {
    fn from(args: RunbookWriteArgs) -> Self {
        Self {
            reason: args.reason,
            dry_run: args.dry_run,
            if_revision: args.if_revision,
            wait_drained: false,
        }
    }
}
