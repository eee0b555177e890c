//! A bug to be planted: a text of the sources that is there once, and what is put in its place.
//!
//! ```text
//! STAGE: WHAT IT DOES
//! FILE
//! --- find
//! TEXT
//! --- put
//! ANOTHER TEXT
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A bug of `tests/mutants`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plant {
    /// The name of its file, without the ending.
    pub(super) name: String,
    /// The stage of the packet's walk that it is in.
    pub(super) stage: String,
    /// What goes wrong.
    pub(super) what: String,
    /// Relative to the root.
    pub(super) file: PathBuf,
    find: String,
    put: String,
}

/// The ending of their files.
const ENDING: &str = "plant";

/// Every bug of the tree, by their names.
pub(super) fn all() -> Result<Vec<Plant>> {
    let directory = xtask::root().join("tests/mutants");
    let entries =
        fs::read_dir(&directory).with_context(|| format!("can't read {}", directory.display()))?;
    let mut plants = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("can't read {}", path.display()))?;
            plants.push(Plant::parse(&path, &text)?);
        }
    }
    plants.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(plants)
}

impl Plant {
    fn parse(path: &Path, text: &str) -> Result<Self> {
        let parts = || -> Option<Self> {
            let (head, change) = text.split_once("\n--- find\n")?;
            let (title, file) = head.split_once('\n')?;
            let (stage, what) = title.split_once(": ")?;
            let (find, put) = change.split_once("\n--- put\n")?;
            Some(Self {
                name: path.file_stem()?.to_str()?.to_owned(),
                stage: stage.to_owned(),
                what: what.to_owned(),
                file: file.into(),
                find: find.to_owned(),
                put: put.strip_suffix('\n').unwrap_or(put).to_owned(),
            })
        };
        parts().with_context(|| {
            format!(
                "{} is not a bug to plant: `STAGE: WHAT`, the file, `--- find`, a text, `--- put`, another",
                path.display()
            )
        })
    }

    /// The source with the bug in it.
    pub(super) fn planted(&self, source: &str) -> Result<String> {
        let Self {
            name, file, find, ..
        } = self;
        match source.matches(find.as_str()).count() {
            1 if *find != self.put => Ok(source.replacen(find.as_str(), &self.put, 1)),
            1 => bail!("tests/mutants/{name}.{ENDING} changes nothing"),
            count => bail!(
                "tests/mutants/{name}.{ENDING}: its text is {count} times in {}, and has to be there once: fit it to the source",
                file.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Where the walk of a packet in ARCHITECTURE.md has been, and what stands beside it.
    const STAGES: [&str; 14] = [
        "control",
        "fast path",
        "flow",
        "forward",
        "maintenance",
        "make",
        "ours",
        "parse",
        "rewrite",
        "schedule",
        "service",
        "stats",
        "transport",
        "ttl answer",
    ];

    #[test]
    fn every_bugs_text_is_in_its_source_once() {
        for plant in all().unwrap() {
            let source = xtask::root().join(&plant.file);
            let source = fs::read_to_string(&source)
                .unwrap_or_else(|error| panic!("{}: {error}", source.display()));
            let planted = plant.planted(&source).unwrap();
            assert_ne!(planted, source);
        }
    }

    #[test]
    fn every_stage_has_bugs_and_the_fast_path_most() {
        let plants = all().unwrap();
        let stages: BTreeSet<_> = plants.iter().map(|plant| plant.stage.as_str()).collect();
        assert_eq!(stages.into_iter().collect::<Vec<_>>(), STAGES);
        assert!(plants.len() >= 40, "{}", plants.len());
        let fast = plants.iter().filter(|plant| plant.stage == "fast path");
        assert!(fast.count() >= 20);
    }

    #[test]
    fn a_text_that_is_not_there_or_there_twice_is_an_error() {
        let text = "flow: it stands still\nsrc/a.rs\n--- find\na += 1;\n--- put\n";
        let plant = Plant::parse(Path::new("tests/mutants/still.plant"), text).unwrap();
        assert_eq!(plant.name, "still");
        assert_eq!(plant.planted("{ a += 1; }").unwrap(), "{  }");
        for source in ["", "a += 1; a += 1;"] {
            let error = plant.planted(source).unwrap_err().to_string();
            assert!(
                error.contains("still.plant") && error.contains("src/a.rs"),
                "{error}"
            );
        }
        assert!(Plant::parse(Path::new("x.plant"), "flow: no file\n--- find\n").is_err());
    }
}
