//! Verbs and their arguments.

mod cluster;
mod database;
mod flags;
mod history;
mod hooks;
mod import;
mod init;
mod rollout;
mod runbook;
mod simulate;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use switchback_config::units::TimeSpan;

use crate::auth::Role;
pub use cluster::ClusterVerb;
pub use database::{DeclaredArgs, GateVerb, MigrationArg, PhaseArg, SchemaVerb};
pub use flags::FlagVerb;
pub use history::{DiffArgs, HistoryArgs, RestoreArgs};
pub use hooks::HooksVerb;
pub use import::ImportTool;
pub use init::InitArgs;
pub use rollout::{DeployArgs, PlanArgs, RolloutVerb};
pub use runbook::{RunbookVerb, WayBack};
pub use simulate::SimulateArgs;

/// The ingress that rolls bad releases back by itself.
#[derive(Debug, Parser)]
#[command(name = "switchback", version, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Whom to ask.
    #[command(flatten)]
    pub target: Target,
}

/// How to find a running switchback, and how to print what it says.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// URL of the admin API [default: the config file's, or http://127.0.0.1:9900]
    #[arg(
        long,
        global = true,
        env = "SWITCHBACK_ADMIN",
        value_name = "URL",
        help_heading = "Connection"
    )]
    pub admin: Option<String>,
    /// File with the token [default: $SWITCHBACK_TOKEN, or admin.token in the state directory]
    #[arg(
        long,
        global = true,
        env = "SWITCHBACK_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    pub token_file: Option<PathBuf>,
    /// PEM file with the authorities to trust for an https admin URL
    #[arg(
        long,
        global = true,
        env = "SWITCHBACK_ADMIN_CA",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    pub ca: Option<PathBuf>,
    /// State directory
    #[arg(
        long,
        global = true,
        env = "SWITCHBACK_STATE_DIR",
        value_name = "DIR",
        help_heading = "Connection"
    )]
    pub state_dir: Option<PathBuf>,
    /// Output
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For documents: `incident` writes its report, other verbs their table
    Markdown,
}

/// What comes with every change.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WriteArgs {
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Show what would change, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Only if the state is still at this revision
    #[arg(long, value_name = "N")]
    pub if_revision: Option<u64>,
    /// Wait until backends without weight have finished their requests
    #[arg(long)]
    pub wait_drained: bool,
}

/// Arguments of `demo`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DemoArgs {
    /// Port of the proxy
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Port of the admin API
    #[arg(long, default_value_t = 9900)]
    pub admin_port: u16,
    /// End after so many seconds [default: stay until Ctrl-C]
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// Make no requests
    #[arg(long)]
    pub no_load: bool,
}

/// Arguments of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Config file [default: $SWITCHBACK_CONFIG, ./switchback.yaml, /etc/switchback/switchback.yaml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// If the file is not valid, start with the last one that was
    #[arg(long)]
    pub last_good: bool,
    /// Take over from the process that uses the state directory, without losing a request; start as
    /// usual if there is none
    #[arg(long)]
    pub takeover: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "made once, by the command line")]
