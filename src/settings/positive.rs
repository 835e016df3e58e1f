//! Values of which zero is no sensible one.

use std::ops::Deref;
use std::time::Duration;

use super::{Size, Value};

/// A value above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positive<T>(pub T);

impl<T> Deref for Positive<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Value for Positive<Duration> {
    fn parse(text: &str) -> Result<Self, String> {
        Duration::parse(text).and_then(|span| positive(span, Duration::ZERO))
    }
}

impl Value for Positive<Size> {
    fn parse(text: &str) -> Result<Self, String> {
        Size::parse(text).and_then(|size| positive(size, Size(0)))
    }
}

fn positive<T: PartialEq>(value: T, zero: T) -> Result<Positive<T>, String> {
    if value == zero {
        Err("is zero, which would let nothing pass".to_owned())
    } else {
        Ok(Positive(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_refused_in_every_spelling() {
        for text in ["0s", "0ms", "0d"] {
            assert!(Positive::<Duration>::parse(text).is_err(), "{text}");
        }
        for text in ["0", "0K", "00G"] {
            assert!(Positive::<Size>::parse(text).is_err(), "{text}");
        }
        assert_eq!(Positive::<Size>::parse("1"), Ok(Positive(Size(1))));
        let least = Positive::<Duration>::parse("1ms").unwrap();
        assert_eq!(*least, Duration::from_millis(1));
    }
}
