//! Open enums in protobuf JSON.
//!
//! The [JSON mapping](https://protobuf.dev/programming-guides/json/) lets a parser that ignores unknown fields
//! drop enum names that it does not know (the field keeps its default) and keep numbers that it does not know.

use std::{fmt, marker::PhantomData};

use serde::de::{self, Deserializer, Visitor};

/// An enum value as clients send it: a name, a number, or `null`.
#[derive(Debug)]
pub struct Open<E> {
    number: i32,
    kind: PhantomData<E>,
}

impl<E> Open<E> {
    /// The number on the wire; 0 for an unknown name.
    pub fn number(&self) -> i32 {
        self.number
    }
}

/// Enums that know their names; implemented for those that clients send.
pub trait Names: Sized {
    /// The number behind a proto name such as `SIGNAL_SIGTERM`.
    fn number_of(name: &str) -> Option<i32>;
}

impl Names for super::process::Signal {
    fn number_of(name: &str) -> Option<i32> {
        Self::from_str_name(name).map(|signal| signal as i32)
    }
}

impl Names for super::process::SignalScope {
    fn number_of(name: &str) -> Option<i32> {
        Self::from_str_name(name).map(|scope| scope as i32)
    }
}

impl<'de, E: Names> de::Deserialize<'de> for Open<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OpenVisitor<E>(PhantomData<E>);

        impl<E: Names> Visitor<'_> for OpenVisitor<E> {
            type Value = i32;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an enum name or a 32-bit number")
            }

            fn visit_str<Err: de::Error>(self, name: &str) -> Result<i32, Err> {
                Ok(E::number_of(name).unwrap_or(0))
            }

            fn visit_i64<Err: de::Error>(self, number: i64) -> Result<i32, Err> {
                i32::try_from(number).map_err(|_| Err::custom(format!("enum number {number} does not fit 32 bits")))
            }

            fn visit_u64<Err: de::Error>(self, number: u64) -> Result<i32, Err> {
                i32::try_from(number).map_err(|_| Err::custom(format!("enum number {number} does not fit 32 bits")))
            }

            fn visit_unit<Err: de::Error>(self) -> Result<i32, Err> {
                Ok(0)
            }
        }

        let number = deserializer.deserialize_any(OpenVisitor::<E>(PhantomData))?;
        Ok(Self { number, kind: PhantomData })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::super::process::{SendSignalRequest, Signal};

    fn signal(json: &str) -> Result<i32, serde_json::Error> {
        serde_json::from_str::<SendSignalRequest>(json).map(|request| request.signal)
    }

    #[test]
    fn names_numbers_and_strangers() {
        assert_eq!(signal(r#"{"signal":"SIGNAL_SIGTERM"}"#).unwrap(), Signal::Sigterm as i32);
        assert_eq!(signal(r#"{"signal":9}"#).unwrap(), 9);
        assert_eq!(signal(r#"{"signal":42}"#).unwrap(), 42);
        assert_eq!(signal(r#"{"signal":-3}"#).unwrap(), -3);
        assert_eq!(signal(r#"{"signal":"SIGNAL_NEW"}"#).unwrap(), 0);
        assert_eq!(signal(r#"{"signal":null}"#).unwrap(), 0);
        assert!(signal(r#"{"signal":99999999999}"#).is_err());
        assert!(signal(r#"{"signal":[]}"#).is_err());
    }
}
