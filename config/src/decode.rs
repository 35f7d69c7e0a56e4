//! From the tree to typed values, every fault at its place.
//!
//! [`Decode`] is implemented once for each kind of value, and says both how it is read and how the
//! JSON Schema describes it. [`section!`] declares the keys of one map with their types and docs, so
//! decoder, schema and documentation are one list. A fault never stops the rest from being read: what
//! is wrong is reported and left out.

mod values;

use std::cell::{Cell, RefCell};

use serde_json::{Map, Value as Json, json};

use crate::defaults::DIAGNOSTICS_MAX;
use crate::diagnostic::{Code, Diagnostic, Severity, Source, Span};
use crate::node::{Key, Node, Value};
use crate::suggest;
pub(crate) use values::{OrOff, Words};

/// The text that is read, and what was found wrong with it.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    source: Source<'a>,
    faults: RefCell<Vec<Diagnostic>>,
    /// Faults that were not kept.
    more: Cell<usize>,
}

/// Faults kept until they are sorted; of a hostile file there may be millions.
const FAULTS_KEPT: usize = 10 * DIAGNOSTICS_MAX;

impl<'a> Context<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            source: Source::new(text),
            faults: RefCell::default(),
            more: Cell::new(0),
        }
    }

    /// The text that is read.
    pub(crate) const fn text(&self) -> &'a str {
        self.source.text
    }

    pub(crate) fn error(
        &self,
        code: Code,
        at: impl Into<Place>,
        reason: impl Into<String>,
        repair: impl Into<String>,
    ) {
        let at = at.into();
        if !self.is_echo(code, &at.path) {
            self.push(code, at, reason.into(), repair.into(), |_| ());
        }
    }

    /// An error that has to do with a second place.
    pub(crate) fn conflict(
        &self,
        code: Code,
        at: impl Into<Place>,
        reason: impl Into<String>,
        repair: impl Into<String>,
        other: (Span, String),
    ) {
        self.push(code, at.into(), reason.into(), repair.into(), |fault| {
            fault.other = Some(other)
        });
    }

    pub(crate) fn warning(
        &self,
        code: Code,
        at: impl Into<Place>,
        reason: impl Into<String>,
        repair: impl Into<String>,
    ) {
        self.push(code, at.into(), reason.into(), repair.into(), |fault| {
            fault.severity = Severity::Warning;
        });
    }

    fn push(
        &self,
        code: Code,
        at: Place,
        reason: String,
        repair: String,
        change: impl FnOnce(&mut Diagnostic),
    ) {
        let mut faults = self.faults.borrow_mut();
        if faults.len() >= FAULTS_KEPT {
            self.more.set(self.more.get() + 1);
            return;
        }
        let mut fault = Diagnostic::error(code, &self.source, at.span, &at.path, reason, repair);
        change(&mut fault);
        faults.push(fault);
    }

    /// Whether a fault only says that something is missing which is there, but could not be read.
    fn is_echo(&self, code: Code, path: &str) -> bool {
        let about_absence = matches!(
            code,
            Code::MissingKey | Code::IncompleteWeights | Code::NoWeight
        );
        let is_inside = |fault: &Diagnostic| {
            let rest = fault.path.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        about_absence && !path.is_empty() && self.faults.borrow().iter().any(is_inside)
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.faults.borrow().iter().any(Diagnostic::is_error)
    }

    /// All faults, in the order of the text, at most [`DIAGNOSTICS_MAX`].
    pub(crate) fn into_faults(self) -> Vec<Diagnostic> {
        let mut faults = self.faults.take();
        faults.sort_by_key(|fault| (fault.span.start, fault.code));
        faults.dedup();
        let more = faults.len().saturating_sub(DIAGNOSTICS_MAX) + self.more.get();
        if more > 0 {
            // Errors are kept rather than warnings.
            faults.sort_by_key(|fault| !fault.is_error());
            let errors_left = faults
                .iter()
                .skip(DIAGNOSTICS_MAX)
                .any(Diagnostic::is_error);
            faults.truncate(DIAGNOSTICS_MAX);
            let reason = format!("{more} more faults are not shown");
            let mut last = Diagnostic::error(
                Code::TooManyFaults,
                &self.source,
                Span::default(),
                "",
                reason,
                "repair those above first",
            );
            if !errors_left {
                last.severity = Severity::Warning;
            }
            faults.push(last);
        }
        faults
    }
}

/// Where a fault is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) span: Span,
    pub(crate) path: String,
}

impl From<(Span, &str)> for Place {
    fn from((span, path): (Span, &str)) -> Self {
        Self {
            span,
            path: path.into(),
        }
    }
}

impl<T> From<&Spanned<T>> for Place {
    fn from(spanned: &Spanned<T>) -> Self {
        Self {
            span: spanned.span,
            path: spanned.path.clone(),
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
    pub(crate) path: String,
}

/// A kind of value that can be written in a file.
pub(crate) trait Decode: Sized {
    /// Reads it. Faults are reported to `cx`.
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self>;

    /// How the JSON Schema describes it.
    fn schema() -> Json;
}

impl<T: Decode> Decode for Spanned<T> {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        let value = T::decode(node, path, cx)?;
        Some(Self {
            value,
            span: node.span,
            path: path.into(),
        })
    }

    fn schema() -> Json {
        T::schema()
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            wrong_type(
                node,
                path,
                cx,
                "a list",
                "write [one, two] or one item a line after -",
            );
            return None;
        };
        let items = items.iter().enumerate();
        Some(
            items
                .filter_map(|(index, item)| T::decode(item, &format!("{path}[{index}]"), cx))
                .collect(),
        )
    }

