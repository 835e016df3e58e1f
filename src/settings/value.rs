//! The value of a setting, read from text; here the types that the standard
//! library already has.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

/// A type that a setting may have.
pub trait Value: Sized {
    /// Nothing works without a value: true of everything but an `Option`.
    const REQUIRED: bool = true;

    /// Reads the value from its text, which carries no white space around it.
    ///
    /// # Errors
    /// Says in a few words what is wrong, as the rest of a sentence about the
    /// value, and does not repeat the whole value: it may be secret.
    fn parse(text: &str) -> Result<Self, String>;

    /// The value when neither a source nor a default gives one.
    fn unset() -> Option<Self> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    const REQUIRED: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }

    fn unset() -> Option<Self> {
        Some(None)
    }
}

/// The value that `text` names among `choices`.
///
/// # Errors
/// Lists the names that exist.
pub fn choice<T: Clone>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let known = choices
        .iter()
        .find(|(name, _)| text.eq_ignore_ascii_case(name));
    known.map(|(_, value)| value.clone()).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        format!("is not one of {}", names.join(", "))
    })
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err("is neither true nor false".into()),
        }
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn parse(text: &str) -> Result<Self, String> {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                if !digits {
                    return Err("is not a whole number".into());
                }
                text.parse().map_err(|_| format!("is above {}", <$type>::MAX))
            }
        }
    )*};
}
integers!(u16, u32, u64, usize);

impl Value for NonZeroU32 {
    fn parse(text: &str) -> Result<Self, String> {
        Self::new(u32::parse(text)?).ok_or_else(|| "is zero".into())
    }
}

impl Value for NonZeroU16 {
    fn parse(text: &str) -> Result<Self, String> {
        Self::new(u16::parse(text)?).ok_or_else(|| "is zero".into())
    }
}

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("has no unit (ms, s, min, h, d)".into());
        }
        // Sizes have mebi there.
        if text.contains('M') {
            return Err("has the unit M, which would be months: say min, or month".into());
        }
        humantime::parse_duration(text).map_err(|_| "is not a duration".into())
    }
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("is empty".into())
        } else {
            Ok(text.into())
        }
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        String::parse(text).map(PathBuf::from)
    }
}
