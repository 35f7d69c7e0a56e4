//! Noticing that the file, or a file it names, has changed.
//!
//! Directories are watched, not files: editors and ConfigMaps replace files by renaming, and a watch
//! on the old file sees nothing. Any event is only a hint; after a short rest the contents are compared
//! with those last looked at. Once a minute they are compared anyway, for file systems that send no
//! events.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use switchback_config::defaults::{RELOAD_AGAIN, RELOAD_DEBOUNCE, RELOAD_POLL};
use tokio::sync::Notify;

use super::{Reloader, base_of};
use crate::files;

impl Reloader {
    /// Reloads whenever the file or one it names has changed. Never ends.
    pub async fn watch(self: Arc<Self>) {
        let Some(path) = self.path().map(Path::to_path_buf) else {
            return;
        };
        let hint = Arc::new(Notify::new());
        let mut watched = Watched::new(hint.clone());
        // What happened between the first reading and the first watch is found by reading again.
        let mut seen = None;
        loop {
            watched.follow(&self.directories(&path));
            let now = self.fingerprint(&path);
            let mut rest = RELOAD_POLL;
            if seen != Some(now) {
                // The outcome is told by an event. What cannot be done just now is tried again.
                let refused = self.reload(None).await.err();
                if !refused.is_some_and(|error| error.is_for_now()) {
                    seen = Some(now);
                    continue;
                }
                rest = RELOAD_AGAIN;
            }
            tokio::select! {
                () = hint.notified() => tokio::time::sleep(RELOAD_DEBOUNCE).await,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    fn files(&self, path: &Path) -> Vec<PathBuf> {
        let base = base_of(path);
        let named = files::named(&self.controls.published().config);
        std::iter::once(path.to_path_buf())
            .chain(named.iter().map(|named| base.join(named)))
            .collect()
    }

    fn fingerprint(&self, path: &Path) -> [u8; 32] {
        let mut digest = Sha256::new();
        for file in self.files(path) {
            let contents = std::fs::read(&file);
            digest.update([u8::from(contents.is_ok())]);
            digest.update(Sha256::digest(contents.unwrap_or_default()));
        }
        digest.finalize().into()
    }

    fn directories(&self, path: &Path) -> BTreeSet<PathBuf> {
        self.files(path)
            .iter()
            .map(|file| base_of(file).to_path_buf())
            .collect()
    }
}

struct Watched {
    watcher: Option<notify::RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
}

impl Watched {
    fn new(hint: Arc<Notify>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if !event.is_ok_and(|event| event.kind.is_access()) {
                hint.notify_one();
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "watch for changed files; looking once a minute instead"))
            .ok();
        Self {
            watcher,
            directories: BTreeSet::new(),
        }
    }

    fn follow(&mut self, wanted: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for gone in self.directories.difference(wanted) {
            let _ = watcher.unwatch(gone);
        }
        for new in wanted.difference(&self.directories) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(%error, directory = %new.display(), "watch a directory");
            }
        }
        self.directories.clone_from(wanted);
    }
}
