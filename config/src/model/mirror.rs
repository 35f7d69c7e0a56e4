//! Mirroring: copies of stable's requests that go to another backend, whose responses nobody sees.
//!
//! What there is to copy, how much of it, and what it may cost is all in here; whether copies are
//! made at a given moment depends on the roles in force, which the file does not know.

use serde::Serialize;

use super::Name;
use crate::units::{ByteSize, Percent, TimeSpan};

/// Sends copies of stable's requests to another backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mirror {
    /// The backend that gets the copies; never stable.
    pub to: Name,
    /// Share of stable's requests with these methods that are copied.
    pub share: Percent,
    /// Methods of the requests that are copied.
    pub methods: Vec<String>,
    /// Requests with a larger body are not copied.
    pub max_body: ByteSize,
    /// How much longer than its original a copy may take.
    pub timeout: TimeSpan,
    /// Copies of one worker at a time.
    pub concurrency: u32,
    /// Whether the judge compares copies with their originals, and blocks a version that fails them.
    pub judge: bool,
}
