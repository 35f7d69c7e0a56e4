//! Which backend gets the next request: exact shares, and no pattern a client could fall into.
//!
//! Drawing each request at random would let a 1 % canary see nothing for minutes or thirty requests
//! in a row. Here requests are cut into strata of 1/share requests, and each stratum gives the
//! canary exactly one, at a random place (stratified sampling; Cochran, "Sampling Techniques",
//! chapter 5). In any window of requests on one worker a backend is less than two requests away from
//! its exact share. More than two backends form a tree of such two-way choices, so the bound is
//! `2 * ceil(log2 n)`.
//!
//! With a key (affinity) the choice is a function of the key alone: each canary owns an interval of
//! hash values that grows from a fixed end, so raising its weight moves keys from stable to the
//! canary and never the other way.
//!
//! Pure: randomness is an argument. Weight 0 is exactly none, by construction: such a backend is in
//! no tree and owns no interval.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// The shares of one service, immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    weights: Vec<u32>,
    stable: usize,
    nodes: Vec<Node>,
    /// Canaries' intervals of key hashes, by backend: `(first, last)`, both included.
    intervals: Vec<(usize, u64, u64)>,
}

/// One two-way choice, or a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Backend(usize),
    /// `part` of `whole` requests go to node `left`, the others to node `right`.
    Choice {
        part: u64,
        whole: u64,
        left: usize,
        right: usize,
    },
}

impl Split {
    /// The split of backends by weight. `stable` is the backend whose keys canaries take over.
    #[must_use]
    pub fn new(weights: &[u32], stable: usize) -> Self {
        let weighted: Vec<usize> = (0..weights.len()).filter(|b| weights[*b] > 0).collect();
        let mut nodes = Vec::new();
        if !weighted.is_empty() {
            grow(&mut nodes, &weighted, weights);
        }
        Self {
            weights: weights.to_vec(),
            stable,
            nodes,
            intervals: intervals(weights, stable),
        }
    }

    /// The weight of a backend.
    #[must_use]
    pub fn weight(&self, backend: usize) -> u32 {
        self.weights.get(backend).copied().unwrap_or(0)
    }

    /// The share of a backend, from 0 to 1.
    #[must_use]
    pub fn share(&self, backend: usize) -> f64 {
        let sum: u64 = self.weights.iter().map(|w| u64::from(*w)).sum();
        if sum == 0 {
            return 0.0;
        }
        // Both are far below 2^53: at most 32 weights of a million.
        #[allow(
            clippy::cast_precision_loss,
            reason = "sums of weights are far below 2^53"
        )]
        let sum = sum as f64;
        f64::from(self.weight(backend)) / sum
    }

    /// The backend of the next request; none if all weights are 0. Costs one comparison and, once a
    /// stratum, one random number.
    pub fn next(
        &self,
        sampler: &mut Sampler,
        random: &mut impl FnMut(u64) -> u64,
    ) -> Option<usize> {
        let mut at = self.nodes.len().checked_sub(1)?;
        loop {
            match self.nodes[at] {
                Node::Backend(backend) => return Some(backend),
                Node::Choice {
                    part,
                    whole,
                    left,
                    right,
                } => {
                    at = if sampler.strata[at].next(part, whole, random) {
                        left
                    } else {
                        right
                    };
                }
            }
        }
    }

    /// The backend of a key; stable for keys that no canary owns.
    #[must_use]
    pub fn by_key(&self, key: u64) -> usize {
        let owner = self
            .intervals
            .iter()
            .find(|(_, first, last)| (*first..=*last).contains(&key));
        owner.map_or(self.stable, |(backend, _, _)| *backend)
    }
}

/// Adds the subtree of `backends`; its root is the last node added.
fn grow(nodes: &mut Vec<Node>, backends: &[usize], weights: &[u32]) -> usize {
    let sum = |backends: &[usize]| -> u64 { backends.iter().map(|b| u64::from(weights[*b])).sum() };
    let node = match backends {
        [backend] => Node::Backend(*backend),
        _ => {
            let (mut these, mut those) = backends.split_at(backends.len() / 2);
            // Strata are made for the smaller side: the larger they are, the freer is the place.
            if sum(these) > sum(those) {
                std::mem::swap(&mut these, &mut those);
            }
            let (left, right) = (grow(nodes, these, weights), grow(nodes, those, weights));
            Node::Choice {
                part: sum(these),
                whole: sum(backends),
                left,
                right,
            }
        }
    };
    nodes.push(node);
    nodes.len() - 1
}

