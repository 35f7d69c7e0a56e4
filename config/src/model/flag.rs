//! Feature flags: what applications and backends are told to do, apart from what is deployed.
//!
//! Written out, a flag says everything: a flag of on and off has these two variants like any other.
//! Who gets what is worked out where it is asked for; here is only what was meant.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AdminTls, Name};
use crate::defaults::FLAG_AGE_MAX;
use crate::units::{Percent, TimeSpan};

/// Where applications ask for flags.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ofrep {
    /// Where it listens. Anything but loopback has `tls` and `tokens_file`.
    pub address: SocketAddr,
    /// TLS; plain text without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<AdminTls>,
    /// File of tokens; without one, none is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_file: Option<PathBuf>,
}

/// A feature flag.
///
/// Invariant: `default`, `off` and all that is served name variants; shares are at most 100 % together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flag {
    /// Whether it is in use; otherwise everybody gets `off`.
    pub enabled: bool,
    /// Its values by name.
    pub variants: IndexMap<Name, Value>,
    /// The variant of whom nothing else concerns.
    pub default: Name,
    /// The variant while it is not in use.
    pub off: Name,
    /// Share of targeting keys that get each variant.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub shares: IndexMap<Name, Percent>,
    /// Who gets something else; the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<FlagRule>,
    /// Whether it is off while its state cannot be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kill_switch: bool,
    /// How old the last look at a kill switch's state may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<TimeSpan>,
}

impl Flag {
    /// Name of the variant that is true, of flags without variants of their own.
    pub const ON: &'static str = "on";
    /// Name of the variant that is false.
    pub const OFF: &'static str = "off";

    /// The variants of a flag that has none of its own.
    #[must_use]
    pub fn on_and_off() -> IndexMap<Name, Value> {
        IndexMap::from([
            (Self::ON.to_owned(), Value::Bool(true)),
            (Self::OFF.to_owned(), Value::Bool(false)),
        ])
    }

    /// Whether it is only on or off.
    #[must_use]
    pub fn is_boolean(&self) -> bool {
        self.variants == Self::on_and_off()
    }

    /// How old the last look at its state may be; none: that does not matter.
    #[must_use]
    pub fn age_max(&self) -> Option<Duration> {
        self.kill_switch
            .then(|| self.max_age.map_or(FLAG_AGE_MAX, |span| span.0))
    }
}

/// What some get instead, by attributes of the context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlagRule {
    /// What each attribute has to be.
    pub when: IndexMap<String, Condition>,
    /// The variant they get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve: Option<Name>,
    /// Share of their targeting keys that get each variant, if not all get one; the others get the
    /// default.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub shares: IndexMap<Name, Percent>,
}

/// What an attribute has to be; all of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// One of these; empty: that does not matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub is: Vec<Value>,
    /// None of these, or not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not: Vec<Value>,
    /// Text that begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_with: Option<String>,
    /// Text that ends so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_with: Option<String>,
    /// Text with this in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// A number above this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// A number below this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
}

/// Which flags the backends of a service are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlagHeader {
    /// The request header that tells, in lower case.
    pub header: String,
    /// The flags, in this order.
    pub names: Vec<Name>,
}
