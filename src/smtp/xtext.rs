//! xtext (RFC 3461 4): printable ASCII with `+XX` escapes.

/// Decoded content of an xtext value: ASCII octets, control characters allowed only as escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xtext(String);
