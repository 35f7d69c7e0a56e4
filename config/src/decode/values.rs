//! How single values are read and described.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::{Context, Decode, wrong_type};
use crate::diagnostic::Code;
use crate::model::Slow;
use crate::node::{Node, Value};
use crate::suggest;
use crate::units::{ByteSize, Date, Endpoint, Percent, Rate, Threshold, TimeSpan, UnitError};

fn scalar<'a>(
    node: &'a Node,
    path: &str,
    cx: &Context<'_>,
    wanted: &str,
    repair: &str,
) -> Option<(&'a str, bool)> {
    match &node.value {
        Value::Scalar { text, plain } => Some((text, *plain)),
        _ => {
            wrong_type(node, path, cx, wanted, repair);
            None
        }
    }
}

impl Decode for String {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        let (text, _) = scalar(
            node,
            path,
            cx,
            "text",
            "write text, in quotes if it has special characters",
        )?;
        if text.chars().any(char::is_control) {
            let reason = "control characters are not allowed";
            cx.error(Code::InvalidValue, (node.span, path), reason, "remove them");
            return None;
        }
        Some(text.to_owned())
    }

    fn schema() -> Json {
        // Plain numbers such as `version: 41` are text too.
        json!({"type": ["string", "number", "boolean"]})
    }
}

impl Decode for bool {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        match scalar(node, path, cx, "true or false", "write true or false")? {
            ("true", true) => Some(true),
            ("false", true) => Some(false),
            _ => {
                cx.error(
                    Code::WrongType,
                    (node.span, path),
                    "expected true or false",
                    "write true or false without quotes",
                );
                None
            }
        }
    }

    fn schema() -> Json {
        json!({"type": "boolean"})
    }
}

/// A plain whole number.
fn number(node: &Node, path: &str, cx: &Context<'_>) -> Option<u32> {
    let (text, plain) = scalar(node, path, cx, "a whole number", "write a whole number")?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !plain || digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        cx.error(
            Code::WrongType,
            (node.span, path),
            "expected a whole number",
            "write digits only, without quotes or unit",
        );
        return None;
    }
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => {
            let reason = "this number is negative or too large";
            cx.error(
                Code::OutOfRange,
                (node.span, path),
                reason,
                format!("use 0 to {}", u32::MAX),
            );
            None
        }
    }
}

impl Decode for u32 {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        number(node, path, cx)
    }

    fn schema() -> Json {
        json!({"type": "integer", "minimum": 0, "maximum": Self::MAX})
    }
}

impl Decode for NonZeroU32 {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        let number = Self::new(number(node, path, cx)?);
        if number.is_none() {
            cx.error(
                Code::OutOfRange,
                (node.span, path),
                "0 would allow nothing",
                "use 1 or more",
            );
        }
        number
    }

    fn schema() -> Json {
        json!({"type": "integer", "minimum": 1, "maximum": u32::MAX})
    }
}

/// Makes a type that is written as text readable. The closure says what is wrong with bad text.
macro_rules! text_values {
    ($($kind:ty: $wanted:literal, $pattern:literal, $read:expr;)+) => {
        $(impl Decode for $kind {
            fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
                let (text, _) = scalar(node, path, cx, $wanted, concat!("write ", $wanted))?;
                let read: fn(&str) -> Result<Self, UnitError> = $read;
                match read(text) {
                    Ok(value) => Some(value),
                    Err(UnitError { reason, repair }) => {
                        cx.error(Code::InvalidValue, (node.span, path), reason, repair);
                        None
                    }
                }
            }

            fn schema() -> Json {
                json!({"type": "string", "pattern": $pattern})
            }
        })+
    };
}

text_values! {
    TimeSpan: "a duration such as 30s", r"^\d[\d.a-z ]*[a-z]$", |text| text.parse();
    Date: "a date such as 2027-05-01", r"^\d{4}-\d\d-\d\d(T[\d:.]+Z)?$", |text| text.parse();
    ByteSize: "a size such as 64KiB", r"^\d[\d.]* ?[A-Za-z]+$", |text| text.parse();
    Percent: "a percent such as 5%", r"^\d[\d.]* ?%$", |text| text.parse();
    Rate: "a rate such as 1/year", r"^\d+ ?/ ?[a-z]+$", |text| text.parse();
    Threshold: "a threshold such as \"> 5\"", r"^\s*[<>]=?\s*[-+.\de]+\s*$", |text| text.parse();
    Slow: "a time such as 500ms, or stable p99", r"^(\d[\d.a-z ]*[a-z]|stable p(90|95|99|99\.9))$", |text| text.parse();
    Endpoint: "an endpoint such as http://127.0.0.1:9001", r"^(http|https|h2c)://[^/?#@]+/?$", |text| text.parse();
    SocketAddr: "an address such as 127.0.0.1:8080", r"^.+:\d+$", |text| text.parse().map_err(|_| UnitError {
        reason: "this is not address:port".into(),
        repair: "write an IP address and a port: 0.0.0.0:8080 or [::]:8080".into(),
    });
    IpNet: "a network such as 10.0.0.0/8", r"^[0-9a-fA-F.:]+(/\d+)?$", |text| {
        let address = || text.parse().map(|address: std::net::IpAddr| IpNet::from(address));
        text.parse().or_else(|_| address()).map_err(|_| UnitError {
            reason: "this is not a network".into(),
            repair: "write an address with a prefix length: 10.0.0.0/8 or fd00::/8".into(),
        })
    };
}

/// A limit, or `off`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OrOff<T>(pub(crate) Option<T>);

impl<T: Decode> Decode for OrOff<T> {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        if matches!(&node.value, Value::Scalar { text, .. } if text == "off") {
            return Some(Self(None));
        }
        T::decode(node, path, cx).map(|value| Self(Some(value)))
    }

    fn schema() -> Json {
        json!({"anyOf": [T::schema(), {"const": "off"}]})
    }
}

/// A value that is one of a few words.
pub(crate) trait Words: Copy + 'static {
    /// The words and what they stand for.
    const WORDS: &'static [(&'static str, Self)];
}

impl<T: Words> Decode for T {
    fn decode(node: &Node, path: &str, cx: &Context<'_>) -> Option<Self> {
        let known: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        let repair = format!("use one of: {}", known.join(", "));
        let (text, _) = scalar(node, path, cx, "a word", &repair)?;
        let found = T::WORDS.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let repair = suggest::repair(text, &known, "word");
            let reason = format!("{text:?} has no meaning here");
            cx.error(Code::UnknownWord, (node.span, path), reason, repair);
        }
        found.map(|(_, value)| *value)
    }

    fn schema() -> Json {
        let known: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        json!({"enum": known})
    }
}
