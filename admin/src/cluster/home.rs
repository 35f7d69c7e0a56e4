//! The name of a state directory, by which two processes that are called alike are told apart.

use std::path::Path;

/// Beside the state. A directory that is copied is no other one.
const FILE: &str = "instance.id";

/// The name of a state directory; made if it has none. Where it cannot be kept, a name for this process alone: the
/// next one then waits until this one's lease has ended.
pub(crate) fn home(state_dir: &Path) -> String {
    let path = state_dir.join(FILE);
    if let Ok(name) = std::fs::read_to_string(&path)
        && !name.trim().is_empty()
    {
        return name.trim().to_owned();
    }
    let name = format!("{:016x}", fastrand::u64(..));
    if let Err(error) = std::fs::write(&path, format!("{name}\n")) {
        tracing::warn!(path = %path.display(), %error, "this state directory cannot be given a name");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_keeps_its_name_and_no_other_one_has_it() {
        let (one, two) = (tempfile::tempdir(), tempfile::tempdir());
        let (one, two) = (one.expect("a directory"), two.expect("a directory"));
        let name = home(one.path());
        assert_eq!(home(one.path()), name);
        assert_ne!(home(two.path()), name);
        assert_ne!(home(Path::new("/nowhere")), home(Path::new("/nowhere")));
    }
}
