//! Arguments of `hooks`.

use clap::Subcommand;

/// What to do about hooks.
#[derive(Debug, Subcommand)]
pub enum HooksVerb {
    /// Show whom the file tells of what
    #[command(after_help = "Example: switchback hooks list")]
    List,
    /// Show messages that are on their way, and the last ones that arrived
    #[command(after_help = "Example: switchback hooks deliveries -o json")]
    Deliveries,
    /// Show dead letters: messages that were given up
    #[command(after_help = "Example: switchback hooks dead")]
    Dead,
    /// Send a dead letter again
    #[command(after_help = "Example: switchback hooks retry --all")]
    Retry {
        /// Its id
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<u64>,
        /// All of them, in their order
        #[arg(long)]
        all: bool,
    },
    /// Forget a dead letter
    #[command(after_help = "Example: switchback hooks drop 12")]
    Drop {
        /// Its id
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<u64>,
        /// All of them
        #[arg(long)]
        all: bool,
    },
}