/// Canaries own the two ends of all hashes, in turn: which end is a matter of a backend's place and
/// not of who else has weight, so that starting one canary does not move the keys of another.
fn intervals(weights: &[u32], stable: usize) -> Vec<(usize, u64, u64)> {
    let sum: u128 = weights.iter().map(|w| u128::from(*w)).sum();
    let canaries = (0..weights.len()).filter(|b| *b != stable).enumerate();
    let weighted = canaries.filter(|(_, backend)| weights[*backend] > 0);
    let (mut low, mut high) = (None, None);
    for (place, backend) in weighted {
        let hashes = (u128::from(weights[backend]) << 64) / sum;
        let last = u64::try_from(hashes - 1).unwrap_or(u64::MAX);
        let end = if place % 2 == 0 { &mut low } else { &mut high };
        // The configuration admits no more than two with affinity; these two may be of one parity.
        if end.is_none() {
            *end = Some((backend, last));
        } else if place % 2 == 0 {
            high = high.or(Some((backend, last)));
        } else {
            low = low.or(Some((backend, last)));
        }
    }
    let low = low.map(|(backend, last)| (backend, 0, last));
    let high = high.map(|(backend, last)| match low {
        // Without a stable share, what rounding leaves between the two belongs to one of them.
        Some((_, _, before)) if weights[stable] == 0 => (backend, before + 1, u64::MAX),
        _ => (backend, u64::MAX - last, u64::MAX),
    });
    low.into_iter().chain(high).collect()
}

/// Where one worker is in the strata of one split.
#[derive(Clone, Debug)]
pub struct Sampler {
    strata: Vec<Stratum>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stratum {
    /// Requests of this stratum that are still to come, and which of them is the one.
    left: u64,
    chosen: u64,
    /// What integer stratum lengths owe to the exact length `whole / part`, in parts.
    remainder: u64,
}

impl Sampler {
    /// A sampler that starts at a random place of a random stratum.
    #[must_use]
    pub fn new(split: &Split, random: &mut impl FnMut(u64) -> u64) -> Self {
        let mut strata = vec![Stratum::default(); split.nodes.len()];
        for (stratum, node) in strata.iter_mut().zip(&split.nodes) {
            if let Node::Choice { part, whole, .. } = node {
                stratum.remainder = random(*part);
                stratum.start(*part, *whole, random);
                stratum.left -= random(stratum.left);
            }
        }
        Self { strata }
    }
}

impl Stratum {
    fn start(&mut self, part: u64, whole: u64, random: &mut impl FnMut(u64) -> u64) {
        let owed = self.remainder + whole;
        self.left = owed / part;
        self.remainder = owed % part;
        self.chosen = 1 + random(self.left);
    }

