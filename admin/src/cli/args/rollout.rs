//! The verbs that let a new version in step by step.

use clap::Subcommand;
use switchback_config::model::Step;
use switchback_config::units::TimeSpan;

use super::{DeclaredArgs, WriteArgs};

/// What to do with a rollout.
#[derive(Debug, Subcommand)]
pub enum RolloutVerb {
    /// Begin: the canary gets the first step's share
    #[command(after_help = "Example: switchback rollout start checkout --canary green")]
    Start {
        /// The service
        service: String,
        /// What to roll out, and how.
        #[command(flatten)]
        plan: PlanArgs,
        /// The backend that grows [default: the only one besides stable]
        #[arg(long)]
        canary: Option<String>,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Go on to the next step now; after the last one, the canary becomes stable
    #[command(after_help = "Example: switchback rollout promote checkout --full")]
    Promote {
        /// The service
        service: String,
        /// To the end: the canary becomes stable
        #[arg(long)]
        full: bool,
        /// Even if the judge holds
        #[arg(long)]
        force: bool,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Keep it at its step
    #[command(after_help = "Example: switchback rollout pause checkout --reason 'lunch'")]
    Pause {
        /// The service
        service: String,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Let a paused one go on
    #[command(after_help = "Example: switchback rollout resume checkout")]
    Resume {
        /// The service
        service: String,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Show how far it has come
    #[command(after_help = "Example: switchback rollout show checkout")]
    Show {
        /// The service
        service: String,
    },
    /// Wait for its end: exit 0 promoted, 10 rolled back, 11 held, 75 not in time
    #[command(after_help = "Example: switchback rollout wait checkout --timeout 2h")]
    Wait {
        /// The service
        service: String,
        /// Exit 11 at once unless the last rollout is of this version [default: whichever is the last one]
        #[arg(long, value_name = "LABEL")]
        version: Option<String>,
        /// How long to wait
        #[arg(long, default_value = "2h", value_name = "DURATION")]
        timeout: TimeSpan,
    },
}

/// How a rollout goes, where it differs from the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PlanArgs {
    /// A step, instead of the file's; repeat for several
    #[arg(long = "step", value_name = "\"10% for 5m\"")]
    pub steps: Vec<Step>,
    /// No stretch with a control group before the end
    #[arg(long)]
    pub no_bake: bool,
    /// Skip the steps, for a version that was stable before
    #[arg(long)]
    pub fast: bool,
    /// Even if the canary is not known to be healthy
    #[arg(long)]
    pub force: bool,
    /// The same key again starts no second rollout
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// Arguments of `deploy`.
#[derive(Clone, Debug, clap::Args)]
pub struct DeployArgs {
    /// The service
    pub service: String,
    /// Label of what is deployed
    #[arg(long)]
    pub version: String,
    /// Address; repeat for several
    #[arg(long = "endpoint", required = true, value_name = "URL")]
    pub endpoints: Vec<String>,
    /// What it says about the database.
    #[command(flatten)]
    pub declared: DeclaredArgs,
    /// The backend to use [default: an idle one, rather not the rollback target]
    #[arg(long)]
    pub backend: Option<String>,
    /// What to roll out, and how.
    #[command(flatten)]
    pub plan: PlanArgs,
    /// How long the new version may take to become healthy
    #[arg(long, default_value = "2m", value_name = "DURATION")]
    pub health_timeout: TimeSpan,
    /// How long all of it may take
    #[arg(long, default_value = "2h", value_name = "DURATION")]
    pub timeout: TimeSpan,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}
