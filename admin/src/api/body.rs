//! Bodies as they come: JSON, one object, nothing said twice, and not too deep.
//!
//! serde is more generous than the document says: it takes an array where an object is described, and the
//! last of several members with one name. What is ambiguous is refused here, before it means anything.

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;
use switchback_config::defaults::ADMIN_BODY_DEPTH;

use super::problem::Problem;

/// Reads a body; an empty one stands for `{}` where nothing is required.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    let invalid = |error: serde_json::Error| {
        let problem = Problem::bad_request("invalid_body", error.to_string());
        problem
            .with("line", error.line().into())
            .with("column", error.column().into())
    };
    check(text).map_err(invalid)?;
    serde_json::from_slice(text).or_else(|error| {
        // In JSON, 5 and 5.0 are the same number; serde tells them apart.
        let whole = serde_json::from_slice(text).ok().and_then(whole);
        let again = whole.and_then(|value| serde_json::from_value(value).ok());
        again.ok_or_else(|| invalid(error))
    })
}

/// Whether a text is an object, says nothing twice and is not too deep.
pub(crate) fn check(text: &[u8]) -> serde_json::Result<()> {
    let mut plain = serde_json::Deserializer::from_slice(text);
    Plain { depth: 0 }.deserialize(&mut plain)
}

/// The same value with whole numbers written as such; none if there is nothing to change.
fn whole(mut value: Value) -> Option<Value> {
    fn change(value: &mut Value) -> bool {
        match value {
            Value::Array(items) => items.iter_mut().fold(false, |any, item| change(item) | any),
            Value::Object(members) => {
                let values = members.values_mut();
                values.fold(false, |any, value| change(value) | any)
            }
            Value::Number(number) if number.is_f64() => {
                let whole = number.as_f64().filter(|float| float.fract() == 0.0);
                // Printed without a fraction, it is read as the whole number that it is.
                let whole = whole.and_then(|float| format!("{float:.0}").parse().ok());
                whole.map(|whole: i64| *value = whole.into()).is_some()
            }
            _ => false,
        }
    }
    change(&mut value).then_some(value)
}

/// Reads the body of a request that has nothing to say.
pub(super) fn read_nothing(body: &Bytes) -> Result<(), Problem> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    read::<Nothing>(body).map(|_| ())
}

/// Looks at a value for what no body may have.
#[derive(Clone, Copy)]
struct Plain {
    /// Arrays and objects around it.
    depth: usize,
}

impl Plain {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > ADMIN_BODY_DEPTH {
            return Err(E::custom(format_args!(
                "arrays and objects are nested more than {ADMIN_BODY_DEPTH} deep"
            )));
        }
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Plain {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.depth == 0 {
            deserializer.deserialize_map(self)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

/// Values that have nothing in them.
macro_rules! simple {
    ($($visit:ident($kind:ty)),*) => {
        $(fn $visit<E: de::Error>(self, _: $kind) -> Result<(), E> {
            Ok(())
        })*
    };
}

impl<'de> Visitor<'de> for Plain {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    simple!(
        visit_bool(bool),
        visit_i64(i64),
        visit_u64(u64),
        visit_f64(f64),
        visit_str(&str)
    );

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let item = self.deeper()?;
        while items.next_element_seed(item)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let value = self.deeper()?;
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value_seed(value)?;
            if let Some(twice) = names.replace(name) {
                return Err(de::Error::custom(format_args!("{twice:?} is there twice")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_value(text: &str) -> Result<serde_json::Value, Problem> {
        read(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn plain_objects_are_read_and_an_empty_body_is_an_empty_object() {
        let text = r#"{"a": [1, -1, 1.5, "x", null, true, {"b": {}}]}"#;
        assert_eq!(
            read_value(text).unwrap().to_string(),
            text.replace(": ", ":").replace(", ", ",")
        );
        assert_eq!(read_value("").unwrap(), serde_json::json!({}));
    }

    #[test]
    fn whole_numbers_are_the_same_with_and_without_a_point() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Numbers {
            small: u32,
            more: Vec<i64>,
        }
        let read = |text: &str| read::<Numbers>(&Bytes::copy_from_slice(text.as_bytes()));
        let numbers = read(r#"{"small": 5.0, "more": [1e3, -2.0, 7]}"#).unwrap();
        #[rustfmt::skip]
        assert_eq!(numbers, Numbers { small: 5, more: vec![1_000, -2, 7] });
        for text in ["5.5", "-5.0", "1e10", "1e300", "\"5\""] {
            assert!(
                read(&format!("{{\"small\": {text}, \"more\": []}}")).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn arrays_scalars_repeated_names_and_trailing_text_are_refused() {
        for text in [
            "[]",
            "1",
            "null",
            r#""x""#,
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": {"b": 1, "b": 2}}"#,
            r#"{"a": [{"b": 1, "\u0062": 2}]}"#,
            "{} {}",
            "{",
        ] {
            assert!(read_value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded_on_both_sides_of_the_limit() {
        let nested = |depth: usize| {
            let inner = "[".repeat(depth - 1) + &"]".repeat(depth - 1);
            format!("{{\"a\": {inner}}}").replace(": }", ": 1}")
        };
        assert!(read_value(&nested(ADMIN_BODY_DEPTH)).is_ok());
        assert!(read_value(&nested(ADMIN_BODY_DEPTH + 1)).is_err());
    }
}
