//! The command line: what an operator types.
//!
//! Verbs that change or show a running switchback are clients of its API and print what it answers;
//! the others work on files alone. Exit codes are stable, so that scripts can tell a refusal from a
//! server that is not there.

mod args;
mod client;
mod cluster;
mod database;
mod drill;
mod events;
mod explain;
mod files;
mod flags;
mod history;
mod hooks;
mod import;
mod incident;
mod init;
mod look;
mod recovery;
mod rollout;
mod runbook;
mod show;
mod simulate;
mod top;
mod verbs;
mod watch;

use std::process::ExitCode;

use serde_json::{Value, json};
use switchback_config::defaults;

use args::Output;
pub use args::{
    Args, BackendVerb, ClusterVerb, Color, DeclaredArgs, DemoArgs, DeployArgs, DiffArgs, FlagVerb,
    GateVerb, HistoryArgs, HooksVerb, ImportTool, InitArgs, MigrationArg, PhaseArg, PlanArgs,
    RestoreArgs, RolloutVerb, RunArgs, RunbookVerb, SchemaVerb, SimulateArgs, Target, TokenVerb,
    Verb, WayBack,
};
use client::ClientError;
pub use files::{find_config, state_dir};

/// Exit codes beyond 0 (done), 1 (failed) and 2 (usage).
pub mod exit {
    /// Stopped, but connections had to be cut.
    pub const CUT: u8 = 3;
    /// A rollout ended with a rollback.
    pub const ROLLED_BACK: u8 = 10;
    /// A rollout does not go on by itself, or gave up.
    pub const HELD: u8 = 11;
    /// The admin API cannot be reached.
    pub const UNREACHABLE: u8 = 69;
    /// Something cannot be bound or created.
    pub const CANNOT_CREATE: u8 = 73;
    /// A conflict or a timeout: look, then try again.
    pub const CONFLICT: u8 = 75;
    /// The token is missing, wrong, or allows too little.
    pub const AUTH: u8 = 77;
    /// The configuration is not valid.
    pub const CONFIG: u8 = 78;

    /// What a code says, for programs that get no answer of the API to look at.
    pub(super) const fn name(code: u8) -> &'static str {
        match code {
            2 => "usage",
            ROLLED_BACK => "rolled_back",
            HELD => "held",
            UNREACHABLE => "unreachable",
            CANNOT_CREATE => "cannot_create",
            CONFLICT => "conflict",
            AUTH => "unauthorized",
            CONFIG => "config_invalid",
            _ => "failed",
        }
    }
}

/// A verb that did not end well: what to print on standard error, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// In words.
    pub message: String,
    /// Exit code.
    pub code: u8,
    /// What the API said, if it said anything.
    pub problem: Option<Box<Value>>,
}

impl Failed {
    /// An ordinary failure.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 1,
            problem: None,
        }
    }

    /// A failure with an exit code of its own.
    #[must_use]
    pub fn with_code(message: impl Into<String>, code: u8) -> Self {
        Self {
            message: message.into(),
            code,
            problem: None,
        }
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Self {
            message: error.to_string(),
            code: error.exit_code(),
            problem: error.into_problem(),
        }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// Carries out a verb other than `run` and `demo`.
#[must_use]
pub fn carry_out(args: Args) -> ExitCode {
    let Args { verb, target } = args;
    target.color.choose();
    let output = target.output;
    let result = match verb {
        Verb::Init(args) => init::init(&target, args),
        Verb::Check { file, explain } => files::check(&target, &file, explain),
        Verb::Schema { verb: None } => files::schema(),
        Verb::Import { tool, file } => import::import(&target, tool, &file),
        Verb::Simulate(args) => simulate::simulate(&target, &args),
        Verb::Completions { shell } => files::completions(shell),
        Verb::Man { directory } => files::man(&directory),
        Verb::Token {
            verb: TokenVerb::New { name, role },
        } => files::new_token(&target, &name, role),
        verb => online(&target, verb),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failed) => {
            say(&failed, output);
            ExitCode::from(failed.code)
        }
    }
}

/// Says on standard error what went wrong: for programs, what the API said, or the same in its shape.
fn say(failed: &Failed, output: Output) {
    match (output, &failed.problem) {
        (Output::Table | Output::Markdown, _) => {
            anstream::eprintln!("switchback: {}", failed.message)
        }
        (Output::Json, Some(problem)) => anstream::eprintln!("{problem:#}"),
        (Output::Json, None) => {
            let code = exit::name(failed.code);
            let problem = json!({"code": code, "detail": failed.message});
            anstream::eprintln!("{problem:#}");
        }
    }
}

/// Verbs that talk to a running switchback.
fn online(target: &Target, verb: Verb) -> Result<u8, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut client = client::Client::new(target)?;
        if let Verb::Switch { .. }
        | Verb::Rollout {
            verb: RolloutVerb::Promote { .. },
        } = &verb
        {
            // Hooks may be asked first, and each has its deadline on the other side.
            client.patience = defaults::UNTIL_DEADLINE_MAX;
        }
        if let Verb::Drill { .. } = &verb {
            client.patience = drill::PATIENCE;
        }
        if let Verb::Status { watch: true, .. } = &verb {
            client.patience = watch::PATIENCE;
        }
        match verb {
            Verb::Status { service, watch } => {
                show::status(&client, service.as_deref(), watch).await
            }
            Verb::Top => top::top(client).await,
            Verb::History(args) => history::history(&client, args).await,
            Verb::Explain { service } => explain::explain(&client, &service).await,
            Verb::Diff(args) => history::diff(&client, args).await,
            Verb::Restore(args) => history::restore(&client, args).await,
            Verb::Incidents { service } => incident::list(&client, service.as_deref()).await,
            Verb::Incident { id, verify } => incident::show(&client, id, verify).await,
            Verb::Events { follow } => events::events(&client, follow).await,
            Verb::Audit { verify: false } => show::audit(&client).await,
            Verb::Audit { verify: true } => show::check_audit(&client).await,
            Verb::Healthcheck => show::healthcheck(&client).await,
            Verb::Rollout { verb } => rollout::carry_out(&client, verb).await,
            Verb::Cluster { verb } => cluster::carry_out(&client, verb).await,
            Verb::Hooks { verb } => hooks::carry_out(&client, verb).await,
            Verb::Drill {
                service,
                live,
                last,
                reason,
            } => drill::drill(&client, &service, live, last, reason).await,
            Verb::Runbook { verb } => runbook::carry_out(&client, verb).await,
            Verb::Schema { verb: Some(verb) } => database::carry_out(&client, verb).await,
            Verb::Ready { service } => recovery::ready(&client, &service).await,
            Verb::Methods { service } => recovery::methods(&client, &service).await,
            Verb::Diagnose { service, within } => {
                recovery::diagnose(&client, &service, within).await
            }
            Verb::Gate { verb } => database::gate(&client, verb).await,
            Verb::Flag { verb } => flags::carry_out(&client, verb).await,
            Verb::Deploy(args) => rollout::deploy(&client, args).await,
            verb => verbs::write(&client, verb).await,
        }
    })
}
