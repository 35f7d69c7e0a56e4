//! What a file says about databases.

use super::TextItem;
use crate::decode::{Spanned, Words, section};
use crate::model::Migration;
use crate::units::TimeSpan;

/// A schema version with its place.
pub(crate) type NumberItem = Spanned<u32>;

section! {
    /// Which versions of the database schema a version can live with.
    SchemaSupport {
        /// It works on a database with one of these.
        reads: Vec<NumberItem>,
        /// It writes data in the form of this one, which is one of `reads`.
        writes: u32,
    }
}

section! {
    /// The database behind a service.
    Database {
        /// `gate contract` opens when no request has gone for so long to a version that could not live after the contract. Default: 48h.
        contract_after: TimeSpan,
        /// The command of the reverse migration: printed by `schema reverse`, never run.
        reverse_command: String,
        /// What else to look at before it is run.
        checklist: Vec<TextItem>,
    }
}

impl Words for Migration {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("none", Self::None),
        ("expand", Self::Expand),
        ("contract", Self::Contract),
        ("destructive", Self::Destructive),
    ];
}
