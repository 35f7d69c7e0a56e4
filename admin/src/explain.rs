//! Why traffic goes where it goes, in sentences for somebody who was just woken up.
//!
//! Pure: facts in, sentences out, always in the same order. Where traffic goes now comes first, then
//! why, then what will happen by itself, then what one can do, as commands to copy. What a rollback
//! would do is not described but decided, by the same function that would carry it out.

mod commands;
mod facts;
mod next;
mod now;
mod why;

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::Name;
use utoipa::ToSchema;

pub(crate) use commands::Advice;
pub(crate) use facts::{Facts, plan};
#[cfg(test)]
pub(crate) use facts::{follow, press};

/// The explanation of a service.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ServiceExplanation)]
pub(crate) struct Explanation {
    /// The service.
    pub(crate) service: Name,
    /// The revision that is explained.
    pub(crate) revision: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) at: Timestamp,
    /// Where traffic goes.
    pub(crate) now: Vec<String>,
    /// Who and what brought that about.
    pub(crate) why: Vec<String>,
    /// What will change by itself, and when.
    pub(crate) next: Vec<String>,
    /// What one can do.
    pub(crate) commands: Vec<Advice>,
}

/// Explains a service.
#[must_use]
pub(crate) fn explain(facts: &Facts<'_>) -> Explanation {
    Explanation {
        service: facts.service.clone(),
        revision: facts.revision,
        at: facts.at,
        now: now::sentences(facts),
        why: why::sentences(facts),
        next: next::sentences(facts),
        commands: commands::advice(facts),
    }
}

#[cfg(test)]
mod tests;
