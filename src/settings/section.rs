//! `section!` declares the settings of one room: the struct, its documentation
//! and its reading, from one text.

/// What is known of one setting before any value of it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name in lower case: the key in the file, `timeout_command`.
    pub key: &'static str,
    /// The value when nobody gives one, as it would be written.
    pub default: Option<&'static str>,
    /// A good value, shown where a bad one is refused.
    pub example: &'static str,
    /// The doc comment, its lines joined.
    pub doc: &'static str,
    /// The value is never shown, and may also come from the file that `<NAME>_FILE` names.
    pub secret: bool,
    /// There is no default and nothing works without a value.
    pub required: bool,
}

impl Spec {
    /// The name in the documentation: `TIMEOUT_COMMAND`.
    pub fn name(&self) -> String {
        self.key.to_ascii_uppercase()
    }

    /// The environment variable: `PORTCULLIS_TIMEOUT_COMMAND`.
    pub fn variable(&self) -> String {
        format!("PORTCULLIS_{}", self.name())
    }

    /// The flag: `--timeout-command`.
    pub fn flag(&self) -> String {
        format!("--{}", self.key.replace('_', "-"))
    }
}

/// Declares the settings of a room.
///
/// ```
/// portcullis::settings::section! {
///     /// How the bell rings.
///     pub struct Settings {
///         /// Pause between two strokes.
///         bell_pause: std::time::Duration = "2s", example "500ms";
///         /// Strokes in all; without end when unset.
///         bell_strokes: Option<u32>, example "12";
///         /// Word that stops the bell.
///         #[secret]
///         bell_word: Option<portcullis::settings::Secret>, example "silence";
///     }
/// }
/// assert_eq!(Settings::default().bell_pause.as_secs(), 2);
/// ```
///
/// The field in upper case is the setting's name. A field without a default
/// is an `Option`, or else required. Generated are the struct, `ABOUT` (its
/// doc comment), `SPECS` (one [`Spec`] per field), `read`, `changed`, `Default`,
/// and a test that every default and every example parses.
#[macro_export]
macro_rules! __section {
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
    (@secret $secret:vis) => { true };
    (
        $(#[doc = $about:literal])*
        $vis:vis struct $Section:ident {
            $(
                $(#[doc = $doc:literal])*
                // `vis` matches nothing: it only tells whether the attribute is there.
                $(#[secret] $secret:vis)?
                $field:ident: $type:ty $(= $default:literal)?, example $example:literal;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        $vis struct $Section {
            $(
                $(#[doc = $doc])*
                $vis $field: $type,
            )*
        }

        impl $Section {
            /// What this section is about.
            $vis const ABOUT: &'static str = concat!($($about),*).trim_ascii();

            /// The settings of this section, in the order of the fields.
            $vis const SPECS: &'static [$crate::settings::Spec] = &[
                $({
                    const DEFAULT: Option<&str> = $crate::settings::section!(@default $($default)?);
                    $crate::settings::Spec {
                        key: stringify!($field),
                        default: DEFAULT,
                        example: $example,
                        doc: concat!($($doc),*).trim_ascii(),
                        secret: false $(|| $crate::settings::section!(@secret $secret))?,
                        required: DEFAULT.is_none() && <$type as $crate::settings::Value>::REQUIRED,
                    }
                },)*
            ];

            /// Reads every setting of this section. Problems gather in the
            /// reader; `None` when there was one in this section.
            $vis fn read(reader: &mut $crate::settings::Reader) -> Option<Self> {
                let mut specs = Self::SPECS.iter();
                $(let $field = specs.next().and_then(|spec| reader.read::<$type>(spec));)*
                Some(Self { $($field: $field?),* })
            }

            /// The keys of the settings that have another value in `new`.
            $vis fn changed(&self, new: &Self) -> Vec<&'static str> {
                let changed = [$((stringify!($field), self.$field != new.$field)),*];
                let changed = changed.into_iter().filter(|(_, changed)| *changed);
                changed.map(|(key, _)| key).collect()
            }
        }

        /// Every setting at its default, a required one at its example: for tests.
        impl Default for $Section {
            fn default() -> Self {
                let mut reader = $crate::settings::Reader::of_examples(
                    Self::SPECS.iter().filter(|spec| spec.required),
                );
                match Self::read(&mut reader) {
                    Some(settings) => settings,
                    None => unreachable!("the test of this section refuses it: {}", reader.finish()),
                }
            }
        }

        #[cfg(test)]
        #[test]
        fn defaults_and_examples_parse() {
            let _ = $Section::default();
            let mut reader = $crate::settings::Reader::of_examples($Section::SPECS);
            let settings = $Section::read(&mut reader);
            assert!(settings.is_some(), "{}", reader.finish());
        }
    };
}

#[cfg(test)]
mod tests;

#[doc(inline)]
pub use crate::__section as section;