    fn schema() -> Json {
        json!({"type": "array", "items": T::schema()})
    }
}

/// A map whose keys are names that the user gives.
#[derive(Clone, Debug)]
pub(crate) struct Table<T>(pub(crate) Vec<(Key, Spanned<T>)>);

impl<T: Decode> Decode for Table<T> {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            wrong_type(
                node,
                path,
                cx,
                "a map of keys",
                "write name: value, one a line",
            );
            return None;
        };
        let decoded = entries.iter().filter_map(|(key, value)| {
            let path = join(path, &key.text);
            Some((key.clone(), Spanned::decode(value, &path, cx)?))
        });
        Some(Self(decoded.collect()))
    }

    fn schema() -> Json {
        json!({"type": "object", "additionalProperties": T::schema()})
    }
}

pub(crate) fn wrong_type(node: &Node, path: &str, cx: &Context<'_>, wanted: &str, repair: &str) {
    let reason = format!("expected {wanted}, found {}", node.kind());
    cx.error(Code::WrongType, (node.span, path), reason, repair);
}

pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.into()
    } else {
        format!("{path}.{key}")
    }
}

/// A map with known keys while it is read.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    entries: &'a [(Key, Node)],
    path: &'a str,
    cx: &'a Context<'a>,
}

impl<'a> Section<'a> {
    pub(crate) fn open(node: &'a Node, path: &'a str, cx: &'a Context<'a>) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            wrong_type(
                node,
                path,
                cx,
                "a map of keys",
                "write key: value, one a line",
            );
            return None;
        };
        Some(Self { entries, path, cx })
    }

    /// The value of a key, if it is there and can be read.
    pub(crate) fn take<T: Decode>(&self, key: &str) -> Option<Spanned<T>> {
        let (_, node) = self.entries.iter().find(|(name, _)| name.text == key)?;
        Spanned::decode(node, &join(self.path, key), self.cx)
    }

    /// Reports keys that are not known.
    pub(crate) fn close(&self, known: &[&str], later: &[&str]) {
        for (key, _) in self.entries {
            let at = (key.span, join(self.path, &key.text));
            let at = (at.0, at.1.as_str());
            if known.contains(&&*key.text) {
                continue;
            }
            if later.contains(&&*key.text) {
                let reason = "this version of switchback does not support this key yet";
                self.cx.error(Code::Unsupported, at, reason, "remove it");
            } else {
                let repair = suggest::repair(&key.text, known, "key");
                self.cx
                    .error(Code::UnknownKey, at, "there is no such key here", repair);
            }
        }
    }
}

/// A JSON Schema of a map with these properties and no others.
pub(crate) fn object_schema(doc: &str, properties: Vec<(&str, &str, Json)>) -> Json {
    let mut map = Map::new();
    for (key, doc, mut schema) in properties {
        if let Json::Object(schema) = &mut schema {
            schema.insert("description".into(), doc.trim().into());
        }
        map.insert(key.into(), schema);
    }
    json!({
        "type": "object",
        "description": doc.trim(),
        "properties": map,
        "additionalProperties": false,
    })
}

/// Declares a map with known keys: its raw form, its decoder and its schema.
///
/// A key is named like its field unless another name follows in parentheses. `later` lists keys whose
/// behaviour does not exist yet.
macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        $name:ident {
            $($(#[doc = $field_doc:literal])+ $field:ident $(($key:literal))?: $kind:ty,)*
        }
        $(later [$($later:literal),*])?
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        pub(crate) struct $name {
            $($(#[doc = $field_doc])+ pub(crate) $field: Option<$crate::decode::Spanned<$kind>>,)*
        }

        impl $crate::decode::Decode for $name {
            fn decode(
                node: &$crate::node::Node,
                path: &str,
                cx: &$crate::decode::Context<'_>,
            ) -> Option<Self> {
                let section = $crate::decode::Section::open(node, path, cx)?;
                let decoded = Self {
                    $($field: section.take($crate::decode::key_of!($field $(, $key)?)),)*
                };
                section.close(
                    &[$($crate::decode::key_of!($field $(, $key)?)),*],
                    &[$($($later),*)?],
                );
                Some(decoded)
            }

            fn schema() -> serde_json::Value {
                $crate::decode::object_schema(
                    concat!($($doc,)+),
                    vec![$((
                        $crate::decode::key_of!($field $(, $key)?),
                        concat!($($field_doc,)+),
                        <$kind as $crate::decode::Decode>::schema(),
                    )),*],
                )
            }
        }
    };
}
pub(crate) use section;

/// The key of a field.
macro_rules! key_of {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident, $key:literal) => {
        $key
    };
}
pub(crate) use key_of;
