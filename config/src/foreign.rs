//! YAML that other tools read: its values with their places, and nothing known about its keys.
//!
//! What imports from elsewhere needs: several documents in one text, the same bounds as for our own files,
//! and a place for everything that is not taken over.

use crate::decode::Context;
use crate::diagnostic::{Code, Diagnostic, Span};
use crate::node::{self, Node, Value};

/// Documents of one text.
const DOCUMENTS_MAX: usize = 100;

/// A value and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// 1-based line of its key, or of itself.
    pub line: usize,
    /// 1-based column, in characters.
    pub column: usize,
    /// Where it is in its document: `spec.strategy.canary.steps[0].setWeight`.
    pub path: String,
    /// What it is.
    pub value: ForeignValue,
}

/// A value of somebody else's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignValue {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, or anything that is written like one.
    Text(String),
    /// A list.
    List(Vec<Foreign>),
    /// Keys and values, in order.
    Map(Vec<(String, Foreign)>),
}

impl Foreign {
    /// The value below this key.
    #[must_use]
    pub fn key(&self, key: &str) -> Option<&Self> {
        match &self.value {
            ForeignValue::Map(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value at the end of these keys.
    #[must_use]
    pub fn at(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter().try_fold(self, |value, key| value.key(key))
    }

    /// It, if it is a single value.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            ForeignValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Its items, if it is a list.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match &self.value {
            ForeignValue::List(items) => items,
            _ => &[],
        }
    }
}

/// Reads all documents of a text. Empty ones are left out.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn documents(text: &str) -> Result<Vec<Foreign>, Vec<Diagnostic>> {
    let mut found = Vec::new();
    for part in parts(text) {
        // Everything else is made blank, so that places stay what they are.
        let alone: String = text
            .char_indices()
            .map(|(at, character)| match character {
                '\n' => '\n',
                _ if part.range().contains(&at) => character,
                _ => ' ',
            })
            .collect();
        let alone = match alone.trim().is_empty() {
            true => continue,
            false => alone,
        };
        let cx = Context::new(&alone);
        let root = node::parse(&cx);
        match root.filter(|_| !cx.has_errors()) {
            Some(root) => found.push(foreign(&root, None, String::new(), &Lines::new(&alone))),
            None => {
                let faults = cx.into_faults();
                // A document of comments is none.
                if faults.iter().all(|fault| fault.code == Code::Empty) {
                    continue;
                }
                return Err(faults);
            }
        }
    }
    Ok(found)
}

/// The parts of a text between lines that begin with `---`, of which it has at most [`DOCUMENTS_MAX`].
fn parts(text: &str) -> Vec<Span> {
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        let mark = line.trim_end();
        if (mark == "---" || mark.starts_with("--- ")) && parts.len() + 1 < DOCUMENTS_MAX {
            parts.push(Span { start, end: at });
            start = at + 3;
        }
        at += line.len();
    }
    parts.push(Span {
        start,
        end: text.len(),
    });
    parts
}

/// Where lines begin.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1));
        Self {
            text,
            starts: starts.collect(),
        }
    }

    fn position(&self, span: Span) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= span.start);
        let start = self.starts[line - 1];
        let before = self.text.get(start..span.start).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}

/// A node at a path; its place is that of its key, if it has one.
fn foreign(node: &Node, key: Option<Span>, path: String, lines: &Lines<'_>) -> Foreign {
    let (line, column) = lines.position(key.unwrap_or(node.span));
    let value = match &node.value {
        Value::Null => ForeignValue::Null,
        Value::Scalar { text, .. } => ForeignValue::Text(text.clone()),
        Value::List(items) => {
            let items = items.iter().enumerate();
            let items =
                items.map(|(index, item)| foreign(item, None, format!("{path}[{index}]"), lines));
            ForeignValue::List(items.collect())
        }
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| {
                let below = match path.is_empty() {
                    true => key.text.clone(),
                    false => format!("{path}.{}", key.text),
                };
                let value = foreign(value, Some(key.span), below, lines);
                (key.text.clone(), value)
            });
            ForeignValue::Map(entries.collect())
        }
    };
    Foreign {
        line,
        column,
        path,
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_with_their_places() {
        let text =
            "# a file\n---\na: 1\nb:\n  - x: \"1\"\n    ä: {c: ~}\n--- # the second\na: two\n---\n";
        let found = documents(text).expect("it is YAML");
        assert_eq!(found.len(), 2);
        let c = found[0].key("b").expect("b").items()[0].at(&["ä", "c"]);
        let c = c.expect("c");
        assert_eq!((c.line, c.column, &*c.path), (6, 9, "b[0].ä.c"));
        assert_eq!(c.value, ForeignValue::Null);
        let a = found[1].key("a").expect("a");
        assert_eq!((a.line, a.column, a.text()), (8, 1, Some("two")));
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_place() {
        let faults = documents("a: 1\n---\nb: [1\n").expect_err("a list without an end");
        assert_eq!(faults[0].code, Code::Syntax);
        assert!(faults[0].line >= 3, "{faults:?}");
        let faults = documents("a: 1\na: 2\n").expect_err("a key that occurs twice");
        assert_eq!((faults[0].code, faults[0].line), (Code::DuplicateKey, 2));
        assert_eq!(documents("# nothing\n"), Ok(vec![]));
    }
}