pub enum Verb {
    /// Show how it works: two backends, a split, a switch, a rollback. Needs nothing
    #[command(after_help = "Example: switchback demo --seconds 20")]
    Demo(DemoArgs),
    /// Run the proxy
    #[command(
        after_help = "Example: switchback run --config switchback.yaml\nExample: switchback run --config switchback.yaml --takeover   # replaces the running one, e.g. by a new version"
    )]
    Run(RunArgs),
    /// Write a first config file, from flags or from answers
    #[command(
        after_help = "Example: switchback init --stable http://127.0.0.1:9001 --canary http://127.0.0.1:9002"
    )]
    Init(InitArgs),
    /// Check a config file: print every fault, exit 0 or 78
    #[command(after_help = "Example: switchback check switchback.yaml")]
    Check {
        /// The file
        file: PathBuf,
        /// Print the file with every default filled in
        #[arg(long)]
        explain: bool,
    },
    /// Print the JSON Schema of the config file, or work on the schemas of databases
    #[command(
        alias = "schema-version",
        after_help = "Example: switchback schema > switchback.schema.json\nExample: switchback schema set checkout 4"
    )]
    Schema {
        /// About the database of a service
        #[command(subcommand)]
        verb: Option<SchemaVerb>,
    },
    /// Ask whether a service can be rolled back right now: exit 0, or 1 with reasons
    #[command(after_help = "Example: switchback ready checkout")]
    Ready {
        /// The service
        service: String,
    },
    /// Show the ways back beside each other: how fast each was here, and what it would do to data
    #[command(after_help = "Example: switchback methods checkout")]
    Methods {
        /// The service
        service: String,
    },
    /// Tell what is wrong and what to do about it, the recommended way first
    #[command(after_help = "Example: switchback diagnose checkout --within 30m")]
    Diagnose {
        /// The service
        service: String,
        /// How far back changes are looked at [default: 1h]
        #[arg(long, value_name = "DURATION")]
        within: Option<TimeSpan>,
    },
    /// Ask whether something that cannot be undone may begin: exit 0 or 1
    #[command(after_help = "Example: switchback gate contract checkout")]
    Gate {
        /// What
        #[command(subcommand)]
        verb: GateVerb,
    },
    /// Take over what another tool was told about rollouts: prints keys of a service, and what it has left out
    #[command(
        after_help = "Example: switchback import argo rollout.yaml\nExample: switchback import flagger canary.yaml -o json"
    )]
    Import {
        /// Whose file it is
        tool: ImportTool,
        /// The file; `-` for standard input
        file: PathBuf,
    },
    /// Replay an access log through the judge: when would it have rolled back, and whom would that have spared
    #[command(
        after_help = "Example: switchback simulate --log access.jsonl --config switchback.yaml --inject 'green 5xx=3% from 10:05'\nExample: zcat access.log.*.gz | switchback simulate --log - --with 'max_extra_errors=2%; min_failures=10'"
    )]
    Simulate(SimulateArgs),
    /// Show services, backends and their traffic
    #[command(after_help = "Example: switchback status checkout")]
    Status {
        /// Only this service
        service: Option<String>,
        /// Show it again every second
        #[arg(long)]
        watch: bool,
    },
    /// Watch all services live, and act: roll back, pause and resume rollouts
    #[command(
        after_help = "Example: switchback top\nExample: NO_COLOR=1 switchback top --admin http://127.0.0.1:9900"
    )]
    Top,
    /// Tell why traffic goes where it goes, what comes next, and what to do
    #[command(after_help = "Example: switchback explain checkout")]
    Explain {
        /// The service
        service: String,
    },
    /// Set all weights of a service
    #[command(
        after_help = "Example: switchback weights checkout blue=95 green=5 --reason 'try 42'"
    )]
    Weights {
        /// The service
        service: String,
        /// The weight of every backend
        #[arg(required = true, value_name = "BACKEND=WEIGHT")]
        weights: Vec<String>,
        /// They end after this time, unless they are set again
        #[arg(long, value_name = "DURATION")]
        lease: Option<TimeSpan>,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// The red button: take all traffic from canaries, or go back to the previous stable
    #[command(after_help = "Example: switchback rollback checkout")]
    Rollback {
        /// The service [default: the only one]
        service: Option<String>,
        /// All services
        #[arg(long, conflicts_with = "service")]
        all: bool,
        /// Even if the target has no healthy endpoint
        #[arg(long)]
        force: bool,
        /// End open streams of the losing backends now
        #[arg(long)]
        cut: bool,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Make another backend stable at once
    #[command(after_help = "Example: switchback switch checkout --to green")]
    Switch {
        /// The service
        service: String,
        /// The new stable
        #[arg(long)]
        to: String,
        /// Even if it is not known to be healthy
        #[arg(long)]
        force: bool,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Take all traffic from a backend's version and keep it out
    #[command(after_help = "Example: switchback block checkout green")]
    Block {
        /// The service
        service: String,
        /// The backend
        backend: String,
        /// Even if stable has no healthy endpoint
        #[arg(long)]
        force: bool,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Allow a blocked version again; moves no traffic
    #[command(after_help = "Example: switchback unblock checkout green")]
    Unblock {
        /// The service
        service: String,
        /// The backend
        backend: String,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Work on backends
    #[command(
        after_help = "Example: switchback backend set checkout green --version 43 --endpoint http://10.0.0.7:8080"
    )]
    Backend {
        /// What to do
        #[command(subcommand)]
        verb: BackendVerb,
    },
    /// Let a new version in step by step
    #[command(after_help = "Example: switchback rollout start checkout --canary green")]
    Rollout {
        /// What to do
        #[command(subcommand)]
        verb: RolloutVerb,
    },
    /// All of a deployment in one: register the version on an idle backend, wait for its health, roll it
    /// out, wait: exit 0 promoted, 10 rolled back, 11 held, 75 not in time
    #[command(
        after_help = "Example: switchback deploy checkout --version 43 --endpoint http://10.0.0.7:8080"
    )]
    Deploy(DeployArgs),
    /// Show what changed: who, when, why
    #[command(after_help = "Example: switchback history checkout")]
    History(HistoryArgs),
    /// Show what differs between a revision and another one, or what is in force now
    #[command(after_help = "Example: switchback diff 12")]
    Diff(DiffArgs),
    /// Bring back what was in force after a revision, as a new revision; lifts no block
    #[command(after_help = "Example: switchback restore 12 checkout --dry-run")]
    Restore(RestoreArgs),
    /// Show rollbacks: what, when, why, and whether it helped
    #[command(after_help = "Example: switchback incidents checkout")]
    Incidents {
        /// Only this service
        service: Option<String>,
    },
    /// Show the evidence of one rollback; with -o markdown, write the report of the incident
    #[command(after_help = "Example: switchback incident 123 -o markdown > incident-123.md")]
    Incident {
        /// Its number, see `switchback incidents` [default: the last one]
        id: Option<u64>,
        /// Only check the record: exit 0 if the judge comes to the same verdict again, else 1
        #[arg(long)]
        verify: bool,
    },
    /// Show what happens
    #[command(after_help = "Example: switchback events --follow")]
    Events {
        /// Go on as it happens
        #[arg(long)]
        follow: bool,
    },
    /// Show who asked for what, and what came of it
    #[command(
        after_help = "Example: switchback audit -o json\nExample: switchback audit --verify   # exit 1 if somebody has changed the record"
    )]
    Audit {
        /// Only check the record: exit 0 if it is what was written, else 1, naming the entry
        #[arg(long)]
        verify: bool,
    },
    /// Turn feature flags off and on, and ask what they say
    #[command(after_help = "Example: switchback flag off new-checkout")]
    Flag {
        /// What to do
        #[command(subcommand)]
        verb: FlagVerb,
    },
    /// Rehearse a rollback on a shadow of a service, which no user meets: exit 0 if everything held, else 1
    #[command(
        after_help = "Example: switchback drill checkout\nExample: switchback drill checkout --live   # also moves 1 % of its traffic and back\nExample: switchback drill checkout --last"
    )]
    Drill {
        /// The service
        service: String,
        /// Also move 1 % of the traffic to the other backend and back
        #[arg(long)]
        live: bool,
        /// Only show the last one
        #[arg(long, conflicts_with = "live")]
        last: bool,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Carry out runbooks: assess, decide, go back, verify, tell, and what is left to people
    #[command(after_help = "Example: switchback runbook run checkout")]
    Runbook {
        /// What to do
        #[command(subcommand)]
        verb: RunbookVerb,
    },
    /// Work on hooks and the messages to them
    #[command(after_help = "Example: switchback hooks dead")]
    Hooks {
        /// What to do
        #[command(subcommand)]
        verb: HooksVerb,
    },
    /// Look after the instances that share one state
    #[command(after_help = "Example: switchback cluster list")]
    Cluster {
        /// What to do
        #[command(subcommand)]
        verb: ClusterVerb,
    },
    /// Read the config file again
    #[command(after_help = "Example: switchback reload --dry-run")]
    Reload {
        /// Show what would change, change nothing
        #[arg(long)]
        dry_run: bool,
        /// Also remove routes that are still used
        #[arg(long)]
        force: bool,
    },
    /// Leave the stable-only state after the recorded state was lost
    #[command(after_help = "Example: switchback acknowledge")]
    Acknowledge,
    /// Work on tokens of the admin API
    #[command(after_help = "Example: switchback token new --name ci --role operator")]
    Token {
        /// What to do
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Ask whether switchback is ready: exit 0, 1 if it is not, 69 if nothing listens
    #[command(after_help = "Example: switchback healthcheck --admin http://127.0.0.1:9900")]
    Healthcheck,
    /// Print completions for a shell
    #[command(
        after_help = "Example: switchback completions bash > /etc/bash_completion.d/switchback"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a directory
    #[command(after_help = "Example: switchback man /usr/local/share/man/man1")]
    Man {
        /// The directory
        directory: PathBuf,
    },
}

/// What to do with a backend.
#[derive(Debug, Subcommand)]
pub enum BackendVerb {
    /// Register what is deployed on a backend, for example from a deploy job
    #[command(
        after_help = "Example: switchback backend set checkout green --version 43 --endpoint http://10.0.0.7:8080"
    )]
    Set {
        /// The service
        service: String,
        /// The backend
        backend: String,
        /// Label of what is deployed
        #[arg(long)]
        version: String,
        /// Address; repeat for several
        #[arg(long = "endpoint", required = true, value_name = "URL")]
        endpoints: Vec<String>,
        /// What it says about the database.
        #[command(flatten)]
        declared: DeclaredArgs,
        /// Even if the backend has weight
        #[arg(long)]
        force: bool,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a token, and the lines for the tokens file
    #[command(
        after_help = "Example: switchback token new --name ci --role operator\nExample: switchback token new --name shop   # for ofrep.tokens_file"
    )]
    New {
        /// Who will hold it
        #[arg(long)]
        name: String,
        /// viewer, rollback, operator or admin; none: it may ask for flags, and nothing else
        #[arg(long)]
        role: Option<Role>,
    },
}
