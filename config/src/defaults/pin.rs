//! Bounds of what keeps a page and its files together.

/// Paths below which files belong to one version; each of them is compared with the path of a 404.
pub const ASSET_PREFIXES_MAX: usize = 16;
