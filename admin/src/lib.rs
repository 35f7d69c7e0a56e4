//! The control plane of switchback.
