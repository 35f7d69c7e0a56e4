//! Verbs that need no running server.

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;

use anstream::{print, println};
use clap::CommandFactory;
use serde_json::json;
use switchback_config::diagnostic::render_all;

use super::args::{Args, Output, Target};
use super::{Failed, exit};
use crate::auth::{Role, hex, new_token as make_token};
use crate::builder::Material;
use crate::cluster;
use crate::files;
use crate::reload::base_of;

/// Checks a config file and the files it names.
pub(super) fn check(target: &Target, file: &Path, explain: bool) -> Result<u8, Failed> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failed::with_code(format!("read {name}: {error}"), exit::CONFIG))?;
    let mut parsed = switchback_config::parse(&text);
    let named = parsed
        .config
        .as_mut()
        .map(|config| check_named(config, base_of(file)));
    let broken = named.and_then(Result::err);
    let note = parsed.config.as_ref().and_then(not_built);
    let valid = parsed.config.is_some() && broken.is_none();
    match target.output {
        Output::Json => {
            println!(
                "{:#}",
                json!({"valid": valid, "diagnostics": parsed.diagnostics, "file_error": broken, "note": note})
            );
        }
        Output::Table | Output::Markdown => {
            if !parsed.diagnostics.is_empty() {
                let colour = std::io::stdout().is_terminal();
                print!("{}", render_all(&parsed.diagnostics, &text, &name, colour));
            }
            if let Some(broken) = &broken {
                println!("error: {broken}");
            }
            if let Some(note) = &note {
                println!("note: {note}");
            }
            match &parsed.config {
                Some(config) if valid && explain => {
                    print!("{}", switchback_config::explain(config))
                }
                Some(config) if valid => {
                    println!(
                        "{name}: valid, {}, {}",
                        many(config.routes.len(), "route"),
                        many(config.services.len(), "service")
                    );
                }
                _ => {}
            }
        }
    }
    Ok(if valid { 0 } else { exit::CONFIG })
}

/// What a good file wants and this build does not have: `run` would refuse it, another build does not.
fn not_built(config: &switchback_config::model::Config) -> Option<String> {
    let wanted = config.cluster.is_some() && !cluster::IS_BUILT;
    wanted.then(|| cluster::NotBuilt.to_string())
}

/// `1 route`, `2 routes`.
fn many(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

/// Loads every file that a configuration names.
fn check_named(config: &mut switchback_config::model::Config, base: &Path) -> Result<(), String> {
    let text = |error: files::FileError| error.to_string();
    files::runbooks(config, base).map_err(text)?;
    files::upstream_tls(config, base, &Material::default()).map_err(text)?;
    for (name, listener) in &config.listeners {
        if let Some(tls) = &listener.tls {
            files::certificates(name, tls, base).map_err(text)?;
        }
    }
    if let Some(tls) = &config.admin.tls {
        files::admin_tls(tls, base).map_err(text)?;
    }
    if let Some(path) = &config.admin.tokens_file {
        files::tokens(path, base).map_err(text)?;
    }
    Ok(())
}

/// Prints the JSON Schema.
pub(super) fn schema() -> Result<u8, Failed> {
    println!("{:#}", switchback_config::schema());
    Ok(0)
}

/// Prints completions.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<u8, Failed> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "switchback", &mut script);
    match std::io::stdout().write_all(&script) {
        // Whoever reads only the beginning has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(0),
        written => written.map(|()| 0).map_err(Failed::from),
    }
}

/// Writes manual pages.
pub(super) fn man(directory: &Path) -> Result<u8, Failed> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Args::command(), directory))
        .map_err(|error| {
            Failed::with_code(
                format!("write into {}: {error}", directory.display()),
                exit::CANNOT_CREATE,
            )
        })?;
    Ok(0)
}

/// Makes a token.
pub(super) fn new_token(target: &Target, name: &str, role: Option<Role>) -> Result<u8, Failed> {
    let (secret, token) = make_token(name, role.unwrap_or(Role::Viewer))?;
    let sha256 = hex(&token.digest);
    match target.output {
        Output::Json => println!(
            "{:#}",
            json!({"token": secret, "name": name, "role": role, "sha256": sha256})
        ),
        Output::Table | Output::Markdown => {
            println!("token (shown once, keep it secret):\n  {secret}\n");
            match role.map(|role| json!(role)) {
                Some(role) => println!(
                    "for the tokens file:\n  - {{name: {name:?}, role: {role}, sha256: \"{sha256}\"}}"
                ),
                None => println!(
                    "for the tokens file of ofrep:\n  - {{name: {name:?}, sha256: \"{sha256}\"}}"
                ),
            }
        }
    }
    Ok(0)
}

/// The config file that `run` uses.
///
/// # Errors
/// When there is none.
pub fn find_config(asked: Option<&Path>) -> Result<std::path::PathBuf, Failed> {
    if let Some(asked) = asked {
        return Ok(asked.to_path_buf());
    }
    let candidates = super::client::config_candidates();
    let found = candidates.iter().find(|path| path.exists());
    found
        .cloned()
        .ok_or_else(|| Failed::with_code(no_config(&candidates), exit::CONFIG))
}

/// What somebody reads who runs it for the first time.
fn no_config(tried: &[std::path::PathBuf]) -> String {
    if let [named] = tried {
        return format!(
            "no config file: SWITCHBACK_CONFIG names {}, which is not there",
            named.display()
        );
    }
    let tried: Vec<String> = tried
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    format!(
        "no config file: neither {} is there. To make one and start:

  switchback init --stable http://127.0.0.1:9001 --canary http://127.0.0.1:9002
  switchback run

with the addresses of the version that serves now and of the new one. switchback demo shows without
any file what comes of it, and run --config FILE takes a file from elsewhere",
        tried.join(" nor ")
    )
}

/// The state directory that `run` uses.
#[must_use]
pub fn state_dir(asked: Option<&Path>) -> std::path::PathBuf {
    super::client::state_dir(asked)
}
