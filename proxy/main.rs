//! The binary: wires configuration, data plane and control plane together, and nothing else.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use switchback_admin::cli::{self, Args, DemoArgs, RunArgs, Target, Verb, exit};
use switchback_admin::demo::{self, Demo};
use switchback_admin::handover::Predecessor;
use switchback_admin::inherit::Inherited;
use switchback_admin::process::{Options, Process, StartError};
use switchback_admin::{reload, store};
use switchback_timeslice as timeslice;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

/// Many small allocations on many threads: measured faster than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads of the admin side. It must never need the cores of the workers.
const ADMIN_THREADS: usize = 2;

fn main() -> ExitCode {
    // One provider of cryptography for everything, before anything asks for one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let args = Args::parse();
    let result = match args.verb {
        Verb::Run(run_args) => run(&run_args, &args.target),
        Verb::Demo(demo_args) => demo(demo_args),
        _ => return cli::carry_out(args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            anstream::eprintln!("switchback: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(args: &RunArgs, target: &Target) -> anyhow::Result<u8> {
    start_log("info");
    let state_dir = cli::state_dir(target.state_dir.as_deref());
    let path = match cli::find_config(args.config.as_deref()) {
        Ok(path) => path,
        Err(failed) => return Ok(fail(&failed.message, failed.code)),
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %path.display(), state = %state_dir.display(), "starting");
    let (source, file_refused) = match reload::read(&path) {
        Ok(source) => (source, None),
        Err(error) if args.last_good => {
            let text = store::last_good_config(&state_dir).with_context(|| {
                format!("{error}\nand there is no last good copy to start from")
            })?;
            match reload::parse(text, "the last good copy") {
                Ok(source) => (source, Some(error.to_string())),
                Err(error) => return Ok(fail(&error.to_string(), exit::CONFIG)),
            }
        }
        Err(error) => return Ok(fail(&error.to_string(), exit::CONFIG)),
    };
    let path = std::path::absolute(&path).unwrap_or(path);
    let inherited = match Inherited::from_service_manager() {
        Ok(inherited) => inherited,
        Err(error) => {
            return Ok(fail(
                &error.to_string(),
                StartError::from(error).exit_code(),
            ));
        }
    };
    admin_runtime()?.block_on(async {
        let predecessor = match args.takeover {
            true => Predecessor::find(&state_dir)
                .await
                .map_err(StartError::from),
            false => Ok(None),
        };
        let predecessor = match predecessor {
            Ok(predecessor) => predecessor,
            Err(error) => return Ok(fail(&error.to_string(), error.exit_code())),
        };
        let options = Options {
            source,
            path: Some(path),
            state_dir,
            file_refused,
            predecessor,
            inherited,
        };
        let process = match Process::start(options).await {
            Ok(process) => process,
            Err(error) => return Ok(fail(&error.to_string(), error.exit_code())),
        };
        let ended = process
            .serve_until_signal()
            .await
            .context("wait for signals")?;
        if ended.cut > 0 {
            tracing::warn!(connections = ended.cut, "stopped; connections were cut");
            return Ok(exit::CUT);
        }
        tracing::info!("stopped; everything in flight was finished");
        Ok(0)
    })
}

fn demo(args: DemoArgs) -> anyhow::Result<u8> {
    start_log("error");
    let DemoArgs {
        port,
        admin_port,
        seconds,
        no_load,
    } = args;
    let demo = Demo {
        port,
        admin_port,
        seconds,
        load: !no_load,
    };
    admin_runtime()?.block_on(async {
        match demo::run(demo).await {
            Ok(()) => Ok(0),
            Err(error) => Ok(fail(&error.to_string(), error.exit_code())),
        }
    })
}

fn fail(message: &str, code: u8) -> u8 {
    anstream::eprintln!("switchback: {}", message.trim_end());
    code
}

fn admin_runtime() -> anyhow::Result<Runtime> {
    // For this thread and all that it starts; workers ask for what is usual.
    if let Err(error) = timeslice::ask(timeslice::SHORT) {
        tracing::debug!(%error, "no short time slices: changes may wait for busy workers");
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ADMIN_THREADS)
        .thread_name("admin")
        .enable_all()
        .build()
        .context("start the admin runtime")
}

/// Logs to standard error, as much as `SWITCHBACK_LOG` (or `RUST_LOG`) asks for.
fn start_log(default: &str) {
    let wanted = std::env::var("SWITCHBACK_LOG").or_else(|_| std::env::var("RUST_LOG"));
    let filter = EnvFilter::builder().parse_lossy(wanted.as_deref().unwrap_or(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // Complaining on the same stream when it takes nothing, such as on a full disk, would panic.
        .log_internal_errors(false)
        .init();
}
