//! Where the agent's log goes and what it looks like: to the standard error, for people or as JSON.

use std::{env, io, io::IsTerminal as _};

use tracing_subscriber::{
    EnvFilter, Layer, filter::LevelFilter, fmt, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line: `timestamp` (RFC 3339 in UTC with microseconds), `level`, `target`, `message`, and the
    /// fields of the event beside them.
    Json,
}

/// The log can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a level nor a list of directives.
    #[error(
        "\"{0}\" is not a log level\n   help: use error, warn, info, debug or trace, or directives such as \
         info,hyper=debug"
    )]
    Level(String),
    /// The process logs already.
    #[error(transparent)]
    Taken(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends events at or above `level` to the standard error. `level` may be a list of directives, as
/// [`EnvFilter`] takes them.
///
/// # Errors
/// See [`Error`].
pub fn start(format: Format, level: &str) -> Result<(), Error> {
    let filter = filter(level).ok_or_else(|| Error::Level(level.to_owned()))?;
    let lines = fmt::layer().with_writer(io::stderr);
    let layer = match format {
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        Format::Human => {
            let lines = lines
                .with_target(false)
                .with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none());
            // The journal has times of its own.
            if env::var_os("JOURNAL_STREAM").is_some() {
                lines.without_time().boxed()
            } else {
                lines.boxed()
            }
        }
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()?;
    Ok(())
}

/// What a level or a list of directives lets through; `None` where it is neither. To `EnvFilter` a word that is no level
/// is a target, of which there is none by that name: nothing would be logged.
fn filter(level: &str) -> Option<EnvFilter> {
    let mut parts = level.split(',').map(str::trim);
    let is_known = |part: &str| part.contains(['=', '[']) || part.parse::<LevelFilter>().is_ok();
    let known = parts.all(|part| !part.is_empty() && is_known(part));
    known.then(|| EnvFilter::try_new(directives(level)).ok())?
}

/// Modules of the program in the kernel, as its log names them; those of the agent begin with `lb_userspace`.
const PROGRAM: &str = "lb::";

/// A plain level is meant for the agent; libraries say only what is wrong. What the program logs is shown at any level:
/// it logs nothing that the key `log` of the configuration does not ask for. Only `off` silences it too, and directives
/// that name it.
fn directives(level: &str) -> String {
    let agent = match level {
        "off" => return level.to_owned(),
        "warn" | "info" | "debug" | "trace" => format!("warn,lb={level}"),
        other => other.to_owned(),
    };
    if agent.contains(PROGRAM) {
        return agent;
    }
    format!("{agent},{PROGRAM}=trace")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_that_of_the_agent_and_not_of_its_libraries() {
        assert_eq!(directives("debug"), "warn,lb=debug,lb::=trace");
        assert_eq!(directives("error"), "error,lb::=trace");
        assert_eq!(
            directives("info,hyper=debug"),
            "info,hyper=debug,lb::=trace"
        );
        assert_eq!(directives("lb::logging=info"), "lb::logging=info");
        assert_eq!(directives("off"), "off");
    }

    #[test]
    fn a_word_that_is_no_level_is_no_target_either() {
        for level in [
            "warning",
            "loud",
            "",
            "info,",
            "warning,lb=debug",
            "info,foo=bar=1",
        ] {
            assert!(filter(level).is_none(), "{level}");
        }
        for level in [
            "error",
            "INFO",
            "off",
            "info,hyper=debug",
            "lb_userspace::core[x]=trace",
        ] {
            assert!(filter(level).is_some(), "{level}");
        }
    }

    #[test]
    fn what_the_program_logs_is_shown_whatever_the_agents_level() {
        use tracing::Level;

        for (level, agent) in [
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("warn,hyper=off", Level::WARN),
        ] {
            let filter = filter(level).unwrap();
            let seen = Seen::default();
            let lines = fmt::layer().with_ansi(false).with_writer({
                let seen = seen.clone();
                move || seen.clone()
            });
            tracing::subscriber::with_default(
                tracing_subscriber::registry().with(filter).with(lines),
                || {
                    tracing::debug!(target: "lb::logging", "flow made");
                    tracing::info!(target: "lb::logging", "dropped");
                    tracing::info!(target: "lb_userspace::core", "ready");
                    tracing::debug!(target: "lb_userspace::core", "reconciled");
                },
            );
            let text = seen.text();
            assert!(
                text.contains("flow made") && text.contains("dropped"),
                "{level}: {text}"
            );
            assert_eq!(
                text.contains("ready"),
                agent >= Level::INFO,
                "{level}: {text}"
            );
            assert!(!text.contains("reconciled"), "{level}: {text}");
        }
    }

    /// What was written.
    #[derive(Clone, Debug, Default)]
    struct Seen(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Seen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_no_level_is_named_with_the_help() {
        let error = start(Format::Human, "loud=very").unwrap_err().to_string();
        assert!(
            error.starts_with("\"loud=very\" is not a log level\n   help: use error, warn"),
            "{error}"
        );
    }
}
