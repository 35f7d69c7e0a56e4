//! `import`: what another tool was told, as keys of a service.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use anstream::{print, println};
use serde_json::json;
use switchback_config::defaults::IMPORT_BYTES_MAX;

use super::args::{ImportTool, Output, Target};
use super::{Failed, exit};
use crate::import::{Import, ImportError, Tool, import as take_over};

/// Reads a file of another tool, and prints what it amounts to.
pub(super) fn import(target: &Target, tool: ImportTool, file: &Path) -> Result<u8, Failed> {
    let name = file.display().to_string();
    let text = read(file).map_err(|error| Failed::new(format!("read {name}: {error}")))?;
    let tool = match tool {
        ImportTool::Argo => Tool::Argo,
        ImportTool::Flagger => Tool::Flagger,
    };
    let import = take_over(tool, &text).map_err(|error| {
        let code = match &error {
            ImportError::Syntax(_) | ImportError::Nothing(_) | ImportError::Invalid { .. } => {
                exit::CONFIG
            }
            ImportError::NothingTaken { .. } => 1,
        };
        Failed::with_code(format!("{name}: {error}"), code)
    })?;
    match target.output {
        Output::Json => println!("{:#}", json!(import)),
        Output::Table | Output::Markdown => print!("{}", told(&name, &import)),
    }
    Ok(0)
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let source: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(std::fs::File::open(file)?),
    };
    source
        .take(IMPORT_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > IMPORT_BYTES_MAX {
        let reason =
            format!("more than {IMPORT_BYTES_MAX} bytes; give the documents about one rollout");
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            reason,
        ));
    }
    Ok(text)
}

/// Keys for the config file, and in comments where they come from and what is missing.
fn told(file: &str, import: &Import) -> String {
    let mut out = String::new();
    let of = import
        .name
        .as_deref()
        .map_or_else(String::new, |name| format!(" of {name}"));
    let _ = writeln!(out, "# Keys of a service, from the settings{of} in {file}.");
    out.push_str(&import.yaml);
    let _ = writeln!(out, "# Taken over:");
    for taken in &import.taken {
        let _ = writeln!(
            out,
            "#   {file}:{}: {}: {}",
            taken.line, taken.path, taken.became
        );
    }
    if !import.left.is_empty() {
        let _ = writeln!(out, "# Not taken over:");
    }
    for left in &import.left {
        let _ = writeln!(
            out,
            "#   {file}:{}:{}: {}: {}",
            left.line, left.column, left.path, left.reason
        );
    }
    out
}
