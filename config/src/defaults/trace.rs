//! Spans that wait for the collector of traces.

/// Spans that a worker gathers before it hands them over, unless its tick comes first.
pub const SPAN_LOT: usize = 256;

/// Lots that may wait: with [`SPAN_LOT`] some 16 000 spans, of about a kilobyte each, and never more than a few.
pub const SPAN_LOTS: usize = 64;

/// What a span tells of each text that a client wrote: clients must not choose how much memory spans take.
pub const SPAN_TEXT_BYTES: usize = 1024;
