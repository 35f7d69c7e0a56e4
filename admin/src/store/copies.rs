//! Files beside the database: checksummed copies of the state and of the last good config file, each
//! replaced atomically.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use atomic_write_file::AtomicWriteFile;
use serde::{Deserialize, Serialize};

use super::checksum;
use super::look::Flaw;
use crate::state::State;

/// The last config file that was taken over.
pub(super) const CONFIG: &str = "config.yaml";

const STATE: &str = "state.json";
const STATE_BEFORE: &str = "state.json.1";

/// Exists once a state was recorded, so that its loss is noticed.
const IN_USE: &str = "in-use";

/// Makes a directory that only its owner can read.
pub(super) fn create_private(directory: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let probe = directory.join(".writable");
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(probe)
}

/// Whether a state was ever recorded here.
pub(super) fn was_in_use(directory: &Path) -> bool {
    [IN_USE, STATE, STATE_BEFORE]
        .iter()
        .any(|name| directory.join(name).exists())
}

#[derive(Serialize, Deserialize)]
struct Copy {
    checksum: String,
    /// How often the database had written the state.
    #[serde(default)]
    commits: u64,
    state: Box<serde_json::value::RawValue>,
}

impl Copy {
    fn checksum(commits: u64, state: &str) -> String {
        let mut covered = match commits {
            // As copies were written when nobody counted.
            0 => Vec::new(),
            commits => commits.to_le_bytes().to_vec(),
        };
        covered.extend_from_slice(state.as_bytes());
        hex(&checksum(&covered))
    }
}

/// Writes the copy of the state, keeping the one before. `commits`: how often the database has written
/// the state.
pub(super) fn write_state(directory: &Path, state: &State, commits: u64) -> io::Result<()> {
    let path = directory.join(STATE);
    if path.exists() {
        std::fs::rename(&path, directory.join(STATE_BEFORE))?;
    } else if !directory.join(IN_USE).exists() {
        write(directory, IN_USE, b"")?;
    }
    let state = serde_json::value::to_raw_value(state).map_err(io::Error::other)?;
    let copy = Copy {
        checksum: Copy::checksum(commits, state.get()),
        commits,
        state,
    };
    let text = serde_json::to_vec(&copy).map_err(io::Error::other)?;
    write(directory, STATE, &text)
}

/// Whether the copies that are there are what was written.
pub(super) fn look(directory: &Path) -> Result<(), Flaw> {
    for name in [STATE, STATE_BEFORE] {
        return match std::fs::read(directory.join(name)) {
            Ok(text) if valid(&text).is_some() => Ok(()),
            Ok(_) => Err(Flaw::Seen(format!("{name} is damaged"))),
            // It is being replaced, or could not be.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Err(Flaw::of(name, &error)),
        };
    }
    match directory.join(IN_USE).exists() {
        true => Err(Flaw::Seen(format!("{STATE} is missing"))),
        false => Ok(()),
    }
}

/// Writes the copy anew if it is not what was written, from a database that is.
pub(super) fn repair(directory: &Path, state: &State, commits: u64) {
    let Err(Flaw::Seen(reason)) = look(directory) else {
        return;
    };
    tracing::warn!(%reason, "the copy of the state is written anew");
    if let Err(error) = write_state(directory, state, commits) {
        tracing::warn!(%error, "write the copy of the state");
    }
}

/// The newest valid copy, and how often the database had written the state by then.
pub(super) fn newest(directory: &Path) -> Option<(State, u64)> {
    [STATE, STATE_BEFORE].iter().find_map(|name| {
        let text = std::fs::read(directory.join(name)).ok()?;
        valid(&text)
    })
}

/// What a copy holds, if it is what was written.
fn valid(text: &[u8]) -> Option<(State, u64)> {
    let copy: Copy = serde_json::from_slice(text).ok()?;
    let holds = copy.checksum == Copy::checksum(copy.commits, copy.state.get());
    let state = holds.then(|| serde_json::from_str(copy.state.get()).ok())??;
    Some((state, copy.commits))
}

/// Replaces a file atomically; only its owner can read it.
pub(super) fn write(directory: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    let mut file = AtomicWriteFile::open(directory.join(name))?;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(contents)?;
    file.commit()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
