//! What is wrong with a configuration: where, what was found, why it is refused, and the repair.
//!
//! Diagnostics are values. Validation collects them and goes on, so that one look at the output shows
//! every fault of a file. People read them rendered under the offending line; machines read them as
//! JSON, where the code is stable and the wording is not.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::{Serialize, Serializer};

/// Declares [`Code`] with numbers that are never given to anything else.
macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal,)+) => {
        /// What kind of fault it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// As printed: `SB0006`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $number,)+
                }
            }
        }
    };
}

codes! {
    /// The text is not YAML.
    Syntax = "SB0001",
    /// There is nothing in it, which would drop every route.
    Empty = "SB0002",
    /// It is larger, deeper or longer than anything real.
    TooLarge = "SB0003",
    /// YAML that has no meaning here: several documents, tags, keys that are not text.
    Unsuitable = "SB0004",
    /// A key occurs twice.
    DuplicateKey = "SB0005",
    /// No such key.
    UnknownKey = "SB0006",
    /// A key whose behaviour this version does not have.
    Unsupported = "SB0007",
    /// Text where a list belongs, and the like.
    WrongType = "SB0008",
    /// A key is missing.
    MissingKey = "SB0009",
    /// Text that cannot be read as what it should be.
    InvalidValue = "SB0010",
    /// A value outside its bounds.
    OutOfRange = "SB0011",
    /// None of the words that are understood.
    UnknownWord = "SB0012",
    /// Not a name for a service, backend or listener.
    InvalidName = "SB0013",
    /// A name that refers to nothing.
    DanglingName = "SB0014",
    /// The weights do not name exactly the backends.
    IncompleteWeights = "SB0015",
    /// All weights are 0.
    NoWeight = "SB0016",
    /// Versions cannot be told apart without labels.
    MissingVersion = "SB0017",
    /// Two weighted backends carry one label.
    SameVersion = "SB0018",
    /// An address that cannot be an endpoint.
    EndpointRefused = "SB0019",
    /// The same thing is listed twice.
    DuplicateItem = "SB0020",
    /// Two routes match the same requests.
    DuplicateRoute = "SB0021",
    /// Two listeners want one address.
    ListenerConflict = "SB0022",
    /// The admin API would be reachable without TLS.
    AdminExposed = "SB0023",
    /// Keys that exclude each other, or of which one is needed.
    Contradiction = "SB0024",
    /// More weighted canaries than affinity can keep apart.
    TooManyCanaries = "SB0025",
    /// A limit where it has no effect.
    MisplacedLimit = "SB0026",
    /// Repeating this method may do harm.
    UnsafeMethod = "SB0027",
    /// A header that switchback itself writes.
    ProtectedHeader = "SB0028",
    /// Half of a certificate and its key.
    IncompletePair = "SB0029",
    /// No route leads to this service.
    UnusedService = "SB0030",
    /// TLS settings that no endpoint uses.
    UnusedTls = "SB0031",
    /// More faults than are shown.
    TooManyFaults = "SB0032",
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Whether a configuration can be used in spite of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but somebody should look.
    Warning,
}

/// A stretch of the text, in bytes, on character boundaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// As a range.
    #[must_use]
    pub const fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// What kind.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// Where.
    pub span: Span,
    /// 1-based line of the span's beginning.
    pub line: usize,
    /// 1-based column of the span's beginning, in characters.
    pub column: usize,
    /// The key: `services.checkout.weights.green`; empty for the whole file.
    pub path: String,
    /// The value as written, shortened.
    pub value: String,
    /// Why it is refused.
    pub reason: String,
    /// What to write instead.
    pub repair: String,
    /// Another place it has to do with, and what that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<(Span, String)>,
}

/// Longest value that is repeated in a diagnostic.
const VALUE_CHARS: usize = 60;

/// A text whose lines can be found without counting from its beginning each time.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1));
        Self {
            text,
            line_starts: line_starts.collect(),
        }
    }

    /// 1-based line and column of a place.
    fn position(&self, at: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= at);
        let start = self.line_starts[line - 1];
        (line, self.text[start..at].chars().count() + 1)
    }
}

impl Diagnostic {
    /// An error at a place of a text.
    pub(crate) fn error(
        code: Code,
        source: &Source<'_>,
        span: Span,
        path: &str,
        reason: impl Into<String>,
        repair: impl Into<String>,
    ) -> Self {
        let text = source.text;
        let span = within(text, span);
        let (line, column) = source.position(span.start);
        let written = text[span.range()].lines().next().unwrap_or_default();
        Self {
            code,
            severity: Severity::Error,
            span,
            line,
            column,
            path: path.into(),
            value: written.chars().take(VALUE_CHARS).collect(),
            reason: reason.into(),
            repair: repair.into(),
            other: None,
        }
    }

    /// Whether it makes the configuration unusable.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Shows it under the line it is about. `colour`: for terminals.
    #[must_use]
    pub fn render(&self, text: &str, file: &str, colour: bool) -> String {
        let level = if self.is_error() {
            Level::ERROR
        } else {
            Level::WARNING
        };
        let title = if self.path.is_empty() {
            self.reason.clone()
        } else {
            format!("{}: {}", self.path, self.reason)
        };
        let mut snippet = Snippet::source(text).path(file).annotation(
            AnnotationKind::Primary
                .span(self.span.range())
                .label(self.reason.as_str()),
        );
        if let Some((other, what)) = &self.other {
            snippet = snippet.annotation(
                AnnotationKind::Context
                    .span(within(text, *other).range())
                    .label(what.as_str()),
            );
        }
        let mut report: Vec<Group<'_>> = vec![
            level
                .primary_title(title)
                .id(self.code.as_str())
                .element(snippet),
        ];
        if !self.repair.is_empty() {
            report.push(Group::with_title(
                Level::HELP.secondary_title(self.repair.as_str()),
            ));
        }
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        format!("{}\n", renderer.render(&report))
    }
}

/// Shows all of them, with a line that counts them.
#[must_use]
pub fn render_all(diagnostics: &[Diagnostic], text: &str, file: &str, colour: bool) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&diagnostic.render(text, file, colour));
        out.push('\n');
    }
    let errors = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .count();
    let warnings = diagnostics.len() - errors;
    let plural = |count: usize, noun: &str| match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    };
    out.push_str(&match (errors, warnings) {
        (0, warnings) => format!("{file}: {}\n", plural(warnings, "warning")),
        (errors, 0) => format!("{file}: {}\n", plural(errors, "error")),
        (errors, warnings) => format!(
            "{file}: {}, {}\n",
            plural(errors, "error"),
            plural(warnings, "warning")
        ),
    });
    out
}

/// The span cut to the text and to its character boundaries.
fn within(text: &str, span: Span) -> Span {
    let start = text.floor_char_boundary(span.start);
    let end = text.ceil_char_boundary(span.end.max(start));
    Span {
        start,
        end: end.max(start),
    }
}
