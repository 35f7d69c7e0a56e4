//! That a route is on its way out, and when it will be gone.

use serde::Serialize;

use crate::units::Date;

/// What clients of a route are told about its end: at least one of the two dates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deprecation {
    /// From when on it should not be used any more (RFC 9745).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Date>,
    /// When it will be gone (RFC 8594).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sunset: Option<Date>,
    /// What to read about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}
