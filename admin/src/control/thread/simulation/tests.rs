//! Many seeds: the same ones on each run of the fast tier, others where `SWITCHBACK_SEEDS` asks for some.
//!
//! A failure prints its seed; `SWITCHBACK_SEED=<seed>` plays that one alone, `SWITCHBACK_SEEDS=<count>`
//! plays more or fewer of them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::*;

/// Where nobody asks for more.
const SEEDS: u64 = 32;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn promises_hold_whatever_happens_in_whatever_order() {
    let scene = Scene::new();
    with_seeds(|seed, directory| scene.play(Chance::of_seed(seed), directory));
}

#[test]
fn instances_agree_whatever_happens_between_them() {
    let harbour = fleet::Harbour::new();
    with_seeds(|seed, directory| harbour.play(Chance::of_seed(seed), directory));
}

fn with_seeds(play: impl Fn(u64, &Path)) {
    let (first, count) = match number("SWITCHBACK_SEED") {
        Some(seed) => (seed, 1),
        None => match number("SWITCHBACK_SEEDS") {
            Some(count) => (fastrand::u64(..1 << 40), count),
            None => (0, SEEDS),
        },
    };
    for seed in first..first + count {
        let directory = tempfile::tempdir().expect("a directory");
        let play = AssertUnwindSafe(|| play(seed, directory.path()));
        if let Err(panic) = catch_unwind(play) {
            println!("SWITCHBACK_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

#[test]
fn promises_hold_for_decisions_given_as_bytes() {
    let scene = Scene::new();
    for script in [&[][..], &[0; 300], &[22; 300], &[255; 300]] {
        let directory = tempfile::tempdir().expect("a directory");
        scene.play(Chance::of_bytes(script), directory.path());
    }
}
