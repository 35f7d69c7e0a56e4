//! How many different clients there were, in 4 KiB.
//!
//! HyperLogLog (Flajolet, Fusy, Gandouet and Meunier, "HyperLogLog: the analysis of a near-optimal
//! cardinality estimation algorithm", 2007) with 4 096 registers: a standard error of 1.6 %, and with
//! the paper's correction of small ranges (linear counting) near exact below some thousands. Hashes
//! have 64 bits, so the correction of large ranges is not needed.
//!
//! Registers only ever rise, and have one writer: a worker. Whoever reads takes the highest of all
//! workers, so a client that several workers saw counts once.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// The first bits of a hash choose the register.
const INDEX_BITS: u32 = 12;

/// Registers; one byte each.
const REGISTERS: usize = 1 << INDEX_BITS;

/// A set of clients, of which only the size can be asked.
#[derive(Debug)]
pub struct Distinct(Box<[AtomicU8]>);

impl Default for Distinct {
    fn default() -> Self {
        Self((0..REGISTERS).map(|_| AtomicU8::new(0)).collect())
    }
}

impl Distinct {
    /// Adds a client by its hash. Only the owning worker may call this: it is a load and at times a
    /// store.
    pub(crate) fn add(&self, hash: u64) {
        let index = usize::try_from(hash >> (u64::BITS - INDEX_BITS)).unwrap_or(0);
        // The bit behind the last one of the hash is taken to be set, so that the rank is bounded.
        let rest = hash << INDEX_BITS | 1 << (INDEX_BITS - 1);
        let rank = u8::try_from(rest.leading_zeros() + 1).unwrap_or(u8::MAX);
        let register = &self.0[index];
        if rank > register.load(Relaxed) {
            register.store(rank, Relaxed);
        }
    }

    /// How many different clients were added to any of these.
    #[must_use]
    pub fn estimate<'a>(sets: impl Iterator<Item = &'a Self>) -> u64 {
        let mut highest = [0_u8; REGISTERS];
        for set in sets {
            for (highest, register) in highest.iter_mut().zip(&set.0) {
                *highest = register.load(Relaxed).max(*highest);
            }
        }
        estimate(&highest)
    }
}

/// Figure 3 of the paper.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "estimates are positive and far below 2^63"
)]
fn estimate(registers: &[u8; REGISTERS]) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "4 096")]
    let count = REGISTERS as f64;
    let alpha = 0.7213 / (1.0 + 1.079 / count);
    let sum: f64 = registers
        .iter()
        .map(|rank| (-f64::from(*rank)).exp2())
        .sum();
    let raw = alpha * count * count / sum;
    let empty = registers.iter().filter(|rank| **rank == 0).count();
    let estimate = if raw <= 2.5 * count && empty > 0 {
        #[expect(clippy::cast_precision_loss, reason = "at most 4 096")]
        let empty = empty as f64;
        count * (count / empty).ln()
    } else {
        raw
    };
    estimate.round() as u64
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    fn of(clients: std::ops::Range<u64>, hasher: &std::hash::RandomState) -> Distinct {
        let set = Distinct::default();
        clients.for_each(|client| set.add(hasher.hash_one(client)));
        set
    }

    /// Five standard errors for single sets: once in a million runs.
    fn assert_near(found: u64, expected: u64) {
        let far = found.abs_diff(expected);
        let allowed = expected * 9 / 100 + 3;
        assert!(far <= allowed, "{found} instead of {expected}");
    }

    #[test]
    fn estimate_is_near_at_any_size() {
        let hasher = std::hash::RandomState::new();
        for size in [0, 1, 2, 10, 100, 1_000, 10_000, 12_000, 100_000, 1_000_000] {
            let set = of(0..size, &hasher);
            assert_near(Distinct::estimate([&set].into_iter()), size);
        }
    }

    #[test]
    fn standard_error_is_what_the_paper_says() {
        for size in [500_u64, 50_000] {
            let runs = 60_u32;
            let squares = (0..runs).map(|_| {
                let set = of(0..size, &std::hash::RandomState::new());
                let found = Distinct::estimate([&set].into_iter());
                (found.abs_diff(size) as f64 / size as f64).powi(2)
            });
            let error = (squares.sum::<f64>() / f64::from(runs)).sqrt();
            assert!(error < 1.04 / 64.0 * 1.5, "{error} at {size}");
        }
    }

    #[test]
    fn clients_seen_by_several_workers_count_once() {
        let hasher = std::hash::RandomState::new();
        let sets = [
            of(0..600, &hasher),
            of(300..900, &hasher),
            of(0..0, &hasher),
        ];
        assert_near(Distinct::estimate(sets.iter()), 900);
        let twice = of(0..600, &hasher);
        (0..600_u64).for_each(|client| twice.add(hasher.hash_one(client)));
        assert_eq!(
            Distinct::estimate([&twice].into_iter()),
            Distinct::estimate([&sets[0]].into_iter())
        );
    }

    #[test]
    fn ranks_stay_within_a_register() {
        let set = Distinct::default();
        for hash in [0, 1, u64::MAX, u64::MAX << 52, 1 << 51] {
            set.add(hash);
        }
        assert_eq!(set.0[0].load(Relaxed), 53);
        assert_eq!(set.0[REGISTERS - 1].load(Relaxed), 53);
    }
}
