//! Plain rules as written: a sentence, or a table about what is measured elsewhere.

use serde_json::{Value as Json, json};

use crate::decode::{Context, Decode, Spanned, section};
use crate::node::{Node, Value};
use crate::units::{Threshold, TimeSpan};

/// A rule with its place.
pub(crate) type RuleItem = Spanned<Rule>;

/// A rule in either form.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    Text(String),
    Signal(Box<Signal>),
}

impl Decode for Rule {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        match &node.value {
            Value::Map(_) => {
                Signal::decode(node, path, cx).map(|signal| Self::Signal(signal.into()))
            }
            _ => String::decode(node, path, cx).map(Self::Text),
        }
    }

    fn schema() -> Json {
        json!({"anyOf": [{"type": "string"}, Signal::schema()]})
    }
}

section! {
    /// A rule about what is measured elsewhere: exactly one of `prometheus` and `http`.
    Signal {
        /// How it is called in sentences, events and metrics. Default: prometheus or http.
        name: String,
        /// A Prometheus server: http://127.0.0.1:9090.
        prometheus: String,
        /// PromQL for a number; {{service}}, {{backend}} and {{version}} are filled in, inside of quotes.
        query: String,
        /// Which numbers are bad: "> 5"; also >=, < and <=.
        threshold: Threshold,
        /// A URL that answers with a good status while all is well; {{version}} and the like are filled in.
        http: String,
        /// Which statuses are good: 200-299 (default), or a single one.
        expect: String,
        /// How long it must be bad.
        span ("for"): TimeSpan,
        /// From one look to the next. Default: 10s.
        every: TimeSpan,
        /// How long one look may take. Default: 5s, or `every` if that is less.
        timeout: TimeSpan,
        /// PEM file with the authorities to trust instead of the system's, for https.
        ca: String,
        /// File whose text is sent as a bearer token.
        token_file: String,
    }
}
