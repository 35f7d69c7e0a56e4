//! Texts with places for what is watched: `{{service}}`, `{{backend}}` and `{{version}}`.
//!
//! A label is what a deploy job says it is, and may contain quotes, blanks or slashes. What is filled in
//! is therefore escaped for the place where it stands, which is worked out once, when the text is read:
//! inside a string literal of PromQL, inside a regular expression in one, or in a URL. A place where
//! nothing could be escaped is refused, so that no label can ever change what is asked.

use std::fmt::Write;

use serde::{Serialize, Serializer};

use crate::suggest;
use crate::units::UnitError;

/// What is watched.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Name of the service.
    pub service: &'a str,
    /// Name of the backend.
    pub backend: &'a str,
    /// Label of the version.
    pub version: &'a str,
}

/// A text with places. Prints as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Word, Form),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Service,
    Backend,
    Version,
}

/// How a value is written where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// In a string literal of PromQL, whatever its quotes.
    Literal,
    /// In such a literal that is a regular expression.
    Pattern,
    /// In the path or query of a URL.
    Url,
}

const WORDS: [(&str, Word); 3] = [
    ("service", Word::Service),
    ("backend", Word::Backend),
    ("version", Word::Version),
];

impl Template {
    /// Reads PromQL. Places stand inside of string literals.
    ///
    /// # Errors
    /// When there is a place with an unknown word, or one where nothing can be escaped.
    pub fn promql(text: &str) -> Result<Self, UnitError> {
        let mut scanner = PromQl::default();
        Self::read(text, |passed, word| {
            scanner.pass(passed);
            scanner.form().ok_or_else(|| {
                UnitError::new(
                    "what is filled in belongs inside of quotes",
                    format!("write \"{{{{{word}}}}}\" or '{{{{{word}}}}}'"),
                )
            })
        })
    }

    /// Reads a URL. Places stand in its path and query.
    ///
    /// # Errors
    /// When there is a place with an unknown word, or one that would choose the host.
    pub fn url(text: &str) -> Result<Self, UnitError> {
        let mut seen = String::new();
        Self::read(text, |passed, _| {
            seen.push_str(passed);
            let authority = seen.split_once("://").map_or("", |(_, rest)| rest);
            match authority.contains(['/', '?']) {
                true => Ok(Form::Url),
                false => Err(UnitError::new(
                    "a label cannot choose which host is asked",
                    "use it in the path or query only",
                )),
            }
        })
    }

    /// `form` is told the text up to a place and the word in it, and says how to write there.
    fn read(
        text: &str,
        mut form: impl FnMut(&str, &str) -> Result<Form, UnitError>,
    ) -> Result<Self, UnitError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                return Err(UnitError::new("{{ has no }}", "write {{version}}"));
            };
            let name = name.trim();
            let known = WORDS.map(|(word, _)| word);
            let Some((_, word)) = WORDS.iter().find(|(word, _)| *word == name) else {
                return Err(UnitError::new(
                    format!("nothing is known about {{{{{name}}}}}"),
                    suggest::repair(name, &known, "word"),
                ));
            };
            let form = form(before, name)?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Place(*word, form));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self {
            text: text.to_owned(),
            pieces,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// With everything filled in.
    #[must_use]
    pub fn fill(&self, subject: Subject<'_>) -> String {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Place(word, form) => {
                    let value = match word {
                        Word::Service => subject.service,
                        Word::Backend => subject.backend,
                        Word::Version => subject.version,
                    };
                    form.write(value, &mut filled);
                }
            }
        }
        filled
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl Form {
    fn write(self, value: &str, out: &mut String) {
        for char in value.chars() {
            match self {
                Self::Literal => write_literal(char, out),
                Self::Pattern => {
                    if r"\.+*?()|[]{}^$".contains(char) {
                        write_literal('\\', out);
                    }
                    write_literal(char, out);
                }
                Self::Url => write_percent_encoded(char, out),
            }
        }
    }
}

/// The hexadecimal escape means the same between both kinds of quotes.
fn write_literal(char: char, out: &mut String) {
    if char.is_ascii_control() || matches!(char, '"' | '\'' | '\\') {
        let _ = write!(out, "\\x{:02x}", u32::from(char));
    } else {
        out.push(char);
    }
}

