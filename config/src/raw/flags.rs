//! Feature flags as written: the flags themselves, where applications ask for them, and which of
//! them a service's backends are told.

use std::net::SocketAddr;

use serde_json::{Value as Json, json};

use super::{AdminTls, TextItem};
use crate::decode::{Context, Decode, Spanned, Table, section, wrong_type};
use crate::diagnostic::Code;
use crate::node::{Node, Value};
use crate::units::{Percent, TimeSpan};

section! {
    /// Where applications ask for flags, by the OpenFeature Remote Evaluation Protocol.
    Ofrep {
        /// Where it listens. Default: 127.0.0.1:8016. Anything but loopback needs `tls` and `tokens_file`.
        address: SocketAddr,
        /// TLS of it.
        tls: AdminTls,
        /// File with its own tokens. Default: none is needed.
        tokens_file: String,
    }
}

section! {
    /// A feature flag: of two values, on and off, unless it has `variants`.
    Flag {
        /// Whether it is in use; otherwise everybody gets `off`. Default: true.
        enabled: bool,
        /// Its values by name. Default: on is true, off is false.
        variants: Table<FlagValue>,
        /// The variant of whom nothing below concerns. Default: off; of a kill switch: on.
        default: String,
        /// The variant while it is not in use. Default: off, or what `default` says.
        off: String,
        /// Share of targeting keys that get on.
        share: Percent,
        /// Share of targeting keys that get each variant; the others get `default`.
        shares: Table<Percent>,
        /// Who gets something else, by attributes of the context; the first that matches decides.
        rules: Vec<FlagRuleItem>,
        /// Whether it fails closed: off while its state cannot be read. Default: false.
        kill_switch: bool,
        /// How old the last look at a kill switch's state may be. Default: 1m.
        max_age: TimeSpan,
    }
}

/// A rule with its place.
pub(crate) type FlagRuleItem = Spanned<FlagRule>;

section! {
    /// What some get instead, by attributes of the context.
    FlagRule {
        /// What each attribute has to be: a value, a list of values, or a table of comparisons.
        when: Table<Condition>,
        /// The variant they get.
        serve: String,
        /// Share of their targeting keys that get on.
        share: Percent,
        /// Share of their targeting keys that get each variant; the others get the default.
        shares: Table<Percent>,
    }
}

section! {
    /// What an attribute has to be; all of it must hold.
    Comparison {
        /// One of these.
        is: Vec<FlagValue>,
        /// None of these, or not there.
        not: Vec<FlagValue>,
        /// Text that begins so.
        starts_with: String,
        /// Text that ends so.
        ends_with: String,
        /// Text with this in it.
        contains: String,
        /// A number above this one.
        above: Number,
        /// A number below this one.
        below: Number,
    }
}

section! {
    /// Which flags the backends of a service are told, in a header of every request.
    FlagHeader {
        /// The header.
        header: String,
        /// The flags.
        names: Vec<TextItem>,
    }
}

/// A value of a flag or an attribute: anything that JSON can say, apart from nothing.
#[derive(Clone, Debug)]
pub(crate) struct FlagValue(pub(crate) Json);

impl Decode for FlagValue {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        if matches!(node.value, Value::Null) {
            let reason = "nothing is no value of a flag";
            let repair = "write true, false, a number, text, a list or a map";
            cx.error(Code::InvalidValue, (node.span, path), reason, repair);
            return None;
        }
        Some(Self(json_of(node)))
    }

    fn schema() -> Json {
        json!({
            "type": ["boolean", "number", "string", "array", "object"],
            "additionalProperties": {},
        })
    }
}

fn json_of(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar { text, plain: false } => text.as_str().into(),
        // Plain scalars of YAML that are JSON, too: true, false and numbers.
        Value::Scalar { text, plain: true } => match serde_json::from_str(text) {
            Ok(json @ (Json::Bool(_) | Json::Number(_))) => json,
            _ => text.as_str().into(),
        },
        Value::List(items) => items.iter().map(json_of).collect(),
        Value::Map(entries) => {
            let entries = entries.iter();
            entries
                .map(|(key, value)| (key.text.clone(), json_of(value)))
                .collect()
        }
    }
}

/// A number with or without a fraction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number(pub(crate) f64);

impl Decode for Number {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        let number = match json_of(node) {
            Json::Number(number) => number.as_f64(),
            _ => None,
        };
        if number.is_none() {
            wrong_type(node, path, cx, "a number", "write a number, without quotes");
        }
        number.map(Self)
    }

    fn schema() -> Json {
        json!({"type": "number"})
    }
}

/// What an attribute has to be.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// One of these.
    Is(Vec<FlagValue>),
    /// All of this.
    Compare(Box<Comparison>),
}

impl Decode for Condition {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        match &node.value {
            Value::Map(_) => {
                Comparison::decode(node, path, cx).map(|compare| Self::Compare(Box::new(compare)))
            }
            Value::List(_) => Vec::decode(node, path, cx).map(Self::Is),
            _ => FlagValue::decode(node, path, cx).map(|value| Self::Is(vec![value])),
        }
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": ["boolean", "number", "string"]},
            Vec::<FlagValue>::schema(),
            Comparison::schema(),
        ]})
    }
}
