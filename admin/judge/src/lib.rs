//! The judge of switchback: counts and times in, verdicts out.
