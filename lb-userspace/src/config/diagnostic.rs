//! What is wrong with a configuration: where, what, and how to put it right.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    ops::Range,
};

use serde::Serialize;

/// Most warnings of one kind that are shown each by itself.
const APART: usize = 3;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is accepted, and invites trouble.
    Warning,
}

/// One finding. `Display` gives it as people read it, over several lines without a final newline; `Serialize` as an
/// object for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Name of the file, as the operator gave it.
    pub file: String,
    /// Where in the file; `None` where the finding is about the file as a whole.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// What is wrong, the value included.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// A stretch of one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// First column after the stretch; at least `column + 1`.
    pub end_column: usize,
    /// The line itself, without its end.
    pub text: String,
}

/// All findings on a file, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Whether any of them is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// How many are of that severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.0
            .iter()
            .filter(|diagnostic| diagnostic.severity == severity)
            .count()
    }

    /// The findings as people read them. Thousands of services may have the same thing said of them: of more than
    /// `APART` warnings of one kind, which are those with the same help, the first stands for all and says how many
    /// there are.
    #[must_use]
    pub fn grouped(&self) -> Vec<Diagnostic> {
        let is_warning = |finding: &&Diagnostic| finding.severity == Severity::Warning;
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for warning in self.0.iter().filter(is_warning) {
            *counts.entry(&warning.help).or_default() += 1;
        }
        let mut told = HashSet::new();
        let one = |finding: &Diagnostic| {
            let count = counts.get(&*finding.help).copied().unwrap_or_default();
            if !is_warning(&finding) || count <= APART {
                return Some(finding.clone());
            }
            told.insert(finding.help.clone()).then(|| Diagnostic {
                message: format!(
                    "{}; {} more warnings are of this kind, which `lb check --json` names",
                    finding.message,
                    count - 1
                ),
                ..finding.clone()
            })
        };
        self.0.iter().filter_map(one).collect()
    }

    /// Each of the [grouped](Self::grouped) ones as a text of its own, for a log or an answer.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.grouped().iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.grouped().iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            severity,
            file,
            place,
            message,
            help,
        } = self;
        match place {
            None => writeln!(f, "{file}: {severity}: {message}")?,
            Some(Place {
                line,
                column,
                end_column,
                text,
            }) => {
                writeln!(f, "{file}:{line}:{column}: {severity}: {message}")?;
                writeln!(f, "{line:>5} | {text}")?;
                // Tabs stay tabs, so that the caret stands under its character however wide they are shown.
                let indent: String = text
                    .chars()
                    .take(column - 1)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                writeln!(
                    f,
                    "      | {indent}{}",
                    "^".repeat(end_column.saturating_sub(*column).max(1))
                )?;
            }
        }
        write!(f, "   help: {help}")
    }
}

/// Collects findings on one text.
#[derive(Debug)]
pub(super) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    /// Where each line begins.
    lines: Vec<usize>,
    findings: Vec<(usize, Diagnostic)>,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(newline, _)| newline + 1))
            .collect();
        Self {
            file,
            text,
            lines,
            findings: Vec::new(),
        }
    }

    /// An error at the bytes `span` of the text.
    pub(super) fn error(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Error, span, message.into(), help.into());
    }

    /// A warning at the bytes `span` of the text.
    pub(super) fn warning(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Warning, span, message.into(), help.into());
    }

    /// An error about the file as a whole.
    pub(super) fn error_in_file(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.add_to_file(Severity::Error, message.into(), help.into());
    }

    /// A warning about the file as a whole.
    pub(super) fn warning_in_file(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.add_to_file(Severity::Warning, message.into(), help.into());
    }

    /// The line, from 1, of a byte of the text.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset).max(1)
    }

    pub(super) fn finish(mut self) -> Diagnostics {
        self.findings.sort_by_key(|(offset, _)| *offset);
        Diagnostics(
            self.findings
                .into_iter()
                .map(|(_, diagnostic)| diagnostic)
                .collect(),
        )
    }

    fn add(&mut self, severity: Severity, span: &Range<usize>, message: String, help: String) {
        let place = Some(self.place(span));
        let diagnostic = Diagnostic {
            severity,
            file: self.file.to_owned(),
            place,
            message,
            help,
        };
        self.findings.push((span.start, diagnostic));
    }

    fn add_to_file(&mut self, severity: Severity, message: String, help: String) {
        let diagnostic = Diagnostic {
            severity,
            file: self.file.to_owned(),
            place: None,
            message,
            help,
        };
        self.findings.push((usize::MAX, diagnostic));
    }

    /// The parser's spans lie on character boundaries; a finding must not become a panic if one day they do not.
    fn boundary(&self, offset: usize) -> usize {
        let mut below = (0..=offset.min(self.text.len())).rev();
        below
            .find(|offset| self.text.is_char_boundary(*offset))
            .unwrap_or_default()
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let start = self.boundary(span.start);
        let line_start = self.lines[self.line(start) - 1];
        let line = self.text[line_start..]
            .split('\n')
            .next()
            .unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let line_end = (line_start + line.len()).max(start);
        let end = self.boundary(span.end.clamp(start, line_end));
        let column = self.text[line_start..start].chars().count() + 1;
        let width = self.text[start..end].chars().count().max(1);
        // What the file holds must not steer the terminal it is shown on.
        let text = line
            .chars()
            .map(|c| {
                if c.is_control() && c != '\t' {
                    '\u{fffd}'
                } else {
                    c
                }
            })
            .collect();
        Place {
            line: self.line(start),
            column,
            end_column: column + width,
            text,
        }
    }
}
