//! Arguments of the verbs about databases, and of what a deploy job says about one.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use switchback_config::units::TimeSpan;

use super::WriteArgs;

/// What to do about the schema of a database.
#[derive(Debug, Subcommand)]
pub enum SchemaVerb {
    /// Show the schema of a service's database, how far a change of it has come, and who can live with it
    #[command(after_help = "Example: switchback schema show checkout")]
    Show {
        /// The service
        service: String,
    },
    /// Record which schema the database has now, for example from the migration job
    #[command(after_help = "Example: switchback schema set checkout 4")]
    Set {
        /// The service
        service: String,
        /// Version of the schema
        version: u32,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Record how far a change of the schema has come; the contract begins only if its gate is open
    #[command(after_help = "Example: switchback schema phase checkout expand")]
    Phase {
        /// The service
        service: String,
        /// The phase that begins
        phase: PhaseArg,
        /// Of the contract: the schema that it leaves [default: the next one]
        #[arg(long, value_name = "N")]
        schema: Option<u32>,
        /// Of the contract: even if its gate is closed
        #[arg(long)]
        force: bool,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Record that the reverse migration was rehearsed elsewhere
    #[command(after_help = "Example: switchback schema rehearsed checkout --took 12m")]
    Rehearsed {
        /// The service
        service: String,
        /// How long it took
        #[arg(long, value_name = "DURATION")]
        took: Option<TimeSpan>,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Show the command of the reverse migration, when it was rehearsed and what to look at before; never
    /// runs it
    #[command(
        after_help = "Example: switchback schema reverse checkout\nExample: switchback schema reverse checkout --confirm --reason 'orders are lost'"
    )]
    Reverse {
        /// The service
        service: String,
        /// Record that you have gone through the checklist and run it yourself
        #[arg(long)]
        confirm: bool,
        /// What comes with every change.
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// A phase of a change of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PhaseArg {
    /// The new form is added beside the old one
    Expand,
    /// Old data is brought into the new form
    Migrate,
    /// The new form is read
    SwitchReads,
    /// The old form is removed
    Contract,
    /// The change is over
    Done,
}

impl PhaseArg {
    /// As the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Migrate => "migrate",
            Self::SwitchReads => "switch_reads",
            Self::Contract => "contract",
            Self::Done => "done",
        }
    }
}

/// Which gate to ask.
#[derive(Debug, Subcommand)]
pub enum GateVerb {
    /// Ask whether the old form of a database may be removed: exit 0, or 1 with reasons
    #[command(after_help = "Example: switchback gate contract checkout && ./contract.sh")]
    Contract {
        /// The service
        service: String,
        /// The schema that the contract leaves [default: the next one]
        #[arg(long, value_name = "N")]
        schema: Option<u32>,
    },
}

/// What a version says about the database.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DeclaredArgs {
    /// Schema versions that it can live with
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        requires = "schema_writes"
    )]
    pub schema_reads: Vec<u32>,
    /// Schema version in whose form it writes
    #[arg(long, value_name = "N", requires = "schema_reads")]
    pub schema_writes: Option<u32>,
    /// What its release does to the database
    #[arg(long, value_enum)]
    pub migration: Option<MigrationArg>,
}

/// What a release does to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrationArg {
    /// Nothing
    None,
    /// It adds what older versions do not mind
    Expand,
    /// It removes what only older versions need
    Contract,
    /// It loses data: nobody but a person rolls it back
    Destructive,
}

impl DeclaredArgs {
    /// Says it in the body of a request.
    pub(in crate::cli) fn say(&self, body: &mut Value) {
        if let Some(writes) = self.schema_writes {
            body["schema"] = json!({"reads": self.schema_reads, "writes": writes});
        }
        if let Some(migration) = self.migration {
            body["migration"] = match migration {
                MigrationArg::None => "none",
                MigrationArg::Expand => "expand",
                MigrationArg::Contract => "contract",
                MigrationArg::Destructive => "destructive",
            }
            .into();
        }
    }
}
