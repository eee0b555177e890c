//! Where programs are.

use std::env;
use std::path::{Path, PathBuf};

/// Where administrators' programs live; an ordinary user's `PATH` on Debian leaves these out.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Finds `program` along `PATH` and in the administrators' directories.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM.map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Like [`find`], in one directory only.
#[must_use]
pub fn find_in(directory: &Path, program: &str) -> Option<PathBuf> {
    Some(directory.join(program)).filter(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_system_is_found_and_an_unheard_of_one_is_not() {
        assert!(find("sh").is_some_and(|path| path.ends_with("sh")));
        assert_eq!(find("no-such-program-anywhere"), None);
    }

    #[test]
    fn a_directory_is_not_a_program() {
        assert_eq!(find_in(Path::new("/"), "usr"), None);
    }
}
