//! The configuration of switchback: text in, typed model or diagnostics out.
//!
//! This crate is pure. It opens no file, reads no clock and no environment, and knows no socket:
//! the caller hands it text and gets a [`model::Config`] or every fault in that text at once.
//! Whatever needs the outside world (certificates that must parse, ports that must bind) is
//! checked by those who own it.

mod decode;
pub mod defaults;
pub mod diagnostic;
pub mod diff;
mod explain;
pub mod foreign;
mod mask;
pub mod model;
mod node;
mod raw;
mod schema;
mod suggest;
pub mod template;
mod tokens;
pub mod units;
mod validate;

use decode::{Context, Decode};
use diagnostic::Diagnostic;
pub use explain::{explain, yaml};
pub use mask::mask;
pub use schema::schema;
pub use tokens::{FlagTokenEntry, TokenEntry, parse_flag_tokens, parse_tokens};
pub use validate::{check_endpoint_address, is_name};

/// What came of reading a file.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The configuration, if there is no error. Warnings may stand beside it.
    pub config: Option<model::Config>,
    /// Everything that is wrong, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads one flag, as it is written below `flags` in a file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_flag(text: &str) -> Result<model::Flag, Vec<Diagnostic>> {
    let cx = Context::new(text);
    let written = node::parse(&cx).and_then(|root| decode::Spanned::decode(&root, "", &cx));
    let flag = written.and_then(|written| validate::flag(&written, &cx));
    match flag.filter(|_| !cx.has_errors()) {
        Some(flag) => Ok(flag),
        None => Err(cx.into_faults()),
    }
}

/// Reads a runbook from a file of its own.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_runbook(text: &str) -> Result<model::Runbook, Vec<Diagnostic>> {
    let cx = Context::new(text);
    let source = node::parse(&cx).and_then(|root| raw::RunbookSource::decode(&root, "", &cx));
    let runbook = match &source {
        Some(raw::RunbookSource::Runbook(written)) => validate::runbook(written, &cx),
        Some(raw::RunbookSource::File(_)) => {
            let reason = "this is no runbook";
            let repair = "write rollback_runbook: with trigger: and steps: below it";
            let start = (diagnostic::Span::default(), "");
            cx.error(diagnostic::Code::WrongType, start, reason, repair);
            None
        }
        None => None,
    };
    match runbook.filter(|_| !cx.has_errors()) {
        Some(runbook) => Ok(runbook),
        None => Err(cx.into_faults()),
    }
}

/// Reads a configuration file (YAML, or JSON, which is YAML too).
#[must_use]
pub fn parse(text: &str) -> Parsed {
    let cx = Context::new(text);
    let file = node::parse(&cx).and_then(|root| raw::File::decode(&root, "", &cx));
    let config = file.map(|file| validate::validate(&file, &cx));
    let config = config.filter(|_| !cx.has_errors());
    Parsed {
        config,
        diagnostics: cx.into_faults(),
    }
}
