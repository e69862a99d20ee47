//! Protobuf JSON input, where `null` means "not set" and `1e3` or `1.0` is an integer.
//!
//! The generated code refuses both. Nearly no client sends them, so a message is read directly first; only when
//! that fails is it read again without its `null` members and with its integers spelled as such.

use std::fmt;

use serde::{
    Deserialize,
    de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Reads a message; the error is the text for the client.
pub(super) fn read<M: DeserializeOwned>(payload: &[u8]) -> Result<M, String> {
    if payload.is_empty() {
        return Err("zero-length payload is not a valid JSON object".to_owned());
    }
    match serde_json::from_slice(payload) {
        Ok(message) => Ok(message),
        Err(error) if !error.is_data() => Err(error.to_string()),
        Err(error) => match serde_json::from_slice(payload) {
            Ok(Plain { value, rewritten: true }) => M::deserialize(value).map_err(|error| error.to_string()),
            Ok(Plain { rewritten: false, .. }) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// A JSON value whose objects have lost their `null` members and whose integers are spelled as such. A member that occurs twice is an error, as it
/// is for the generated code: a plain [`Value`] would silently keep the last.
struct Plain {
    value: Value,
    rewritten: bool,
}

impl From<Value> for Plain {
    fn from(value: Value) -> Self {
        Self { value, rewritten: false }
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Pruner)
    }
}

struct Pruner;

impl<'de> Visitor<'de> for Pruner {
    type Value = Plain;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Plain, E> {
        Ok(Value::from(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Plain, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Plain, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Plain, E> {
        // Within these limits every integer has its own floating point number.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if value.fract() != 0.0 || value.abs() > EXACT {
            return Ok(Value::from(value).into());
        }
        #[allow(clippy::cast_possible_truncation, reason = "integral and within the limits")]
        let integer = value as i64;
        Ok(Plain { value: Value::from(integer), rewritten: true })
    }

    fn visit_str<E>(self, value: &str) -> Result<Plain, E> {
        Ok(Value::from(value).into())
    }

    fn visit_unit<E>(self) -> Result<Plain, E> {
        Ok(Value::Null.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Plain, A::Error> {
        let mut rewritten = false;
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Plain>()? {
            rewritten |= item.rewritten;
            list.push(item.value);
        }
        Ok(Plain { value: Value::Array(list), rewritten })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Plain, A::Error> {
        let mut rewritten = false;
        let mut object = Map::new();
        while let Some((name, member)) = members.next_entry::<String, Plain>()? {
            rewritten |= member.rewritten;
            if member.value.is_null() {
                rewritten = true;
            } else if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            } else {
                object.insert(name, member.value);
            }
        }
        Ok(Plain { value: Value::Object(object), rewritten })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[derive(Debug, PartialEq, Default, Deserialize)]
    #[serde(default)]
    struct Strict {
        count: u32,
        list: Vec<String>,
        map: HashMap<String, Strict>,
    }

    #[test]
    fn null_members_are_unset_at_any_depth() {
        let strict: Strict = read(br#"{"count":null,"list":null,"map":{"a":{"count":null},"b":null}}"#).unwrap();
        assert_eq!(strict.map, HashMap::from([("a".to_owned(), Strict::default())]));
    }

    #[test]
    fn integers_may_be_written_with_a_fraction_or_an_exponent() {
        for (text, count) in [("1.0", 1), ("1e3", 1000), ("4294967295.0", u32::MAX), ("-0.0", 0)] {
            assert_eq!(read::<Strict>(format!(r#"{{"count":{text}}}"#).as_bytes()).unwrap().count, count, "{text}");
        }
        for text in ["1.5", "-1.0", "4294967296.0", "1e300"] {
            assert!(read::<Strict>(format!(r#"{{"count":{text}}}"#).as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn errors_besides_null_stay_errors() {
        for bad in [
            &b""[..],
            b"null",
            b"{",
            b"{} {}",
            br#"{"count":-1}"#,
            br#"{"count":"x","list":null}"#,
            br#"{"list":[null]}"#,
            br#"{"count":1,"count":2,"list":null}"#,
            b"\xff",
        ] {
            assert!(read::<Strict>(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_stack_overflow() {
        let deep = [r#"{"map":{"a":"#.repeat(100_000), r#"{"count":null}"#.to_owned()].concat();
        assert!(read::<Strict>(deep.as_bytes()).unwrap_err().contains("recursion limit"));
    }
}
