//! Arguments of `simulate`.

use std::path::PathBuf;

use crate::simulate::Injection;

/// Arguments of `simulate`.
#[derive(Clone, Debug, clap::Args)]
pub struct SimulateArgs {
    /// Access log: switchback's JSON, or the combined format of Apache and nginx; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub log: PathBuf,
    /// Config file [default: as for run]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A fault in the requests of one backend: [SERVICE/]BACKEND KIND=SHARE [from TIME] [to TIME];
    /// repeat for several, each of which is tried on its own
    #[arg(long, value_name = "FAULT")]
    pub inject: Vec<Injection>,
    /// Other settings of `rollback` to compare the file's with: KEY=VALUE; KEY=VALUE. Repeat for several
    #[arg(long = "with", value_name = "SETTINGS")]
    pub settings: Vec<String>,
    /// Only this service; a log in the combined format is of it
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Spread requests by the file's weights, whatever the log says of backends
    #[arg(long)]
    pub spread: bool,
}
