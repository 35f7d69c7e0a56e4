//! What decides what happens: a seed, or the bytes of a fuzzer.

/// So many choices are made from a seed.
const CHOICES: usize = 700;

/// A source of decisions that ends.
#[derive(Debug)]
pub(crate) struct Chance {
    source: Source,
    left: usize,
}

#[derive(Debug)]
enum Source {
    Seed(fastrand::Rng),
    Bytes(Vec<u8>),
}

impl Chance {
    /// The same decisions for the same seed.
    pub(crate) fn of_seed(seed: u64) -> Self {
        Self {
            source: Source::Seed(fastrand::Rng::with_seed(seed)),
            left: CHOICES,
        }
    }

    /// One decision for each byte.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self {
            left: bytes.len(),
            source: Source::Bytes(bytes.iter().rev().copied().collect()),
        }
    }

    /// Whether there are decisions left.
    pub(crate) const fn goes_on(&self) -> bool {
        self.left > 0
    }

    /// One of `count`; the first, when there are none left.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        let Some(left) = self.left.checked_sub(1) else {
            return 0;
        };
        self.left = left;
        match &mut self.source {
            Source::Seed(random) => random.usize(..count),
            Source::Bytes(bytes) => usize::from(bytes.pop().unwrap_or(0)) % count,
        }
    }

    /// Whether something happens that happens once in `count` times.
    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }
}
