//! How much of the verifier's patience each program may use.
//!
//! The kernel gives up on a program after walking a million instructions, states pruned. The budget is far below, so
//! that a change that makes the verifier walk much more is seen when it is made. Older kernels prune less: a line of
//! kernels may have budgets of its own, which `cargo xtask kernels` holds it to.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use anyhow::{Context, Result, bail};
use aya::EbpfLoader;
use aya::programs::Program;

/// The file, kept in the tree.
const FILE: &str = include_str!("../verified-instructions.toml");
/// The section of the file for kernels without one of their own.
const OTHER: &str = "other";
/// The load-time constant that decides how much the program logs.
const LOG_LEVEL: &str = "AYA_LOG_LEVEL";
/// Its value for each name that the file uses: nothing, and all that there is.
const LEVELS: [(&str, u8); 2] = [("off", 0), ("debug", 4)];

/// One program, loaded with one set of constants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name in the object.
    pub program: String,
    /// Level of its log.
    pub log: &'static str,
    /// Instructions that the verifier walked.
    pub verified: u32,
    /// Instructions that it may walk; `None` where the file has no such row.
    pub budget: Option<u32>,
}

impl Row {
    /// Why the row fails; `None` where it is good.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let Self {
            program,
            log,
            verified,
            budget,
        } = self;
        match budget {
            None => Some(format!(
                "no budget for `{program}` under [{log}] in tests/verified-instructions.toml"
            )),
            Some(budget) if verified > budget => Some(format!(
                "`{program}` with log {log}: {verified} instructions, the budget is {budget}"
            )),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program,
            log,
            verified,
            budget,
        } = self;
        let budget = budget.map_or_else(|| "none".to_owned(), |budget| budget.to_string());
        write!(f, "{program:<14} log {log:<6} {verified:>8} of {budget}")
    }
}

/// Has the kernel verify every program of an object with every set of constants, and compares with the file.
///
/// # Errors
/// Where the kernel refuses a program, with the verifier's last lines; where the file names a program that is not there.
pub fn verify(object: &[u8]) -> Result<Vec<Row>> {
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
    let mut budgets = budgets(FILE, &release).context("tests/verified-instructions.toml")?;
    let mut rows = Vec::new();
    for (log, level) in LEVELS {
        let mut budget = budgets.remove(log).unwrap_or_default();
        let mut loaded = EbpfLoader::new()
            .override_global(LOG_LEVEL, &level, false)
            .load(object)
            .context("loading the object")?;
        let mut programs: Vec<_> = loaded.programs_mut().collect();
        programs.sort_by_key(|(name, _)| (*name).to_owned());
        for (name, program) in programs {
            let verified = verified_instructions(program)
                .with_context(|| format!("verifying `{name}`, log {log}"))?;
            rows.push(Row {
                program: name.to_owned(),
                log,
                verified,
                budget: budget.remove(name),
            });
        }
        if let Some(name) = budget.keys().next() {
            bail!(
                "tests/verified-instructions.toml: [{log}] names `{name}`, which the object does not have"
            );
        }
    }
    if let Some(section) = budgets.keys().next() {
        bail!("tests/verified-instructions.toml: unknown section [{section}]");
    }
    Ok(rows)
}

/// Instructions by program, by level of the log.
type Budgets = BTreeMap<String, BTreeMap<String, u32>>;

/// The budgets for a kernel of this release, `6.1.0-56-cloud-amd64` for instance.
fn budgets(file: &str, release: &str) -> Result<Budgets> {
    let mut kernels: BTreeMap<String, Budgets> = toml::from_str(file)?;
    let line = release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    let own = kernels.remove(&line);
    own.or_else(|| kernels.remove(OTHER))
        .with_context(|| format!("no section [{OTHER}]"))
}

fn verified_instructions(program: &mut Program) -> Result<u32> {
    match program {
        Program::Xdp(program) => program.load()?,
        Program::SchedClassifier(program) => program.load()?,
        other => bail!(
            "a program of type {:?}, which is not loaded here yet",
            other.prog_type()
        ),
    }
    let count = program.info()?.verified_instruction_count();
    count.context("the kernel does not say (it is older than 5.16)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_kernels_has_its_own_budgets_and_others_share_one() {
        let file = "[other.off]\nlb = 1\n[\"6.1\".off]\nlb = 2\n";
        let lb = |release| budgets(file, release).unwrap()["off"]["lb"];
        assert_eq!(lb("6.1.0-56-cloud-amd64"), 2);
        assert_eq!(lb("6.1"), 2);
        assert_eq!(lb("6.18.44"), 1);
        assert_eq!(lb("6.12.117+deb12-cloud-amd64"), 1);
        assert!(budgets("[\"6.1\".off]\nlb = 2\n", "6.18.44").is_err());
        assert_eq!(budgets(FILE, "6.1.9").unwrap().len(), LEVELS.len());
    }
}
