//! What other tools were told about rollouts, as sections of a service of ours.
//!
//! Argo Rollouts and Flagger describe the same things in other words: shares and pauses, what must stay
//! below a threshold, how long the loser is kept. What has a counterpart is taken over and noted with what it
//! became; everything else in the file is listed with its place and the reason, by going over the whole file
//! and not over a list of what somebody thought of. What comes out is checked like a config file.

mod argo;
mod flagger;
mod section;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};
use switchback_config::diagnostic::Diagnostic;
use switchback_config::foreign::{Foreign, ForeignValue, documents};
use switchback_config::units::TimeSpan;
use switchback_config::yaml;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Argo Rollouts: Rollout and `AnalysisTemplate`.
    Argo,
    /// Flagger: Canary.
    Flagger,
}

/// A file cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is not YAML.
    #[error("line {}, column {}: {}; {}", .0.line, .0.column, .0.reason, .0.repair)]
    Syntax(Box<Diagnostic>),
    /// It is something else.
    #[error("there is no {0} in it")]
    Nothing(&'static str),
    /// Nothing of it has a counterpart.
    #[error("nothing in it has a counterpart here; first: line {line}: {path}: {reason}")]
    NothingTaken {
        /// Line of the first that was left.
        line: usize,
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// What came out is no valid section.
    #[error("{path} would not be valid: {reason}; {repair}")]
    Invalid {
        /// The key.
        path: String,
        /// Why.
        reason: String,
        /// What to write instead.
        repair: String,
    },
}

/// A value of the file that was taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Its line, from 1.
    pub line: usize,
    /// Its place in its document.
    pub path: String,
    /// What it became: a key of the section, and how it differs.
    pub became: String,
}

/// A value of the file that was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Its line, from 1.
    pub line: usize,
    /// Its column, from 1.
    pub column: usize,
    /// Its place in its document.
    pub path: String,
    /// Why not, and what does its work here.
    pub reason: String,
}

/// What came of a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Import {
    /// What the thing is called there.
    pub name: Option<String>,
    /// Keys of a service.
    pub section: Map<String, Value>,
    /// The same as text for the config file.
    pub yaml: String,
    /// What was taken over, in the order of the file.
    pub taken: Vec<Taken>,
    /// What was not.
    pub left: Vec<Left>,
}

/// Reads a file of another tool.
///
/// # Errors
/// When it is not such a file, or nothing of it can be taken over.
pub fn import(tool: Tool, text: &str) -> Result<Import, ImportError> {
    let documents = documents(text).map_err(|faults| {
        let first = faults.into_iter().next();
        first.map_or(ImportError::Nothing("YAML"), |fault| {
            ImportError::Syntax(Box::new(fault))
        })
    })?;
    let mut reading = Reading::default();
    match tool {
        Tool::Argo => argo::read(&documents, &mut reading)?,
        Tool::Flagger => flagger::read(&documents, &mut reading)?,
    }
    let reason = match tool {
        Tool::Argo => argo::reason,
        Tool::Flagger => flagger::reason,
    };
    for document in &documents {
        reading.list_left(document, reason);
    }
    let Reading {
        name,
        section,
        taken,
        mut left,
        ..
    } = reading;
    left.sort_by_key(|left| (left.line, left.column));
    if section.is_empty() {
        let first = left.into_iter().next();
        return Err(match first {
            Some(Left {
                line, path, reason, ..
            }) => ImportError::NothingTaken { line, path, reason },
            None => ImportError::Nothing("setting"),
        });
    }
    section::check(&section)?;
    Ok(Import {
        name,
        yaml: yaml(&json!(section)),
        section,
        taken,
        left,
    })
}

/// What has been made of a file so far.
#[derive(Debug, Default)]
struct Reading {
    name: Option<String>,
    section: Map<String, Value>,
    taken: Vec<Taken>,
    left: Vec<Left>,
    /// Places that need not be looked at again: taken over, told apart, or without a meaning of their own.
    /// Documents are told apart by the lines.
    done: BTreeSet<(usize, String)>,
}

impl Reading {
    /// Notes that a value, with all that is in it, became a key.
    fn take(&mut self, value: &Foreign, became: impl Into<String>) {
        self.know(value);
        self.taken.push(Taken {
            line: value.line,
            path: value.path.clone(),
            became: became.into(),
        });
    }

    /// Notes that a value means nothing by itself.
    fn know(&mut self, value: &Foreign) {
        self.done.insert((value.line, value.path.clone()));
    }

    /// Notes why a value cannot be taken over.
    fn leave(&mut self, value: &Foreign, reason: impl Into<String>) {
        self.know(value);
        self.left.push(Left {
            line: value.line,
            column: value.column,
            path: value.path.clone(),
            reason: reason.into(),
        });
    }

    /// Sets a key of a part of the section.
    fn set(&mut self, part: &str, key: &str, value: Value) {
        let part = self.section.entry(part).or_insert_with(|| json!({}));
        if let Some(part) = part.as_object_mut() {
            part.insert(key.into(), value);
        }
    }

    /// Adds to a list of a part of the section.
    fn push(&mut self, part: &str, key: &str, value: Value) {
        let part = self.section.entry(part).or_insert_with(|| json!({}));
        let list = part
            .as_object_mut()
            .map(|part| part.entry(key).or_insert_with(|| json!([])));
        if let Some(Value::Array(list)) = list {
            list.push(value);
        }
    }

    /// Lists whatever has not been looked at, as far up as possible.
    fn list_left(&mut self, value: &Foreign, reason: fn(&str) -> &'static str) {
        if self.done.contains(&(value.line, value.path.clone())) {
            return;
        }
        let below: Vec<&Foreign> = match &value.value {
            ForeignValue::List(items) => items.iter().collect(),
            ForeignValue::Map(entries) => entries.iter().map(|(_, value)| value).collect(),
            ForeignValue::Null | ForeignValue::Text(_) => Vec::new(),
        };
        if below.iter().any(|below| self.has_looked_at(below)) {
            for below in below {
                self.list_left(below, reason);
            }
        } else {
            self.leave(value, reason(&value.path));
        }
    }

    fn has_looked_at(&self, value: &Foreign) -> bool {
        if self.done.contains(&(value.line, value.path.clone())) {
            return true;
        }
        match &value.value {
            ForeignValue::List(items) => items.iter().any(|item| self.has_looked_at(item)),
            ForeignValue::Map(entries) => {
                let mut values = entries.iter().map(|(_, value)| value);
                values.any(|value| self.has_looked_at(value))
            }
            ForeignValue::Null | ForeignValue::Text(_) => false,
        }
    }
}

/// The last key of a path, without its place in a list.
fn last_key(path: &str) -> &str {
    let key = path.rsplit('.').next().unwrap_or(path);
    key.split('[').next().unwrap_or(key)
}

/// A time as these tools write it: with a unit, or as a number of seconds.
fn span(text: &str) -> Option<TimeSpan> {
    match text.parse::<u32>() {
        Ok(seconds) => Some(TimeSpan(Duration::from_secs(seconds.into()))),
        Err(_) => text.parse().ok(),
    }
}

/// A share of 1 as a share of a hundred: `0.01` is `1%`.
fn percent_of_one(text: &str) -> Option<String> {
    let share: f64 = text.parse().ok()?;
    percent(share * 100.0)
}

/// A number of hundredths as a share.
fn percent(hundredths: f64) -> Option<String> {
    let is_share = (0.0..=100.0).contains(&hundredths);
    let text = format!("{hundredths:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    is_share.then(|| format!("{text}%"))
}
