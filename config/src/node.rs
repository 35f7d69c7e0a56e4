//! The tree of a YAML text, with the place of every key and value.
//!
//! Built from parser events, so that decoding can go over it as often as it needs and report every
//! fault at its place. Bounded in size, depth and what aliases expand to. JSON is YAML too.

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Options, Parser, ScalarStyle};

use crate::decode::{Context, Place};
use crate::defaults::{CONFIG_BYTES_MAX, CONFIG_DEPTH_MAX, CONFIG_NODES_MAX};
use crate::diagnostic::{Code, Span};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// A value as written.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text; `plain`: without quotes.
    Scalar { text: String, plain: bool },
    /// A list.
    List(Rc<[Node]>),
    /// Keys and values in order. Keys are unique.
    Map(Rc<[(Key, Node)]>),
}

/// A key and its place.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) span: Span,
}

impl Node {
    /// What kind of value it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map of keys",
        }
    }
}

/// Reads the text of `cx`, reporting faults to it. Without a tree it cannot be read at all.
pub(crate) fn parse(cx: &Context<'_>) -> Option<Node> {
    let text = cx.text();
    let whole = || Place {
        span: Span::default(),
        path: String::new(),
    };
    if text.len() > CONFIG_BYTES_MAX {
        let reason = format!(
            "the file has {} bytes, more than {CONFIG_BYTES_MAX}",
            text.len()
        );
        cx.error(Code::TooLarge, whole(), reason, "split the configuration");
        return None;
    }
    let mut builder = Builder {
        cx,
        anchors: HashMap::new(),
        nodes: 0,
        open: Vec::new(),
        root: None,
        documents: 0,
    };
    let mut options = Options::default();
    options.set_emit_comments(false);
    for event in Parser::new_from_str_with_options(text, options) {
        let done = match event {
            Ok((event, span)) => builder.take(event, place(&span)),
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(text.len());
                let start = text.floor_char_boundary(at.min(text.len()));
                let end = text.ceil_char_boundary((start + 1).min(text.len()));
                let reason = format!("this is not YAML: {}", error.info());
                let repair = "check indentation, quotes and brackets around this place";
                builder.fault(Code::Syntax, Span { start, end }, reason, repair)
            }
        };
        done?;
    }
    let root = builder.root.take();
    if root
        .as_ref()
        .is_none_or(|root| matches!(root.value, Value::Null))
    {
        cx.error(
            Code::Empty,
            whole(),
            "the file is empty",
            "start with: version: 1",
        );
        return None;
    }
    root
}

fn place(span: &granit_parser::Span) -> Span {
    span.byte_range().map_or_else(Span::default, |range| Span {
        start: range.start,
        end: range.end,
    })
}

struct Builder<'a> {
    cx: &'a Context<'a>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
}

/// A list or map that has not ended.
struct Open {
    start: usize,
    anchor: usize,
    nodes_before: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        seen: HashMap<String, Span>,
        key: Option<PendingKey>,
    },
}

enum PendingKey {
    New(Key),
    /// Its value is read and dropped.
    Dropped,
}

impl Builder<'_> {
    /// Adds a fault after which nothing can be read.
    fn fault(
        &mut self,
        code: Code,
        span: Span,
        reason: impl Into<String>,
        repair: &str,
    ) -> Option<()> {
        let at = Place {
            span,
            path: String::new(),
        };
        self.cx.error(code, at, reason, repair);
        None
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return self.fault(
                        Code::Unsuitable,
                        span,
                        "a second document begins here",
                        "keep everything in one document: remove ---",
                    );
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(tag.is_some(), span)?;
                let plain = style == ScalarStyle::Plain;
                let value = match &*text {
                    "" | "~" | "null" if plain => Value::Null,
                    _ => Value::Scalar {
                        text: text.into_owned(),
                        plain,
                    },
                };
                let span = trimmed(self.cx.text(), span);
                self.add(Node { span, value }, anchor, 1)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.is_some(), span)?;
                self.open(span, anchor, Kind::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.is_some(), span)?;
                self.open(
                    span,
                    anchor,
                    Kind::Map {
                        entries: Vec::new(),
                        seen: HashMap::new(),
                        key: None,
                    },
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span)?,
            Event::Alias(id) => {
                let Some((node, count)) = self.anchors.get(&id).cloned() else {
                    let reason = "this alias stands inside of what it stands for";
                    return self.fault(Code::Unsuitable, span, reason, "write the value out");
                };
                self.add(Node { span, ..node }, 0, count)?;
            }
            _ => {}
        }
        Some(())
    }

    fn check_tag(&mut self, tagged: bool, span: Span) -> Option<()> {
        if tagged {
            return self.fault(
                Code::Unsuitable,
                span,
                "tags have no meaning here",
                "remove the tag (the word after !)",
            );
        }
        Some(())
    }

    fn open(&mut self, span: Span, anchor: usize, kind: Kind) -> Option<()> {
        if self.open.len() >= CONFIG_DEPTH_MAX {
            let reason = format!("nested deeper than {CONFIG_DEPTH_MAX} levels");
            return self.fault(Code::TooLarge, span, reason, "no key is nested so deep");
        }
        self.open.push(Open {
            start: span.start,
            anchor,
            nodes_before: self.nodes,
            kind,
        });
        Some(())
    }

    fn close(&mut self, span: Span) -> Option<()> {
        let open = self.open.pop()?;
        let value = match open.kind {
            Kind::List(items) => Value::List(items.into()),
            Kind::Map { entries, .. } => Value::Map(entries.into()),
        };
        let nodes = self.nodes - open.nodes_before;
        let whole = trimmed(
            self.cx.text(),
            Span {
                start: open.start,
                end: span.end,
            },
        );
        self.add(Node { span: whole, value }, open.anchor, nodes + 1)
    }

    /// Adds a finished node to what is open. `count`: the nodes in it.
    fn add(&mut self, node: Node, anchor: usize, count: usize) -> Option<()> {
        self.nodes += count;
        if self.nodes > CONFIG_NODES_MAX {
            let reason = format!("more than {CONFIG_NODES_MAX} values, aliases included");
            return self.fault(Code::TooLarge, node.span, reason, "use fewer aliases");
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), count));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        let (entries, seen, key) = match &mut open.kind {
            Kind::List(items) => {
                items.push(node);
                return Some(());
            }
            Kind::Map { entries, seen, key } => (entries, seen, key),
        };
        match key.take() {
            Some(PendingKey::New(key)) => entries.push((key, node)),
            Some(PendingKey::Dropped) => {}
            None => {
                let Value::Scalar { text, .. } = node.value else {
                    return self.fault(
                        Code::Unsuitable,
                        node.span,
                        "a key must be text",
                        "write key: value",
                    );
                };
                let at = node.span;
                *key = Some(match seen.get(&text) {
                    None => {
                        seen.insert(text.clone(), at);
                        PendingKey::New(Key { text, span: at })
                    }
                    Some(first) => {
                        let place = Place {
                            span: at,
                            path: text,
                        };
                        let other = (*first, "first here".into());
                        let reason = "this key occurs twice in one map";
                        let repair = "remove one of the two";
                        let code = Code::DuplicateKey;
                        self.cx.conflict(code, place, reason, repair, other);
                        PendingKey::Dropped
                    }
                });
            }
        }
        Some(())
    }
}

/// The span without line breaks and blanks at its end.
fn trimmed(text: &str, span: Span) -> Span {
    let written = text.get(span.range()).unwrap_or_default();
    Span {
        start: span.start,
        end: span.start + written.trim_end().len(),
    }
}