fn write_percent_encoded(char: char, out: &mut String) {
    if char.is_ascii_alphanumeric() || matches!(char, '-' | '.' | '_' | '~') {
        out.push(char);
        return;
    }
    for byte in char.encode_utf8(&mut [0; 4]).bytes() {
        let _ = write!(out, "%{byte:02X}");
    }
}

/// Where in an expression one is.
#[derive(Debug, Default)]
struct PromQl {
    quote: Option<char>,
    escaped: bool,
    comment: bool,
    /// Whether the string after the operator seen last is a regular expression.
    pattern: bool,
    /// The character before, blanks apart.
    before: Option<char>,
}

impl PromQl {
    fn pass(&mut self, text: &str) {
        for char in text.chars() {
            match self.quote {
                Some(_) if self.escaped => self.escaped = false,
                Some(quote) if char == quote => {
                    self.quote = None;
                    self.before = None;
                }
                Some(quote) => self.escaped = char == '\\' && quote != '`',
                None => self.pass_outside(char),
            }
        }
    }

    fn pass_outside(&mut self, char: char) {
        match char {
            '\n' => self.comment = false,
            _ if self.comment || char.is_whitespace() => {}
            '#' => self.comment = true,
            '"' | '\'' | '`' => self.quote = Some(char),
            _ => {
                self.pattern = char == '~' && matches!(self.before, Some('=' | '!'));
                self.before = Some(char);
            }
        }
    }

    fn form(&self) -> Option<Form> {
        match self.quote {
            Some('"' | '\'') if self.escaped => None,
            Some('"' | '\'') if self.pattern => Some(Form::Pattern),
            Some('"' | '\'') => Some(Form::Literal),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject<'_> = Subject {
        service: "shop",
        backend: "green",
        version: "1.2\"} or \\ vector(1) #'",
    };

    fn promql(text: &str) -> String {
        Template::promql(text).expect(text).fill(SUBJECT)
    }

    #[test]
    fn labels_cannot_end_the_literal_they_stand_in() {
        for quote in ['"', '\''] {
            assert_eq!(
                promql(&format!(
                    "sum(f{{s={quote}{{{{service}}}}{quote},v={quote}v{{{{ version }}}}{quote}}}[1m]))"
                )),
                format!(
                    "sum(f{{s={quote}shop{quote},v={quote}v1.2\\x22}} or \\x5c vector(1) #\\x27{quote}}}[1m]))"
                )
            );
        }
    }

    #[test]
    fn labels_in_regular_expressions_mean_themselves() {
        for operator in ["=~", "!~", "=~ "] {
            let text = format!("f{{a=\"{{{{version}}}}\",v{operator}\"({{{{backend}}}}|.*)\"}}");
            let subject = Subject {
                backend: "g.b",
                version: "1.2",
                ..SUBJECT
            };
            let filled = Template::promql(&text).expect("good").fill(subject);
            assert_eq!(
                filled,
                format!("f{{a=\"1.2\",v{operator}\"(g\\x5c.b|.*)\"}}")
            );
        }
    }

    #[test]
    fn places_where_nothing_can_be_escaped_are_refused() {
        for text in [
            "{{service}}_total",
            "f{v={{version}}}",
            "f{v=`{{version}}`}",
            "f # \"{{version}}\"",
            "f{v=\"\\{{version}}\"}",
            "f{v=\"a\\\\\"}{{version}}",
            "f{v=\"{{version}",
            "f{v=\"{{label}}\"}",
        ] {
            let error = Template::promql(text).expect_err(text);
            assert!(!error.repair.is_empty());
        }
    }

    #[test]
    fn labels_in_urls_are_encoded_and_choose_no_host() {
        let url = Template::url("http://ok:80/check/{{backend}}?version={{version}}");
        assert_eq!(
            url.expect("good").fill(Subject {
                version: "a/b&c=ä ",
                ..SUBJECT
            }),
            "http://ok:80/check/green?version=a%2Fb%26c%3D%C3%A4%20"
        );
        for text in [
            "http://{{version}}/",
            "http://a{{version}}",
            "{{version}}://a/",
            "http://a/{{who}}",
        ] {
            assert!(Template::url(text).is_err(), "{text}");
        }
    }
}
