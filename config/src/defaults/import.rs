//! What is read of other tools.

/// Longest file that `import` reads.
pub const IMPORT_BYTES_MAX: u64 = 1 << 20;
