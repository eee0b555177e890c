//! What became of the bugs, and the reasons for which some may live.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// What became of bugs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdicts {
    /// A test failed.
    pub(super) caught: usize,
    /// The kernel's verifier refused the program.
    pub(super) refused: usize,
    /// Those that nothing noticed, by their names.
    pub(super) survivors: Vec<String>,
}

impl Verdicts {
    pub(super) fn add(&mut self, other: Self) {
        self.caught += other.caught;
        self.refused += other.refused;
        self.survivors.extend(other.survivors);
    }

    fn planted(&self) -> usize {
        self.caught + self.refused + self.survivors.len()
    }

    /// Why the whole fails, a line each.
    pub(super) fn faults(&self, reasons: &Reasons, noticed: usize) -> Vec<String> {
        let mut faults = Vec::new();
        let planted = self.planted();
        if planted == 0 {
            faults.push("nothing was planted".to_owned());
        } else if (planted - self.survivors.len()) * 100 < noticed * planted {
            faults.push(format!("less than {noticed} % of the bugs were noticed"));
        }
        let unlisted = self
            .survivors
            .iter()
            .filter(|name| reasons.of(name).is_none());
        faults.extend(unlisted.map(|name| {
            format!("{name} was not noticed: write a test, or the reason into tests/mutants/survivors.txt")
        }));
        faults
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let planted = self.planted();
        let noticed = self.caught + self.refused;
        write!(
            f,
            "mutants: {noticed} of {planted} planted were caught ({} %), {} of them by the verifier",
            noticed * 100 / planted.max(1),
            self.refused
        )
    }
}

/// Why survivors may live: `NAME -- REASON` in a line each, `#` before a comment.
#[derive(Debug, Default)]
pub(super) struct Reasons(BTreeMap<String, String>);

impl Reasons {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut reasons = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // A name of cargo-mutants has single colons of its own.
            let Some((name, reason)) = line.split_once(" -- ") else {
                bail!("line {number} is not `NAME -- REASON`: {line}");
            };
            if reasons.insert(name.to_owned(), reason.to_owned()).is_some() {
                bail!("line {number} names {name} again");
            }
        }
        Ok(Self(reasons))
    }

    pub(super) fn of(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(caught: usize, survivors: &[&str]) -> Verdicts {
        Verdicts {
            caught,
            refused: 0,
            survivors: survivors.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn a_survivor_needs_a_reason_and_the_others_have_to_be_many() {
        let reasons = Reasons::parse("# why\n\na -- it costs time alone\n").unwrap();
        let faults = |verdicts: Verdicts| verdicts.faults(&reasons, 90).len();
        assert_eq!(faults(verdicts(9, &[])), 0);
        assert_eq!(faults(verdicts(9, &["a"])), 0);
        assert_eq!(faults(verdicts(9, &["b"])), 1, "no reason");
        assert_eq!(faults(verdicts(8, &["a"])), 1, "too few");
        assert_eq!(faults(verdicts(0, &[])), 1, "nothing");
    }

    #[test]
    fn a_line_without_a_reason_or_a_name_twice_is_an_error() {
        for text in ["a\n", "a: b\n", "a -- b\na -- c\n"] {
            assert!(Reasons::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_line_says_caught_of_planted() {
        let mut all = verdicts(8, &["a"]);
        all.add(Verdicts {
            refused: 1,
            ..Verdicts::default()
        });
        let line = "mutants: 9 of 10 planted were caught (90 %), 1 of them by the verifier";
        assert_eq!(all.to_string(), line);
    }

    #[test]
    fn the_trees_own_reasons_can_be_read() {
        Reasons::read(&xtask::root().join("tests/mutants/survivors.txt")).unwrap();
    }
}
