//! Runbooks as written: in the file, or in files of their own.

use serde_json::{Value as Json, json};

use super::TextItem;
use crate::decode::{Context, Decode, Spanned, Words, join, section};
use crate::model::StepKind;
use crate::node::{Node, Value};

/// A runbook with its place.
pub(crate) type RunbookItem = Spanned<Runbook>;
/// A step of a runbook with its place.
pub(crate) type RunbookStepItem = Spanned<RunbookStep>;

section! {
    /// What is done when a release has gone wrong.
    Runbook {
        /// What starts it: "Error rate > 5% for 5 minutes after deployment". Default: somebody does.
        trigger: String,
        /// The services it is for. Default: all.
        services: Vec<TextItem>,
        /// What is done, one after the other.
        steps: Vec<RunbookStepItem>,
    }
}

section! {
    /// A step of a runbook.
    RunbookStep {
        /// Its name, which tells what it does: assess, decide, execute, verify, communicate, post-incident.
        name: String,
        /// What is to be done, in words. Of a decision: ways back in the order of preference, with > between them.
        action: String,
        /// How long it may take: 5 min. What does not begin with a number is for people.
        duration: String,
        /// What it does, where its name does not tell: `assess`, `decide`, `execute`, `verify`, `communicate`, `post_incident` or `manual`.
        kind: StepKind,
        /// Whether somebody has to agree before it begins. Default: false.
        approve: bool,
    }
}

impl Words for StepKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("assess", Self::Assess),
        ("decide", Self::Decide),
        ("execute", Self::Execute),
        ("verify", Self::Verify),
        ("communicate", Self::Communicate),
        ("post_incident", Self::PostIncident),
        ("manual", Self::Manual),
    ];
}

/// A runbook, or the name of the file that it is in.
#[derive(Clone, Debug)]
pub(crate) enum RunbookSource {
    File(String),
    Runbook(Box<RunbookItem>),
}

impl Decode for RunbookSource {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => {
                let runbook = match &entries[..] {
                    // As it is kept elsewhere: all of it below one key.
                    [(key, inside)] if key.text.ends_with("runbook") => {
                        Spanned::decode(inside, &join(path, &key.text), cx)
                    }
                    _ => Spanned::decode(node, path, cx),
                };
                runbook.map(|runbook| Self::Runbook(Box::new(runbook)))
            }
            _ => String::decode(node, path, cx).map(Self::File),
        }
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": "string"},
            Runbook::schema(),
            {
                "type": "object",
                "patternProperties": {"runbook$": Runbook::schema()},
                "additionalProperties": false,
                "minProperties": 1,
                "maxProperties": 1,
            },
        ]})
    }
}