    /// Whether the next request is the chosen one of its stratum.
    fn next(&mut self, part: u64, whole: u64, random: &mut impl FnMut(u64) -> u64) -> bool {
        if self.left == 0 {
            self.start(part, whole, random);
        }
        let is_chosen = self.left == self.chosen;
        self.left -= 1;
        is_chosen
    }
}

/// The hash of an affinity key: the same in every process, version and machine, since a key's side
/// must survive restarts (SipHash-1-3 with a fixed key, finished so that its bits are uniform).
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x7377_6974_6368_6261, 0x636b_2061_6666_696e);
    hasher.write(key);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut rng = fastrand::Rng::with_seed(seed);
        move |bound| rng.u64(0..bound)
    }

    fn picks(weights: &[u32], seed: u64, count: usize) -> Vec<usize> {
        let split = Split::new(weights, 0);
        let mut random = random(seed);
        let mut sampler = Sampler::new(&split, &mut random);
        (0..count)
            .map(|_| split.next(&mut sampler, &mut random).expect("some weight"))
            .collect()
    }

    /// The largest distance from the exact share of `backend` in any window.
    fn worst_window(picks: &[usize], backend: usize, share: f64) -> f64 {
        // distance(window) = D(end) - D(start) with D the running surplus: its range is the maximum.
        let (mut surplus, mut low, mut high) = (0.0_f64, 0.0_f64, 0.0_f64);
        for pick in picks {
            surplus += f64::from(u8::from(*pick == backend)) - share;
            low = low.min(surplus);
            high = high.max(surplus);
        }
        high - low
    }

    proptest! {
        #[test]
        fn two_backends_stay_within_two_requests_of_their_share(
            stable in 1_u32..2000, canary in 1_u32..2000, seed in any::<u64>(),
        ) {
            let picks = picks(&[stable, canary], seed, 20_000);
            let split = Split::new(&[stable, canary], 0);
            prop_assert!(worst_window(&picks, 1, split.share(1)) < 2.0);
        }

        #[test]
        fn many_backends_stay_within_the_bound_of_their_tree(
            weights in prop::collection::vec(0_u32..50, 2..9), seed in any::<u64>(),
        ) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let split = Split::new(&weights, 0);
            let picks = picks(&weights, seed, 5_000);
            let weighted = weights.iter().filter(|w| **w > 0).count();
            let bound = 2.0 * f64::from(usize::BITS - (weighted - 1).leading_zeros()).max(0.5);
            for backend in 0..weights.len() {
                prop_assert!(worst_window(&picks, backend, split.share(backend)) < bound);
            }
        }

        #[test]
        fn weight_zero_is_exactly_none(
            mut weights in prop::collection::vec(0_u32..5, 2..9), zero in any::<prop::sample::Index>(), seed in any::<u64>(),
        ) {
            let zero = zero.index(weights.len());
            weights[zero] = 0;
            let split = Split::new(&weights, 0);
            if weights.iter().any(|w| *w > 0) {
                prop_assert!(!picks(&weights, seed, 2_000).contains(&zero));
            } else {
                prop_assert_eq!(split.next(&mut Sampler::new(&split, &mut random(1)), &mut random(1)), None);
            }
        }

        #[test]
        fn raising_a_canary_moves_keys_only_from_stable_to_it(
            stable in 0_u32..100, canary in 0_u32..100, other in 0_u32..100, more in 0_u32..50, key in any::<u64>(),
        ) {
            prop_assume!(stable >= more && stable + canary + other > 0);
            let before = Split::new(&[stable, canary, other], 0).by_key(key);
            let after = Split::new(&[stable - more, canary + more, other], 0).by_key(key);
            prop_assert!(after == before || (before == 0 && after == 1), "{before} -> {after}");
        }
    }

    #[test]
    fn shares_of_keys_are_shares_of_weights() {
        let split = Split::new(&[90, 5, 5], 0);
        let mut counts = [0_u32; 3];
        for user in 0..100_000_u32 {
            counts[split.by_key(key_hash(format!("user-{user}").as_bytes()))] += 1;
        }
        for (count, expected) in counts.iter().zip([90_000_u32, 5_000, 5_000]) {
            assert!(count.abs_diff(expected) < 300, "{counts:?}");
        }
    }

    #[test]
    fn keys_of_a_canary_with_everything_and_of_one_with_nothing() {
        for key in [0, 1, u64::MAX / 2, u64::MAX] {
            assert_eq!(Split::new(&[0, 7], 0).by_key(key), 1);
            assert_eq!(Split::new(&[7, 0], 0).by_key(key), 0);
            assert_ne!(Split::new(&[0, 1, 2], 0).by_key(key), 0);
        }
        let thirds = Split::new(&[0, 1, 2], 0);
        for key in u64::MAX / 3 - 2..u64::MAX / 3 + 3 {
            assert_ne!(thirds.by_key(key), 0);
        }
    }

    #[test]
    fn key_hashes_never_change() {
        assert_eq!(key_hash(b""), 8_359_539_641_681_756_428);
        assert_eq!(key_hash(b"user-1"), 15_274_264_438_271_745_332);
    }

    #[test]
    fn places_in_a_stratum_are_spread() {
        let picks = picks(&[19, 1], 7, 40_000);
        let mut places = [0_u32; 20];
        let canary: Vec<usize> = (0..picks.len()).filter(|i| picks[*i] == 1).collect();
        for gap in canary.windows(2).map(|pair| pair[1] - pair[0]) {
            places[gap % 20] += 1;
        }
        assert!(places.iter().all(|count| *count > 20), "{places:?}");
    }
}
