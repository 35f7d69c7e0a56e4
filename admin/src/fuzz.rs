//! The control thread through whatever a fuzzer makes of it.
//!
//! Compiled only under `cfg(fuzzing)`.

use std::path::Path;

use crate::control::simulation::{Chance, Scene};

/// What outlives all inputs.
#[derive(Debug)]
pub struct Control(Scene);

impl Control {
    /// A data plane that nobody sends requests to.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it starts threads")]
    pub fn new() -> Self {
        Self(Scene::new())
    }

    /// Lets happen what the bytes say. `directory` is empty.
    ///
    /// # Panics
    /// When a promise is broken.
    pub fn play(&self, bytes: &[u8], directory: &Path) {
        self.0.play(Chance::of_bytes(bytes), directory);
    }
}
